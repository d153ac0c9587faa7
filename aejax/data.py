"""Datasets as arrays."""

from typing import NamedTuple

import jax


class Batch(NamedTuple):
    """What a loss is given."""

    x: jax.Array  # [B, ...] float32: examples, vectors [B, D] or images [B, H, W, C]
    y: jax.Array | None = None  # [B] int32: labels, where there are any
