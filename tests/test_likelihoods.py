"""Likelihoods against scipy, at the ends of the float range, and in their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from aejax import likelihoods
from aejax.checks import InputError
from aejax.likelihoods import bernoulli_nll, gaussian_nll, sse

rng = np.random.default_rng(0)
OUTPUT = rng.normal(0, 3, (4, 3, 2))
BITS = (rng.random((4, 3, 2)) < 0.5).astype(np.float64)
PIXELS = rng.random((4, 3, 2))
LOGVAR = rng.normal(0, 1, (4, 3, 2))


def test_bernoulli_is_scipys():
    with jax.enable_x64(True):
        got = bernoulli_nll(jnp.asarray(OUTPUT), jnp.asarray(BITS))
    expected = -scipy.stats.bernoulli.logpmf(BITS, scipy.special.expit(OUTPUT)).sum((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_bernoulli_of_grey_pixels_is_the_cross_entropy_whose_floor_is_the_entropy():
    with jax.enable_x64(True):
        got = bernoulli_nll(jnp.asarray(scipy.special.logit(PIXELS)), jnp.asarray(PIXELS))
    np.testing.assert_allclose(got, scipy.stats.bernoulli.entropy(PIXELS).sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("logvar", [LOGVAR, 0.0, -1.5])
def test_gaussian_is_scipys(logvar):
    with jax.enable_x64(True):
        got = gaussian_nll(
            jnp.asarray(OUTPUT), jnp.asarray(PIXELS), logvar if np.isscalar(logvar) else jnp.asarray(logvar)
        )
    expected = -scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.exp(np.asarray(logvar) / 2)).sum((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_sse_by_hand():
    # (1 - 3)^2 + (2 - 2)^2 + (0 + 1)^2 = 5, and 4 * 0.25 = 1 with one pixel right
    x_hat = jnp.array([[1.0, 2.0, 0.0], [0.5, 0.5, 7.0]])
    x = jnp.array([[3.0, 2.0, -1.0], [0.0, 1.0, 7.0]])
    assert sse(x_hat, x).tolist() == [5.0, 0.5]


def test_gaussian_of_unit_variance_is_half_the_sse_and_a_constant():
    mean, x = jnp.asarray(OUTPUT, jnp.float32), jnp.asarray(PIXELS, jnp.float32)
    np.testing.assert_allclose(gaussian_nll(mean, x) - sse(mean, x) / 2, 6 * 0.9189385, rtol=1e-5)  # log(2 pi) / 2


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_bernoulli_is_exact_at_any_logit(logit, x):
    value, grad = jax.value_and_grad(lambda logits: bernoulli_nll(logits, jnp.full((1, 1), x))[0])(
        jnp.full((1, 1), logit)
    )
    # -x log s(l) - (1 - x) log(1 - s(l)), and its derivative s(l) - x
    expected = x * np.logaddexp(0, -logit) + (1 - x) * np.logaddexp(0, logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(grad, scipy.special.expit(logit) - x, atol=1e-7)


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_gaussian_is_exact_at_any_variance(logvar):
    mean, x, lv = jnp.full((1, 2), 1.5), jnp.full((1, 2), 1.0), jnp.full((1, 2), logvar)
    value, grads = jax.value_and_grad(lambda m, v: gaussian_nll(m, x, v)[0], (0, 1))(mean, lv)
    precision = np.exp(-logvar)
    np.testing.assert_allclose(value, 0.25 * precision + logvar + np.log(2 * np.pi), rtol=1e-5)
    np.testing.assert_allclose(grads[0], np.full((1, 2), 0.5 * precision), rtol=1e-5)
    np.testing.assert_allclose(grads[1], np.full((1, 2), 0.5 - 0.125 * precision), rtol=1e-5)


@pytest.mark.parametrize("loss", [bernoulli_nll, gaussian_nll, sse])
def test_a_batch_is_its_examples(loss):
    output, x = jnp.asarray(OUTPUT, jnp.float32), jnp.asarray(PIXELS, jnp.float32)
    each = jax.vmap(lambda o, x: loss(o[None], x[None])[0])(output, x)
    assert loss(output, x).shape == (4,)
    np.testing.assert_allclose(loss(output, x), each, rtol=1e-6)


@pytest.mark.parametrize("loss", [bernoulli_nll, gaussian_nll, sse])
def test_gradients_are_those_of_finite_differences(loss):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        check_grads(jax.jit(lambda o: loss(o, jnp.asarray(PIXELS))), (jnp.asarray(OUTPUT),), order=1, modes=["rev"])


@pytest.mark.parametrize("loss", [bernoulli_nll, gaussian_nll, sse])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(AssertionError, match="shape"):
        loss(jnp.zeros((4, 3)), jnp.zeros((4, 1)))


def test_a_likelihood_is_found_by_name_and_maps_its_output_to_data():
    assert likelihoods.get("bernoulli").mean(jnp.zeros(1)).tolist() == [0.5]
    assert likelihoods.get("gaussian").mean(jnp.full(1, 7.0)).tolist() == [7.0]
    with pytest.raises(InputError, match="Did you mean 'bernoulli'"):
        likelihoods.get("bernouli")
