"""Dense networks against NumPy, and what sharing weights does to their gradient."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.nets import MLP, TiedMLP

KEY = jax.random.key(0)


class Pair(nn.Module):
    """An encoder and the decoder that ties to it."""

    encoder: MLP
    decoder: TiedMLP

    def __call__(self, x):
        return self.decoder(self.encoder(x))


def pair(features, **fields):
    encoder = MLP(features, **fields)
    return Pair(encoder, TiedMLP(encoder, **fields))


def test_by_hand():
    # All weights one: 1 + 2 - 4 = -1, which ReLU stops; with the bias 3 it is 2, twice, and their sum 4, less 5.
    layer = {"kernel": jnp.ones((3, 2)), "bias": jnp.array([3.0, 3.0])}
    last = {"kernel": jnp.ones((2, 1)), "bias": jnp.array([-5.0])}
    params = {"params": {"dense_0": layer, "dense_1": last}}
    x = jnp.array([[1.0, 2.0, -4.0]])
    assert MLP((2, 1)).apply(params, x) == -1.0  # no activation behind the last layer,
    assert MLP((2, 1), final_activation=jnp.square).apply(params, x) == 1.0  # unless it is asked for


@pytest.mark.parametrize("use_bias", [True, False])
def test_against_numpy(use_bias):
    rng = np.random.default_rng(0)
    widths = (5, 4, 3, 2)
    kernels = [rng.normal(size=shape) for shape in itertools.pairwise(widths)]
    biases = [rng.normal(size=width) * use_bias for width in widths[1:]]
    x = rng.normal(size=(7, 5))
    layers = [{"kernel": k, "bias": b} if use_bias else {"kernel": k} for k, b in zip(kernels, biases, strict=True)]
    with jax.enable_x64(True):
        params = {f"dense_{i}": jax.tree.map(jnp.asarray, layer) for i, layer in enumerate(layers)}
        y = MLP(widths[1:], jnp.tanh, use_bias=use_bias).apply({"params": params}, jnp.asarray(x))
    expected = np.tanh(np.tanh(x @ kernels[0] + biases[0]) @ kernels[1] + biases[1]) @ kernels[2] + biases[2]
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_the_tied_decoder_is_the_transpose_with_biases_of_its_own():
    rng = np.random.default_rng(0)
    w0, w1, b1, b0 = (rng.normal(size=shape) for shape in [(4, 3), (3, 2), (1, 3), (1, 4)])
    z = rng.normal(size=(5, 2))
    with jax.enable_x64(True):
        model = pair((3, 2), activation=jnp.tanh)
        variables = model.init(KEY, jnp.zeros((1, 4)))
        assert set(variables["params"]["decoder"]) == {"bias_0", "bias_1"}
        encoder = {"dense_0": {"kernel": w0, "bias": np.zeros(3)}, "dense_1": {"kernel": w1, "bias": np.zeros(2)}}
        params = jax.tree.map(jnp.asarray, {"encoder": encoder, "decoder": {"bias_0": b1, "bias_1": b0}})
        x_hat = model.apply({"params": params}, jnp.asarray(z), method=lambda m, z: m.decoder(z))
    np.testing.assert_allclose(x_hat, np.tanh(z @ w1.T + b1) @ w0.T + b0, rtol=1e-12)


def test_the_shared_weights_get_the_gradient_of_both_uses():
    # x W W': with r = x W W' - x, the loss |r|^2 / 2 has the gradient x' r W by its first use and r' x W by its second.
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(6, 4)), rng.normal(size=(4, 2))
    with jax.enable_x64(True):
        model = pair((2,), use_bias=False)
        params = {"encoder": {"dense_0": {"kernel": jnp.asarray(w)}}}
        assert jax.tree.structure(model.init(KEY, jnp.asarray(x))["params"]) == jax.tree.structure(params)
        gradient = jax.grad(lambda p: 0.5 * jnp.square(model.apply({"params": p}, x) - x).sum())(params)
    r = x @ w @ w.T - x
    np.testing.assert_allclose(gradient["encoder"]["dense_0"]["kernel"], x.T @ r @ w + r.T @ x @ w, rtol=1e-11)
