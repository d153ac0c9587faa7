"""The stochastic contractive autoencoder: its expectation by quadrature, its limit, and how fast it gets there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrature import expectation, setup, with_noise

from aejax.checks import InputError
from aejax.methods.ae import ae_loss
from aejax.methods.cae import CAE, cae_loss
from aejax.methods.scae import HParams, scae, scae_loss

KEY = jax.random.key(0)


def test_the_limit_is_the_contractive_one_and_the_rate_is_quadratic():
    """By Taylor, for weights of length a: a^2 s'^2 + sigma^2 a^4 (3/4 s''^2 + s' s''') + O(sigma^4)."""
    model = CAE.dense(2, 3)
    with jax.enable_x64(True):
        params, batch = setup(model, (1, 2), jnp.float64)
        layer = params["encoder"]["dense_0"]
        s = jax.nn.sigmoid(batch.x @ layer["kernel"] + layer["bias"][None])
        first, second, third = s * (1 - s), s * (1 - s) * (1 - 2 * s), s * (1 - s) * (1 - 6 * s * (1 - s))
        lengths = jnp.linalg.norm(layer["kernel"], axis=0)[None]
        slope = float(jnp.sum(lengths**4 * (0.75 * second**2 + first * third)))
        exact = float(jnp.sum((lengths * first) ** 2))

        @jax.jit
        def penalty(sigma):
            loss = lambda e: with_noise(scae_loss)(e, params, batch, KEY, model=model, sigma=sigma)[1]["shift_sq"]
            return expectation(loss, 2)

        gaps = np.array([float(penalty(0.04 / 2**i)) - exact for i in range(4)])
    np.testing.assert_allclose(np.log2(gaps[:-1] / gaps[1:])[1:], 2.0, atol=0.01)
    np.testing.assert_allclose((4 * gaps[3] / 0.005**2 - gaps[2] / 0.01**2) / 3, slope, rtol=1e-4)  # Richardson


def test_for_small_noise_it_is_the_cae_of_the_same_weight_in_value_and_gradient():
    model = CAE.dense(2, 3)
    with jax.enable_x64(True):
        params, batch = setup(model, (4, 2), jnp.float64)

        def expected(params, sigma):
            loss = with_noise(scae_loss)
            at = lambda e: loss(e, params, batch, KEY, model=model, contraction=0.7, sigma=sigma)[0]
            return expectation(at, 2, num_nodes=10)

        found = jax.jit(jax.value_and_grad(expected))(params, 1e-3)
        limit = jax.value_and_grad(lambda p: cae_loss(p, batch, KEY, model=model, contraction=0.7)[0])(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, limit)


def test_linear_encoders_are_contracted_alike_by_every_noise_and_without_bias():
    """`|We|^2` has mean `|W|^2` and variance `2 |W'W|^2`: a z-test on 40,000 draws, wrong once in 10^5 keys."""
    model = CAE.dense(6, 4, code_activation=None)
    params, batch = setup(model, (40_000, 6))
    kernel = np.asarray(params["encoder"]["dense_0"]["kernel"], np.float64)
    spread = np.sqrt(2 * np.square(kernel.T @ kernel).sum() / 40_000)
    small, large = (scae_loss(params, batch, KEY, model=model, sigma=sigma)[1]["shift_sq"] for sigma in (0.01, 3.0))
    np.testing.assert_allclose(small, large, rtol=1e-3)
    assert abs(large - np.square(kernel).sum()) < 4.4 * spread


def test_without_contraction_it_is_the_plain_autoencoder_on_the_clean_data():
    model = CAE.dense(6, 4)
    params, batch = setup(model, (5, 6))
    with jax.numpy_dtype_promotion("strict"):
        loss, metrics = scae_loss(params, batch, KEY, model=model, contraction=0.0, sigma=jnp.float32(2.0))
    del metrics["shift_sq"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        (loss, metrics),
        ae_loss(params, batch, KEY, model=model),
    )


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="sigma is 0"):
        scae(CAE.dense(6, 4), HParams(sigma=0.0))
    with pytest.raises(InputError, match="contraction is -1"):
        scae(CAE.dense(6, 4), HParams(contraction=-1.0))
