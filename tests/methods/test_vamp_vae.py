"""The VampPrior within its model: mixtures by float64 loops, one Gaussian, and the aggregate posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, logit, logsumexp

from aejax.data import Batch
from aejax.methods.vae import vae_loss
from aejax.methods.vamp_vae import VampVAE
from aejax.nets import init_params
from aejax.priors import VampPrior

D, Z = 5, 2
X = jnp.asarray(np.random.default_rng(0).uniform(0.05, 0.95, (6, D)), jnp.float32)


def drawn(model, scale=0.5):
    """Parameters at a random place."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), X))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)


def encoded(params, x):
    """Means and variances in float64, of an encoder with one hidden layer of rectified units."""
    first, second = (jax.tree.map(np.float64, params["encoder"][f"dense_{i}"]) for i in range(2))
    code = np.maximum(x @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]
    return code[..., :Z], np.exp(code[..., Z:])


def log_prior(params, pseudo, z):
    """log 1/K sum_k N(z; mean(u_k), variance(u_k)), one component after the other."""
    parts = []
    for u in pseudo:
        mean, variance = encoded(params, u)
        parts.append(scipy.stats.norm(mean, np.sqrt(variance)).logpdf(z).sum(-1))
    return logsumexp(parts, axis=0) - np.log(len(pseudo))


def test_the_prior_is_the_mean_of_the_posteriors_at_the_pseudo_inputs():
    model = VampVAE.dense(D, Z, hidden_dims=(7,), prior=VampPrior(4))
    params = drawn(model)
    z = np.random.default_rng(2).normal(0, 2, (9, Z))
    found = model.bind({"params": params}).log_prior(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(
        found, log_prior(params, expit(np.float64(params["prior"]["pseudo_inputs"])), z), rtol=1e-5
    )


def test_at_pseudo_inputs_that_are_the_data_the_prior_is_the_aggregate_posterior():
    """And where the posteriors of N examples lie far apart, the mean KL is log N: all that a code can tell of which."""
    model = VampVAE.dense(D, Z, hidden_dims=(7,), prior=VampPrior(len(X)))
    params = drawn(model)
    params["prior"] = {"pseudo_inputs": jnp.asarray(logit(np.float64(X)), jnp.float32)}
    z = np.random.default_rng(2).normal(0, 1, (9, Z))
    found = model.bind({"params": params}).log_prior(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, log_prior(params, np.float64(X), z), rtol=1e-4)
    params["encoder"]["dense_1"]["bias"] = jnp.array([0.0, 0.0, -14.0, -14.0])
    terms = vae_loss(params, Batch(X), jax.random.key(0), model=model)[1]
    np.testing.assert_allclose(terms["kl_nats"], np.log(len(X)), rtol=1e-3)


def test_with_one_pseudo_input_the_kl_is_that_of_two_gaussians():
    model = VampVAE.dense(D, Z, hidden_dims=(7,), prior=VampPrior(1))
    params = drawn(model, 1.0)
    mean, variance = encoded(params, np.float64(X))
    centre, spread = encoded(params, expit(np.float64(params["prior"]["pseudo_inputs"])))
    exact = 0.5 * ((variance + (mean - centre) ** 2) / spread - 1 - np.log(variance / spread)).sum(1).mean()
    kl = jax.jit(jax.vmap(lambda key: vae_loss(params, Batch(X), key, model=model)[1]["kl_nats"]))
    values = np.float64(kl(jax.random.split(jax.random.key(3), 4000)))
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() / np.sqrt(len(values)) < 0.02 * exact


def test_the_gradient_reaches_every_pseudo_input_and_is_that_of_finite_differences():
    model = VampVAE.dense(D, Z, hidden_dims=(7,), prior=VampPrior(3))
    with jax.enable_x64(True):
        params, batch = jax.tree.map(lambda v: v.astype(float), (drawn(model), Batch(X)))
        rest = {name: value for name, value in params.items() if name != "prior"}

        @jax.jit
        def loss(pseudo):
            return vae_loss({**rest, "prior": {"pseudo_inputs": pseudo}}, batch, jax.random.key(0), model=model)[0]

        pseudo = params["prior"]["pseudo_inputs"]
        grads = np.asarray(jax.jit(jax.grad(loss))(pseudo))
        assert (np.abs(grads).max(axis=1) > 1e-4).all()
        for k, i in ((0, 1), (2, 4)):
            step = jnp.zeros_like(pseudo).at[k, i].set(1e-5)
            np.testing.assert_allclose((loss(pseudo + step) - loss(pseudo - step)) / 2e-5, grads[k, i], rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_by_default_it_has_the_500_pseudo_inputs_of_the_paper_each_of_the_shape_of_an_example(kind):
    model, shape = (VampVAE.dense(64, 3), (64,)) if kind == "dense" else (VampVAE.conv((8, 8, 1), 3), (8, 8, 1))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.zeros((1, *shape))))
    assert params["prior"]["pseudo_inputs"].shape == (500, *shape)
