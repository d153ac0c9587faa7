"""IDEC: its loss is that of two others, weighted, and its weight is that of the paper in other units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import schedules, training
from aejax.data import Batch
from aejax.methods.ae import ae_loss
from aejax.methods.dec import DEC, dec, dec_loss
from aejax.methods.idec import idec, idec_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = DEC.dense(6, 2, hidden_dims=(5,), num_clusters=3, likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    started = dec(MODEL).start(init_params(MODEL, KEY, X), Batch(X), KEY)
    moved = jax.tree.map(lambda v: 1.2 * v + 0.05, {g: started[g] for g in ("encoder", "decoder", "centres")})
    return {**started, **moved}


def test_the_loss_is_that_of_the_autoencoder_plus_gamma_times_that_of_dec(params):
    loss, terms = idec_loss(params, Batch(X), KEY, model=MODEL, gamma=0.7)
    recon, kl = (of(params, Batch(X), KEY, model=MODEL)[0] for of in (ae_loss, dec_loss))
    assert float(loss) == pytest.approx(float(recon) + 0.7 * float(kl), rel=1e-6)
    assert float(terms["cluster_kl_nats"]) == pytest.approx(float(kl), rel=1e-6)
    assert float(kl) > 1e-3


def test_the_weights_of_paper_and_program_translate_as_it_says(params):
    """The gradient of `SSE + 0.1 KL`, and of the mean over 6 pixels, is that of our loss up to a factor."""
    batch = Batch(jnp.asarray(X))

    def published(params, pixels):
        x_hat = MODEL.apply({"params": params}, batch.x, method="reconstruct")
        squares = jnp.square(x_hat - batch.x).sum(axis=1).mean() / pixels
        return squares + 0.1 * dec_loss(params, batch, KEY, model=MODEL)[0]

    for pixels, gamma in ((1, 0.05), (6, 0.05 * 6)):
        theirs = jax.grad(published)(params, pixels)
        ours = jax.grad(lambda own, gamma=gamma: idec_loss(own, batch, KEY, model=MODEL, gamma=gamma)[0])(params)
        for group in ("encoder", "decoder", "centres"):
            close = lambda a, b, pixels=pixels: np.testing.assert_allclose(a, pixels / 2 * b, rtol=1e-3, atol=1e-6)
            jax.tree.map(close, ours[group], theirs[group])


def test_without_gamma_it_is_the_autoencoder_and_the_weight_may_be_a_schedule(params):
    def last(gamma):
        algo = idec(MODEL, gamma=gamma, refresh_every=2)
        chunks = training.train(algo, algo.init(params), Batch(X), KEY, batch_size=16, num_epochs=2)
        return list(chunks)[-1].state.params

    alone, ramped, whole = last(0.0), last(schedules.Ramp(0.0, 5.0, 4)), last(5.0)
    np.testing.assert_array_equal(alone["centres"], params["centres"])
    gap = lambda a: float(np.abs(a["centres"] - params["centres"]).max())
    assert 0 < gap(ramped) < gap(whole)
