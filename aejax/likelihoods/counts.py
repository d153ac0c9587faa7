"""Counts: Poisson, negative binomial, and multinomial of a given total."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, xlogy

from aejax.likelihoods.base import Likelihood, Support, blocks
from aejax.precision import widen

Array = jax.Array

COUNTS = Support(0.0, math.inf, 1.0)
_LARGEST = 2.0**24  # float32 cannot tell larger counts from their neighbours
_TURN = math.log(_LARGEST)
_DISPERSIONS = (1e-4, 1e4)
_STIRLING = 16.0  # from where the series is good to 1e-14
_FAR = 80.0  # where exp comes near the largest float32


def _mean_of(log_mean: Array) -> Array:
    """`exp` up to 2^24 and its tangent from there, so that any output has a finite mean and slope."""
    below = jnp.exp(jnp.minimum(log_mean, _TURN))
    return below + _LARGEST * jnp.maximum(log_mean - _TURN, 0.0)


def _log_mean_of(log_mean: Array) -> Array:
    """The logarithm of that."""
    return jnp.minimum(log_mean, _TURN) + jnp.log1p(jnp.maximum(log_mean - _TURN, 0.0))


def _log_factorial_rest(n: Array) -> Array:
    """`log n! - (n log n - n)`: what is left of a log-probability once the large terms have cancelled on paper.

    In float32 a sum of these large terms keeps no digit of the rest for counts above 1e6.
    """
    large = jnp.where(n < _STIRLING, _STIRLING, n)
    inverse_sq = 1 / jnp.square(large)
    tail = 1 / 12 - inverse_sq * (1 / 360 - inverse_sq * (1 / 1260 - inverse_sq / 1680))
    series = 0.5 * jnp.log(2 * math.pi * large) + tail / large
    small = jnp.where(n < _STIRLING, n, _STIRLING)
    return jnp.where(n < _STIRLING, gammaln(small + 1) - xlogy(small, small) + small, series)


def _log_mixed(share: Array, rest: Array, log_ratio: Array) -> Array:
    """`log(rest + share exp(log_ratio))` where share and rest sum to 1, with its digits at any ratio and share."""
    up, down = log_ratio > _FAR, (log_ratio < -1) & (share > 0.5)
    near = jnp.log1p(share * jnp.expm1(jnp.where(up | down, 0.0, log_ratio)))
    below = jnp.log(jnp.where(down, rest + share * jnp.exp(jnp.where(down, log_ratio, 0.0)), 1.0))
    return jnp.where(up, log_ratio + jnp.log(share), jnp.where(down, below, near))


@dataclasses.dataclass(frozen=True)
class Poisson(Likelihood):
    """Independent counts: the output is the logarithm of their rates.

    A decoder that is given a library size adds its logarithm. From a rate of 2^24 on, `exp` goes on as its tangent, so
    that the output may have any size.

    Example:
      >>> round(float(Poisson().nll(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0))[0]), 4)  # 1 + log 2!
      1.6931
    """

    @property
    def support(self) -> Support:
        return COUNTS

    def nll_components(self, output: Array, x: Array) -> Array:
        chex.assert_equal_shape([output, x])
        output, x = widen(output), widen(x)
        above_zero = jnp.where(x > 0, x, 1.0)
        log_ratio = _log_mean_of(output) - jnp.log(above_zero)
        deviance = jnp.where(x > 0, x * (jnp.expm1(log_ratio) - log_ratio), _mean_of(output))
        return deviance + _log_factorial_rest(x)

    def mean(self, output: Array) -> Array:
        return _mean_of(widen(output))

    def sample(self, key: Array, output: Array) -> Array:
        """A draw of x; `jax.random.poisson` takes threefry keys only."""
        rate = self.mean(output)
        return jax.random.poisson(key, rate).astype(rate.dtype)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Likelihood):
    """Independent counts whose variance is `mean + mean^2 / dispersion`.

    The output holds two blocks along its last axis: the logarithm of the means (as in `Poisson`; a decoder that is
    given a library size adds its logarithm here) and numbers whose softplus is the dispersion. That is kept between
    1e-4 and 1e4, as the code of DCA has it: without bounds it runs off where the counts are all zero, or no more spread
    than Poisson's.

    Example:
      >>> output = jnp.array([[0.0, 0.5413248]])  # mean 1, dispersion 1: geometric, p = 1/2
      >>> round(float(NegativeBinomial().nll(output, jnp.full((1, 1), 2.0))[0]), 4)  # 3 log 2
      2.0794

    Reference: Eraslan, Simon, Mircea, Mueller & Theis (2019), "Single-cell RNA-seq denoising using a deep count
    autoencoder" (DCA); for library sizes Lopez, Regier, Cole, Jordan & Yosef (2018), scVI.
    """

    @property
    def support(self) -> Support:
        return COUNTS

    @property
    def numbers(self) -> int:
        return 2

    def nll_components(self, output: Array, x: Array) -> Array:
        raw, dispersion = self._split(output)
        chex.assert_equal_shape([raw, x])
        x = widen(x)
        above_zero = jnp.where(x > 0, x, 1.0)
        log_mean, both = _log_mean_of(raw), above_zero + dispersion
        log_ratio = log_mean - jnp.log(above_zero)
        of_count = x * _log_mixed(dispersion / both, above_zero / both, -log_ratio)
        of_gamma = jnp.where(
            x > 0,
            _log_mixed(above_zero / both, dispersion / both, log_ratio),
            jax.nn.softplus(log_mean - jnp.log(dispersion)),
        )
        rests = _log_factorial_rest(x) + _log_factorial_rest(dispersion) - _log_factorial_rest(x + dispersion)
        return of_count + dispersion * of_gamma + rests + jnp.log1p(x / dispersion)

    def mean(self, output: Array) -> Array:
        return _mean_of(self._split(output)[0])

    def dispersion(self, output: Array) -> Array:
        """The dispersion of each component, the shape of x."""
        return self._split(output)[1]

    @staticmethod
    def raw_dispersion(log_dispersion: Array) -> Array:
        """The numbers whose softplus is a dispersion, from its logarithm, which is brought between its bounds.

        Example:
          >>> raw = NegativeBinomial.raw_dispersion(jnp.log(jnp.array([0.5, 1e9])))
          >>> NegativeBinomial().dispersion(jnp.concatenate([jnp.zeros(2), raw])[None]).round(3).tolist()
          [[0.5, 10000.0]]
        """
        dispersion = jnp.exp(jnp.clip(log_dispersion, *map(math.log, _DISPERSIONS)))
        return dispersion + jnp.log(-jnp.expm1(-dispersion))

    def sample(self, key: Array, output: Array) -> Array:
        """A draw of x, Poisson with a gamma-distributed rate; `jax.random.poisson` takes threefry keys only."""
        raw, dispersion = self._split(output)
        gamma_key, poisson_key = jax.random.split(key)
        rate = jax.random.gamma(gamma_key, dispersion) * _mean_of(raw) / dispersion
        return jax.random.poisson(poisson_key, rate).astype(rate.dtype)

    def _split(self, output: Array) -> tuple[Array, Array]:
        """The logarithm of the mean, before it is bent, and the dispersion."""
        blocks(self, output, 2)  # refuses a last axis that cannot be cut
        raw, dispersion = jnp.split(widen(output), 2, axis=-1)  # XLA makes the gradient of a reshape five times as slow
        return raw, jnp.clip(jax.nn.softplus(dispersion), *_DISPERSIONS)


@dataclasses.dataclass(frozen=True)
class Multinomial(Likelihood):
    """Counts of events, each of which is of one kind with the probabilities `softmax(output)`; how many is given.

    The number of events of an example, the sum of its x, is not modelled. `nll` is that of the events in the order in
    which they came, `-sum_i x_i log softmax(output)_i`: the multinomial coefficient, which no parameter changes, is
    left out, as in the paper. Of one event it is the categorical likelihood. The components are all that follows the
    first axis; unlike those of other likelihoods they depend on each other.

    `mean` and `sample` are those of a single event, for the output knows no total: multiplied by one, the mean is that
    of the counts.

    Example:
      >>> output, x = jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([[1.0, 2.0, 0.0]])
      >>> round(float(Multinomial().nll(output, x)[0]), 4)  # 5 log 2
      3.4657

    Reference: Liang, Krishnan, Hoffman & Jebara (2018), "Variational autoencoders for collaborative filtering",
    equation 2.
    """

    @property
    def support(self) -> Support:
        return COUNTS

    def nll_components(self, output: Array, x: Array) -> Array:
        chex.assert_equal_shape([output, x])
        return -widen(x) * _log_shares(output)

    def mean(self, output: Array) -> Array:
        """The probability of each kind; the sum over an example is 1."""
        return jnp.exp(_log_shares(output))

    def sample(self, key: Array, output: Array) -> Array:
        """One event for each example: 1 at its kind, 0 elsewhere."""
        logits = widen(output).reshape(len(output), -1)
        kind = jax.random.categorical(key, logits)
        return jax.nn.one_hot(kind, logits.shape[1], dtype=logits.dtype).reshape(output.shape)


@dataclasses.dataclass(frozen=True)
class Weighted(Multinomial):
    """As `Multinomial`, of events with weights: x are any numbers from 0 up, such as tf-idf.

    `nll` is then no likelihood but a cross-entropy, the sum of x times as large as that of its shares.

    Example:
      >>> round(float(Weighted().nll(jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[0.5, 1.5]]))[0]), 4)  # 2 log 2
      1.3863
    """

    @property
    def support(self) -> Support:
        return Support(0.0, math.inf)


def _log_shares(output: Array) -> Array:
    return jax.nn.log_softmax(widen(output), axis=tuple(range(1, output.ndim)))
