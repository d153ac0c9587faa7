"""The AAE's stochastic encoders: steps in float64, the deterministic one as their limit, where Gaussian ones rest."""

from functools import partial

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats

from aejax import Fitted, evaluation, export, learn, priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE, HParams, aae, aae_disc_loss, aae_gen_loss, aae_recon_loss
from aejax.methods.wae_gan import WAEGAN, wae_gan, wae_gan_loss
from aejax.nets import MLP, ConvEncoder, Labelled, init_params

KEY = jax.random.key(0)
X = np.array([[0.5], [1.0], [-2.0], [0.1]])
BATCH = Batch(jnp.float32(X))
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
    """In float64, from the same draws: each phase moves its own groups, and sees what those before it have moved.

    Weights decay, so that a group without a slope would be seen to move too.
    """
    decayed = lambda lr: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(lr))
    algo = aae(model_of(posterior), HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3), decayed)
    state, metrics = jax.jit(algo.step)(algo.init(tiny(posterior, **HAND)), BATCH, KEY)
    step_key, hand, losses = jax.random.fold_in(KEY, 0), dict(HAND), []
    encoder = "uvst" if posterior == "gaussian" else "uvs"
    for phase, (loss, names, rate) in enumerate([(recon, encoder + "wm", 0.1), (disc, "ak", 0.2), (gen, encoder, 0.3)]):
        at = partial(loss, posterior, jax.random.fold_in(jax.random.clone(step_key), phase))
        losses.append(at(hand))
        slopes = {n: (at({**hand, n: hand[n] + 1e-5}) - at({**hand, n: hand[n] - 1e-5})) / 2e-5 for n in names}
        assert all(abs(slope) > 1e-3 for slope in slopes.values())
        hand |= {name: hand[name] - rate * (slope + 0.1 * hand[name]) for name, slope in slopes.items()}
    got = [float(metrics[f"{player}/loss"]) for player in ("recon", "disc", "gen")]
    assert got == pytest.approx(losses, rel=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5), state.params, tiny(posterior, **hand))


@pytest.mark.parametrize("posterior", ["gaussian", "noise"])
def test_without_its_variance_it_is_the_deterministic_one(posterior):
    def losses(params, name, disc_key):
        loss = {"model": model_of(name)}
        found = [
            aae_recon_loss(params, BATCH, KEY, **loss)[0],
            aae_disc_loss(params, BATCH, disc_key, prior=priors.StandardNormal(1), **loss)[0],
            aae_gen_loss(params, BATCH, KEY, **loss)[0],
        ]
        return found[0] + 2 * found[1] + 3 * found[2], found

    hand = {**HAND, "s": 0.0, "t": -200.0}
    both = jax.jit(jax.value_and_grad(losses, has_aux=True), static_argnums=1)
    found, slopes = both(tiny(posterior, **hand), posterior, KEY)
    wanted, others = both(tiny("deterministic", **hand), "deterministic", jax.random.split(KEY)[0])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), found, wanted)
    net = slopes["encoder"].get("net", slopes["encoder"])["dense_0"]
    slopes["encoder"] = {"dense_0": {"kernel": net["kernel"][:1, :1], "bias": net["bias"][:1]}}
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), slopes, others)


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
    the same number g, for x, e and z are normal together. So w moves by `-g w` and log v by `-g v / 2`, which keep
    `log w + 2 / v`, whatever the discriminator does. That makes the place of rest one point.
    """
    w, v = 0.3, 0.6
    kept = np.log(w) + 2 / v
    v_rest = scipy.optimize.brentq(lambda v: 0.5 * np.log(1 - v) + 2 / v - kept, 1e-3, 1 - 1e-9)  # 0.722
    still = lambda lr: optax.set_to_zero()
    model, txs = (
        model_of("gaussian").clone(discriminator=Parabola()),
        {"recon": still, "disc": optax.sgd, "gen": optax.sgd},
    )
    algo = aae(model, HParams(disc_lr=0.3, gen_lr=0.05), txs)
    params = tiny("gaussian", **HAND) | {
        "encoder": dense([[w, 0.0]], [0.0, np.log(v)]),
        "discriminator": {"a": jnp.zeros(()), "c": jnp.zeros(())},
    }
    x = scipy.stats.norm.ppf((np.arange(500) + 0.5) / 500)
    batch = Batch(jnp.float32(x / x.std())[:, None])
    step = lambda state, _: (algo.step(state, batch, KEY)[0], None)
    last = jax.jit(lambda state: jax.lax.scan(step, state, None, length=1500)[0])(algo.init(params))
    net = last.params["encoder"]["dense_0"]
    (w_end, slope), (mean, logvar) = net["kernel"][0], net["bias"]
    assert float(jnp.exp(logvar)) == pytest.approx(v_rest, abs=0.01)
    assert float(w_end) == pytest.approx(np.sqrt(1 - v_rest), abs=0.02)
    assert [float(mean), float(slope)] == pytest.approx([0, 0], abs=0.02)


def test_what_a_code_is_without_noise():
    for posterior in ("gaussian", "noise"):
        z = model_of(posterior).apply({"params": tiny(posterior, **HAND)}, BATCH.x, method="embed")
        np.testing.assert_allclose(z, HAND["u"] * X + HAND["v"], rtol=1e-6)


def test_draws_of_a_function_of_noise_may_have_any_shape():
    """`z = relu(e)`, which a Gaussian cannot be: half of its draws are 0, and the others half a normal."""
    model = AAE.dense(1, 1, hidden_dims=(1,), posterior="noise", noise_dim=1)
    net = {"dense_0": dense([[0.0], [1.0]], [0.0])["dense_0"], "dense_1": dense([[1.0]], [0.0])["dense_0"]}
    posterior = model.bind({"params": {"encoder": {"net": net}}}).encode(BATCH.x)
    z = np.asarray(jax.jit(jax.vmap(posterior.sample))(jax.random.split(KEY, 5000))).ravel()
    assert (z == 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(z)))
    assert scipy.stats.kstest(z[z > 0], scipy.stats.halfnorm.cdf).pvalue > 0.01
    own = posterior.sample(jax.random.split(KEY, 4))
    np.testing.assert_allclose(
        own[:, 0], [max(0.0, float(jax.random.normal(k, (1,))[0])) for k in jax.random.split(KEY, 4)]
    )


def test_images_have_the_noise_as_channels():
    model = AAE.conv((4, 4, 1), 2, features=(3,), strides=(2,), posterior="noise", noise_dim=5)
    assert model.encoder == Labelled(ConvEncoder(2, (3,), (2,)), None)
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 4, 4, 1)))["params"]
    assert params["encoder"]["net"]["conv_0"]["kernel"].shape[-2] == 1 + 5
    assert AAE.conv((4, 4, 1), 2, posterior="gaussian").encoder.code_dim == 4


@pytest.mark.slow
@pytest.mark.parametrize("posterior", ["gaussian", "noise"])
def test_learnt_by_name_saved_and_loaded(posterior, tmp_path):
    x = np.random.default_rng(0).random((64, 6)).astype(np.float32)
    small = {"latent_dim": 2, "hidden_dims": (4,), "num_epochs": 2, "batch_size": 16}
    fitted = learn("aae", x, posterior=posterior, **small)
    fitted.save(tmp_path / "run")
    np.testing.assert_array_equal(Fitted.load(tmp_path / "run").embed(x), fitted.embed(x))
    (first, noise_dim) = (4, 0) if posterior == "gaussian" else (2, 16)
    encoder = fitted.params["encoder"].get("net", fitted.params["encoder"])
    assert encoder["dense_0"]["kernel"].shape == (6 + noise_dim, 4)
    assert encoder["dense_1"]["kernel"].shape == (4, first)
    export.to_file(tmp_path / "encoder", fitted.model, fitted.params)
    encode = jax.export.deserialize((tmp_path / "encoder").read_bytes()).call  # of any number of rows
    np.testing.assert_allclose(encode(x[:5]), fitted.embed(x[:5]), rtol=1e-5, atol=1e-6)
    key = jax.random.key(0)
    if posterior == "gaussian":
        assert np.isfinite(evaluation.nll(fitted.model, fitted.params, x, key, num_samples=10).nll_nats)
    else:
        with pytest.raises(InputError, match="Pushforward, which has no density"):
            evaluation.nll(fitted.model, fitted.params, x, key, num_samples=10)


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
