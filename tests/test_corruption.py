"""The noises against their definitions; z-tests at 5 standard errors, which a right sampler fails once in 1.7e6."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import corruption
from aejax.checks import InputError

N = 200_000
RATE = 0.3


def _check_share(hits, rate):
    """The mean of N coins has the standard error sqrt(rate (1 - rate) / N)."""
    assert abs(np.mean(hits) - rate) < 5 * math.sqrt(rate * (1 - rate) / np.size(hits))


def test_gaussian_adds_normal_noise_of_the_given_deviation():
    x = jnp.linspace(0, 1, N)
    noise = np.asarray(corruption.gaussian(jax.random.key(0), x, 0.5) - x, np.float64)
    assert abs(noise.mean()) < 5 * 0.5 / math.sqrt(N)
    assert abs(noise.var() - 0.25) < 5 * 0.25 * math.sqrt(2 / N)  # the variance of N normals: 2 sigma^4 / N
    assert abs((noise**4).mean() - 3 * 0.5**4) < 5 * 0.5**4 * math.sqrt(96 / N)  # fourth moment 3, its variance 96
    assert abs(np.corrcoef(noise, x)[0, 1]) < 5 / math.sqrt(N)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 5 / math.sqrt(N)


def test_masking_zeroes_a_share_and_keeps_the_rest():
    x = jnp.linspace(1, 2, N)
    x_tilde = corruption.masking(jax.random.key(1), x, RATE)
    masked = np.asarray(x_tilde == 0)
    _check_share(masked, RATE)
    np.testing.assert_array_equal(np.asarray(x_tilde)[~masked], np.asarray(x)[~masked])
    _check_share(masked[1:] & masked[:-1], RATE**2)  # neighbours are hit independently


def test_salt_and_pepper_puts_both_extremes_equally_often():
    x = jnp.linspace(0.2, 0.8, N)
    x_tilde = np.asarray(corruption.salt_and_pepper(jax.random.key(2), x, RATE))
    _check_share(x_tilde == 0, RATE / 2)
    _check_share(x_tilde == 1, RATE / 2)
    kept = (x_tilde != 0) & (x_tilde != 1)
    np.testing.assert_array_equal(x_tilde[kept], np.asarray(x)[kept])


def test_examples_are_hit_independently():
    masked = np.asarray(corruption.masking(jax.random.key(3), jnp.ones((500, 400)), RATE)) == 0
    # The variance of the number of hits in an example is that of a binomial, 84; of 500 such, its own error is 6.3 %.
    assert abs(masked.sum(1).var() / (400 * RATE * (1 - RATE)) - 1) < 5 * math.sqrt(2 / 500)


@pytest.mark.parametrize("name", corruption.CORRUPTIONS)
def test_the_level_may_be_swept_by_vmap(name):
    corrupt, key, x = corruption.get(name), jax.random.key(4), jnp.linspace(0, 1, 64)
    levels = jnp.array([0.0, 0.1, 0.9])
    with jax.numpy_dtype_promotion("strict"):
        swept = jax.jit(jax.vmap(corrupt, (None, None, 0)))(key, x, levels)
    for level, lane in zip(levels.tolist(), swept, strict=True):
        np.testing.assert_allclose(lane, corrupt(jax.random.clone(key), x, level), rtol=2e-7, atol=2e-7)  # a rounding
    np.testing.assert_array_equal(swept[0], x)


@pytest.mark.parametrize("name", corruption.CORRUPTIONS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_dtype_of_the_data_is_kept_and_the_level_is_not_rounded(name, dtype):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        x_tilde = corruption.get(name)(jax.random.key(5), jnp.full(N, 0.5, dtype), jnp.float32(0.003))
        assert x_tilde.dtype == dtype
        if name != "gaussian":
            _check_share(np.asarray(x_tilde != 0.5), 0.003)


@pytest.mark.parametrize("name", corruption.CORRUPTIONS)
def test_moments_are_those_of_draws(name):
    x = jnp.array([0.0, 0.2, 0.7, 1.0])
    mean, variance = (np.asarray(v, np.float64) for v in corruption.moments(name, x, RATE))
    draws = corruption.get(name)(jax.random.key(6), jnp.broadcast_to(x, (N, 4)), RATE)
    errors = np.asarray(draws, np.float64) - mean
    assert (np.abs(errors.mean(0)) <= 5 * np.sqrt(variance / N)).all()  # where nothing varies, nothing is off
    squares = errors**2
    assert (np.abs(squares.mean(0) - variance) <= 5 * squares.std(0) / math.sqrt(N) + 1e-9).all()
    correlations = (errors.T @ errors / N)[np.triu_indices(4, 1)]
    assert (np.abs(correlations) <= 5 * np.sqrt(np.outer(variance, variance)[np.triu_indices(4, 1)] / N)).all()


def test_moments_by_hand_and_in_double_precision():
    # 0.8 becomes 0 or 1 with probability 0.2 each: mean 0.68, second moment 0.6 * 0.64 + 0.2 = 0.584.
    mean, variance = corruption.moments("salt_and_pepper", np.array([0.8]), 0.4)
    assert mean.dtype == variance.dtype == np.float64
    np.testing.assert_allclose((mean[0], variance[0]), (0.68, 0.584 - 0.68**2), rtol=1e-14)
    mean, variance = corruption.moments("masking", np.array([2.0]), 0.25)
    np.testing.assert_allclose((mean[0], variance[0]), (1.5, 0.75 * 4 - 1.5**2), rtol=1e-14)
    mean, variance = jax.vmap(lambda level: corruption.moments("gaussian", jnp.ones(3), level))(jnp.array([0.0, 0.5]))
    assert mean.tolist() == [[1.0] * 3] * 2
    assert variance.tolist() == [[0.0] * 3, [0.25] * 3]


def test_unknown_names_and_impossible_levels_are_refused():
    with pytest.raises(InputError, match="Did you mean 'masking'"):
        corruption.get("maskin")
    for name, level in [("gaussian", -0.1), ("masking", 25), ("salt_and_pepper", -0.1), ("masking", math.nan)]:
        with pytest.raises(InputError, match=f"level is {level}"):
            corruption.check_level(name, level)
    corruption.check_level("gaussian", 25)
