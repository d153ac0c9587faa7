"""The IWAE against exact likelihoods, float64 loops, and gradients of the expected bound by quadrature."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import linear_gaussian
import numpy as np
import optax
import pytest
import scipy.stats
from linear_gaussian import LINEAR, D, Z, away, draws, z_scores
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import logsumexp

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.iwae import ESTIMATORS, HParams, iwae, iwae_loss, piwae
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params
from aejax.posteriors import DiagonalGaussian
from aejax.priors import VampPrior

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    """A batch, parameters away from the optimum, and their exact negative log-likelihood."""
    batch, optimum, _ = linear_gaussian.problem()
    params = away(optimum, 0.07)
    dec = jax.tree.map(np.float64, params["decoder"]["dense_0"])
    cov = dec["kernel"].T @ dec["kernel"] + np.eye(D)
    return batch, params, -scipy.stats.multivariate_normal(dec["bias"], cov).logpdf(np.float64(batch.x)).mean()


@pytest.mark.slow
def test_bounds_are_ordered_and_below_the_likelihood(problem):
    batch, params, nll = problem
    bounds = {}
    for k in (1, 2, 5, 50):
        metrics = draws(lambda key, k=k: iwae_loss(params, batch, key, model=LINEAR, num_samples=k)[1], 500, seed=k)
        bounds[k] = np.float64(metrics["bound_nats"])
        gap = np.float64(metrics["elbo_nats"] - bounds[1])  # of independent draws, but for k = 1
        assert k == 1 or abs(z_scores(gap, 0.0)) < 4
    mean = {k: each.mean() for k, each in bounds.items()}
    error = {k: each.std() / np.sqrt(len(each)) for k, each in bounds.items()}
    for less, more in ((1, 2), (2, 5), (5, 50)):
        assert mean[less] - mean[more] > 4 * np.hypot(error[less], error[more])
    assert mean[50] - nll > -4 * error[50]
    assert mean[1] - nll > 0.3  # so that there is something to gain, and nearly all of it is gained
    assert mean[50] - nll < 0.2 * (mean[1] - nll)


@pytest.mark.slow
def test_it_is_the_bound_of_a_loop_in_float64(problem):
    batch, params, _ = problem
    x = np.float64(batch.x)
    enc, dec = jax.tree.map(np.float64, (params["encoder"]["dense_0"], params["decoder"]["dense_0"]))
    mean, logvar = np.split(x @ enc["kernel"] + enc["bias"], 2, axis=1)
    log_w = np.zeros((6, len(x)))
    for i, own in enumerate(jax.random.split(KEY, 6)):
        z = mean + np.exp(logvar / 2) * np.float64(jax.random.normal(own, mean.shape))
        log_w[i] += scipy.stats.norm.logpdf(x, z @ dec["kernel"] + dec["bias"]).sum(axis=1)
        log_w[i] += scipy.stats.norm.logpdf(z).sum(axis=1) - scipy.stats.norm.logpdf(z, mean, np.exp(logvar / 2)).sum(1)
    for groups, estimators in ((1, ("plain",)), (2, ESTIMATORS)):
        bounds, sizes = [], []
        for part in np.split(log_w, groups):
            bounds.append(logsumexp(part, axis=0) - np.log(6 // groups))
            weights = np.exp(part - logsumexp(part, axis=0))
            sizes.append(1 / np.sum(weights**2, axis=0))
        for estimator in estimators:
            options = {"num_samples": 6, "num_groups": groups, "estimator": estimator}
            loss, metrics = iwae_loss(params, batch, KEY, model=LINEAR, tightness=0.3, **options)
            np.testing.assert_allclose(loss, -0.3 * np.mean(bounds) - 0.7 * log_w.mean(), rtol=1e-5)
            np.testing.assert_allclose(metrics["bound_nats"], -np.mean(bounds), rtol=1e-5)
            np.testing.assert_allclose(metrics["elbo_nats"], -log_w.mean(), rtol=1e-5)
            np.testing.assert_allclose(metrics["recon_nats"] + metrics["kl_nats"], -log_w.mean(), rtol=1e-5)
            np.testing.assert_allclose(metrics["ess"], np.mean(sizes), rtol=1e-4)


@pytest.mark.slow
def test_without_tightness_or_in_groups_of_one_it_is_the_vae(problem):
    batch, params, _ = problem
    value = lambda loss, **options: jax.value_and_grad(lambda p: loss(p, batch, KEY, model=LINEAR, **options)[0])(
        params
    )
    vae = value(vae_loss, num_samples=4, closed_kl=False)
    for options in ({"tightness": 0.0}, {"num_groups": 4}):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), value(iwae_loss, num_samples=4, **options), vae
        )


# --- gradients: two data dimensions, one of the code, so that expectations over its draws are sums over nodes ---------

TINY = VAE.dense(2, 1, hidden_dims=(), likelihood="gaussian")
X = np.random.default_rng(2).normal(size=(3, 2)) * 1.5


def tiny_params():
    """A posterior that is near the exact one, `N(w (x - b) / m, 1 / m)` with `m = 1 + |w|^2`, and a little wider."""
    w, b = np.array([1.0, -0.6]), np.array([0.3, -0.2])
    m = 1 + w @ w
    kernel = np.stack([w / m + np.array([0.1, 0.1]), np.array([0.05, -0.1])], axis=1)
    encoder = {"kernel": kernel, "bias": np.array([-w @ b / m - 0.2, -np.log(m) + 0.3])}
    params = {"encoder": {"dense_0": encoder}, "decoder": {"dense_0": {"kernel": w[None], "bias": b}}}
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)


def log_weights(params, x, eps):
    """log w of draws that have the noise eps `[n]`: `[3, n]`, in float64."""
    enc, dec = params["encoder"]["dense_0"], params["decoder"]["dense_0"]
    mean, logvar = np.split(x @ enc["kernel"] + enc["bias"], 2, axis=1)
    z = mean + np.exp(logvar / 2) * eps
    x_hat = z[..., None] * dec["kernel"][0] + dec["bias"]
    log_joint = scipy.stats.norm.logpdf(x[:, None], x_hat).sum(axis=2) + scipy.stats.norm.logpdf(z)
    return log_joint - scipy.stats.norm.logpdf(z, mean, np.exp(logvar / 2))


def expected_bound(params, k, tightness=1.0, num_nodes=24):
    nodes, mass = hermegauss(num_nodes)
    log_w = log_weights(params, X, nodes)
    total, weights = log_w, mass / mass.sum()
    all_weights = weights
    for _ in range(k - 1):
        total = np.logaddexp(total[..., None], log_w.reshape(3, *[1] * (total.ndim - 1), num_nodes))
        all_weights = all_weights[..., None] * weights
    bound = (total - np.log(k)).reshape(3, -1) @ all_weights.ravel()
    return -np.mean(tightness * bound + (1 - tightness) * (log_w @ weights))


def expected_gradient(params, k, **options):
    """Central differences in float64."""
    params = jax.tree.map(np.float64, params)
    leaves, tree = jax.tree.flatten(params)
    found = []
    for i, leaf in enumerate(leaves):
        grad = np.zeros_like(leaf)
        for at in np.ndindex(leaf.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [each.copy() for each in leaves]
                moved[i][at] += h
                ends.append(expected_bound(tree.unflatten(moved), k, **options))
            grad[at] = (ends[0] - ends[1]) / 2e-5
        found.append(grad)
    return tree.unflatten(found)


def gradients(params, num, model=TINY, **options):
    batch = Batch(jnp.asarray(X, jnp.float32))
    return draws(lambda key: jax.grad(lambda p: iwae_loss(p, batch, key, model=model, **options)[0])(params), num, 4)


def largest(scores):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(scores))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("estimator", "k", "options"),
    [
        ("plain", 3, {}),
        ("stl", 1, {}),
        ("dreg", 3, {}),
        ("dreg", 2, {"num_groups": 2, "tightness": 0.4}),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (
            ("plain", 1, {}), ("plain", 3, {"tightness": 0.4}), ("stl", 1, {"num_groups": 2, "tightness": 0.4}),
            ("dreg", 1, {}), ("dreg", 2, {}), ("dreg", 3, {"tightness": 0.4}), ("dreg", 2, {"num_groups": 2}),
        )),
    ],
)  # fmt: skip
def test_the_gradient_is_unbiased(estimator, k, options):
    """Of ten parameters, so that 4.5 is passed once in 15,000 seeds."""
    params = tiny_params()
    num_samples = k * options.get("num_groups", 1)
    sampled = gradients(params, 40_000, num_samples=num_samples, estimator=estimator, **options)
    exact = expected_gradient(params, k, tightness=options.get("tightness", 1.0))
    assert largest(jax.tree.map(z_scores, sampled, exact)) < 4.5


def test_stl_is_biased_for_several_draws_in_the_encoder_alone():
    params = tiny_params()
    sampled = gradients(params, 40_000, num_samples=3, estimator="stl")
    scores = jax.tree.map(z_scores, sampled, expected_gradient(params, 3))
    assert largest(scores["decoder"]) < 4.5
    assert largest(scores["encoder"]) > 20


@pytest.mark.slow
def test_the_encoder_within_a_vamp_prior_has_its_plain_gradient():
    """Where p(z) is made of the encoder, squared weights are for what goes through z alone."""
    model = TINY.clone(prior=VampPrior(2))
    pseudo = {"pseudo_inputs": jnp.asarray([[1.0, 0.5], [-1.0, 0.2]])}
    params = tiny_params() | {"prior": pseudo}
    nodes, mass = hermegauss(24)
    weights, shape = np.outer(mass, mass) / mass.sum() ** 2, (24, 24)

    def bound(params):
        own = model.bind({"params": params})
        posterior = own.encode(jnp.asarray(X))
        at = lambda e: posterior.mean + jnp.exp(posterior.logvar / 2) * e
        log_w = jax.vmap(lambda z: own.log_prior(z) - own.nll(z, jnp.asarray(X)) - posterior.log_prob(z))
        each = log_w(jax.vmap(at)(jnp.asarray(nodes))).T  # [3, 24]
        pairs = jnp.logaddexp(
            jnp.broadcast_to(each[:, :, None], (3, *shape)), each[:, None, :] + jnp.zeros((1, *shape))
        )
        return -jnp.tensordot(pairs - np.log(2), jnp.asarray(weights), 2).mean()

    with jax.enable_x64(True):
        exact = jax.grad(bound)(jax.tree.map(lambda v: v.astype(float), params))
    exact = jax.tree.map(np.asarray, exact)
    sampled = gradients(params, 40_000, model, num_samples=2, estimator="dreg")
    assert largest(jax.tree.map(z_scores, sampled, exact)) < 4.5


def signal_to_noise(k, estimator):
    """Of the gradient of each parameter of the encoder, the median."""
    found = jax.tree.leaves(gradients(tiny_params(), 2000, num_samples=k, estimator=estimator)["encoder"])
    found = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in found], axis=1)
    return np.median(np.abs(found.mean(axis=0)) / found.std(axis=0))


@pytest.mark.slow
def test_the_signal_in_the_gradient_of_the_encoder_falls_with_k_and_with_dreg_rises():
    few, many = 1, 32
    plain, dreg = ([signal_to_noise(k, estimator) for k in (few, many)] for estimator in ("plain", "dreg"))
    assert plain[1] < 0.3 * plain[0]
    assert dreg[1] > 1.5 * dreg[0]
    assert dreg[1] > 20 * plain[1]


@pytest.mark.slow
def test_at_the_exact_posterior_the_encoder_without_its_score_has_no_noise():
    batch, optimum, nll = linear_gaussian.problem()
    noise = {}
    for estimator in ESTIMATORS:
        loss = partial(iwae_loss, batch=batch, key=KEY, model=LINEAR, estimator=estimator)
        grad, metrics = jax.grad(loss, has_aux=True)(optimum)
        noise[estimator] = largest(grad["encoder"])
        np.testing.assert_allclose([metrics["bound_nats"], metrics["ess"]], [nll, 5], rtol=1e-5)
    assert noise["plain"] > 0.1
    assert max(noise["stl"], noise["dreg"]) < 1e-4


def test_the_estimators_cost_the_same(problem):
    batch, params, _ = problem
    grad = lambda estimator: jax.jit(jax.grad(lambda p: iwae_loss(p, batch, KEY, model=LINEAR, estimator=estimator)[0]))
    flops = {name: grad(name).lower(params).compile().cost_analysis()["flops"] for name in ESTIMATORS}
    assert max(flops.values()) < 1.3 * flops["plain"]  # of networks of one layer; another way back would be 2.5


@pytest.mark.slow
def test_piwae_moves_the_encoder_by_groups_and_the_decoder_by_all_draws():
    batch, params = Batch(jnp.asarray(X, jnp.float32)), tiny_params()
    options = {"num_samples": 6, "estimator": "dreg"}
    knobs = HParams(lr=0.1, tightness=0.8)
    step = lambda algo: jax.jit(algo.step)(algo.init(params), batch, KEY)
    state, metrics = step(piwae(TINY, knobs, optax.sgd, num_groups=3, **options))
    groups, group_metrics = step(iwae(TINY, knobs, optax.sgd, num_groups=3, **options))
    whole, whole_metrics = step(iwae(TINY, knobs, optax.sgd, **options))
    assert largest(jax.tree.map(jnp.subtract, groups.params, whole.params)["encoder"]) > 1e-3
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, state.params["encoder"], groups.params["encoder"])
    jax.tree.map(close, state.params["decoder"], whole.params["decoder"])
    for player, own in (("encoder", group_metrics), ("decoder", whole_metrics)):
        close(metrics[f"{player}/bound_nats"], own["bound/bound_nats"])


@pytest.mark.first(1)
@pytest.mark.parametrize("estimator", ["plain", "dreg"])
@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_loss_and_gradient_are_finite_at_extreme_variances(logvar, estimator):
    model = VAE.dense(8, 3, hidden_dims=(16,))
    x = jnp.asarray(np.random.default_rng(0).random((5, 8)), jnp.float32)
    params = init_params(model, KEY, x)
    params["encoder"]["dense_1"]["bias"] = jnp.asarray([0.0] * 3 + [logvar] * 3)
    loss = lambda p: iwae_loss(p, Batch(x), KEY, model=model, estimator=estimator)
    (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((metrics, grads)))
    assert 1 <= metrics["ess"] <= 5


class Undensed(NamedTuple):
    """A posterior whose density is known of its own draws alone, as that of an autoregressive flow."""

    inner: DiagonalGaussian

    def sample_and_log_prob(self, key):
        return self.inner.sample_and_log_prob(key)


class Flow(VAE):
    def encode(self, x, *condition):
        return Undensed(super().encode(x, *condition))


def test_a_posterior_that_knows_the_density_of_its_draws_alone_is_enough_for_the_plain_gradient(problem):
    batch, params, _ = problem
    own = {f.name: getattr(LINEAR, f.name) for f in dataclasses.fields(LINEAR) if f.name not in ("parent", "name")}
    loss, _ = iwae_loss(params, batch, KEY, model=Flow(**own))
    np.testing.assert_allclose(loss, iwae_loss(params, batch, KEY, model=LINEAR)[0], rtol=1e-6)
    with pytest.raises(InputError, match="Undensed has no log_prob"):
        iwae_loss(params, batch, KEY, model=Flow(**own), estimator="dreg")


@pytest.mark.parametrize("method", [iwae, piwae])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_samples": 5, "num_groups": 2}, "num_groups is 2; it has to divide num_samples, 5"),
        ({"num_samples": 4, "num_groups": 0}, "num_groups is 0"),
        ({"estimator": "drag"}, "Unknown estimator 'drag'. Did you mean 'dreg'"),
        ({"tightness": 1.5}, "tightness"),
        ({"lr": 0.0}, "lr"),
    ],
)
def test_what_cannot_be_is_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        method(LINEAR, **options)


def test_a_variance_of_the_batch_is_refused():
    with pytest.raises(InputError, match=r"weights are of an example: fix it, Gaussian\(variance\)"):
        iwae(VAE.dense(D, Z, likelihood="gaussian_optimal"))
