"""A flow posterior where everything is known: a linear model with Gaussian noise whose true posterior is correlated.

With x ~ N(W z + b, I), z ~ N(0, I), the posterior is N(M^-1 W' (x - b), M^-1), M = W'W + I. Of diagonal Gaussians the
best has its mean and the variances 1 / M_ii, and its bound falls short by `(sum log M_ii - log det M) / 2`. One linear
step of the flow is enough for the whole of it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from aejax import evaluation, jacobian, training
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.iaf_vae import IAFVAE, iaf_vae
from aejax.methods.vae import VAE, terms, vae_loss
from aejax.nets import Autoregressive, init_params

D, Z, N = 4, 2, 256
W = np.array([[2.0, 0.5, -1.0, 0.0], [1.5, 1.0, -1.0, 0.5]])  # [Z, D], its rows far from orthogonal
B = np.array([1.0, -1.0, 0.0, 2.0])
M = W @ W.T + np.eye(Z)
X = np.random.default_rng(0).multivariate_normal(B, W.T @ W + np.eye(D), N)
EXACT = -scipy.stats.multivariate_normal(B, W.T @ W + np.eye(D)).logpdf(X).mean()
SHORT = 0.5 * (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1])  # of the best diagonal Gaussian, in nats
DATA = Batch(jnp.asarray(X, jnp.float32))
DECODER = {"dense_0": {"kernel": jnp.asarray(W, jnp.float32), "bias": jnp.asarray(B, jnp.float32)}}


def fitted(model):
    """The parameters with the decoder at the truth, and all else trained."""
    groups = tuple(group for group in model.groups if group != "decoder")
    rate = optax.linear_schedule(2e-2, 0.0, 1000)
    player = Player(partial(vae_loss, model=model), groups, optax.adam(rate))
    algo = play({"elbo": player}, [["elbo"]])
    state = algo.init(init_params(model, jax.random.key(0), DATA.x) | {"decoder": DECODER})
    fit = partial(training.fit, algo, batch_size=64, num_epochs=250)
    return jax.jit(fit)(state, DATA, jax.random.key(1))[0].params


def bounds(model, params):
    draw = lambda key: vae_loss(params, DATA, key, model=model)[0]
    values = np.float64(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(2), 400)))
    return values.mean(), values.std(ddof=1) / 20


@pytest.mark.slow
def test_a_flow_reaches_the_likelihood_where_the_best_diagonal_gaussian_stays_behind():
    assert SHORT > 0.3
    gaussian = VAE.dense(D, Z, hidden_dims=(), likelihood="gaussian")
    bound, error = bounds(gaussian, fitted(gaussian))
    assert bound > EXACT + SHORT - 4 * error  # what is said above of diagonal Gaussians
    np.testing.assert_allclose(bound, EXACT + SHORT, atol=0.05)

    model = IAFVAE.dense(D, Z, hidden_dims=(), likelihood="gaussian", flow=Autoregressive(1, ()))
    params = fitted(model)
    bound, error = bounds(model, params)
    assert EXACT - 4 * error < bound < EXACT + 0.1 * SHORT
    nll = evaluation.nll(model, params, DATA.x[:64], jax.random.key(3), num_samples=20)
    exact = -scipy.stats.multivariate_normal(B, W.T @ W + np.eye(D)).logpdf(X[:64]).mean()
    assert abs(nll.nll_nats - exact) < 4 * nll.std_error + 2e-3
    assert nll.ess > 18


@pytest.mark.slow
def test_as_it_begins_its_bound_is_that_of_the_gaussian_vae():
    """The same encoder but for the context, and the same noise: the same draws, the same terms of each example."""
    model = IAFVAE.dense(D, Z, hidden_dims=(6,), likelihood="gaussian")
    plain = VAE.dense(D, Z, hidden_dims=(6,), likelihood="gaussian")
    params = init_params(model, jax.random.key(0), DATA.x)
    encoder = dict(params["encoder"])
    encoder["dense_1"] = {name: value[..., : 2 * Z] for name, value in encoder["dense_1"].items()}

    @jax.jit
    def results(key):
        alike, gaussian = (params, params | {"encoder": encoder})
        sampled = terms(plain, gaussian, DATA, key, closed=False)
        return terms(model, alike, DATA, key), sampled, terms(plain, gaussian, DATA, key).kl

    found, expected, closed = results(jax.random.key(1))
    for name in ("recon", "kl", "sse", "z"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-5)
    sampled = np.float64(found.kl - closed)
    assert abs(sampled.mean()) < 4 * sampled.std() / np.sqrt(N)


SMALL = IAFVAE.dense(D, Z, hidden_dims=(), likelihood="gaussian", flow=Autoregressive(2, (4,), jnp.tanh))


def drawn(model):
    """Parameters at a random place."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), DATA.x[:1]))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda v: jnp.asarray(0.4 * rng.normal(size=v.shape), v.dtype), shapes)


def test_the_reparameterised_gradient_is_that_of_finite_differences():
    """At one noise, in float64, in a direction of all parameters of each group."""
    with jax.enable_x64(True):
        params, batch = jax.tree.map(lambda v: v.astype(float), (drawn(SMALL), Batch(DATA.x[:8])))
        loss = jax.jit(lambda p: vae_loss(p, batch, jax.random.key(4), model=SMALL)[0])
        grads = jax.jit(jax.grad(loss))(params)
        rng = np.random.default_rng(2)
        for group in SMALL.groups:
            way = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), params[group])
            at = lambda t, group=group, way=way: (
                params | {group: jax.tree.map(lambda v, w: v + t * w, params[group], way)}
            )
            slope = (loss(at(1e-5)) - loss(at(-1e-5))) / 2e-5
            along = jax.tree.reduce(jnp.add, jax.tree.map(lambda g, w: jnp.sum(g * w), grads[group], way))
            np.testing.assert_allclose(slope, along, rtol=1e-6)
            assert abs(along) > 1e-3


def test_the_code_is_where_the_mean_of_the_base_goes_and_its_jacobian_is_jaxs():
    params, x = drawn(SMALL), DATA.x[:3]
    encoder, apply = params["encoder"]["dense_0"], partial(SMALL.apply, {"params": params}, method="embed")

    @jax.jit
    def results(x):
        mean, _, context = jnp.split(x @ encoder["kernel"] + encoder["bias"][None], [Z, 2 * Z], axis=1)
        expected = SMALL.flow.apply({"params": params["flow"]}, mean, context)[0]
        return apply(x), expected, jax.vmap(jax.jacfwd(lambda row: apply(row[None])[0]))(x)

    code, expected, exact = results(x)
    np.testing.assert_allclose(code, expected, rtol=1e-5)
    found = jax.jit(lambda x: jacobian.embedding_sq(SMALL, params, x))(x)
    np.testing.assert_allclose(found, jnp.square(exact).sum((1, 2)), rtol=1e-4)


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="a flow beside"):
        iaf_vae(VAE.dense(D, Z))
    bare = IAFVAE(IAFVAE.dense(D, Z).encoder, VAE.dense(D, Z).decoder, Z)
    with pytest.raises(InputError, match="has no flow: build it with IAFVAE"):
        init_params(bare, jax.random.key(0), DATA.x)
    told_nothing = IAFVAE(VAE.dense(D, Z).encoder, VAE.dense(D, Z).decoder, Z, flow=Autoregressive(1, ()))
    assert set(init_params(told_nothing, jax.random.key(0), DATA.x)["flow"]["steps_0"]) == {"dense_0"}
