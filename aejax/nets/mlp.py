"""Dense networks: a chain of affine layers, and its transpose with tied weights."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Dense(nn.Dense):
    """`nn.Dense` of inputs that stand behind one another, each times its own rows of the kernel.

    So an input that `jax.vmap` does not map is multiplied once, whatever the others are.

    Call: `[B, D], [B, K], ... -> [B, features]`, with the parameters of `nn.Dense` on `[B, D + K + ...]`.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *others: jax.Array) -> jax.Array:
        if not others:
            return super().__call__(x)
        parts = (x, *others)
        ends = np.cumsum([part.shape[-1] for part in parts])
        kernel = self.param("kernel", self.kernel_init, (int(ends[-1]), self.features), self.param_dtype)
        products = [part @ rows for part, rows in zip(parts, jnp.split(kernel, ends[:-1]), strict=True)]
        y = sum(products[1:], start=products[0])
        if self.use_bias:
            y += self.param("bias", self.bias_init, (self.features,), self.param_dtype).reshape(
                (1,) * (y.ndim - 1) + (-1,)
            )
        return y


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
      features: width of each layer; the last is the output.
      activation: between layers; a module-level function, so that equal networks compare equal and compile once.
      final_activation: after the last layer; none by default.
      use_bias: whether the layers have biases.

    Call: `[B, D] -> [B, features[-1]]`. Layers are named `dense_0`, `dense_1`, ...; further inputs `[B, K]` stand
    behind the first, as in `Dense`.
    """

    features: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    final_activation: Callable[[jax.Array], jax.Array] | None = None
    use_bias: bool = True

    def setup(self):
        self.dense = [Dense(width, use_bias=self.use_bias) for width in self.features]

    def __call__(self, x: jax.Array, *others: jax.Array) -> jax.Array:
        return self.layers(x, *others)[-1]

    def layers(self, x: jax.Array, *others: jax.Array) -> list[jax.Array]:
        """Each hidden layer behind its activation, and last the output: `[B, D] -> [B, features[i]]`."""
        first, *rest = self.dense
        found = [first(x, *others)]
        for layer in rest:
            found[-1] = self.activation(found[-1])
            found.append(layer(found[-1]))
        if self.final_activation is not None:
            found[-1] = self.final_activation(found[-1])
        return found

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
