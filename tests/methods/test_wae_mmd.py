"""WAE-MMD: the loss by hand, and an evaluation that is the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import ae_loss
from aejax.methods.wae_mmd import WAE, wae_mmd, wae_mmd_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = WAE.dense(12, 2, hidden_dims=(), likelihood="gaussian")


@pytest.fixture(scope="module")
def data():
    return Batch(np.random.default_rng(0).normal(size=(41, 12)).astype(np.float32))


@pytest.fixture(scope="module")
def params(data):
    return init_params(MODEL, KEY, data.x)


def mmd_by_hand(z, drawn):
    """Algorithm 2 of the paper in float64, its kernel summed over seven scales."""

    def kernel(a, b):
        gaps = np.square(a[:, None] - b[None]).sum(axis=-1)
        return sum(scale * 4.0 / (scale * 4.0 + gaps) for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10))  # C = 2 Z sigma^2 = 4

    n, off = len(z), ~np.eye(len(z), dtype=bool)
    within = (kernel(z, z)[off].sum() + kernel(drawn, drawn)[off].sum()) / (n * (n - 1))
    return within - 2 * kernel(z, drawn).mean()


def test_the_loss_by_hand(data, params):
    loss, terms = wae_mmd_loss(params, data, KEY, model=MODEL, mmd_weight=3.0)
    z = np.asarray(MODEL.apply({"params": params}, data.x, method="embed"), np.float64)
    mmd = mmd_by_hand(z, np.asarray(jax.random.normal(KEY, z.shape), np.float64))
    recon, plain = ae_loss(params, data, KEY, model=MODEL)
    assert float(terms["mmd_sq"]) == pytest.approx(mmd, rel=1e-4)
    assert float(loss) == pytest.approx(float(recon) + 3 * mmd, rel=1e-5)
    assert float(terms["sse"]) == pytest.approx(float(plain["sse"]), rel=1e-6)


@pytest.mark.slow
def test_the_evaluation_of_a_split_is_the_loss_that_training_sees_on_it(data, params):
    algo = wae_mmd(MODEL)
    found = training.evaluate(algo, algo.init(params), data, KEY, batch_size=100)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), 0)  # batch, step and phase
    loss, terms = wae_mmd_loss(params, data, key, model=MODEL)
    assert found["recon/loss"] == pytest.approx(float(loss), rel=1e-6)
    assert found["recon/mmd_sq"] == pytest.approx(float(terms["mmd_sq"]), rel=1e-5)
    alone = training.evaluate(algo, algo.init(params), data, KEY, batch_size=20)  # 41 examples: 20 and 21
    assert np.isfinite(alone["recon/loss"])


def test_it_samples_from_its_prior(params):
    drawn = MODEL.apply({"params": params}, KEY, 5, method="sample")
    z = jax.random.normal(KEY, (5, 2))
    np.testing.assert_allclose(drawn, MODEL.apply({"params": params}, z, method="decode"), rtol=1e-6)


def test_knobs_by_name_and_what_is_refused(data):
    assert wae_mmd(MODEL, mmd_weight=2.0) is wae_mmd(MODEL, mmd_weight=2.0)
    with pytest.raises(InputError, match="mmd_weight"):
        wae_mmd(MODEL, mmd_weight=-1.0)
    algo = wae_mmd(WAE.dense(12, 2))
    with pytest.raises(InputError, match="bernoulli"):
        training.evaluate(algo, algo.init(init_params(WAE.dense(12, 2), KEY, jnp.ones((2, 12)))), data, KEY)
