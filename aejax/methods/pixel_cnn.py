"""PixelCNN: the exact likelihood of an image, each component given those before it; of vectors, by MADE.

van den Oord et al., "Conditional image generation with PixelCNN decoders", NIPS 2016, the gated network without
labels; on vectors the masked dense network of Germain et al., "MADE", ICML 2015, with one order and one mask. There is
no code in the paper. Here it is what the network knows of a place before it sees it, the features from which the
likelihood of the place is told: so it is an autoencoder that reconstructs each component from those before it, and the
negative log-likelihood of this reconstruction is exactly that of the image.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, one_player
from aejax.methods.ae import reconstruction
from aejax.nets import Autoencoder, MaskedMLP, pixels

__all__ = ["PixelCNN", "pixel_cnn", "pixel_cnn_loss"]

Array = jax.Array

_ABOVE_ZERO = 0.1  # the head takes the positive part: where a component has seen nothing but zeros, 0 would stay 0


class PixelCNN(Autoencoder):
    """Features of each component that have seen only those before it, and what the likelihood takes from them.

    Components come in the order of the array: rows, then places of a row, then channels.

    Attributes:
      encoder: any Linen module, `[B, H, W, C] -> [B, H, W, Z]` or `[B, D] -> [B, D, Z]`, whose features at a place have
        not seen it; `conv` takes `nets.pixels.GatedPixels`, `dense` takes `nets.MaskedMLP`.
      decoder: the same map at each place, `[..., Z] -> [..., numbers * C]`; of vectors C is 1.
      latent_dim: Z, features of a place.
      data_shape: `(H, W, C)` or `(D,)`.
    """

    data_shape: tuple[int, ...] = ()

    takes_places: ClassVar[bool] = True

    @classmethod
    def dense(
        cls,
        data_dim: int,
        latent_dim: int,
        *,
        hidden_dims: tuple[int, ...] = (256,),
        activation: Callable[[Array], Array] = nn.relu,
        one_hot: bool = False,
        **fields: Any,
    ) -> Self:
        """On vectors `[B, D]`, by masks of dense layers.

        Args:
          data_dim: D.
          latent_dim: Z.
          hidden_dims: of the masked layers.
          activation: between them.
          one_hot: whether the levels of a `Categorical` likelihood are names and no sizes, as those of tokens are.
          fields: of the class, such as `likelihood`.

        Raises:
          InputError: `one_hot` with another likelihood.
        """
        likelihood = likelihoods.get(fields.get("likelihood", cls.likelihood))
        levels = levels_of(likelihood, one_hot=one_hot)
        encoder = MaskedMLP(hidden_dims, latent_dim, activation, levels=levels, output_bias=_ABOVE_ZERO)
        head = pixels.PixelHead.of(1, likelihood)
        return cls.completed(cls(encoder, head, latent_dim, data_shape=(data_dim,), **fields))

    @classmethod
    def conv(
        cls,
        data_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        features: tuple[int, ...] = (32, 32, 32, 32),
        kernel_size: int = 5,
        one_hot: bool = False,
        **fields: Any,
    ) -> Self:
        """On images `[B, H, W, C]`, by gated convolutions; also on grids of tokens, `[B, H, W, 1]`.

        Args:
          data_shape: `(H, W, C)`.
          latent_dim: Z, at least C.
          features: of each layer, at least C.
          kernel_size: odd; with L layers a place sees `L (kernel_size - 1) / 2` rows and columns around it.
          one_hot: as of `dense`.
          fields: of the class, such as `likelihood`.

        Raises:
          InputError: as of `dense`.
        """
        likelihood = likelihoods.get(fields.get("likelihood", cls.likelihood))
        levels = levels_of(likelihood, one_hot=one_hot)
        encoder = pixels.GatedPixels(data_shape[2], latent_dim, features, kernel_size, levels=levels)
        head = pixels.PixelHead.of(data_shape[2], likelihood)
        return cls.completed(cls(encoder, head, latent_dim, data_shape=data_shape, **fields))

    def __call__(self, x: Array, *condition: Array) -> Array:
        return self.decode(self.encode(x))

    def encode(self, x: Array, *condition: Array) -> Array:
        """The features of each place, `[B, ...] -> [B, H, W, Z]`, of vectors `[B, D, Z]`."""
        return self.encoder(x)

    def embed(self, x: Array, *condition: Array) -> Array:
        """The mean of the features over places, `[B, ...] -> [B, Z]`, after Chen et al. (2020), of whole images."""
        z = self.encode(x)
        return z.mean(axis=tuple(range(1, z.ndim - 1)))

    def decode(self, z: Array, *condition: Array) -> Array:
        """What the likelihood takes, from features of each place, or from a vector `[B, Z]` that all places have."""
        is_image = len(self.data_shape) == 3
        if z.ndim == 2:
            places = self.data_shape[: 2 if is_image else 1]
            z = jnp.broadcast_to(z.reshape(z.shape[0], *(1,) * len(places), -1), (z.shape[0], *places, z.shape[1]))
        output = self.decoder(z)
        if not is_image:  # first numbers first: [B, D, numbers] -> [B, numbers D]
            output = jnp.swapaxes(output, 1, 2).reshape(output.shape[0], -1)
        return self.with_own_parameter(output)

    def reconstruct(self, x: Array, *condition: Array) -> Array:
        """The mean of each component given those before it, in data space: `[B, ...] -> [B, ...]`."""
        return self.generate(self.encode(x))

    def sample(self, key: Array, n: int, *condition: Array) -> Array:
        """Draws of x itself, `[n, ...]`, component by component; `rows_drawn` has the same and shows progress.

        Args:
          key: consumed.
          n: how many; static.
        """
        model, variables = self.unbind()
        emit, shape = emitter(model, variables), (n, *self.data_shape)
        if not isinstance(self.encoder, pixels.GatedPixels):
            features: Any = lambda x: model.apply(variables, x, method="encode")
            return pixels.draw_naively(features, emit, key, shape)
        own, none = {"params": variables["params"]["encoder"]}, jnp.zeros((*shape[:-1], 0))
        return pixels.draw(self.encoder.clone(parent=None), own, emit, key, shape, none)


def levels_of(likelihood: likelihoods.Likelihood, *, one_hot: bool) -> int | None:
    """How many names a component may be, or None where it is a number."""
    if one_hot and not isinstance(likelihood, likelihoods.Categorical):
        raise InputError(f"one_hot is for tokens, and the likelihood is {likelihood}: take Categorical(levels).")
    return likelihood.numbers if one_hot else None


def emitter(model: Any, variables: Any, method: str = "decode", *, means: bool = False) -> pixels.Emit:
    """What a place becomes, all its channels, `[n, C]`, from a key and its features `[n, Z]`: a draw, or the mean.

    Args:
      model: of a `data_shape` and a likelihood.
      variables: of the model.
      method: the map from features of a place to what the likelihood takes.
      means: whether the key is ignored, and the mean is taken.
    """
    likelihood, places = likelihoods.get(model.likelihood), (1,) * (2 if len(model.data_shape) == 3 else 1)

    def emit(key: Array, z: Array) -> Array:
        output: Any = model.apply(variables, z.reshape(z.shape[0], *places, -1), method=method)
        return (likelihood.mean(output) if means else likelihood.sample(key, output)).reshape(z.shape[0], -1)

    return emit


def rows_drawn(model: Any, params: Any, key: Array, n: int, say: Callable[[str], None]) -> np.ndarray:
    """`model.sample`, with the same bits, an image row at a time, so that it can be said how far it is.

    Args:
      model: of `PixelCNN.conv`; others draw at once.
      params: by group.
      key: consumed.
      n: how many.
      say: shows a line.

    Returns:
      `[n, ...]` on the host.
    """
    variables, shape = {"params": params}, (n, *model.data_shape)
    if not isinstance(model.encoder, pixels.GatedPixels):
        return np.asarray(model.apply(variables, key, n, method="sample"))
    own, none = {"params": params["encoder"]}, jnp.zeros((*shape[:-1], 0))
    return pixels.draw_saying(model.encoder, own, emitter(model, variables), key, shape, none, say)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


@partial(jax.jit, static_argnames=("model",))
def pixel_cnn_loss(params: Any, batch: Batch, key: Array, *, model: PixelCNN) -> tuple[Array, Metrics]:
    """The negative log-likelihood, exact, in nats per example: the sum over components given those before them.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, such as `model.sample` draws: binary for Bernoulli.
      key: ignored.
      model: static.

    Returns:
      The mean over the batch; `nll_nats`, the same; `sse`, that of the mean of each component given those before it.

    Reference: equation 1.
    """
    z = model.bind({"params": params}).encode(batch.x)
    nll, metrics = reconstruction(params, z, batch, model=model)
    return nll, {"nll_nats": nll, "sse": metrics["sse"]}


def check_model(model: PixelCNN, hparams: HParams) -> None:
    """Refuses a model that does not know what it draws."""
    if not isinstance(model, PixelCNN) or len(model.data_shape) not in (1, 3):
        raise InputError(
            f"A PixelCNN with a data_shape, (D,) or (H, W, C), is needed; got {type(model).__name__}:"
            " PixelCNN.conv((28, 28, 1), 32)."
        )


pixel_cnn = one_player(
    "pixel_cnn", pixel_cnn_loss, PixelCNN, HParams, check=check_model,
    notes="Departures: x is seen as it is, in [0, 1]; widths and rates are ours.",
)  # fmt: skip

TERMS = {"nll_nats": Term("nats per example", "negative log-likelihood, exact, each component given those before it")}
METHOD = Method(
    PixelCNN, HParams, pixel_cnn, "PixelCNN: exact likelihood, each pixel given those before it; of vectors MADE",
    "van den Oord et al. 2016; Germain et al. 2015", noise_free=True, terms=TERMS,
)  # fmt: skip
