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
EXACT = ("forward", "reverse", "auto")


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
    for mode in EXACT:
        assert float(jacobian.frobenius_sq(f, jnp.array([2.0, 5.0]), mode=mode)) == 54.0
    # All weights one, sigmoid at zero: slope 1/4, so each of 3 x 2 entries is 1/4, and 6 / 16 = 0.375.
    params = {"dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.full(2, -3.0)}}
    for mode in jacobian.MODES:
        sq = jacobian.encoder_sq(MLP((2,), final_activation=nn.sigmoid), params, jnp.ones((4, 3)), mode=mode)
        np.testing.assert_allclose(sq, np.full(4, 0.375), rtol=1e-6)


def test_shapes_are_flattened():
    f = lambda image: jnp.stack([image.sum(), (2 * image).sum()])[None, :, None]  # 6 ones and 6 twos
    for mode in EXACT:
        assert float(jacobian.frobenius_sq(f, jnp.ones((2, 3)), mode=mode)) == 6 + 24


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: getattr(a, "__name__", "identity"))
def test_closed_form_equals_both_modes_in_value_and_gradient(activation, dtype):
    _check_modes_agree(MLP((6,), final_activation=activation), dtype, jacobian.MODES)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("encoder", [MLP((6,), use_bias=False), MLP((4, 3), nn.tanh, nn.sigmoid), MLP((8, 5, 9))])
def test_the_modes_agree_without_biases_and_for_deep_encoders(encoder, dtype):
    _check_modes_agree(encoder, dtype, EXACT)


def _check_modes_agree(encoder, dtype, modes):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        found = _all_modes(encoder, modes)(*_setup(encoder, dtype))
    for mode in modes:
        assert found[mode][0].dtype == dtype
        _assert_close(found[mode], found["forward"], {jnp.float64: 1e-12, jnp.float32: 1e-5}[dtype])


@pytest.mark.parametrize(
    ("encoder", "modes"),
    [(MLP((6,), final_activation=a), jacobian.MODES) for a in (nn.sigmoid, nn.tanh, nn.softplus)]
    + [(MLP((6, 3), nn.softplus, nn.sigmoid), EXACT)],
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


def test_an_activation_that_mixes_its_inputs_has_no_closed_form():
    # Softmax of equal inputs over two: slopes are +-1/4. With the kernel (1, 0; 0, 1) the norm is 4 / 16.
    encoder, params = MLP((2,), final_activation=nn.softmax, use_bias=False), {"dense_0": {"kernel": jnp.eye(2)}}
    np.testing.assert_allclose(jacobian.encoder_sq(encoder, params, jnp.zeros((1, 2))), [0.25])
    with pytest.raises(InputError, match=r"MLP of 1 layers with softmax .* Use forward, reverse or auto"):
        jacobian.encoder_sq(encoder, params, jnp.zeros((1, 2)), mode="closed")


def test_modes_that_do_not_work_are_refused():
    deep = MLP((3, 2))
    params, x = _setup(deep, jnp.float32)
    with pytest.raises(InputError, match="Did you mean 'reverse'"):
        jacobian.encoder_sq(deep, params, x, mode="revers")
    with pytest.raises(InputError, match=r"MLP of 2 layers .* Use forward, reverse or auto"):
        jacobian.encoder_sq(deep, params, x, mode="closed")
    with pytest.raises(InputError, match="use forward, reverse or auto"):
        jacobian.frobenius_sq(jnp.sin, jnp.ones(2), mode="closed")


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
    np.testing.assert_allclose(jacobian.embedding_sq(plain, params, x, mode="closed"), linear, rtol=1e-6)
    with pytest.raises(InputError, match=r"Rescaled\.embed does more"):
        jacobian.embedding_sq(rescaled, params, x, mode="closed")


def test_convolutional_encoders():
    model = AE.conv((5, 6, 2), 3, features=(4,), strides=(2,), activation=nn.tanh)
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 2))
    params = init_params(model, jax.random.key(1), x)
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda v: v.astype(jnp.float64), (params, x))
        slow = _slow_sq(model.bind({"params": params}).encode, x)
        found = jax.jit(lambda x: [jacobian.embedding_sq(model, params, x, mode=mode) for mode in EXACT[:2]])(x)
        for rows in found:
            np.testing.assert_allclose(rows, slow, rtol=1e-8)


def test_inside_every_transform():
    model = CAE.dense(8, 4)
    x = jax.random.uniform(jax.random.key(0), (8, 8))
    params = init_params(model, jax.random.key(1), x)
    rows = jacobian.embedding_sq(model, params, x)
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    sharded = jax.shard_map(partial(jacobian.embedding_sq, model, params), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(jax.jit(sharded)(x), rows, rtol=1e-6)
    lanes = jax.vmap(partial(jacobian.embedding_sq, model), (None, 0))(params, x[:, None])
    np.testing.assert_allclose(lanes[:, 0], rows, rtol=1e-6)
    _, scanned = jax.lax.scan(lambda c, row: (c, jacobian.embedding_sq(model, params, row[None])[0]), 0, x)
    np.testing.assert_allclose(scanned, rows, rtol=1e-6)


def _flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_the_closed_form_costs_as_much_as_the_layer():
    encoder = MLP((50,), final_activation=nn.sigmoid)
    params, x = _setup(encoder, jnp.float32, (20, 64))
    flops = {mode: _flops(jax.value_and_grad(_penalty(encoder, mode)), params, x) for mode in jacobian.MODES}
    layer = _flops(jax.value_and_grad(lambda p, x: encoder.apply({"params": p}, x).sum()), params, x)
    # Reverse mode pulls 50 outputs back through each layer, forward mode scales 64 tangents for each example.
    assert flops["closed"] < 1.5 * layer
    assert flops["closed"] * 5 < flops["forward"]
    assert flops["closed"] * 50 < flops["reverse"]
    assert flops["auto"] == flops["closed"]


def test_auto_takes_the_cheaper_mode_of_a_deep_encoder():
    for width, best in [(4, "reverse"), (60, "forward")]:
        encoder = MLP((32, width), nn.tanh, nn.sigmoid)
        params, x = _setup(encoder, jnp.float32, (16, 30))
        flops = {mode: _flops(_penalty(encoder, mode), params, x) for mode in EXACT}
        assert min(flops, key=flops.get) in (best, "auto")
        assert flops["auto"] == flops[best]


def bounded(z):
    """The identity on short vectors, and not element-wise on long ones."""
    return z / jnp.maximum(2.0, jnp.linalg.norm(z, axis=-1, keepdims=True))


def test_auto_takes_the_closed_form_only_of_activations_that_it_knows():
    encoder = MLP((3,), final_activation=bounded)
    x = 4.0 * jax.random.normal(jax.random.key(0), (5, 6))
    params = encoder.init(jax.random.key(1), x)["params"]
    forward = jacobian.encoder_sq(encoder, params, x, mode="forward")
    np.testing.assert_allclose(jacobian.encoder_sq(encoder, params, x), forward, rtol=1e-5)
    with pytest.raises(InputError, match="element-wise"):
        jacobian.encoder_sq(encoder, params, x, mode="closed")
