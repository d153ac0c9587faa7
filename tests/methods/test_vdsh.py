"""VDSH against its equation in float64 NumPy, with the code that was drawn, and against the VAE that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Weighted
from aejax.methods.mult_dae import dropped
from aejax.methods.mult_vae import mult_vae_loss
from aejax.methods.vae import VAE
from aejax.methods.vdsh import VDSH, vdsh, vdsh_loss
from aejax.nets import init_params

N, D, H, Z = 5, 6, 4, 2
RNG = np.random.default_rng(0)
X, OTHER = RNG.random((N, D)), RNG.random((N, D))
MODEL = VDSH.dense(D, Z, hidden_dims=(H,), likelihood=Weighted())


def drawn():
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0), jnp.ones((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)


def test_the_decoder_is_linear_and_the_encoder_rectified_and_the_target_may_be_another():
    params, key = drawn(), jax.random.key(2)
    assert {*params["decoder"]} == {"dense_0"}
    drop_key, z_key = jax.random.split(key)
    with jax.enable_x64(True):
        loss, terms = vdsh_loss(
            params, Batch(jnp.asarray(X), jnp.asarray(OTHER)), key, model=MODEL, beta=0.3, dropout=0.4
        )
        h = np.asarray(dropped(drop_key, jnp.asarray(X), 0.4))
        noise = np.asarray(jax.random.normal(z_key, (N, Z), float))
    first, second = params["encoder"]["dense_0"], params["encoder"]["dense_1"]
    h = np.maximum(h @ first["kernel"] + first["bias"], 0)
    mean, logvar = np.split(h @ second["kernel"] + second["bias"], 2, axis=1)
    z = mean + np.exp(logvar / 2) * noise
    log_p = log_softmax(z @ params["decoder"]["dense_0"]["kernel"] + params["decoder"]["dense_0"]["bias"], axis=1)
    recon = -(OTHER * log_p).sum(axis=1).mean()
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(axis=1).mean()
    expected = np.exp(log_p) * OTHER.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, recon + 0.3 * kl, rtol=1e-12)
    np.testing.assert_allclose(terms["recon_nats"], recon, rtol=1e-12)
    np.testing.assert_allclose(terms["kl_nats"], kl, rtol=1e-12)
    np.testing.assert_allclose(terms["bound_nats"], recon + kl, rtol=1e-12)
    np.testing.assert_allclose(terms["sse"], ((expected - OTHER) ** 2).sum(axis=1).mean(), rtol=1e-12)


def test_of_its_own_words_it_is_the_variational_autoencoder_of_events():
    params, key, x = jax.tree.map(np.float32, drawn()), jax.random.key(0), jnp.asarray(np.float32(X))
    ours = vdsh_loss(params, Batch(x), key, model=MODEL, beta=0.5, dropout=0.25)
    other = mult_vae_loss(params, Batch(x), key, model=MODEL, beta=0.5, dropout=0.25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, other)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="VDSH takes multinomial alone"):
        vdsh(VDSH.dense(D, Z, likelihood="bernoulli"))
    with pytest.raises(InputError, match="A VDSH is needed"):
        vdsh(VAE.dense(D, Z, likelihood="multinomial"))
    with pytest.raises(InputError, match="dropout is 1; it has to be below 1"):
        vdsh(MODEL, dropout=1)
    with pytest.raises(InputError, match="Labels are not used"):
        vdsh(MODEL).check(Batch(np.float32(X), np.zeros(N, np.int32)))
