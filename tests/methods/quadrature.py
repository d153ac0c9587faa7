"""Losses with Gaussian noise, and their exact expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import corruption
from aejax.data import Batch
from aejax.nets import init_params


def setup(model, shape, dtype=jnp.float32):
    """Parameters of twice the usual size, so that sigmoids are bent, and a batch."""
    x = jax.random.uniform(jax.random.key(0), shape, dtype)
    params = init_params(model, jax.random.key(1), x.astype(jnp.float32))
    return jax.tree.map(lambda v: 2 * v.astype(dtype), params), Batch(x)


def with_noise(loss):
    """`with_noise(loss)(e, ...)` is the loss with e for its standard Gaussian noise."""

    def at(e, *args, **kwargs):
        noisy = lambda key, x, sigma: x + sigma * jnp.broadcast_to(e, x.shape)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(corruption, "gaussian", noisy)
            patch.setitem(corruption.CORRUPTIONS, "gaussian", noisy)
            return loss.__wrapped__(*args, **kwargs)

    return at


def expectation(loss, dim, num_nodes=40):
    """The mean of `loss(e)` over e `[dim]` from N(0, I), by Gauss-Hermite quadrature: exact to rounding."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = jnp.asarray(np.stack(np.meshgrid(*[nodes] * dim), axis=-1).reshape(-1, dim))
    weights = jnp.asarray(np.prod(np.meshgrid(*[mass / mass.sum()] * dim), axis=0).ravel())
    return jnp.tensordot(weights, jax.vmap(loss)(grid), 1)
