"""Priors with parameters: a mixture of Gaussians, the VampPrior, and normalising flows.

Each is a Linen module: as the field `prior` of a model it is a submodule, and its parameters are the group `prior`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import likelihoods
from aejax.checks import InputError
from aejax.precision import sum_last, widen
from aejax.priors.fixed import StandardNormal
from aejax.priors.points import check_points, mix, per_component

Array = jax.Array


class LearnedPrior(nn.Module):
    """Abstract base of priors with parameters.

    The model that has it as its field `prior` hands itself over, for priors made of its parts.
    """

    def __call__(self, x: Array, z: Array) -> None:
        """Creates the parameters, for examples `[B, ...]` and codes `[B, Z]` of these shapes."""
        raise NotImplementedError

    def sample(self, key: Array, n: int, model: Any) -> Array:
        """Independent draws, `[n, Z]`; the key is consumed."""
        raise NotImplementedError

    def log_prob(self, z: Array, model: Any) -> Array:
        """Log-density in nats: `[..., Z] -> [...]`."""
        raise NotImplementedError


class LearnedMixture(LearnedPrior):
    """A mixture of K Gaussians with diagonal covariances; means, log-variances and weights are learned.

    The means start as draws from N(0, I), the variances at 1 and the weights equal.

    Attributes:
      num_components: K.

    Parameters: `means` `[K, Z]`, `logvars` `[K, Z]`, `logits` `[K]`, log-weights up to a constant.
    """

    num_components: int

    @nn.compact
    def __call__(self, x: Array, z: Array) -> None:
        _check_count(num_components=self.num_components)
        shape = (self.num_components, z.shape[-1])
        self.param("means", nn.initializers.normal(1.0), shape)
        self.param("logvars", nn.initializers.zeros, shape)
        self.param("logits", nn.initializers.zeros, shape[:1])

    def components(self) -> tuple[Array, Array, Array]:
        """Means and log-variances `[K, Z]`, and log-weights `[K]`, whose exponentials add up to one."""
        means, logvars, logits = self._parameters()
        return means, logvars, jax.nn.log_softmax(logits)

    def sample(self, key: Array, n: int, model: Any) -> Array:
        means, logvars, logits = self._parameters()
        component_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(component_key, logits, shape=(n,))
        noise = jax.random.normal(noise_key, (n, means.shape[1]), means.dtype)
        return means[chosen] + jnp.exp(0.5 * logvars[chosen]) * noise

    def log_prob(self, z: Array, model: Any) -> Array:
        means, logvars, log_weights = self.components()
        check_points(z, means.shape[1])
        offsets = per_component(z, means)
        whitened = offsets * jnp.broadcast_to(jnp.exp(-0.5 * logvars).astype(offsets.dtype), offsets.shape)
        constants = log_weights - 0.5 * sum_last(logvars + math.log(2 * math.pi))
        return mix(sum_last(jnp.square(whitened)), constants)

    def _parameters(self) -> list[Array]:
        return [widen(self.get_variable("params", name)) for name in ("means", "logvars", "logits")]


class VampPrior(LearnedPrior):
    """The mean of the model's own posteriors at K learned pseudo-inputs: `1/K sum_k q(z|u_k)`.

    Departures from the authors' program: pseudo-inputs are kept within the range of the data by a sigmoid (a softplus
    where it has one end only), where theirs are cut off by a hard tanh, outside of which nothing is learned; and they
    start as N(0, 1) in front of that, for every kind of data.

    Attributes:
      num_pseudo_inputs: K; the paper has 500.

    Parameters: `pseudo_inputs` `[K, ...]`, each of the shape of an example, in front of the sigmoid.

    Reference: Tomczak & Welling, VAE with a VampPrior (2018), equation 9.
    """

    num_pseudo_inputs: int

    @nn.compact
    def __call__(self, x: Array, z: Array) -> None:
        _check_count(num_pseudo_inputs=self.num_pseudo_inputs)
        self.param("pseudo_inputs", nn.initializers.normal(1.0), (self.num_pseudo_inputs, *x.shape[1:]))

    def inputs(self, model: Any) -> Array:
        """The pseudo-inputs, in data space: `[K, ...]`."""
        support = likelihoods.get(model.likelihood).support
        return _into(self.get_variable("params", "pseudo_inputs"), support.low, support.high)

    def sample(self, key: Array, n: int, model: Any) -> Array:
        component_key, noise_key = jax.random.split(key)
        chosen = jax.random.randint(component_key, (n,), 0, self.num_pseudo_inputs)
        return _posterior(model, self.inputs(model)[chosen]).sample(noise_key)

    def log_prob(self, z: Array, model: Any) -> Array:
        posterior, count = _posterior(model, self.inputs(model)), self.num_pseudo_inputs

        def mixed(z: Array) -> Array:
            log_q = posterior.log_prob(jnp.broadcast_to(z[None], (count, *z.shape)))
            return jax.nn.logsumexp(log_q) - math.log(count)

        return jax.vmap(mixed)(z.reshape(-1, z.shape[-1])).reshape(z.shape[:-1])


class FlowPrior(LearnedPrior):
    """What a normalising flow makes of N(0, I).

    Attributes:
      flow: a Linen module, as in `aejax.nets.flows`, with an inverse that is cheap: `nets.Couplings()`.

    Parameters: those of the flow, `flow`. Those of this library begin as the identity, where this is N(0, I).
    """

    flow: nn.Module

    def __call__(self, x: Array, z: Array) -> None:
        self.flow(widen(z))

    def sample(self, key: Array, n: int, model: Any) -> Array:
        return self.flow(StandardNormal(model.latent_dim).sample(key, n))[0]

    def log_prob(self, z: Array, model: Any) -> Array:
        u, log_det = self.flow.inverse(widen(z))
        return StandardNormal(model.latent_dim).log_prob(u) + log_det


def _posterior(model: Any, x: Array) -> Any:
    """The model's posterior at pseudo-inputs, which has to be one that can be mixed."""
    if model.takes_labels:
        raise InputError(f"{type(model).__name__} is conditioned on labels, VampPrior is not: use LearnedMixture.")
    posterior = model.encode(x)
    if not hasattr(posterior, "log_prob"):
        raise InputError(
            f"VampPrior mixes posteriors that have log_prob, and {type(model).__name__}.encode returns none such: use"
            " LearnedMixture."
        )
    return posterior


def _into(values: Array, low: float, high: float) -> Array:
    """Any numbers -> numbers between low and high, either of which may be infinite."""
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * jax.nn.sigmoid(values)
    return low + jax.nn.softplus(values) if math.isfinite(low) else values


def _check_count(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; a mixture has at least one component.")
