"""Bernoulli and Gaussian, as functions and as objects."""

import dataclasses
import math
from numbers import Real

import chex
import jax
import jax.numpy as jnp

from aejax.checks import InputError, nearest
from aejax.likelihoods.base import Likelihood, Support, blocks, joined
from aejax.precision import sum_event, widen

Array = jax.Array

_LOG_VARIANCE_FLOOR = -12.0  # log sigma of at least -6 in the code of Rybkin et al. (2021): 0.6 of a grey level of 255


def bernoulli_nll(logits: Array, x: Array) -> Array:
    """Negative log-likelihood of x under independent Bernoulli pixels, in nats per example.

    For x strictly between 0 and 1 this is the cross-entropy of the literature, not a likelihood; its floor is the
    entropy of the pixels.

    Args:
      logits: `[B, ...]` float, log-odds; any size, +-1e4 included, stays finite.
      x: `[B, ...]` in [0, 1], the shape of logits.

    Returns:
      `[B]` non-negative, float32 or wider.

    Raises:
      AssertionError: the two shapes differ.

    Example:
      >>> round(float(bernoulli_nll(jnp.zeros((1, 784)), jnp.ones((1, 784)))[0]), 2)  # 784 log 2
      543.43
    """
    return sum_event(_bernoulli(logits, x))


def _bernoulli(logits: Array, x: Array) -> Array:
    chex.assert_equal_shape([logits, x])
    logits, x = widen(logits), widen(x)
    # Half of the transcendentals of two log-sigmoids. No digit is lost where x is 1 and the logit is large, and at 0
    # both branches have the first and second derivative of softplus.
    positive = logits >= 0
    return jnp.where(positive, logits, 0) - logits * x + jnp.log1p(jnp.exp(jnp.where(positive, -logits, logits)))


def gaussian_nll(mean: Array, x: Array, logvar: Array | float = 0.0) -> Array:
    """Negative log-density of x under independent Gaussians, in nats per example, constant and 1/2 kept.

    With the default unit variance this is `sse / 2 + D / 2 log(2 pi)`. May be negative: it is a density.

    Args:
      mean: `[B, ...]` float.
      x: `[B, ...]` real, the shape of mean.
      logvar: log of the variance, `[B, ...]` or a scalar; no floor is put under it here.

    Returns:
      `[B]`, float32 or wider.

    Raises:
      AssertionError: mean and x differ in shape.

    Example:
      >>> round(float(gaussian_nll(jnp.zeros((1, 2)), jnp.ones((1, 2)))[0]), 3)  # 1 + log(2 pi)
      2.838
    """
    return sum_event(_gaussian(mean, x, logvar))


def _gaussian(mean: Array, x: Array, logvar: Array | float) -> Array:
    chex.assert_equal_shape([mean, x])
    mean, x = widen(mean), widen(x)
    logvar = jnp.broadcast_to(jnp.asarray(logvar, mean.dtype), mean.shape)
    return 0.5 * (jnp.square(x - mean) * jnp.exp(-logvar) + logvar + math.log(2 * math.pi))


def sse(x_hat: Array, x: Array) -> Array:
    """Squared error summed over the pixels of each example, `[B]`; its mean is the figure of Hinton & Salakhutdinov.

    Example:
      >>> sse(jnp.zeros((1, 3)), jnp.full((1, 3), 2.0)).tolist()
      [12.0]
    """
    chex.assert_equal_shape([x_hat, x])
    return sum_event(jnp.square(widen(x) - widen(x_hat)))


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent bits: the output is their log-odds. Grey pixels give the cross-entropy, see `bernoulli_nll`.

    Example:
      >>> Bernoulli().mean(jnp.zeros((1, 2))).tolist()
      [[0.5, 0.5]]
    """

    @property
    def support(self) -> Support:
        return Support(0.0, 1.0)

    def nll_components(self, output: Array, x: Array) -> Array:
        return _bernoulli(output, x)

    def mean(self, output: Array) -> Array:
        return jax.nn.sigmoid(widen(output))

    def sample(self, key: Array, output: Array) -> Array:
        p = self.mean(output)
        return jax.random.bernoulli(key, p).astype(p.dtype)


@dataclasses.dataclass(frozen=True)
class Gaussian(Likelihood):
    """Independent Gaussians: the output is the mean, and the log-variance where it is one of the pixel's own.

    A variance that is fitted has a floor: pixels that are always 0 would otherwise gain without end. It is
    `exp(-12)`, a deviation of 0.0025, as the code of Rybkin et al. (2021) has it: the log-variance v becomes
    `-12 + 2 softplus((v + 12) / 2)`. So no component gains more than 5.1 nats.

    Attributes:
      variance: one of
        a positive number: fixed, and static.
        `learned`: one number for all, a parameter of the module, `logvar`, which starts at 0.
        `per_pixel`: the decoder returns means and log-variances, in this order, along its last axis.
        `optimal`: the mean squared error of the batch, over examples and components, which is the variance of largest
          likelihood. It couples the examples of a batch; under `pmap` and `shard_map`, those of each shard. Departure
          from the code of Rybkin et al.: cut off at the floor, not softened above it, so that it is the optimum.

    Raises:
      InputError: a variance that is none of these.

    Example:
      >>> mean, x = jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 1.0]])
      >>> round(float(Gaussian("optimal").nll(mean, x)[0]), 3)  # variance 1: 1 + log(2 pi)
      2.838

    Reference: Rybkin, Daniilidis & Levine (2021), "Simple and effective VAE training with calibrated decoders",
    section 4, and its published code for the floor; Kingma & Welling (2014), appendix C.2, for `per_pixel`.
    """

    variance: float | str = 1.0

    def __post_init__(self) -> None:
        kinds = ("learned", "per_pixel", "optimal")
        if isinstance(self.variance, str):
            if self.variance not in kinds:
                raise InputError(f"Unknown variance {self.variance!r}. {nearest(self.variance, kinds, what='kinds')}")
        elif not isinstance(self.variance, Real) or not 0 < self.variance < math.inf:
            raise InputError(
                f"variance is {self.variance!r}; a positive Python number, or one of {', '.join(kinds)}, is needed."
            )

    @property
    def support(self) -> Support:
        return Support(-math.inf, math.inf)

    @property
    def numbers(self) -> int:
        return 2 if self.variance == "per_pixel" else 1

    @property
    def own_parameter(self) -> str | None:
        return "logvar" if self.variance == "learned" else None

    @property
    def coupled(self) -> bool:
        return self.variance == "optimal"

    def attach(self, output: Array, parameter: Array) -> Array:
        return joined(output, parameter) if self.variance == "learned" else output

    def nll_components(self, output: Array, x: Array) -> Array:
        mean, logvar = self.moments(output)
        if logvar is None:
            chex.assert_equal_shape([mean, x])
            error = jnp.mean(jnp.square(widen(x) - mean))
            logvar = jnp.log(jnp.maximum(error, math.exp(_LOG_VARIANCE_FLOOR)))
        return _gaussian(mean, x, logvar)

    def mean(self, output: Array) -> Array:
        return self.moments(output)[0]

    def sample(self, key: Array, output: Array) -> Array:
        """A draw of x; `InputError` for the optimal variance, which only x itself could tell."""
        mean, logvar = self.moments(output)
        if logvar is None:
            raise InputError(
                "The optimal variance is that of a batch of x, and there is none to sample from. Fix it:"
                " Gaussian(variance=mean squared error of a component)."
            )
        return mean + jnp.exp(0.5 * jnp.asarray(logvar, mean.dtype)) * jax.random.normal(key, mean.shape, mean.dtype)

    def moments(self, output: Array) -> tuple[Array, Array | float | None]:
        """Mean and log-variance of each component: the shape of x, and likewise, a number, or None for `optimal`."""
        if self.variance in ("learned", "per_pixel"):
            both = blocks(self, output, 2)
            mean, logvar = both[..., 0, :], both[..., 1, :]
            return mean, _LOG_VARIANCE_FLOOR + 2 * jax.nn.softplus((logvar - _LOG_VARIANCE_FLOOR) / 2)
        return widen(output), None if isinstance(self.variance, str) else math.log(self.variance)

    @staticmethod
    def raw_logvar(variance: float) -> float:
        """What a learned log-variance has to be, before the floor is put under it, for that variance to come out.

        Raises:
          InputError: a variance that is not above the floor, `exp(-12)`.

        Example:
          >>> _, logvar = Gaussian("learned").moments(jnp.array([[0.0, Gaussian.raw_logvar(0.25)]]))
          >>> round(float(jnp.exp(logvar)[0, 0]), 5)
          0.25
        """
        if not math.exp(_LOG_VARIANCE_FLOOR) < variance < math.inf:
            raise InputError(
                f"A variance of {variance:.3g} is not to be learned; above {math.exp(_LOG_VARIANCE_FLOOR):.3g} it is."
            )
        return _LOG_VARIANCE_FLOOR + 2 * math.log(math.expm1((math.log(variance) - _LOG_VARIANCE_FLOOR) / 2))
