"""The beta-TC-VAE against mixtures that can be written out: double loops, quadrature, all batches that there are."""

from functools import partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm
from weights import check_weights, wide

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.beta_tc_vae import TCVAE, HParams, beta_tc_vae, beta_tc_vae_loss, log_ratios, mixture_weights
from aejax.methods.vae import VAE, terms
from aejax.nets import init_params
from aejax.posteriors import DiagonalGaussian

KEY = jax.random.key(0)
MODEL = TCVAE.dense(2, 2, hidden_dims=(), likelihood="gaussian")
PARTS = ("mutual_info_nats", "total_correlation_nats", "dimension_kl_nats")


def with_posteriors(deviation, num_examples=0, tilt=0.0):
    """Parameters under which the posterior of x has the mean x and one deviation, but for a tilt of its log."""
    kernel = np.concatenate([np.eye(2), tilt * np.array([[1.0, -0.5], [0.3, 0.8]])], axis=1)
    params = init_params(MODEL, KEY, jnp.zeros((1, 2)))
    bias = np.array([0.0, 0.0, *[2 * np.log(deviation)] * 2])
    encoder = {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    return params | {"encoder": encoder, "num_examples": jnp.float32(num_examples)}


def loops(z, mean, logvar, num_examples, sampling):
    """Equations 2 and S3 in float64, one density at a time, in nats."""
    size, dims = z.shape
    sd = np.exp(0.5 * logvar)
    parts = np.zeros((size, 3))
    for i in range(size):
        weight = [1 / (num_examples * size) for _ in range(size)]
        if sampling == "stratified":
            weight = [(num_examples - 1) / (num_examples * (size - 1)) for _ in range(size)]
            weight[i] = 1 / num_examples
        own = sum(norm.logpdf(z[i, d], mean[i, d], sd[i, d]) for d in range(dims))
        joint, marginals = [], [[] for _ in range(dims)]
        for j in range(size):
            each = [norm.logpdf(z[i, d], mean[j, d], sd[j, d]) for d in range(dims)]
            joint.append(np.log(weight[j]) + sum(each))
            for d in range(dims):
                marginals[d].append(np.log(weight[j]) + each[d])
        log_q, log_product = logsumexp(joint), sum(logsumexp(m) for m in marginals)
        prior = sum(norm.logpdf(z[i, d]) for d in range(dims))
        parts[i] = own - log_q, log_q - log_product, log_product - prior
    return parts.mean(axis=0)


@pytest.mark.first(1)
@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_the_parts_are_those_of_a_double_loop(sampling):
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    params = with_posteriors(0.6, num_examples=50, tilt=0.4)
    loss, found = beta_tc_vae_loss(
        params, Batch(x), KEY, model=MODEL, alpha=0.5, beta=3.0, gamma=2.0, sampling=sampling
    )
    each = terms(MODEL, params, Batch(x), jax.random.clone(KEY))
    parts = loops(*map(np.float64, (each.z, *each.posterior)), 50, sampling)
    np.testing.assert_allclose([found[name] for name in PARTS], parts, rtol=1e-5)
    np.testing.assert_allclose(loss, each.recon.mean() + parts @ [0.5, 3.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(found["bound_nats"], (each.recon + each.kl).mean(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_with_weights_of_one_it_is_the_bound_with_a_sampled_kl(sampling):
    x = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    params = with_posteriors(0.6, num_examples=9, tilt=0.4)
    loss, _ = beta_tc_vae_loss(params, Batch(x), KEY, model=MODEL, beta=1.0, sampling=sampling)
    each = terms(MODEL, params, Batch(x), jax.random.clone(KEY), closed=False)
    np.testing.assert_allclose(loss, (each.recon + each.kl).mean(), rtol=1e-5)


def by_quadrature(means, deviation):
    """The three parts for a mixture of equal Gaussians in the plane, on a grid of 0.02."""
    axis = np.linspace(-9, 9, 901)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    joint = np.mean([multivariate_normal(m, deviation**2).pdf(grid) for m in means], axis=0)
    p, q = (np.mean([norm.pdf(axis, m[d], deviation) for m in means], axis=0) for d in range(2))
    area = (axis[1] - axis[0]) ** 2
    entropy = -np.sum(joint * np.log(np.maximum(joint, 1e-300))) * area
    product, prior = (np.sum(joint * np.log(v)) * area for v in (np.outer(p, q), np.outer(*[norm.pdf(axis)] * 2)))
    own = np.log(2 * np.pi * np.e * deviation**2)  # the entropy of one posterior
    return np.array([entropy - own, -entropy - product, product - prior])


@pytest.mark.slow
def test_two_examples_have_the_information_and_the_correlation_of_their_mixture():
    """Where the batch is the whole set the estimates are unbiased: a z-test over 4,000 draws of two codes."""
    x = np.array([[0.8, 1.0], [-0.8, -0.5]], np.float32)
    params = with_posteriors(0.7, num_examples=2)
    found = jax.jit(jax.vmap(lambda key: beta_tc_vae_loss(params, Batch(x), key, model=MODEL)[1]))(
        jax.random.split(KEY, 4000)
    )
    for name, exact in zip(PARTS, by_quadrature(x, 0.7), strict=True):
        values = np.float64(found[name])
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(4000), name
        assert exact > 0.05, name  # far from nothing
    _, far = beta_tc_vae_loss(with_posteriors(0.1, num_examples=2), Batch(10 * x), KEY, model=MODEL)
    np.testing.assert_allclose([far[name] for name in PARTS[:2]], 2 * [np.log(2)], rtol=1e-5)  # one bit each


@pytest.mark.slow
def test_over_all_batches_that_a_code_may_meet_stratified_weights_have_the_mixture_as_their_mean():
    everyone = DiagonalGaussian(*np.random.default_rng(2).normal(size=(2, 6, 2)).astype(np.float32))
    z, own = everyone.mean[:1] + 0.3, DiagonalGaussian(*(v[:1] for v in everyone))
    rows = np.array([[0, *rest] for rest in combinations(range(1, 6), 2)])
    weights = mixture_weights(1, 3, 0, 6, sampling="stratified")
    batches = DiagonalGaussian(*(v[rows] for v in everyone))
    joint, _ = jax.vmap(lambda batch: log_ratios(z, own, batch, weights))(batches)
    density = lambda i: multivariate_normal(everyone.mean[i], np.diag(np.exp(everyone.logvar[i]))).pdf(z[0])
    exact = np.mean([density(i) for i in range(6)]) / density(0)
    np.testing.assert_allclose(np.exp(joint).mean(), exact, rtol=1e-5)
    assert np.exp(joint).std() > 0.1 * exact  # no batch alone has it


def test_stratified_weights_are_the_papers_averaged_over_which_one_is_the_odd_one():
    n, size = 11, 4
    m = size - 1
    odd = [[1 / n, *order] for order in permutations([1 / m] * (m - 1) + [(n - m) / (n * m)])]
    ours = np.asarray(mixture_weights(size, size, 0, n, sampling="stratified"))
    np.testing.assert_allclose(ours[0], np.mean(odd, axis=0), rtol=1e-6)
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(ours.diagonal(), np.float32(1 / n))
    assert (np.asarray(mixture_weights(2, size, 2, n, sampling="stratified")) == ours[2:]).all()
    np.testing.assert_allclose(mixture_weights(size, size, 0, 0, sampling="stratified"), 1 / size, rtol=1e-6)


def test_where_all_posteriors_are_one_there_is_neither_information_nor_correlation():
    params = with_posteriors(0.5, num_examples=100)
    x = jnp.ones((5, 2))
    _, found = beta_tc_vae_loss(params, Batch(x), KEY, model=MODEL)
    np.testing.assert_allclose([found[name] for name in PARTS[:2]], 0, atol=1e-6)
    _, off = beta_tc_vae_loss(params, Batch(x), jax.random.clone(KEY), model=MODEL, sampling="weighted")
    np.testing.assert_allclose([off[name] for name in PARTS[:2]], 2 * [np.log(100)], rtol=1e-5)  # (Z - 1) log N


@pytest.mark.slow
def test_every_weight_weighs_its_part_and_no_other():
    with jax.enable_x64(True):
        params = wide(with_posteriors(0.6, num_examples=30, tilt=0.4))
        batch = Batch(jnp.asarray(np.random.default_rng(3).normal(size=(6, 2))))
        loss = lambda own, **knobs: beta_tc_vae_loss(params | own, batch, KEY, model=MODEL, **knobs)
        own = {"encoder": params["encoder"], "decoder": params["decoder"]}
        weighed = {
            "alpha": lambda terms: terms["mutual_info_nats"],
            "beta": lambda terms: terms["total_correlation_nats"],
            "gamma": lambda terms: terms["dimension_kl_nats"],
        }
        check_weights(loss, own, {"alpha": 0.5, "beta": 3.0, "gamma": 2.0}, weighed)


@pytest.mark.slow
def test_the_size_of_the_data_is_counted_at_the_start_and_moves_stratified_codes_alone():
    data = Batch(np.random.default_rng(4).normal(size=(41, 2)).astype(np.float32))
    params = with_posteriors(0.6, tilt=0.4)
    assert float(beta_tc_vae(MODEL).start(params, data, KEY)["num_examples"]) == 41

    def gradient(num_examples, sampling):
        own = params | {"num_examples": jnp.float32(num_examples)}
        loss = lambda p: beta_tc_vae_loss(own | p, Batch(data.x[:8]), KEY, model=MODEL, sampling=sampling)[0]
        return np.asarray(jax.grad(loss)({"encoder": params["encoder"]})["encoder"]["dense_0"]["kernel"])

    np.testing.assert_allclose(gradient(41, "weighted"), gradient(8000, "weighted"), rtol=1e-4, atol=1e-5)
    assert np.abs(gradient(41, "stratified") - gradient(8000, "stratified")).max() > 0.05


def test_on_several_devices_a_code_finds_its_own_posterior_among_all():
    """Posteriors that lie apart: a code has log N nats of information if the weight 1 / N is that of its own."""
    x = 50 * np.random.default_rng(5).normal(size=(2, 3, 2)).astype(np.float32)
    loss = partial(beta_tc_vae_loss, with_posteriors(1e-3, num_examples=100), model=MODEL, axis_name="shards")
    _, found = jax.vmap(lambda rows, key: loss(Batch(rows), key), axis_name="shards")(x, jax.random.split(KEY))
    np.testing.assert_allclose(found["mutual_info_nats"], 2 * [np.log(100)], rtol=1e-5)


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_loss_and_gradient_are_finite_at_extreme_variances(logvar):
    params = with_posteriors(np.exp(0.5 * logvar), num_examples=100)
    x = jnp.asarray(np.random.default_rng(6).normal(size=(5, 2)), jnp.float32)
    loss = lambda p: beta_tc_vae_loss(params | p, Batch(x), KEY, model=MODEL)[0]
    value, grads = jax.value_and_grad(loss)({"encoder": params["encoder"]})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))


def test_what_cannot_be_is_refused():
    params = with_posteriors(0.5)
    with pytest.raises(InputError, match="at least 2"):
        beta_tc_vae_loss(params, Batch(jnp.zeros((1, 2))), KEY, model=MODEL)
    with pytest.raises(InputError, match="Did you mean 'weighted'"):
        beta_tc_vae(MODEL, sampling="weigted")
    with pytest.raises(InputError, match="TCVAE"):
        beta_tc_vae(VAE.dense(2, 2))
    with pytest.raises(InputError, match="gamma"):
        beta_tc_vae(MODEL, HParams(gamma=-1.0))
