"""WAE-GAN: its losses and steps by hand, and the codes on which its game comes to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import schedules, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE
from aejax.methods.ae import ae_loss
from aejax.methods.wae_gan import WAEGAN, HParams, wae_gan, wae_gan_loss
from aejax.nets import MLP, init_params

KEY = jax.random.key(0)
# One pixel, one code, all maps affine: z = w x, x_hat = v z, d(z) = a z + c
W, V, A, C, LAMBDA = 0.8, 0.5, -1.5, 0.3, 2.0
X = np.array([[0.5], [1.0], [-2.0]])
BATCH = Batch(jnp.asarray(X))
MODEL = WAEGAN.dense(1, 1, hidden_dims=(), likelihood="gaussian", discriminator=MLP((1,)))


def layer(kernel, bias=0.0):
    return {"dense_0": {"kernel": jnp.full((1, 1), kernel), "bias": jnp.full((1,), bias)}}


PARAMS = {"encoder": layer(W), "decoder": layer(V), "discriminator": layer(A, C)}
SURPRISE = np.log1p(np.exp(-(A * W * X + C)))


def test_the_loss_by_hand():
    loss, terms = wae_gan_loss(PARAMS, BATCH, KEY, model=MODEL, penalty=LAMBDA)
    half_error = 0.5 * np.square(X - V * W * X)
    nll = half_error + 0.5 * np.log(2 * np.pi)  # of unit variance, in nats
    recon, plain = ae_loss(PARAMS, BATCH, KEY, model=MODEL)
    np.testing.assert_allclose(float(terms["surprise_nats"]), SURPRISE.mean(), rtol=1e-6)
    np.testing.assert_allclose(float(terms["sse"]), 2 * half_error.mean(), rtol=1e-6)
    np.testing.assert_allclose(float(terms["recon_nats"]), nll.mean(), rtol=1e-6)
    np.testing.assert_allclose(float(loss), nll.mean() + LAMBDA * SURPRISE.mean(), rtol=1e-6)
    nothing, _ = wae_gan_loss(PARAMS, BATCH, KEY, model=MODEL, penalty=0.0)
    assert float(nothing) == float(recon)
    assert set(plain) < set(terms)


def test_the_discriminator_moves_first_and_then_both_networks_by_one_gradient():
    """By plain gradients, each written out: that of the encoder is of the discriminator after its step."""
    algo = wae_gan(MODEL, HParams(lr=0.1, disc_lr=0.2, penalty=LAMBDA), optax.sgd)
    state, _ = algo.step(algo.init(PARAMS), BATCH, KEY)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    drawn = np.asarray(jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, 0), 0), (3, 1)))
    z = W * X
    real, fake = -sigmoid(-(A * drawn + C)), sigmoid(A * z + C)  # slopes of the two cross-entropies in the logit
    a = A - 0.2 * ((real * drawn).mean() + (fake * z).mean())
    c = C - 0.2 * (real.mean() + fake.mean())
    np.testing.assert_allclose(state.params["discriminator"]["dense_0"]["kernel"], [[a]], rtol=1e-5)
    np.testing.assert_allclose(state.params["discriminator"]["dense_0"]["bias"], [c], rtol=1e-5)
    error = V * z - X
    of_w = (error * V * X).mean() - LAMBDA * (sigmoid(-(a * z + c)) * a * X).mean()
    np.testing.assert_allclose(state.params["encoder"]["dense_0"]["kernel"], [[W - 0.1 * of_w]], rtol=1e-5)
    np.testing.assert_allclose(
        state.params["decoder"]["dense_0"]["kernel"], [[V - 0.1 * (error * z).mean()]], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("scale", [3.0, 0.4])
def test_codes_come_to_rest_at_the_prior(scale):
    """Of normal data z = w x is N(0, 1) at |w| = 1 / scale alone, and reconstruction, exact at any w, has no say."""
    x = scale * np.random.default_rng(0).normal(size=(2000, 1)).astype(np.float32)
    model = WAEGAN.dense(1, 1, hidden_dims=(), likelihood="gaussian", discriminator=MLP((32, 32, 1)))
    falling = lambda lr: optax.adam(schedules.cosine(lr, 3000), b1=0.5)
    algo = wae_gan(model, HParams(lr=5e-3, disc_lr=5e-3), falling)
    params = init_params(model, KEY, x[:1])
    params["encoder"] = layer(0.8 / scale**2)  # codes of a deviation of 0.27 and of 2
    state = list(training.train(algo, algo.init(params), Batch(x), KEY, batch_size=200, num_epochs=300))[-1].state
    z = np.asarray(model.apply({"params": state.params}, x, method="embed"))
    assert abs(z.std() - 1) < 0.05
    assert abs(z.mean()) < 0.1


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="penalty"):
        wae_gan(MODEL, penalty=-1.0)
    with pytest.raises(InputError, match="prior='normal'"):
        wae_gan(MODEL.clone(prior=None))
    wae_gan(AAE.dense(4, 2, prior="normal"))  # the networks are the same, and the prior is there
