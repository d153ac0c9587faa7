"""The expected denoising loss against every mask there is, and the best linear denoiser against what theory says."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import corruption as corruptions
from aejax import likelihoods
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae_loss
from aejax.methods.dae import dae_loss
from aejax.methods.mdae import HParams, linear_dae, linear_denoising_sse, mdae, mdae_loss, second_moments
from aejax.nets import init_params

KEY = jax.random.key(0)
NOISES = [("gaussian", 0.5), ("masking", 0.4), ("salt_and_pepper", 0.3)]
LINEAR = AE.dense(5, 2, hidden_dims=(), likelihood="gaussian")


@pytest.fixture(scope="module")
def data():
    """Correlated, `[300, 5]` float64 with a mean that is not zero, and a component that is always zero."""
    rng = np.random.default_rng(0)
    return np.pad(rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) / 2 + [0.4, 0.5, 0.6, 0.3], ((0, 0), (0, 1)))


def _random_params(model, x, key=KEY):
    """Biases are not zero, so that nothing cancels by chance."""
    shapes = jax.eval_shape(model.init, key, x)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([0.7 * jax.random.normal(k, v.shape, x.dtype) for k, v in zip(keys, leaves, strict=True)])


def _every_draw(x, corruption, level):
    """All corrupted versions of x, `[M, D]`, and their probabilities `[M]`."""
    hit = [(0.0, level)] if corruption == "masking" else [(0.0, level / 2), (1.0, level / 2)]
    outcomes = [[(v, 1 - level), *hit] for v in x]
    draws = [zip(*each, strict=True) for each in itertools.product(*outcomes)]
    values, chances = zip(*draws, strict=True)
    return np.array(values), np.prod(np.array(chances), axis=1)


@pytest.mark.first(1)
@pytest.mark.parametrize(("corruption", "level"), NOISES[1:])
def test_the_loss_of_a_linear_one_is_the_mean_over_every_mask(data, corruption, level):
    with jax.enable_x64(True):
        x = jnp.asarray(data[:4])
        params = _random_params(LINEAR, x)
        found, metrics = mdae_loss(params, Batch(x), KEY, model=LINEAR, corruption=corruption, level=level)
        expected = []
        for row in np.asarray(x):
            values, chances = _every_draw(row, corruption, level)
            output = LINEAR.apply({"params": params}, jnp.asarray(values))
            expected.append(chances @ likelihoods.gaussian_nll(output, jnp.broadcast_to(row, values.shape)))
        np.testing.assert_allclose(found, np.mean(expected), rtol=1e-12)
        exact = linear_denoising_sse(params, second_moments(data[:4], corruption, level))
        np.testing.assert_allclose(metrics["sse"] + 2 * metrics["noise_nats"], exact, rtol=1e-12)


def test_the_loss_of_a_linear_one_is_the_mean_over_gaussian_noise(data):
    x = jnp.asarray(data[:4], jnp.float32)
    params = _random_params(LINEAR, x)
    found, _ = mdae_loss(params, Batch(x), KEY, model=LINEAR, corruption="gaussian", level=0.5)
    one = lambda key: dae_loss(params, Batch(x), key, model=LINEAR, corruption="gaussian", level=0.5)[0]
    draws = np.asarray(jax.vmap(one)(jax.random.split(KEY, 20_000)), np.float64)
    assert abs(draws.mean() - found) < 5 * draws.std() / 20_000**0.5  # wrong for one key in 1.7e6


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_loss_of_a_deep_one_is_its_definition(likelihood):
    model = AE.dense(5, 2, hidden_dims=(4,), activation=nn.tanh, likelihood=likelihood)
    with jax.enable_x64(True):
        x = jax.random.uniform(KEY, (3, 5), jnp.float64)
        params = _random_params(model, x)
        found, metrics = mdae_loss(params, Batch(x), KEY, model=model, corruption="masking", level=0.4)
        decode = lambda v: model.apply({"params": params}, v[None])[0]
        nll = lambda output, row: likelihoods.get(likelihood).nll(output[None], row[None])[0]
        at_mean, added = [], []
        for row in x:
            mean, variance = corruptions.moments("masking", row, 0.4)
            output, jacobian = decode(mean), jax.jacfwd(decode)(mean)
            gauss_newton = jacobian.T @ jax.hessian(nll)(output, row) @ jacobian
            at_mean.append(nll(output, row))
            added.append(0.5 * (variance * jnp.diag(gauss_newton)).sum())
    np.testing.assert_allclose(metrics["recon_nats"], np.mean(at_mean), rtol=1e-12)
    np.testing.assert_allclose(metrics["noise_nats"], np.mean(added), rtol=1e-10)
    np.testing.assert_allclose(found, np.mean(at_mean) + np.mean(added), rtol=1e-10)


@pytest.mark.slow
def test_small_noise_on_a_deep_one_leaves_out_what_the_data_do_not_pay_for():
    """The remainder at second order is the curvature of the net weighted by the residual: none where x is its output.

    Then expected loss minus `mdae_loss` is of fourth order in sigma: a sixteenth when sigma is halved. The expectation
    is by Gauss-Hermite quadrature in the three components, exact to degree 21.
    """
    model = AE.dense(3, 2, hidden_dims=(4,), activation=nn.tanh, likelihood="gaussian")
    nodes, weights = np.polynomial.hermite_e.hermegauss(11)
    grid = np.array(list(itertools.product(nodes, repeat=3)))
    chances = np.array(list(map(np.prod, itertools.product(weights / weights.sum(), repeat=3))))
    with jax.enable_x64(True):
        params = _random_params(model, jnp.zeros((1, 3)))
        search = jnp.full((1, 3), 0.3)
        for _ in range(200):  # to the fixed point x = f(x)
            search = 0.5 * (search + model.apply({"params": params}, search))
        np.testing.assert_allclose(model.apply({"params": params}, search), search, atol=1e-12)
        rests = []
        for sigma in (0.02, 0.01):
            outputs = model.apply({"params": params}, search + sigma * jnp.asarray(grid))
            nll = likelihoods.gaussian_nll(outputs, jnp.broadcast_to(search, outputs.shape))
            found, _ = mdae_loss(params, Batch(search), KEY, model=model, corruption="gaussian", level=sigma)
            rests.append(chances @ nll - found)
    assert rests[0] / rests[1] == pytest.approx(16, rel=0.02)


@pytest.mark.slow
def test_deviations_and_weights_of_an_example_are_not_taken_for_common():
    """Twice the products that the norm needs at least; taken for common, they cost four times it, and memory as much.

    The least: either kernel of the encoder and of the decoder meets the other in the code, 2 * 2 * D * H * Z for each
    example, and a gradient costs three times a value.
    """
    model, (b, d, h, z) = AE.dense(60, 6, hidden_dims=(40,), activation=nn.tanh), (16, 60, 40, 6)
    x = jax.random.uniform(KEY, (b, d))
    params = _random_params(model, x)
    loss = lambda params: mdae_loss(params, Batch(x), KEY, model=model)[0]
    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    assert compiled.cost_analysis()["flops"] < 2 * 3 * b * 4 * d * h * z
    assert compiled.memory_analysis().temp_size_in_bytes < 6 * 4 * b * (d + h) * z


@pytest.mark.parametrize("corruption", corruptions.CORRUPTIONS)
def test_without_noise_it_is_the_plain_autoencoder(corruption):
    model = AE.dense(6, 2, hidden_dims=(5,))
    x = jax.random.uniform(KEY, (3, 6))
    params = _random_params(model, x)
    with jax.numpy_dtype_promotion("strict"):
        found, _ = mdae_loss(params, Batch(x), KEY, model=model, corruption=corruption, level=jnp.float32(0))
    np.testing.assert_allclose(found, ae_loss(params, Batch(x), KEY, model=model)[0], rtol=1e-6)


def test_saturated_logits_have_finite_gradients():
    model = AE.dense(4, 2, hidden_dims=())
    x = jnp.array([[0.0, 1.0, 0.5, 1.0]])
    params = jax.tree.map(lambda v: 1e3 * v, _random_params(model, x))
    grads = jax.grad(lambda params: mdae_loss(params, Batch(x), KEY, model=model)[0])(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_gradients_are_those_of_differences_where_a_pixel_is_black():
    """In the level and in x, by the central difference; an affine model, whose loss is quadratic in the level."""
    with jax.enable_x64(True):
        model = AE.dense(3, 2, hidden_dims=(), likelihood="gaussian")
        x = jnp.array([[0.0, 0.7, 0.0], [0.3, 0.0, 1.0]])
        params = jax.tree.map(lambda v: v.astype(jnp.float64), _random_params(model, x.astype(jnp.float32)))

        def loss(level, corruption):
            return mdae_loss(params, Batch(x), KEY, model=model, corruption=corruption, level=level)[0]

        for corruption, level in (("masking", 0.3), ("gaussian", 0.3), ("salt_and_pepper", 0.3), ("masking", 1e-6)):
            slope = (loss(level + 5e-7, corruption) - loss(level - 5e-7, corruption)) / 1e-6
            np.testing.assert_allclose(jax.grad(loss)(level, corruption), slope, rtol=1e-6)
        of_x = lambda x: mdae_loss(params, Batch(x), KEY, model=model, corruption="masking", level=0.3)[0]
        direction = jnp.array([[1.0, 0.5, -2.0], [0.1, 1.0, 0.3]])
        slope = (of_x(x + 1e-6 * direction) - of_x(x - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(jnp.vdot(jax.grad(of_x)(x), direction), slope, rtol=1e-6)


# --- closed form -----------------------------------------------------------------------------------------------------


def _map(params):
    layers = [params[group]["dense_0"] for group in ("encoder", "decoder")]
    return layers[0]["kernel"] @ layers[1]["kernel"], layers[0]["bias"] @ layers[1]["kernel"] + layers[1]["bias"]


def test_for_gaussian_noise_it_is_the_wiener_filter(data):
    cov, mean = np.cov(data.T, bias=True), data.mean(0)
    wiener = cov @ np.linalg.inv(cov + 0.25 * np.eye(5))
    matrix, offset = _map(linear_dae(data, "gaussian", 0.5))
    np.testing.assert_allclose(matrix, wiener, atol=1e-12)
    np.testing.assert_allclose(offset, mean - wiener @ mean, atol=1e-12)
    values, vectors = np.linalg.eigh(cov)
    shrunk = vectors * values / (values + 0.25)
    matrix, _ = _map(linear_dae(data, "gaussian", 0.5, latent_dim=2))  # the two largest v^2 / (v + sigma^2) stay
    np.testing.assert_allclose(matrix, shrunk[:, -2:] @ vectors[:, -2:].T, atol=1e-12)


def test_for_masking_it_is_the_formula_of_the_paper(data):
    """Chen et al. (2012): Q and P of the data with a constant appended that is never masked, rows scaled by q."""
    keep = 0.6
    extended = np.column_stack([data[:, :4], np.ones(len(data))])  # without the empty pixel their Q is regular
    scatter, q = extended.T @ extended, np.array([keep] * 4 + [1.0])
    big_q = scatter * np.outer(q, q)
    np.fill_diagonal(big_q, q * np.diag(scatter))
    big_p = (scatter * q)[:4]
    w = np.linalg.solve(big_q, big_p.T).T
    matrix, offset = _map(linear_dae(data, "masking", 1 - keep))
    np.testing.assert_allclose(matrix[:4, :4], w[:, :4].T, atol=1e-10)
    np.testing.assert_allclose(offset[:4], w[:, 4], atol=1e-10)
    assert not matrix[4].any()  # the pixel that is never lit says nothing
    np.testing.assert_allclose(np.append(matrix[:, 4], offset[4]), np.zeros(6), atol=1e-12)


def test_without_noise_it_is_pca(data):
    matrix, _ = _map(linear_dae(data, "masking", 0.0, latent_dim=2))
    leading = np.linalg.eigh(np.cov(data.T, bias=True))[1][:, -2:]
    np.testing.assert_allclose(matrix, leading @ leading.T, atol=1e-10)


@pytest.mark.first(1)
@pytest.mark.parametrize(("corruption", "level"), NOISES)
def test_no_map_of_that_rank_is_better(data, corruption, level):
    """The gradient is zero, every perturbation costs, and alternating least squares from elsewhere ends there."""
    params = linear_dae(data, corruption, level, latent_dim=2)
    moments = second_moments(data, corruption, level)
    best = linear_denoising_sse(params, moments)
    with jax.enable_x64(True):
        loss = lambda params: mdae_loss(
            params, Batch(jnp.asarray(data)), KEY, model=LINEAR, corruption=corruption, level=level
        )[0]
        for leaf in jax.tree.leaves(jax.grad(loss)(params)):
            np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = jax.tree.map(lambda v: v + 0.1 * rng.normal(size=v.shape), params)
        assert linear_denoising_sse(other, moments) > best
    found = linear_denoising_sse(_alternate(data, corruption, level, rng), moments)
    np.testing.assert_allclose(found, best, rtol=1e-9)


def _alternate(x, corruption, level, rng):
    """Encoder and decoder in turn, each by least squares, on moments that are gathered row by row."""
    means, variances = corruptions.moments(corruption, x, level)
    rows = np.column_stack([means, np.ones(len(x))])
    t = sum(np.outer(row, row) for row in rows) + np.diag(np.append(variances.sum(0), 0.0))
    c = sum(np.outer(row, target) for row, target in zip(rows, x - x.mean(0), strict=True))
    decoder = rng.normal(size=(2, 5))
    for _ in range(2000):
        encoder = np.linalg.pinv(t) @ c @ np.linalg.pinv(decoder)
        decoder = np.linalg.solve(encoder.T @ t @ encoder, encoder.T @ c)
    layers = {"encoder": (encoder[:-1], encoder[-1]), "decoder": (decoder, x.mean(0))}
    return {group: {"dense_0": {"kernel": kernel, "bias": bias}} for group, (kernel, bias) in layers.items()}


def test_the_parameters_are_those_of_the_linear_module(data):
    x = data.astype(np.float32)
    params = linear_dae(x, "gaussian", 0.5, latent_dim=2)
    like = init_params(LINEAR, KEY, x)
    assert jax.tree.map(lambda v: (v.shape, v.dtype), params) == jax.tree.map(lambda v: (v.shape, v.dtype), like)
    matrix, offset = _map(linear_dae(data, "gaussian", 0.5, latent_dim=2))
    found = LINEAR.apply({"params": params}, x, method="reconstruct")
    np.testing.assert_allclose(found, data @ matrix + offset, atol=1e-5)


def test_impossible_ranks_noises_and_levels_are_refused(data):
    with pytest.raises(InputError, match="latent_dim is 6; a linear map of 5 components has rank 1 to 5"):
        linear_dae(data, "gaussian", 0.5, latent_dim=6)
    with pytest.raises(InputError, match="Did you mean 'masking'"):
        linear_dae(data, "maskin", 0.5)
    with pytest.raises(InputError, match=r"level is 1\.5"):
        mdae(LINEAR, HParams(level=1.5))
