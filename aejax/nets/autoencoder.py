"""What every autoencoder module has in common: an encoder, a decoder, and the names of the maps between them."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax

from aejax import likelihoods
from aejax.checks import InputError
from aejax.nets.conv import ConvDecoder, ConvEncoder
from aejax.nets.mlp import MLP, TiedMLP


class Autoencoder(nn.Module):
    """Abstract base: maps arrays to arrays, draws no noise, computes no loss.

    The names of the submodules are the parameter groups: `params["encoder"]`, `params["decoder"]`.

    Attributes:
      encoder: any Linen module, `[B, ...] -> [B, code_size(latent_dim)]`.
      decoder: any Linen module, `[B, Z] -> [B, ...]`, returning logits (Bernoulli) or the mean (Gaussian).
      latent_dim: Z, the size of the code.
      likelihood: what the decoder's output means, `bernoulli` or `gaussian`.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_dim: int
    likelihood: str = "bernoulli"

    takes_labels: ClassVar[bool] = False  # True: every map takes y behind its first argument, and so do the networks

    @classmethod
    def code_size(cls, latent_dim: int) -> int:
        """How many numbers the encoder returns for a code of `latent_dim`."""
        return latent_dim

    @classmethod
    def dense(
        cls,
        data_dim: int,
        latent_dim: int,
        *,
        hidden_dims: tuple[int, ...] = (256,),
        activation: Callable[[jax.Array], jax.Array] = nn.relu,
        code_activation: Callable[[jax.Array], jax.Array] | None = None,
        tied: bool = False,
        use_bias: bool = True,
        **fields: Any,
    ) -> Self:
        """A dense autoencoder on vectors `[B, D]`, its decoder the mirror image of its encoder."""
        encoder = MLP((*hidden_dims, cls.code_size(latent_dim)), activation, code_activation, use_bias)
        decoder: nn.Module
        if tied:
            decoder = TiedMLP(encoder, activation, use_bias)
        else:
            decoder = MLP((*reversed(hidden_dims), data_dim), activation, None, use_bias)
        return cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields)

    @classmethod
    def conv(
        cls,
        data_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        features: tuple[int, ...] = (32, 64, 64, 64),
        strides: tuple[int, ...] = (1, 2, 2, 1),
        activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu,
        **fields: Any,
    ) -> Self:
        """A convolutional autoencoder on images `[B, H, W, C]` of any size, its decoder the mirror of its encoder.

        Args:
          data_shape: `(H, W, C)`.
          latent_dim: Z.
          features: channels after each convolution of the encoder.
          strides: of each convolution; stride 2 halves height and width, rounded up.
          activation: after each convolution but the decoder's last.
          fields: of the class, such as `likelihood`.

        Raises:
          InputError: `data_shape` is not three positive integers.
        """
        if not (isinstance(data_shape, tuple) and len(data_shape) == 3 and min(data_shape) > 0):
            raise InputError(f"data_shape={data_shape!r}; images have a shape (H, W, C) of three positive integers.")
        encoder = ConvEncoder(cls.code_size(latent_dim), features, strides, activation)
        decoder = ConvDecoder(data_shape, features, strides, activation)
        return cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields)

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """Touches every submodule, so that `init` creates them all: `[B, ...] -> [B, ...]`."""
        return self.decode(self.embed(x, *condition), *condition)

    def encode(self, x: jax.Array, *condition: jax.Array) -> Any:
        """What the encoder makes of x: by default z, `[B, ...] -> [B, Z]`."""
        return self.encoder(x, *condition)

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The representation of x, without noise: `[B, ...] -> [B, Z]`."""
        return self.encode(x, *condition)

    def decode(self, z: jax.Array, *condition: jax.Array) -> jax.Array:
        """Logits or mean: `[B, Z] -> [B, ...]`."""
        return self.decoder(z, *condition)

    def generate(self, z: jax.Array, *condition: jax.Array) -> jax.Array:
        """The mean of the data that z stands for, in data space: `[B, Z] -> [B, ...]`."""
        return likelihoods.get(self.likelihood).mean(self.decode(z, *condition))

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """x_hat, in data space: `[B, ...] -> [B, ...]`."""
        return self.generate(self.embed(x, *condition), *condition)

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that learning to reconstruct moves."""
        return ("encoder", "decoder")


def inputs(model: Autoencoder, data: Any) -> tuple[Any, ...]:
    """What the maps of a model take beside parameters: `(x,)`, or `(x, y)` where the model is conditioned.

    Args:
      model: any `Autoencoder`.
      data: `x` `[B, ...]`, or a `Batch`.

    Raises:
      InputError: the model is conditioned, and the data bring no labels.
    """
    x, y = (data.x, data.y) if hasattr(data, "_fields") else (data, None)
    if not model.takes_labels:
        return (x,)
    if y is None:
        raise InputError(f"{type(model).__name__} is conditioned on labels, and none came: give Batch(x, y).")
    return (x, y)
