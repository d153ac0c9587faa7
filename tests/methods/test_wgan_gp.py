"""The WGAN with gradient penalty: critics whose slope is known, finite differences, five steps by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from weights import wide

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.gan import GAN
from aejax.methods.wgan_gp import METHOD, HParams, wgan_gp, wgan_gp_critic_loss, wgan_gp_gen_loss
from aejax.nets import MLP, init_params

KEY = jax.random.key(0)
# One number, one code, all maps affine: g(z) = w z + m, f(x) = a x + c.
TINY = GAN.dense(1, 1, hidden_dims=(), likelihood="gaussian")
MODEL = GAN.dense(3, 2, hidden_dims=(4,), likelihood="gaussian", discriminator=MLP((5, 1), nn.tanh))


def affine(slope, offset):
    return {"dense_0": {"kernel": jnp.full((1, 1), slope), "bias": jnp.full((1,), offset)}}


def tiny(w, m, a, c=0.0):
    return {"encoder": affine(0.7, -0.2), "decoder": affine(w, m), "discriminator": affine(a, c)}


@pytest.mark.parametrize("distance", [0.6, -3.0])
def test_the_best_critic_of_two_points_has_the_slope_that_paper_and_pencil_say(distance):
    """`a t + k (|a| - 1)^2` is least at `a = -sign(t) (1 + |t| / 2 k)`, where it is `-|t| - t^2 / 4 k`."""
    weight, size = 10.0, abs(distance)
    best = -np.sign(distance) * (1 + size / (2 * weight))
    batch = Batch(jnp.full((8, 1), 0.5))

    def loss(a):
        return wgan_gp_critic_loss(tiny(0.0, 0.5 + distance, a), batch, KEY, model=TINY, gradient_penalty=weight)

    (value, terms), slope = jax.value_and_grad(loss, has_aux=True)(jnp.float32(best))
    assert float(value) == pytest.approx(-size - size**2 / (4 * weight), rel=1e-5)
    assert abs(float(slope)) < 1e-5
    assert float(terms["wasserstein"]) == pytest.approx(size * (1 + size / (2 * weight)), rel=1e-5)
    assert float(terms["slope_gap_sq"]) == pytest.approx((size / (2 * weight)) ** 2, rel=1e-3)
    assert float(wgan_gp_gen_loss(tiny(0.0, 2.0, -1.5, 0.3), batch, KEY, model=TINY)[0]) == pytest.approx(2.7)


def test_a_linear_critic_has_the_norm_of_its_weights_everywhere():
    model = GAN.dense(3, 2, hidden_dims=(4,), likelihood="gaussian", discriminator=MLP((1,)))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    params = init_params(model, KEY, x)
    params["discriminator"] = {"dense_0": {"kernel": jnp.float32([[3.0], [0.0], [-4.0]]), "bias": jnp.ones(1)}}
    loss, terms = wgan_gp_critic_loss(params, Batch(x), KEY, model=model, gradient_penalty=2.0)
    assert float(terms["slope_gap_sq"]) == pytest.approx(16.0)  # (5 - 1)^2
    assert float(loss) == pytest.approx(32.0 - float(terms["wasserstein"]), rel=1e-6)


def test_the_penalty_is_that_of_finite_differences_and_so_is_its_gradient():
    """In float64, of a critic of two layers, at the points between the same pairs."""
    x = np.random.default_rng(0).normal(size=(6, 3))
    with jax.enable_x64(True):
        params = wide(init_params(MODEL, KEY, x.astype(np.float32)))
        params = jax.tree.map(lambda v: v + 0.1 * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape), params)
        batch, (draw_key, place_key) = Batch(jnp.asarray(x)), jax.random.split(KEY)
        loss = lambda own, **knobs: wgan_gp_critic_loss(params | own, batch, KEY, model=MODEL, **knobs)
        own = {"discriminator": params["discriminator"]}
        score = jax.jit(lambda v: MODEL.apply({"params": params}, v, method="discriminate")[:, 0])
        fake = np.asarray(MODEL.apply({"params": params}, draw_key, 6, method="sample"))
        share = np.asarray(jax.random.uniform(place_key, (6, 1)))
        between, h = share * x + (1 - share) * fake, 1e-6
        slopes = np.stack([(score(between + h * e) - score(between - h * e)) / (2 * h) for e in np.eye(3)], axis=1)
        value, terms = loss(own, gradient_penalty=3.0)
        gap = np.square(np.sqrt(np.square(slopes).sum(axis=1)) - 1).mean()
        apart = float((score(x) - score(fake)).mean())
        np.testing.assert_allclose(terms["slope_gap_sq"], gap, rtol=1e-8)
        np.testing.assert_allclose(terms["wasserstein"], apart, rtol=1e-12)
        np.testing.assert_allclose(value, 3 * gap - apart, rtol=1e-8)

        way = jax.tree.map(lambda v: jnp.sin(1.0 + jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape), own)
        along = jax.jit(lambda t: loss(jax.tree.map(lambda v, w: v + t * w, own, way), gradient_penalty=3.0)[0])
        by_differences = (along(h) - along(-h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(along)(0.0), by_differences, rtol=1e-7)


class Square(nn.Module):
    """`|x|^2 / 2`, whose slope is x; without parameters."""

    def __call__(self, x):
        return 0.5 * jnp.square(x).sum(axis=1, keepdims=True)


def test_points_lie_anywhere_between_the_two_each_at_a_place_of_its_own():
    """From 0 to 3 the slope is 3 u, and the mean of (3 u - 1)^2 for an even u is 1, that of (u - 1)^2 a third."""
    model = TINY.clone(discriminator=Square())
    for top, mean in ((3.0, 1.0), (1.0, 1 / 3)):
        gap = wgan_gp_critic_loss(tiny(0.0, 0.0, 0.0), Batch(jnp.full((40_000, 1), top)), KEY, model=model)[1]
        assert float(gap["slope_gap_sq"]) == pytest.approx(mean, abs=4 * 1.2 / 200)


def test_a_flat_critic_has_a_gradient():
    """The root of zero has none; the critic begins anew from there by its scores alone."""
    batch = Batch(jnp.ones((4, 1)))
    slope = jax.grad(lambda a: wgan_gp_critic_loss(tiny(0.0, 0.0, a), batch, KEY, model=TINY)[0])(0.0)
    assert float(slope) == pytest.approx(-1.0)  # of -(f(1) - f(0))


def test_one_step_is_five_of_the_critic_on_rows_of_their_own_and_one_of_the_others_by_hand():
    """Rows j, j + 5, ... are those of its step j, and each has noise of its own; by derivatives on paper."""
    x = np.random.default_rng(1).normal(size=(15, 1))
    w, m, a, c, u, v = 0.5, 1.0, -1.5, 0.3, 0.7, -0.2
    algo = wgan_gp(TINY, HParams(lr=0.2, critic_lr=0.01, gen_lr=0.3, gradient_penalty=4.0), optax.sgd)
    state, _ = algo.step(algo.init(tiny(w, m, a, c)), Batch(jnp.float32(x)), KEY)
    phase = [jax.random.fold_in(jax.random.fold_in(KEY, 0), i) for i in range(3)]
    normal = lambda key: np.asarray(jax.random.normal(key, (3, 1)), np.float64)
    for j in range(5):
        fake = w * normal(jax.random.split(jax.random.fold_in(phase[0], j))[0]) + m
        a -= 0.01 * ((fake - x[j::5]).mean() + 4.0 * 2 * (abs(a) - 1) * np.sign(a))
    z = normal(phase[1])
    w, m = w + 0.3 * (a * z).mean(), m + 0.3 * a
    z = normal(phase[2])
    off = u * (w * z + m) + v - z
    u, v = u - 0.2 * (off * (w * z + m)).mean(), v - 0.2 * off.mean()
    expected = {"encoder": affine(u, v), "decoder": affine(w, m), "discriminator": affine(a, c)}
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=2e-5), state.params, expected)


def test_batches_are_multiples_of_five():
    algo = wgan_gp(TINY)
    state = algo.init(tiny(0.5, 1.0, -1.5))
    with pytest.raises(InputError, match="15 or 20 would be"):
        algo.step(state, Batch(jnp.ones((16, 1))), KEY)
    for size in (15, 20):
        jax.eval_shape(algo.step, state, Batch(jnp.ones((size, 1))), KEY)
    assert [METHOD.batch_size(size) for size in (3, 5, 33)] == [5, 5, 30]  # as `learn` asks for them
    with pytest.raises(InputError, match="gradient_penalty"):
        wgan_gp(TINY, gradient_penalty=-1.0)
