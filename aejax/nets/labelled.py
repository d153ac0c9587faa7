"""A network that is told a condition beside its input: a class, or numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.nets.mlp import MLP


class Labelled(nn.Module):
    """`net` on its input with the condition behind it: as further numbers of a vector, or channels of an image.

    Attributes:
      net: any Linen module, `[B, D + K]` or `[B, H, W, C + K] -> [B, ...]`.
      num_classes: K, where y `[B]` is a label, which stands there as one-hot numbers; one outside 0..K-1 is all zeros.
        None where y `[B, ...]` is of numbers, K for each example, which stand there as they are.
    """

    net: nn.Module
    num_classes: int | None

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        numbers = y.astype(x.dtype) if self.num_classes is None else jax.nn.one_hot(y, self.num_classes, dtype=x.dtype)
        told = numbers.reshape(x.shape[0], *(1,) * (x.ndim - 2), -1)
        told = jnp.broadcast_to(told, (*x.shape[:-1], told.shape[-1]))
        if isinstance(self.net, MLP):  # which multiplies x once where it is seen with several conditions
            return self.net(x, told)
        return self.net(jnp.concatenate([x, told], axis=-1))
