"""The chain against `jax.jacfwd` in float64, on random shapes and all kinds of modules; and what it makes of them."""

import itertools
import time

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aejax.jacobian import chain, frobenius_sq
from aejax.jacobian.segments import Block, Diagonal, Linear, trace
from aejax.methods.ae import AE
from aejax.nets import MLP, ConvEncoder


def swish_by_hand(x):
    return x * nn.sigmoid(x)


ACTIVATIONS = [nn.sigmoid, nn.softplus, nn.gelu, swish_by_hand, jnp.sin]


class Residual(nn.Module):
    """Blocks with a skip connection and a normalisation."""

    width: int
    code_dim: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width)(x)
        for _ in range(2):
            h = nn.tanh(nn.Dense(2 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(h)
        return nn.Dense(self.code_dim)(nn.LayerNorm()(x))


def _parameters(module, x):
    """Of order one, biases too, in float64."""
    keys = iter(jax.random.split(jax.random.key(3), 40))
    with jax.enable_x64(False):
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *x.shape)))["params"]
    return jax.tree.map(lambda leaf: 0.5 * jax.random.normal(next(keys), leaf.shape, jnp.float64), shapes)


def _check(module, shape, method=None, modes=("auto",)):
    """Value, and gradient with respect to parameters and example, to 1e-12 of their norm."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(1), shape, jnp.float64)
        params = _parameters(module, x)

        def penalty(mode):
            f = lambda params: lambda v: module.apply({"params": params}, v[None], method=method)[0]
            return jax.value_and_grad(lambda p, x: frobenius_sq(f(p), x, mode=mode, batch_size=10), argnums=(0, 1))

        found = jax.jit(lambda p, x: {mode: penalty(mode)(p, x) for mode in ("forward", *modes)})(params, x)
    for mode in modes:
        for a, b in zip(*map(jax.tree.leaves, (found[mode], found["forward"])), strict=True):
            assert np.linalg.norm(a - b) <= 1e-12 * np.linalg.norm(b)


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    data_dim=st.integers(1, 12),
    activation=st.sampled_from(ACTIVATIONS),
    final=st.sampled_from([None, nn.sigmoid, nn.softmax]),
    use_bias=st.booleans(),
)
def test_dense_encoders_of_random_shape(widths, data_dim, activation, final, use_bias):
    _check(MLP(tuple(widths), activation, final, use_bias), (data_dim,))


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(size=st.tuples(st.integers(3, 6), st.integers(3, 6), st.integers(1, 2)), stride=st.integers(1, 2))
def test_convolutional_encoders_of_random_shape(size, stride):
    _check(ConvEncoder(3, (4, 2), (1, stride), nn.softplus), size)


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(width=st.integers(4, 8), code_dim=st.integers(1, 10))
def test_residual_and_normalised_encoders_of_random_shape(width, code_dim):
    # A pair, normalised, is always (1, -1): its Jacobian is nothing but rounding.
    _check(Residual(width, code_dim), (7,), modes=("reverse", "auto"))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("hidden_dims", [(8,), (9, 7)])
def test_reconstructions(hidden_dims, tied):
    model = AE.dense(10, 3, hidden_dims=hidden_dims, activation=nn.tanh, tied=tied)
    _check(model, (10,), method="reconstruct")


@pytest.mark.slow
def test_convolutional_reconstructions():
    _check(AE.conv((5, 6, 1), 3, features=(2,), strides=(2,), activation=nn.tanh), (5, 6, 1), method="reconstruct")


def _kinds(f, size):
    return [(type(segment), segment.inputs, segment.outputs) for segment in trace(f, jnp.ones(size)).segments]


def test_what_is_found_in_a_function():
    k1, k2, b = jnp.ones((9, 5)), jnp.ones((5, 2)), jnp.ones(2)
    layers = [(Linear, 9, 5), (Diagonal, 5, 5), (Linear, 5, 2)]
    assert _kinds(lambda x: jnp.tanh(x @ k1) @ k2 + b, 9) == layers
    assert _kinds(jax.jit(lambda x: k2.T @ nn.leaky_relu((x[None] @ k1)[0])), 9) == layers
    assert _kinds(lambda x: swish_by_hand(x) + 1, 9) == [(Diagonal, 9, 9)]
    assert _kinds(nn.softmax, 9)[0] == (Block, 9, 9)
    assert _kinds(lambda x: x + jnp.tanh(x) @ k1 @ k1.T, 9) == [(Block, 9, 9)]  # the skip hides what is inside
    assert _kinds(lambda x: x * x.sum(), 9) == [(Block, 9, 9)]
    assert _kinds(lambda x: x[::-1], 9) == [(Block, 9, 9)]  # keeps every number, but not its place
    assert _kinds(lambda x: jnp.tanh((x - 1.0) @ k1), 9) == layers[:2]  # a shift belongs to its neighbour
    assert _kinds(lambda x: x, 9) == []
    assert trace(lambda x: jnp.ones(3), jnp.ones(9)).is_constant


def test_functions_that_are_hardly_any():
    x = jnp.arange(1.0, 4.0)
    assert float(frobenius_sq(lambda x: x, x)) == 3.0
    assert float(frobenius_sq(lambda x: x + 1, x)) == 3.0
    assert float(frobenius_sq(lambda x: jnp.ones(5), x)) == 0.0
    assert float(frobenius_sq(lambda x: x[::-1], x)) == 3.0
    assert float(frobenius_sq(lambda x: jnp.sum(x**2), x)) == 4 * (1 + 4 + 9)
    assert float(frobenius_sq(lambda x: (x + x)[:, None], x)) == 12.0  # a sum of two x is no shift


def test_one_value_may_be_named_twice():
    """The same jitted function called twice shares its variables, which are not the same values."""
    inner = jax.jit(lambda x, k: jnp.tanh(x @ k))
    k = jax.random.normal(jax.random.key(0), (4, 4))
    f = lambda x: inner(inner(x, k), k.T)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(frobenius_sq(f, x), frobenius_sq(f, x, mode="forward"), rtol=1e-5)


def _order_cost(sizes, order):
    """Multiplications of a product of matrices `[sizes[i + 1], sizes[i]]` in an order of the inner nodes."""
    alive, total = list(range(len(sizes))), 0
    for node in order:
        at = alive.index(node)
        total += sizes[alive[at - 1]] * sizes[node] * sizes[alive[at + 1]]
        alive.remove(node)
    return total


def test_the_plan_of_a_deep_decoder_goes_out_from_the_code():
    """Kernels alone, each varying with the example: the classical chain, against all orders by brute force."""
    sizes = [4, 30, 60, 20, 50]
    blocks = [Block(a, b, lambda v: v, False, True, True, a * b, 0) for a, b in itertools.pairwise(sizes)]
    term = chain.plan(blocks)
    # A block pushes or pulls without being formed: r vectors cost r a b, as a product would.
    best = min(_order_cost(sizes, order) for order in itertools.permutations([1, 2, 3]))
    formed = 4 * 4 * 30  # the first block, which is pushed from the identity
    assert term.place == (0, 4)
    assert term.parts[0].each <= 3 * (best + formed)


@pytest.mark.slow
def test_a_bottleneck_is_never_formed_at_full_rank():
    model = AE.dense(200, 3, hidden_dims=(50,))
    x = jnp.ones(200)
    params = model.init(jax.random.key(0), x[None])["params"]
    f = lambda v: model.apply({"params": params}, v[None], method="reconstruct")[0]
    program = str(jax.make_jaxpr(lambda x: frobenius_sq(f, x, batch_size=100))(x))
    assert "200,200" not in program
    assert "50,3" in program


@jax.custom_jvp
def centred(x):
    """Element-wise in value, but not in its derivative, which is what counts."""
    return x * 1.0


centred.defjvp(lambda primals, tangents: (primals[0] * 1.0, tangents[0] - tangents[0].mean()))


@jax.custom_vjp
def backward_only(x):
    return jnp.sin(x)


backward_only.defvjp(lambda x: (jnp.sin(x), x), lambda x, cotangent: (cotangent * jnp.cos(x),))

_K = np.random.default_rng(0).normal(size=(9, 7))
_K2 = np.random.default_rng(1).normal(size=(7, 4))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "f",
    [
        lambda x: centred(x @ _K) @ _K2,
        lambda x: jnp.tanh((1 - 2 * x) @ _K) / 3,
        lambda x: jnp.tanh(x.reshape(3, 3).T.reshape(9) @ _K) @ _K2,
        lambda x: jnp.sin(jnp.cumsum(x)),
        lambda x: jnp.tanh(x @ (_K > 0)) @ _K2,  # a kernel that is not float
        lambda x: jnp.asarray(_K2)[jnp.argmax(x @ _K)] * x[0],  # an integer on the way
        lambda x: jnp.abs(x @ (_K + 1j * _K[::-1])) @ _K2,  # a complex number on the way
        lambda x: jax.lax.stop_gradient(jnp.tanh(x)) * x @ _K,
        lambda x: jax.lax.scan(lambda c, k: (jnp.tanh(c @ k @ k.T), c[:2]), x, jnp.stack([_K, -_K]))[1],
    ],
    ids=["custom_jvp", "affine", "transpose", "cumsum", "mask", "argmax", "complex", "stop", "scan"],
)
def test_functions_with_traps(f):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(2).normal(size=9))
        for batch_size in (1, 100):
            found = jax.value_and_grad(lambda x, b=batch_size: frobenius_sq(f, x, batch_size=b))(x)
            exact = jax.value_and_grad(lambda x: jnp.sum(jnp.square(jax.jacfwd(f)(x))))(x)
            for a, b in zip(found, exact, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max())


def test_a_rule_for_the_backward_pass_alone_is_pulled():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(2).normal(size=9))
        f = lambda x: backward_only(x[:2] @ _K[:2])  # two inputs: pushing them would be cheaper
        plain = lambda x: jnp.sin(x[:2] @ _K[:2])
        np.testing.assert_allclose(frobenius_sq(f, x), frobenius_sq(plain, x, mode="forward"), rtol=1e-12)


def test_what_comes_before_the_first_layer_costs_no_more():
    """Scaled, centred, turned or in half precision: the lengths of the first kernel still serve the whole batch."""
    kernel = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    flops = {}
    for name, before in {
        "plain": lambda x: x,
        "scaled": lambda x: 2 * x - 1,
        "turned": lambda x: x.reshape(6, 10).T.reshape(60),
    }.items():
        f = lambda x, before=before: jnp.tanh(before(x) @ kernel)
        batch = jax.jit(jax.vmap(lambda x, f=f: frobenius_sq(f, x, batch_size=50)))
        flops[name] = batch.lower(jnp.ones((50, 60))).compile().cost_analysis()["flops"]
    assert flops["scaled"] < 1.2 * flops["plain"]
    assert flops["turned"] < 1.2 * flops["plain"]


def test_cancellation_is_what_the_documentation_says():
    """The error of a Gram form in float32 is within `eps |X|^2 |Y|^2 / |X Y|^2`; `reverse` is far closer."""
    rng = np.random.default_rng(0)
    k1 = rng.normal(size=(50, 20)) + 300 * rng.normal(size=(50, 1))  # a large common part, which
    k2 = rng.normal(size=(20, 5))
    k2 -= k2.mean(axis=0)  # cancels
    exact = np.square(k1 @ k2).sum()
    bound = np.finfo(np.float32).eps * np.square(k1).sum() * np.square(k2).sum() / exact
    f = lambda x: jnp.sin(x @ k1.astype(np.float32)) @ k2.astype(np.float32)
    error = abs(float(frobenius_sq(f, jnp.zeros(50), batch_size=100)) / exact - 1)
    assert error < bound
    assert abs(float(frobenius_sq(f, jnp.zeros(50), mode="reverse")) / exact - 1) < bound / 100


def test_what_rounds_below_zero_is_zero():
    """Kernels whose product is exactly zero: without a bound the Gram form of the norm comes out negative."""
    rng = np.random.default_rng(3)
    k1 = np.repeat(rng.normal(size=(30, 1)), 20, axis=1).astype(np.float32)  # all units the same, and
    k2 = rng.integers(-8, 9, size=(20, 5)).astype(np.float32)
    k2[-1] -= k2.sum(axis=0)  # what leads on from them adds up to nothing
    f = lambda x: jnp.sin(x @ k1) @ k2
    norms = jax.jit(jax.vmap(lambda x: frobenius_sq(f, x, batch_size=100)))(
        rng.normal(size=(64, 30)).astype(np.float32)
    )
    terms = np.square(k1).sum() * np.square(k2).sum()
    assert (norms >= 0).all()
    assert (norms == 0).any()  # some were below
    assert (norms > 0).any()
    assert (norms < 1e-6 * terms).all()


def _deep(num_layers, width=4):
    kernels = np.random.default_rng(0).normal(size=(num_layers, width, width)) / np.sqrt(width)

    def f(x):
        for kernel in kernels:
            x = jnp.tanh(x @ kernel.astype(x.dtype))
        return x

    return f


@pytest.mark.slow
def test_long_chains_are_planned_in_a_short_reach(monkeypatch):
    """With so little of the plan in sight, the numbers are the same."""
    with jax.enable_x64(True):
        f, x = _deep(6), jnp.linspace(0.2, 1, 4)
        exact = jax.value_and_grad(lambda x: frobenius_sq(f, x, mode="forward"))(x)
        for reach in (1, 2, 3):
            monkeypatch.setattr(chain, "_REACH", reach)
            found = jax.jit(jax.value_and_grad(lambda x: frobenius_sq(f, x, batch_size=100)))(x)
            np.testing.assert_allclose(found[0], exact[0], rtol=1e-12)
            np.testing.assert_allclose(found[1], exact[1], rtol=1e-11)


@pytest.mark.slow
def test_hundreds_of_layers():
    """No recursion over the layers, in recording, planning and showing."""
    segments = trace(_deep(300), jnp.ones(4)).segments
    start = time.process_time()
    term = chain.plan(segments, 10)
    assert time.process_time() - start < 5
    assert len(str(term)) > 300
    with jax.enable_x64(True):
        x, f = jnp.linspace(0.2, 1, 4), _deep(300)
        matrix = np.eye(4)
        value = np.asarray(x)
        for kernel in np.random.default_rng(0).normal(size=(300, 4, 4)) / 2:
            value = np.tanh(value @ kernel)
            matrix = matrix @ kernel * (1 - value**2)
        # Compiling it would take longer than all other tests together.
        np.testing.assert_allclose(frobenius_sq(f, x, batch_size=10), np.square(matrix).sum(), rtol=1e-9)


def test_hundreds_of_activations_in_a_row():
    def f(x):
        for _ in range(600):
            x = jnp.sin(x)
        return x

    slope, x = 1.0, 0.5
    for _ in range(600):
        slope, x = slope * np.cos(x), np.sin(x)
    np.testing.assert_allclose(frobenius_sq(f, jnp.float32(0.5)), slope**2, rtol=1e-4)


def _products(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn.params
        for inner in jex.jaxprs_in_params(eqn.params):
            yield from _products(inner)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("make", "batch_size"),
    [
        (lambda dense: [dense(20), jnp.tanh, dense(15)], 100),  # Gram matrices and a quadratic form
        (lambda dense: [dense(20), jnp.tanh, dense(3), jnp.tanh, dense(20), jnp.sin, dense(30)], 100),
        (lambda dense: [dense(20), nn.LayerNorm(), jnp.tanh, dense(6), nn.softmax], 1),  # blocks between
        (lambda dense: [dense(25), nn.sigmoid], 1),  # the closed form
    ],
)
def test_the_precision_of_a_layer_is_that_of_its_products(make, batch_size):
    module = nn.Sequential(make(lambda width: nn.Dense(width, precision=jax.lax.Precision.HIGHEST)))
    x = jnp.ones(30)
    params = module.init(jax.random.key(0), x[None])["params"]
    norm = lambda p, x: frobenius_sq(lambda v: module.apply({"params": p}, v[None])[0], x, batch_size=batch_size)
    for program in (norm, jax.grad(norm)):
        found = list(_products(jax.make_jaxpr(program)(params, x).jaxpr))
        assert len(found) > 1
        assert {params["precision"] for params in found} == {(jax.lax.Precision.HIGHEST,) * 2}


def test_a_product_that_sums_in_single_precision_does_so_in_its_jacobian():
    """Kernels of bfloat16, whose layers return float32: 4096 ones, led through three of them, are not cut at 256."""
    dot = lambda x, kernel: jax.lax.dot(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
    first, second = jnp.ones((2, 4097), jnp.bfloat16), jnp.ones((4097, 3), jnp.bfloat16)
    f = lambda x: dot(dot(x, first), second)
    for batch_size in (1, 1000):
        norm = frobenius_sq(f, jnp.zeros(2), batch_size=batch_size)
        np.testing.assert_allclose(norm, 6 * 4097**2, rtol=1e-6)
