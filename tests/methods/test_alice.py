"""ALICE: the loss by hand, a step against ALI's and finite differences, and where both losses come to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from affine_pairs import HAND, TINY, X, tiny

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ali import ALI, ali
from aejax.methods.alice import HParams, alice, alice_gen_loss
from aejax.methods.gan import GAN
from aejax.nets import MLP, init_params

KEY = jax.random.key(0)


def softplus(v):
    return np.log1p(np.exp(v))


def by_hand(key, cycle, w, m, u, v, a, k, c):
    """In float64, from the same draws: what each player lowers."""
    z, codes = np.asarray(jax.random.normal(jax.random.clone(key), (4, 1)), np.float64), u * X + v
    real, fake = a * X + k * codes + c, a * (w * z + m) + k * z + c
    recon = (0.5 * np.square(w * codes + m - X) + 0.5 * np.log(2 * np.pi)).mean()
    game = (softplus(real) + softplus(-fake)).mean()
    return {"disc": (softplus(-real) + softplus(fake)).mean(), "gen": game + cycle * recon}, game, recon


def test_the_loss_by_hand():
    losses, game, recon = by_hand(KEY, 0.4, **HAND)
    value, terms = alice_gen_loss(tiny(**HAND), Batch(jnp.float32(X)), KEY, model=TINY, cycle=0.4)
    assert float(value) == pytest.approx(losses["gen"], rel=1e-5)
    assert float(terms["game_nats"]) == pytest.approx(game, rel=1e-5)
    assert float(terms["recon_nats"]) == pytest.approx(recon, rel=1e-5)
    assert float(terms["sse"]) == pytest.approx(2 * recon - np.log(2 * np.pi), rel=1e-4)


@pytest.mark.parametrize("cycle", [0.0, 0.4])
def test_one_step_moves_both_players_from_where_both_were(cycle):
    """By central differences in float64; without the cycle it is the step of ALI."""
    algo = alice(TINY, HParams(lr=0.3, disc_lr=0.1, cycle=cycle), optax.sgd)
    state, _ = algo.step(algo.init(tiny(**HAND)), Batch(jnp.float32(X)), KEY)
    key, new = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), dict(HAND)
    for player, rate, names in (("gen", 0.3, "wmuv"), ("disc", 0.1, "akc")):
        for name in names:
            up, down = (by_hand(key, cycle, **{**HAND, name: HAND[name] + d})[0][player] for d in (1e-5, -1e-5))
            new[name] -= rate * (up - down) / 2e-5
    close = lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-4)
    jax.tree.map(close, state.params, tiny(**new))
    if not cycle:
        of_ali = ali(TINY, lr=0.3, disc_lr=0.1, tx=optax.sgd)
        other, _ = of_ali.step(of_ali.init(tiny(**HAND)), Batch(jnp.float32(X)), jax.random.clone(KEY))
        jax.tree.map(close, state.params, other.params)


@pytest.mark.slow
def test_the_cycle_and_the_game_end_at_rest_together():
    """Data and codes N(0, 1), affine maps: with the cycle they end as each other's inverse, and the game at rest.

    The discriminator that cannot tell has 2 log 2, so the cycle takes nothing from the game.
    """
    model = ALI.dense(1, 1, hidden_dims=(), likelihood="gaussian", discriminator=MLP((32, 32, 1)))
    x = jax.random.normal(jax.random.key(1), (4096, 1))
    falling = lambda lr: optax.adam(optax.linear_schedule(lr, 0.0, 1500), b1=0.5)
    algo = alice(model, HParams(lr=1e-2, disc_lr=1e-3, cycle=1.0), falling)

    def run(key):
        def step(state, i):
            rows = jax.random.randint(jax.random.fold_in(key, i), (256,), 0, len(x))
            return algo.step(state, Batch(x[rows]), KEY)

        state = algo.init(init_params(model, key, np.zeros((1, 1), np.float32)))
        state, metrics = jax.lax.scan(step, state, jnp.arange(1500))
        return metrics["gen/sse"][-100:].mean(), metrics["disc/loss"][-100:].mean()

    sse, disc = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(5), 3))
    assert (sse < 0.01).all()
    np.testing.assert_allclose(disc, 2 * np.log(2), atol=0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="ALI is needed"):
        alice(GAN.dense(6, 2))
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        alice(ALI.dense(6, 2, likelihood="gaussian_optimal"))
    with pytest.raises(InputError, match="cycle"):
        alice(TINY, cycle=-1.0)
