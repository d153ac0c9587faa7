"""The likelihood of data under a latent-variable model, by importance sampling from the encoder's posterior."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from aejax import likelihoods
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation.apply import call, examples, num_rows, pad
from aejax.nets import Autoencoder
from aejax.posteriors import Posterior


class NLL(NamedTuple):
    """An importance-sampled estimate of the negative log-likelihood, in nats per example."""

    nll_nats: float  # -L_K, an upper bound on the negative log-likelihood in expectation
    std_error: float  # Monte-Carlo error of nll_nats, to first order; too small where some ess are low; NaN for K = 1
    ess: float  # effective sample size, between 1 and K, mean over examples
    curve: dict[int, float]  # k -> -L_k for k = 1, 2, 5, 10, ..., K; k = 1 is the negative ELBO


def nll(
    model: Autoencoder,
    params: Any,
    data: ArrayLike | Batch,
    key: jax.Array,
    *,
    num_samples: int = 5000,
    max_rows: int = 1024,
) -> NLL:
    """Negative log-likelihood of a model whose posterior and prior have densities: the metric `test_nll_nats`.

    `L_k` is the mean over examples of `log 1/k sum_j p(x|z_j) p(z_j) / q(z_j|x)`, with z_j from the encoder's
    posterior q. It grows with k towards the log-likelihood, from the ELBO at k = 1. Every `L_k` uses as many whole
    groups of k samples as there are. Sample j of example i draws from `fold_in(fold_in(key, i), j)`: neither `max_rows`
    nor the examples behind it change its noise. That holds for threefry keys only, whose draws under `vmap` are those
    of each key alone, so a key of another kind is made into one.

    Args:
      model: `encode(x)` returns a posterior that has `sample_and_log_prob`; `nll` and `log_prior` are its own.
      params: by group.
      data: x, `[N, ...]`, or `Batch(x, y)` for a conditioned model, whose likelihood is then that of x given y; for the
        published figures of MNIST x is binarised, which is the caller's business.
      key: consumed.
      num_samples: K, samples per example.
      max_rows: how often the decoder runs at once; bounds the memory.

    Returns:
      `NLL(nll_nats, std_error, ess, curve)`.

    Raises:
      InputError: no examples, or such as cannot be trained on; fewer than one sample, labels missing or unknown, an
        encoder without a posterior that has a density, or a model without a prior.

    Reference: Burda, Grosse & Salakhutdinov (2016), equation 8; they report k = 5000.
    """
    arrays = measurable(model, data)
    count = num_rows(*arrays)
    if num_samples < 1 or max_rows < 1:
        raise InputError(f"num_samples={num_samples} and max_rows={max_rows}; both have to be at least 1.")
    size = min(count, 128, max_rows)
    chunk = -(-num_samples // -(-num_samples // (max_rows // size)))  # equal chunks, the last one hardly padded
    ks = _curve_points(num_samples)
    parts, key = [], threefry(key)
    for start in range(0, count, size):
        batch = [pad(a[start : start + size], size) for a in arrays]
        posterior = encoded(model, params, batch, "sample_and_log_prob")
        weights = [
            _log_weights(params, posterior, key, start, first, *batch, model=model, chunk=chunk)
            for first in range(0, num_samples, chunk)
        ]
        parts.append(jax.device_get(summarise(weights, ks=ks)))
    curve, ess = (np.concatenate(part, dtype=np.float64)[:count] for part in zip(*parts, strict=True))
    bounds = -curve.mean(axis=0)
    return NLL(
        nll_nats=float(bounds[-1]),
        std_error=std_error(ess, num_samples),
        ess=float(ess.mean()),
        curve={k: float(bound) for k, bound in zip(ks, bounds, strict=True)},
    )


def measurable(model: Autoencoder, data: ArrayLike | Batch) -> tuple[np.ndarray, ...]:
    """What the maps of the model take, on the host; refused where no likelihood of single examples can be measured."""
    arrays = tuple(map(np.asarray, examples(model, data, likelihood=model.likelihood)))
    likelihood = likelihoods.get(model.likelihood)
    if likelihood.coupled:
        raise InputError(
            f"{likelihood} takes its variance from the batch: measure with a fixed one, Gaussian(variance)."
        )
    return arrays


def encoded(model: Autoencoder, params: Any, batch: list[np.ndarray], density: str) -> Any:
    """The posterior of a batch; refused where it has no density, which is what it has to offer under that name."""
    posterior = call(model, params, "encode", *batch)
    if not hasattr(posterior, density):
        what = "array" if isinstance(posterior, jax.Array) else type(posterior).__name__
        raise InputError(
            f"{type(model).__name__}.encode returns one {what}, which has no density, {density}: a likelihood"
            " takes a posterior, such as aejax.posteriors.DiagonalGaussian(mean, logvar)."
        )
    return posterior


def std_error(ess: np.ndarray, num_samples: int) -> float:
    """Of the mean over examples of log-mean weights, to first order, from their effective sample sizes `[N]`."""
    if num_samples == 1:
        return float("nan")
    return float(np.sqrt(np.maximum(1 / ess - 1 / num_samples, 0.0).sum()) / len(ess))


def _curve_points(num_samples: int) -> tuple[int, ...]:
    ks = [m * 10**e for e in range(len(str(num_samples))) for m in (1, 2, 5) if m * 10**e < num_samples]
    return (*ks, num_samples)


def threefry(key: jax.Array) -> jax.Array:
    """The key itself, or a threefry key drawn from one of another kind."""
    if jax.random.key_impl(key) == "threefry2x32":
        return key if key.ndim == 0 else jax.random.wrap_key_data(key)
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")


@partial(jax.jit, static_argnames=("model", "chunk"))
def _log_weights(
    params: Any,
    posterior: Posterior,
    key: jax.Array,
    start: Any,
    first: Any,
    x: jax.Array,
    *condition: jax.Array,
    model: Autoencoder,
    chunk: int,
) -> jax.Array:
    """`[B, chunk]`: log p(x|z) + log p(z) - log q(z|x) for samples `first, first + 1, ...` of each example."""

    def own_key(i: jax.Array, j: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, i), j)

    bound, rows, columns = model.bind({"params": params}), start + jnp.arange(len(x)), first + jnp.arange(chunk)
    keys = jax.vmap(jax.vmap(own_key, (None, 0)), (0, None))(rows, columns)  # [B, chunk]
    z, log_q = jax.vmap(posterior.sample_and_log_prob, 1, 1)(keys)  # [B, chunk, Z], [B, chunk]
    z = z.reshape(-1, z.shape[-1])
    log_joint = bound.log_prior(z) - bound.nll(z, *(jnp.repeat(a, chunk, axis=0) for a in (x, *condition)))
    return log_joint.reshape(log_q.shape) - log_q


@partial(jax.jit, static_argnames="ks")
def summarise(weights: list[jax.Array], *, ks: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Log weights of a batch -> (`L_k` of each example `[B, len(ks)]`, effective sample sizes `[B]`)."""
    log_w = jnp.concatenate(weights, axis=1)[:, : ks[-1]]

    def bound(k: int) -> jax.Array:
        groups = log_w[:, : log_w.shape[1] // k * k].reshape(len(log_w), -1, k)
        return logsumexp(groups, axis=-1).mean(axis=-1) - jnp.log(k)

    ess = jnp.exp(2 * logsumexp(log_w, axis=1) - logsumexp(2 * log_w, axis=1))
    return jnp.stack([bound(k) for k in ks], axis=1), ess
