"""Densities of codes: mixtures against scikit-learn's, the Gaussian in closed form, a flow against a density known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn import mixture

from aejax.checks import InputError
from aejax.evaluation import with_flow
from aejax.methods.ae import AE
from aejax.nets import Couplings, Rescaled, init_params
from aejax.priors import GaussianMixture

KEY = jax.random.key(0)


def three_clouds(n=600):
    """Correlated ones, of unequal size."""
    rng = np.random.default_rng(0)
    centres, turn = np.array([[4.0, 0.0, 1.0], [-4.0, 2.0, 0.0], [0.0, -5.0, 0.0]]), rng.normal(size=(3, 3))
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return centres[which] + 0.4 * rng.normal(size=(n, 3)) @ turn


def test_the_mixture_has_the_density_of_scikit_learns():
    codes, z = three_clouds(), np.random.default_rng(1).normal(0, 3, (20, 3))
    with jax.enable_x64(True):
        found = GaussianMixture.of(codes, 3, seed=5).log_prob(jnp.asarray(z))
    theirs = mixture.GaussianMixture(3, random_state=5).fit(codes)
    np.testing.assert_allclose(found, theirs.score_samples(z), rtol=1e-8)


def test_one_gaussian_has_the_mean_and_the_covariance_of_the_codes():
    codes, z = three_clouds(), np.random.default_rng(1).normal(0, 3, (20, 3))
    with jax.enable_x64(True):
        found = GaussianMixture.of(codes, 1).log_prob(jnp.asarray(z))
    covariance = np.cov(codes.T, bias=True) + 1e-6 * np.eye(3)
    expected = scipy.stats.multivariate_normal(codes.mean(axis=0), covariance).logpdf(z)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_plain_autoencoder_with_a_mixture_decodes_draws_of_it():
    """The decoder is A z + b, so samples have the mean A m + b and the covariance A S A^T."""
    codes, a, b = three_clouds(), np.random.default_rng(2).normal(size=(4, 3)), np.array([1.0, 0.0, -1.0, 2.0])
    model = AE.dense(4, 3, hidden_dims=(), likelihood="gaussian").clone(prior=GaussianMixture.of(codes, 3))
    params = {"decoder": {"dense_0": {"kernel": jnp.float32(a.T), "bias": jnp.float32(b)}}}
    x = np.asarray(model.apply({"params": params}, KEY, 40_000, method="sample"), np.float64)
    wanted = a @ np.cov(codes.T) @ a.T
    np.testing.assert_allclose(x.mean(axis=0), a @ codes.mean(axis=0) + b, atol=5 * np.sqrt(wanted.max() / 40_000))
    np.testing.assert_allclose(np.cov(x.T), wanted, atol=0.03 * wanted.max())


def test_a_flow_begins_at_the_gaussian_without_correlations():
    """After one step at a rate of nearly nothing it is the product of normal densities of each component."""
    codes, model = three_clouds(64), AE.dense(4, 3, hidden_dims=())
    made, params = with_flow(model, {}, codes, KEY, num_steps=2, num_epochs=1, batch_size=64, lr=1e-8)
    expected = scipy.stats.norm(codes.mean(axis=0), codes.std(axis=0)).logpdf(codes).sum(axis=1)
    found = made.bind({"params": params}).log_prior(jnp.float32(codes))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_rescaled_flow_has_the_volume_change_of_its_jacobian():
    flow = Rescaled(Couplings(2, (4,), jnp.tanh))
    with jax.enable_x64(True):
        u = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
        shapes, rng = jax.eval_shape(flow.init, KEY, u), np.random.default_rng(1)
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)
        z, log_det = flow.apply(params, u)
        jacobians = jax.vmap(jax.jacfwd(lambda u: flow.apply(params, u)[0]))(u)
        back, log_det_back = flow.apply(params, z, method="inverse")
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobians)[1], rtol=1e-10)
    np.testing.assert_allclose(back, u, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-8)


@pytest.mark.slow
def test_a_fitted_flow_is_nearly_as_likely_as_the_truth_and_a_gaussian_is_not():
    """A parabola with noise, z2 = z1^2 / 2 + e / 2, whose density is known; on codes of its own."""
    rng = np.random.default_rng(0)

    def bent(n):
        first, noise = rng.normal(0, 2, n), rng.normal(0, 0.5, n)
        z = np.stack([first, first**2 / 2 + noise], axis=1)
        return z, scipy.stats.norm(0, 2).logpdf(first) + scipy.stats.norm(0, 0.5).logpdf(noise)

    (codes, _), (new, truth) = bent(4000), bent(2000)
    model = AE.dense(4, 2, hidden_dims=(3,))
    params = init_params(model, KEY, np.zeros((1, 4), np.float32))
    made, own = with_flow(model, params, codes, KEY, num_epochs=40)
    jax.tree.map(np.testing.assert_array_equal, {group: own[group] for group in params}, params)
    bound = made.bind({"params": own})
    flow = float(bound.log_prior(jnp.float32(new)).mean())
    gaussian = float(GaussianMixture.of(codes, 1).log_prob(jnp.float32(new)).mean())
    assert gaussian < truth.mean() - 0.7
    assert truth.mean() - 0.2 < flow < truth.mean() + 0.05
    drawn = np.asarray(bound.sample_prior(jax.random.key(1), 2000), np.float64)
    assert np.mean(np.abs(drawn[:, 1] - drawn[:, 0] ** 2 / 2) < 1.5) > 0.95  # three deviations of the noise


def test_codes_that_cannot_be_are_refused():
    model, codes = AE.dense(4, 3, hidden_dims=()), three_clouds(9)
    for bad, count in ((codes[0], 1), (codes, 10), (np.full((5, 3), np.nan), 2), (codes[:1], 1)):
        with pytest.raises(InputError, match="N at least 2 and as many as there are Gaussians"):
            GaussianMixture.of(bad, count)
    GaussianMixture.of(codes, 9)
    with pytest.raises(InputError, match="num_components=0"):
        GaussianMixture.of(codes, 0)
    for bad in (codes[:, :2], codes[:1], codes * np.inf):
        with pytest.raises(InputError, match=r"finite numbers \[N, 3\] are wanted"):
            with_flow(model, {}, bad, KEY)
    with pytest.raises(InputError, match=r"constant in the components \[1\]"):
        with_flow(model, {}, codes * [1, 0, 1], KEY)
    with pytest.raises(InputError, match="num_epochs=0"):
        with_flow(model, {}, codes, KEY, num_epochs=0)
