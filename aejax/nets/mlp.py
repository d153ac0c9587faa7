"""Dense networks: a chain of affine layers, and its transpose with tied weights."""

from collections.abc import Callable

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
      features: width of each layer; the last is the output.
      activation: between layers; a module-level function, so that equal networks compare equal and compile once.
      final_activation: after the last layer; none by default.
      use_bias: whether the layers have biases.

    Call: `[B, D] -> [B, features[-1]]`. Layers are named `dense_0`, `dense_1`, ...
    """

    features: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    final_activation: Callable[[jax.Array], jax.Array] | None = None
    use_bias: bool = True

    def setup(self):
        self.dense = [nn.Dense(width, use_bias=self.use_bias) for width in self.features]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.dense[:-1]:
            x = self.activation(layer(x))
        x = self.dense[-1](x)
        return x if self.final_activation is None else self.final_activation(x)

    def kernels(self) -> list[jax.Array]:
        """The weight matrices `[in, out]`, first layer first; for whoever ties to them."""
        return [layer.variables["params"]["kernel"] for layer in self.dense]


class TiedMLP(nn.Module):
    """The decoder that reuses the transposed weights of an `MLP` encoder, and owns only biases.

    Attributes:
      encoder: the `MLP` whose weights it shares; give the same object to the autoencoder as its encoder.
      activation: between layers.
      use_bias: whether it has biases.

    Call: `[B, Z] -> [B, D]`.
    """

    encoder: MLP
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    use_bias: bool = True

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        kernels = self.encoder.kernels()
        for i, kernel in enumerate(reversed(kernels)):
            z = z @ kernel.T
            if self.use_bias:
                z = z + self.param(f"bias_{i}", nn.initializers.zeros, (1, kernel.shape[0]), kernel.dtype)
            if i < len(kernels) - 1:
                z = self.activation(z)
        return z
