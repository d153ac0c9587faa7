"""What every autoencoder module has in common: an encoder, a decoder, and the names of the maps between them."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import numpy as np

from aejax import likelihoods, priors
from aejax.checks import InputError, check_classes
from aejax.likelihoods import Likelihood
from aejax.nets.conv import ConvDecoder, ConvEncoder, strided_sizes
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
      prior: over codes: a name of `aejax.priors`, one of its priors, or a learned one, which becomes the group `prior`.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_dim: int
    likelihood: str | Likelihood = "bernoulli"
    prior: str | priors.Prior | priors.LearnedPrior | None = None

    networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder")  # the fields that `init_params` wants to be modules
    takes_labels: ClassVar[bool] = False  # True: every map takes y behind its first argument, and so do the networks
    learns_labels: ClassVar[bool] = False  # True: trained on examples with labels, of which its maps take none
    takes_places: ClassVar[bool] = False  # True: a code may have several places, `[B, ..., Z]`
    takes_missing: ClassVar[bool] = False  # True: x may be NaN where it was not observed, if the likelihood takes that

    @classmethod
    def needs_labels(cls) -> bool:
        """Whether it is trained on examples with labels."""
        return cls.takes_labels or cls.learns_labels

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        """How many numbers the encoder of a model with these fields returns for a code of `latent_dim`."""
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
        size = cls.code_size(latent_dim, **fields)
        if tied and size != latent_dim:
            raise InputError(f"The decoder of {cls.__name__} takes less than its encoder returns: it cannot be tied.")
        encoder = MLP((*hidden_dims, size), activation, code_activation, use_bias)
        outputs = cls.decoder_shape((data_dim,), tied=tied, **fields)
        decoder: nn.Module
        if tied:
            decoder = TiedMLP(encoder, activation, use_bias)
        else:
            decoder = MLP((*reversed(hidden_dims), *outputs), activation, None, use_bias)
        return cls.completed(cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields))

    @classmethod
    def conv(
        cls,
        data_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        features: tuple[int, ...] = (32, 64, 64, 64),
        strides: tuple[int, ...] = (1, 2, 2, 1),
        activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu,
        grid: bool = False,
        **fields: Any,
    ) -> Self:
        """A convolutional autoencoder on images `[B, H, W, C]` of any size, its decoder the mirror of its encoder.

        Args:
          data_shape: `(H, W, C)`.
          latent_dim: Z.
          features: channels after each convolution of the encoder.
          strides: of each convolution; stride 2 halves height and width, rounded up.
          activation: after each convolution but the decoder's last.
          grid: whether the code is a grid of the size that the strides leave, row by row, each place with as many of
            the Z numbers, rather than one vector that all places tell together.
          fields: of the class, such as `likelihood`.

        Raises:
          InputError: `data_shape` is not three positive integers; the grid does not divide Z, or its places would hold
            more than a code, as of a posterior.
        """
        if not (isinstance(data_shape, tuple) and len(data_shape) == 3 and min(data_shape) > 0):
            raise InputError(f"data_shape={data_shape!r}; images have a shape (H, W, C) of three positive integers.")
        size = cls.code_size(latent_dim, **fields)
        places = math.prod(strided_sizes(data_shape[:2], strides)[-1]) if grid else 1
        if latent_dim % places or (grid and size != latent_dim):
            raise InputError(
                f"{cls.__name__}.conv with a grid of {places} places has a code of {places}, {2 * places}, ... numbers,"
                f" and an encoder that returns no more; latent_dim={latent_dim}, and it returns {size}."
            )
        encoder = ConvEncoder(size, features, strides, activation, place_dim=size // places if grid else None)
        shape = (*data_shape[:2], cls.decoder_shape(data_shape, **fields)[2])
        decoder = ConvDecoder(shape, features, strides, activation, is_grid=grid)
        return cls.completed(cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields))

    @classmethod
    def completed(cls, model: Any) -> Any:
        """The model of an encoder and a decoder with what else its method needs; `dense` and `conv` end with it."""
        return model

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """Touches every submodule, so that `init` creates them all: `[B, ...] -> [B, ...]`."""
        z = self.embed(x, *condition)
        if isinstance(self.prior, priors.LearnedPrior):
            self.prior(x, z)
            self.log_prior(z)  # a prior that does not go with the model is refused here, by `init_params`
        return self.decode(z, *condition)

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

    def nll(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """-log p(x|z), in nats per example: `[B, Z], [B, ...] -> [B]`."""
        return likelihoods.get(self.likelihood).nll(self.decode(z, *condition), x)

    def nll_and_mean(self, z: jax.Array, x: jax.Array, *condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`nll` and `generate`, in one pass through the decoder where no class overrides them: `[B], [B, ...]`."""
        if _overrides(self):
            return self.nll(z, x, *condition), self.generate(z, *condition)
        likelihood, output = likelihoods.get(self.likelihood), self.decode(z, *condition)
        return likelihood.nll(output, x), likelihood.mean(output)

    def log_prior(self, z: jax.Array) -> jax.Array:
        """log p(z), in nats: `[B, Z] -> [B]`."""
        prior = self._known_prior()
        return prior.log_prob(z, self) if isinstance(prior, priors.LearnedPrior) else prior.log_prob(z)

    def sample_prior(self, key: jax.Array, n: int) -> jax.Array:
        """Independent draws from the prior, `[n, Z]`; the key is consumed."""
        prior = self._known_prior()
        return prior.sample(key, n, self) if isinstance(prior, priors.LearnedPrior) else prior.sample(key, n)

    def sample(self, key: jax.Array, n: int, *condition: jax.Array) -> jax.Array:
        """Draws from the model: codes from the prior, and the means of the data that they stand for, `[n, ...]`.

        Args:
          key: consumed.
          n: how many; static.
          condition: `[n, ...]`, where the model is conditioned.

        Raises:
          InputError: the model has no prior, or lacks its condition.
        """
        if self.takes_labels and not condition:
            raise InputError(f"{type(self).__name__} is conditioned on labels: sample(key, {n}, y), y of {n} rows.")
        return self.generate(self.sample_prior(key, n), *condition)

    @property
    def has_normal_prior(self) -> bool:
        """Whether the prior is N(0, I), for which closed forms are known."""
        own = type(self).log_prior is not Autoencoder.log_prior
        return not own and isinstance(self._known_prior(), priors.StandardNormal)

    @property
    def groups(self) -> tuple[str, ...]:
        """The parameter groups that learning to reconstruct moves."""
        learned = ("prior",) if isinstance(self.prior, priors.LearnedPrior) else ()
        own = likelihoods.get(self.likelihood).own_parameter
        shares_all = isinstance(self.decoder, TiedMLP) and not self.decoder.use_bias  # it has nothing of its own
        return ("encoder", *(() if shares_all else ("decoder",)), *learned, *(() if own is None else (own,)))

    def _known_prior(self) -> priors.Prior | priors.LearnedPrior:
        if self.prior is None:
            name = type(self).__name__
            raise InputError(
                f"This {name} has no prior over its codes: build it with one, {name}.dense(..., prior='normal'),"
                " or decode codes of your own with `generate`."
            )
        return priors.get(self.prior, self.latent_dim)


def _overrides(model: Autoencoder) -> list[str]:
    """Which of the maps that the likelihood tells its class has of its own."""
    return [name for name in ("nll", "generate") if getattr(type(model), name) is not getattr(Autoencoder, name)]


def check_plain(model: Autoencoder, *, any_likelihood: bool = True) -> None:
    """Refuses a model with `nll` or `generate` of its own, for losses that go by the components of the likelihood.

    Args:
      model: any `Autoencoder`.
      any_likelihood: whether the loss takes any likelihood, so that one of the user's own is a way out.
    """
    if own := _overrides(model):
        instead = "give the model a likelihood of your own, or " if any_likelihood else ""
        raise InputError(
            f"{type(model).__name__} overrides {' and '.join(own)}, and this loss goes by the components of the"
            f" likelihood: {instead}use a method that asks for the nll, such as ae."
        )


def shaped(network: str, output: jax.Array, wanted: tuple[int, ...]) -> jax.Array:
    """What a network of a model returns, refused where it is of another shape than its method needs."""
    if not hasattr(output, "shape"):
        raise InputError(f"The {network} returns a {type(output).__name__}; an array {wanted[1:]} is wanted for each.")
    if output.shape[:1] != wanted[:1]:
        raise InputError(f"The {network} returns {len(output) if output.ndim else 0} rows for {wanted[0]} examples.")
    if output.shape != wanted:
        raise InputError(f"The {network} returns {output.shape[1:]} for an example; {wanted[1:]} is wanted.")
    return output


def inputs(model: Autoencoder, data: Any) -> tuple[Any, ...]:
    """What the maps of a model take beside parameters: `(x,)`, or `(x, y)` where the model is conditioned.

    Args:
      model: any `Autoencoder`.
      data: `x` `[B, ...]`, or a `Batch`.

    Raises:
      InputError: the model is conditioned, and the data bring no labels, or, on the host, labels that it does not know.
    """
    x, y = (data.x, data.y) if hasattr(data, "_fields") else (data, None)
    if not model.takes_labels:
        return (x,)
    if y is None:
        raise InputError(f"{type(model).__name__} is conditioned on labels, and none came: give Batch(x, y).")
    if np.shape(y)[:1] != np.shape(x)[:1]:
        raise InputError(f"x has shape {np.shape(x)} and y {np.shape(y)}; they need as many rows as each other.")
    check_labels(model, y)
    return (x, y)


def check_labels(model: Autoencoder, y: Any) -> None:
    """Refuses labels that a model conditioned on classes does not know; traced ones pass, for they have no value yet.

    Args:
      model: one with a field `num_classes` takes y `[B]`, integers from 0 to below that; others any y.
      y: what the model would be conditioned on.

    Raises:
      InputError: the shape, the dtype, or a label outside of the classes.
    """
    num_classes = getattr(model, "num_classes", None)
    if num_classes is not None:
        check_classes(y, num_classes, type(model).__name__)
