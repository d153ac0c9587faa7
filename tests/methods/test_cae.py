"""The contractive autoencoder: its loss by hand and in every mode, and what its penalty costs."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aejax import jacobian
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import ae_loss
from aejax.methods.cae import CAE, HParams, cae, cae_loss
from aejax.nets import TiedMLP, init_params

KEY = jax.random.key(0)


def _setup(model, dtype=jnp.float32, shape=(3, 6)):
    x = jax.random.uniform(KEY, shape, dtype)
    params = init_params(model, jax.random.key(1), x.astype(jnp.float32))
    return jax.tree.map(lambda v: v.astype(dtype), params), Batch(x)


def test_as_published_it_is_one_tied_layer_of_sigmoids():
    # All weights one, encoder bias -1, x = (1, 0): the code is sigmoid(0) = 1/2, its slope 1/4, so the penalty is
    # 2 / 16, and the logits are 1/2 for both pixels.
    model = CAE.dense(2, 1)
    params, _ = _setup(model, shape=(1, 2))
    assert jax.tree.map(jnp.shape, params) == {
        "encoder": {"dense_0": {"kernel": (2, 1), "bias": (1,)}},
        "decoder": {"bias_0": (1, 2)},
    }
    params["encoder"]["dense_0"] = {"kernel": jnp.ones((2, 1)), "bias": -jnp.ones(1)}
    batch = Batch(jnp.array([[1.0, 0.0]]))
    with jax.numpy_dtype_promotion("strict"):
        loss, metrics = cae_loss(params, batch, KEY, model=model, contraction=jnp.float32(3))
    recon = math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))
    np.testing.assert_allclose(metrics["jacobian_sq"], 1 / 8, rtol=1e-6)
    np.testing.assert_allclose(metrics["recon_nats"], recon, rtol=1e-6)
    np.testing.assert_allclose(loss, recon + 3 / 8, rtol=1e-6)


def test_deep_ones_are_tied_sigmoids_too():
    model = CAE.dense(6, 2, hidden_dims=(5, 4))
    assert isinstance(model.decoder, TiedMLP)
    assert (model.encoder.features, model.encoder.activation) == ((5, 4, 2), nn.sigmoid)
    assert model.encoder.final_activation is nn.sigmoid


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("model", "mode"), [(CAE.dense(6, 4), "auto"), (CAE.dense(6, 2, hidden_dims=(5,), tied=False), "forward")]
)
def test_without_contraction_it_is_the_plain_autoencoder(model, mode):
    params, batch = _setup(model)
    contractive = jax.value_and_grad(cae_loss, has_aux=True)(
        params, batch, KEY, model=model, contraction=0.0, jacobian=mode
    )
    plain = jax.value_and_grad(ae_loss, has_aux=True)(params, batch, KEY, model=model)
    del contractive[0][1]["jacobian_sq"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), contractive, plain)


def test_lambda_against_squared_error_is_twice_the_contraction():
    model = CAE.dense(6, 4, likelihood="gaussian")
    params, batch = _setup(model)
    loss, metrics = cae_loss(params, batch, KEY, model=model, contraction=0.35)
    published = metrics["sse"] + 0.7 * metrics["jacobian_sq"]
    np.testing.assert_allclose(loss, published / 2 + 3 * math.log(2 * math.pi), rtol=1e-6)


def test_gradients_against_finite_differences():
    model = CAE.dense(5, 3)
    with jax.enable_x64(True):
        params, batch = _setup(model, jnp.float64, (3, 5))
        loss = lambda p: cae_loss(p, batch, KEY, model=model, contraction=2.0)[0]
        check_grads(loss, (params,), order=1, modes=["rev"], rtol=1e-7)


@pytest.mark.slow
def test_the_modes_agree_in_loss_and_gradient():
    model = CAE.dense(6, 4)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params, batch = _setup(model, jnp.float64)
        found = {
            mode: jax.value_and_grad(cae_loss, has_aux=True)(params, batch, KEY, model=model, jacobian=mode)
            for mode in jacobian.MODES
        }
    for mode in ("reverse", "auto"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found[mode], found["forward"])


def test_the_published_penalty_is_nearly_free():
    """At the published size a gradient of the CAE takes 1.02 times the operations of that of the plain one."""
    model = CAE.dense(784, 1000)
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 784)))["params"]
    batch = Batch(jax.ShapeDtypeStruct((20, 784), jnp.float32))

    def flops(loss):
        gradient = jax.grad(lambda params, batch: loss(params, batch, KEY, model=model)[0])
        return jax.jit(gradient).lower(params, batch).compile().cost_analysis()["flops"]

    assert flops(cae_loss) < 1.05 * flops(ae_loss)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="contraction is -1"):
        cae(CAE.dense(6, 4), HParams(contraction=-1.0))
    with pytest.raises(InputError, match="Did you mean 'reverse'"):
        cae(CAE.dense(6, 4), jacobian="revers")
    with pytest.raises(InputError, match="Did you mean 'hutchinson'"):
        cae_loss(*_setup(CAE.dense(6, 4)), KEY, model=CAE.dense(6, 4), jacobian="hutchinso")
    with pytest.raises(InputError, match="for the exact modes"):
        cae(CAE.dense(6, 4), jacobian="hutchinson", memory_limit=1000)


def test_one_probe_is_right_on_average():
    """Ten thousand keys: loss and gradient within four standard errors of the exact ones, in each of 55 numbers.

    All would be with probability 0.996 if they were independent.
    """
    model = CAE.dense(6, 4)
    params, batch = _setup(model)

    def gradient(key, jacobian):
        (_, metrics), grads = jax.value_and_grad(cae_loss, has_aux=True)(
            params, batch, key, model=model, contraction=1.0, jacobian=jacobian
        )
        return jnp.concatenate([metrics["jacobian_sq"][None], *map(jnp.ravel, jax.tree.leaves(grads))])

    exact = gradient(KEY, "auto")
    draws = jax.jit(jax.vmap(lambda key: gradient(key, "hutchinson")))(jax.random.split(KEY, 10_000))
    draws = np.asarray(draws, np.float64)
    error = draws.std(axis=0) / 100
    assert (np.abs(draws.mean(axis=0) - exact) <= 4 * error + 1e-5).all()
    assert (error > 0).sum() > exact.size / 2  # it is noise that averages out


@pytest.mark.slow
def test_a_limit_on_memory_changes_no_number():
    model = CAE.dense(64, 8, hidden_dims=(32,))
    params, _ = _setup(model, shape=(32, 64))
    batch = Batch(jax.random.uniform(KEY, (32, 64)))
    run = jax.jit(
        jax.grad(lambda params, limit: cae_loss(params, batch, KEY, model=model, memory_limit=limit)[0]),
        static_argnums=1,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), run(params, 200_000), run(params, None)
    )
