"""The plain autoencoder: numbers by hand, finite differences, and PCA."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, HParams, ae, ae_loss
from aejax.nets import init_params
from aejax.schedules import cosine

KEY = jax.random.key(0)


def _linear(data_dim, latent_dim, **kwargs):
    return AE.dense(data_dim, latent_dim, hidden_dims=(), likelihood="gaussian", **kwargs)


def test_hand_derived_losses():
    # All weights one, biases zero: x = (1, 0) has the code 1, and the output (1, 1) misses it by 1.
    params = {
        "encoder": {"dense_0": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}},
        "decoder": {"dense_0": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}},
    }
    batch = Batch(jnp.array([[1.0, 0.0]]))
    with jax.numpy_dtype_promotion("strict"):
        loss, metrics = ae_loss(params, batch, KEY, model=_linear(2, 1))
    np.testing.assert_allclose(loss, 0.5 + math.log(2 * math.pi), rtol=1e-6)
    np.testing.assert_allclose(metrics["sse"], 1.0)
    # As logits: log(1 + e^-1) for the pixel that is on, log(1 + e) for the other; probabilities 1 / (1 + e^-1).
    loss, metrics = ae_loss(params, batch, KEY, model=AE.dense(2, 1, hidden_dims=()))
    np.testing.assert_allclose(loss, math.log1p(math.exp(-1)) + math.log1p(math.e), rtol=1e-6)
    p = 1 / (1 + math.exp(-1))
    np.testing.assert_allclose(metrics["sse"], (1 - p) ** 2 + p**2, rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "model", [AE.dense(6, 2, hidden_dims=(5,), tied=True), AE.conv((4, 5, 1), 2, features=(3,), strides=(2,))]
)
def test_the_loss_is_a_mean_over_examples(model):
    shape = (6,) if model.encoder.__class__.__name__ == "MLP" else (4, 5, 1)
    x = jax.random.uniform(KEY, (3, *shape))
    params = init_params(model, jax.random.key(1), x)
    singles = [ae_loss(params, Batch(row[None]), KEY, model=model)[0] for row in x]
    np.testing.assert_allclose(ae_loss(params, Batch(x), KEY, model=model)[0], np.mean(singles), rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_tied_gradients_against_finite_differences(likelihood):
    model = AE.dense(4, 2, hidden_dims=(3,), activation=jnp.tanh, tied=True, likelihood=likelihood)
    with jax.enable_x64(True):
        x = jax.random.uniform(KEY, (3, 4), jnp.float64)
        params = jax.tree.map(lambda v: v.astype(jnp.float64), init_params(model, jax.random.key(1), x))
        check_grads(lambda p: ae_loss(p, Batch(x), KEY, model=model)[0], (params,), order=1, modes=["rev"], rtol=1e-7)


@pytest.mark.first(1)
@pytest.mark.parametrize(("use_bias", "tied"), [(True, False), (False, False), (False, True)])
def test_a_linear_autoencoder_is_pca(digits, use_bias, tied):
    # Baldi & Hornik (1989): the minimum is the PCA residual, its decoder spans the principal subspace. With biases
    # that is the subspace of the centred data.
    k, batch_size, num_epochs = 4, 256, 300
    offset = digits.mean(axis=0) * use_bias
    _, singular, directions = np.linalg.svd((digits - offset).astype(np.float64), full_matrices=False)
    residual = np.square(singular[k:]).sum() / len(digits)

    num_steps = num_epochs * (len(digits) // batch_size)
    model = _linear(64, k, use_bias=use_bias, tied=tied)  # the last has a decoder without parameters
    algo = ae(model, HParams(lr=0.02), tx=lambda lr: optax.adam(cosine(lr, num_steps)))
    data = Batch(jnp.asarray(digits))
    train = jax.jit(
        lambda state: training.fit(algo, state, data, jax.random.key(1), batch_size=batch_size, num_epochs=num_epochs)
    )
    state, _ = train(algo.init(init_params(model, KEY, data.x)))
    sse = training.evaluate(algo, state, data, KEY, batch_size=1797)["recon/sse"]
    assert residual * (1 - 1e-5) < sse < residual * 1.001
    kernel = np.asarray(state.params["encoder" if tied else "decoder"]["dense_0"]["kernel"], np.float64)
    basis, _ = np.linalg.qr(kernel if tied else kernel.T)
    cosines = np.linalg.svd(directions[:k] @ basis, compute_uv=False)
    assert np.degrees(np.arccos(min(cosines.min(), 1.0))) < 1.0


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="lr is 0"):
        ae(_linear(2, 1), HParams(lr=0.0))


def test_fit_looks_at_the_data_that_a_trace_holds():
    algo, data = ae(_linear(2, 1)), Batch(jnp.array([[0.0, jnp.nan], [1.0, 2.0]]))
    state = algo.init(init_params(_linear(2, 1), KEY, np.zeros((1, 2), np.float32)))
    fit = jax.jit(lambda state: training.fit(algo, state, data, KEY, batch_size=1, num_epochs=1))
    with pytest.raises(InputError, match="NaN or infinity"):
        fit(state)
