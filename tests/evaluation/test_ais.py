"""Annealed importance sampling against linear-Gaussian models, whose likelihood scipy knows, and enumeration."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditioned import linear_model
from scipy.stats import multivariate_normal

from aejax.checks import InputError
from aejax.evaluation import ais, nll
from aejax.evaluation.ais import temperatures
from aejax.likelihoods import Gaussian
from aejax.methods.ae import AE
from aejax.methods.vae import VAE

D, Z, N = 6, 2, 24
KEY = jax.random.key(0)
FEW = {"num_temperatures": 12, "num_chains": 32, "num_leapfrog": 3}


def _model(mean_error=0.0, logvar_error=0.0):
    """x ~ N(W z + b, I / 4) with orthogonal columns of W, so that the exact posterior is diagonal; and log p(x)."""
    rng = np.random.default_rng(0)
    w, b = np.linalg.qr(rng.normal(size=(D, Z)))[0] * np.array([2.0, 0.7]), rng.normal(size=D)
    x = (rng.normal(size=(N, Z)) @ w.T + b + 0.5 * rng.normal(size=(N, D))).astype(np.float32)
    truth = multivariate_normal(b, w @ w.T + np.eye(D) / 4).logpdf(x.astype(np.float64))
    precision = 1 + 4 * (w**2).sum(axis=0)
    to_mean = 4 * w / precision
    encoder = {
        "kernel": np.concatenate([to_mean, np.zeros((D, Z))], axis=1),
        "bias": np.concatenate([-b @ to_mean + mean_error, -np.log(precision) + logvar_error]),
    }
    params = {"encoder": encoder, "decoder": {"kernel": w.T, "bias": b}}
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)
    return VAE(nn.Dense(2 * Z), nn.Dense(D), latent_dim=Z, likelihood=Gaussian(0.25)), params, x, truth


def z_score(ratios):
    """Of weights over likelihoods `[N]`, whose mean is 1 if they are unbiased."""
    return (ratios.mean() - 1) / (ratios.std(ddof=1) / np.sqrt(len(ratios)))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_the_mean_weight_is_unbiased_however_few_temperatures_there_are(start):
    """Over the keys too: 4 x 24 means of 32 chains each. Transitions that leave another density invariant are found."""
    model, params, x, truth = _model(mean_error=0.3, logvar_error=0.3)
    runs = [ais(model, params, x, jax.random.key(seed), start=start, **FEW) for seed in range(4)]
    ratios = np.exp(np.concatenate([run.log_p - truth for run in runs]))
    assert 0.02 < ratios.std() < 0.7
    assert abs(z_score(ratios)) < 4
    error = np.mean([run.nll_nats for run in runs]) + truth.mean()
    assert -0.03 < error < 0.1  # above the truth in expectation, by half of the variance of a logarithm
    assert all(run.nll_nats == -run.log_p.mean() for run in runs)


@pytest.mark.slow
def test_a_wrong_encoder_does_not_matter_where_it_does_for_importance_sampling():
    model, params, x, truth = _model(mean_error=1.5)  # four and a half deviations off in one dimension
    sampled = nll(model, params, x, KEY, num_samples=32)
    assert sampled.nll_nats > -truth.mean() + 1
    for start in ("prior", "posterior"):
        annealed = ais(model, params, x, KEY, num_temperatures=150, num_chains=16, num_leapfrog=5, start=start)
        assert annealed.std_error < 0.05
        assert abs(annealed.nll_nats + truth.mean()) < 4 * annealed.std_error
        assert abs(annealed.acceptance - 0.65) < 0.05
        assert 3 < annealed.ess <= 16


@pytest.mark.slow
def test_the_run_that_counts_keeps_the_steps_of_the_one_before(monkeypatch):
    """So they do not depend on its noise, without which its weights would be biased."""
    model, params, x, _ = _model()
    module, seen = sys.modules["aejax.evaluation.ais"], []
    anneal = module._anneal
    monkeypatch.setattr(module, "_anneal", lambda *args, **kwargs: seen.append(anneal(*args, **kwargs)) or seen[-1])
    ais(model, params, x, KEY, **FEW)
    (pilot, steps, acceptance), (log_w, kept, _) = seen
    np.testing.assert_array_equal(kept, steps)
    assert not np.array_equal(log_w, pilot)
    assert steps.shape == (11, N)
    np.testing.assert_allclose(steps[0], np.log(0.25), rtol=1e-6)
    assert np.all(np.std(steps, axis=0) > 0.1)
    gained = np.sum(np.diff(steps, axis=0), axis=0)  # of all but the last acceptance, so bounded by its extremes
    assert np.all(np.abs(gained - 0.3 * 11 * (acceptance - 0.65)) < 0.3 * 0.65)


def test_from_the_exact_posterior_every_chain_has_the_likelihood():
    model, params, x, truth = _model()
    result = ais(model, params, x, KEY, start="posterior", **FEW)
    np.testing.assert_allclose(result.log_p, truth, rtol=1e-5)
    np.testing.assert_allclose(result.ess, 32, rtol=1e-4)
    assert result.std_error < 1e-3


def test_one_temperature_is_importance_sampling():
    """A single chain without transitions from the posterior is the ELBO of `nll`, whose gap is known here."""
    model, params, x, truth = _model(mean_error=0.5, logvar_error=0.3)
    precision = 1 + 4 * np.array([4.0, 0.49])
    gap = 0.5 * np.sum(np.exp(0.3) + 0.25 * precision - 1 - 0.3)
    runs = [
        ais(model, params, x, jax.random.key(i), num_temperatures=1, num_chains=1, start="posterior") for i in range(30)
    ]
    values = np.concatenate([run.log_p - truth for run in runs])
    assert abs(values.mean() + gap) < 4 * values.std() / np.sqrt(len(values))
    assert np.isnan(runs[0].std_error)
    assert np.isnan(runs[0].acceptance)


def test_standard_error_is_the_spread_over_keys():
    model, params, x, _ = _model()
    runs = [ais(model, params, x, jax.random.key(i), **FEW) for i in range(30)]
    spread = np.std([run.nll_nats for run in runs], ddof=1)
    np.testing.assert_allclose(np.mean([run.std_error for run in runs]), spread, rtol=0.4)  # chi(29): 13 % a deviation


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_memory_bound_and_padding_do_not_change_the_result(impl):
    model, params, x, _ = _model()
    key = jax.random.key(2, impl=impl)
    whole = ais(model, params, x, key, **FEW)
    part = ais(model, params, x, key, **FEW, max_rows=32 * 7)
    # A proposal whose acceptance hangs on the last bit may go either way: then one chain of an example differs.
    assert np.mean(np.abs(part.log_p - whole.log_p) < 1e-4) > 0.9
    np.testing.assert_allclose(part.nll_nats, whole.nll_nats, atol=0.01)


@pytest.mark.slow
def test_of_a_conditioned_model_it_is_the_likelihood_given_the_label():
    model, params, batch, truth, _ = linear_model()
    result = ais(model, params, batch, KEY, start="posterior", **FEW)
    np.testing.assert_allclose(result.log_p, truth, rtol=1e-5)
    with pytest.raises(InputError, match="conditioned on labels, and none came"):
        ais(model, params, batch.x, KEY)


@pytest.mark.slow
def test_bernoulli_likelihood_without_an_encoder_by_enumeration_of_z():
    """An autoencoder with a prior has a likelihood too; one latent dimension, so that it is a sum on a fine grid."""
    model = AE(encoder=nn.Dense(1), decoder=nn.Dense(3), latent_dim=1, likelihood="bernoulli", prior="normal")
    weights, bias = np.array([3.0, -4.0, 2.0]), np.array([0.2, 0.0, -1.0])
    decoder = {"kernel": jnp.asarray(weights, jnp.float32)[None], "bias": jnp.asarray(bias, jnp.float32)}
    params = {"encoder": {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}, "decoder": decoder}
    x = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 1]], np.float32)
    z = np.linspace(-12, 12, 20001)[:, None]
    log_p = -np.logaddexp(0, (1 - 2 * x[:, None]) * (z * weights + bias)).sum(-1) - 0.5 * z[:, 0] ** 2
    truth = np.log(np.exp(log_p).sum(axis=1) * (z[1] - z[0]) / np.sqrt(2 * np.pi))
    result = ais(model, params, x, KEY, num_temperatures=20, num_chains=300)
    assert result.std_error < 0.02
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), atol=4 * result.std_error)
    with pytest.raises(InputError, match=r"AE\.encode returns one array, which has no density, log_prob"):
        ais(model, params, x, KEY, start="posterior")


def test_temperatures_are_stretched_sigmoids():
    by_hand = (0.1192029 - 0.0179862) / (0.9820138 - 0.0179862)  # of -2, between those of -4 and 4
    np.testing.assert_allclose(temperatures(4), [0, by_hand, 0.5, 1 - by_hand, 1], atol=1e-6)
    assert temperatures(1).tolist() == [0, 1]


def test_refuses_what_cannot_be_estimated():
    model, params, x, _ = _model()
    for name in ("num_temperatures", "num_chains", "num_leapfrog"):
        with pytest.raises(InputError, match=f"{name}=0"):
            ais(model, params, x, KEY, **{name: 0})
    with pytest.raises(InputError, match="max_rows=10 with num_chains=16"):
        ais(model, params, x, KEY, max_rows=10)
    with pytest.raises(InputError, match="start is 'encoder'"):
        ais(model, params, x, KEY, start="encoder")
    with pytest.raises(InputError, match="no examples"):
        ais(model, params, x[:0], KEY)
    with pytest.raises(InputError, match="This VAE has no prior"):
        ais(model.clone(prior=None), params, x, KEY)
    with pytest.raises(InputError, match="takes its variance from the batch"):
        ais(model.clone(likelihood="gaussian_optimal"), params, x, KEY)
