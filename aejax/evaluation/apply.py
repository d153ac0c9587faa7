"""A model applied to a whole data set, batch by batch, with results on the host.

One function is compiled per shape and called in a Python loop: a compiled loop would take the `lax` convolutions of a
module that a user brings off their fast path on CPU. The last batch is padded and the padding dropped.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import likelihoods
from aejax.checks import InputError
from aejax.data import Batch, check_examples
from aejax.likelihoods import Likelihood
from aejax.nets import Autoencoder, inputs

BATCH_SIZE = 256


@partial(jax.jit, static_argnames=("model", "method"))
def call(model: Autoencoder, params: Any, method: str, *arrays: ArrayLike) -> Any:
    """`model.method(*arrays)` at these parameters, compiled.

    Args:
      model: any `Autoencoder`.
      params: by group.
      method: the name of one of its maps, such as `decode`.
      arrays: what it takes.

    Returns:
      What it returns; `over_batches(partial(call, model, params, method), *arrays)` for arrays of any length.
    """
    return getattr(model.bind({"params": params}), method)(*arrays)


def embed(model: Autoencoder, params: Any, data: ArrayLike | Batch, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """The codes of all examples, without noise.

    Args:
      model: any `Autoencoder`.
      params: by group.
      data: x, `[N, ...]`, what the model takes; or `Batch(x, y)`, which a conditioned model needs.
      batch_size: examples at once; bounds the memory, does not change the result.

    Returns:
      `[N, Z]` float.

    Raises:
      InputError: no examples, integers or bool, or what is not finite; or a conditioned model without labels, or with
        some that it does not know. Values beyond the likelihood's range pass here, for noise may bring them.
    """
    return over_batches(partial(call, model, params, "embed"), *examples(model, data), batch_size=batch_size)


def reconstruct(
    model: Autoencoder, params: Any, data: ArrayLike | Batch, *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """x_hat of all examples in data space, `[N, ...] -> [N, ...]`; arguments as in `embed`."""
    return over_batches(partial(call, model, params, "reconstruct"), *examples(model, data), batch_size=batch_size)


def reconstruction_sse(
    model: Autoencoder, params: Any, data: ArrayLike | Batch, *, batch_size: int = BATCH_SIZE
) -> float:
    """Squared error of the reconstruction: sum over pixels, mean over images. The metric `test_sse`.

    Args:
      model, params, data, batch_size: as in `embed`; x in the units of the data, so pixels in [0, 1] for the published
        figures of MNIST.

    Returns:
      The mean, accumulated in float64; over what was observed, where x may be missing.

    Reference: Hinton & Salakhutdinov (2006), figure 2, where PCA with 30 components has 13.87 on MNIST.
    """
    arrays = examples(model, data, likelihood=model.likelihood)
    each = over_batches(partial(_sse, params, model=model), *arrays, batch_size=batch_size)
    return float(each.mean(dtype=np.float64))


def examples(model: Autoencoder, data: Any, *, likelihood: str | Likelihood | None = None) -> tuple[Any, ...]:
    """`nets.inputs`, after the examples were found to be such as the model is trained on.

    Args:
      model: any `Autoencoder`.
      data: x, or a `Batch`.
      likelihood: whose range x has to be in; without one, any numbers, and NaN where the model takes that.

    Raises:
      InputError: x is not of floats, not finite, outside the range of the likelihood, or empty.
    """
    x = getattr(data, "x", data)
    num_rows(x)
    if likelihood is None:
        likelihood = "gaussian_observed" if model.takes_missing else "gaussian"
    check_examples(x, likelihood)
    return inputs(model, data)


def over_batches(function: Callable[..., Any], *arrays: ArrayLike, batch_size: int = BATCH_SIZE) -> Any:
    """`function(*arrays)` for a function of batches `[B, ...] -> [B, ...]` that treats examples one by one.

    Args:
      function: jitted; it sees one shape only. It may return a tree of arrays.
      arrays: `[N, ...]` each.
      batch_size: the B that it sees, or N where that is smaller.

    Returns:
      `[N, ...]` on the host, or a tree of such.

    Raises:
      InputError: there are no examples, or not as many in each array.
    """
    columns = [np.asarray(a) for a in arrays]
    count = num_rows(*columns)
    size = min(batch_size, count)
    parts = [function(*(pad(c[start : start + size], size) for c in columns)) for start in range(0, count, size)]
    return jax.tree.map(lambda *rows: np.concatenate([np.asarray(each) for each in rows])[:count], *parts)


def num_rows(*arrays: ArrayLike) -> int:
    """How many examples there are; `InputError` for none, and for arrays that do not agree."""
    shapes = [np.shape(a) for a in arrays]
    if len({shape[:1] for shape in shapes}) != 1:
        raise InputError(f"Data of shapes {shapes}; they need as many rows as each other.")
    if 0 in shapes[0][:1] or not shapes[0]:
        raise InputError(f"Data of shape {shapes[0]} hold no examples.")
    return shapes[0][0]


def pad(x: np.ndarray, size: int) -> np.ndarray:
    """x with its last example repeated until there are `size`."""
    return x if len(x) == size else np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


@partial(jax.jit, static_argnames="model")
def _sse(params: Any, x: jax.Array, *condition: jax.Array, model: Autoencoder) -> jax.Array:
    x_hat = call(model, params, "reconstruct", x, *condition)
    return likelihoods.sse(x_hat, jnp.where(jnp.isnan(x), x_hat, x) if model.takes_missing else x)
