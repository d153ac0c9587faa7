"""The InfoVAE: its MMD by a double loop, and the losses that it has as limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import check_weights, wide

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.info_vae import HParams, info_vae, info_vae_loss
from aejax.methods.vae import VAE, terms, vae_loss
from aejax.nets import init_params
from aejax.schedules import Ramp

KEY = jax.random.key(0)
MODEL = VAE.dense(5, 3, hidden_dims=(), likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
PARAMS = init_params(MODEL, KEY, X)


def mmd_by_hand(z, drawn):
    """All pairs in float64 under exp(-|a - b|^2 / Z^2), those of a point with itself left out."""
    kernel = lambda a, b: np.exp(-np.mean(np.square(a - b)) / len(a))  # as the authors write it
    n = len(z)
    within = sum(kernel(s[i], s[j]) for s in (z, drawn) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within - 2 * np.mean([kernel(a, b) for a in z for b in drawn])


def test_the_loss_by_hand():
    draw_key, prior_key = jax.random.split(KEY)
    loss, found = info_vae_loss(PARAMS, Batch(X), KEY, model=MODEL, alpha=0.25, scale=8.0)
    each = terms(MODEL, PARAMS, Batch(X), draw_key)
    mmd = mmd_by_hand(np.float64(each.z), np.float64(jax.random.normal(prior_key, (6, 3))))
    np.testing.assert_allclose(found["mmd_code_sq"], mmd, rtol=1e-4)
    recon, kl = np.float64(each.recon).mean(), np.float64(each.kl).mean()
    np.testing.assert_allclose(loss, recon + 0.75 * kl + 7.25 * mmd, rtol=1e-5)


def test_its_limits_are_the_vae_the_beta_vae_and_the_mmd_vae():
    draw_key, _ = jax.random.split(KEY)
    at = lambda alpha, scale: info_vae_loss(
        PARAMS, Batch(X), jax.random.clone(KEY), model=MODEL, alpha=alpha, scale=scale
    )
    for beta in (1.0, 4.0):
        expected, _ = vae_loss(PARAMS, Batch(X), jax.random.clone(draw_key), model=MODEL, beta=beta)
        np.testing.assert_allclose(at(1 - beta, beta)[0], expected, rtol=1e-6)
    loss, found = at(1.0, 50.0)
    np.testing.assert_allclose(loss, found["recon_nats"] + 50 * found["mmd_code_sq"], rtol=1e-6)


def test_every_weight_weighs_its_part_and_no_other():
    """Alpha takes from the KL what it gives to the MMD."""
    with jax.enable_x64(True):
        loss = lambda p, **knobs: info_vae_loss(p, Batch(jnp.float64(X)), KEY, model=MODEL, **knobs)
        weighed = {
            "alpha": lambda terms: terms["mmd_code_sq"] - terms["kl_nats"],
            "scale": lambda terms: terms["mmd_code_sq"],
        }
        check_weights(loss, wide(PARAMS), {"alpha": 0.4, "scale": 20.0}, weighed)


def test_over_devices_the_mmd_is_that_of_all_rows():
    keys = jax.random.split(KEY)
    shards = X.reshape(2, 3, 5)
    loss = lambda rows, key: info_vae_loss(PARAMS, Batch(rows), key, model=MODEL, axis_name="shards")[1]
    found = jax.vmap(loss, axis_name="shards")(shards, keys)["mmd_code_sq"]
    parts = [jax.random.split(key) for key in keys]
    z = [terms(MODEL, PARAMS, Batch(rows), part[0]).z for rows, part in zip(shards, parts, strict=True)]
    drawn = [jax.random.normal(part[1], (3, 3)) for part in parts]
    np.testing.assert_allclose(
        found, 2 * [mmd_by_hand(*(np.float64(np.concatenate(v)) for v in (z, drawn)))], rtol=1e-4
    )


def test_what_cannot_be_is_refused_and_the_advice_ends_well():
    with pytest.raises(InputError, match="above 1 the KL would be rewarded"):
        info_vae(MODEL, alpha=1.5)
    with pytest.raises(InputError, match=r"alpha is 0\.2 and scale 0\.5.*a scale of 1 - alpha or more"):
        info_vae(MODEL, HParams(alpha=0.2, scale=0.5))
    with pytest.raises(InputError, match="a scale of 1 - alpha"):
        info_vae(MODEL, alpha=Ramp(-3.0, 1.0, 100), scale=2.0)
    info_vae(MODEL, alpha=-3.0, scale=4.0)
    with pytest.raises(InputError, match="at least 2"):
        info_vae_loss(PARAMS, Batch(X[:1]), KEY, model=MODEL)
