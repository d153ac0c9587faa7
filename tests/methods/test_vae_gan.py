"""VAE/GAN: the three losses and a step in float64, which gradient stops where, its equilibrium, its cost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from costs import flops

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.vae_gan import (
    VAEGAN,
    HParams,
    passes,
    vae_gan,
    vae_gan_dec_loss,
    vae_gan_disc_loss,
    vae_gan_enc_loss,
)
from aejax.nets import MLP, ConvEncoder, init_params

KEY = jax.random.key(0)
# One number, one code, one feature, all maps affine; the fields of `tiny` in their order.
TINY = VAEGAN.dense(1, 1, hidden_dims=(), likelihood="gaussian", hidden_layers=MLP((1,)), discriminator=MLP((1,)))
HAND = {"u": 0.7, "v": -0.2, "s": 0.1, "t": -1.0, "w": 0.5, "m": 1.0, "a": -1.5, "b": 0.4, "k": 0.8, "c": 0.3}
X = np.array([[0.5], [1.0], [-2.0], [0.1]])
GAMMA = 0.3


def dense(kernel, bias):
    return {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}


def tiny(u, v, s, t, w, m, a, b, k, c):
    encoder, decoder = dense([[u, s]], [v, t]), dense([[w]], [m])
    return {
        "encoder": encoder, "decoder": decoder, "hidden_layers": dense([[a]], [b]), "discriminator": dense([[k]], [c])
    }  # fmt: skip


def softplus(v):
    return np.log1p(np.exp(v))


def by_hand(key, u, v, s, t, w, m, a, b, k, c):
    """The losses of the paper in float64, from the same draws."""
    of_posterior, of_prior = (
        np.asarray(jax.random.normal(own, (4, 1)), np.float64) for own in jax.random.split(jax.random.clone(key))
    )
    mean, logvar = u * X + v, s * X + t
    rebuilt, drawn = (w * z + m for z in (mean + np.exp(logvar / 2) * of_posterior, of_prior))
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).mean()
    features = 0.5 * (np.square(a * (X - rebuilt)) + np.log(2 * np.pi)).mean()
    real, fake, prior = (k * (a * image + b) + c for image in (X, rebuilt, drawn))
    disc = (softplus(-real) + softplus(fake) + softplus(prior)).mean()
    surprise = (softplus(-fake) + softplus(-prior)).mean()
    right = np.concatenate([real > 0, fake < 0, prior < 0]).mean()
    terms = {"kl_nats": kl, "feature_nats": features, "surprise_nats": surprise, "accuracy": right}
    terms["sse"] = np.square(rebuilt - X).mean()
    return {"enc": kl + features, "dec": GAMMA * features + surprise, "disc": disc}, terms


def test_losses_by_hand():
    losses, terms = by_hand(KEY, **HAND)
    params, batch = tiny(**HAND), Batch(jnp.float32(X))
    for name, loss, own in (
        ("enc", vae_gan_enc_loss, {}),
        ("dec", vae_gan_dec_loss, {"gamma": GAMMA}),
        ("disc", vae_gan_disc_loss, {}),
    ):
        value, metrics = loss(params, batch, jax.random.clone(KEY), model=TINY, **own)
        assert float(value) == pytest.approx(losses[name], rel=1e-5), name
        for term, found in metrics.items():
            assert float(found) == pytest.approx(terms[term], rel=1e-5), term


def test_each_player_moves_its_own_networks_from_where_all_were():
    """Algorithm 1, by central differences in float64: whose loss moves what, with its sign, at the same draws."""
    rates = {"enc": 0.3, "dec": 0.2, "disc": 0.1}
    algo = vae_gan(TINY, HParams(lr=0.3, dec_lr=0.2, disc_lr=0.1, gamma=GAMMA), optax.sgd)
    state, _ = algo.step(algo.init(tiny(**HAND)), Batch(jnp.float32(X)), KEY)
    key, new = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), dict(HAND)
    for player, names in (("enc", "uvst"), ("dec", "wm"), ("disc", "abkc")):
        for name in names:
            up, down = (by_hand(key, **{**HAND, name: HAND[name] + step})[0][player] for step in (1e-5, -1e-5))
            new[name] -= rates[player] * (up - down) / 2e-5
    assert all(new[name] != HAND[name] for name in HAND)
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-4), state.params, tiny(**new))


def test_where_nobody_can_tell_one_in_three_is_data():
    """Of three kinds that look alike the best log-odds are -log 2: there the slope in the bias is zero."""
    params = tiny(**{**HAND, "k": 0.0, "c": -np.log(2)})
    loss = lambda params: vae_gan_disc_loss(params, Batch(jnp.float32(X)), KEY, model=TINY)[0]
    value, slopes = jax.value_and_grad(loss)(params)
    assert float(value) == pytest.approx(3 * np.log(3) - 2 * np.log(2), rel=1e-6)
    assert abs(float(slopes["discriminator"]["dense_0"]["bias"][0])) < 1e-6


def test_a_step_costs_no_more_than_one_pass_and_three_ways_back():
    model = VAEGAN.dense(64, 4, hidden_dims=(32,))
    algo = vae_gan(model, HParams(), optax.sgd)
    batch = Batch(jax.random.uniform(jax.random.key(1), (16, 64)))
    params = init_params(model, KEY, batch.x[:1])

    def fused(params, key):
        each, back = jax.vjp(lambda params: tuple(v.mean() for v in _outputs(params, key)), params)
        ones = ((1.0, 1.0, 0.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        enc, dec, disc = (back(tuple(jnp.float32(v) for v in each))[0] for each in ones)
        grads = {"encoder": enc, "decoder": dec, "hidden_layers": disc, "discriminator": disc}
        return {
            group: jax.tree.map(lambda p, g: p - 1e-3 * g, params[group], own[group]) for group, own in grads.items()
        }, each

    def _outputs(params, key):
        p = passes(model, params, batch, key)
        surprise = jax.nn.softplus(-p.rebuilt) + jax.nn.softplus(-p.drawn)
        disc = jax.nn.softplus(-p.real) + jax.nn.softplus(p.rebuilt) + jax.nn.softplus(p.drawn)
        return p.kl, p.feature_nll, surprise, disc

    played, by_hand = flops(algo.step, algo.init(params), batch, KEY), flops(fused, params, KEY)
    assert by_hand > 3 * 2 * 16 * sum(v.size for v in jax.tree.leaves(params))  # the count is of the products
    assert played <= 1.02 * by_hand


def test_the_discriminator_is_like_the_encoder_in_two_parts():
    model = VAEGAN.dense(6, 2, hidden_dims=(5, 3))
    params = init_params(model, KEY, np.zeros((1, 6), np.float32))
    features, logit = model.apply({"params": params}, -np.ones((2, 6), np.float32), method="look")
    assert (features >= 0).all()  # behind the activation
    np.testing.assert_allclose(logit, features @ params["discriminator"]["dense_0"]["kernel"], rtol=1e-6)
    assert VAEGAN.conv((4, 4, 1), 2, features=(3,), strides=(2,)).hidden_layers == ConvEncoder(3, (3,), (2,))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="give hidden_dims, or hidden_layers of your own"):
        VAEGAN.dense(6, 2, hidden_dims=())
    VAEGAN.dense(6, 2, hidden_dims=(3,))
    VAEGAN.dense(6, 2, hidden_dims=(), hidden_layers=MLP((3,)))
    with pytest.raises(InputError, match="beyond the cube of the uniform prior"):
        vae_gan(VAEGAN.dense(6, 2, prior="uniform"))
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        vae_gan(VAEGAN.dense(6, 2, likelihood="gaussian_optimal"))
    with pytest.raises(InputError, match="gamma"):
        vae_gan(TINY, gamma=-1.0)
