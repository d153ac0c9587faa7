"""The FactorVAE: what a permutation keeps and breaks, the best discriminator in closed form, both steps of the game."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from weights import check_weights, wide

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.factor_vae import (
    FactorVAE,
    HParams,
    factor_vae,
    factor_vae_disc_loss,
    factor_vae_loss,
    permute_dims,
)
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import MLP, init_params

KEY = jax.random.key(0)
MODEL = FactorVAE.dense(6, 2, hidden_dims=(), likelihood="gaussian", discriminator=MLP((8, 1), nn.tanh))
X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
R = 0.8  # correlation of the toy's two codes


class Quadratic(nn.Module):
    """`c + a z_1 z_2 + b (z_1^2 + z_2^2)`: the log-ratio of two Gaussians in the plane is one of these."""

    @nn.compact
    def __call__(self, z):
        a, b, c = (self.param(name, nn.initializers.zeros, ()) for name in "abc")
        return (c + a * z[:, 0] * z[:, 1] + b * jnp.square(z).sum(axis=1))[:, None]


TOY = FactorVAE.dense(2, 2, hidden_dims=(), likelihood="gaussian", discriminator=Quadratic())


def toy_params(**quadratic):
    """Codes that are the data, but for a noise of e^-40."""
    params = init_params(TOY, KEY, jnp.zeros((1, 2)))
    kernel = np.concatenate([np.eye(2), np.zeros((2, 2))], axis=1)
    encoder = {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32([0, 0, -80, -80])}}
    return params | {"encoder": encoder, "discriminator": {k: jnp.float32(v) for k, v in quadratic.items()}}


def log_ratio():
    """log N(0, [[1, r], [r, 1]]) - log N(0, I), for two codes of variance 1 and correlation r."""
    det = 1 - R**2
    return {"a": R / det, "b": -(R**2) / (2 * det), "c": -0.5 * np.log(det)}


def correlated(key, n):
    z = jax.random.normal(key, (n, 2))
    return jnp.stack([z[:, 0], R * z[:, 0] + np.sqrt(1 - R**2) * z[:, 1]], axis=1)


def test_a_permutation_keeps_every_marginal_and_breaks_every_dependence():
    n = 5000
    first = np.random.default_rng(1).normal(size=n)
    z = np.stack([first, 2 * first, np.square(first)], axis=1).astype(np.float32)  # each a function of the first
    permuted = np.asarray(permute_dims(KEY, jnp.asarray(z)))
    np.testing.assert_array_equal(np.sort(permuted, axis=0), np.sort(z, axis=0))
    for columns in ([0, 1], [0, 2], [1, 2]):
        for function in (np.asarray, np.abs):  # the third is uncorrelated with the others, and so is not their size
            assert abs(np.corrcoef(function(permuted[:, columns]).T)[0, 1]) < 4 / np.sqrt(n)
    assert np.corrcoef(np.abs(z[:, [0, 2]]).T)[0, 1] > 0.9
    assert (permuted == z).mean() < 5 / n  # the first column too is moved


@pytest.mark.slow
def test_at_the_log_ratio_the_discriminator_has_no_gradient_and_its_mean_is_the_total_correlation():
    """For codes N(0, [[1, r], [r, 1]]): -log(1 - r^2) / 2. Both by z-tests over 300 batches of 200."""
    truth = toy_params(**log_ratio())

    @jax.jit
    def measure(params, keys):
        def one(key):
            x_key, loss_key, tc_key = jax.random.split(key, 3)
            batch = Batch(correlated(x_key, 200))
            loss = lambda own: factor_vae_disc_loss(params | {"discriminator": own}, batch, loss_key, model=TOY)[0]
            _, terms = factor_vae_loss(params, batch, tc_key, model=TOY)
            return jax.grad(loss)(params["discriminator"]), terms["disc_tc_nats"]

        return jax.vmap(one)(keys)

    keys = jax.random.split(KEY, 300)
    gradients, tc = measure(truth, keys)
    z_score = lambda values, mean: (np.mean(values) - mean) / (np.std(values) / np.sqrt(len(values)))
    assert all(abs(z_score(np.float64(values), 0)) < 4 for values in gradients.values()), gradients
    assert abs(z_score(np.float64(tc), -0.5 * np.log(1 - R**2))) < 4
    for knob in "abc":
        off, _ = measure(toy_params(**log_ratio() | {knob: log_ratio()[knob] + 0.3}), keys)
        assert abs(z_score(np.float64(off[knob]), 0)) > 6, knob


def test_the_discriminators_loss_by_hand():
    """Codes are of the rows 0, 2, ...; those that are permuted of the rows 1, 3, ...; a last odd one is left out."""
    params = toy_params(a=0.7, b=-0.2, c=0.1)
    x = np.asarray(correlated(KEY, 7))
    _, permute_key = jax.random.split(KEY)
    permuted = np.float64(permute_dims(permute_key, jnp.asarray(x[1:6:2])))
    logits = lambda z: 0.1 + 0.7 * z[:, 0] * z[:, 1] - 0.2 * np.square(z).sum(axis=1)
    real, fake = logits(np.float64(x[0:6:2])), logits(permuted)
    loss, terms = factor_vae_disc_loss(params, Batch(x), jax.random.clone(KEY), model=TOY)
    np.testing.assert_allclose(loss, np.mean(np.log1p(np.exp(-real)) + np.log1p(np.exp(fake))), rtol=1e-5)
    np.testing.assert_allclose(terms["permuted_nats"], np.mean(np.log1p(np.exp(fake))), rtol=1e-5)
    np.testing.assert_allclose(terms["accuracy"], np.mean(np.concatenate([real > 0, fake < 0])))


def test_over_devices_codes_are_permuted_among_all():
    """One pair on each of two devices: alone, a code would always meet itself."""
    params, x = toy_params(a=1.0, b=0.0, c=0.0), jnp.float32([[[0, 0], [1, 10]], [[0, 0], [2, 20]]])
    loss = lambda rows, key: factor_vae_disc_loss(params, Batch(rows), key, model=TOY, axis_name="shards")[0]
    of_key = lambda key: jax.vmap(loss, axis_name="shards")(x, jax.random.split(key))
    found = np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(KEY, 200)))[:, 0]
    softplus = lambda v: np.logaddexp(0, v)
    products = {v: np.mean(np.isclose(found, np.log(2) + softplus(v), rtol=1e-5)) for v in (10.0, 20.0, 40.0)}
    assert abs(products[10.0] - 0.25) < 4 * np.sqrt(0.1875 / 200)
    assert abs(products[20.0] - 0.5) < 4 * np.sqrt(0.25 / 200)  # 1 x 20 or 2 x 10
    assert sum(products.values()) == pytest.approx(1)


def test_without_weight_it_is_the_vae_and_its_weight_weighs_the_log_odds():
    params = init_params(MODEL, KEY, X)
    plain = VAE(MODEL.encoder, MODEL.decoder, 2, likelihood="gaussian")
    expected, terms = vae_loss(params, Batch(X), KEY, model=plain)
    loss, found = factor_vae_loss(params, Batch(X), jax.random.clone(KEY), model=MODEL, gamma=0.0)
    assert loss == expected
    assert {name: found[name] for name in terms} == terms
    with jax.enable_x64(True):
        params = wide(params)
        loss = lambda own, **knobs: factor_vae_loss(params | own, Batch(jnp.float64(X)), KEY, model=MODEL, **knobs)
        own = {"encoder": params["encoder"], "decoder": params["decoder"]}
        check_weights(loss, own, {"gamma": 10.0}, {"gamma": lambda terms: terms["disc_tc_nats"]})


def test_the_game_is_the_two_steps_of_the_paper_in_their_order():
    params = init_params(MODEL, KEY, X)
    algo = factor_vae(MODEL, HParams(0.02, 0.05, 3.0), optax.sgd)
    state, metrics = algo.step(algo.init(params), Batch(X), KEY)
    elbo_key, disc_key = (jax.random.fold_in(jax.random.fold_in(KEY, 0), phase) for phase in (0, 1))
    by_sgd = lambda own, gradient, rate: jax.tree.map(lambda p, g: p - rate * g, own, gradient)

    loss = lambda own: factor_vae_loss(params | own, Batch(X), elbo_key, model=MODEL, gamma=3.0)[0]
    vae = {group: params[group] for group in ("encoder", "decoder")}
    vae = by_sgd(vae, jax.grad(loss)(vae), 0.02)
    loss = lambda own: factor_vae_disc_loss(params | vae | own, Batch(X), disc_key, model=MODEL)[0]
    disc = {"discriminator": params["discriminator"]}
    value, gradient = jax.value_and_grad(loss)(disc)
    expected = vae | by_sgd(disc, gradient, 0.05)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), state.params, expected)
    np.testing.assert_allclose(metrics["disc/loss"], value, rtol=1e-5)


def test_the_discriminator_is_that_of_the_paper_and_may_be_another():
    shapes = jax.eval_shape(lambda: init_params(FactorVAE.dense(6, 3), KEY, jnp.zeros((1, 6))))["discriminator"]
    widths = [shapes[f"dense_{i}"]["kernel"].shape for i in range(7)]
    assert widths == [(3, 1000), *[(1000, 1000)] * 5, (1000, 1)]
    with pytest.raises(InputError, match="discriminator"):
        factor_vae(VAE.dense(6, 3))
    with pytest.raises(InputError, match="at least 2"):
        factor_vae_disc_loss(toy_params(**log_ratio()), Batch(X[:1, :2]), KEY, model=TOY)
    with pytest.raises(InputError, match="disc_lr"):
        factor_vae(MODEL, disc_lr=-1.0)
