"""HALI: losses and a step in float64, a chain whose inverse is known, its levels of reconstruction, and its cost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from affine_pairs import X, dense
from costs import check_cost

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ali import ALI, HParams
from aejax.methods.hali import HALI, hali, hali_disc_loss, hali_gen_loss
from aejax.nets import MLP, ConvEncoder, Labelled, init_params

KEY = jax.random.key(0)
LOG2 = np.log(2)
# One number and one code of either layer, all maps affine; the fields of `tiny` in their order.
TINY = HALI.dense(1, 2, hidden_dims=(), likelihood="gaussian", upper_encoder=MLP((2,)), upper_decoder=MLP((2,)))
HAND = {
    "u": 0.7, "v": -0.2, "s": 0.1, "t": -1.0, "U": -0.6, "V": 0.3, "S": 0.2, "T": -0.5, "w": 0.5, "m": 1.0,
    "W": 1.2, "M": -0.1, "A": 0.3, "B": -0.7, "a": -1.5, "k": 0.8, "h": -0.4, "c": 0.3,
}  # fmt: skip


def tiny(u, v, s, t, U, V, S, T, w, m, W, M, A, B, a, k, h, c):
    return {
        "encoder": dense([[u, s]], [v, t]), "upper_encoder": dense([[U, S]], [V, T]), "decoder": dense([[w]], [m]),
        "upper_decoder": dense([[W, A]], [M, B]), "discriminator": dense([[a], [k], [h]], [c]),
    }  # fmt: skip


def softplus(v):
    return np.log1p(np.exp(v))


def by_hand(key, u, v, s, t, U, V, S, T, w, m, W, M, A, B, a, k, h, c):
    """In float64, from the same draws: what each player lowers, and the other terms."""
    code_key, prior_key = jax.random.split(jax.random.clone(key))
    lower_noise, upper_noise = np.split(np.asarray(jax.random.normal(code_key, (4, 2)), np.float64), 2, axis=1)
    upper_key, lower_key = jax.random.split(prior_key)
    z2, noise = (np.asarray(jax.random.normal(own, (4, 1)), np.float64) for own in (upper_key, lower_key))
    lower = u * X + v + np.exp((s * X + t) / 2) * lower_noise
    upper = U * lower + V + np.exp((S * lower + T) / 2) * upper_noise
    z1 = W * z2 + M + np.exp((A * z2 + B) / 2) * noise
    real, fake = a * X + k * lower + h * upper + c, a * (w * z1 + m) + k * z1 + h * z2 + c
    losses = {"disc": (softplus(-real) + softplus(fake)).mean(), "gen": (softplus(real) + softplus(-fake)).mean()}
    terms = {"accuracy": np.concatenate([real > 0, fake < 0]).mean()}
    terms["sse"] = np.square(w * lower + m - X).mean()
    terms["upper_sse"] = np.square(w * (W * upper + M) + m - X).mean()
    return losses, terms


def test_losses_by_hand():
    losses, terms = by_hand(KEY, **HAND)
    params, batch = tiny(**HAND), Batch(jnp.float32(X))
    for name, loss in (("disc", hali_disc_loss), ("gen", hali_gen_loss)):
        value, metrics = loss(params, batch, jax.random.clone(KEY), model=TINY)
        assert float(value) == pytest.approx(losses[name], rel=1e-5)
        for term, found in metrics.items():
            assert float(found) == pytest.approx(terms[term], rel=1e-5), term


def test_one_step_moves_both_players_from_where_both_were():
    """By central differences in float64, at the same draws: the discriminator, and all four other networks."""
    algo = hali(TINY, HParams(lr=0.3, disc_lr=0.1), optax.sgd)
    state, _ = algo.step(algo.init(tiny(**HAND)), Batch(jnp.float32(X)), KEY)
    key, new = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), dict(HAND)
    for player, rate, names in (("gen", 0.3, "uvstUVSTwmWMAB"), ("disc", 0.1, "akhc")):
        for name in names:
            up, down = (by_hand(key, **{**HAND, name: HAND[name] + d})[0][player] for d in (1e-5, -1e-5))
            new[name] -= rate * (up - down) / 2e-5
    assert all(new[name] != HAND[name] for name in HAND)
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-4), state.params, tiny(**new))


class Products(nn.Module):
    """A quadratic form of x and both codes, which a joint normal density has as its log."""

    @nn.compact
    def __call__(self, x, z):
        form = self.param("form", nn.initializers.zeros, (3, 3))
        v = jnp.concatenate([x, z], axis=1)
        return jnp.einsum("bi,ij,bj->b", v, form, v)[:, None]


def chain(upper_slope=0.8):
    """x = 2 lower, lower = 0.8 upper + 0.6 noise; inferred by the exact conditionals, with that slope."""
    never = 2 * np.log(1e-4)
    of = {"u": 0.5, "v": 0, "s": 0, "t": never, "U": upper_slope, "V": 0, "S": 0, "T": 2 * np.log(0.6)}
    of |= {"w": 2, "m": 0, "W": 0.8, "M": 0, "A": 0, "B": 2 * np.log(0.6)}
    return tiny(**HAND | of)


def test_conditionals_that_are_inverses_cannot_be_told_apart():
    """Data N(0, 4): both directions are one joint distribution, and no quadratic discriminator has a slope.

    With an upper code of the other sign all margins are as they were, but the mean of its product with the lower one is
    -0.8 and not 0.8, that with x -1.6 and not 1.6.
    """
    n, model = 100_000, TINY.clone(discriminator=Products())
    batch = Batch(2 * jax.random.normal(jax.random.key(1), (n, 1)))

    @jax.jit
    def found(params):
        of_disc = lambda form: hali_disc_loss(params | {"discriminator": {"form": form}}, batch, KEY, model=model)[0]
        return jax.value_and_grad(of_disc)(jnp.zeros((3, 3)))

    np.testing.assert_allclose(found(chain())[0], 2 * LOG2, rtol=1e-6)
    slopes = lambda upper_slope: np.asarray(found(chain(upper_slope))[1])
    size = np.outer([2, 1, 1], [2, 1, 1])  # of the products
    error = 4 * size * np.sqrt(2) / np.sqrt(2 * n)  # of half the difference of two means
    assert (np.abs(slopes(0.8)) < error).all()
    turned = np.array([[0, 0, 1.6], [0, 0, 0.8], [1.6, 0.8, 0]])
    assert (np.abs(slopes(-0.8) - turned) < error).all()


def test_an_image_comes_back_in_more_detail_from_the_lower_code():
    """At that equilibrium exactly from the lower code; from the upper one up to the variance of x given it, 4 0.36."""
    n = 20_000
    x = 2 * jax.random.normal(jax.random.key(2), (n, 1))
    _, terms = hali_gen_loss(chain(), Batch(x), KEY, model=TINY)
    assert float(terms["sse"]) < 1e-6
    # x - 1.6 upper, of a draw of the upper code, is 2 (lower - 0.8 upper), which has the deviation 2 0.6
    assert float(terms["upper_sse"]) == pytest.approx(4 * 0.36, rel=4 * np.sqrt(2 / n))


@pytest.mark.slow
def test_a_step_costs_no_more_than_one_pass_and_two_ways_back():
    model = HALI.dense(64, 6, hidden_dims=(32,), likelihood="gaussian")
    algo = hali(model, tx=optax.sgd)
    batch = Batch(jax.random.uniform(jax.random.key(1), (16, 64)))
    params = init_params(model, KEY, batch.x[:1])

    def outputs(params, key):
        bound, (code_key, prior_key) = model.bind({"params": params}), jax.random.split(key)
        codes, z = bound.encode(batch.x).sample(code_key), bound.sample_prior(prior_key, 16)
        real, fake = bound.discriminate(batch.x, codes), bound.discriminate(bound.generate(z), z)
        errors = [
            jnp.square(of(codes) - batch.x).sum(axis=1).mean() for of in (bound.generate, bound.generate_from_upper)
        ]
        return tuple((jax.nn.softplus(-a) + jax.nn.softplus(b)).mean() for a, b in ((real, fake), (fake, real))), errors

    check_cost(algo, params, batch, outputs)


def test_the_discriminator_is_like_the_encoder_with_both_codes_behind_the_data():
    model = HALI.dense(6, 3, hidden_dims=(5,))
    assert model.discriminator == MLP((5, 1))
    params = init_params(model, KEY, np.zeros((1, 6), np.float32))
    assert params["discriminator"]["dense_0"]["kernel"].shape == (9, 5)
    assert HALI.conv((4, 4, 1), 3, features=(3,), strides=(2,)).discriminator == Labelled(
        ConvEncoder(1, (3,), (2,)), None
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="cannot be tied"):
        HALI.dense(6, 3, tied=True)
    with pytest.raises(InputError, match="hali takes a HALI"):
        hali(ALI.dense(6, 3))
    with pytest.raises(InputError, match="leave ladder out"):
        hali(HALI.dense(6, 3, ladder=True))
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        hali(HALI.dense(6, 3, likelihood="gaussian_optimal"))
    with pytest.raises(InputError, match="disc_lr"):
        hali(TINY, disc_lr=-1.0)
    with pytest.raises(InputError, match="two layers take at least 2"):
        HALI.dense(6, 1)
