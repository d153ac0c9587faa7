"""AVB: both losses and a step in float64, the KL of a Gaussian in closed form, moments of draws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.avb import AVB, HParams, avb, avb_disc_loss, avb_loss
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import MLP, ConvEncoder, Labelled, init_params

KEY = jax.random.key(0)
N = 6  # draws of noise for the moments
# One number, one code, one function of one noise, all affine; the fields of `tiny` in their order.
TINY = AVB(
    MLP((2,)), MLP((1,)), 1, functions=MLP((1,)), noise_dim=1, discriminator=MLP((1,)), likelihood="gaussian"
)  # fmt: skip
HAND = {
    "u": 0.7, "v": -0.2, "s": 0.4, "t": -1.0, "w": 0.5, "m": 1.0, "f": 0.6, "h": 0.3, "a": -0.5, "k": 0.8, "c": 0.3
}  # fmt: skip
X = np.array([[0.5], [1.0], [-2.0], [0.1]])


def dense(kernel, bias):
    return {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}


def tiny(u, v, s, t, w, m, f, h, a, k, c):
    return {
        "encoder": dense([[u, s]], [v, t]),
        "decoder": dense([[w]], [m]),
        "functions": dense([[f]], [h]),
        "discriminator": dense([[a], [k]], [c]),
    }


def softplus(v):
    return np.log1p(np.exp(v))


def normal(key, n):
    return np.asarray(jax.random.normal(key, (n, 1)), np.float64)


def drawn(key, hand):
    """Code, standardised code and log-variance of the Gaussian, in float64, from the same draws."""
    noise, (u, v, s, t, f, h) = normal(jax.random.clone(key), N), (hand[name] for name in "uvstfh")
    place = lambda e: u * X + v + (s * X + t) * (f * e + h)
    z, others = place(noise[:4]), place(noise.T)
    mean, variance = others.mean(axis=1, keepdims=True), others.var(axis=1, ddof=1, keepdims=True) + 1e-8
    return z, (z - mean) / np.sqrt(variance), np.log(variance)


def elbo_by_hand(key, hand):
    z, standard, logvar = drawn(key, hand)
    w, m, a, k, c = (hand[name] for name in "wmakc")
    recon = 0.5 * (np.square(X - w * z - m) + np.log(2 * np.pi)).mean()
    contrast = (a * X + k * standard + c).mean()
    kl = contrast + 0.5 * (np.square(z) - np.square(standard) - logvar).mean()
    return recon + kl, {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "contrast_nats": contrast}


def disc_by_hand(key, hand):
    own, other = jax.random.split(jax.random.clone(key))
    _, standard, _ = drawn(own, hand)
    a, k, c = (hand[name] for name in "akc")
    return (softplus(-(a * X + k * standard + c)) + softplus(a * X + k * normal(other, 4) + c)).mean()


def test_losses_by_hand():
    batch = Batch(jnp.float32(X))
    value, metrics = avb_loss(tiny(**HAND), batch, KEY, model=TINY, num_moments=N)
    loss, terms = elbo_by_hand(KEY, HAND)
    assert float(value) == pytest.approx(loss, rel=1e-5)
    assert {name: float(metrics[name]) for name in terms} == pytest.approx(terms, rel=1e-4)
    disc, found = avb_disc_loss(tiny(**HAND), batch, jax.random.clone(KEY), model=TINY, num_moments=N)
    assert float(disc) == pytest.approx(disc_by_hand(KEY, HAND), rel=1e-5)
    own, other = jax.random.split(jax.random.clone(KEY))
    a, k, c = (HAND[name] for name in "akc")
    signs = [a * X + k * drawn(own, HAND)[1] + c > 0, a * X + k * normal(other, 4) + c < 0]
    assert float(found["accuracy"]) == pytest.approx(np.concatenate(signs).mean())


def test_one_step_moves_the_bound_and_then_the_discriminator():
    """By central differences in float64: the discriminator sees the posteriors that the first phase has moved."""
    algo = avb(TINY, HParams(lr=0.03, disc_lr=0.1), optax.sgd, num_moments=N)
    state, _ = algo.step(algo.init(tiny(**HAND)), Batch(jnp.float32(X)), KEY)
    step_key = jax.random.fold_in(KEY, 0)
    first, second = (jax.random.fold_in(jax.random.clone(step_key), phase) for phase in (0, 1))

    def slope(value, hand, name):
        return (value({**hand, name: hand[name] + 1e-5}) - value({**hand, name: hand[name] - 1e-5})) / 2e-5

    moved = dict(HAND)
    for name in "uvstwmfh":
        moved[name] -= 0.03 * slope(lambda hand: elbo_by_hand(first, hand)[0], HAND, name)
    new = dict(moved)
    for name in "akc":
        new[name] -= 0.1 * slope(lambda hand: disc_by_hand(second, hand), moved, name)
    assert all(abs(new[name] - HAND[name]) > 1e-5 for name in HAND)
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-4), state.params, tiny(**new))


def test_of_a_gaussian_posterior_the_kl_is_the_one_in_closed_form():
    """Affine functions of noise are Gaussian, so the log-ratio is 0, and what is left is `KL(N(m, s^2), N(0, 1))`."""
    n = 50_000
    params = tiny(**{**HAND, "a": 0.0, "k": 0.0, "c": 0.0})
    batch = Batch(jnp.full((n, 1), 0.5))
    _, metrics = avb_loss(params, batch, KEY, model=TINY, num_moments=n)
    deviation = (0.4 * 0.5 - 1.0) * 0.6
    mean = 0.7 * 0.5 - 0.2 + (0.4 * 0.5 - 1.0) * 0.3
    closed = 0.5 * (mean**2 + deviation**2 - 1 - np.log(deviation**2))
    spread = 0.5 * np.std(np.square(mean + deviation * np.random.default_rng(0).standard_normal(n)))
    assert float(metrics["kl_nats"]) == pytest.approx(closed, abs=5 * spread / np.sqrt(n))


def test_moments_are_those_of_draws():
    """Of functions that are neither linear nor independent."""
    model = AVB.dense(5, 3, hidden_dims=(8,), noise_dim=2, functions=MLP((8, 24)))
    x = jax.random.normal(jax.random.key(3), (4, 5))
    posterior = model.bind({"params": init_params(model, KEY, x)}).encode(x)
    own, mean, variance = posterior.sample_and_moments(jax.random.key(1), 10_000)
    assert abs(own - mean).max() > 0.1 * np.sqrt(variance).max()
    keys = jax.random.split(jax.random.key(2), 10_000)
    z = np.asarray(jax.jit(jax.vmap(posterior.sample))(keys), np.float64)
    np.testing.assert_allclose(mean, z.mean(axis=0), atol=5 * z.std() * np.sqrt(2 / len(z)))
    np.testing.assert_allclose(variance, z.var(axis=0), rtol=0.1)
    skew = ((z - z.mean(axis=0)) ** 3).mean(axis=0) / z.std(axis=0) ** 3
    assert abs(skew).max() > 0.05  # no Gaussian
    zero = jax.random.normal(jax.random.key(2), (4, 2)) * 0
    functions = posterior.net.apply(posterior.params, zero).reshape(4, -1, 3)
    np.testing.assert_allclose(posterior.mode, posterior.offset + (posterior.scales * functions).sum(axis=1), rtol=1e-5)


def test_the_moments_are_of_as_many_draws_as_there_are_examples_at_least():
    """With 2 asked for, and 4 examples, they are of the 4 draws of these."""
    _, metrics = avb_loss(tiny(**HAND), Batch(jnp.float32(X)), KEY, model=TINY, num_moments=2)
    _, same = avb_loss(tiny(**HAND), Batch(jnp.float32(X)), jax.random.clone(KEY), model=TINY, num_moments=4)
    assert {name: float(v) for name, v in metrics.items()} == {name: float(v) for name, v in same.items()}


def test_a_posterior_that_is_a_point_has_a_finite_loss_and_slope():
    params = tiny(**{**HAND, "s": 0.0, "t": 0.0})
    loss = lambda params: avb_loss(params, Batch(jnp.float32(X)), KEY, model=TINY, num_moments=N)[0]
    value, slopes = jax.value_and_grad(loss)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))


def test_what_dense_and_conv_build():
    model = AVB.dense(6, 2, hidden_dims=(5,))
    params = init_params(model, KEY, np.zeros((1, 6), np.float32))
    assert params["encoder"]["dense_1"]["kernel"].shape == (5, 2 * (AVB.num_functions + 1))
    assert params["discriminator"]["dense_0"]["kernel"].shape == (6 + 2, 5)
    judge = AVB.conv((4, 4, 1), 2, features=(3,), strides=(2,)).discriminator
    assert judge == Labelled(ConvEncoder(1, (3,), (2,)), None)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="takes at least 2 draws"):
        avb(TINY, num_moments=1)
    avb(TINY, num_moments=2)
    with pytest.raises(InputError, match="takes at least 2 draws"):
        avb_loss(tiny(**HAND), Batch(jnp.float32(X[:1])), KEY, model=TINY, num_moments=1)
    with pytest.raises(InputError, match="network of functions returns"):
        init_params(AVB.dense(6, 2, functions=MLP((8,))), KEY, np.zeros((1, 6), np.float32))
    init_params(AVB.dense(6, 2, functions=MLP((2 * AVB.num_functions,))), KEY, np.zeros((1, 6), np.float32))
    with pytest.raises(InputError, match="Implicit has none: use avb"):
        vae_loss(tiny(**HAND), Batch(jnp.float32(X)), KEY, model=TINY)
    with pytest.raises(InputError, match="noise_dim"):
        AVB.dense(6, 2, noise_dim=0)
    with pytest.raises(InputError, match="discriminator"):
        avb(VAE.dense(6, 2))
