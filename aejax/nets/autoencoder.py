"""What every autoencoder module has in common: an encoder, a decoder, and the names of the maps between them."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import numpy as np

from aejax import likelihoods
from aejax.checks import InputError
from aejax.likelihoods import Likelihood
from aejax.nets.conv import ConvDecoder, ConvEncoder
from aejax.nets.mlp import MLP, TiedMLP


class Autoencoder(nn.Module):
    """Abstract base: maps arrays to arrays, draws no noise, computes no loss.

    The names of the submodules are the parameter groups: `params["encoder"]`, `params["decoder"]`.

    Attributes:
      encoder: any Linen module, `[B, ...] -> [B, code_size(latent_dim)]`.
      decoder: any Linen module, `[B, Z] -> [B, ...]`, returning what the likelihood takes for an example:
        `likelihood.outputs(shape)`, logits for Bernoulli, the mean for Gaussian.
      latent_dim: Z, the size of the code.
      likelihood: what the decoder's output means, a name of `aejax.likelihoods` or an object such as `Gaussian(0.1)`.
        A parameter of its own, as that of a learned variance, is one of the module: `params["logvar"]`.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_dim: int
    likelihood: str | Likelihood = "bernoulli"

    takes_labels: ClassVar[bool] = False  # True: every map takes y behind its first argument, and so do the networks

    @classmethod
    def code_size(cls, latent_dim: int) -> int:
        """How many numbers the encoder returns for a code of `latent_dim`."""
        return latent_dim

    def setup(self) -> None:
        own = likelihoods.get(self.likelihood).own_parameter
        if own is not None:
            self.own_parameter = self.param(own, nn.initializers.zeros, ())

    @classmethod
    def decoder_shape(cls, shape: tuple[int, ...], *, tied: bool = False, **fields: Any) -> tuple[int, ...]:
        """What the decoder of a model with these fields has to return for an example of that shape.

        Raises:
          InputError: that is several numbers for each component, and tied weights cannot return them.
        """
        likelihood = likelihoods.get(fields.get("likelihood", cls.likelihood))
        outputs = likelihood.outputs(shape)
        if tied and outputs != shape:
            raise InputError(
                f"{likelihood} wants {outputs} for an example of shape {shape}; a decoder with the transposed weights"
                " of the encoder returns the latter. Use tied=False."
            )
        return outputs

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
        outputs = cls.decoder_shape((data_dim,), tied=tied, **fields)
        decoder: nn.Module
        if tied:
            decoder = TiedMLP(encoder, activation, use_bias)
        else:
            decoder = MLP((*reversed(hidden_dims), *outputs), activation, None, use_bias)
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
        shape = (*data_shape[:2], cls.decoder_shape(data_shape, **fields)[2])
        decoder = ConvDecoder(shape, features, strides, activation)
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
        """What the likelihood takes, such as logits or means: `[B, Z] -> [B, ...]`."""
        return self.with_own_parameter(self.decoder(z, *condition))

    def with_own_parameter(self, output: jax.Array) -> jax.Array:
        """What a decoder network returns, with the parameter of the likelihood where it has one."""
        likelihood = likelihoods.get(self.likelihood)
        return output if likelihood.own_parameter is None else likelihood.attach(output, self.own_parameter)

    def generate(self, z: jax.Array, *condition: jax.Array) -> jax.Array:
        """The mean of the data that z stands for, in data space: `[B, Z] -> [B, ...]`."""
        return likelihoods.get(self.likelihood).mean(self.decode(z, *condition))

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """x_hat, in data space: `[B, ...] -> [B, ...]`."""
        return self.generate(self.embed(x, *condition), *condition)

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that learning to reconstruct moves."""
        own = likelihoods.get(self.likelihood).own_parameter
        return ("encoder", "decoder") if own is None else ("encoder", "decoder", own)


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


def init_params(model: Autoencoder, key: jax.Array, x: jax.Array | np.ndarray) -> dict[str, Any]:
    """Fresh parameters by group, with the module checked against the data first.

    Args:
      model: an `Autoencoder`.
      key: consumed.
      x: `[B, ...]` an example batch; one row is used.

    Returns:
      `{"encoder": ..., "decoder": ..., ...}`.

    Raises:
      InputError: the module cannot be a static argument of `jit` (a list or a lambda among its fields), keeps state
        beside its parameters (BatchNorm), or its shapes do not fit x and `latent_dim`.
    """
    check_module(model)
    likelihood = likelihoods.get(model.likelihood)
    variables = jax.jit(model.init)(key, x[:1])
    extra = sorted(set(variables) - {"params"})
    if extra:
        raise InputError(
            f"The module keeps {extra} beside its parameters. Losses here are pure and per example:"
            " use LayerNorm or GroupNorm in place of BatchNorm, and no mutable collections."
        )
    z = jax.eval_shape(lambda: model.apply(variables, x[:1], method="embed"))
    x_hat = jax.eval_shape(lambda: model.apply(variables, x[:1], method="reconstruct"))
    if z.shape != (1, model.latent_dim):
        raise InputError(
            f"The code of one example has shape {z.shape[1:]}; latent_dim={model.latent_dim} asks for an encoder that"
            f" returns {model.code_size(model.latent_dim)} numbers."
        )
    if x_hat.shape != x[:1].shape:
        raise InputError(
            f"The decoder returns {likelihood.outputs(x_hat.shape[1:])} for an example of shape {x.shape[1:]};"
            f" {likelihood} wants {likelihood.outputs(x.shape[1:])}."
        )
    return dict(variables["params"])


def check_module(module: nn.Module) -> None:
    """Refuses a module that `jit` cannot tell from another by value: its fields have to be hashable, and no lambdas."""
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name"):
            _check_field(f"{type(module).__name__}.{field.name}", getattr(module, field.name, None))


def _check_field(where: str, value: Any) -> None:
    if isinstance(value, nn.Module):
        check_module(value)
    elif isinstance(value, tuple):
        for item in value:
            _check_field(where, item)
    elif getattr(value, "__name__", "") == "<lambda>":
        raise InputError(f"{where} is a lambda, which would compile anew each time; use a module-level function.")
    else:
        try:
            hash(value)
        except TypeError:
            raise InputError(f"{where} is a {type(value).__name__}; use a tuple or another hashable.") from None
