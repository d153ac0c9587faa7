"""The VAE against its linear case, where posterior, likelihood and bound have closed forms."""

import jax
import jax.numpy as jnp
import linear_gaussian
import numpy as np
import optax
import pytest
import scipy.stats
from linear_gaussian import LINEAR, D, Z, away, draws, ppca, z_scores

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.cvae import CVAE, cvae
from aejax.methods.vae import VAE, HParams, terms, vae, vae_loss
from aejax.nets import init_params


@pytest.fixture(scope="module", name="problem")
def _problem():
    return linear_gaussian.problem()


def expected_loss(params, x, beta=1.0):
    """The loss of a linear VAE with its noise integrated out, straight from the definition."""
    enc, dec = params["encoder"]["dense_0"], params["decoder"]["dense_0"]
    code = x @ enc["kernel"] + enc["bias"][None]
    mean, var = code[:, :Z], jnp.exp(code[:, Z:])
    misfit = jnp.sum((x - mean @ dec["kernel"] - dec["bias"][None]) ** 2, 1) + var @ jnp.sum(dec["kernel"] ** 2, 1)
    kl = 0.5 * jnp.sum(mean**2 + var - 1 - jnp.log(var), 1)
    return jnp.mean(0.5 * misfit + 0.5 * D * jnp.log(2 * jnp.pi) + beta * kl)


def test_the_bound_of_a_linear_vae_at_the_closed_form_optimum_is_the_exact_likelihood(problem):
    batch, params, nll = problem
    bounds = draws(lambda key: vae_loss(params, batch, key, model=LINEAR)[0], 4000, seed=0)
    assert abs(z_scores(bounds, nll)) < 4
    np.testing.assert_allclose(bounds.mean(), nll, rtol=2e-3)


def test_elsewhere_the_bound_exceeds_the_likelihood_by_the_divergence_from_the_true_posterior(problem):
    batch, optimum, _ = problem
    params = away(optimum, 0.1)
    enc, dec = jax.tree.map(np.float64, (params["encoder"]["dense_0"], params["decoder"]["dense_0"]))
    x, w = np.float64(batch.x), dec["kernel"].T
    m = w.T @ w + np.eye(Z)
    nll = -scipy.stats.multivariate_normal(dec["bias"], w @ w.T + np.eye(D)).logpdf(x).mean()
    code = x @ enc["kernel"] + enc["bias"]
    off = code[:, :Z] - np.linalg.solve(m, w.T @ (x - dec["bias"]).T).T
    # KL of N(mean, diag var) from N(true mean, M^-1)
    var = np.exp(code[:, Z:])
    kl = 0.5 * (
        var @ np.diag(m) + np.einsum("ni,ij,nj->n", off, m, off) - Z - np.log(var).sum(1) - np.linalg.slogdet(m)[1]
    )
    bounds = draws(lambda key: vae_loss(params, batch, key, model=LINEAR)[0], 4000, seed=1)
    assert kl.mean() > 0.05
    assert abs(z_scores(bounds, nll + kl.mean())) < 4


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_reparameterised_gradient_is_unbiased(problem, beta):
    batch, optimum, _ = problem
    params = away(optimum)
    loss = lambda key: jax.grad(lambda p: vae_loss(p, batch, key, model=LINEAR, beta=beta)[0])(params)
    sampled = draws(loss, 4000, seed=2)
    exact = jax.grad(expected_loss)(params, batch.x, beta)
    scores = jax.tree.map(z_scores, sampled, exact)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(scores))
    assert largest < 4.5  # of 42 parameters: once in 3,500 seeds


def test_the_gradient_vanishes_at_the_closed_form_optimum(problem):
    batch, params, _ = problem
    sampled = draws(lambda key: jax.grad(lambda p: vae_loss(p, batch, key, model=LINEAR)[0])(params), 4000, seed=3)
    for leaf in jax.tree.leaves(jax.tree.map(lambda g: z_scores(g, 0.0), sampled)):
        assert np.abs(leaf).max() < 4.5


@pytest.mark.slow
def test_training_a_linear_vae_reaches_the_likelihood_of_ppca(digits):
    x = 4 * (digits - digits.mean(0))
    _, nll = ppca(x, 4)
    model = VAE.dense(64, 4, hidden_dims=(), likelihood="gaussian")
    algo = vae(model, HParams(lr=2e-2), lambda lr: optax.adam(optax.linear_schedule(lr, 0.0, 1400)))
    batch = Batch(jnp.asarray(x))
    state = algo.init(init_params(model, jax.random.key(0), batch.x))
    state, _ = jax.jit(lambda s: training.fit(algo, s, batch, jax.random.key(1), batch_size=128, num_epochs=100))(state)
    bound = np.mean([training.evaluate(algo, state, batch, jax.random.key(k))["elbo/bound_nats"] for k in range(8)])
    assert abs(bound - nll) < 0.1


@pytest.mark.slow
def test_computed_in_bfloat16_the_bound_of_a_trained_model_is_within_a_tenth_of_a_nat(digits):
    model, data = VAE.dense(64, 8, hidden_dims=(128, 64)), Batch(jnp.asarray(digits))
    algo, key = vae(model), jax.random.key(1)
    state = algo.init(init_params(model, jax.random.key(0), data.x))
    state, _ = jax.jit(lambda s: training.fit(algo, s, data, key, batch_size=128, num_epochs=50))(state)
    half = lambda tree: jax.tree.map(lambda v: v.astype(jnp.bfloat16), tree)
    found, exact = (vae_loss(cast(state.params), cast(data), key, model=model)[1] for cast in (half, lambda v: v))
    assert exact["bound_nats"] < 25  # about 27 without a code
    assert found["bound_nats"] != exact["bound_nats"]
    for term in ("bound_nats", "recon_nats", "kl_nats"):
        assert abs(found[term] - exact[term]) < 0.1, term
        assert found[term].dtype == jnp.float32


def test_metrics_keep_the_bound_apart_from_beta(problem):
    batch, params, _ = problem
    key = jax.random.key(4)
    plain, plain_metrics = vae_loss(params, batch, key, model=LINEAR)
    heavy, heavy_metrics = vae_loss(params, batch, jax.random.clone(key), model=LINEAR, beta=4.0)
    assert plain_metrics["bound_nats"] == heavy_metrics["bound_nats"] == plain
    np.testing.assert_allclose(heavy - plain, 3 * plain_metrics["kl_nats"], rtol=1e-5)
    # Gaussian of unit variance: half the squared error and the constant
    constant = 0.5 * D * np.log(2 * np.pi)
    np.testing.assert_allclose(plain_metrics["recon_nats"], plain_metrics["sse"] / 2 + constant, rtol=1e-5)


def test_the_terms_are_those_of_the_loss_and_of_the_importance_weights(problem):
    """At the closed-form optimum the posterior is exact: every importance weight is the likelihood of its example."""
    batch, params, _ = problem
    key, x = jax.random.key(4), np.float64(batch.x)
    each = terms(LINEAR, params, batch, key)
    loss, _ = vae_loss(params, batch, jax.random.clone(key), model=LINEAR)
    np.testing.assert_allclose(loss, np.mean(each.recon + each.kl), rtol=1e-6)
    dec = jax.tree.map(np.float64, params["decoder"]["dense_0"])
    misfit = np.square(x - np.float64(each.z) @ dec["kernel"] - dec["bias"]).sum(1)
    np.testing.assert_allclose(each.sse, misfit, rtol=1e-5)
    np.testing.assert_allclose(each.recon, 0.5 * misfit + 0.5 * D * np.log(2 * np.pi), rtol=1e-5)
    weights = terms(LINEAR, params, batch, jax.random.clone(key), closed=False)
    truth = scipy.stats.multivariate_normal(dec["bias"], dec["kernel"].T @ dec["kernel"] + np.eye(D)).logpdf(x)
    np.testing.assert_allclose(-(weights.recon + weights.kl), truth, rtol=1e-5)


class TeacherForced(VAE):
    """A model whose likelihood is not that of `decode` alone: N(z W + b + x_1, I) of each x."""

    def nll(self, z, x, *condition):
        return 0.5 * jnp.sum(jnp.square(x - self.decode(z) - x[:, :1]), axis=1)


def test_a_model_that_overrides_its_likelihood_is_asked_for_it(problem):
    batch, params, _ = problem
    model = TeacherForced.dense(D, Z, hidden_dims=(), likelihood="gaussian")
    each = terms(model, params, batch, jax.random.key(4))
    x, dec = np.float64(batch.x), jax.tree.map(np.float64, params["decoder"]["dense_0"])
    off = x - np.float64(each.z) @ dec["kernel"] - dec["bias"]
    np.testing.assert_allclose(each.recon, 0.5 * np.square(off - x[:, :1]).sum(1), rtol=1e-5)
    np.testing.assert_allclose(each.sse, np.square(off).sum(1), rtol=1e-5)


class Halved(VAE):
    """A model whose picture of a code is not the mean of its likelihood."""

    def generate(self, z, *condition):
        return 0.5 * self.decode(z, *condition)


def test_a_model_that_overrides_its_picture_is_asked_for_it(problem):
    batch, params, _ = problem
    model = Halved.dense(D, Z, hidden_dims=(), likelihood="gaussian")
    each, plain = (terms(m, params, batch, jax.random.key(4)) for m in (model, LINEAR))
    x, dec = np.float64(batch.x), jax.tree.map(np.float64, params["decoder"]["dense_0"])
    mean = np.float64(each.z) @ dec["kernel"] + dec["bias"]
    np.testing.assert_allclose(each.sse, np.square(x - 0.5 * mean).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(each.recon, plain.recon)


@pytest.mark.first(1)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_loss_and_gradient_are_finite_at_extreme_variances(logvar, likelihood):
    model = VAE.dense(8, 3, hidden_dims=(16,), likelihood=likelihood)
    x = jnp.asarray(np.random.default_rng(0).random((5, 8)), jnp.float32)
    params = init_params(model, jax.random.key(0), x)
    params["encoder"]["dense_1"]["bias"] = jnp.asarray([0.0] * 3 + [logvar] * 3)
    loss, grads = jax.value_and_grad(lambda p: vae_loss(p, Batch(x), jax.random.key(1), model=model)[0])(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads)))
    # The KL alone is 3 (exp(logvar) - 1 - logvar) / 2 plus the means'
    assert loss > 1.4 * (np.exp(logvar) - 1 - logvar)


def test_several_draws_are_the_mean_of_as_many_losses(problem):
    batch, optimum, _ = problem
    params, key = away(optimum), jax.random.key(5)
    loss, metrics = vae_loss(params, batch, key, model=LINEAR, beta=2.0, num_samples=3)
    alone = [vae_loss(params, batch, own, model=LINEAR, beta=2.0) for own in jax.random.split(key, 3)]
    assert len({float(each) for each, _ in alone}) == 3
    np.testing.assert_allclose(loss, np.mean([each for each, _ in alone]), rtol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, np.mean([terms[name] for _, terms in alone]), rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_sampled_kl_has_the_closed_form_for_its_mean(problem, num_samples):
    batch, optimum, _ = problem
    params, options = away(optimum), {"model": LINEAR, "num_samples": num_samples, "closed_kl": False}
    found = draws(lambda key: vae_loss(params, batch, key, **options)[1], 4000, seed=6)
    _, exact = vae_loss(params, batch, jax.random.key(7), model=LINEAR)
    assert np.std(found["kl_nats"]) > 0.01
    assert abs(z_scores(found["kl_nats"], float(exact["kl_nats"]))) < 4
    assert abs(z_scores(found["bound_nats"], float(expected_loss(params, batch.x)))) < 4


@pytest.mark.slow
@pytest.mark.parametrize(("num_samples", "closed_kl"), [(3, True), (1, False), (3, False)])
def test_its_gradient_is_unbiased_with_several_draws_and_a_sampled_kl(problem, num_samples, closed_kl):
    batch, optimum, _ = problem
    params, beta = away(optimum), 2.0
    options = {"model": LINEAR, "beta": beta, "num_samples": num_samples, "closed_kl": closed_kl}
    sampled = draws(lambda key: jax.grad(lambda p: vae_loss(p, batch, key, **options)[0])(params), 4000, seed=8)
    exact = jax.grad(expected_loss)(params, batch.x, beta)
    scores = jax.tree.leaves(jax.tree.map(z_scores, sampled, exact))
    assert max(np.abs(leaf).max() for leaf in scores) < 4.5


def test_more_draws_have_less_noise(problem):
    """Three draws have a third of the variance."""
    batch, optimum, _ = problem
    params = away(optimum)
    var = [
        np.var(draws(lambda key, n=n: vae_loss(params, batch, key, model=LINEAR, num_samples=n)[0], 4000, seed=9))
        for n in (1, 3)
    ]
    np.testing.assert_allclose(var[0] / var[1], 3, rtol=0.15)  # five standard errors


def test_bad_knobs_are_refused():
    for method, model in ((vae, LINEAR), (cvae, CVAE.dense(D, Z))):
        with pytest.raises(InputError, match="num_samples is 0; it has to be at least 1"):
            method(model, num_samples=0)
    with pytest.raises(InputError, match="lr"):
        vae(LINEAR, HParams(lr=0.0))
    with pytest.raises(InputError, match="beta"):
        vae(LINEAR, HParams(beta=-1.0))
