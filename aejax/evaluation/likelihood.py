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
from aejax.evaluation.apply import pad
from aejax.nets import Autoencoder


class NLL(NamedTuple):
    """An importance-sampled estimate of the negative log-likelihood, in nats per example."""

    nll_nats: float  # -L_K, an upper bound on the negative log-likelihood in expectation
    std_error: float  # Monte-Carlo error of nll_nats, to first order; too small where some ess are low; NaN for K = 1
    ess: float  # effective sample size, between 1 and K, mean over examples
    curve: dict[int, float]  # k -> -L_k for k = 1, 2, 5, 10, ..., K; k = 1 is the negative ELBO


def nll(
    model: Autoencoder,
    params: Any,
    x: ArrayLike,
    key: jax.Array,
    *,
    num_samples: int = 5000,
    max_rows: int = 1024,
) -> NLL:
    """Negative log-likelihood of a VAE with a standard normal prior: the metric `test_nll_nats`.

    `L_k` is the mean over examples of `log 1/k sum_j p(x|z_j) p(z_j) / q(z_j|x)`, with z_j from the encoder's
    posterior q. It grows with k towards the log-likelihood, from the ELBO at k = 1. Every `L_k` uses as many whole
    groups of k samples as there are. Sample j of example i draws from `fold_in(fold_in(key, i), j)`: neither `max_rows`
    nor the examples behind it change its noise.

    Args:
      model: `encode(x) -> (mean, logvar)`, `decode(z)` and a `likelihood`.
      params: by group.
      x: `[N, ...]`; for the published figures of MNIST binarised, which is the caller's business.
      key: consumed.
      num_samples: K, samples per example.
      max_rows: how often the decoder runs at once; bounds the memory.

    Returns:
      `NLL(nll_nats, std_error, ess, curve)`.

    Raises:
      InputError: no examples, fewer than one sample, or an encoder without (mean, logvar).

    Reference: Burda, Grosse & Salakhutdinov (2016), equation 8; they report k = 5000.
    """
    x = np.asarray(x)
    if not x.ndim or not len(x):
        raise InputError(f"Data of shape {x.shape} hold no examples.")
    if num_samples < 1 or max_rows < 1:
        raise InputError(f"num_samples={num_samples} and max_rows={max_rows}; both have to be at least 1.")
    size = min(len(x), 128, max_rows)
    chunk = -(-num_samples // -(-num_samples // (max_rows // size)))  # equal chunks, the last one hardly padded
    ks = _curve_points(num_samples)
    parts = []
    for start in range(0, len(x), size):
        batch = pad(x[start : start + size], size)
        posterior = _encode(params, batch, model=model)
        if not isinstance(posterior, tuple):
            raise InputError(f"{type(model).__name__}.encode does not return (mean, logvar): a likelihood needs a VAE.")
        weights = [
            _log_weights(params, batch, *posterior, key, start, first, model=model, chunk=chunk)
            for first in range(0, num_samples, chunk)
        ]
        parts.append(jax.device_get(_summarise(weights, ks=ks)))
    curve, ess = (np.concatenate(part, dtype=np.float64)[: len(x)] for part in zip(*parts, strict=True))
    bounds = -curve.mean(axis=0)
    variances = np.maximum(1 / ess - 1 / num_samples, 0.0)  # of each log-mean weight, to first order
    return NLL(
        nll_nats=float(bounds[-1]),
        std_error=float(np.sqrt(variances.sum()) / len(x)) if num_samples > 1 else float("nan"),
        ess=float(ess.mean()),
        curve={k: float(bound) for k, bound in zip(ks, bounds, strict=True)},
    )


def _curve_points(num_samples: int) -> tuple[int, ...]:
    ks = [m * 10**e for e in range(len(str(num_samples))) for m in (1, 2, 5) if m * 10**e < num_samples]
    return (*ks, num_samples)


@partial(jax.jit, static_argnames="model")
def _encode(params: Any, x: jax.Array, *, model: Any) -> tuple[jax.Array, jax.Array]:
    return model.apply({"params": params}, x, method="encode")


@partial(jax.jit, static_argnames=("model", "chunk"))
def _log_weights(
    params: Any,
    x: jax.Array,
    mean: jax.Array,
    logvar: jax.Array,
    key: jax.Array,
    start: Any,
    first: Any,
    *,
    model: Any,
    chunk: int,
) -> jax.Array:
    """`[B, chunk]`: log p(x|z) + log p(z) - log q(z|x) for samples `first, first + 1, ...` of each example."""

    def draw(i: jax.Array, j: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, i), j), mean.shape[1:], mean.dtype)

    rows, columns = start + jnp.arange(len(x)), first + jnp.arange(chunk)
    noise = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(rows, columns)  # [B, chunk, Z]
    z = mean[:, None] + jnp.exp(0.5 * logvar)[:, None] * noise
    output = model.apply({"params": params}, z.reshape(-1, z.shape[-1]), method="decode")
    nll = likelihoods.get(model.likelihood).nll(output, jnp.repeat(x, chunk, axis=0)).reshape(len(x), chunk)
    # The constants of the two normals cancel.
    return 0.5 * jnp.sum(jnp.square(noise) - jnp.square(z) + logvar[:, None], axis=-1) - nll


@partial(jax.jit, static_argnames="ks")
def _summarise(weights: list[jax.Array], *, ks: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Log weights of a batch -> (`L_k` of each example `[B, len(ks)]`, effective sample sizes `[B]`)."""
    log_w = jnp.concatenate(weights, axis=1)[:, : ks[-1]]

    def bound(k: int) -> jax.Array:
        groups = log_w[:, : log_w.shape[1] // k * k].reshape(len(log_w), -1, k)
        return logsumexp(groups, axis=-1).mean(axis=-1) - jnp.log(k)

    ess = jnp.exp(2 * logsumexp(log_w, axis=1) - logsumexp(2 * log_w, axis=1))
    return jnp.stack([bound(k) for k in ks], axis=1), ess
