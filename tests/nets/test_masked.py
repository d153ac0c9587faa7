"""Masked networks: who sees whom, by exact Jacobians, and a layer by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.nets import MaskedDense, MaskedMLP
from aejax.nets.masked import hidden_degrees, mask


def drawn(module, *arrays):
    """Parameters in float64, zero nowhere."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *arrays)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)


@pytest.mark.first(6)
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("hidden_dims", [(), (5,), (7, 4, 11)])
def test_each_output_sees_all_components_before_its_own_and_the_context_and_nothing_else(size, hidden_dims):
    net = MaskedMLP(hidden_dims, 2, nn.tanh)
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x, context = jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.normal(size=3))
        params = drawn(net, x, context)
        by_x, by_context = jax.jit(jax.jacfwd(lambda x, c: net.apply(params, x, c), (0, 1)))(x, context)
    before = np.tril(np.ones((size, size), bool), -1)
    for k in range(2):
        np.testing.assert_array_equal(np.asarray(by_x)[:, k] != 0, before)
    assert (np.asarray(by_context) != 0).all()


def test_a_narrow_layer_spreads_its_degrees_and_keeps_the_order():
    assert hidden_degrees(9, 2) == (3, 7)
    net = MaskedMLP((2, 3), 1, nn.tanh)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=9))
        params = drawn(net, x)
        jacobian = jax.jit(jax.jacfwd(lambda x: net.apply(params, x)[:, 0]))(x)
    seen = np.asarray(jacobian) != 0
    assert not np.triu(seen).any()
    # Units of degrees 3 and 7 see 4 and 8 inputs, those of degrees 2, 5 and 7 behind them none, 4 and 8.
    assert [row.sum() for row in seen] == [0, 0, 0, 0, 0, 0, 4, 4, 8]


def test_a_masked_layer_by_hand():
    layer = MaskedDense((0, 2, 1), (1, 2))
    kernel, bias = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32), np.array([0.5, -0.5], np.float32)
    x = np.array([[1.0, 10.0, 100.0]], np.float32)
    found = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_array_equal(found, [[1 + 500 + 0.5, 2 + 40 + 600 - 0.5]])
    assert mask((0, 2, 1), (1, 2), strict=True).tolist() == [[True, True], [False, False], [False, True]]


def test_two_layers_by_hand_with_their_context():
    """z = tanh(W0 x + U0 c + b0), y = W1 z + U1 c + b1, one hidden unit of degree 0 between two components."""
    net = MaskedMLP((1,), 1, nn.tanh)
    p = {
        "dense_0": {"kernel": [[2.0], [7.0]], "bias": [0.3]},
        "context_0": {"kernel": [[0.5]]},
        "dense_1": {"kernel": [[7.0, 3.0]], "bias": [0.1, 0.2]},
        "context_1": {"kernel": [[-1.0, 4.0]]},
    }
    p = jax.tree.map(lambda v: np.array(v, np.float32), p, is_leaf=lambda v: isinstance(v, list))
    found = net.apply({"params": p}, np.array([0.4, 9.0], np.float32), np.array([0.6], np.float32))
    hidden = np.tanh(2 * 0.4 + 0.5 * 0.6 + 0.3)
    np.testing.assert_allclose(found[:, 0], [-0.6 + 0.1, 3 * hidden + 4 * 0.6 + 0.2], rtol=1e-6)


@pytest.mark.slow
def test_an_output_that_shall_start_at_zero_does_and_another_does_not():
    x, context = jnp.ones((2, 4)), jnp.ones((2, 3))
    for zero in (True, False):
        net = MaskedMLP((6,), 2, zero_output=zero)
        found = jax.jit(lambda net=net: net.init_with_output(jax.random.key(0), x, context)[0])()
        assert bool((found == 0).all()) == zero


def test_levels_that_are_names_are_seen_one_by_one():
    """By numpy: of two components of three names the second output is a row of weights for each name of the first."""
    net = MaskedMLP((), 2, levels=3)
    x = np.array([[0, 0], [0.5, 1], [1, 0.5]], np.float32)
    params = drawn(net, x)
    kernel, bias = (np.asarray(params["params"]["dense_0"][name], np.float64) for name in ("kernel", "bias"))
    names = np.array([0, 1, 2])
    by_hand = np.stack([np.broadcast_to(bias[:2], (3, 2)), kernel[names, 2:] + bias[2:]], axis=1)
    np.testing.assert_allclose(net.apply(params, x), by_hand, rtol=1e-5)


def test_of_names_too_each_output_sees_those_before_it_alone():
    net = MaskedMLP((12, 9), 4, nn.tanh, levels=5)
    x = np.array([[0.25, 0.5, 1.0]], np.float32)
    params = drawn(net, x)
    before = np.asarray(net.apply(params, x))
    for i in range(3):
        other = x.copy()
        other[0, i] = 0.75
        changed = (np.asarray(net.apply(params, other)) != before).all(axis=2)[0]
        np.testing.assert_array_equal(changed, np.arange(3) > i)
