"""A network that is told a class beside its input."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Labelled(nn.Module):
    """`net` on its input with the one-hot label behind it: as further numbers of a vector, or channels of an image.

    Attributes:
      net: any Linen module, `[B, D + K]` or `[B, H, W, C + K] -> [B, ...]`.
      num_classes: K; a label outside 0..K-1 is all zeros.
    """

    net: nn.Module
    num_classes: int

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(y, self.num_classes, dtype=x.dtype)
        told = one_hot.reshape(x.shape[0], *(1,) * (x.ndim - 2), self.num_classes)
        return self.net(jnp.concatenate([x, jnp.broadcast_to(told, (*x.shape[:-1], self.num_classes))], axis=-1))
