"""ALI with one number, one code, and affine maps: `g(z) = w z + m`, `e(x) = u x + v`, `d(x, z) = a x + k z + c`."""

import jax.numpy as jnp
import numpy as np

from aejax.methods.ali import ALI

TINY = ALI.dense(1, 1, hidden_dims=(), likelihood="gaussian")
HAND = {"w": 0.5, "m": 1.0, "u": 0.7, "v": -0.2, "a": -1.5, "k": 0.8, "c": 0.3}
X = np.array([[0.5], [1.0], [-2.0], [0.1]])


def dense(kernel, bias):
    return {"dense_0": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}


def tiny(w, m, u, v, a, k, c):
    """The parameters of `TINY`."""
    return {"encoder": dense([[u]], [v]), "decoder": dense([[w]], [m]), "discriminator": dense([[a], [k]], [c])}
