"""Sums in float32 or wider, whatever the network computes in: half precision counts 784 pixels in steps of 4 nats."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Array = jax.Array


def wide(dtype: Any) -> Any:
    """The type that numbers of a type are summed in: float32 for half precision, integers and bool, else the type."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.float32
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def widen(x: ArrayLike) -> Array:
    """x in the type that it is summed in.

    Example:
      >>> widen(jnp.ones(2, jnp.bfloat16)).dtype, widen(jnp.ones(2)).dtype
      (dtype('float32'), dtype('float32'))
    """
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))


def sum_event(values: Array) -> Array:
    """Sums all but the first axis, in float32 or wider: `[B, ...] -> [B]`."""
    return values.reshape(values.shape[0], -1).sum(axis=1, dtype=wide(values.dtype))


def sum_last(values: Array) -> Array:
    """Sums the last axis, in float32 or wider: `[..., Z] -> [...]`."""
    return values.sum(axis=-1, dtype=wide(values.dtype))
