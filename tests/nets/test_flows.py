"""Flows: volume changes against determinants of exact Jacobians, inverses, steps by hand, the identity at the start."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.nets import Autoregressive, Couplings

FLOWS = {
    "autoregressive": Autoregressive(3, (5, 4), nn.tanh),
    "couplings": Couplings(3, (5, 4), nn.tanh),
}
every_flow = pytest.mark.parametrize("name", FLOWS)


def drawn(flow, *arrays):
    """Parameters far from the start, in the type of the arrays."""
    shapes = jax.eval_shape(flow.init, jax.random.key(0), *arrays)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), arrays[0].dtype), shapes)


def numbers(*shape, dtype=None, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@every_flow
def test_the_volume_change_is_the_determinant_and_the_inverse_is_one(name):
    flow = FLOWS[name]
    with jax.enable_x64(True):
        u, context = numbers(4, 5), numbers(4, 3, seed=2)
        params = drawn(flow, u, context)

        @jax.jit
        def results(u, context):
            z, log_det = flow.apply(params, u, context)
            jacobians = jax.vmap(jax.jacfwd(lambda u, c: flow.apply(params, u, c)[0]))(u, context)
            return z, log_det, jacobians, flow.apply(params, z, context, method="inverse")

        z, log_det, jacobians, (back, log_det_back) = results(u, context)
    signs, expected = np.linalg.slogdet(jacobians)
    assert (signs == 1).all()
    np.testing.assert_allclose(log_det, expected, rtol=1e-10)
    np.testing.assert_allclose(back, u, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -expected, rtol=1e-7)
    assert np.abs(z - u).min() > 1e-3  # they do move, each example and each component
    assert np.ptp(log_det) > 0.01


def test_the_order_of_the_components_turns_between_steps():
    """One step has a lower triangular Jacobian, two have a full one."""
    u = numbers(4)
    for steps, is_full in ((1, False), (2, True)):
        flow = Autoregressive(steps, (6,), nn.tanh)
        params = drawn(flow, u)
        of_u = lambda u, flow=flow, params=params: flow.apply(params, u)[0]
        jacobian = np.asarray(jax.jit(jax.jacfwd(of_u))(u))
        assert (jacobian[np.tril_indices(4)] != 0).all()
        assert (jacobian[np.triu_indices(4, 1)] != 0).all() == is_full


def test_a_linear_step_by_hand():
    """Network a_i = sum_j<i w_ji u_j + b_i: z = shift + exp(2 tanh(log-scale / 2)) u."""
    flow, u = Autoregressive(1, ()), np.array([0.5, -2.0], np.float32)
    kernel = np.arange(8, dtype=np.float32).reshape(2, 4) / 4  # its columns: shift and log-scale of each component
    bias = np.array([1.0, 0.2, 3.0, -0.4], np.float32)
    z, log_det = flow.apply({"params": {"steps_0": {"dense_0": {"kernel": kernel, "bias": bias}}}}, u)
    shift = np.array([1.0, 3.0 + kernel[0, 2] * 0.5])
    log_scale = 2 * np.tanh(np.array([0.2, -0.4 + kernel[0, 3] * 0.5]) / 2)
    np.testing.assert_allclose(z, shift + np.exp(log_scale) * u, rtol=1e-6)
    np.testing.assert_allclose(log_det, log_scale.sum(), rtol=1e-6)


def test_a_coupling_keeps_every_second_component_and_the_next_the_others():
    u = numbers(3, 5)
    for steps, kept in ((1, [True, False, True, False, True]), (2, [False] * 5)):
        flow = Couplings(steps, (6,))
        z, _ = flow.apply(drawn(flow, u), u)
        np.testing.assert_array_equal((np.asarray(z) == np.asarray(u)).all(axis=0), kept)
    with pytest.raises(InputError, match="at least 2 numbers"):
        Couplings().init(jax.random.key(0), jnp.ones((1, 1)))


@pytest.mark.first(1)
@every_flow
def test_a_flow_starts_as_the_identity_and_every_last_layer_has_a_gradient(name):
    flow, (u, context) = FLOWS[name], (numbers(6, 4), numbers(6, 3, seed=2))

    @jax.jit
    def results(key):
        target = lambda p: sum(jnp.sum(v) for v in flow.apply(p, jnp.square(u) + 1, context))
        (start, params) = flow.init_with_output(key, u, context)
        return start, jax.grad(target)(params)["params"]

    (z, log_det), grads = results(jax.random.key(0))
    np.testing.assert_array_equal(z, u)
    np.testing.assert_array_equal(log_det, np.zeros(6))
    for step in grads.values():
        last = max((layer for layer in step if layer.startswith("dense")), key=lambda layer: int(layer[6:]))
        assert (step[last]["bias"] != 0).all()
        assert (step[last]["kernel"] != 0).any()  # not where the layers before it were zero too


@pytest.mark.first(1)
@every_flow
def test_values_and_gradients_are_finite_whatever_the_networks_return(name):
    flow, u = FLOWS[name], numbers(2, 4)
    params = drawn(flow, u)

    @jax.jit
    def results(size):
        shifted = jax.tree.map(lambda leaf: leaf + size, params)
        total = lambda method, p, u: sum(jnp.sum(jnp.tanh(v)) for v in flow.apply(p, u, method=method))
        return [jax.value_and_grad(partial(total, method), (0, 1))(shifted, u) for method in ("__call__", "inverse")]

    for size in (-1e4, 1e4):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results(size)))
