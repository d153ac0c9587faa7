"""The linear VAE, where posterior, likelihood and bound have closed forms, and tests of means over many draws.

Tipping & Bishop (1999): with x ~ N(W z + mu, I), z ~ N(0, I), the posterior is N(M^-1 W' (x - mu), M^-1), M = W'W + I.
Where the columns of W are orthogonal M is diagonal, a linear encoder is exact, and the bound is the likelihood.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from aejax.data import Batch
from aejax.methods.vae import VAE

D, Z, N = 6, 2, 64
LINEAR = VAE.dense(D, Z, hidden_dims=(), likelihood="gaussian")


def ppca(x: np.ndarray, latent_dim: int) -> tuple[dict, float]:
    """Maximum-likelihood pPCA of unit noise as parameters of a linear VAE, and its mean negative log-likelihood."""
    mu, covariance = x.mean(0), np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    w = vectors[:, -latent_dim:] * np.sqrt(np.maximum(values[-latent_dim:] - 1, 0))
    m = np.diag(w.T @ w) + 1
    nll = -scipy.stats.multivariate_normal(mu, w @ w.T + np.eye(len(mu))).logpdf(x).mean()
    encoder = {
        "kernel": np.concatenate([w / m, np.zeros_like(w)], axis=1),
        "bias": np.concatenate([-mu @ w / m, -np.log(m)]),
    }
    params = {"encoder": {"dense_0": encoder}, "decoder": {"dense_0": {"kernel": w.T, "bias": mu}}}
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params), nll


def problem() -> tuple[Batch, dict, float]:
    """Data of that model, the optimum, and the mean negative log-likelihood there."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, Z)) @ rng.normal(0, 1.5, (Z, D)) + rng.normal(size=(N, D)) + rng.normal(size=(1, D))
    params, nll = ppca(x, Z)
    return Batch(jnp.asarray(x, jnp.float32)), params, nll


def away(params, scale=0.3):
    """Parameters at a random place near the given ones, log-variances that depend on x included."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return tree.unflatten([leaf + jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


def draws(function, num, seed):
    return jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(seed), num))


def z_scores(values, expected):
    values = np.asarray(values, np.float64)
    return (values.mean(0) - expected) / (values.std(0, ddof=1) / np.sqrt(len(values)))
