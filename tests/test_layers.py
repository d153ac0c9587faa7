"""Layers in closed form, held against numpy's regressions, principal components, finite differences and Adam."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import aejax
from aejax import evaluation, layers
from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.methods.compressive_ae import CompressiveAE
from aejax.methods.sparse_ae import SparseAE
from aejax.methods.vae import VAE
from aejax.nets import MLP

KEY = jax.random.key(0)


def fit(model, x, **options):
    params = aejax.init_params(model, jax.random.key(1), np.asarray(x[:2], np.float32))
    return layers.fit_layers(model, params, x, KEY, **options)


def spheres(n: int = 300, dim: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, dim)) @ np.diag(np.arange(1, dim + 1)) + rng.normal(size=dim)).astype(np.float32)


def curve(n: int = 300) -> np.ndarray:
    t = np.linspace(-2, 2, n)
    return np.stack([t, t**2, np.sin(3 * t), np.cos(2 * t), np.tanh(4 * t)], axis=1).astype(np.float32)


def test_one_linear_layer_is_a_regression_in_one_sweep():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4))
    weights = [rng.normal(size=(5, 4))]
    with jax.enable_x64():
        args = [jnp.asarray(w) for w in weights], [jnp.zeros((5, 4))], jnp.asarray(1e-12)
        found, change, _, before = layers.sweep(*args, jnp.asarray(x), chain=(None,))
        ones = np.c_[x, np.ones(50)]
        exact = np.linalg.lstsq(ones, x, rcond=None)[0]
        # The lengths of the step have a ridge of 1e-6 of themselves.
        np.testing.assert_allclose(found[0], exact, atol=2e-6 * np.abs(exact - weights[0]).max())
        np.testing.assert_allclose(change[0], found[0] - weights[0], atol=1e-12)
        np.testing.assert_allclose(before, np.square(ones @ weights[0] - x).sum(axis=1).mean(), rtol=1e-12)


def test_a_change_is_the_regression_that_it_claims_to_be():
    """In a chain of two: minimises `E |M^(1/2) (C^T [h, 1] + M^-1 g)|^2`, by numpy, and its slope is the gradient."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 3))
    weights = [rng.normal(size=(4, 2)), rng.normal(size=(3, 3))]
    with jax.enable_x64():
        given = [jnp.asarray(w) for w in weights]
        chain = (jnp.tanh, None)
        changes, gradients, residual = layers._regressions(given, jnp.asarray(1e-14), jnp.asarray(x), chain)

        def half(first: np.ndarray) -> float:
            h = np.tanh(np.c_[x, np.ones(40)] @ first)
            return 0.5 * np.square(np.c_[h, np.ones(40)] @ weights[1] - x).sum(axis=1).mean()

        for i, j in [(0, 0), (2, 1), (3, 0)]:
            step = np.zeros((4, 2))
            step[i, j] = 1e-6
            slope = (half(weights[0] + step) - half(weights[0] - step)) / 2e-6
            np.testing.assert_allclose(gradients[0][i, j], slope, rtol=1e-6)
        before = np.c_[x, np.ones(40)] @ weights[0]
        slopes = 1 - np.tanh(before) ** 2
        jacobians = weights[1][:-1].T[None] * slopes[:, None, :]  # of the output, by what comes before the activation
        metric = np.einsum("nij,nik->jk", jacobians, jacobians) / 40
        wanted = -np.einsum("nij,ni->nj", jacobians, np.asarray(residual)) @ np.linalg.inv(metric)
        exact = np.linalg.lstsq(np.c_[x, np.ones(40)], wanted, rcond=None)[0]
        np.testing.assert_allclose(changes[0], exact, rtol=1e-4, atol=1e-6)


def test_it_begins_at_the_components_and_a_regression():
    """Without hidden layers the beginning is PCA: the error is the sum of the eigenvalues that are left."""
    x = spheres()
    model = AE.dense(6, 2, hidden_dims=(), likelihood="gaussian")
    found = fit(model, x, sweeps=0)
    assert found.sse == ()
    left = np.linalg.eigvalsh(np.cov(x.T, bias=True))[:-2].sum()
    np.testing.assert_allclose(evaluation.reconstruction_sse(model, found.params, x), left, rtol=1e-4)


def test_errors_fall_and_are_those_of_the_model():
    x = curve()
    model = AE.dense(5, 1, hidden_dims=(16,), activation=jnp.tanh, likelihood="gaussian")
    seen = {}
    found = fit(
        model,
        x,
        sweeps=20,
        say=lambda n, params: seen.update({n: evaluation.reconstruction_sse(model, params, x)}),
    )
    np.testing.assert_allclose(found.sse, [seen[n] for n in range(20)], rtol=1e-4)
    errors = np.array([seen[n] for n in range(21)])
    assert (np.diff(errors) <= 1e-4 * errors[:-1]).all()
    assert errors[-1] < 0.5 * errors[0]
    again = fit(model, 1024 * x, sweeps=2)
    np.testing.assert_allclose(again.sse, 1024**2 * np.array(found.sse[:2]), rtol=1e-6)
    between = []
    few = fit(model, x, sweeps=2, rows=50, say=lambda n, params: between.append(params))
    for i in (0, 1):  # rows of its own in each sweep
        some = np.asarray(jax.random.choice(jax.random.fold_in(KEY, i), 300, (50,), replace=False))
        np.testing.assert_allclose(few.sse[i], evaluation.reconstruction_sse(model, between[i], x[some]), rtol=1e-4)


def chain_of_three():
    """Weights, what a layer takes and slopes of it, of 4-3-2-4 with tanh twice, on 30 rows, all by NumPy."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 4))
    weights = [0.7 * rng.normal(size=shape) for shape in ((5, 3), (4, 2), (3, 4))]
    inputs, slopes, h = [], [], x
    for i, each in enumerate(weights):
        inputs.append(np.c_[h, np.ones(30)])
        h = inputs[-1] @ each
        if i < 2:
            h = np.tanh(h)
        slopes.append(1 - h**2 if i < 2 else np.ones_like(h))
    return x, weights, inputs, slopes, h - x


def test_curvature_goes_through_the_means_of_slopes():
    x, weights, inputs, slopes, residual = chain_of_three()
    metric, error = np.eye(4), residual
    with jax.enable_x64():
        given = [jnp.asarray(w) for w in weights]
        changes, _, _ = layers._regressions(given, jnp.asarray(1e-14), jnp.asarray(x), (jnp.tanh, jnp.tanh, None))
    for i in (2, 1, 0):
        metric, error = metric * (slopes[i].T @ slopes[i] / 30), error * slopes[i]
        wanted = np.linalg.lstsq(inputs[i], -error, rcond=None)[0] @ np.linalg.inv(metric)
        np.testing.assert_allclose(changes[i], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
        metric, error = weights[i][:-1] @ metric @ weights[i][:-1].T, error @ weights[i][:-1].T


@pytest.mark.parametrize(("size", "damping", "wanted"), [(1.0, 0.3, 0), (0.05, 1e-6, 5)])
def test_a_step_is_the_least_squares_of_the_tangent_in_two_directions(size, damping, wanted):
    """By finite differences; the first is taken whole, and damped less; the other is halved, and damped more."""
    x, weights, _, _, _ = chain_of_three()
    chain, rng = (jnp.tanh, jnp.tanh, None), np.random.default_rng(4)
    with jax.enable_x64():
        given = [jnp.asarray(size * w) for w in weights]
        last = [jnp.asarray(rng.normal(size=w.shape)) for w in weights]
        changes, slopes, _ = layers._regressions(given, jnp.asarray(damping), jnp.asarray(x), chain)
        found, taken, after, before = layers.sweep(given, last, jnp.asarray(damping), jnp.asarray(x), chain=chain)
        output = lambda ws: np.asarray(layers._output(ws, chain, jnp.asarray(x)))
        ways = []
        for way in (changes, last):
            far = [1e-5 * each for each in way]
            ahead, behind = ([w + k * e for w, e in zip(given, far, strict=True)] for k in (1, -1))
            ways.append((output(ahead) - output(behind)).ravel() / 2e-5)
        inner = lambda a, b: sum(float(np.vdot(p, q)) for p, q in zip(a, b, strict=True))
        curvature = np.array([[a @ b for b in ways] for a in ways]) / 30
        curvature += damping * np.array([[inner(a, b) for b in (changes, last)] for a in (changes, last)])
        lengths = np.linalg.solve(curvature, [-inner(slopes, way) for way in (changes, last)])
        planned = [lengths[0] * a + lengths[1] * b for a, b in zip(changes, last, strict=True)]
        errors = [np.square(output([w + s * e for w, e in zip(given, planned, strict=True)]) - x).sum() / 30 for s in
                  0.5 ** np.arange(11)]  # fmt: skip
        halvings = next(i for i, error in enumerate(errors) if error < float(before))
        share = 0.5**halvings
        for moved, step in zip(taken, planned, strict=True):
            np.testing.assert_allclose(moved, share * step, rtol=1e-4, atol=1e-5 * np.abs(step).max())
        np.testing.assert_allclose(found[0], given[0] + taken[0])
        gain = (errors[halvings] - float(before)) / (lengths @ curvature @ lengths + 2 * inner(slopes, planned))
        assert halvings == wanted
        factor = 0.7 if halvings == 0 and gain > 0.75 else 1.5 if halvings or gain < 0.25 else 1.0
        assert float(after) / damping == pytest.approx(factor)


def test_encoder_and_decoder_of_unequal_depth():
    """All layers of the encoder begin at components, so linear ones are PCA; none of the decoder does."""
    x = spheres()
    model = AE(encoder=MLP((4, 2), identity), decoder=MLP((6,)), latent_dim=2, likelihood="gaussian")
    left = np.linalg.eigvalsh(np.cov(x.T, bias=True))[:-2].sum()
    found = fit(model, x, sweeps=0)
    np.testing.assert_allclose(evaluation.reconstruction_sse(model, found.params, x), left, rtol=1e-4)


def identity(a):
    return a


def test_neither_offset_nor_dtype_matters():
    x = curve().round(3)
    model = AE.dense(5, 1, hidden_dims=(8,), activation=jnp.tanh, likelihood="gaussian")
    found = fit(model, x, sweeps=5)
    far = fit(model, x.astype(np.float64) + 1e4, sweeps=5)
    np.testing.assert_allclose(far.sse, found.sse, rtol=1e-2)
    with jax.enable_x64():
        double = fit(model, x.astype(np.float64), sweeps=np.int64(5))
    np.testing.assert_allclose(double.sse, found.sse, rtol=1e-2)
    half = fit(model, x.astype(np.float16), sweeps=1)
    np.testing.assert_allclose(half.sse, found.sse[:1], rtol=1e-2)
    with pytest.raises(InputError, match="divide it by that"):
        fit(model, 1e25 * x, sweeps=1)
    assert fit(model, (1e25 * x) / (1e25 * x).std(dtype=np.float64), sweeps=1).sse[0] > 0


def test_constant_columns_and_codes_wider_than_the_data():
    x = spheres()
    x[:, 1] = 3.0
    model = AE.dense(6, 7, hidden_dims=(20,), activation=jnp.tanh, likelihood="gaussian")
    found = fit(model, x, sweeps=5)
    assert np.isfinite(found.sse).all()
    assert found.sse[-1] < 0.05 * np.var(x, axis=0).sum()


@pytest.mark.slow
def test_on_digits_twenty_sweeps_are_within_a_fifth_of_adam():
    x = load_digits().data.astype(np.float32) / 16
    train, test = x[:1400], x[1400:]
    fields = {"latent_dim": 10, "hidden_dims": (64,), "likelihood": "gaussian", "activation": jnp.tanh}
    adam = aejax.learn("ae", train, num_epochs=300, **fields)
    of_adam = np.square(np.asarray(adam.reconstruct(test)) - test).sum(axis=1).mean()
    model = AE.dense(64, **fields)
    found = fit(model, train, sweeps=20)
    assert evaluation.reconstruction_sse(model, found.params, test) < 1.2 * of_adam


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (AE.dense(6, 2), "the squared error: 'gaussian'"),
        (AE.dense(6, 2, tied=True, likelihood="gaussian"), "untied and with biases"),
        (AE.dense(6, 2, use_bias=False, likelihood="gaussian"), "untied and with biases"),
        (AE.conv((4, 4, 1), 2, features=(2,), strides=(1,), likelihood="gaussian"), "those of AE.dense"),
        (VAE.dense(6, 2, likelihood="gaussian"), "This is a VAE, .*use AE.dense"),
        (SparseAE.dense(6, 2, likelihood="gaussian"), "This is a SparseAE, .*use AE.dense"),
        (CompressiveAE.dense(6, 2), "This is a CompressiveAE, .*use AE.dense"),
    ],
)
def test_models_of_another_kind_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        layers.fit_layers(model, {}, spheres(), KEY)


def test_what_else_is_refused():
    model = AE.dense(6, 2, activation=nn.tanh, likelihood="gaussian")
    for given, message in [
        ({"sweeps": -1}, "sweeps=-1; a whole number, 0 or more"),
        ({"sweeps": 2.0}, "sweeps=2.0; a whole number, 0 or more"),
        ({"rows": 0}, "rows=0; at least 1"),
        ({"x": spheres()[:1]}, r"\(1, 6\); wanted are vectors"),
        ({"x": np.full((9, 6), np.nan, np.float32)}, "NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            layers.fit_layers(model, **{"params": {}, "x": spheres(), "key": KEY} | given)
