"""Divergences against quadrature, hand numbers, double loops and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from aejax.checks import InputError
from aejax.divergences import (
    discriminator_loss,
    gaussian_kl,
    generator_loss,
    imq_gram,
    median_bandwidth,
    mmd_sq,
    rbf_gram,
)

LOG2 = 0.6931471805599453
rng = np.random.default_rng(0)


@pytest.mark.parametrize(("mean", "logvar"), [(0.0, 0.0), (1.3, 0.0), (0.0, -3.0), (-2.0, 1.5), (0.7, 3.0)])
def test_kl_is_the_integral_that_defines_it(mean, logvar):
    q, p = scipy.stats.norm(mean, np.exp(logvar / 2)), scipy.stats.norm()
    integral = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -60, 60, points=[mean], limit=200
    )[0]
    got = gaussian_kl(jnp.full((1, 1), mean), jnp.full((1, 1), logvar))
    np.testing.assert_allclose(got, [integral], rtol=1e-5, atol=1e-7)


def test_kl_by_hand():
    # mean (1, 2), variance (1, e): (1 + 4) / 2 + (e - 1 - 1) / 2
    got = gaussian_kl(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 1.0]]))
    np.testing.assert_allclose(got, [2.5 + 0.3591409], rtol=1e-6)


def test_kl_keeps_its_digits_near_the_prior():
    # expm1(v) - v = v^2 / 2 + v^3 / 6 + ...; the plain exp(v) - 1 - v is 12 % off here
    np.testing.assert_allclose(
        gaussian_kl(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3)), [0.25e-6 * (1 + 1e-3 / 3)], rtol=1e-3
    )


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_kl_is_exact_at_any_variance(logvar):
    value, grads = jax.value_and_grad(lambda m, v: gaussian_kl(m, v).sum(), (0, 1))(
        jnp.full((1, 3), 2.0), jnp.full((1, 3), logvar)
    )
    np.testing.assert_allclose(value, 1.5 * (4 + np.exp(logvar) - 1 - logvar), rtol=1e-5)
    np.testing.assert_allclose(grads[0], np.full((1, 3), 2.0))
    np.testing.assert_allclose(grads[1], np.full((1, 3), (np.exp(logvar) - 1) / 2), rtol=1e-5)


def test_adversarial_losses_by_hand():
    # log(1 + e^-1) + log(1 + e^-2), and log(1 + e^2) for the generator
    np.testing.assert_allclose(
        discriminator_loss(jnp.ones((1, 1)), jnp.full((1, 1), -2.0)), [0.3132617 + 0.1269280], rtol=1e-6
    )
    np.testing.assert_allclose(generator_loss(jnp.full((1, 1), -2.0)), [2.1269280], rtol=1e-6)


def test_a_discriminator_that_cannot_tell_sits_at_two_log_two():
    zeros = jnp.zeros((3, 1))
    np.testing.assert_allclose(discriminator_loss(zeros, zeros), np.full(3, 2 * LOG2), rtol=1e-6)
    np.testing.assert_allclose(generator_loss(zeros), np.full(3, LOG2), rtol=1e-6)


def test_the_best_discriminator_sits_two_jensen_shannon_divergences_below():
    p, q = scipy.stats.norm(0, 1), scipy.stats.norm(1.5, 0.7)
    z = np.linspace(-9, 9, 20001)
    mix = (p.pdf(z) + q.pdf(z)) / 2
    js = 0.5 * np.trapezoid(p.pdf(z) * np.log(p.pdf(z) / mix) + q.pdf(z) * np.log(q.pdf(z) / mix), z)
    logits = jnp.asarray(p.logpdf(z) - q.logpdf(z))[:, None]
    real = np.trapezoid(p.pdf(z) * discriminator_loss(logits, jnp.full_like(logits, -1e4)), z)
    fake = np.trapezoid(q.pdf(z) * discriminator_loss(jnp.full_like(logits, 1e4), logits), z)
    np.testing.assert_allclose(real + fake, 2 * LOG2 - 2 * js, rtol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_adversarial_losses_are_exact_at_any_logit(logit):
    logits = jnp.full((1, 1), logit)
    disc, (real_grad, fake_grad) = jax.value_and_grad(lambda r, f: discriminator_loss(r, f)[0], (0, 1))(logits, logits)
    gen, gen_grad = jax.value_and_grad(lambda f: generator_loss(f)[0])(logits)
    assert disc == 1e4  # one side is sure and right, the other sure and wrong
    assert (real_grad[0, 0], fake_grad[0, 0]) == ((-1.0, 0.0) if logit < 0 else (0.0, 1.0))
    assert (gen, gen_grad[0, 0]) == ((1e4, -1.0) if logit < 0 else (0.0, 0.0))  # does not saturate where it loses


@pytest.mark.parametrize("loss", [gaussian_kl, discriminator_loss, lambda a, b: generator_loss(a + b)])
def test_a_batch_is_its_examples_and_gradients_are_those_of_finite_differences(loss):
    a, b = rng.normal(size=(2, 5, 3))
    each = jax.vmap(lambda a, b: loss(a[None], b[None])[0])(jnp.asarray(a), jnp.asarray(b))
    assert loss(jnp.asarray(a), jnp.asarray(b)).shape == (5,)
    np.testing.assert_allclose(loss(jnp.asarray(a), jnp.asarray(b)), each, rtol=1e-5)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        check_grads(jax.jit(loss), (jnp.asarray(a), jnp.asarray(b)), order=1, modes=["rev"])


@pytest.mark.parametrize("loss", [gaussian_kl, discriminator_loss])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(AssertionError, match="shape"):
        loss(jnp.zeros((4, 2)), jnp.zeros((4, 1)))


@pytest.mark.parametrize("loss", [gaussian_kl, discriminator_loss, lambda a, b: generator_loss(a)])
def test_half_precision_is_summed_in_single(loss):
    a, b = (jnp.asarray(v, jnp.bfloat16) for v in rng.normal(0, 3, size=(2, 64, 784)))
    got, single = loss(a, b), loss(a.astype(jnp.float32), b.astype(jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, single, rtol=1e-6)  # bfloat16 would tell no two sums closer than 4 nats apart


def imq(sq, dim, bandwidth):
    """Tolstikhin et al. (2018), section 4: C / (C + |x - y|^2) with C = 2 Z sigma^2, at the scales of their code."""
    return sum(c / (c + sq) for c in 2 * dim * bandwidth**2 * np.array([0.1, 0.2, 0.5, 1, 2, 5, 10]))


def naive_mmd(x, y, bandwidth, kernel="rbf"):
    rbf = lambda sq: np.exp(-sq / (2 * bandwidth**2))
    value = rbf if kernel == "rbf" else lambda sq: imq(sq, x.shape[1], bandwidth)

    def mean_kernel(a, b, skip_diagonal):
        total, count = 0.0, 0
        for i, u in enumerate(a):
            for j, v in enumerate(b):
                if not (skip_diagonal and i == j):
                    total += value(np.sum((u - v) ** 2))
                    count += 1
        return total / count

    return mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)


@pytest.mark.first(4)
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
@pytest.mark.parametrize("block_size", [1, 4, 11, 1000])
def test_mmd_is_the_double_loop(block_size, kernel):
    x, y = rng.normal(size=(11, 3)), rng.normal(0.5, 1.5, size=(7, 3))
    with jax.enable_x64(True):
        got = mmd_sq(jnp.asarray(x), jnp.asarray(y), kernel=kernel, bandwidth=1.3, block_size=block_size)
    np.testing.assert_allclose(got, naive_mmd(x, y, 1.3, kernel), rtol=1e-10)


def test_multiquadratics_suit_a_standard_normal_unless_told_otherwise():
    x, y = rng.normal(size=(9, 2)), rng.normal(0.5, 1.5, size=(9, 2))
    got = mmd_sq(jnp.asarray(x), jnp.asarray(y), kernel="imq")
    np.testing.assert_allclose(got, naive_mmd(x, y, 1.0, "imq"), rtol=1e-4)
    # Distance 2 in one dimension, C = 2 s: s / (s + 2) at s of 0.1, 0.2, 0.5, 1, 2, 5 and 10.
    expected = 0.1 / 2.1 + 0.2 / 2.2 + 0.5 / 2.5 + 1 / 3 + 2 / 4 + 5 / 7 + 10 / 12
    np.testing.assert_allclose(imq_gram(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0)), [[expected]], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_mmd_of_half_precision_is_that_of_single(kernel):
    x, y = (jnp.asarray(v, jnp.bfloat16) for v in rng.normal(size=(2, 300, 4)))
    got = mmd_sq(x, y, kernel=kernel)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, mmd_sq(x.astype(jnp.float32), y.astype(jnp.float32), kernel=kernel), atol=1e-6)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(InputError, match=r"Unknown kernel 'img'. Did you mean 'imq'"):
        mmd_sq(jnp.zeros((2, 1)), jnp.zeros((2, 1)), kernel="img")


def test_mmd_of_10_000_codes_is_right_to_a_millionth():
    # Under the null its standard deviation is about 2e-5 at this size: float32 sums must not drown it.
    x, y = rng.normal(size=(2, 2000, 2))
    got = mmd_sq(jnp.asarray(x), jnp.asarray(y), bandwidth=1.5)

    def mean_kernel(a, b, diagonal):
        sq = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
        return (np.exp(-sq / 4.5).sum() - diagonal) / (len(a) * (len(b) - bool(diagonal)))

    expected = mean_kernel(x, x, 2000) + mean_kernel(y, y, 2000) - 2 * mean_kernel(x, y, 0)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_mmd_does_not_care_where_the_origin_is():
    x, y = np.round(rng.normal(size=(2, 50, 2)), 2)
    near = mmd_sq(jnp.asarray(x), jnp.asarray(y + 0.5))
    far = mmd_sq(jnp.asarray(x + 1024), jnp.asarray(y + 1024.5))
    np.testing.assert_allclose(far, near, rtol=1e-3)


def z_score(values, expected):
    return (np.mean(values) - expected) / (np.std(values, ddof=1) / np.sqrt(len(values)))


@pytest.mark.first(1)
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_mmd_has_mean_zero_where_the_distributions_are_one(kernel):
    values = _values(0.0, jax.random.split(jax.random.key(1), 2000), kernel)
    assert abs(z_score(values, 0.0)) < 4


def test_mmd_has_the_mean_of_its_closed_form_between_gaussians():
    # E k(x, y) for x - y ~ N(m, 2 I) in two dimensions, bandwidth h: h^2 / (h^2 + 2) exp(-|m|^2 / (2 (h^2 + 2)))
    values = _values(1.0, jax.random.split(jax.random.key(2), 2000))
    expected = 2 * (1 / 3) * (1 - np.exp(-(1.0**2 + 1.0**2) / 6))
    assert abs(z_score(values, expected)) < 4
    assert expected > 0.15  # the test could tell a wrong formula


@partial(jax.jit, static_argnames="kernel")
def _values(shift, keys, kernel="rbf"):
    def one(key):
        x_key, y_key = jax.random.split(key)
        x, y = jax.random.normal(x_key, (12, 2)), jax.random.normal(y_key, (9, 2))
        return mmd_sq(x, y + shift, kernel=kernel, bandwidth=1.0)

    return jax.vmap(one)(keys)


@pytest.mark.first(1)
@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_mmd_gradients_are_those_of_finite_differences(kernel):
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(5, 2))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        check_grads(
            lambda x, y: mmd_sq(x, y, kernel=kernel, bandwidth=1.1, block_size=3),
            (jnp.asarray(x), jnp.asarray(y)),
            order=1,
            modes=["rev"],
        )


def test_mmd_gradient_is_finite_where_points_coincide():
    grad = jax.grad(lambda x: mmd_sq(x, jnp.zeros((3, 2))))(jnp.zeros((4, 2)))
    assert np.isfinite(grad).all()


def test_the_kernel_by_hand():
    # distances 0, 5 and 3, 4 at bandwidth 5: exp(-d^2 / 50)
    gram = rbf_gram(jnp.array([[0.0, 0.0], [3.0, 0.0]]), jnp.array([[0.0, 0.0], [3.0, 4.0]]), 5.0)
    np.testing.assert_allclose(gram, np.exp([[0, -0.5], [-0.18, -0.32]]), rtol=1e-6)


def test_the_median_is_over_pairs_of_the_pooled_sample():
    x, y = rng.normal(size=(20, 3)), rng.normal(2, 1, size=(31, 3))
    points = np.concatenate([x, y])
    distances = [np.linalg.norm(points[i] - points[j]) for i in range(51) for j in range(i)]
    np.testing.assert_allclose(median_bandwidth(jnp.asarray(x), jnp.asarray(y)), np.median(distances), rtol=1e-5)


@pytest.mark.slow
def test_the_median_of_large_samples_is_over_every_kth_row():
    x, y = rng.normal(size=(4500, 2)), rng.normal(size=(100, 2))
    assert median_bandwidth(jnp.asarray(x), jnp.asarray(y)) == median_bandwidth(jnp.asarray(x[::3]), jnp.asarray(y))


def test_points_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError):
        mmd_sq(jnp.zeros((4, 2)), jnp.zeros((4, 3)))
    with pytest.raises(AssertionError):
        mmd_sq(jnp.zeros((1, 2)), jnp.zeros((4, 2)))
