"""The regularised linear autoencoder: its minimum is known in closed form, directions and scales."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae, ae_loss
from aejax.methods.ae import HParams as PlainHParams
from aejax.methods.ae_l2 import HParams, ae_l2, ae_l2_loss, principal_directions
from aejax.nets import init_params
from aejax.schedules import cosine

KEY = jax.random.key(0)
DECAY = 0.1


@pytest.fixture(scope="module")
def data():
    """`[500, 6]` with a mean that is not zero, and its exact eigenvectors and eigenvalues, descending."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = (rng.normal(size=(500, 6)) * [2.0, 1.5, 1.1, 0.7, 0.4, 0.3]) @ basis.T + rng.normal(size=6)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    return x, vectors[:, ::-1], values[::-1]


def _minimum(x, vectors, values, k):
    """From the singular values that the derivative of `v (1 - s^2)^2 / 2 + 2 DECAY s^2` asks for."""
    scales = np.sqrt(1 - 2 * DECAY / values[:k])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(k, k)))[0]  # any basis of the code
    kernel = vectors[:, :k] * scales @ turn
    return kernel, -x.mean(0) @ kernel


def test_the_gradient_vanishes_at_the_closed_form_and_nowhere_near_is_less(data):
    x, vectors, values = data
    kernel, offset = _minimum(x, vectors, values, 3)
    with jax.enable_x64(True):
        model = AE.dense(6, 3, hidden_dims=(), likelihood="gaussian")
        layers = (kernel, offset), (kernel.T, x.mean(0))
        params = {
            group: {"dense_0": {"kernel": jnp.asarray(weights), "bias": jnp.asarray(bias)}}
            for group, (weights, bias) in zip(("encoder", "decoder"), layers, strict=True)
        }
        loss = lambda params: ae_l2_loss(params, Batch(jnp.asarray(x)), KEY, model=model, weight_decay=DECAY)[0]
        grads = jax.grad(loss)(params)
        for leaf in jax.tree.leaves(grads):
            np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-13)
        # v (1 - s^2)^2 / 2 + 2 DECAY s^2 at the minimum is 2 DECAY - 2 DECAY^2 / v; what is dropped costs v / 2.
        expected = (2 * DECAY - 2 * DECAY**2 / values[:3]).sum() + values[3:].sum() / 2 + 3 * np.log(2 * np.pi)
        np.testing.assert_allclose(loss(params), expected, rtol=1e-13)
        for key in jax.random.split(KEY, 50):
            noise = jax.tree.map(lambda v, key=key: v + 0.1 * jax.random.normal(key, v.shape, v.dtype), params)
            assert loss(noise) > loss(params)
        directions, variances = principal_directions(params, weight_decay=DECAY)
    np.testing.assert_allclose(np.abs((directions * vectors[:, :3]).sum(0)), np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(variances, values[:3], rtol=1e-10)


def _train(build, x, tied, *, num_epochs=1500):
    model = AE.dense(6, 3, hidden_dims=(), likelihood="gaussian", tied=tied)
    algo = build(model, lambda lr: optax.adam(cosine(lr, num_epochs)))
    batch = Batch(jnp.asarray(x, jnp.float32))
    fit = jax.jit(lambda s: training.fit(algo, s, batch, KEY, batch_size=len(x), num_epochs=num_epochs))
    return fit(algo.init(init_params(model, jax.random.key(1), batch.x)))[0].params


def _angles(directions, vectors):
    """Of each direction with its own, in degrees."""
    cosines = np.abs((directions * vectors[:, : directions.shape[1]]).sum(0))
    return np.degrees(np.arccos(np.clip(cosines, 0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_training_finds_the_directions_which_the_plain_one_does_not(data, tied):
    x, vectors, values = data
    params = _train(lambda model, tx: ae_l2(model, HParams(0.03, DECAY), tx), x, tied)
    directions, variances = principal_directions(params, weight_decay=DECAY)
    assert _angles(directions, vectors).max() < 1
    np.testing.assert_allclose(variances, values[:3], rtol=0.01)
    plain = _train(lambda model, tx: ae(model, PlainHParams(0.03), tx), x, tied)
    weights = np.asarray(plain["encoder" if tied else "decoder"]["dense_0"]["kernel"], np.float64)
    directions = np.linalg.svd(weights if tied else weights.T, full_matrices=False)[0]
    within = np.linalg.svd(vectors[:, :3].T @ directions)[1]  # cosines of the angles between the two subspaces
    assert np.degrees(np.arccos(np.clip(within.min(), 0, 1))) < 1
    assert _angles(directions, vectors).max() > 5


def _ones(model, x):
    return jax.tree.map(lambda v: jnp.ones(v.shape), jax.eval_shape(model.init, KEY, x)["params"])


@pytest.mark.parametrize("shared", [{"hidden_dims": (4,)}, {"hidden_dims": (4,), "tied": True}])
def test_every_kernel_counts_and_no_bias_does(shared):
    model = AE.dense(6, 2, **shared)
    x = jax.random.uniform(KEY, (3, 6))
    params = _ones(model, x)
    loss, metrics = ae_l2_loss(params, Batch(x), KEY, model=model, weight_decay=0.5)
    assert metrics["weights_sq"] == 2 * (6 * 4 + 4 * 2)  # ones, each way, whether they are one array or two
    plain, _ = ae_loss(params, Batch(x), KEY, model=model)
    np.testing.assert_allclose(loss, plain + 0.5 * metrics["weights_sq"], rtol=1e-6)


def test_convolutions_have_kernels_too():
    model = AE.conv((4, 4, 1), 2, features=(3,), strides=(2,))
    x = jax.random.uniform(KEY, (2, 4, 4, 1))
    params = _ones(model, x)
    sizes = [v.size for v in jax.tree.leaves(params) if v.ndim > 1]  # biases are vectors
    _, metrics = ae_l2_loss(params, Batch(x), KEY, model=model)
    assert metrics["weights_sq"] == sum(sizes)


def test_weights_of_equinox_are_weights():
    import equinox as eqx

    from aejax.nets import from_equinox

    one_way = lambda a, b: from_equinox(eqx.nn.Linear, a, b)
    model = AE(one_way(6, 2), one_way(2, 6), 2, likelihood="gaussian")
    kernel = np.diag([0.9, 0.8, 0, 0, 0, 0])[:2].astype(np.float32)  # [Z, D]
    nets = {"encoder": kernel, "decoder": kernel.T}
    params = {name: {"net": {"weight": w, "bias": np.ones(len(w), np.float32)}} for name, w in nets.items()}
    x = jnp.ones((3, 6))
    assert jax.tree.map(np.shape, init_params(model, KEY, x)) == jax.tree.map(np.shape, params)
    _, metrics = ae_l2_loss(params, Batch(x), KEY, model=model)
    np.testing.assert_allclose(metrics["weights_sq"], 2 * (0.81 + 0.64), rtol=1e-6)
    directions, variances = principal_directions(params, weight_decay=0.1)
    np.testing.assert_allclose(np.abs(directions), np.eye(6)[:, :2], atol=1e-7)
    np.testing.assert_allclose(variances, [0.2 / 0.19, 0.2 / 0.36], rtol=1e-6)


class Own(nn.Module):
    """A layer of one's own: a matrix and a scale, both of them called weight."""

    width: int

    @nn.compact
    def __call__(self, x):
        scaled = nn.LayerNorm(name="norm")(x) * Scale(x.shape[-1])()
        return scaled @ self.param("weight", nn.initializers.lecun_normal(), (x.shape[-1], self.width))


class Scale(nn.Module):
    width: int

    @nn.compact
    def __call__(self):
        return self.param("weight", nn.initializers.ones, (self.width,))[None]


def test_weights_of_a_layer_of_ones_own_are_read_as_they_stand():
    model = AE(Own(2), Own(6), 2, likelihood="gaussian")
    kernel = np.diag([0.9, 0.8, 0, 0, 0, 0])[:2].astype(np.float32)  # [Z, D], which is what the decoder multiplies by
    params = init_params(model, KEY, jax.random.normal(KEY, (3, 6)))
    for name, matrix in (("encoder", kernel.T), ("decoder", kernel)):
        params[name] = params[name] | {"weight": jnp.asarray(matrix)}
    _, metrics = ae_l2_loss(params, Batch(jnp.ones((3, 6))), KEY, model=model)
    np.testing.assert_allclose(metrics["weights_sq"], 2 * (0.81 + 0.64), rtol=1e-6)
    directions, _ = principal_directions(params, weight_decay=0.1)
    np.testing.assert_allclose(np.abs(directions), np.eye(6)[:, :2], atol=1e-7)


def test_what_cannot_be_read_is_refused_and_what_is_lost_reads_as_the_bound():
    model = AE.dense(6, 2, hidden_dims=(), likelihood="gaussian")
    params = init_params(model, KEY, jnp.zeros((1, 6)))
    with pytest.raises(InputError, match=r"weight_decay is 0"):
        principal_directions(params, weight_decay=0.0)
    deep = init_params(AE.dense(6, 2, hidden_dims=(4,)), KEY, jnp.zeros((1, 6)))
    with pytest.raises(InputError, match="has 4 kernels"):
        principal_directions(deep, weight_decay=0.1)
    params["decoder"]["dense_0"]["kernel"] = jnp.zeros((2, 6)).at[0, 3].set(2.0)
    directions, variances = principal_directions(params, weight_decay=0.1)
    assert variances.tolist() == [np.inf, 0.2]
    assert abs(directions[3, 0]) == 1
    with pytest.raises(InputError, match="weight_decay is -1"):
        ae_l2(model, HParams(weight_decay=-1.0))
