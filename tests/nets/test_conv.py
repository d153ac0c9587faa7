"""Convolutions by hand, against `lax` and Flax, and through the transforms; networks of them on images of odd sizes."""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aejax import parallel
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae
from aejax.nets import Conv, ConvDecoder, ConvEncoder, ConvTranspose, has_convolution, init_params
from aejax.nets import conv as nets_conv
from aejax.nets.conv import conv, conv_transpose

KEY = jax.random.key(0)
on_both = pytest.mark.parametrize("implementation", ["slices", "lax"])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def row(*values):
    """`[1, 1, W, 1]`: an image of one row, or, without the first axis, the kernel `[1, KW, 1, 1]`."""
    return jnp.array(values, jnp.float32).reshape(1, 1, -1, 1)


def kernel(*values):
    return jnp.array(values, jnp.float32).reshape(1, -1, 1, 1)


# --- the numbers ------------------------------------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize(
    ("x", "stride", "expected"),
    [
        # The kernel (1, 2, 3) on 0 1 10 100 1000 0, say: 0 + 2 + 30, 1 + 20 + 300, 10 + 200 + 3000, 100 + 2000.
        ((1, 10, 100, 1000), 1, (32, 321, 3210, 2100)),
        # SAME pads an even row behind alone: (1 10 100) 1000, (100 1000 0).
        ((1, 10, 100, 1000), 2, (321, 2100)),
        # ... and an odd one on both sides: (0 1 10), (10 100 0).
        ((1, 10, 100), 2, (32, 210)),
    ],
)
def test_convolution_by_hand(implementation, x, stride, expected):
    np.testing.assert_array_equal(conv(row(*x), kernel(1, 2, 3), stride, implementation).ravel(), expected)


@on_both
@pytest.mark.parametrize(
    ("x", "size", "stride", "expected"),
    [
        # Each number leaves its multiples of the kernel (3, 2, 1), which add up where they meet.
        ((1, 10), 4, 2, (3, 2, 1 + 30, 20)),  # of the last stamp, the 10 is cut off
        ((1, 10), 3, 2, (2, 1 + 30, 20)),  # cut off on both sides
        ((1, 10, 100), 3, 1, (2 + 30, 1 + 20 + 300, 10 + 200)),  # likewise
    ],
)
def test_transposed_convolution_by_hand(implementation, x, size, stride, expected):
    # The kernel is given as (1, 2, 3), since Flax and lax turn it: a stamp of it reads (3, 2, 1).
    out = conv_transpose(row(*x), kernel(1, 2, 3), (1, size), stride, implementation)
    np.testing.assert_array_equal(out.ravel(), expected)


CASES = [  # (H, W), stride, (KH, KW), (C, F)
    ((7, 6), 1, (3, 3), (2, 3)),
    ((7, 6), 1, (3, 3), (3, 2)),
    ((8, 9), 2, (3, 3), (2, 3)),
    ((9, 8), 2, (3, 3), (3, 2)),
    ((6, 5), 1, (2, 4), (3, 2)),
    ((5, 8), 3, (2, 4), (2, 2)),
    ((1, 2), 2, (3, 3), (1, 2)),
    ((7, 9), 3, (1, 1), (2, 3)),
]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("size", "stride", "window", "channels", "precision"),
    [
        *(pytest.param(*case, 64, marks=[] if case in CASES[:3] else pytest.mark.slow) for case in CASES),
        *((*case, 32) for case in CASES[2:4]),
    ],
)
def test_slices_equal_lax_in_value_and_gradient(size, stride, window, channels, precision):
    def of_both(function, x, weights):
        def loss(x, weights, implementation):
            y = function(x, weights, implementation=implementation)
            return jnp.sin(y).sum(), y

        differentiated = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2)
        return [differentiated(x, weights, implementation) for implementation in ("slices", "lax")]

    small = [-(-n // stride) for n in size]
    with jax.enable_x64(precision == 64), jax.default_matmul_precision("highest"):
        weights = normal(1, *window, *channels)
        pairs = [
            of_both(partial(conv, stride=stride), normal(0, 2, *size, channels[0]), weights),
            of_both(partial(conv_transpose, size=size, stride=stride), normal(0, 2, *small, channels[0]), weights),
        ]
    tolerance = {32: 2e-5, 64: 1e-13}[precision]
    for slices, by_lax in pairs:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), slices, by_lax)


@pytest.mark.first(2)
@pytest.mark.parametrize(("size", "stride", "window", "channels"), CASES[2:6])
def test_with_the_kernel_turned_the_two_are_adjoint(size, stride, window, channels):
    with jax.enable_x64(True):
        x, weights = normal(0, 2, *size, channels[0]), normal(1, *window, *channels)
        y = jax.jit(conv, static_argnums=2)(x, weights, stride)
        turned = weights[::-1, ::-1].swapaxes(2, 3)
        back = jax.jit(conv_transpose, static_argnums=(2, 3))(y, turned, size, stride)
        there, back = jnp.vdot(y, y), jnp.vdot(x, back)
    np.testing.assert_allclose(there, back, rtol=1e-12)


@pytest.mark.first(2)
@on_both
@pytest.mark.parametrize("stride", [1, 2])
def test_the_parameters_and_numbers_of_flax(implementation, stride):
    x = normal(0, 2, 6, 8, 3)
    twins = [
        (Conv(4, stride, implementation=implementation), nn.Conv(4, (3, 3), stride), x),
        (
            ConvTranspose(4, (6 * stride, 8 * stride), stride, implementation=implementation),
            nn.ConvTranspose(4, (3, 3), (stride, stride)),
            x,
        ),
    ]
    for ours, flax, x in twins:
        variables = flax.init(KEY, x)
        jax.tree.map(np.testing.assert_array_equal, ours.init(KEY, x), variables)
        variables["params"]["bias"] = normal(2, 4)
        np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), rtol=1e-5, atol=1e-5)


# --- the transforms ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_derivatives_forward_reverse_and_of_a_jacobian():
    def network(x, first, second):
        return conv_transpose(jnp.tanh(conv(x, first, 2, "slices")), second, (2, 3), 2, "slices")

    def contraction(x, first, second):
        return jnp.square(jax.jacrev(network)(x, first, second)).sum()

    with jax.enable_x64(True):
        args = normal(0, 1, 2, 3, 1), normal(1, 3, 3, 1, 2), normal(2, 3, 3, 2, 1)
        forward, reverse = (jax.jit(mode(network, (0, 1, 2)))(*args) for mode in (jax.jacfwd, jax.jacrev))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), forward, reverse)
        check_grads(jax.jit(network), args, order=1, modes=["fwd"], rtol=1e-7)
        check_grads(jax.jit(contraction), args, order=1, modes=["rev"], rtol=1e-7)


def test_many_kernels_at_once_equal_one_at_a_time():
    gradient = jax.grad(lambda weights: jnp.sin(conv(x, weights, 2, "slices")).sum())
    with jax.enable_x64(True):
        x, many = (np.asarray(v, np.float64) for v in (normal(0, 2, 5, 6, 2), normal(1, 4, 3, 3, 2, 3)))
        singles = jnp.stack([*map(jax.jit(gradient), jnp.asarray(many))])
        np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(many), singles, rtol=1e-12, atol=1e-12)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("data_shape", "features", "strides"), [((7, 10, 3), (3, 4), (1, 2)), ((9, 5, 1), (2,), (3,))])
def test_a_network_on_slices_a_few_examples_at_a_time_equals_lax_at_once(data_shape, features, strides, monkeypatch):
    monkeypatch.setattr(nets_conv, "_CHUNK_PIXELS", 3 * data_shape[0] * data_shape[1])  # 7 examples: 3, 2 and 2

    def model(implementation):
        return AE(
            encoder=ConvEncoder(4, features, strides, implementation=implementation),
            decoder=ConvDecoder(data_shape, features, strides, implementation=implementation),
            latent_dim=4,
        )

    def loss(params, x, model):
        logits = model.apply({"params": params}, x)
        return jnp.sin(logits).sum(), logits

    with jax.enable_x64(True):
        x = normal(3, 7, *data_shape)
        params = init_params(model("lax"), KEY, x)
        differentiated = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2)
        slices, by_lax = (differentiated(params, x, model(implementation)) for implementation in ("slices", "lax"))
    assert slices[0][1].shape == (7, *data_shape)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), slices, by_lax)


def test_the_decoder_mirrors_the_encoder():
    params = jax.eval_shape(AE.conv((28, 28, 3), 10).init, KEY, jnp.zeros((1, 28, 28, 3)))["params"]
    kernels = {
        part: [params[part][f"conv_{i}"]["kernel"].shape[2:] for i in range(4)] for part in ("encoder", "decoder")
    }
    assert kernels["encoder"] == [(3, 32), (32, 64), (64, 64), (64, 64)]
    assert kernels["decoder"] == [(64, 64), (64, 64), (64, 32), (32, 3)]
    assert params["encoder"]["dense"]["kernel"].shape == (7 * 7 * 64, 10)


# --- how it is computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "found"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_a_step_holds_a_lax_convolution_except_on_cpu(backend, found, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = jnp.zeros((8, 6, 6, 1))
    latent_dim = {"cpu": 2, "gpu": 3, "tpu": 4}[backend]  # the loss is jitted: equal models would be traced once
    model = AE.conv((6, 6, 1), latent_dim, features=(3, 4), strides=(1, 2))
    algo, variables = ae(model), jax.eval_shape(model.init, KEY, x)
    state = jax.eval_shape(algo.init, variables["params"])
    assert has_convolution(algo.step, state, Batch(x), KEY) == found


def test_a_gradient_costs_three_forward_passes_and_no_more():
    # Of each layer: the product, and its two transposes; what is computed again for the gradient holds no product.
    x = jnp.zeros((2, 14, 14, 8))
    encoder = ConvEncoder(4, (16, 16), (1, 2), implementation="slices")
    variables = jax.eval_shape(encoder.init, KEY, x)
    gradient = jax.grad(lambda v, x: encoder.apply(v, x).sum(), (0, 1))
    products = 9 * (14 * 14 * 8 * 16 + 7 * 7 * 16 * 16) + 7 * 7 * 16 * 4
    cost = jax.jit(gradient).lower(variables, x).compile().cost_analysis()["flops"]
    assert 1.0 < cost / (2 * 3 * 2 * products) < 1.2  # 4 / 3 and more, were the products computed again


def test_devices_share_the_work_of_a_batch():
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    encoder, mesh = ConvEncoder(2, (4,), (2,), implementation="slices"), parallel.make_mesh(8)
    x = jax.ShapeDtypeStruct((64, 28, 28, 1), jnp.float32, sharding=parallel.split(mesh))
    variables = jax.eval_shape(encoder.init, KEY, x)
    gradient = jax.grad(lambda v, x: encoder.apply(v, x).sum())
    program = jax.jit(gradient, in_shardings=(parallel.replicated(mesh), None)).lower(variables, x).compile().as_text()
    assert "while" in program  # a few examples at a time ...
    assert "all-gather" not in program  # ... of each device's own


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals_say_what_was_wanted():
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(InputError, match=r"'slice'.*Did you mean 'slices'"):
        Conv(2, implementation="slice").init(KEY, x)
    with pytest.raises(InputError, match=r"by 2 to \(5, 5\) starts at \(3, 3\), not at \(4, 4\)"):
        ConvTranspose(2, (5, 5), 2).init(KEY, x)
    for features, strides in itertools.product([(), (3, 0), (3,)], [(1, 2)]):
        with pytest.raises(InputError, match="each layer needs one of both"):
            ConvEncoder(2, features, strides).init(KEY, x)
    with pytest.raises(InputError, match=r"images `\[B, H, W, C\]`.*\(1, 16\)"):
        ConvEncoder(2, (3,), (1,)).init(KEY, x.reshape(1, 16))
    with pytest.raises(InputError, match=r"data_shape=784.*\(H, W, C\)"):
        AE.conv(784, 2)
