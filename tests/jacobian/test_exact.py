"""The modes against each other, against finite differences, and against Jacobians written out by hand."""

import itertools
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import jacobian
from aejax.checks import InputError
from aejax.data import Batch
from aejax.jacobian import exact
from aejax.methods.ae import AE
from aejax.methods.cae import CAE
from aejax.nets import MLP, init_params

ACTIVATIONS = [None, nn.sigmoid, nn.tanh, nn.softplus, nn.gelu, nn.swish]


class Rescaled(AE):
    """A code that is more than what the encoder returns."""

    def encode(self, x):
        return 2.0 * self.encoder(x)


def _setup(encoder, dtype, shape=(4, 7)):
    """Parameters of order one with biases that are not zero, and examples."""
    keys = iter(jax.random.split(jax.random.key(0), 9))
    x = jax.random.normal(next(keys), shape, dtype)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))["params"]
    return jax.tree.map(lambda leaf: 0.5 * jax.random.normal(next(keys), leaf.shape, dtype), shapes), x


def _penalty(encoder, mode):
    return lambda params, x: jacobian.encoder_sq(encoder, params, x, mode=mode).mean()


def _all_modes(encoder, modes):
    """`(params, x) -> {mode: (penalty, its gradient in both)}`, compiled once."""
    penalties = {mode: jax.value_and_grad(_penalty(encoder, mode), argnums=(0, 1)) for mode in modes}
    return jax.jit(lambda params, x: {mode: penalty(params, x) for mode, penalty in penalties.items()})


def _derivative(f, t=0.02):
    """f'(0) by central differences at four steps and Richardson extrapolation: the error is of the order of t^8."""
    row = [(f(t / 2**i) - f(-t / 2**i)) / (2 * t / 2**i) for i in range(4)]
    for order in (4, 16, 64):
        row = [(order * fine - coarse) / (order - 1) for coarse, fine in itertools.pairwise(row)]
    return row[0]


def _slow_sq(encode, x):
    """`[B]`: the squared norm of each example's Jacobian, from finite differences of a function of batches."""
    size = x[0].size
    steps = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])
    moved = jax.jit(lambda t: encode((x[None] + t * steps).reshape(-1, *x.shape[1:])))
    return jnp.square(_derivative(moved)).reshape(size, len(x), -1).sum(axis=(0, 2))


@pytest.mark.slow
def test_hand_derived_jacobians():
    # f(a, b) = (a b, a^2, 3 b) has the rows (b, a), (2 a, 0), (0, 3): at (2, 5) that is 25 + 4 + 16 + 9 = 54.
    f = lambda v: jnp.stack([v[0] * v[1], v[0] ** 2, 3 * v[1]])
    for mode in jacobian.MODES:
        assert float(jacobian.frobenius_sq(f, jnp.array([2.0, 5.0]), mode=mode)) == 54.0
    # All weights one, sigmoid at zero: slope 1/4, so each of 3 x 2 entries is 1/4, and 6 / 16 = 0.375.
    params = {"dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.full(2, -3.0)}}
    for mode in jacobian.MODES:
        sq = jacobian.encoder_sq(MLP((2,), final_activation=nn.sigmoid), params, jnp.ones((4, 3)), mode=mode)
        np.testing.assert_allclose(sq, np.full(4, 0.375), rtol=1e-6)


@pytest.mark.slow
def test_shapes_are_flattened():
    f = lambda image: jnp.stack([image.sum(), (2 * image).sum()])[None, :, None]  # 6 ones and 6 twos
    for mode in jacobian.MODES:
        assert float(jacobian.frobenius_sq(f, jnp.ones((2, 3)), mode=mode)) == 6 + 24


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", "identity"))
def test_closed_form_equals_both_modes_in_value_and_gradient(activation, dtype):
    _check_modes_agree(MLP((6,), final_activation=activation), dtype, jacobian.MODES)


@pytest.mark.first(2)
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("encoder", [MLP((6,), use_bias=False), MLP((4, 3), nn.tanh, nn.sigmoid), MLP((8, 5, 9))])
def test_the_modes_agree_without_biases_and_for_deep_encoders(encoder, dtype):
    _check_modes_agree(encoder, dtype, jacobian.MODES)


def _check_modes_agree(encoder, dtype, modes):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        found = _all_modes(encoder, modes)(*_setup(encoder, dtype))
    for mode in modes:
        assert found[mode][0].dtype == dtype
        _assert_close(found[mode], found["forward"], {jnp.float64: 1e-12, jnp.float32: 1e-5}[dtype])


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("encoder", "modes"),
    [(MLP((6,), final_activation=a), jacobian.MODES) for a in (nn.sigmoid, nn.tanh, nn.softplus)]
    + [(MLP((6, 3), nn.softplus, nn.sigmoid), jacobian.MODES)],
)
def test_finite_differences_agree_in_value_and_gradient(encoder, modes):
    with jax.enable_x64(True):
        params, x = _setup(encoder, jnp.float64)
        slow = _slow_sq(encoder.bind({"params": params}), x).mean()
        evaluate = _all_modes(encoder, modes)
        found = evaluate(params, x)
        for mode in modes:
            np.testing.assert_allclose(found[mode][0], slow, rtol=1e-8)
        for key in jax.random.split(jax.random.key(7), 3):
            keys = iter(jax.random.split(key, 9))
            towards = jax.tree.map(lambda v, keys=keys: jax.random.normal(next(keys), v.shape, v.dtype), (params, x))
            points = lambda t, v=towards: evaluate(*jax.tree.map(lambda p, d: p + t * d, (params, x), v))
            for mode in modes:
                slope = sum(map(jnp.vdot, *map(jax.tree.leaves, (found[mode][1], towards))))
                slow_slope = _derivative(lambda t, m=mode, points=points: points(t)[m][0])
                np.testing.assert_allclose(slope, slow_slope, rtol=1e-8)


def _assert_close(actual, desired, rtol):
    """Within rtol of the norm of the desired leaf: single entries of a gradient may cancel to nothing."""
    for a, d in zip(*map(jax.tree.leaves, (actual, desired)), strict=True):
        assert np.linalg.norm(np.asarray(a) - np.asarray(d)) <= rtol * np.linalg.norm(d)


def test_relu_is_counted_by_its_active_units():
    # Units 0 and 2 are on, so their columns count: |(1, 2)|^2 + |(0, 3)|^2 = 14.
    params = {"dense_0": {"kernel": jnp.array([[1.0, -9, 0], [2, -9, 3]]), "bias": jnp.zeros(3)}}
    for mode in jacobian.MODES:
        sq = jacobian.encoder_sq(MLP((3,), final_activation=nn.relu), params, jnp.ones((1, 2)), mode=mode)
        np.testing.assert_allclose(sq, [14.0])


def test_an_activation_that_mixes_its_inputs():
    # Softmax of equal inputs over two: slopes are +-1/4. With the kernel (1, 0; 0, 1) the norm is 4 / 16.
    encoder, params = MLP((2,), final_activation=nn.softmax, use_bias=False), {"dense_0": {"kernel": jnp.eye(2)}}
    for mode in jacobian.MODES:
        np.testing.assert_allclose(jacobian.encoder_sq(encoder, params, jnp.zeros((1, 2)), mode=mode), [0.25])


def test_a_mode_that_is_unknown_is_refused():
    with pytest.raises(InputError, match="Did you mean 'reverse'"):
        jacobian.encoder_sq(MLP((2,)), {}, jnp.ones((1, 2)), mode="revers")
    with pytest.raises(InputError, match="Known modes: auto, forward, reverse"):
        jacobian.frobenius_sq(jnp.sin, jnp.ones(2), mode="xyz")


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_the_jacobian_of_an_embedding_that_is_not_the_encoder(mode):
    encoder = {"encoder": MLP((3,)), "decoder": MLP((5,)), "latent_dim": 3}
    x = jax.random.normal(jax.random.key(1), (4, 5))
    plain, rescaled = AE(**encoder), Rescaled(**encoder)
    params = init_params(plain, jax.random.key(0), x)
    kernel = np.asarray(params["encoder"]["dense_0"]["kernel"], np.float64)
    linear = np.full(4, np.square(kernel).sum())  # the Jacobian of a linear code is its matrix
    np.testing.assert_allclose(jacobian.embedding_sq(plain, params, x, mode=mode), linear, rtol=1e-6)
    np.testing.assert_allclose(jacobian.embedding_sq(rescaled, params, x, mode=mode), 4 * linear, rtol=1e-6)


@pytest.mark.slow
def test_convolutional_encoders():
    model = AE.conv((5, 6, 2), 3, features=(4,), strides=(2,), activation=nn.tanh)
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 2))
    params = init_params(model, jax.random.key(1), x)
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda v: v.astype(jnp.float64), (params, x))
        slow = _slow_sq(model.bind({"params": params}).encode, x)
        found = jax.jit(lambda x: [jacobian.embedding_sq(model, params, x, mode=mode) for mode in jacobian.MODES])(x)
        for rows in found:
            np.testing.assert_allclose(rows, slow, rtol=1e-8)


@pytest.mark.parametrize("which", [jacobian.embedding_sq, jacobian.reconstruction_sq])
@pytest.mark.parametrize("hidden_dims", [pytest.param((), marks=pytest.mark.slow), (6,)])
def test_inside_every_transform(which, hidden_dims):
    model = CAE.dense(8, 4, hidden_dims=hidden_dims)
    x = jax.random.uniform(jax.random.key(0), (8, 8))
    params = init_params(model, jax.random.key(1), x)
    rows = which(model, params, x)
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    sharded = jax.shard_map(partial(which, model, params), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(sharded)(x), rows, rtol=1e-5)
    mapped = jax.pmap(partial(which, model, params), devices=jax.devices()[:4])(x.reshape(4, 2, 8))
    np.testing.assert_allclose(mapped.reshape(8), rows, rtol=1e-5)
    lanes = jax.vmap(partial(which, model), (None, 0))(params, x[:, None])
    np.testing.assert_allclose(lanes[:, 0], rows, rtol=1e-5)
    many = jax.vmap(partial(which, model), (0, None))(jax.tree.map(lambda v: jnp.stack([v, v]), params), x)
    np.testing.assert_allclose(many, [rows, rows], rtol=1e-5)
    _, scanned = jax.lax.scan(lambda c, row: (c, which(model, params, row[None])[0]), 0, x)
    np.testing.assert_allclose(scanned, rows, rtol=1e-5)


def _flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_one_layer_costs_as_much_as_itself():
    encoder = MLP((50,), final_activation=nn.sigmoid)
    params, x = _setup(encoder, jnp.float32, (20, 64))
    flops = {mode: _flops(jax.value_and_grad(_penalty(encoder, mode)), params, x) for mode in jacobian.MODES}
    layer = _flops(jax.value_and_grad(lambda p, x: encoder.apply({"params": p}, x).sum()), params, x)
    # Reverse mode pulls 50 outputs back through each layer, forward mode scales 64 tangents for each example.
    assert flops["auto"] < 1.5 * layer
    assert flops["auto"] * 5 < flops["forward"]
    assert flops["auto"] * 50 < flops["reverse"]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("widths", "times"),
    [
        ((64, 4), 1.3),  # through the Gram matrix of the first kernel
        ((64, 4, 64, 90), 10),  # meets at the bottleneck
        ((80, 60), 20),  # with a linear code, one quadratic form in the slopes of the hidden layer
        ((20, 150), 1.3),  # Gram matrix of the second kernel
    ],
)
def test_auto_takes_fewer_operations_than_either_end(widths, times):
    encoder = MLP(widths, nn.tanh, None if widths == (80, 60) else nn.sigmoid)
    params, x = _setup(encoder, jnp.float32, (100, 90))
    flops = {mode: _flops(jax.value_and_grad(_penalty(encoder, mode)), params, x) for mode in jacobian.MODES}
    assert flops["auto"] * times < min(flops["forward"], flops["reverse"])


def bounded(z):
    """The identity on short vectors, and not element-wise on long ones."""
    return z / jnp.maximum(2.0, jnp.linalg.norm(z, axis=-1, keepdims=True))


@pytest.mark.slow
def test_an_activation_that_is_sometimes_element_wise():
    encoder = MLP((3,), final_activation=bounded)
    x = 4.0 * jax.random.normal(jax.random.key(0), (5, 6))
    params = encoder.init(jax.random.key(1), x)["params"]
    forward = jacobian.encoder_sq(encoder, params, x, mode="forward")
    np.testing.assert_allclose(jacobian.encoder_sq(encoder, params, x), forward, rtol=1e-5)


@pytest.mark.slow
def test_the_distance_between_two_jacobians():
    with jax.enable_x64(True):
        for encoder in (MLP((6,), final_activation=nn.sigmoid), MLP((6,)), MLP((6, 3), nn.tanh), MLP((9,), nn.softmax)):
            params, x = _setup(encoder, jnp.float64)
            y = x + jax.random.normal(jax.random.key(9), x.shape)
            apply = lambda v, e=encoder, p=params: e.apply({"params": p}, v[None])[0]
            slow = [np.square(jax.jacfwd(apply)(a) - jax.jacfwd(apply)(b)).sum() for a, b in zip(x, y, strict=True)]
            fast = jax.vmap(partial(jacobian.difference_sq, apply))(x, y)
            np.testing.assert_allclose(fast, slow, rtol=1e-12)


class Conditioned(AE):
    """Both networks see the label, as one number more."""

    takes_labels: ClassVar[bool] = True

    def encode(self, x, y):
        return self.encoder(jnp.concatenate([x, y[:, None].astype(x.dtype)], axis=1))

    def decode(self, z, y):
        return self.decoder(z * (1.0 + y[:, None].astype(z.dtype)))


@pytest.mark.slow
def test_the_jacobian_of_a_conditioned_model_is_that_by_x():
    """Each example has a slope of its own, by its label and by its place: against jacfwd with the label closed over."""
    model = Conditioned.dense(5, 2, hidden_dims=(4,), activation=nn.tanh)
    with jax.enable_x64(True):
        keys = iter(jax.random.split(jax.random.key(0), 20))
        x, y = jax.random.normal(next(keys), (3, 5), jnp.float64), jnp.array([0, 1, 2])
        with jax.enable_x64(False):
            shapes = jax.eval_shape(model.init, next(keys), jnp.zeros((1, 5)), jnp.zeros(1, int))["params"]
        params = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape, jnp.float64), shapes)
        bound, batch = model.bind({"params": params}), Batch(x, y)
        slow = {}
        for name, f in {"embed": bound.embed, "reconstruct": bound.reconstruct}.items():
            one = lambda v, label, f=f: f(v[None], label[None])[0]
            slow[name] = jax.jit(jax.vmap(jax.jacfwd(one)))
        of_x, reconstruction = slow["embed"](x, y), slow["reconstruct"](x, y)

        @jax.jit
        def found(batch):
            rows = [jacobian.embedding_sq(model, params, batch, mode=mode) for mode in jacobian.MODES]
            limited = [jacobian.embedding_sq(model, params, batch, memory_limit=limit) for limit in (6000, 12_000)]
            whole = [jacobian.reconstruction_sq(model, params, batch, mode=mode) for mode in ("reverse", "auto")]
            z, norms = jacobian.embed_and_sq(model, params, batch)
            other = Batch(batch.x + 1, batch.y[::-1])
            change = jacobian.embedding_difference_sq(model, params, batch, other)
            return [*rows, *limited, norms], whole, z, change

        norms, whole, z, change = found(batch)
        for row in norms:
            np.testing.assert_allclose(row, np.square(of_x).sum(axis=(1, 2)), rtol=1e-12)
        for row in whole:
            np.testing.assert_allclose(row, np.square(reconstruction).sum(axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(z, bound.embed(x, y), rtol=1e-12)
        moved = of_x - slow["embed"](x + 1, y[::-1])
        np.testing.assert_allclose(change, np.square(moved).sum(axis=(1, 2)), rtol=1e-12)
        with pytest.raises(InputError, match="give Batch"):
            jacobian.embedding_sq(model, params, x)


def test_what_belongs_to_an_example_is_not_shared():
    """A scale of the inputs, one of the outputs, a kernel and a label of its own: numbers, gradients, and the plan."""
    kernels = np.random.default_rng(0).normal(size=(9, 5)), np.random.default_rng(1).normal(size=(5, 7))

    def f(x, scale, weight, own_kernel, label):
        h = jnp.tanh((x * scale + weight.sum()) @ kernels[0] @ own_kernel)
        return weight * (h @ kernels[1]) * jax.nn.one_hot(label, 7, dtype=x.dtype).cumsum()

    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        x, scale = jnp.asarray(rng.normal(size=(2, 4, 9)))
        own = jnp.asarray(scale), jnp.asarray(rng.normal(size=(4, 7))), jnp.asarray(rng.normal(size=(4, 5, 5)))
        labels = jnp.array([0, 3, 2, 6])

        def both(x, scale, weight, kernel, label):
            auto = lambda *a: jacobian.frobenius_sq(f, *a, label, batch_size=50)
            slow = lambda *a: jnp.sum(jnp.square(jax.jacfwd(f)(*a, label)))
            return [jax.value_and_grad(norm, argnums=(0, 1, 2, 3))(x, scale, weight, kernel) for norm in (auto, slow)]

        _assert_close(*jax.jit(jax.vmap(both))(x, *own, labels), 1e-12)
    scaled = lambda x, scale: jnp.tanh((x * scale) @ jnp.ones((80, 60))) @ jnp.ones((60, 50))
    closed = lambda x: scaled(x, jnp.ones(80))
    plans = (
        jacobian.explain(scaled, jnp.ones(80), jnp.ones(80), batch_size=100),
        jacobian.explain(closed, jnp.ones(80), batch_size=100),
    )
    assert plans[0] != plans[1]


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", jacobian.MODES)
def test_second_derivatives_where_the_norm_is_zero(mode):
    norm = lambda f: lambda x: jacobian.frobenius_sq(f, x, mode=mode)
    # |diag(2 x)|^2 = 4 |x|^2; and |W|^2, by W, as a chain of two kernels of which one is the unit matrix.
    np.testing.assert_array_equal(jax.hessian(norm(lambda u: u**2))(jnp.zeros(2)), 8 * np.eye(2))
    of_kernel = lambda w: jacobian.frobenius_sq(lambda u: jnp.sin(u @ w.reshape(2, 2)), jnp.zeros(2), mode=mode)
    np.testing.assert_array_equal(jax.hessian(of_kernel)(jnp.zeros(4)), 2 * np.eye(4))


@pytest.mark.slow
def test_large_examples_come_one_at_a_time(monkeypatch):
    """On CPU; a loop over examples, the numbers and gradients of all at once, labels or not."""
    encoder = MLP((12, 3), nn.tanh)
    params, x = _setup(encoder, jnp.float32, (5, 7))
    model = Conditioned.dense(7, 2, hidden_dims=(4,), activation=nn.tanh)
    batch = Batch(x, jnp.arange(5))
    own = model.init(jax.random.key(2), *batch)["params"]

    def evaluate():
        plain = jax.value_and_grad(lambda p: _penalty(encoder, "auto")(p, x))
        labelled = jax.value_and_grad(lambda p: jacobian.embedding_sq(model, p, batch).mean())
        rows = lambda p, q: (jacobian.encoder_sq(encoder, p, x), jacobian.embed_and_sq(model, q, batch))  # in order
        both = lambda p, q: (plain(p), labelled(q), rows(p, q))
        return str(jax.make_jaxpr(both)(params, own)), jax.jit(both)(params, own)

    whole_program, whole = evaluate()
    monkeypatch.setattr(exact, "_LARGE", 100)
    program, found = evaluate()
    assert program.count("scan[") >= 4  # each of them by a loop
    assert "scan[" not in whole_program
    _assert_close(found, whole, 1e-5)


def test_the_definition_asks_nothing_of_the_function():
    f = lambda x: x**2 if x[0] > 0 else x  # Python sees the number
    assert float(jacobian.frobenius_sq(f, jnp.array([1.0, 2.0]), mode="forward")) == 20.0


def test_an_empty_batch():
    encoder = MLP((3,))
    assert jacobian.encoder_sq(encoder, _setup(encoder, jnp.float32)[0], jnp.ones((0, 7))).shape == (0,)


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", jacobian.MODES)
def test_half_precision_is_summed_in_single(mode):
    # 4096 slopes of exactly one: a sum in bfloat16 would stop at 256.
    x = jnp.ones(4096, jnp.bfloat16)
    sq = jacobian.frobenius_sq(lambda x: x * x / 2, x, mode=mode)
    assert sq.dtype == jnp.float32
    assert float(sq) == 4096.0


@pytest.mark.slow
@pytest.mark.parametrize("mode", jacobian.MODES)
@pytest.mark.parametrize(
    "encoder",
    [MLP((30, 6), nn.tanh, nn.sigmoid), pytest.param(MLP((20, 3, 20, 40), nn.sigmoid), marks=pytest.mark.slow)],
)
def test_computing_in_half_precision(encoder, mode):
    """Eight bits of a product are right to 2^-9 each; a norm of hundreds of entries, to 1 % with room to spare."""
    x = jax.random.uniform(jax.random.key(0), (8, 40))
    params = encoder.init(jax.random.key(1), x)["params"]
    half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), (params, x))
    found, exact = (_all_modes(encoder, [mode])(*arguments)[mode] for arguments in (half, (params, x)))
    np.testing.assert_allclose(found[0], exact[0], rtol=0.01)
    for a, b in zip(*map(jax.tree.leaves, (found[1], exact[1])), strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - b) <= 0.05 * np.linalg.norm(b)
