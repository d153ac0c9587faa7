"""A linear-Gaussian model conditioned on classes, of which everything is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

from aejax.data import Batch
from aejax.methods.vae import VAE

D, Z, C, N = 6, 2, 3, 40


class WithClass(nn.Module):
    """A dense layer on its input and its class, one-hot."""

    features: int

    @nn.compact
    def __call__(self, v, y):
        return nn.Dense(self.features)(jnp.concatenate([v, jax.nn.one_hot(y, C, dtype=v.dtype)], axis=1))


class ConditionedVAE(VAE):
    """A VAE on classes."""

    num_classes: int = C
    takes_labels = True


def linear_model():
    """x ~ N(W z + b_y, I) and its exact posterior; the data, drawn from it, and log p(x|y) of each."""
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(D, Z)))[0] * np.array([2.0, 0.7])  # orthogonal columns: a diagonal posterior
    b, y = rng.normal(0, 3, (C, D)), np.arange(N) % C
    x = (rng.normal(size=(N, Z)) @ w.T + b[y] + rng.normal(size=(N, D))).astype(np.float32)
    truth = multivariate_normal(np.zeros(D), w @ w.T + np.eye(D)).logpdf(np.float64(x) - b[y])
    precision = 1 + (w**2).sum(axis=0)
    to_mean = w / precision
    encoder = {
        "kernel": np.block([[to_mean, np.zeros((D, Z))], [-b @ to_mean, np.zeros((C, Z))]]),
        "bias": np.concatenate([np.zeros(Z), -np.log(precision)]),
    }
    decoder = {"kernel": np.concatenate([w.T, b]), "bias": np.zeros(D)}
    params = jax.tree.map(
        lambda v: jnp.asarray(v, jnp.float32), {"encoder": {"Dense_0": encoder}, "decoder": {"Dense_0": decoder}}
    )
    model = ConditionedVAE(WithClass(2 * Z), WithClass(D), latent_dim=Z, likelihood="gaussian")
    return model, params, Batch(x, y), truth, (to_mean, b, w)
