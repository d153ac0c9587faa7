"""The VAE of counts against scipy's distributions, quadrature, closed forms of maximum likelihood, and its limits."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import log_softmax, logsumexp

from aejax import evaluation, recipe
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call
from aejax.likelihoods import Categorical, NegativeBinomial
from aejax.methods.count_vae import CountVAE, PerGene, count_vae
from aejax.methods.vae import VAE, terms, vae, vae_loss
from aejax.nets import MLP, init_params

D, Z = 6, 2
RNG = np.random.default_rng(0)
X = RNG.poisson(np.exp(RNG.normal(1, 1, (7, D)))).astype(np.float32)
MODEL, POISSON = (CountVAE.dense(D, Z, hidden_dims=(), likelihood=name) for name in ("negative_binomial", "poisson"))


def drawn(model, x=X):
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.asarray(x)))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.7 * rng.normal(size=leaf.shape), shapes)


def layers(params):
    """Kernel and bias of encoder and decoder, and the dispersions, if any."""
    decoder = params["decoder"].get("net", params["decoder"])["dense_0"]
    encoder = params["encoder"]["dense_0"]
    return encoder["kernel"], encoder["bias"], decoder["kernel"], decoder["bias"]


def log_p(params, x, z):
    """log p(x|z) of codes `[..., N, Z]`, by scipy."""
    *_, kernel, bias = layers(params)
    mean = x.sum(axis=1, keepdims=True) * np.exp(log_softmax(z @ kernel + bias, axis=-1))
    if "log_dispersion" not in params["decoder"]:
        return scipy.stats.poisson.logpmf(x, mean).sum(-1)
    r = np.exp(params["decoder"]["log_dispersion"])
    return scipy.stats.nbinom.logpmf(x, r, r / (r + mean)).sum(-1)


def posterior(params, x):
    kernel, bias, *_ = layers(params)
    code = np.log1p(x) @ kernel + bias
    return code[:, :Z], code[:, Z:]


@cache
def terms_of(model):
    return jax.jit(lambda params, key: terms(model, params, Batch(jnp.asarray(X, float)), key))


@cache
def grads_of(model):
    return jax.jit(jax.value_and_grad(lambda p, x: vae_loss(p, Batch(x), jax.random.key(0), model=model)[0]))


@pytest.mark.parametrize("model", [MODEL, POISSON], ids=["negative_binomial", "poisson"])
def test_the_terms_are_those_of_scipy_at_the_codes_that_were_drawn(model):
    params, x = drawn(model), np.float64(X)
    with jax.enable_x64(True):
        each = terms_of(model)(params, jax.random.key(0))
        np.testing.assert_allclose(each.recon, -log_p(params, x, np.asarray(each.z)), rtol=1e-9)
    mean, logvar = posterior(params, x)
    np.testing.assert_allclose(each.kl, 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(1), rtol=1e-9)
    *_, kernel, bias = layers(params)
    x_hat = x.sum(1, keepdims=True) * np.exp(log_softmax(np.asarray(each.z) @ kernel + bias, axis=-1))
    np.testing.assert_allclose(each.sse, ((x_hat - x) ** 2).sum(1), rtol=1e-9)


def test_an_importance_sampled_likelihood_is_the_integral_over_the_codes():
    """Of 41 x 41 Gauss-Hermite nodes; from the prior, which is the posterior of an encoder of zeros."""
    params, x = drawn(MODEL), np.float64(X)
    params["encoder"] = jax.tree.map(np.zeros_like, params["encoder"])
    nodes, mass = np.polynomial.hermite_e.hermegauss(41)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 1, Z)
    weights = np.log(np.outer(mass, mass) / mass.sum() ** 2).reshape(-1, 1)
    exact = -logsumexp(weights + log_p(params, x, z), axis=0).mean()
    found = evaluation.nll(MODEL, jax.tree.map(np.float32, params), X, jax.random.key(0), num_samples=5000)
    assert found.std_error < 0.06
    assert abs(found.nll_nats - exact) < 4 * found.std_error


def test_dispersions_without_end_are_poisson():
    """The difference falls as their reciprocal."""
    params, key = drawn(MODEL), jax.random.key(0)
    plain = {"encoder": params["encoder"], "decoder": params["decoder"]["net"]}
    with jax.enable_x64(True):
        poisson = terms_of(POISSON)(plain, key).recon

        def gap(dispersion):
            params["decoder"]["log_dispersion"] = np.full(D, np.log(dispersion))
            return np.abs(terms_of(MODEL)(params, jax.random.clone(key)).recon - poisson).max()

        np.testing.assert_allclose(gap(1e3) / gap(1e4), 10, rtol=0.1)
        assert gap(1e4) < 0.1
        assert gap(1e9) == gap(1e4)  # the bound of the likelihood


def test_the_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, drawn(MODEL))
        loss = lambda p: grads_of(MODEL)(p, jnp.asarray(X, float))[0]
        _, grads = grads_of(MODEL)(params, jnp.asarray(X, float))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            index = (0,) * leaf.ndim
            at = lambda step, path=path, index=index: loss(
                jax.tree_util.tree_map_with_path(lambda p, v: v.at[index].add(step) if p == path else v, params)
            )
            own = dict(jax.tree_util.tree_leaves_with_path(grads))[path][index]
            assert abs(own) > 1e-6
            np.testing.assert_allclose((at(1e-5) - at(-1e-5)) / 2e-5, own, rtol=1e-6)


def test_the_gradient_vanishes_at_the_maximum_of_the_likelihood():
    """Of libraries that are alike and a decoder that ignores its code.

    The shares are then those of all counts, and the dispersion of a gene is what scipy finds on its column alone.
    """
    r = np.array([0.5, 2.0, 1.0, 3.0])
    rng, size = np.random.default_rng(2), 600
    x = rng.poisson(rng.gamma(r, np.array([40, 20, 10, 30]) / r, (size, 4)))
    x = np.float64(np.c_[x, 500 - x.sum(axis=1)])
    assert x.min() >= 0
    best = [
        scipy.optimize.minimize_scalar(
            lambda log_r, n=n: -scipy.stats.nbinom.logpmf(n, np.exp(log_r), 1 / (1 + n.mean() / np.exp(log_r))).sum(),
            bounds=(-3, 9), method="bounded", options={"xatol": 1e-9},
        ).x
        for n in x.T
    ]  # fmt: skip
    model = CountVAE.dense(5, Z, hidden_dims=())
    params = jax.tree.map(np.zeros_like, drawn(model, x[:1]))
    params["decoder"]["net"]["dense_0"]["bias"] = np.log(x.mean(axis=0))
    params["decoder"]["log_dispersion"] = np.array(best)
    with jax.enable_x64(True):
        grads = grads_of(model)(params, jnp.asarray(x))[1]["decoder"]
        np.testing.assert_allclose(grads["net"]["dense_0"]["bias"], np.zeros(5), atol=1e-10)
        np.testing.assert_allclose(grads["log_dispersion"][:4], np.zeros(4), atol=1e-6)
        params["decoder"]["log_dispersion"] += 0.1
        assert (grads_of(model)(params, jnp.asarray(x))[1]["decoder"]["log_dispersion"][:4] > 1e-3).all()


def test_extreme_logits_empty_cells_and_large_libraries_are_finite():
    x = jnp.asarray(np.float32([[0] * D, [0, 1] + [0] * 4, [1e7, 0, 0, 3, 0, 0], [5] * D]))
    params = jax.tree.map(np.float32, drawn(MODEL))
    for scale, log_dispersion in ((1e4, -200.0), (1e4, 200.0), (-1e4, 0.0)):
        params["decoder"]["net"]["dense_0"]["bias"] = np.float32(scale * np.linspace(-1, 1, D))
        params["decoder"]["log_dispersion"] = np.full(D, log_dispersion, np.float32)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads_of(MODEL)(params, x)))


def test_cells_have_the_library_that_is_seen_or_given():
    params = jax.tree.map(np.float32, drawn(MODEL))
    z, sizes = np.float32(RNG.normal(size=(7, Z))), np.float32([1, 10, 100, 5, 7, 3e4, 2])
    total = lambda method, *arrays: np.asarray(call(MODEL, params, method, *arrays)).sum(axis=1)
    np.testing.assert_allclose(total("reconstruct", X), X.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(total("generate", z, sizes), sizes, rtol=1e-5)
    np.testing.assert_allclose(total("generate", z), np.full(7, 1e4), rtol=1e-5)
    np.testing.assert_array_equal(call(MODEL, params, "library", X[:2] * np.float32([[1], [0]])), [X[0].sum(), 1])
    once, twice = (call(MODEL.clone(library_size=size), params, "generate", z) for size in (50.0, 100.0))
    np.testing.assert_allclose(2 * once, twice, rtol=1e-5)


def test_a_dispersion_is_that_of_its_gene_whatever_the_cell():
    params = drawn(MODEL)
    params["decoder"]["log_dispersion"] = np.log([0.01, 0.1, 1, 10, 100, 1000])
    with jax.enable_x64(True):
        found = NegativeBinomial().dispersion(call(MODEL, params, "decode", RNG.normal(size=(3, Z))))
    np.testing.assert_allclose(found, np.broadcast_to([0.01, 0.1, 1, 10, 100, 1000], (3, D)), rtol=1e-9)


def test_a_decoder_of_ones_own_may_have_dispersions_of_each_cell():
    model = CountVAE(encoder=MLP((2 * Z,)), decoder=MLP((2 * D,)), latent_dim=Z)
    params = drawn(model)
    z, (*_, kernel, bias) = RNG.normal(size=(7, Z)), layers(params)
    logits, raw = np.split(z @ kernel + bias, 2, axis=1)
    r = np.logaddexp(0, raw)
    mean = X.sum(axis=1, keepdims=True) * np.exp(log_softmax(logits, axis=1))
    with jax.enable_x64(True):
        found = call(model, params, "nll", z, np.float64(X))
    np.testing.assert_allclose(found, -scipy.stats.nbinom.logpmf(X, r, r / (r + mean)).sum(1), rtol=1e-9)
    assert isinstance(MODEL.decoder, PerGene)


def test_other_likelihoods_and_other_data_are_refused():
    for likelihood in ("bernoulli", "gaussian", "categorical", Categorical(levels=2)):  # whose x are 0 and 1
        model = CountVAE.dense(D, Z, likelihood=likelihood)
        for refused in (lambda m=model: count_vae(m), lambda m=model: init_params(m, jax.random.key(0), X)):
            with pytest.raises(InputError, match="negative_binomial or poisson"):
                refused()
    with pytest.raises(InputError, match="num_samples is 0"):
        count_vae(MODEL, num_samples=0)
    with pytest.raises(InputError, match="integers"):
        count_vae(MODEL).check(Batch(X + 0.5))
    vae(VAE.dense(D, Z, likelihood="gaussian")).check(Batch(X + 0.5))


def test_the_three_line_start_takes_counts_as_they_are():
    """Bytes too, which are no grey values here; the likelihood is that of the method."""
    counts = X.astype(np.uint8)
    for likelihood, wanted in ((None, "negative_binomial"), ("poisson", "poisson")):
        made = recipe.of("count_vae", counts, None, "dense", 2, likelihood, {})
        assert made.model().likelihood == wanted
        np.testing.assert_array_equal(made.taken("x", counts), X)
    assert recipe.of("vae", counts, None, "dense", 2, None, {}).taken("x", counts).max() <= 1
