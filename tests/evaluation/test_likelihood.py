"""Importance-sampled likelihoods against linear-Gaussian models, whose likelihood is a Gaussian that scipy knows."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditioned import linear_model
from scipy.stats import multivariate_normal

from aejax.checks import InputError
from aejax.evaluation import nll
from aejax.likelihoods import Gaussian
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.posteriors import DiagonalGaussian, noise
from aejax.priors import GaussianMixture, LearnedMixture

D, Z, N = 6, 2, 40


def _model(mean_error: float = 0.0, logvar_error: float = 0.0):
    """A linear VAE, x ~ N(W z + b, I) and q(z|x) = N(A x + c, diag(exp(logvar))), exact but for the errors.

    W has orthogonal columns, so the exact posterior is diagonal; x is drawn from the model.
    """
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(D, Z)))[0] * np.array([2.0, 0.7])  # [D, Z]
    b = rng.normal(size=D)
    x = (rng.normal(size=(N, Z)) @ w.T + b + rng.normal(size=(N, D))).astype(np.float32)
    truth = multivariate_normal(b, w @ w.T + np.eye(D)).logpdf(x.astype(np.float64))
    precision = 1 + (w**2).sum(axis=0)  # of the posterior: I + W'W
    to_mean = w / precision
    encoder = {
        "kernel": np.concatenate([to_mean, np.zeros((D, Z))], axis=1),
        "bias": np.concatenate([-b @ to_mean + mean_error, -np.log(precision) + logvar_error]),
    }
    params = {"encoder": encoder, "decoder": {"kernel": w.T, "bias": b}}
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    model = VAE(encoder=nn.Dense(2 * Z), decoder=nn.Dense(D), latent_dim=Z, likelihood="gaussian")
    return model, params, x, truth, precision


def test_exact_posterior_gives_the_exact_likelihood_with_every_sample_effective():
    model, params, x, truth, _ = _model()
    result = nll(model, params, x, jax.random.key(0), num_samples=7)
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), rtol=1e-5)
    np.testing.assert_allclose(result.ess, 7, rtol=1e-4)
    assert result.std_error < 1e-3
    np.testing.assert_allclose(list(result.curve.values()), -truth.mean(), rtol=1e-5)  # ELBO = L_k = likelihood


def test_wrong_posterior_climbs_from_the_elbo_to_the_exact_likelihood():
    model, params, x, truth, precision = _model(mean_error=0.5, logvar_error=0.3)
    result = nll(model, params, x, jax.random.key(1), num_samples=2000)
    # KL from q to the exact posterior, both diagonal; the same for every x.
    gap = 0.5 * np.sum(np.exp(0.3) + 0.25 * precision - 1 - 0.3)
    np.testing.assert_allclose(result.curve[1], -truth.mean() + gap, rtol=5e-3)
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), atol=4 * result.std_error + 1e-3)
    bounds = list(result.curve.values())
    assert list(result.curve) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] > -truth.mean() - 4 * result.std_error
    assert 1 < result.ess < 2000
    assert result.curve[2000] == result.nll_nats


def test_standard_error_is_the_spread_over_keys():
    model, params, x, _, _ = _model(mean_error=0.1, logvar_error=0.2)
    runs = [nll(model, params, x, jax.random.key(i), num_samples=200) for i in range(60)]
    spread = np.std([run.nll_nats for run in runs], ddof=1)
    np.testing.assert_allclose(np.mean([run.std_error for run in runs]), spread, rtol=0.3)  # chi(59): 9 % a deviation


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_memory_bound_and_padding_do_not_change_the_result(impl):
    model, params, x, _, _ = _model(mean_error=0.3)
    key = jax.random.key(2, impl=impl)
    whole = nll(model, params, x, key, num_samples=20)
    for max_rows in (7, 90):
        part = nll(model, params, x, key, num_samples=20, max_rows=max_rows)
        np.testing.assert_allclose(part.nll_nats, whole.nll_nats, rtol=1e-6)
        np.testing.assert_allclose(part.ess, whole.ess, rtol=1e-4)


def test_of_a_conditioned_model_it_is_the_likelihood_given_the_label():
    model, params, batch, truth, _ = linear_model()
    result = nll(model, params, batch, jax.random.key(0), num_samples=7)
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), rtol=1e-5)
    np.testing.assert_allclose(result.ess, 7, rtol=1e-4)
    wrong = nll(model, params, batch._replace(y=(batch.y + 1) % 3), jax.random.key(0), num_samples=7)
    assert wrong.nll_nats > result.nll_nats + 5  # the class means are 3 apart in each of six dimensions
    with pytest.raises(InputError, match="conditioned on labels, and none came"):
        nll(model, params, batch.x, jax.random.key(0))
    with pytest.raises(InputError, match="from 0 to 3; ConditionedVAE has num_classes=3"):
        nll(model, params, batch._replace(y=np.arange(40) % 4), jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("learned", [False, True])
def test_mixture_prior_and_linear_decoder_are_a_mixture_in_data_space(learned):
    """p(x) = sum_k pi_k N(W m_k + b, W S_k W' + I), by a posterior that is right for N(0, I) only, and wider."""
    model, params, x, _, _ = _model(logvar_error=0.5)
    weights, means, variances = np.array([0.3, 0.7]), np.array([[1.0, -0.5], [-0.5, 0.5]]), np.array([[0.5, 1.0]] * 2)
    if learned:
        prior = LearnedMixture(2)
        params["prior"] = {"means": means, "logvars": np.log(variances), "logits": np.log(weights) + 7}
        params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    else:
        diagonals = tuple(tuple(map(tuple, np.diag(v).tolist())) for v in variances)
        prior = GaussianMixture(tuple(weights), tuple(map(tuple, means.tolist())), diagonals)
    w, b = (np.asarray(params["decoder"][name], np.float64) for name in ("kernel", "bias"))
    parts = [
        pi * multivariate_normal(m @ w + b, w.T @ np.diag(v) @ w + np.eye(D)).pdf(x)
        for pi, m, v in zip(weights, means, variances, strict=True)
    ]
    result = nll(model.clone(prior=prior), params, x, jax.random.key(3), num_samples=3000)
    assert result.std_error < 0.005
    np.testing.assert_allclose(result.nll_nats, -np.log(sum(parts)).mean(), atol=4 * result.std_error)


class Slanted(NamedTuple):
    """A linear flow, mean + L noise, which only draws: `scale` belongs to no example."""

    mean: jax.Array  # [B, Z]
    scale: jax.Array  # [Z, Z]

    @property
    def mode(self):
        return self.mean

    def sample_and_log_prob(self, key):
        standard = noise(key, self.mean.shape)
        log_q = DiagonalGaussian(jnp.zeros_like(standard), jnp.zeros_like(standard)).log_prob(standard)
        return self.mean + standard @ self.scale.T, log_q - jnp.linalg.slogdet(self.scale)[1]


class FlowVAE(VAE):
    """A linear encoder whose posterior has a full covariance, the same for every x."""

    def setup(self):
        self.scale = self.param("scale", nn.initializers.zeros, (Z, Z))

    def encode(self, x):
        return Slanted(self.encoder(x)[:, :Z], self.scale)


def test_a_posterior_that_only_draws_with_its_density_is_enough():
    """W without orthogonal columns: the exact posterior is N(M^-1 W'(x - b), M^-1), M = W'W + I, not diagonal."""
    rng = np.random.default_rng(3)
    w, b, x = rng.normal(size=(D, Z)), rng.normal(size=D), rng.normal(size=(N, D)).astype(np.float32)
    covariance = np.linalg.inv(w.T @ w + np.eye(Z))
    to_mean = w @ covariance
    params = {
        "encoder": {"kernel": np.pad(to_mean, ((0, 0), (0, Z))), "bias": np.pad(-b @ to_mean, (0, Z))},
        "decoder": {"kernel": w.T, "bias": b},
        "scale": np.linalg.cholesky(covariance),
    }
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    model = FlowVAE(encoder=nn.Dense(2 * Z), decoder=nn.Dense(D), latent_dim=Z, likelihood="gaussian")
    result = nll(model, params, x, jax.random.key(0), num_samples=7, max_rows=100)
    truth = multivariate_normal(b, w @ w.T + np.eye(D)).logpdf(x.astype(np.float64))
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), rtol=1e-5)
    np.testing.assert_allclose(result.ess, 7, rtol=1e-4)


@pytest.mark.slow
def test_bernoulli_likelihood_by_enumeration_of_z():
    """One latent dimension, so that the integral over z is a sum on a fine grid."""
    model = VAE(encoder=nn.Dense(2), decoder=nn.Dense(3), latent_dim=1, likelihood="bernoulli")
    weights, bias = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.0, -1.0])
    params = {
        "encoder": {"kernel": jnp.zeros((3, 2)), "bias": jnp.array([0.0, 0.2])},
        "decoder": {"kernel": jnp.asarray(weights, jnp.float32)[None], "bias": jnp.asarray(bias, jnp.float32)},
    }
    x = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    z = np.linspace(-12, 12, 20001)[:, None]
    log_p = -np.logaddexp(0, (1 - 2 * x[:, None]) * (z * weights + bias)).sum(-1) - 0.5 * z[:, 0] ** 2
    truth = np.log(np.exp(log_p).sum(axis=1) * (z[1] - z[0]) / np.sqrt(2 * np.pi))
    result = nll(model, params, x, jax.random.key(0), num_samples=20000)
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), atol=4 * result.std_error)
    assert result.std_error < 0.005


def test_refuses_what_cannot_be_estimated():
    model, params, x, _, _ = _model()
    with pytest.raises(InputError, match="no examples"):
        nll(model, params, x[:0], jax.random.key(0))
    with pytest.raises(InputError, match="num_samples=0"):
        nll(model, params, x, jax.random.key(0), num_samples=0)
    ae = AE(encoder=nn.Dense(2 * Z), decoder=nn.Dense(D), latent_dim=2 * Z, likelihood="gaussian")
    with pytest.raises(InputError, match=r"AE\.encode returns one array, which has no density"):
        nll(ae, params, x, jax.random.key(0))
    with pytest.raises(InputError, match="This VAE has no prior"):
        nll(model.clone(prior=None), params, x, jax.random.key(0))


class Guided(AE):
    """An AE whose code has a density, as the refusal of a plain one says."""

    def encode(self, x, *condition):
        mean, logvar = jnp.split(self.encoder(x), 2, axis=-1)
        return DiagonalGaussian(mean, logvar)


def test_what_the_refusals_of_a_likelihood_advise_has_one():
    model, params, x, _, _ = _model()
    guided = Guided(nn.Dense(2 * Z), nn.Dense(D), latent_dim=Z, likelihood="gaussian", prior="normal")
    with pytest.raises(InputError, match=r"measure with a fixed one, Gaussian\(variance\)"):
        nll(model.clone(likelihood="gaussian_optimal"), params, x, jax.random.key(0))
    fixed = model.clone(likelihood=Gaussian(1.0))
    found = [nll(advised, params, x, jax.random.key(0), num_samples=3).nll_nats for advised in (guided, fixed)]
    assert found[0] == pytest.approx(found[1])
