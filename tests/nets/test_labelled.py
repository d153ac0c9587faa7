"""What a network is told stands behind its input, and costs the product with its own rows of the kernel alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.nets import MLP, Labelled

KEY = jax.random.key(0)


class Joined(nn.Module):
    """The definition: one array, one product."""

    net: nn.Module
    num_classes: int

    def __call__(self, x, y):
        return self.net(jnp.concatenate([x, jax.nn.one_hot(y, self.num_classes)], axis=-1))


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_same_parameters_and_the_same_function(use_bias):
    net = MLP((7, 3), jnp.tanh, None, use_bias)
    x, y = jax.random.normal(KEY, (5, 6)), jnp.array([0, 3, 1, 1, 9])  # the last one is no class
    told, joined = Labelled(net, 4), Joined(net, 4)
    variables, others = (each.init(KEY, x, y) for each in (told, joined))
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    assert variables["params"]["net"]["dense_0"]["kernel"].shape == (10, 7)
    loss = lambda module: jax.value_and_grad(lambda v: jnp.square(module.apply(v, x, y)).sum())(variables)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, loss(told), loss(joined))


def test_numbers_of_every_pixel_are_told_to_a_dense_network_of_pixels():
    net, x, y = MLP((2,)), jax.random.normal(KEY, (2, 3, 3, 4)), jnp.array([2, 0])
    variables = Labelled(net, 3).init(KEY, x, y)
    layer = jax.tree.map(np.float64, variables["params"]["net"]["dense_0"])
    pixels = np.concatenate([x, np.broadcast_to(np.eye(3)[np.array(y)][:, None, None], (2, 3, 3, 3))], axis=-1)
    np.testing.assert_allclose(
        Labelled(net, 3).apply(variables, x, y), pixels @ layer["kernel"] + layer["bias"], rtol=1e-5, atol=1e-5
    )


def test_an_image_seen_as_every_class_is_multiplied_once():
    """Ten classes: x W for all of them, and its gradient, in place of ten."""
    batch, size, width, classes = 40, 600, 50, 10
    x, y = jnp.ones((batch, size)), jnp.arange(classes)
    flops = {}
    for name, module in (("told", Labelled), ("joined", Joined)):
        net = module(MLP((width,)), classes)
        variables = net.init(KEY, x, jnp.zeros(batch, jnp.int32))

        def loss(variables, net=net):
            of = jax.vmap(lambda y: net.apply(variables, x, jnp.full(batch, y)))
            return jnp.square(of(y)).sum()

        flops[name] = jax.jit(jax.grad(loss)).lower(variables).compile().cost_analysis()["flops"]
    once = 2 * 2 * batch * size * width  # forwards, and for the kernel's gradient
    assert flops["joined"] > classes * once
    assert once < flops["told"] < 1.5 * once
