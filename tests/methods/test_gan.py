"""The GAN: the best discriminator in closed form, all losses by hand, who moves what, and an exact inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import collapse
from aejax.methods.aae import AAE
from aejax.methods.ae import AE
from aejax.methods.ali import ALI, ali
from aejax.methods.gan import GAN, HParams, gan, gan_disc_loss, gan_gen_loss, regressor_loss
from aejax.methods.wgan_gp import wgan_gp
from aejax.nets import MLP, ConvEncoder, init_params

KEY = jax.random.key(0)
LOG2 = np.log(2)
# One number, one code, all maps affine: g(z) = w z + m, d(x) = a x + c, e(x) = u x + v.
TINY = GAN.dense(1, 1, hidden_dims=(), likelihood="gaussian")
W, M, A, C, U, V = 0.5, 1.0, -1.5, 0.3, 0.7, -0.2
X = np.array([[0.5], [1.0], [-2.0], [0.1]])


def affine(slope, offset):
    return {"dense_0": {"kernel": jnp.full((1, 1), slope), "bias": jnp.full((1,), offset)}}


PARAMS = {"encoder": affine(U, V), "decoder": affine(W, M), "discriminator": affine(A, C)}


def drawn(key):
    return np.asarray(jax.random.normal(key, (4, 1)), np.float64)


def test_losses_by_hand():
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    z = drawn(KEY)
    real, fake = sigmoid(A * X + C), sigmoid(A * (W * z + M) + C)  # D of the paper
    disc, terms = gan_disc_loss(PARAMS, Batch(jnp.float32(X)), KEY, model=TINY)
    assert float(disc) == pytest.approx(-(np.log(real) + np.log(1 - fake)).mean(), rel=1e-5)
    assert float(terms["accuracy"]) == pytest.approx(np.concatenate([real > 0.5, fake < 0.5]).mean())
    gen, terms = gan_gen_loss(PARAMS, Batch(jnp.float32(X)), jax.random.clone(KEY), model=TINY)
    assert float(gen) == pytest.approx(-np.log(fake).mean(), rel=1e-5)
    assert float(terms["sse"]) == pytest.approx(np.square(W * (U * X + V) + M - X).mean(), rel=1e-5)
    loss, terms = regressor_loss(PARAMS, Batch(jnp.float32(X)), jax.random.clone(KEY), model=TINY)
    square = np.square(U * (W * z + M) + V - z).mean()
    assert float(loss) == pytest.approx(0.5 * square + 0.5 * np.log(2 * np.pi), rel=1e-5)
    assert float(terms["code_sq"]) == pytest.approx(square, rel=1e-5)


def test_the_best_discriminator_is_p_over_p_plus_q():
    """Of data N(1, 1) and N(0, 1) generated it has the log-odds x - 1/2: there no gradient, and 2 log 2 - 2 JS.

    By 100,000 examples, whose terms and slopes vary by less than 1; JS by quadrature.
    """
    n, x_key = 100_000, jax.random.key(1)
    batch = Batch(1 + jax.random.normal(x_key, (n, 1)))

    def loss(own, generator):
        return gan_disc_loss({**PARAMS, "discriminator": own, "decoder": generator}, batch, KEY, model=TINY)[0]

    grid = np.linspace(-12, 12, 20_001)
    p, q = (np.exp(-0.5 * np.square(grid - mean)) / np.sqrt(2 * np.pi) for mean in (1, 0))
    mix = (p + q) / 2
    js = 0.5 * ((p * np.log(p / mix) + q * np.log(q / mix)).sum() * (grid[1] - grid[0]))
    value, slope = jax.value_and_grad(loss)(affine(1.0, -0.5), affine(1.0, 0.0))
    assert float(value) == pytest.approx(2 * LOG2 - 2 * js, abs=4 / np.sqrt(n))
    assert all(abs(float(leaf.squeeze())) < 4 / np.sqrt(n) for leaf in jax.tree.leaves(slope))
    off = jax.grad(loss)(affine(0.5, -0.5), affine(1.0, 0.0))
    assert float(off["dense_0"]["kernel"][0, 0]) < -0.05  # it should be steeper
    # A generator that is right leaves it nothing to tell: D = 1/2 everywhere.
    value, slope = jax.value_and_grad(loss)(affine(0.0, 0.0), affine(1.0, 1.0))
    assert float(value) == pytest.approx(2 * LOG2, rel=1e-6)
    assert all(abs(float(leaf.squeeze())) < 4 / np.sqrt(n) for leaf in jax.tree.leaves(slope))


def test_one_step_is_the_three_of_the_paper_by_hand():
    """Each player sees what the last one left, and draws noise of its own; by derivatives on paper."""
    algo = gan(TINY, HParams(lr=0.2, disc_lr=0.1, gen_lr=0.3), optax.sgd)
    state, _ = algo.step(algo.init(PARAMS), Batch(jnp.float32(X)), KEY)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    z_disc, z_gen, z_code = (drawn(jax.random.fold_in(jax.random.fold_in(KEY, 0), phase)) for phase in range(3))
    fake = W * z_disc + M
    on_real, on_fake = -sigmoid(-(A * X + C)), sigmoid(A * fake + C)  # of the loss, in the log-odds
    a, c = A - 0.1 * (on_real * X + on_fake * fake).mean(), C - 0.1 * (on_real + on_fake).mean()
    pull = -sigmoid(-(a * (W * z_gen + M) + c)) * a
    w, m = W - 0.3 * (pull * z_gen).mean(), M - 0.3 * pull.mean()
    off = U * (w * z_code + m) + V - z_code
    u, v = U - 0.2 * (off * (w * z_code + m)).mean(), V - 0.2 * off.mean()
    expected = {"encoder": affine(u, v), "decoder": affine(w, m), "discriminator": affine(a, c)}
    jax.tree.map(lambda got, hand: np.testing.assert_allclose(got, hand, rtol=1e-5), state.params, expected)


def test_the_regressor_of_an_affine_generator_is_its_inverse():
    """Where z can be told from g(z) the loss ends at its constant, and so every x is reconstructed."""
    algo = gan(TINY, HParams(lr=0.3, disc_lr=1e-9, gen_lr=1e-9), optax.sgd)
    step, state, batch = jax.jit(algo.step), algo.init(PARAMS), Batch(jnp.float32(np.tile(X, (16, 1))))
    for _ in range(200):
        state, metrics = step(state, batch, KEY)
    layer = state.params["encoder"]["dense_0"]
    np.testing.assert_allclose([layer["kernel"][0, 0], layer["bias"][0]], [1 / W, -M / W], rtol=1e-3)
    assert float(metrics["regress/loss"]) == pytest.approx(0.5 * np.log(2 * np.pi), rel=1e-5)
    assert float(metrics["gen/sse"]) < 1e-5


def test_a_generator_that_makes_one_image_is_found_by_the_report_of_collapse():
    rng = np.random.default_rng(0)
    found = {}
    for name, slope in (("sound", 1.0), ("collapsed", 0.01)):
        params = {**PARAMS, "encoder": affine(1 / slope, 0.0), "decoder": affine(slope, 0.0)}
        x = jnp.float32(rng.normal(size=(200, 1)))
        found[name] = collapse(TINY, params, x, jax.random.clone(KEY))
    assert found["sound"].findings == ()
    assert found["collapsed"].findings == (
        "The decoded draws from the prior vary 0.01 % as much as the data; below 1 % they are all the same.",
    )


def test_an_encoder_that_knows_nothing_has_the_entropy_of_the_codes():
    params = {**PARAMS, "encoder": affine(0.0, 0.0)}
    loss, _ = regressor_loss(params, Batch(jnp.zeros((100_000, 1))), KEY, model=TINY)
    assert float(loss) == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=4 * np.sqrt(0.5 / 100_000))


def test_the_discriminator_is_like_the_encoder_with_weights_of_its_own():
    model = GAN.dense(6, 2, hidden_dims=(5,), code_activation=jnp.tanh)
    assert model.discriminator == MLP((5, 1))
    params = init_params(model, KEY, np.zeros((1, 6), np.float32))
    first = [params[group]["dense_0"]["kernel"] for group in ("encoder", "discriminator")]
    assert first[0].shape == first[1].shape
    assert not np.allclose(*first)
    assert GAN.conv((4, 4, 1), 2, features=(3,), strides=(2,)).discriminator == ConvEncoder(1, (3,), (2,))
    assert GAN.dense(6, 2, discriminator=MLP((9, 1))).discriminator == MLP((9, 1))


@pytest.mark.parametrize(("build", "wanted"), [(gan, GAN), (wgan_gp, GAN), (ali, ALI)])
def test_a_discriminator_of_something_else_is_refused(build, wanted):
    for other in {AAE, GAN, ALI} - {wanted}:
        with pytest.raises(InputError, match=f"{wanted.__name__} is needed, .* got {other.__name__}"):
            build(other.dense(6, 2, prior="normal"))
    build(wanted.dense(6, 2))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="use tied=False"):
        GAN.dense(6, 2, tied=True)
    GAN.dense(6, 2, tied=False)
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        gan(GAN.dense(6, 2, likelihood="gaussian_learned"))
    for name in ("bernoulli", "gaussian"):
        gan(GAN.dense(6, 2, likelihood=name))
    with pytest.raises(InputError, match="a discriminator beside"):
        gan(AE.dense(6, 2))
    with pytest.raises(InputError, match="disc_lr"):
        gan(TINY, disc_lr=-1.0)
    with pytest.raises(InputError, match=r"\(2,\) for an example; \(1,\) is wanted"):
        init_params(GAN.dense(6, 2, discriminator=MLP((9, 2))), KEY, np.zeros((1, 6), np.float32))
