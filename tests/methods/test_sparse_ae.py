"""The sparse autoencoder: the divergence against SciPy, the loss by hand, and the rate that training arrives at."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit
from scipy.stats import entropy

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import ae_loss
from aejax.methods.sparse_ae import HParams, SparseAE, rate_kl, sparse_ae, sparse_ae_loss
from aejax.nets import init_params

KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_the_divergence_is_scipys(rate):
    rates = np.random.default_rng(0).uniform(0.01, 0.99, size=20).astype(np.float32)
    expected = sum(entropy([rate, 1 - rate], [r, 1 - r]) for r in rates.astype(np.float64))
    np.testing.assert_allclose(rate_kl(jnp.asarray(rates), rate), expected, rtol=1e-5)


def test_the_divergence_and_its_gradient_are_finite_where_units_never_and_always_fire():
    value, slope = jax.value_and_grad(rate_kl)(jnp.array([0.0, 1.0, 0.1]), 0.1)
    eps = float(np.finfo(np.float32).eps)
    expected = sum(entropy([0.1, 0.9], [r, 1 - r]) for r in (eps, 1 - eps))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, np.zeros(3), atol=1e-5)


def test_the_loss_by_hand():
    """Lee et al. (2008), by its formula in float64: half the squared error, and beta times the divergences."""
    model = SparseAE.dense(6, 4, likelihood="gaussian")
    x = jax.random.uniform(KEY, (5, 6))
    params = init_params(model, jax.random.key(1), x)
    loss, metrics = sparse_ae_loss(params, Batch(x), KEY, model=model, sparsity=3.0, rate=0.2, weight_decay=0.0)
    (w, b), (v, c) = (
        (np.float64(params[group]["dense_0"]["kernel"]), np.float64(params[group]["dense_0"]["bias"]))
        for group in ("encoder", "decoder")
    )
    z = expit(np.float64(x) @ w + b)
    sse = np.square(z @ v + c - np.float64(x)).sum(axis=1).mean()
    kl = sum(entropy([0.2, 0.8], [r, 1 - r]) for r in z.mean(axis=0))
    np.testing.assert_allclose(metrics["sse"], sse, rtol=1e-5)
    np.testing.assert_allclose(metrics["sparsity"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["mean_rate"], z.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss - metrics["recon_nats"], 3.0 * kl, rtol=1e-4)
    loss, metrics = sparse_ae_loss(params, Batch(x), KEY, model=model, sparsity=0.5, weight_decay=0.0, penalty="l1")
    np.testing.assert_allclose(metrics["sparsity"], z.sum(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(loss - metrics["recon_nats"], 0.5 * z.sum(axis=1).mean(), rtol=1e-4)
    decayed, metrics = sparse_ae_loss(params, Batch(x), KEY, model=model, sparsity=0.0, weight_decay=0.7)
    squares = np.square(w).sum() + np.square(v).sum()
    np.testing.assert_allclose(decayed - metrics["recon_nats"], 0.7 * squares, rtol=1e-5)
    np.testing.assert_allclose(metrics["weights_sq"], squares, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["kl", "l1"])
def test_the_gradient_is_that_of_finite_differences(penalty):
    with jax.enable_x64(True):
        model = SparseAE.dense(5, 3)
        x = jax.random.uniform(KEY, (4, 5), jnp.float64)
        params = jax.tree.map(lambda v: v.astype(jnp.float64), init_params(model, jax.random.key(1), x))
        loss = lambda params: sparse_ae_loss(params, Batch(x), KEY, model=model, penalty=penalty)[0]
        jax.test_util.check_grads(loss, (params,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_without_a_weight_it_is_the_plain_autoencoder():
    model = SparseAE.dense(6, 4)
    x = jax.random.uniform(KEY, (5, 6))
    params = init_params(model, jax.random.key(1), x)
    loss, metrics = sparse_ae_loss(params, Batch(x), KEY, model=model, sparsity=0.0, weight_decay=0.0)
    plain, terms = ae_loss(params, Batch(x), KEY, model=model)
    np.testing.assert_array_equal(loss, plain)
    np.testing.assert_array_equal(metrics["sse"], terms["sse"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_heavy_weight_brings_every_unit_to_its_rate(kind, digits):
    x = jnp.asarray(digits[:64])
    model = SparseAE.dense(64, 6)
    if kind == "conv":
        x, model = x.reshape(-1, 8, 8, 1), SparseAE.conv((8, 8, 1), 6, features=(4,), strides=(2,))
    algo = sparse_ae(model, HParams(lr=0.03, sparsity=300.0, rate=0.15))
    state = algo.init(init_params(model, KEY, x))
    state, _ = jax.jit(lambda s: training.fit(algo, s, Batch(x), KEY, batch_size=64, num_epochs=400))(state)
    rates = model.apply({"params": state.params}, x, method="embed").mean(axis=0)
    np.testing.assert_allclose(rates, np.full(6, 0.15), rtol=0.02)


@pytest.mark.slow
def test_the_rates_are_those_of_all_devices_and_so_is_their_gradient():
    """Two shards: the penalty is that of both together, and not the mean of their penalties; the step likewise."""
    model = SparseAE.dense(6, 4)
    x = jax.random.uniform(KEY, (8, 6)) * jnp.repeat(jnp.array([0.1, 4.0]), 4)[:, None]
    params = init_params(model, jax.random.key(1), x)
    knobs = HParams(lr=0.1, sparsity=30.0)
    whole = sparse_ae(model, knobs, optax.sgd)
    mapped = sparse_ae(model, knobs, optax.sgd, axis_name="shards")
    state, metrics = jax.jit(whole.step)(whole.init(params), Batch(x), KEY)
    step = jax.pmap(mapped.step, "shards", in_axes=(None, 0, None), out_axes=None, devices=jax.devices()[:2])
    found = step(mapped.init(params), Batch(x.reshape(2, 4, 6)), KEY)
    jax.tree.map(lambda f, w: np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-6), found, (state, metrics))
    apart = [sparse_ae_loss(params, Batch(half), KEY, model=model)[1]["sparsity"] for half in (x[:4], x[4:])]
    assert np.mean(apart) > 1.01 * metrics["recon/sparsity"]


def test_what_cannot_be_is_refused():
    model = SparseAE.dense(6, 4)
    with pytest.raises(InputError, match="Did you mean 'l1'"):
        sparse_ae(model, penalty="l2")
    with pytest.raises(InputError, match=r"rate is 1\.5"):
        sparse_ae(model, HParams(rate=1.5))
    with pytest.raises(InputError, match="sparsity is -1"):
        sparse_ae(model, HParams(sparsity=-1.0))
    with pytest.raises(InputError, match="sigmoid"):
        sparse_ae(SparseAE.dense(6, 4, code_activation=nn.relu))
    sparse_ae(SparseAE.dense(6, 4, code_activation=nn.relu), penalty="l1")
