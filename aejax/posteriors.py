"""Posterior distributions q(z|x): what the encoder of a latent-variable model returns.

A posterior is a pytree of arrays, so it leaves `jit`. Those whose density is known at any point have `log_prob(z)`;
those with a closed-form KL from N(0, I) have `kl_standard_normal()`; others may have neither, and are worth a bound and
a likelihood all the same, since what these take is a draw together with its density. An implicit one, `Implicit` or
`Pushforward`, can only be drawn from.
"""

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import divergences
from aejax.checks import InputError
from aejax.precision import sum_last, wide, widen
from aejax.priors import Uniform

if TYPE_CHECKING:
    from aejax.nets import Autoencoder

Array = jax.Array


class Posterior(Protocol):
    """What every posterior offers. A key is one for the whole batch, or one for each example, `[B]`; see `noise`."""

    @property
    def mode(self) -> Array:
        """The representation of x, without noise: `[B, Z]`."""

    def sample(self, key: Array) -> Array:
        """A draw for each example, `[B, Z]`, differentiable in the posterior; the key is consumed."""

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """What `sample` draws, and its log-density in nats: `[B, Z], [B]`."""


class DiagonalGaussian(NamedTuple):
    """N(mean, diag(exp(logvar))), drawn and measured in float32 or wider, whatever the encoder computes in.

    Example:
      >>> mean, logvar = q = DiagonalGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
      >>> round(float(q.log_prob(jnp.zeros((1, 2)))[0]), 4)  # -log(2 pi)
      -1.8379
    """

    mean: Array  # [..., Z]
    logvar: Array  # [..., Z], log of the variances

    @property
    def mode(self) -> Array:
        return self.mean

    def sample(self, key: Array) -> Array:
        return self._place(noise(key, self.mean.shape, wide(self.mean.dtype)))

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        standard = noise(key, self.mean.shape, wide(self.mean.dtype))
        return self._place(standard), self._density(standard)

    def log_prob(self, z: Array) -> Array:
        """Log-density in nats: `[..., Z] -> [...]`, z of the shape of mean."""
        chex.assert_equal_shape([z, self.mean])
        return self._density((widen(z) - widen(self.mean)) * jnp.exp(-0.5 * widen(self.logvar)))

    def kl_standard_normal(self) -> Array:
        """KL from this posterior to N(0, I), in nats per example: `[B]`."""
        return divergences.gaussian_kl(self.mean, self.logvar)

    def _place(self, standard: Array) -> Array:
        chex.assert_equal_shape(self)
        return widen(self.mean) + jnp.exp(0.5 * widen(self.logvar)) * standard

    def _density(self, standard: Array) -> Array:
        return -0.5 * sum_last(jnp.square(standard) + widen(self.logvar) + math.log(2 * math.pi))


@partial(jax.tree_util.register_dataclass, data_fields=["base", "context", "params"], meta_fields=["flow"])
@dataclasses.dataclass(frozen=True)
class Flow:
    """What a normalising flow makes of a diagonal Gaussian.

    Attributes:
      base: the Gaussian, `[B, Z]`.
      context: what the flow is told of x, arrays `[B, C]`, none or some.
      params: of the flow, `{"params": ...}`.
      flow: a Linen module, as in `aejax.nets.flows`; static.

    Reference: Kingma et al., "Improved variational inference with inverse autoregressive flow", NIPS 2016, algorithm 1.
    """

    base: DiagonalGaussian
    context: tuple[Array, ...]
    params: Any
    flow: nn.Module

    @property
    def mode(self) -> Array:
        """Where the mean of the base goes, which need be neither mean nor mode."""
        return self._map(widen(self.base.mean))[0]

    def sample(self, key: Array) -> Array:
        return self._map(self.base.sample(key))[0]

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        u, log_base = self.base.sample_and_log_prob(key)
        z, log_det = self._map(u)
        return z, log_base - log_det

    def log_prob(self, z: Array) -> Array:
        """Log-density in nats: `[B, Z] -> [B]`; of an autoregressive flow for the price of Z passes through it."""
        u, log_det = self._map(widen(z), method="inverse")
        return self.base.log_prob(u) + log_det

    def _map(self, u: Array, method: str = "__call__") -> Any:
        return self.flow.apply(self.params, u, *self.context, method=method)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["offset", "scales", "params"],
    meta_fields=["net", "noise_dim"],
)
@dataclasses.dataclass(frozen=True)
class Implicit:
    """Functions of noise, added up: it can be drawn from, and its density is not known.

    With noise `e` from N(0, I) and functions v of it, number k of a code is `offset_k + sum_m scales_mk v_mk(e)`. So
    its mean and variance follow from those of v, which are the same for all examples.

    Attributes:
      offset: `[B, Z]`.
      scales: `[B, M, Z]`.
      params: of the network, `{"params": ...}`.
      net: a Linen module, v, `[B, E] -> [B, M Z]`; static.
      noise_dim: E; static.
    """

    offset: Array
    scales: Array
    params: Any
    net: nn.Module
    noise_dim: int

    @property
    def mode(self) -> Array:
        """What noise of zeros becomes, which need be neither mean nor mode."""
        return self._place(self._functions(jnp.zeros((1, self.noise_dim), self.offset.dtype)))

    def sample(self, key: Array) -> Array:
        return self._place(self._functions(noise(key, (self.offset.shape[0], self.noise_dim), wide(self.offset.dtype))))

    def sample_and_moments(self, key: Array, n: int) -> tuple[Array, Array, Array]:
        """A draw for each example, and mean and variance of each number of its code, over n - 1: `[B, Z]` each.

        The moments are those of n draws of the noise, or of B if that is more, the same for all examples, and the draws
        of the examples are among them. So no draw is further from its mean than n deviations can be, and posteriors
        cannot hide in what the moments have not seen.
        """
        if n < 2:
            raise InputError(f"A variance takes at least 2 draws; got n={n}.")
        v = self._functions(noise(key, (max(n, len(self.offset)), self.noise_dim), wide(self.offset.dtype)))
        mean, scales = v.mean(axis=0, keepdims=True), widen(self.scales)
        covariance = jnp.einsum("nmz,nkz->mkz", v - mean, v - mean) / (len(v) - 1)
        variance = jnp.einsum("bmz,mkz,bkz->bz", scales, covariance, scales)
        return self._place(v[: len(scales)]), self._place(mean), variance

    def _functions(self, eps: Array) -> Array:
        v: Any = self.net.apply(self.params, eps)
        return widen(v).reshape(-1, *self.scales.shape[1:])

    def _place(self, v: Array) -> Array:
        return widen(self.offset) + (widen(self.scales) * v).sum(axis=1)


@partial(jax.tree_util.register_dataclass, data_fields=["mode", "inputs", "params"], meta_fields=["net", "noise_dim"])
@dataclasses.dataclass(frozen=True)
class Pushforward:
    """What a network makes of an example and of noise from N(0, I): of any shape, and its density is not known.

    Attributes:
      mode: `[B, Z]`, what noise of zeros becomes, which need be neither mean nor mode.
      inputs: what the network is told of the example, arrays `[B, ...]`.
      params: of the network, `{"params": ...}`.
      net: a Linen module, of the inputs and `[B, E]` behind them, `-> [B, Z]`; static.
      noise_dim: E; static.
    """

    mode: Array
    inputs: tuple[Array, ...]
    params: Any
    net: nn.Module
    noise_dim: int

    def sample(self, key: Array) -> Array:
        own = noise(key, (len(self.mode), self.noise_dim), wide(self.mode.dtype))
        z: Any = self.net.apply(self.params, *self.inputs, own.astype(self.mode.dtype))
        return widen(z)


def noise(key: Array, shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Standard normal numbers, from one key, or from one for each example.

    Posteriors draw through this, so that `evaluation.nll` can give every example a key of its own.

    Args:
      key: consumed; a key, or an array of keys `[B]` (of `jax.random.key`).
      shape: `(B, ...)`.
      dtype: of the numbers.
    """
    if key.ndim and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        chex.assert_shape(key, shape[:1])
        return jax.vmap(lambda own: jax.random.normal(own, shape[1:], dtype))(key)
    return jax.random.normal(key, shape, dtype)


def refuse_uniform(model: "Autoencoder") -> None:
    """Refuses a prior that is zero where a posterior is not."""
    if isinstance(model.prior, Uniform) or model.prior == "uniform":
        raise InputError("The posterior reaches beyond the cube of the uniform prior, where the KL is infinite.")


def sample_and_kl(
    posterior: Posterior, key: Array, model: "Autoencoder", *, closed: bool = True
) -> tuple[Array, Array]:
    """A draw for each example, and the KL from the posterior to the prior of the model.

    Args:
      posterior: of B examples.
      key: consumed.
      model: bound to its parameters; asked for its prior.
      closed: take the KL in closed form where there is one. Importance weights, as of the IWAE, need the estimate.

    Returns:
      z `[B, Z]`, and nats per example `[B]`: in closed form for a diagonal Gaussian against N(0, I), elsewhere the
      estimate from that one draw, `log q(z|x) - log p(z)`, which may be negative.

    Raises:
      InputError: the model has no prior, or the posterior no density.
    """
    refuse_uniform(model)
    if closed and model.has_normal_prior and hasattr(posterior, "kl_standard_normal"):
        return posterior.sample(key), posterior.kl_standard_normal()
    if not hasattr(posterior, "sample_and_log_prob"):
        raise InputError(f"A KL takes the density of the posterior, and {type(posterior).__name__} has none: use avb.")
    z, log_q = posterior.sample_and_log_prob(key)
    return z, log_q - model.log_prior(z)
