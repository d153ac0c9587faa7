"""Mult-VAE against its equations in float64 NumPy, with the code that was drawn, and against the VAE that it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call, collapse
from aejax.methods.mult_dae import dropped, unit
from aejax.methods.mult_vae import MultVAE, mult_vae, mult_vae_loss
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params
from aejax.schedules import Ramp

N, D, H, Z = 5, 6, 4, 2
X = np.random.default_rng(0).poisson(1.0, (N, D)).astype(np.float64)
MODEL = MultVAE.dense(D, Z, hidden_dims=(H,))


def drawn():
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0), jnp.ones((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)


def layer(group, i, h):
    return h @ group[f"dense_{i}"]["kernel"] + group[f"dense_{i}"]["bias"]


def test_the_terms_are_those_of_the_equations_at_what_was_drawn():
    params, key, rate = drawn(), jax.random.key(2), 0.4
    drop_key, z_key = jax.random.split(key)
    with jax.enable_x64(True):
        loss, terms = mult_vae_loss(params, Batch(jnp.asarray(X)), key, model=MODEL, beta=0.2, dropout=rate)
        h = np.asarray(dropped(drop_key, jnp.asarray(X), rate))
        noise = np.asarray(jax.random.normal(z_key, (N, Z), float))
    mean, logvar = np.split(layer(params["encoder"], 1, np.tanh(layer(params["encoder"], 0, h))), 2, axis=1)
    z = mean + np.exp(logvar / 2) * noise
    log_p = log_softmax(layer(params["decoder"], 1, np.tanh(layer(params["decoder"], 0, z))), axis=1)
    recon = -(X * log_p).sum(axis=1).mean()
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(axis=1).mean()
    np.testing.assert_allclose(terms["recon_nats"], recon, rtol=1e-12)
    np.testing.assert_allclose(terms["kl_nats"], kl, rtol=1e-12)
    np.testing.assert_allclose(terms["bound_nats"], recon + kl, rtol=1e-12)
    np.testing.assert_allclose(loss, recon + 0.2 * kl, rtol=1e-12)


def test_without_dropout_it_is_the_vae_whose_encoder_sees_rows_of_length_1():
    """To the noise: both losses as means over many draws, at rows that are of length 1, and so no counts."""
    params, keys = jax.tree.map(np.float32, drawn()), jax.random.split(jax.random.key(0), 4000)
    x = unit(jnp.asarray(np.float32(X)))
    plain = VAE(encoder=MODEL.encoder, decoder=MODEL.decoder, latent_dim=Z, likelihood="multinomial")
    own = jax.jit(jax.vmap(lambda key: mult_vae_loss(params, Batch(x), key, model=MODEL, beta=1.0, dropout=0.0)[0]))
    other = jax.jit(jax.vmap(lambda key: vae_loss(params, Batch(x), key, model=plain)[0]))
    a, b = np.asarray(own(keys)), np.asarray(other(jax.random.split(jax.random.key(1), 4000)))
    assert a.std() > 0.01
    assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt((a.var() + b.var()) / 4000)


def test_annealing_counts_steps_of_the_run_and_evaluation_has_the_end_of_it():
    algo = mult_vae(MODEL, beta=Ramp(0.0, 0.2, 4))
    state, batch = algo.init(jax.tree.map(np.float32, drawn())), Batch(jnp.asarray(np.float32(X)))
    step = jax.jit(algo.step)
    for beta in (0.0, 0.05, 0.1, 0.15, 0.2, 0.2):
        state, metrics = step(state, batch, jax.random.key(0))
        weighed = metrics["elbo/recon_nats"] + beta * metrics["elbo/kl_nats"]
        np.testing.assert_allclose(metrics["elbo/loss"], weighed, rtol=1e-6)
    final = algo.evaluate(algo.init(state.params), batch, jax.random.key(0))
    weighed = final["elbo/recon_nats"] + 0.2 * final["elbo/kl_nats"]
    np.testing.assert_allclose(final["elbo/loss"], weighed, rtol=1e-6)


def test_whether_it_has_collapsed_is_told_by_shares():
    """Events of which there are hundreds: draws of the prior vary as the shares do, and not by the total."""
    rng, params = np.random.default_rng(3), jax.tree.map(np.float32, drawn())
    z = rng.normal(size=(300, Z)).astype(np.float32)
    shares = np.asarray(call(MODEL, params, "generate", z), np.float64)
    totals = rng.integers(200, 400, 300)
    x = np.stack([rng.multinomial(n, p / p.sum()) for n, p in zip(totals, shares, strict=True)]).astype(np.float32)
    np.testing.assert_allclose(
        call(MODEL, params, "generate", z, np.float32(totals)), shares * totals[:, None], rtol=1e-5
    )
    found = collapse(MODEL, params, x, jax.random.key(0)).numbers
    assert 0.6 < found["sample_variance"] < 1.3
    assert shares.var(axis=0).sum() > 1e-3


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="MultVAE takes multinomial alone"):
        mult_vae(MultVAE.dense(D, Z, likelihood="bernoulli"))
    with pytest.raises(InputError, match="dropout is 1; it has to be below 1"):
        mult_vae(MODEL, dropout=1)
    with pytest.raises(InputError, match="MultDAE or a MultVAE is needed"):
        mult_vae(VAE.dense(D, Z, likelihood="multinomial"))
