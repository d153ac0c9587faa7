"""The AAE: who moves what, by how much, and where the game comes to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE, HParams, aae, aae_disc_loss, aae_gen_loss
from aejax.nets import MLP, init_params

LOG2 = 0.6931471805599453
NORMAL = priors.StandardNormal(2)
MODEL = AAE.dense(8, 2, hidden_dims=(16,), discriminator=MLP((16, 1)))
X = np.random.default_rng(0).random((32, 8)).astype(np.float32)
BATCH = Batch(jnp.asarray(X))

# One pixel, one code, all maps affine: z = w x, d(z) = a z + c
TINY = AAE.dense(1, 1, hidden_dims=(), likelihood="gaussian", discriminator=MLP((1,)))
TINY_X = np.array([[0.5], [1.0], [-2.0]])
W, A, C = 0.8, -1.5, 0.3
TINY_PARAMS = {
    "encoder": {"dense_0": {"kernel": jnp.full((1, 1), W), "bias": jnp.zeros(1)}},
    "decoder": {"dense_0": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}},
    "discriminator": {"dense_0": {"kernel": jnp.full((1, 1), A), "bias": jnp.full((1,), C)}},
}


def only(player):
    """Learning rates that name the players, and an optimiser that lets one of them move, by plain gradients."""
    rates = {"recon": 1.0, "disc": 2.0, "gen": 3.0}
    hparams = HParams(lr=rates["recon"], disc_lr=rates["disc"], gen_lr=rates["gen"])
    return hparams, lambda lr: optax.sgd(1.0) if lr == rates[player] else optax.set_to_zero()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("player", "groups"),
    [("recon", {"encoder", "decoder"}), ("disc", {"discriminator"}), ("gen", {"encoder"})],
)
def test_each_player_moves_exactly_its_groups(player, groups):
    algo = aae(MODEL, *only(player))
    before = init_params(MODEL, jax.random.key(0), BATCH.x)
    after = algo.step(algo.init(before), BATCH, jax.random.key(1))[0].params
    moved = {
        group
        for group in before
        if not all(
            np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before[group], after[group])), strict=True)
        )
    }
    assert moved == groups


def test_a_discriminator_that_cannot_tell_sits_at_two_log_two():
    params = init_params(MODEL, jax.random.key(0), BATCH.x)
    params["discriminator"]["dense_1"] = jax.tree.map(jnp.zeros_like, params["discriminator"]["dense_1"])
    disc, metrics = aae_disc_loss(params, BATCH, jax.random.key(1), model=MODEL, prior=NORMAL)
    gen, _ = aae_gen_loss(params, BATCH, jax.random.key(2), model=MODEL)
    np.testing.assert_allclose([disc, gen, metrics["accuracy"]], [2 * LOG2, LOG2, 0.5], rtol=1e-6)


def test_losses_by_hand():
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    key = jax.random.key(3)
    logits = A * W * TINY_X + C
    prior_logits = A * np.asarray(jax.random.normal(key, (3, 1))) + C
    disc, metrics = aae_disc_loss(
        TINY_PARAMS, Batch(jnp.asarray(TINY_X)), jax.random.clone(key), model=TINY, prior=priors.StandardNormal(1)
    )
    gen, _ = aae_gen_loss(TINY_PARAMS, Batch(jnp.asarray(TINY_X)), key, model=TINY)
    np.testing.assert_allclose(
        disc, -np.log(sigmoid(prior_logits)).mean() - np.log(1 - sigmoid(logits)).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(gen, -np.log(sigmoid(logits)).mean(), rtol=1e-5)
    right = np.concatenate([prior_logits > 0, logits < 0]).mean()
    np.testing.assert_allclose(metrics["accuracy"], right)


def test_the_encoder_climbs_the_discriminator_by_hand():
    # d/dw of mean softplus(-(a w x + c)) = -mean sigmoid(-(a w x + c)) a x
    algo = aae(TINY, *only("gen"))
    state, _ = algo.step(algo.init(TINY_PARAMS), Batch(jnp.asarray(TINY_X)), jax.random.key(0))
    pull = (1 / (1 + np.exp(A * W * TINY_X + C)) * A * TINY_X).mean()
    np.testing.assert_allclose(state.params["encoder"]["dense_0"]["kernel"], [[W + pull]], rtol=1e-5)


def test_the_game_is_the_three_steps_of_the_paper_in_their_order():
    """Against the loop that one would write by hand, with its noise drawn from the same keys."""
    hparams = HParams(lr=3e-3, disc_lr=2e-3, gen_lr=1e-3)
    algo = aae(MODEL, hparams, lambda lr: optax.sgd(lr, momentum=0.9))
    params = init_params(MODEL, jax.random.key(0), BATCH.x)
    run_key = jax.random.key(7)

    def dense(layers, x):
        hidden = jax.nn.relu(x @ layers["dense_0"]["kernel"] + layers["dense_0"]["bias"][None])
        return hidden @ layers["dense_1"]["kernel"] + layers["dense_1"]["bias"][None]

    def recon(own):
        logits = dense(own[1], dense(own[0], X))
        return (jnp.logaddexp(0, logits) - X * logits).sum(1).mean()

    def disc(own, enc, prior):
        return jnp.logaddexp(0, -dense(own, prior)).mean() + jnp.logaddexp(0, dense(own, dense(enc, X))).mean()

    def gen(own, dis):
        return jnp.logaddexp(0, -dense(dis, dense(own, X))).mean()

    enc, dec, dis = params["encoder"], params["decoder"], params["discriminator"]
    recon_tx, disc_tx, gen_tx = (optax.sgd(lr, momentum=0.9) for lr in hparams)
    recon_opt, disc_opt, gen_opt = recon_tx.init((enc, dec)), disc_tx.init(dis), gen_tx.init(enc)

    @jax.jit
    def by_hand(enc, dec, dis, recon_opt, disc_opt, gen_opt, prior):
        updates, recon_opt = recon_tx.update(jax.grad(recon)((enc, dec)), recon_opt)
        enc, dec = optax.apply_updates((enc, dec), updates)
        updates, disc_opt = disc_tx.update(jax.grad(disc)(dis, enc, prior), disc_opt)
        dis = optax.apply_updates(dis, updates)
        updates, gen_opt = gen_tx.update(jax.grad(gen)(enc, dis), gen_opt)
        return optax.apply_updates(enc, updates), dec, dis, recon_opt, disc_opt, gen_opt

    state, step = algo.init(params), jax.jit(algo.step)
    for i in range(20):
        state, _ = step(state, BATCH, run_key)
        noise = jax.random.normal(jax.random.fold_in(jax.random.fold_in(run_key, i), 1), (32, 2))
        enc, dec, dis, recon_opt, disc_opt, gen_opt = by_hand(enc, dec, dis, recon_opt, disc_opt, gen_opt, noise)

    expected = {"encoder": enc, "decoder": dec, "discriminator": dis}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, expected)


def test_the_prior_is_given_by_name_or_as_itself():
    params = init_params(MODEL, jax.random.key(0), BATCH.x)
    losses = []
    for prior in ("swiss_roll", priors.SwissRoll(), "normal"):
        algo = aae(MODEL, prior=prior)
        losses.append(algo.evaluate(algo.init(params), BATCH, jax.random.key(1))["disc/loss"])
    assert losses[0] == losses[1] != losses[2]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="latent_dim is 2"):
        aae(MODEL, prior=priors.StandardNormal(3))
    with pytest.raises(InputError, match="Did you mean 'normal'"):
        aae(MODEL, prior="normel")
    with pytest.raises(InputError, match="disc_lr"):
        aae(MODEL, HParams(disc_lr=-1.0))
