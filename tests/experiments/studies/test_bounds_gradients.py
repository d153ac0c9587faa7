"""The signal in a gradient, where it has a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.methods.vae import VAE
from experiments.studies.bounds_gradients import signal_to_noise

MODEL = VAE.dense(1, 1, hidden_dims=(), likelihood="gaussian")


def ratio(estimator, b, size=4):
    """Images of 0, a decoder of nothing: with e ~ N(0, 1) a draw is z = b + e, and -log w = z^2/2 - e^2/2 - s/2 + c."""
    zeros = {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
    encoder = {"kernel": jnp.zeros((1, 2)), "bias": jnp.array([b, 0.0])}
    params = {"encoder": {"dense_0": encoder}, "decoder": {"dense_0": zeros}}
    options = {"model": MODEL, "num_samples": 1, "estimator": estimator, "num_gradients": 20_000}
    return float(signal_to_noise(params, jnp.zeros((size, 1)), jax.random.key(0), **options))


def test_by_hand():
    """For b, and the log-variance s at 0, the gradient of one image is

    (b + e, (b e + e^2 - 1) / 2), mean (b, 0) and variance 1 + (b^2 + 2) / 4; without the score
    (b, b e / 2), mean (b, 0) and variance b^2 / 4, of doubly reparameterised draws the same where there is one.
    """
    b = 0.8
    assert ratio("plain", b) == pytest.approx(np.sqrt(4 * b**2 / (1 + (b**2 + 2) / 4)), rel=0.02)
    assert ratio("stl", b) == pytest.approx(4, rel=0.02)
    assert ratio("dreg", b) == pytest.approx(4, rel=0.02)


def test_noise_is_no_signal():
    """The mean of 20,000 such gradients has a length of 0.007 deviations."""
    assert ratio("plain", 0.0, size=1) < 0.005
