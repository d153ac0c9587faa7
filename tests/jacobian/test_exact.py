"""The modes against each other, against finite differences, and against Jacobians written out by hand."""

import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import jacobian
from aejax.checks import InputError
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


def test_shapes_are_flattened():
    f = lambda image: jnp.stack([image.sum(), (2 * image).sum()])[None, :, None]  # 6 ones and 6 twos
    for mode in jacobian.MODES:
        assert float(jacobian.frobenius_sq(f, jnp.ones((2, 3)), mode=mode)) == 6 + 24


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", "identity"))
def test_closed_form_equals_both_modes_in_value_and_gradient(activation, dtype):
    _check_modes_agree(MLP((6,), final_activation=activation), dtype, jacobian.MODES)


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
@pytest.mark.parametrize("hidden_dims", [(), (6,)])
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


def test_an_activation_that_is_sometimes_element_wise():
    encoder = MLP((3,), final_activation=bounded)
    x = 4.0 * jax.random.normal(jax.random.key(0), (5, 6))
    params = encoder.init(jax.random.key(1), x)["params"]
    forward = jacobian.encoder_sq(encoder, params, x, mode="forward")
    np.testing.assert_allclose(jacobian.encoder_sq(encoder, params, x), forward, rtol=1e-5)


def test_the_distance_between_two_jacobians():
    with jax.enable_x64(True):
        for encoder in (MLP((6,), final_activation=nn.sigmoid), MLP((6,)), MLP((6, 3), nn.tanh), MLP((9,), nn.softmax)):
            params, x = _setup(encoder, jnp.float64)
            y = x + jax.random.normal(jax.random.key(9), x.shape)
            apply = lambda v, e=encoder, p=params: e.apply({"params": p}, v[None])[0]
            slow = [np.square(jax.jacfwd(apply)(a) - jax.jacfwd(apply)(b)).sum() for a, b in zip(x, y, strict=True)]
            fast = jax.vmap(partial(jacobian.difference_sq, apply))(x, y)
            np.testing.assert_allclose(fast, slow, rtol=1e-12)


# A bound on memory.


def _temporary(f, *args):
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_rows_and_columns_a_few_at_a_time(mode):
    f = lambda x: jnp.cumsum(jnp.sin(jnp.cumsum(jnp.sin(x)))) / 30
    x, limit = jax.random.normal(jax.random.key(1), (300,)), 300_000
    whole = jax.value_and_grad(lambda x: jacobian.frobenius_sq(f, x, mode=mode))
    bounded = jax.value_and_grad(lambda x: jacobian.frobenius_sq(f, x, mode=mode, memory_limit=limit))
    assert _temporary(bounded, x) <= limit < _temporary(whole, x)
    for a, b in zip(bounded(x), whole(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize(
    ("kind", "mode"), [("dense", "forward"), ("dense", "reverse"), ("dense", "auto"), ("conv", "auto")]
)
def test_a_batch_honours_its_limit(kind, mode):
    if kind == "dense":
        model, shape, limit = AE.dense(60, 20, hidden_dims=(50, 30), activation=nn.tanh), (200, 60), 600_000
    else:
        model, shape, limit = AE.conv((8, 8, 2), 4, features=(8, 8), strides=(1, 2)), (24, 8, 8, 2), 1_000_000
    x = jax.random.uniform(jax.random.key(0), shape)
    params = init_params(model, jax.random.key(1), x)

    def penalty(limit):
        return jax.value_and_grad(lambda p: jacobian.embedding_sq(model, p, x, mode=mode, memory_limit=limit).mean())

    assert _temporary(penalty(None), params) > limit
    assert _temporary(penalty(limit), params) <= limit
    bounded, whole = jax.jit(penalty(limit))(params), jax.jit(penalty(None))(params)
    for a, b in zip(*map(jax.tree.leaves, (bounded, whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_a_limit_that_cannot_be_kept_says_what_can():
    f = lambda x: jnp.tanh(jnp.cumsum(x))
    with pytest.raises(InputError, match="a single row of its Jacobian needs") as caught:
        jacobian.frobenius_sq(f, jnp.ones(120), mode="reverse", memory_limit=1000)
    more = int(str(caught.value).split("Allow at least ")[1].split()[0])
    assert np.isfinite(jacobian.frobenius_sq(f, jnp.ones(120), mode="reverse", memory_limit=1000 + more))


def test_a_limit_that_does_not_bind_changes_nothing():
    encoder = MLP((64,), final_activation=nn.sigmoid)
    params, x = _setup(encoder, jnp.float32, (20, 50))
    penalty = lambda limit: jax.value_and_grad(lambda p: jacobian.encoder_sq(encoder, p, x, memory_limit=limit).mean())
    assert str(jax.make_jaxpr(penalty(2**20))(params)) == str(jax.make_jaxpr(penalty(None))(params))


def test_the_definition_asks_nothing_of_the_function():
    f = lambda x: x**2 if x[0] > 0 else x  # Python sees the number
    assert float(jacobian.frobenius_sq(f, jnp.array([1.0, 2.0]), mode="forward")) == 20.0


def test_an_empty_batch():
    encoder = MLP((3,))
    assert jacobian.encoder_sq(encoder, _setup(encoder, jnp.float32)[0], jnp.ones((0, 7))).shape == (0,)


@pytest.mark.parametrize("mode", jacobian.MODES)
def test_half_precision_is_summed_in_single(mode):
    # 4096 slopes of exactly one: a sum in bfloat16 would stop at 256.
    x = jnp.ones(4096, jnp.bfloat16)
    sq = jacobian.frobenius_sq(lambda x: x * x / 2, x, mode=mode)
    assert sq.dtype == jnp.float32
    assert float(sq) == 4096.0


@pytest.mark.parametrize("mode", jacobian.MODES)
@pytest.mark.parametrize("encoder", [MLP((30, 6), nn.tanh, nn.sigmoid), MLP((20, 3, 20, 40), nn.sigmoid)])
def test_computing_in_half_precision(encoder, mode):
    """Eight bits of a product are right to 2^-9 each; a norm of hundreds of entries, to 1 % with room to spare."""
    x = jax.random.uniform(jax.random.key(0), (8, 40))
    params = encoder.init(jax.random.key(1), x)["params"]
    half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), (params, x))
    found, exact = (_all_modes(encoder, [mode])(*arguments)[mode] for arguments in (half, (params, x)))
    np.testing.assert_allclose(found[0], exact[0], rtol=0.01)
    for a, b in zip(*map(jax.tree.leaves, (found[1], exact[1])), strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - b) <= 0.05 * np.linalg.norm(b)
