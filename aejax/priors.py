"""Prior distributions of codes: standard normal, mixtures of Gaussians, the swiss roll; and priors that are learned.

A fixed prior is a frozen dataclass of plain numbers, so it is hashable and may be a static argument of `jit`. A learned
one is a Linen module: as the field `prior` of a model it is a submodule, and its parameters are the group `prior`.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, overload

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax import likelihoods
from aejax.checks import InputError, nearest

Array = jax.Array

_NODES = 512  # of the quadrature along the swiss roll


class Prior(abc.ABC):
    """Abstract base: what can be sampled, and has a density.

    Attributes:
      latent_dim: Z.
    """

    latent_dim: int

    @abc.abstractmethod
    def sample(self, key: Array, n: int) -> Array:
        """Independent draws, `[n, Z]`; the key is consumed."""

    @abc.abstractmethod
    def log_prob(self, z: Array) -> Array:
        """Log-density in nats: `[..., Z] -> [...]`."""


@dataclasses.dataclass(frozen=True)
class StandardNormal(Prior):
    """N(0, I).

    Example:
      >>> round(float(StandardNormal(2).log_prob(jnp.zeros(2))), 4)  # -log(2 pi)
      -1.8379
    """

    latent_dim: int

    def sample(self, key: Array, n: int) -> Array:
        return jax.random.normal(key, (n, self.latent_dim))

    def log_prob(self, z: Array) -> Array:
        _check_points(z, self.latent_dim)
        return -0.5 * sum_last(jnp.square(z)) - 0.5 * self.latent_dim * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class GaussianMixture(Prior):
    """A mixture of K Gaussians with full covariances.

    Attributes:
      weights: K positive numbers; they are divided by their sum.
      means: K tuples of Z numbers.
      covariances: K symmetric positive definite matrices, each a tuple of Z tuples of Z numbers.

    Raises:
      InputError: sizes disagree, a weight is not positive, or a covariance is not symmetric positive definite.

    Example:
      >>> two = GaussianMixture((1.0, 1.0), ((-1.0,), (1.0,)), (((0.25,),), ((0.25,),)))
      >>> round(float(two.log_prob(jnp.zeros(1))), 4)  # log of the normal density two deviations out
      -2.2258
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    covariances: tuple[tuple[tuple[float, ...], ...], ...]

    def __post_init__(self):
        k, z = len(self.weights), self.latent_dim
        shapes = np.shape(self.means), np.shape(self.covariances)
        if shapes != ((k, z), (k, z, z)):
            raise InputError(f"{k} weights ask for means [{k}, Z] and covariances [{k}, Z, Z]; got {shapes}.")
        if not all(0 < w < math.inf for w in self.weights):
            raise InputError(f"weights are {self.weights}; each has to be positive and finite.")
        covariances = np.asarray(self.covariances, np.float64)
        if not np.array_equal(covariances, covariances.swapaxes(1, 2)):
            raise InputError("A covariance is not symmetric.")
        try:
            np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError:
            raise InputError("A covariance is not positive definite.") from None

    @property
    def latent_dim(self) -> int:  # type: ignore[override]
        return len(self.means[0])

    @classmethod
    def ring(
        cls, num_modes: int = 10, radius: float = 1.4, radial_std: float = 0.5, tangential_std: float = 0.1
    ) -> "GaussianMixture":
        """Modes in the plane like the petals of a flower, each elongated along its radius.

        The AAE paper shows ten in its figures and gives no numbers; these are those of its best-known
        reimplementation, `hwalsuklee/tensorflow-mnist-AAE`.
        """
        angles = 2 * np.pi * np.arange(num_modes) / num_modes
        along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        covariances = radial_std**2 * _outer(along) + tangential_std**2 * _outer(across)
        return cls((1.0,) * num_modes, _tuples(radius * along), _tuples(covariances))

    def sample(self, key: Array, n: int) -> Array:
        mode_key, noise_key = jax.random.split(key)
        modes = jax.random.categorical(mode_key, jnp.log(jnp.asarray(self.weights)), shape=(n,))
        noise = jax.random.normal(noise_key, (n, self.latent_dim))
        scales = jnp.asarray(np.linalg.cholesky(np.asarray(self.covariances)), noise.dtype)
        return jnp.asarray(self.means)[modes] + jnp.einsum("nij,nj->ni", scales[modes], noise, precision="highest")

    def log_prob(self, z: Array) -> Array:
        _check_points(z, self.latent_dim)
        scales = np.linalg.cholesky(np.asarray(self.covariances, np.float64))
        log_dets = np.log(np.diagonal(scales, axis1=1, axis2=2)).sum(axis=1)
        weights = np.asarray(self.weights) / np.sum(self.weights)
        constants = np.log(weights) - log_dets - 0.5 * self.latent_dim * math.log(2 * math.pi)
        offsets = _per_component(z, np.asarray(self.means))
        whitened = jnp.einsum("kij,...kj->...ki", jnp.asarray(np.linalg.inv(scales), z.dtype), offsets)
        return _mix(sum_last(jnp.square(whitened)), constants)


@dataclasses.dataclass(frozen=True)
class SwissRoll(Prior):
    """A spiral in the plane with Gaussian thickness.

    A point is `r (cos a, sin a) + noise` with `r = radius s`, `a = 2 pi turns s`, and s in [0, 1] of density 2 s
    (the square root of a uniform draw), which spreads the points evenly along the outer turns.

    `log_prob` is the integral over s, by Gauss-Legendre quadrature at 512 nodes. At the default sizes these lie at
    most 0.76 standard deviations of the noise apart, where the error is below float32 rounding; a roll so long or so
    thin that they would lie more than 1.2 apart (a relative error of 2e-6) is refused.

    Attributes:
      radius: of the outer end.
      turns: how often it goes round.
      noise: standard deviation of the thickness.

    Raises:
      InputError: a size is not positive, or the roll is too long for its noise.
    """

    radius: float = 3.0
    turns: float = 2.0
    noise: float = 0.1

    def __post_init__(self):
        if min(self.radius, self.turns, self.noise) <= 0:
            raise InputError(f"{self}: every size has to be positive.")
        # The nodes lie pi sqrt(s (1 - s)) / 512 apart in s, where the roll moves 2 pi turns radius s per unit of s.
        gap = 2 * math.pi * self.turns * self.radius * math.pi / _NODES * 0.325
        if gap > 1.2 * self.noise:
            raise InputError(f"{self} is too thin for its length; use a noise of at least {gap / 1.2:.2g}.")

    @property
    def latent_dim(self) -> int:  # type: ignore[override]
        return 2

    def sample(self, key: Array, n: int) -> Array:
        place_key, noise_key = jax.random.split(key)
        centre = self._centre(jnp.sqrt(jax.random.uniform(place_key, (n,))))
        return centre + self.noise * jax.random.normal(noise_key, (n, 2))

    def log_prob(self, z: Array) -> Array:
        _check_points(z, 2)
        nodes, weights = _legendre(_NODES)
        offsets = _per_component(z, np.asarray(self._centre(nodes))) / self.noise
        constants = np.log(weights * 2 * nodes) - math.log(2 * math.pi * self.noise**2)
        return _mix(sum_last(jnp.square(offsets)), constants)

    def _centre(self, s):
        xp = np if isinstance(s, np.ndarray) else jnp
        angle = 2 * math.pi * self.turns * s
        return self.radius * xp.stack([s * xp.cos(angle), s * xp.sin(angle)], axis=-1)


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

    def sample(self, key: Array, n: int, model: Any) -> Array:
        means, logvars, logits = self._parameters()
        component_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(component_key, logits, shape=(n,))
        noise = jax.random.normal(noise_key, (n, means.shape[1]), means.dtype)
        return means[chosen] + jnp.exp(0.5 * logvars[chosen]) * noise

    def log_prob(self, z: Array, model: Any) -> Array:
        means, logvars, logits = self._parameters()
        _check_points(z, means.shape[1])
        offsets = _per_component(z, means)
        whitened = offsets * jnp.broadcast_to(jnp.exp(-0.5 * logvars), offsets.shape)
        constants = jax.nn.log_softmax(logits) - 0.5 * sum_last(logvars + math.log(2 * math.pi))
        return _mix(sum_last(jnp.square(whitened)), constants)

    def _parameters(self) -> list[Array]:
        return [self.get_variable("params", name) for name in ("means", "logvars", "logits")]


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
        likelihood = likelihoods.get(model.likelihood)
        return _into(self.get_variable("params", "pseudo_inputs"), likelihood.low, likelihood.high)

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


PRIORS: dict[str, Callable[[int], Prior]] = {
    "normal": StandardNormal,
    "mixture": lambda latent_dim: GaussianMixture.ring(),
    "swiss_roll": lambda latent_dim: SwissRoll(),
}


@overload
def get(prior: str | Prior, latent_dim: int) -> Prior: ...
@overload
def get(prior: LearnedPrior, latent_dim: int) -> LearnedPrior: ...
def get(prior: str | Prior | LearnedPrior, latent_dim: int) -> Prior | LearnedPrior:
    """The prior of that name over codes of that size, a `Prior`; priors themselves pass as they are.

    Raises:
      InputError: unknown, or not to be had in this size (`mixture` and `swiss_roll` live in the plane).
    """
    if isinstance(prior, LearnedPrior):
        return prior
    found: Prior
    if isinstance(prior, Prior):
        found = prior
    elif isinstance(prior, str) and prior in PRIORS:
        found = PRIORS[prior](latent_dim)
    elif isinstance(prior, str):
        raise InputError(f"Unknown prior {prior!r}. {nearest(prior, PRIORS, what='priors')}")
    else:
        raise InputError(
            f"The prior is a {type(prior).__name__}; give one of {sorted(PRIORS)}, or one of aejax.priors."
        )
    if found.latent_dim != latent_dim:
        raise InputError(f"The prior {prior!r} has {found.latent_dim} dimensions; latent_dim is {latent_dim}; change either.")
    return found


def sum_last(values: Array) -> Array:
    """Sums the last axis, in float32 or wider: `[..., Z] -> [...]`."""
    return values.sum(axis=-1, dtype=jnp.promote_types(values.dtype, jnp.float32))


@functools.cache
def _legendre(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return (nodes + 1) / 2, weights / 2


def _mix(sq_distances: Array, constants: np.ndarray | Array) -> Array:
    """Log of a sum of Gaussians: `[..., K]` squared whitened distances and `[K]` log-factors `-> [...]`."""
    log_terms = -0.5 * sq_distances + jnp.broadcast_to(jnp.asarray(constants, sq_distances.dtype), sq_distances.shape)
    return jax.nn.logsumexp(log_terms, axis=-1)


def _per_component(z: Array, centres: np.ndarray | Array) -> Array:
    """`[..., Z]` and `[K, Z] -> [..., K, Z]` differences."""
    shape = (*z.shape[:-1], *centres.shape)
    return jnp.broadcast_to(z[..., None, :], shape) - jnp.broadcast_to(jnp.asarray(centres, z.dtype), shape)


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


def _check_points(z: Array, latent_dim: int) -> None:
    chex.assert_axis_dimension(z, -1, latent_dim)


def _outer(v: np.ndarray) -> np.ndarray:
    return v[:, :, None] * v[:, None, :]


def _tuples(values: np.ndarray):
    """Nested tuples of floats, as hashable fields want them."""
    return tuple(map(_tuples, values)) if np.ndim(values) else float(values)
