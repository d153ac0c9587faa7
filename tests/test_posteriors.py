"""Posteriors: densities against scipy, draws against densities, divergences against Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aejax import priors
from aejax.methods.vae import VAE
from aejax.posteriors import DiagonalGaussian, noise, sample_and_kl

RNG = np.random.default_rng(0)
MEAN, LOGVAR = RNG.normal(0, 2, (5, 3)), RNG.normal(0, 1, (5, 3))
Q = DiagonalGaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(LOGVAR, jnp.float32))
KEY = jax.random.key(0)


def scipy_log_prob(z):
    return scipy.stats.norm(MEAN, np.exp(LOGVAR / 2)).logpdf(z).sum(-1)


def test_the_density_is_scipys():
    z = RNG.normal(0, 2, (5, 3))
    with jax.enable_x64(True):
        got = DiagonalGaussian(jnp.asarray(MEAN), jnp.asarray(LOGVAR)).log_prob(jnp.asarray(z))
    np.testing.assert_allclose(got, scipy_log_prob(z), rtol=1e-12)


def test_draws_have_the_distribution_asked_for():
    z = DiagonalGaussian(jnp.full((20_000,), 1.5), jnp.full((20_000,), np.log(0.25))).sample(jax.random.key(5))
    assert scipy.stats.kstest(np.asarray(z), scipy.stats.norm(1.5, 0.5).cdf).pvalue > 0.01
    with pytest.raises(AssertionError, match="shape"):
        DiagonalGaussian(jnp.zeros((2, 3)), jnp.zeros((2, 1))).sample(KEY)


def test_a_draw_comes_with_its_density():
    z, log_q = Q.sample_and_log_prob(KEY)
    np.testing.assert_array_equal(z, Q.sample(jax.random.clone(KEY)))
    np.testing.assert_allclose(log_q, scipy_log_prob(np.asarray(z, np.float64)), rtol=1e-5)


def test_the_closed_divergence_is_that_of_monte_carlo():
    z, log_q = jax.jit(jax.vmap(Q.sample_and_log_prob))(jax.random.split(jax.random.key(1), 20_000))
    values = np.asarray(log_q, np.float64) - scipy.stats.norm.logpdf(z).sum(-1)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - np.asarray(Q.kl_standard_normal())) < 4 * error).all()


def test_one_key_for_each_example():
    keys = jax.random.split(KEY, 5)
    rows = [jax.random.normal(key, (3,)) for key in keys]
    np.testing.assert_array_equal(noise(keys, (5, 3)), np.stack(rows))
    z, log_q = Q.sample_and_log_prob(jax.random.clone(keys))
    np.testing.assert_allclose(z, MEAN + np.exp(LOGVAR / 2) * np.stack(rows), rtol=1e-5)
    np.testing.assert_allclose(log_q, scipy_log_prob(np.asarray(z, np.float64)), rtol=1e-5)
    np.testing.assert_array_equal(noise(jax.random.PRNGKey(3), (5, 3)), noise(jax.random.key(3), (5, 3)))
    with pytest.raises(AssertionError, match="shape"):
        noise(keys[:4], (5, 3))


def test_it_is_a_pytree_that_leaves_jit_and_unpacks():
    mean, logvar = jax.jit(lambda q: q)(Q)
    np.testing.assert_array_equal(mean, Q.mode)
    np.testing.assert_array_equal(logvar, Q.logvar)


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_density_and_gradient_are_finite_at_extreme_variances(logvar):
    def log_q(q):
        return q.sample_and_log_prob(KEY)[1].sum()

    value, grads = jax.value_and_grad(log_q)(DiagonalGaussian(jnp.ones((1, 2)), jnp.full((1, 2), logvar)))
    assert np.isfinite(value)
    np.testing.assert_allclose(grads.logvar, [[-0.5, -0.5]], rtol=1e-6)  # of -logvar / 2, the entropy's other sign
    np.testing.assert_array_equal(grads.mean, [[0.0, 0.0]])


def test_densities_of_half_precision_are_summed_wide():
    q = DiagonalGaussian(jnp.zeros((1, 4096), jnp.bfloat16), jnp.ones((1, 4096), jnp.bfloat16))
    # Of 4096 dimensions, -(1 + log 2 pi) / 2 each at the mean; the sum in bfloat16 would be a multiple of 32.
    np.testing.assert_allclose(q.log_prob(q.mean), [-2048 * (1 + np.log(2 * np.pi))], rtol=3e-3)
    assert q.log_prob(q.mean).dtype == jnp.float32


def test_half_precision_is_drawn_and_measured_in_single():
    """In bfloat16 exp(logvar / 2), the noise and their product would each be off by up to 1 in 256."""
    half = [jax.random.normal(key, (64, 8)).astype(jnp.bfloat16) for key in jax.random.split(KEY)]
    q, single = DiagonalGaussian(*half), DiagonalGaussian(*(v.astype(jnp.float32) for v in half))
    (z, log_q), (expected, log_expected) = (p.sample_and_log_prob(KEY) for p in (q, single))
    assert z.dtype == log_q.dtype == jnp.float32
    for a, b in ((z, expected), (log_q, log_expected), (q.sample(KEY), expected), (q.log_prob(z), single.log_prob(z))):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    points = half[0][:, :2]
    for prior in (priors.StandardNormal(2), priors.GaussianMixture.ring(), priors.SwissRoll()):
        np.testing.assert_allclose(prior.log_prob(points), prior.log_prob(points.astype(jnp.float32)), rtol=1e-6)


def test_the_divergence_from_the_prior_of_the_model():
    mixture = priors.GaussianMixture((1.0, 2.0), ((0.0,) * 3, (1.0,) * 3), (tuple(map(tuple, np.eye(3))),) * 2)
    z, log_q = Q.sample_and_log_prob(KEY)
    log_p = {
        "normal": scipy.stats.norm.logpdf(z).sum(-1),
        mixture: np.logaddexp(
            np.log(1 / 3) + scipy.stats.norm.logpdf(z).sum(-1), np.log(2 / 3) + scipy.stats.norm(1).logpdf(z).sum(-1)
        ),
    }
    for prior, expected in log_p.items():
        model = VAE.dense(4, 3, prior=prior).bind({"params": {}})
        for closed in (True, False):
            drawn, kl = sample_and_kl(Q, jax.random.clone(KEY), model, closed=closed)
            np.testing.assert_array_equal(drawn, z)
            if closed and prior == "normal":
                np.testing.assert_array_equal(kl, Q.kl_standard_normal())
            else:
                np.testing.assert_allclose(kl, log_q - expected, rtol=1e-5, atol=1e-5)


class Shifted(VAE):
    """A model with a prior of its own, N(1, I)."""

    def log_prior(self, z):
        return priors.StandardNormal(self.latent_dim).log_prob(z - 1)


def test_a_model_that_overrides_its_prior_is_not_taken_for_the_standard_normal():
    model = Shifted.dense(4, 3).bind({"params": {}})
    z, kl = sample_and_kl(Q, KEY, model)
    np.testing.assert_allclose(kl, scipy_log_prob(np.asarray(z)) - scipy.stats.norm(1).logpdf(z).sum(-1), rtol=1e-4)
