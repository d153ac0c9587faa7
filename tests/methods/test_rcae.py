"""The reconstruction-contractive autoencoder: what small noise does to a denoising one, and the Wiener filter."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quadrature import expectation, setup, with_noise

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae_loss
from aejax.methods.dae import dae_loss
from aejax.methods.rcae import HParams, rcae, rcae_loss
from aejax.nets import init_params
from aejax.schedules import cosine

KEY = jax.random.key(0)


def _denoising(model, params, batch, sigma):
    """The expected loss of the denoising autoencoder, in nats."""
    loss = lambda e: with_noise(dae_loss)(e, params, batch, KEY, model=model, level=sigma)[0]
    return expectation(loss, batch.x.shape[1])


def _contractive(model, params, batch, sigma):
    return rcae_loss(params, batch, KEY, model=model, contraction=sigma**2 / 2)[0]


def test_affine_ones_are_denoising_ones_of_any_noise():
    model = AE.dense(3, 2, hidden_dims=(), likelihood="gaussian")
    with jax.enable_x64(True):
        params, batch = setup(model, (4, 3), jnp.float64)
        for sigma in (0.1, 2.0):
            denoising, contractive = (f(model, params, batch, sigma) for f in (_denoising, _contractive))
            np.testing.assert_allclose(denoising, contractive, rtol=1e-12)


def test_others_differ_by_the_laplacian_and_then_by_the_fourth_power_of_the_noise():
    model = AE.dense(2, 2, hidden_dims=(4,), activation=nn.tanh, likelihood="gaussian")
    with jax.enable_x64(True):
        params, batch = setup(model, (3, 2), jnp.float64)
        reconstruct = lambda row: model.bind({"params": params}).reconstruct(row[None])[0]
        laplacian = jax.vmap(lambda row: jnp.trace(jax.hessian(reconstruct)(row), axis1=1, axis2=2))(batch.x)
        second = float(jnp.sum((jax.vmap(reconstruct)(batch.x) - batch.x) * laplacian, axis=1).mean() / 2)
        sigmas = np.array([0.05, 0.025, 0.0125])
        gap = jax.jit(lambda s: _denoising(model, params, batch, s) - _contractive(model, params, batch, s))
        gaps = [float(gap(sigma)) for sigma in sigmas]
    rest = gaps - second * sigmas**2
    np.testing.assert_allclose(np.log2(rest[:-1] / rest[1:]), 4.0, atol=0.1)
    assert abs(rest[-1]) < 0.05 * abs(gaps[-1])


def test_a_narrow_linear_one_learns_the_truncated_wiener_filter():
    """As the denoising one with sigma 0.5 does: in the eigenbasis a gain of lambda / (lambda + sigma^2)."""
    mix = np.array([[0.6, 0.3, 0, 0.1], [0, 0.5, 0.2, 0], [0, 0, 0.4, -0.2], [0.1, 0, 0, 0.3]])
    x = (np.random.default_rng(0).normal(size=(512, 4)) @ mix + [0.4, 0.5, 0.6, 0.3]).astype(np.float32)
    model = AE.dense(4, 2, hidden_dims=(), likelihood="gaussian")
    algo = rcae(model, HParams(lr=0.03, contraction=0.125), lambda lr: optax.adam(cosine(lr, 1500)))
    data, state = Batch(jnp.asarray(x)), algo.init(init_params(model, jax.random.key(1), x))
    state, _ = jax.jit(lambda state: training.fit(algo, state, data, KEY, batch_size=512, num_epochs=1500))(state)
    reconstruct = model.bind({"params": state.params}).reconstruct
    found = np.asarray(reconstruct(jnp.eye(4)) - reconstruct(jnp.zeros((1, 4))), np.float64)
    eigenvalues, basis = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True))
    gains = eigenvalues / (eigenvalues + 0.25)
    wiener = (basis[:, 2:] * gains[2:]) @ basis[:, 2:].T
    assert np.linalg.norm(found - wiener) < 1e-3 * np.linalg.norm(wiener)


def test_the_penalty_is_in_data_space():
    # Weights one: both logits are x_1 + x_2 = 0, both probabilities 1/2 of slope 1/4, the Jacobian 1/4 four times.
    model = AE.dense(2, 1, hidden_dims=(), use_bias=False)
    params = jax.tree.map(jnp.ones_like, setup(model, (1, 2))[0])
    with jax.numpy_dtype_promotion("strict"):
        loss, metrics = rcae_loss(params, Batch(jnp.array([[1.0, -1.0]])), KEY, model=model, contraction=jnp.float32(3))
    np.testing.assert_allclose(metrics["reconstruction_jacobian_sq"], 4 / 16, rtol=1e-6)
    np.testing.assert_allclose(loss, metrics["recon_nats"] + 3 / 4, rtol=1e-6)


def test_without_contraction_it_is_the_plain_autoencoder():
    model = AE.dense(6, 3, hidden_dims=(5,))
    params, batch = setup(model, (4, 6))
    loss, metrics = rcae_loss(params, batch, KEY, model=model, contraction=0.0)
    del metrics["reconstruction_jacobian_sq"]
    plain = ae_loss(params, batch, KEY, model=model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (loss, metrics), plain)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="contraction is -1"):
        rcae(AE.dense(6, 4), HParams(contraction=-1.0))
