"""How an encoder contracts the space around examples: the spectrum of its Jacobian, and distances before and after."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import jacobian
from aejax.checks import InputError, check_positive
from aejax.data import Batch
from aejax.evaluation.apply import call, embed, examples, over_batches
from aejax.nets import Autoencoder


def spectra(model: Autoencoder, params: Any, data: ArrayLike | Batch, *, batch_size: int = 20) -> np.ndarray:
    """Singular values of the Jacobian of `model.embed` at each example.

    Args:
      model: any `Autoencoder`.
      params: by group.
      data: x, `[N, ...]`, what the model takes, of D numbers each; or `Batch(x, y)`, for a conditioned model.
      batch_size: Jacobians, of Z x D numbers each, that are held at once.

    Returns:
      `[N, min(D, Z)]`, descending, in code units / data units.

    Reference: Rifai et al. (2011), section 5.3, where their mean over examples is the picture of the local dimension.
    """
    return over_batches(partial(_singular_values, params, model=model), *examples(model, data), batch_size=batch_size)


def effective_rank(s: ArrayLike) -> np.ndarray:
    """Effective number of singular values, the participation ratio of their squares: `(sum s^2)^2 / sum s^4`.

    Args:
      s: `[..., K]`, not negative.

    Returns:
      `[...]`, from 1 (a single one) to K (all the same); NaN where all are zero.

    Example:
      >>> float(effective_rank([3.0, 3.0, 0.0, 0.0]))
      2.0
    """
    s_sq = np.square(np.asarray(s, np.float64))
    with np.errstate(invalid="ignore"):
        return np.square(s_sq.sum(axis=-1)) / np.square(s_sq).sum(axis=-1)


def contraction_curve(
    model: Autoencoder,
    params: Any,
    data: ArrayLike | Batch,
    radii: Sequence[float] | np.ndarray,
    key: jax.Array,
    *,
    num_directions: int = 10,
) -> np.ndarray:
    """Contraction ratio against distance: the mean of `|embed(x + r u) - embed(x)| / r` over examples and directions.

    The directions u are uniform on the unit sphere, the same for every radius. At small r the ratio is the mean of
    `|J u|`, whose mean square is the squared Frobenius norm of J over D. The points leave the range of the data; the
    encoder is asked about them all the same, as in the paper.

    Args:
      model, params, data: as in `spectra`.
      radii: `[R]`, positive, in data units.
      key: consumed.
      num_directions: for each example.

    Returns:
      `[R]`, in code units / data units.

    Raises:
      InputError: a radius is not positive, or there are no directions.

    Reference: Rifai et al. (2011), section 5.3, contraction curves: one point from held-out data, the other random at
    distance r from it.
    """
    if num_directions < 1:
        raise InputError(f"num_directions is {num_directions}; it takes at least one.")
    for i, radius in enumerate(radii):
        check_positive(**{f"radii[{i}]": radius})
    z = np.repeat(embed(model, params, data), num_directions, axis=0)
    repeated, *condition = (np.repeat(np.asarray(a), num_directions, axis=0) for a in examples(model, data))
    u = np.asarray(jax.random.normal(key, repeated.shape)).reshape(len(repeated), -1)
    u = (u / np.linalg.norm(u, axis=1, keepdims=True)).reshape(repeated.shape)
    embedded = partial(over_batches, partial(call, model, params, "embed"))
    shifts = [embedded(repeated + r * u, *condition) - z for r in radii]
    return np.array(
        [np.linalg.norm(dz, axis=1).mean(dtype=np.float64) / r for dz, r in zip(shifts, radii, strict=True)]
    )


def pair_contraction(model: Autoencoder, params: Any, data: ArrayLike | Batch) -> tuple[float, float]:
    """What becomes of the distances between examples: `(ratio, distance)`.

    Args:
      model, params, data: as in `spectra`; at least two x that differ; all N (N - 1) / 2 pairs are taken, but those of
        the same x.

    Returns:
      The mean over pairs of `|embed(a) - embed(b)| / |a - b|`, and that of `|a - b|`.
    """
    from scipy.spatial.distance import pdist

    x = np.asarray(examples(model, data)[0])
    before = pdist(x.reshape(len(x), -1).astype(np.float64))
    after = pdist(embed(model, params, data).astype(np.float64))
    before, after = before[before > 0], after[before > 0]
    return float(np.mean(after / before)), float(before.mean())


@partial(jax.jit, static_argnames="model")
def _singular_values(params: Any, x: jax.Array, *condition: jax.Array, model: Autoencoder) -> jax.Array:
    embed = model.bind({"params": params}).embed

    def of_one(x: jax.Array, *own: jax.Array) -> jax.Array:
        return jacobian.singular_values(lambda v: embed(v[None], *(a[None] for a in own))[0], x)

    return jax.vmap(of_one)(jnp.asarray(x), *condition)
