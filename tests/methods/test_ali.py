"""ALI: losses and a step by hand, its cost, pairs that cannot be told apart where the encoder is the inverse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from affine_pairs import HAND, TINY, X, tiny
from costs import check_cost

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ali import ALI, HParams, ali, ali_disc_loss, ali_gen_loss
from aejax.methods.alice import alice
from aejax.nets import MLP, ConvEncoder, Labelled, init_params

KEY = jax.random.key(0)
LOG2 = np.log(2)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def pairs(w, m, u, v, a, k, c, key=KEY):
    """In float64: the draws, the codes of X, and the log-odds of both kinds of pairs."""
    z, codes = np.asarray(jax.random.normal(key, (4, 1)), np.float64), u * X + v
    return z, codes, a * X + k * codes + c, a * (w * z + m) + k * z + c


def test_losses_by_hand():
    _, codes, real, fake = pairs(**HAND)
    disc, terms = ali_disc_loss(tiny(**HAND), Batch(jnp.float32(X)), KEY, model=TINY)
    assert float(disc) == pytest.approx(-(np.log(sigmoid(real)) + np.log(1 - sigmoid(fake))).mean(), rel=1e-5)
    assert float(terms["accuracy"]) == pytest.approx(np.concatenate([real > 0, fake < 0]).mean())
    gen, terms = ali_gen_loss(tiny(**HAND), Batch(jnp.float32(X)), jax.random.clone(KEY), model=TINY)
    assert float(gen) == pytest.approx(-(np.log(1 - sigmoid(real)) + np.log(sigmoid(fake))).mean(), rel=1e-5)
    error = HAND["w"] * codes + HAND["m"] - X
    assert float(terms["sse"]) == pytest.approx(np.square(error).mean(), rel=1e-5)


def test_one_step_moves_both_players_from_where_both_were():
    """As in algorithm 1, on the same pairs; by derivatives on paper."""
    algo = ali(TINY, HParams(lr=0.3, disc_lr=0.1), optax.sgd)
    state, _ = algo.step(algo.init(tiny(**HAND)), Batch(jnp.float32(X)), KEY)
    new, (w, m, a, k) = dict(HAND), (HAND[name] for name in "wmak")
    z, codes, real, fake = pairs(**HAND, key=jax.random.fold_in(jax.random.fold_in(KEY, 0), 0))
    on_real, on_fake = -sigmoid(-real), sigmoid(fake)  # of the discriminator's loss, in the log-odds
    for name, of_real, of_fake in (("a", X, w * z + m), ("k", codes, z), ("c", 1.0, 1.0)):
        new[name] -= 0.1 * (on_real * of_real + on_fake * of_fake).mean()
    pull = sigmoid(real) * k  # of the other loss, in the codes
    for name, of_code in (("u", X), ("v", 1.0)):
        new[name] -= 0.3 * (pull * of_code).mean()
    push = -sigmoid(-fake) * a
    for name, of_data in (("w", z), ("m", 1.0)):
        new[name] -= 0.3 * (push * of_data).mean()
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-5), state.params, tiny(**new))


@pytest.mark.parametrize("cycle", [0.0, 0.4])
def test_a_step_costs_no_more_than_one_pass_and_two_ways_back(cycle):
    """By the compiler's count; of ALI, and of ALICE, whose reconstruction is the one that ALI reports the error of."""
    model = ALI.dense(64, 4, hidden_dims=(32,), likelihood="gaussian")
    algo = alice(model, cycle=cycle, tx=optax.sgd) if cycle else ali(model, tx=optax.sgd)
    batch = Batch(jax.random.uniform(jax.random.key(1), (16, 64)))
    params = init_params(model, KEY, batch.x[:1])

    def outputs(params, key):
        bound, z = model.bind({"params": params}), jax.random.normal(key, (16, 4))
        codes = bound.encode(batch.x)
        real, fake = bound.discriminate(batch.x, codes), bound.discriminate(bound.generate(z), z)
        sse = jnp.square(bound.generate(codes) - batch.x).sum(axis=1).mean()
        disc, gen = ((jax.nn.softplus(-a) + jax.nn.softplus(b)).mean() for a, b in ((real, fake), (fake, real)))
        return (disc, gen + cycle * sse / 2 if cycle else gen), sse

    check_cost(algo, params, batch, outputs)


class Product(nn.Module):
    """`a x z + b x^2 + e z^2 + c`, of which a joint normal density has its log."""

    @nn.compact
    def __call__(self, x, z):
        a, b, e, c = (self.param(name, nn.initializers.zeros, ()) for name in "abec")
        return a * x * z + b * jnp.square(x) + e * jnp.square(z) + c


def test_an_encoder_that_is_the_inverse_cannot_be_told_from_the_decoder():
    """Data N(0, 4) and g(z) = 2 z: with e(x) = x / 2 both kinds of pairs are one, and so no discriminator has a slope.

    With e(x) = -x / 2 each of the two is as it was, but the product x z has the mean -2 and not 2.
    """
    n, model = 100_000, TINY.clone(discriminator=Product())
    batch = Batch(2 * jax.random.normal(jax.random.key(1), (n, 1)))

    def losses(own, u):
        params = {**tiny(**{**HAND, "w": 2, "m": 0, "u": u, "v": 0}), "discriminator": own}
        return [loss(params, batch, KEY, model=model)[0] for loss in (ali_disc_loss, ali_gen_loss)]

    zeros = dict.fromkeys("abec", jnp.float32(0))
    np.testing.assert_allclose(losses(zeros, 0.5), 2 * LOG2, rtol=1e-6)
    slopes = lambda u: {name: float(v) for name, v in jax.grad(lambda own: losses(own, u)[0])(zeros).items()}
    error = lambda deviation: 4 * deviation / np.sqrt(2 * n)  # of half the difference of two means
    inverse = slopes(0.5)
    assert abs(inverse["a"]) < error(2 * np.sqrt(2))
    assert abs(inverse["b"]) < error(4 * np.sqrt(2))
    assert abs(inverse["e"]) < error(np.sqrt(2))
    assert slopes(-0.5)["a"] == pytest.approx(2.0, abs=error(2 * np.sqrt(2)))


@pytest.mark.slow
def test_encoder_and_decoder_become_each_others_inverse():
    """Data N(1, 1/4), all maps affine: the decoder's slope ends at 1/2 or -1/2, the encoder's at its inverse."""
    model = ALI.dense(1, 1, hidden_dims=(), likelihood="gaussian", discriminator=MLP((32, 32, 1)))
    falling = lambda lr: optax.adam(optax.linear_schedule(lr, 0.0, 5000), b1=0.5)
    algo = ali(model, HParams(lr=1e-2, disc_lr=1e-3), falling)

    def run(key):
        def step(state, i):
            x = 1 + 0.5 * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (256, 1))
            return algo.step(state, Batch(x), KEY)

        state = algo.init(init_params(model, key, np.zeros((1, 1), np.float32)))
        state, metrics = jax.lax.scan(step, state, jnp.arange(5000))
        return state.params, {name: values[-100:].mean() for name, values in metrics.items()}

    params, ends = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(5), 2))
    decoder, encoder = (params[group]["dense_0"] for group in ("decoder", "encoder"))
    w, u = decoder["kernel"][:, 0, 0], encoder["kernel"][:, 0, 0]
    np.testing.assert_allclose(np.abs(w), 0.5, atol=0.05)
    np.testing.assert_allclose(decoder["bias"], 1.0, atol=0.05)
    np.testing.assert_allclose(u * w, 1.0, atol=0.1)
    np.testing.assert_allclose(ends["disc/loss"], 2 * LOG2, atol=0.01)
    assert (ends["gen/sse"] < 0.05 * 0.25).all()  # of the variance of the data


def test_the_discriminator_is_like_the_encoder_with_codes_behind_the_data():
    model = ALI.dense(6, 2, hidden_dims=(5,))
    assert model.discriminator == MLP((5, 1))
    params = init_params(model, KEY, np.zeros((1, 6), np.float32))
    assert params["discriminator"]["dense_0"]["kernel"].shape == (8, 5)
    assert ALI.conv((4, 4, 1), 2, features=(3,), strides=(2,)).discriminator == Labelled(
        ConvEncoder(1, (3,), (2,)), None
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="use tied=False"):
        ALI.dense(6, 2, tied=True)
    ALI.dense(6, 2, tied=False)
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        ali(ALI.dense(6, 2, likelihood="gaussian_optimal"))
    ali(ALI.dense(6, 2, likelihood="gaussian"))
    with pytest.raises(InputError, match="disc_lr"):
        ali(TINY, disc_lr=-1.0)
