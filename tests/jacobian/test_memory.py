"""A bound on memory: XLA's own count of what a program needs is within every limit that is accepted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import jacobian
from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.nets import MLP, init_params


def _temporary(f, *args):
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_rows_and_columns_a_few_at_a_time(mode):
    f = lambda x: jnp.cumsum(jnp.sin(jnp.cumsum(jnp.sin(x)))) / 30
    x, limit = jax.random.normal(jax.random.key(1), (300,)), 300_000
    whole = jax.value_and_grad(lambda x: jacobian.frobenius_sq(f, x, mode=mode))
    bounded = jax.value_and_grad(lambda x: jacobian.frobenius_sq(f, x, mode=mode, memory_limit=limit))
    assert _temporary(bounded, x) <= limit < _temporary(whole, x)
    for a, b in zip(bounded(x), whole(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("dense", "forward"),
        ("dense", "reverse"),
        ("dense", "auto"),
        pytest.param("conv", "auto", marks=pytest.mark.slow),
    ],
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


class Pooled(nn.Module):
    """A convolution, pooling and a normalisation."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(8, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(4)(nn.GroupNorm(4)(x).reshape(len(x), -1))


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(16)(x)
        return nn.Dense(4)(x + nn.Dense(16)(nn.tanh(nn.Dense(32)(nn.LayerNorm()(x)))))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.RNN(nn.GRUCell(8))(x.reshape(len(x), 4, -1))[:, -1])


class Sorted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(jnp.sort(nn.tanh(nn.Dense(32)(x)), axis=-1))


@pytest.mark.parametrize(
    ("net", "shape", "mode", "parts"),
    [
        pytest.param(Pooled(), (8, 8, 1), "reverse", 1, marks=pytest.mark.slow),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (Pooled(), (8, 8, 1), "auto", 1),
                (Residual(), (32,), "auto", 2),
                (Recurrent(), (32,), "auto", 2),
            )
        ),
        (Sorted(), (32,), "auto", 2),
    ],
)
def test_limits_are_kept_by_every_kind_of_net(net, shape, mode, parts):
    """As much as is needed without a limit, or a part of it: loops over examples, which have to take less."""
    x = jax.random.uniform(jax.random.key(0), (32, *shape))
    params = net.init(jax.random.key(1), x)["params"]

    def needed(limit):
        norm = lambda p: jacobian.encoder_sq(net, p, x, mode=mode, memory_limit=limit).mean()
        return _temporary(jax.value_and_grad(norm), params)

    limit = needed(None) // parts
    assert needed(limit) <= limit


class Strided(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (8, 16):
            x = nn.relu(nn.Conv(features, (3, 3), (2, 2))(x))
        return nn.Dense(8)(x.reshape(len(x), -1))


@pytest.mark.slow
def test_what_all_examples_share_counts_too():
    """Of this net the cheapest way that holds little of an example has a Gram matrix of 384 KiB for all together."""
    net, x = Strided(), jax.random.uniform(jax.random.key(0), (32, 16, 16, 1))
    params = net.init(jax.random.key(1), x)["params"]
    for limit in (320_000, 328_000, 336_000):
        norm = lambda p, limit=limit: jacobian.encoder_sq(net, p, x, memory_limit=limit).mean()
        assert _temporary(jax.value_and_grad(norm), params) <= limit


def test_what_a_loop_keeps_of_all_examples_counts_too():
    net, x, limit = MLP((64, 8), nn.tanh, nn.tanh), jax.random.uniform(jax.random.key(0), (3000, 8)), 460_000
    params = net.init(jax.random.key(1), x)["params"]
    norm = lambda p: jacobian.encoder_sq(net, p, x, memory_limit=limit).mean()
    assert _temporary(jax.value_and_grad(norm), params) <= limit


def test_a_limit_that_cannot_be_kept_says_what_can():
    f = lambda x: jnp.tanh(jnp.cumsum(x))
    with pytest.raises(InputError, match="a single row of its Jacobian needs") as caught:
        jacobian.frobenius_sq(f, jnp.ones(120), mode="reverse", memory_limit=1000)
    more = int(str(caught.value).split("Allow at least ")[1].split()[0])
    assert np.isfinite(jacobian.frobenius_sq(f, jnp.ones(120), mode="reverse", memory_limit=1000 + more))


def test_a_limit_that_does_not_bind_changes_nothing():
    encoder, x = MLP((64,), final_activation=nn.sigmoid), jnp.ones((20, 50))
    params = encoder.init(jax.random.key(0), x)["params"]
    penalty = lambda limit: jax.value_and_grad(lambda p: jacobian.encoder_sq(encoder, p, x, memory_limit=limit).mean())
    assert str(jax.make_jaxpr(penalty(2**20))(params)) == str(jax.make_jaxpr(penalty(None))(params))
