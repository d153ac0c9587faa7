"""What densities of mixtures share."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aejax.precision import widen

Array = jax.Array


def mix(sq_distances: Array, constants: np.ndarray | Array) -> Array:
    """Log of a sum of Gaussians: `[..., K]` squared whitened distances and `[K]` log-factors `-> [...]`."""
    log_terms = -0.5 * sq_distances + jnp.broadcast_to(jnp.asarray(constants, sq_distances.dtype), sq_distances.shape)
    return jax.nn.logsumexp(log_terms, axis=-1)


def per_component(z: Array, centres: np.ndarray | Array) -> Array:
    """`[..., Z]` and `[K, Z] -> [..., K, Z]` differences."""
    z, shape = widen(z), (*z.shape[:-1], *centres.shape)
    return jnp.broadcast_to(z[..., None, :], shape) - jnp.broadcast_to(jnp.asarray(centres, z.dtype), shape)


def check_points(z: Array, latent_dim: int) -> None:
    chex.assert_axis_dimension(z, -1, latent_dim)
