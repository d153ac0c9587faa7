"""The evidence lower bound taken apart: reconstruction, information in the code, and what the codes of all data are.

Hoffman & Johnson, "ELBO surgery", 2016, take the KL of the bound into the mutual information of example and code, and
the KL of the aggregate posterior, q(z), from the prior; Chen et al., "Isolating sources of disentanglement in
variational autoencoders", NeurIPS 2018, equation 2, that into total correlation and a KL for each dimension. Whether
q(z) is the prior at all is asked by `code_mmd` and `moment_gaps`, which need no density.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation.apply import num_rows, over_batches, pad
from aejax.evaluation.likelihood import encoded, measurable, threefry
from aejax.nets import Autoencoder
from aejax.posteriors import DiagonalGaussian
from aejax.precision import sum_last, widen

_DRAWS, _COMPONENTS = 128, 256  # whose densities exist at a time, in each dimension


class Decomposition(NamedTuple):
    """The negative bound and its parts, in nats per example.

    `bound = recon + mutual_info + marginal_kl`, and `marginal_kl = total_correlation + dimension_kl`.
    """

    bound_nats: float  # the negative evidence lower bound
    recon_nats: float  # -log p(x|z)
    mutual_info_nats: float  # of example and code, KL(q(z|n) | q(z)) in the mean over n; at most log N
    total_correlation_nats: float  # KL from q(z) to the product of its marginals
    dimension_kl_nats: float  # from that product to the prior, so the sum over j of KL(q(z_j) | p(z_j)) where p is one
    marginal_kl_nats: float  # KL from q(z) to the prior
    kl_of_dimensions: np.ndarray | None  # [Z] KL(q(z_j) | p(z_j)), for the prior N(0, I)


def decompose(
    model: Autoencoder,
    params: Any,
    data: ArrayLike | Batch,
    key: jax.Array,
    *,
    num_samples: int = 1,
    max_rows: int = 1024,
) -> Decomposition:
    """The negative bound of a variational autoencoder on a data set, taken apart.

    With n uniform on the N examples, q(z) is the mixture of all their posteriors. Its density at every draw is the sum
    over all N of them, its own among these, and so are those of its marginals: nothing is estimated but the means over
    the draws. All parts are means over the same draws and add up to the bound to rounding, which is that of
    `nll(model, params, data, key, ...).curve[1]`: sample j of example i has the same noise there.

    What it says is about the N examples given. Of the distribution they come from, the mutual information is
    underestimated and the marginal KL overestimated by the same amount: no estimate of this kind is above log N, here
    for every single draw (`log 10,000` is 9.21 nats; a code that tells all examples from each other has log N, however
    much more it tells). Give as many examples as time allows, and compare models on the same. By the noise of the
    draws total correlation and KLs may be a little below zero.

    The cost is that of N^2 Z exponentials for each sample: 10,000 examples and 20 dimensions took 11 CPU seconds on 2
    cores (2026-11-26). Blocks of them exist at a time, of some megabytes.

    Args:
      model: `encode(x)` returns a `DiagonalGaussian`; `nll` and `log_prior` are its own.
      params: by group.
      data: x, `[N, ...]`, or `Batch(x, y)` for a conditioned model, whose q(z) is then the mixture over both.
      key: consumed.
      num_samples: draws from the posterior of each example.
      max_rows: how often the decoder runs at once; bounds the memory.

    Returns:
      `Decomposition(...)`, floats, and the KL of each dimension `[Z]`, or None where the prior is not N(0, I).

    Raises:
      InputError: no examples, or such as cannot be trained on; fewer than one sample, labels missing or unknown, an
        encoder without a posterior, or with one whose marginals have no density in closed form, or no prior.

    Reference: Hoffman & Johnson (2016); Chen et al. (2018), equation 2. That the mutual information is a lower bound of
      that of the distribution: van den Oord et al. (2018), and Poole et al. (2019), for whom q(z|x) is the best critic.
    """
    arrays = measurable(model, data)
    count = num_rows(*arrays)
    if num_samples < 1 or max_rows < 1:
        raise InputError(f"num_samples={num_samples} and max_rows={max_rows}; both have to be at least 1.")
    size = min(count, 128, max(1, max_rows // num_samples))
    parts, key = [], threefry(key)
    for start in range(0, count, size):
        batch = [pad(a[start : start + size], size) for a in arrays]
        posterior = encoded(model, params, batch, "log_prob")
        if not isinstance(posterior, DiagonalGaussian):
            raise InputError(
                f"{type(model).__name__}.encode returns a {type(posterior).__name__}; the marginals of q(z) are known"
                " of aejax.posteriors.DiagonalGaussian alone."
            )
        drawn = _draw(params, posterior, key, start, *batch, model=model, num_samples=num_samples)
        parts.append(jax.device_get((*drawn, *posterior)))
    z, log_q, log_p, recon, mean, logvar = (np.concatenate(part)[:count] for part in zip(*parts, strict=True))
    z = z.reshape(-1, z.shape[-1])
    found = over_batches(partial(_log_mixture, *_blocks(mean, logvar)), z, batch_size=_DRAWS)
    log_joint, log_each = (rows.astype(np.float64) - math.log(count) for rows in found)  # [N S], [N S, Z]
    log_q, log_p, recon = (v.astype(np.float64).ravel() for v in (log_q, log_p, recon))
    log_marginals = log_each.sum(axis=1)
    of_dimensions = None
    if model.has_normal_prior:
        standard = -0.5 * (np.square(z, dtype=np.float64) + math.log(2 * math.pi))
        of_dimensions = (log_each - standard).mean(axis=0)
    return Decomposition(
        bound_nats=float((recon + log_q - log_p).mean()),
        recon_nats=float(recon.mean()),
        mutual_info_nats=float((log_q - log_joint).mean()),
        total_correlation_nats=float((log_joint - log_marginals).mean()),
        dimension_kl_nats=float((log_marginals - log_p).mean()),
        marginal_kl_nats=float((log_joint - log_p).mean()),
        kl_of_dimensions=of_dimensions,
    )


@partial(jax.jit, static_argnames=("model", "num_samples"))
def _draw(
    params: Any,
    posterior: DiagonalGaussian,
    key: jax.Array,
    start: Any,
    x: jax.Array,
    *condition: jax.Array,
    model: Autoencoder,
    num_samples: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws of each example `[B, S, Z]`, and log q(z|x), log p(z) and -log p(x|z) of them, `[B, S]`."""

    def own_key(i: jax.Array, j: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, i), j)

    bound, rows = model.bind({"params": params}), start + jnp.arange(len(x))
    keys = jax.vmap(jax.vmap(own_key, (None, 0)), (0, None))(rows, jnp.arange(num_samples))
    z, log_q = jax.vmap(posterior.sample_and_log_prob, 1, 1)(keys)
    flat = z.reshape(-1, z.shape[-1])
    recon = bound.nll(flat, *(jnp.repeat(a, num_samples, axis=0) for a in (x, *condition)))
    return z, log_q, bound.log_prior(flat).reshape(log_q.shape), recon.reshape(log_q.shape)


def _blocks(mean: np.ndarray, logvar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components in blocks `[K, b, Z]`, and the logarithms of how often each counts, 0 or, of the padding, -inf."""
    size = min(len(mean), _COMPONENTS)
    blocks = -(-len(mean) // size)
    shape = (blocks, size, mean.shape[-1])
    counts = np.where(np.arange(blocks * size) < len(mean), 0.0, -np.inf).astype(np.float32)
    mean, logvar = (pad(v, blocks * size).reshape(shape) for v in (mean, logvar))
    return mean, logvar, counts.reshape(blocks, size)


@jax.jit
def _log_mixture(mean: jax.Array, logvar: jax.Array, counts: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log sum_n q(z|n) `[B]`, and the same in each dimension alone `[B, Z]`."""

    def add(sums: tuple[jax.Array, jax.Array], block: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
        mean, logvar, counts = widen(block[0]), widen(block[1]), block[2][None, :, None]
        squared = jnp.square((z[:, None] - mean[None]) * jnp.exp(-0.5 * logvar)[None])
        density = -0.5 * (squared + logvar[None] + math.log(2 * math.pi))  # [B, b, Z]
        joint = logsumexp(sum_last(density) + counts[..., 0], axis=1)
        each = logsumexp(density + counts, axis=1)
        return (jnp.logaddexp(sums[0], joint), jnp.logaddexp(sums[1], each)), None

    z = widen(z)
    start = jnp.full(len(z), -jnp.inf, z.dtype), jnp.full(z.shape, -jnp.inf, z.dtype)
    return jax.lax.scan(add, start, (mean, logvar, counts))[0]
