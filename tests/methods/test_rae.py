"""RAE: the loss in float64, and what is asked of a decoder by numpy's SVD and by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import jacobian as jac
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae_loss
from aejax.methods.rae import REGULARIZERS, rae, rae_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = AE.dense(5, 2, hidden_dims=(4,), activation=jnp.tanh, likelihood="gaussian")
BATCH = Batch(jax.random.uniform(jax.random.key(1), (6, 5)))


def wide(tree):
    return jax.tree.map(lambda v: np.asarray(v, np.float64), tree)


def through(net, v):
    hidden = np.tanh(v @ net["dense_0"]["kernel"] + net["dense_0"]["bias"])
    return hidden @ net["dense_1"]["kernel"] + net["dense_1"]["bias"]


def by_differences(generate, z, step=1e-5):
    """Squared norm of a Jacobian `[B]` by central differences."""
    moves = step * np.eye(z.shape[1])
    columns = [(generate(z + move) - generate(z - move)) / (2 * step) for move in moves]
    return sum(np.square(column).sum(axis=1) for column in columns)


def asked(regularizer, decoder, z):
    kernels = [decoder[f"dense_{i}"]["kernel"] for i in range(2)]
    if regularizer == "weights":
        return sum(np.square(kernel).sum() for kernel in kernels)
    if regularizer == "spectral":
        return sum(np.linalg.svd(kernel, compute_uv=False)[0] ** 2 for kernel in kernels)
    return by_differences(lambda z: through(decoder, z), z).mean()


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_the_loss_by_hand(regularizer):
    params = init_params(MODEL, KEY, BATCH.x)
    params = jax.tree.map(lambda v: v + 0.3 * jax.random.normal(jax.random.key(v.size), v.shape), params)
    options = {"model": MODEL, "beta": 0.7, "penalty": 0.3, "regularizer": regularizer}
    with jax.default_matmul_precision("highest"):
        value, metrics = rae_loss(params, BATCH, KEY, **options)
    own, x = wide(params), wide(BATCH.x)
    z = through(own["encoder"], x)
    sse = np.square(through(own["decoder"], z) - x).sum(axis=1).mean()
    recon = sse / 2 + 5 * np.log(2 * np.pi) / 2
    length, term = np.square(z).sum(axis=1).mean(), asked(regularizer, own["decoder"], z)
    expected = {"recon_nats": recon, "sse": sse, "code_length_sq": length, REGULARIZERS[regularizer]: term}
    assert set(metrics) == set(expected)
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(number, rel=2e-5), name
    assert float(value) == pytest.approx(recon + 0.7 * length / 2 + 0.3 * term, rel=2e-5)


def test_of_grey_values_the_slope_is_that_of_pixels_not_of_logits():
    """A decoder of one number a: d sigmoid(w z + b) / d z = s (1 - s) w."""
    model = AE.dense(3, 1, hidden_dims=())
    params = init_params(model, KEY, BATCH.x[:, :3])
    w, b = np.array([[1.0, -2.0, 0.5]]), np.array([0.1, 0.2, -0.3])
    params["decoder"]["dense_0"] = {"kernel": jnp.float32(w), "bias": jnp.float32(b)}
    z = np.array([[0.3], [-1.2]])
    s = 1 / (1 + np.exp(-(z @ w + b)))
    found = jac.generated_sq(model, params, jnp.float32(z))
    np.testing.assert_allclose(found, np.square(s * (1 - s) * w).sum(axis=1), rtol=1e-5)


def test_the_gradient_of_the_penalty_is_that_of_differences():
    """By the encoder too, whose codes may move to where the decoder is flat."""
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda v: v.astype(jnp.float64), (init_params(MODEL, KEY, BATCH.x), BATCH.x))
        slope = jax.grad(lambda p: rae_loss(p, Batch(x), KEY, model=MODEL, regularizer="gradient", penalty=2.0)[0])
        plain = jax.grad(lambda p: rae_loss(p, Batch(x), KEY, model=MODEL, regularizer="gradient", penalty=0.0)[0])
        found = jax.tree.map(lambda a, b: a - b, slope(params), plain(params))
        for group in ("encoder", "decoder"):
            kernel = np.asarray(params[group]["dense_0"]["kernel"])

            def at(entry, group=group, kernel=kernel):
                own = wide(params)
                own[group]["dense_0"]["kernel"] = kernel + entry * np.eye(*kernel.shape)
                z = through(own["encoder"], np.asarray(x))
                return 2 * by_differences(lambda z: through(own["decoder"], z), z, 1e-4).mean()

            expected = (at(1e-4) - at(-1e-4)) / 2e-4
            assert abs(expected) > 1e-3
            assert float(np.trace(found[group]["dense_0"]["kernel"])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_the_slope_of_the_spectral_norm_is_that_of_its_singular_vectors(shape):
    """d s^2 = 2 s u v^T, of numpy's SVD."""
    model = AE.dense(shape[1], shape[0], hidden_dims=(), likelihood="gaussian")
    x = jnp.zeros((2, shape[1]))
    params = init_params(model, KEY, x)
    kernel = np.random.default_rng(0).normal(size=shape)
    params["decoder"]["dense_0"]["kernel"] = jnp.float32(kernel)
    term = lambda p: rae_loss(p, Batch(x), KEY, model=model, regularizer="spectral")[1]["decoder_spectral_sq"]
    value, slope = jax.value_and_grad(term)(params)
    u, s, vt = np.linalg.svd(kernel, full_matrices=False)
    assert float(value) == pytest.approx(s[0] ** 2, rel=1e-5)
    np.testing.assert_allclose(
        slope["decoder"]["dense_0"]["kernel"], 2 * s[0] * np.outer(u[:, 0], vt[0]), atol=1e-4 * s[0]
    )


def test_where_all_singular_values_are_one_the_slope_is_finite():
    model = AE.dense(3, 3, hidden_dims=(), likelihood="gaussian")
    x = jnp.zeros((2, 3))
    params = init_params(model, KEY, x)
    params["decoder"]["dense_0"]["kernel"] = jnp.eye(3)
    slope = jax.grad(lambda p: rae_loss(p, Batch(x), KEY, model=model, regularizer="spectral")[0])(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.first(1)
@pytest.mark.parametrize("regularizer", ["spectral", "weights"])
def test_kernels_of_a_tied_decoder_are_the_encoders(regularizer):
    model = AE.dense(5, 2, hidden_dims=(4,), tied=True)
    params = init_params(model, KEY, BATCH.x)
    term = rae_loss(params, BATCH, KEY, model=model, regularizer=regularizer)[1][REGULARIZERS[regularizer]]
    assert float(term) == pytest.approx(asked(regularizer, wide(params["encoder"]), None), rel=1e-5)


@pytest.mark.first(1)
@pytest.mark.parametrize("regularizer", ["spectral", "weights"])
def test_a_kernel_of_a_convolution_is_a_matrix_of_its_last_index(regularizer):
    model = AE.conv((4, 4, 1), 2, features=(3,), strides=(2,))
    x = jax.random.uniform(KEY, (2, 4, 4, 1))
    params = init_params(model, KEY, x)
    kernels = [leaf for leaf in jax.tree.leaves(wide(params["decoder"])) if leaf.ndim > 1]
    assert any(kernel.ndim == 4 for kernel in kernels)
    matrices = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]
    order = 2 if regularizer == "spectral" else "fro"
    expected = sum(np.linalg.norm(matrix, order) ** 2 for matrix in matrices)
    term = rae_loss(params, Batch(x), KEY, model=model, regularizer=regularizer)[1][REGULARIZERS[regularizer]]
    assert float(term) == pytest.approx(expected, rel=1e-5)


@pytest.mark.first(1)
@pytest.mark.parametrize("regularizer", ["gradient", "spectral", "weights"])
def test_without_weights_it_is_the_plain_autoencoder(regularizer):
    params = init_params(MODEL, KEY, BATCH.x)
    loss = lambda p: rae_loss(p, BATCH, KEY, model=MODEL, beta=0.0, penalty=0.0, regularizer=regularizer)[0]
    plain = lambda p: ae_loss(p, BATCH, KEY, model=MODEL)[0]
    for a, b in zip(*map(jax.tree.leaves, (jax.value_and_grad(f)(params) for f in (loss, plain))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_unknown_is_refused():
    with pytest.raises(InputError, match="Did you mean 'spectral'"):
        rae(MODEL, regularizer="spectrl")
    rae(MODEL, regularizer="spectral")
