"""Discrete levels of grey: x in [0, 1] takes the values k / (levels - 1)."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from aejax.checks import InputError
from aejax.likelihoods.base import Likelihood, Support, blocks
from aejax.precision import widen

Array = jax.Array

_LOG_SCALE_FLOOR = -7.0  # in the code of Salimans et al. (2017), where x runs from -1 to 1
_LOG_SCALE_CEILING = 20.0  # of the mean, which has long come to its limit there


@dataclasses.dataclass(frozen=True)
class Categorical(Likelihood):
    """Independent pixels of so many levels: the output holds a block of logits for each level, darkest first.

    Attributes:
      levels: at least 2; x is k / (levels - 1).

    Example:
      >>> round(float(Categorical(4).nll(jnp.zeros((1, 8)), jnp.zeros((1, 2)))[0]), 4)  # 2 log 4
      2.7726

    Reference: van den Oord, Kalchbrenner & Kavukcuoglu (2016), section 2.2.
    """

    levels: int = 256

    def __post_init__(self) -> None:
        _check_levels(self.levels)

    @property
    def support(self) -> Support:
        return Support(0.0, 1.0, 1 / (self.levels - 1))

    @property
    def numbers(self) -> int:
        return self.levels

    def nll_components(self, output: Array, x: Array) -> Array:
        logits = blocks(self, output, self.levels)
        chex.assert_equal_shape([logits[..., 0, :], x])
        level = _level(x, self.levels).astype(jnp.int32)[..., None, :]
        return logsumexp(logits, axis=-2) - jnp.take_along_axis(logits, level, axis=-2)[..., 0, :]

    def mean(self, output: Array) -> Array:
        p = jax.nn.softmax(blocks(self, output, self.levels), axis=-2)
        return jnp.einsum("...kc,k->...c", p, jnp.linspace(0.0, 1.0, self.levels, dtype=p.dtype), precision="highest")

    def sample(self, key: Array, output: Array) -> Array:
        logits = blocks(self, output, self.levels)
        return jax.random.categorical(key, logits, axis=-2).astype(logits.dtype) / (self.levels - 1)


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic(Likelihood):
    """A mixture of logistics for each component, and of each the share that falls to the level.

    A level has what lies within half a step of it; the lowest and the highest have all beyond them as well, so that the
    levels sum to one. With x scaled to [-1, 1], as in the paper, the output holds three times `mixtures` blocks: logits
    of the mixture, means, and log-scales, which have a floor of -7 as in the code of the paper. Channels are
    independent.

    `mean` is that of the logistics cut off at 0 and 1, in closed form: at most half a step from that of the levels, and
    much nearer where scales are larger than a step.

    Departures from the code: channels of a pixel do not share the mixture and are not conditioned on each other; the
    shares are computed as they are, where the code approximates small ones by the density.

    Attributes:
      mixtures: logistics for each component; 10 in the code of the paper.
      levels: at least 2; x is k / (levels - 1).

    Example:
      >>> output = jnp.array([[0.0, 0.0, 0.0]])  # one logistic of scale 1 around the middle, two levels
      >>> round(float(DiscretizedLogistic(1, levels=2).nll(output, jnp.ones((1, 1)))[0]), 4)  # log 2
      0.6931

    Reference: Salimans, Karpathy, Chen & Kingma (2017), "PixelCNN++", equation 2.
    """

    mixtures: int = 10
    levels: int = 256

    def __post_init__(self) -> None:
        _check_levels(self.levels)
        if self.mixtures < 1:
            raise InputError(f"mixtures is {self.mixtures}; at least 1 is needed.")

    @property
    def support(self) -> Support:
        return Support(0.0, 1.0, 1 / (self.levels - 1))

    @property
    def numbers(self) -> int:
        return 3 * self.mixtures

    def nll_components(self, output: Array, x: Array) -> Array:
        logits, mean, log_scale = self._split(output)
        chex.assert_equal_shape([mean[..., 0, :], x])
        level = _level(x, self.levels)[..., None, :]
        half = 1 / (self.levels - 1)
        away, precision = 2 * half * level - 1 - mean, jnp.exp(-log_scale)
        below = jax.nn.log_sigmoid((away + half) * precision)  # log of the share below the upper edge of the level
        above = jax.nn.log_sigmoid((half - away) * precision)  # and of that above its lower edge
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))
        between = below + above + _log1mexp(math.log(2 * half) - log_scale)
        share = jnp.where(level == 0, below, jnp.where(level == self.levels - 1, above, between))
        return -logsumexp(jax.nn.log_softmax(logits, axis=-2) + share, axis=-2)

    def mean(self, output: Array) -> Array:
        logits, mean, log_scale = self._split(output)
        scale = jnp.exp(jnp.minimum(log_scale, _LOG_SCALE_CEILING))
        low, high = (-1 - mean) / scale, (1 - mean) / scale
        # The integral of the distribution function, scale (softplus(high) - softplus(low)), twice: where the scale is
        # large, the difference would lose its digits.
        narrow = scale * (jax.nn.softplus(high) - jax.nn.softplus(low))
        wide = scale * jnp.log1p(jax.nn.sigmoid(low) * jnp.expm1(2 / jnp.maximum(scale, 0.1)))
        cut_off = 1 - 0.5 * jnp.where(scale > 0.1, wide, narrow)
        return jnp.sum(jax.nn.softmax(logits, axis=-2) * cut_off, axis=-2)

    def sample(self, key: Array, output: Array) -> Array:
        logits, mean, log_scale = self._split(output)
        which_key, value_key = jax.random.split(key)
        which = jax.random.categorical(which_key, logits, axis=-2)[..., None, :]
        mean, log_scale = (jnp.take_along_axis(v, which, axis=-2)[..., 0, :] for v in (mean, log_scale))
        value = mean + jnp.exp(log_scale) * jax.random.logistic(value_key, mean.shape, mean.dtype)
        return _level((value + 1) / 2, self.levels) / (self.levels - 1)

    def _split(self, output: Array) -> tuple[Array, Array, Array]:
        """Logits, means and log-scales, `[..., mixtures, C]` each."""
        logits, mean, log_scale = jnp.split(blocks(self, output, self.numbers), 3, axis=-2)
        return logits, mean, jnp.maximum(log_scale, _LOG_SCALE_FLOOR)


def _log1mexp(log_size: Array) -> Array:
    """`log(1 - exp(-size))`, by the logarithm of the size, which may be too small for a number."""
    size = jnp.exp(log_size)
    return jnp.where(log_size < -10, log_size - size / 2, jnp.log(-jnp.expm1(-jnp.maximum(size, 1e-5))))


def _level(x: Array, levels: int) -> Array:
    """Which level x is nearest to, a float from 0 to `levels - 1`."""
    return jnp.clip(jnp.round(widen(x) * (levels - 1)), 0, levels - 1)


def _check_levels(levels: int) -> None:
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise InputError(f"levels is {levels!r}; a whole number of at least 2 is needed.")
