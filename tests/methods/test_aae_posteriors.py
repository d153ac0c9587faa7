"""The AAE's stochastic encoders: steps in float64, the deterministic one as their limit, where Gaussian ones rest."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats

from aejax import learn, priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE, HParams, aae, aae_disc_loss, aae_gen_loss, aae_recon_loss
from aejax.methods.wae_gan import WAEGAN, wae_gan, wae_gan_loss
from aejax.nets import MLP, ConvEncoder, Labelled, init_params

KEY = jax.random.key(0)
X = np.array([[0.5], [1.0], [-2.0], [0.1]])
BATCH = Batch(jnp.float32(X))
PRIOR = priors.StandardNormal(1)
FIELDS = {"hidden_dims": (), "likelihood": "gaussian", "discriminator": MLP((1,)), "noise_dim": 1}
# One number, one code, all maps affine. Mean u x + v; log-variance s x + t, or s times the noise; w z + m; a z + k.
HAND = {"u": 0.7, "v": -0.2, "s": 0.4, "t": -1.0, "w": 0.5, "m": 1.0, "a": -0.5, "k": 0.3}


def dense(kernel, bias):
    return {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}


def tiny(posterior, u, v, s, t, w, m, a, k):
    encoder = {
        "deterministic": lambda: dense([[u]], [v]),
        "gaussian": lambda: dense([[u, s]], [v, t]),
        "noise": lambda: {"net": dense([[u], [s]], [v])},
    }[posterior]()
    return {"encoder": encoder, "decoder": dense([[w]], [m]), "discriminator": dense([[a]], [k])}


def model_of(posterior, cls=AAE):
    return cls.dense(1, 1, posterior=posterior, **FIELDS)


def normal(key, n=4):
    return np.asarray(jax.random.normal(jax.random.clone(key), (n, 1)), np.float64)


def softplus(v):
    return np.log1p(np.exp(v))


def code(posterior, key, hand):
    scale = np.exp((hand["s"] * X + hand["t"]) / 2) if posterior == "gaussian" else hand["s"]
    return hand["u"] * X + hand["v"] + scale * normal(key)


def recon(posterior, key, hand):
    z = code(posterior, key, hand)
    return 0.5 * (np.square(X - hand["w"] * z - hand["m"]) + np.log(2 * np.pi)).mean()


def disc(posterior, key, hand):
    prior_key, code_key = jax.random.split(jax.random.clone(key))
    told = lambda z: hand["a"] * z + hand["k"]
    return (softplus(-told(normal(prior_key))) + softplus(told(code(posterior, code_key, hand)))).mean()


def gen(posterior, key, hand):
    return softplus(-(hand["a"] * code(posterior, key, hand) + hand["k"])).mean()


@pytest.mark.parametrize("posterior", ["gaussian", "noise"])
def test_a_step_is_that_of_central_differences(posterior):
    """In float64, from the same draws: each phase moves its own groups, and sees what those before it have moved."""
    algo = aae(model_of(posterior), HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3), optax.sgd)
    state, metrics = jax.jit(algo.step)(algo.init(tiny(posterior, **HAND)), BATCH, KEY)
    step_key, hand, losses = jax.random.fold_in(KEY, 0), dict(HAND), []
    encoder = "uvst" if posterior == "gaussian" else "uvs"
    for phase, (loss, names, rate) in enumerate([(recon, encoder + "wm", 0.1), (disc, "ak", 0.2), (gen, encoder, 0.3)]):
        at = partial(loss, posterior, jax.random.fold_in(jax.random.clone(step_key), phase))
        losses.append(at(hand))
        slopes = {n: (at({**hand, n: hand[n] + 1e-5}) - at({**hand, n: hand[n] - 1e-5})) / 2e-5 for n in names}
        assert all(abs(slope) > 1e-3 for slope in slopes.values())
        hand |= {name: hand[name] - rate * slope for name, slope in slopes.items()}
    got = [float(metrics[f"{player}/loss"]) for player in ("recon", "disc", "gen")]
    assert got == pytest.approx(losses, rel=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5), state.params, tiny(posterior, **hand))


@pytest.mark.parametrize("posterior", ["gaussian", "noise"])
def test_without_its_variance_it_is_the_deterministic_one(posterior):
    hand = {**HAND, "s": 0.0, "t": -200.0}
    prior_key = jax.random.split(KEY)[0]  # the discriminator's key is split where codes are drawn
    for loss, key in (
        (aae_recon_loss, KEY),
        (partial(aae_disc_loss, prior=PRIOR), prior_key),
        (aae_gen_loss, KEY),
        (wae_gan_loss, KEY),
    ):
        found = jax.value_and_grad(partial(loss, model=model_of(posterior)), has_aux=True)
        wanted = jax.value_and_grad(partial(loss, model=model_of("deterministic")), has_aux=True)
        (value, terms), slopes = found(tiny(posterior, **hand), BATCH, KEY)
        (other, same), others = wanted(tiny("deterministic", **hand), BATCH, key)
        assert (float(value), *map(float, terms.values())) == pytest.approx((float(other), *map(float, same.values())))
        net = slopes["encoder"].get("net", slopes["encoder"])["dense_0"]
        first = {"kernel": net["kernel"][:1, :1], "bias": net["bias"][:1]}
        slopes["encoder"] = {"dense_0": first}
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), slopes, others)


def test_the_wasserstein_game_goes_by_one_draw_too():
    for posterior in ("gaussian", "noise"):
        value, _ = wae_gan_loss(tiny(posterior, **HAND), BATCH, KEY, model=model_of(posterior, WAEGAN), penalty=3.0)
        wanted = recon(posterior, KEY, HAND) + 3 * gen(posterior, KEY, HAND)
        assert float(value) == pytest.approx(wanted, rel=1e-5)


class Parabola(nn.Module):
    """Log-odds of the form that two Gaussians around zero have."""

    @nn.compact
    def __call__(self, z):
        a, c = self.param("a", nn.initializers.zeros, ()), self.param("c", nn.initializers.zeros, ())
        return a * z**2 + c


def test_gaussian_codes_come_to_rest_at_the_prior_by_the_way_that_is_known():
    """Of x from N(0, 1) the codes are N(0, w^2 + v), so the game rests where `w^2 + v = 1`.

    The discriminator alone moves the encoder. For any function f of z, `E[f'(z) x] / w` and `E[f'(z) e] / sqrt(v)` are
    the same number g, for x, e and z are normal together. So `dw = -g w` and `d log v = -g v / 2`, which keep
    `log w + 2 / v`, whatever the discriminator does. With this the resting point is one, of both numbers.
    """
    w, v = 0.4, 0.35
    model = model_of("gaussian").clone(discriminator=Parabola())
    still = lambda lr: optax.set_to_zero()
    algo = aae(model, HParams(disc_lr=0.2, gen_lr=0.02), {"recon": still, "disc": optax.sgd, "gen": optax.sgd})
    params = init_params(model, KEY, BATCH.x) | {"encoder": dense([[w, 0.0]], [0.0, np.log(v)])}
    x = scipy.stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    batch = Batch(jnp.float32(x / x.std())[:, None])

    @jax.jit
    def played(state):
        return jax.lax.scan(lambda state, _: (algo.step(state, batch, KEY)[0], None), state, None, length=6000)[0]

    (w_end, slope), (mean, logvar) = played(algo.init(params)).params["encoder"]["dense_0"].values()
    print("END", w_end, slope, mean, logvar, float(w_end.ravel()[0])**2 if w_end.ndim else 0)


def test_what_a_code_is_without_noise():
    for posterior in ("gaussian", "noise"):
        z = model_of(posterior).apply({"params": tiny(posterior, **HAND)}, BATCH.x, method="embed")
        np.testing.assert_allclose(z, HAND["u"] * X + HAND["v"], rtol=1e-6)


def test_draws_of_a_function_of_noise_may_have_any_shape():
    """`z = relu(e)`, which a Gaussian cannot be: half of its draws are 0, and the others half a normal."""
    model = AAE.dense(1, 1, hidden_dims=(1,), posterior="noise", noise_dim=1)
    net = {"dense_0": {"kernel": jnp.array([[0.0], [1.0]]), "bias": jnp.zeros(1)}, **{"dense_1": dense([[1.0]], [0.0])["dense_0"]}}
    params = init_params(model, KEY, BATCH.x) | {"encoder": {"net": net}}
    posterior = model.bind({"params": params}).encode(BATCH.x)
    z = np.asarray(jax.jit(jax.vmap(posterior.sample))(jax.random.split(KEY, 5000))).ravel()
    assert (z == 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(z)))
    assert scipy.stats.kstest(z[z > 0], scipy.stats.halfnorm.cdf).pvalue > 0.01
    own = posterior.sample(jax.random.split(KEY, 4))
    np.testing.assert_allclose(own[:, 0], [max(0.0, float(jax.random.normal(k, (1,))[0])) for k in jax.random.split(KEY, 4)])


def test_images_have_the_noise_as_channels():
    model = AAE.conv((4, 4, 1), 2, features=(3,), strides=(2,), posterior="noise", noise_dim=5)
    assert model.encoder == Labelled(ConvEncoder(2, (3,), (2,)), None)
    params = init_params(model, KEY, jnp.zeros((1, 4, 4, 1)))
    assert params["encoder"]["net"]["conv_0"]["kernel"].shape[-2] == 1 + 5
    assert AAE.conv((4, 4, 1), 2, posterior="gaussian").encoder.code_dim == 4


def test_a_posterior_by_name_in_learn():
    x = np.random.default_rng(0).random((32, 6)).astype(np.float32)
    small = {"latent_dim": 2, "hidden_dims": (4,), "num_epochs": 1, "batch_size": 16}
    plain = learn("aae", x, **small)
    same = learn("aae", x, posterior="deterministic", **small)
    jax.tree.map(np.testing.assert_array_equal, plain.state, same.state)
    gaussian = learn("aae", x, posterior="gaussian", **small)
    assert gaussian.params["encoder"]["dense_1"]["kernel"].shape == (4, 4)
    assert gaussian.embed(x).shape == (32, 2)


def test_what_does_not_fit_is_refused():
    x = np.zeros((4, 6), np.float32)
    for name in ("aae_semi", "aae_label", "aae_cluster"):
        with pytest.raises(InputError, match="has no option 'posterior'"):
            learn(name, x, posterior="gaussian")
    with pytest.raises(InputError, match="Did you mean 'gaussian'"):
        AAE.dense(6, 2, posterior="gausian")
    with pytest.raises(InputError, match="noise_dim"):
        AAE.dense(6, 2, posterior="noise", noise_dim=0)
    for posterior in ("gaussian", "noise"):
        with pytest.raises(InputError, match="tied"):
            AAE.dense(6, 2, posterior=posterior, tied=True)
    unknown = WAEGAN.dense(6, 2).clone(posterior="normal")
    for build in (aae, wae_gan):
        with pytest.raises(InputError, match="Unknown posterior='normal'"):
            build(unknown)
    wrong = AAE.dense(6, 2).clone(posterior="gaussian")
    with pytest.raises(InputError, match=r"The encoder returns \(2,\) for an example; \(4,\) is wanted"):
        init_params(wrong, KEY, x)
