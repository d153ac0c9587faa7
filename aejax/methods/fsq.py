"""Finite scalar quantisation: each number of the code is rounded to one of a few levels; no codebook is learned.

Mentzer, Minnen, Agustsson & Tschannen, "Finite scalar quantization: VQ-VAE made simple", ICLR 2024. The code of an
example is a few points of a grid, side by side; their numbers are its tokens.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.algorithm import Metrics, Params
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, one_player
from aejax.methods.ae import AE, ae_loss
from aejax.nets import quantise

__all__ = ["FSQ", "fsq", "fsq_loss"]

_MARGIN = 1e-3  # by which the outermost levels are not reached, in the code of the paper


class FSQ(AE):
    """An autoencoder whose code is `latent_dim / len(levels)` points of a grid, side by side.

    Attributes:
      levels: how many values each number of a point has, at least 2; as many as divide `latent_dim`. The paper advises
        5 and more.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)

    def setup(self) -> None:
        super().setup()
        if not self.levels or min(self.levels) < 2 or self.latent_dim % len(self.levels):
            raise InputError(
                f"levels={self.levels}: at least one number of at least 2 values is needed, and their count divides"
                f" latent_dim={self.latent_dim}."
            )
        if math.prod(self.levels) > 2**31:
            raise InputError(f"levels={self.levels} make {math.prod(self.levels)} points; tokens count up to 2^31.")

    @property
    def num_entries(self) -> int:
        """K, the points of the grid."""
        return math.prod(self.levels)

    def vectors(self, x: jax.Array) -> jax.Array:
        """What the encoder returns, bounded, before it is rounded: `[B, ...] -> [B, slots, d]`."""
        return bounded(self.encoder(x).reshape(x.shape[0], -1, len(self.levels)), self.levels)

    def tokens(self, x: jax.Array) -> jax.Array:
        """The discrete code: `[B, ...] -> [B, slots]` int32 below `num_entries`."""
        return quantise.to_tokens(jnp.round(self.vectors(x)) + halves(self.levels), self.levels)

    def entries(self, tokens: jax.Array) -> jax.Array:
        """The code that tokens stand for, of numbers between -1 and 1: `[B, slots] -> [B, Z]`."""
        half = halves(self.levels)
        return ((quantise.to_digits(tokens, self.levels) - half) / half).reshape(tokens.shape[0], -1)

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The quantised code, `[B, Z]`; its gradient passes straight through the rounding."""
        vectors = self.vectors(x)
        return (quantise.straight_through(vectors, jnp.round(vectors)) / halves(self.levels)).reshape(x.shape[0], -1)


def halves(levels: tuple[int, ...]) -> jax.Array:
    """How many levels lie below zero, which scales them to [-1, 1]: `[1, 1, d]`."""
    return jnp.array([[[size // 2 for size in levels]]], jnp.float32)


def bounded(z: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Numbers that round to one of `size` integers from `-(size // 2)` on, for each size of `levels`: `[..., d]`.

    Example:
      >>> jnp.round(bounded(jnp.array([[-9.0, -9.0], [0.0, 0.0], [9.0, 9.0]]), (3, 4))).astype(int).tolist()
      [[-1, -2], [0, 0], [1, 1]]

    Reference: appendix A.1, `bound`, whose shift is a tangent where the inverse of tanh would take 0 to 0 exactly.
    """
    half = [(size - 1) * (1 - _MARGIN) / 2 for size in levels]
    offset = [0.0 if size % 2 else 0.5 for size in levels]
    shift = [math.tan(a / b) for a, b in zip(offset, half, strict=True)]
    rows = jnp.array([shift, half, offset], z.dtype).reshape(3, *(1,) * (z.ndim - 1), -1)
    return jnp.tanh(z + rows[0]) * rows[1] - rows[2]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


@partial(jax.jit, static_argnames=("model",))
def fsq_loss(params: Params, batch: Batch, key: jax.Array, *, model: FSQ) -> tuple[jax.Array, Metrics]:
    """`ae_loss` of the quantised code, straight through the rounding: there is no other term.

    Args:
      params, batch, key, model: as in `ae_loss`; the key is ignored.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means.

    Reference: section 3.1.
    """
    return ae_loss(params, batch, key, model=model)


fsq = one_player("fsq", fsq_loss, FSQ, HParams)

METHOD = Method(
    FSQ, HParams, fsq, "finite scalar quantisation: a code of numbers rounded to a few levels", "Mentzer et al. 2024",
    noise_free=True, fields={"levels": (16, 15)},
)  # fmt: skip
