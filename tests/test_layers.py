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
from aejax.methods.vae import VAE

KEY = jax.random.key(0)


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
    found = layers.fit_layers(model, x, KEY, sweeps=0)
    assert found.sse == ()
    left = np.linalg.eigvalsh(np.cov(x.T, bias=True))[:-2].sum()
    np.testing.assert_allclose(evaluation.reconstruction_sse(model, found.params, x), left, rtol=1e-4)


def test_errors_fall_and_are_those_of_the_model():
    x = curve()
    model = AE.dense(5, 1, hidden_dims=(16,), activation=jnp.tanh, likelihood="gaussian")
    seen = {}
    found = layers.fit_layers(
        model,
        x,
        KEY,
        sweeps=20,
        say=lambda n, params: seen.update({n: evaluation.reconstruction_sse(model, params, x)}),
    )
    np.testing.assert_allclose(found.sse, [seen[n] for n in range(20)], rtol=1e-4)
    errors = np.array([seen[n] for n in range(21)])
    assert (np.diff(errors) <= 1e-4 * errors[:-1]).all()
    assert errors[-1] < 0.5 * errors[0]
    again = layers.fit_layers(model, 1024 * x, KEY, sweeps=2)
    np.testing.assert_allclose(again.sse, 1024**2 * np.array(found.sse[:2]), rtol=1e-6)
    few = layers.fit_layers(model, x, KEY, sweeps=2, rows=50)
    some = jax.random.choice(jax.random.fold_in(jax.random.split(KEY)[1], 0), 300, (50,), replace=False)
    start = layers.fit_layers(model, x, KEY, sweeps=0).params
    np.testing.assert_allclose(few.sse[0], evaluation.reconstruction_sse(model, start, x[np.asarray(some)]), rtol=1e-4)


def test_constant_columns_and_codes_wider_than_the_data():
    x = spheres()
    x[:, 1] = 3.0
    model = AE.dense(6, 7, hidden_dims=(20,), activation=jnp.tanh, likelihood="gaussian")
    found = layers.fit_layers(model, x, KEY, sweeps=5)
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
    found = layers.fit_layers(model, train, KEY, sweeps=20)
    assert evaluation.reconstruction_sse(model, found.params, test) < 1.2 * of_adam


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (AE.dense(6, 2), "the squared error: 'gaussian'"),
        (AE.dense(6, 2, tied=True, likelihood="gaussian"), "untied and with biases"),
        (AE.dense(6, 2, use_bias=False, likelihood="gaussian"), "untied and with biases"),
        (AE.conv((4, 4, 1), 2, features=(2,), strides=(1,), likelihood="gaussian"), "those of Autoencoder.dense"),
        (VAE.dense(6, 2, likelihood="gaussian"), "VAE returns more than a code; use AE.dense"),
    ],
)
def test_models_of_another_kind_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        layers.fit_layers(model, spheres(), KEY)


def test_what_else_is_refused():
    model = AE.dense(6, 2, activation=nn.tanh, likelihood="gaussian")
    for given, message in [
        ({"sweeps": -1}, "sweeps=-1; wanted is a number from 0 up"),
        ({"sweeps": 2.0}, "sweeps=2.0; wanted is a number from 0 up"),
        ({"rows": 0}, "rows=0; at least 1"),
        ({"x": spheres()[:1]}, r"\(1, 6\); wanted are vectors"),
        ({"x": np.full((9, 6), np.nan, np.float32)}, "NaN"),
    ]:
        with pytest.raises(InputError, match=message):
            layers.fit_layers(model, **{"x": spheres(), "key": KEY} | given)
