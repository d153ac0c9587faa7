"""Gated convolutions of two stacks: who sees whom by exact Jacobians, draws one by one, and what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.likelihoods import Bernoulli
from aejax.nets import pixels
from aejax.nets.pixels import GatedPixels, PixelHead

KEY = jax.random.key(0)


def drawn(module, *arrays, dtype=float):
    """Parameters, zero nowhere."""
    shapes = jax.eval_shape(module.init, KEY, *arrays)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), dtype), shapes)


def open_relus(params):
    """So that no relu hides what is seen."""
    own = params["params"]
    last = max(name for name in own if name.startswith("layers"))
    own[last]["last"]["bias"] += 10.0
    own["last"]["bias"] += 100.0
    return params


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("shape", "features", "kernel_size"),
    [
        ((4, 5, 1), (6, 6, 5, 6), 3),  # four columns to the right take four layers of one
        ((3, 3, 3), (6, 7), 3),
        ((2, 3, 2), (3,), 5),
        ((3, 4, 1), (4, 4), 5),
        ((1, 5, 2), (4, 4), 7),
        ((5, 1, 1), (4, 4), 5),
    ],
)
def test_each_component_sees_all_before_it_and_neither_itself_nor_what_follows(shape, features, kernel_size):
    net, head = GatedPixels(shape[2], 4, features, kernel_size), PixelHead(shape[2], 2)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=shape))
        params = open_relus(drawn(net, x[None]))
        of_head = drawn(head, net.apply(params, x[None]))
        outputs = lambda x: head.apply(of_head, net.apply(params, x[None])).reshape(-1, 2, shape[2])
        jacobian = np.asarray(jax.jit(jax.jacfwd(outputs))(x))  # [H W, 2, C, H, W, C]
    size = x.size
    seen = np.moveaxis(jacobian, 1, 0).reshape(2, size, size) != 0
    np.testing.assert_array_equal(seen, np.broadcast_to(np.tril(np.ones((size, size), bool), -1), seen.shape))


def test_a_shallow_stack_sees_as_far_as_its_kernels_reach():
    net = GatedPixels(1, 2, (3, 3), 3)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(7, 9, 1)))
        params = open_relus(drawn(net, x[None]))
        jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: net.apply(params, x[None])[0, 5, 4]))(x))[..., 0]
    rows, columns = np.nonzero(np.abs(jacobian).sum(axis=0))
    assert (rows.min(), rows.max()) == (3, 5)
    assert (columns.min(), columns.max()) == (2, 6)
    assert columns[rows == 5].tolist() == [2, 3]


def test_the_context_of_a_place_reaches_it_and_what_is_below_and_beside():
    net = GatedPixels(1, 2, (3, 3, 3, 3), 3, context_dim=2)
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        x, context = jnp.asarray(rng.normal(size=(1, 3, 4, 1))), jnp.asarray(rng.normal(size=(1, 3, 4, 2)))
        params = open_relus(drawn(net, x, context))
        jacobian = np.asarray(jax.jit(jax.jacfwd(lambda c: net.apply(params, x, c)))(context))
    seen = np.abs(jacobian).sum(axis=(0, 3, 4, 7)).reshape(12, 12) != 0
    assert np.diag(seen).all()
    assert seen[4:, 0].all()  # the first place, by all rows below


@pytest.mark.parametrize("num_context", [0, 2])
def test_slices_and_lax_and_chunks_are_one_network(num_context):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.random((300, 6, 5, 2)), jnp.float32)  # several chunks
    context = [jnp.asarray(rng.random((300, 6, 5, num_context)), jnp.float32)] if num_context else []
    make = lambda kind: GatedPixels(2, 4, (4, 6), 3, num_context, kind)
    params = drawn(make("slices"), x, *context, dtype=jnp.float32)
    both = [jax.jit(make(kind).apply)(params, x, *context) for kind in ("slices", "lax")]
    np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_is_even_and_a_layer_too_narrow_are_refused_and_the_advice_helps():
    x, made = jnp.zeros((1, 4, 4, 3)), lambda net, x: jax.eval_shape(net.init, KEY, x)
    with pytest.raises(InputError, match=r"kernel_size=4; .* an odd kernel of at least 3"):
        made(GatedPixels(3, 6, (6,), 4), x)
    with pytest.raises(InputError, match="2 features for 3 channels; give at least one to each"):
        made(GatedPixels(3, 6, (2,), 3), x)
    with pytest.raises(InputError, match=r"\[B, H, W, 3\]` are needed; what came has the shape \(1, 4, 4, 1\)"):
        made(GatedPixels(3, 6, (3,), 3), x[..., :1])
    made(GatedPixels(3, 3, (3,), 3), x)


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_drawing_with_what_is_kept_costs_a_twentieth_at_most():
    """By the compiler's count, which takes the body of a loop once; an image of 8x8 is 8 rows of 8 places."""
    net, head, n = GatedPixels(1, 8, (8, 8, 8), 5), PixelHead(1, 1), 10
    x = jnp.zeros((n, 8, 8, 1))
    own = net.init(KEY, x)
    of_head = head.init(KEY, jnp.zeros((n, 8)))
    emit = lambda key, z: Bernoulli().sample(key, head.apply(of_head, z))
    a_pass = flops(lambda x: head.apply(of_head, net.apply(own, x)), x)
    above, keys = pixels.blank(net, x.shape), jax.random.split(KEY, (8, 1))
    a_row = flops(lambda *a: pixels.draw_row(net, own, emit, *a), above, keys, jnp.zeros((n, 8, 0)))
    before, across = tuple(level[:, :, 0] for level in above), [jnp.zeros((n, 16))] * 3
    a_place = flops(lambda *a: pixels.draw_place(net, own, emit, *a), before, keys[0], across)
    assert 8 * (a_row + 7 * a_place) < 64 * a_pass / 20
    assert a_row > 8 * n * 2 * 2 * (3 * 5 * 8 * 16)  # the vertical kernels of two layers at least: all is counted
