"""PixelVAE: a variational autoencoder whose decoder tells each pixel from the code and the pixels before it.

Gulrajani et al., "PixelVAE: a latent variable model for natural images", ICLR 2017. The code need not hold what pixels
tell of each other, and the bound says how much it does hold: its KL is the rate, and `recon_nats` is what is left to
the pixels. On vectors the decoder is the masked dense network of MADE, told the code.
"""

from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax import likelihoods, priors
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.pixel_cnn import emitter
from aejax.methods.vae import VAE, check_samples, vae_loss
from aejax.nets import MLP, ConvDecoder, ConvEncoder, MaskedMLP, pixels

__all__ = ["PixelVAE", "pixel_vae"]

Array = jax.Array


class PixelDecoder(nn.Module):
    """Features of each place from the code and the places before it, and what the likelihood takes from them.

    Attributes:
      upsample: of the code, `[B, Z] -> [B, H, W, N]`; of vectors `[B, N]`.
      network: of the image and that, features of each place that have not seen it; `nets.pixels.GatedPixels`, or of
        vectors `nets.MaskedMLP`.
      head: `nets.pixels.PixelHead`.

    Call: `[B, Z], [B, ...] -> [B, ...]`.
    """

    upsample: nn.Module
    network: nn.Module
    head: nn.Module

    def __call__(self, z: Array, x: Array) -> Array:
        return self.output(self.features(x, self.told(z)))

    def told(self, z: Array) -> Array:
        """What the code tells each place."""
        return self.upsample(z)

    def features(self, x: Array, told: Array) -> Array:
        """Of each place, `[B, H, W, F]`, of vectors `[B, D, F]`."""
        return self.network(x, told)

    def output(self, features: Array) -> Array:
        """What the likelihood takes: `[B, H, W, numbers * C]`, of vectors `[B, numbers * D]`, first numbers first."""
        output = self.head(features)
        return output if output.ndim == 4 else jnp.swapaxes(output, 1, 2).reshape(output.shape[0], -1)


class PixelVAE(VAE):
    """A VAE whose decoder is told the pixels before each pixel.

    What a code stands for by itself, `generate`, is the image whose pixels are their means, one after the other, given
    the code and the means before: a picture to look at, and no mean of all images. `sample` draws the pixels.

    Attributes:
      decoder: a `PixelDecoder`; `dense` and `conv` make one.
      data_shape: `(H, W, C)` or `(D,)`.
    """

    data_shape: tuple[int, ...] = ()

    context_dim: ClassVar[int] = 16  # numbers that the code tells a place

    @classmethod
    def dense(
        cls,
        data_dim: int,
        latent_dim: int,
        *,
        hidden_dims: tuple[int, ...] = (256,),
        pixel_dims: tuple[int, ...] = (256,),
        **fields: Any,
    ) -> Self:
        """On vectors `[B, D]`.

        Args:
          data_dim: D.
          latent_dim: Z.
          hidden_dims: of the encoder, and reversed between the code and what it tells.
          pixel_dims: of the masked layers.
          fields: of the class, such as `likelihood`.
        """
        encoder = MLP((*hidden_dims, cls.code_size(latent_dim)))
        upsample = MLP((*reversed(hidden_dims), cls.context_dim))
        decoder = PixelDecoder(
            upsample,
            MaskedMLP(pixel_dims, cls.context_dim),
            pixels.PixelHead.of(1, fields.get("likelihood", cls.likelihood)),
        )
        return cls.completed(cls(encoder, decoder, latent_dim, data_shape=(data_dim,), **fields))

    @classmethod
    def conv(
        cls,
        data_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        features: tuple[int, ...] = (32, 64, 64, 64),
        strides: tuple[int, ...] = (1, 2, 2, 1),
        pixel_features: tuple[int, ...] = (16, 16),
        kernel_size: int = 3,
        **fields: Any,
    ) -> Self:
        """On images `[B, H, W, C]`.

        Args:
          data_shape: `(H, W, C)`.
          latent_dim: Z.
          features, strides: of the encoder's convolutions, as of `Autoencoder.conv`, and mirrored between the code and
            what it tells each place.
          pixel_features: of both stacks behind each gated layer. The fewer layers, the less pixels tell of those far
            away, and the more is left to the code.
          kernel_size: of these, odd.
          fields: of the class, such as `likelihood`.
        """
        height, width, channels = data_shape
        upsample = ConvDecoder((height, width, cls.context_dim), features, strides)
        network = pixels.GatedPixels(channels, pixel_features[-1], pixel_features, kernel_size, cls.context_dim)
        decoder = PixelDecoder(
            upsample, network, pixels.PixelHead.of(channels, fields.get("likelihood", cls.likelihood))
        )
        encoder = ConvEncoder(cls.code_size(latent_dim), features, strides)
        return cls.completed(cls(encoder, decoder, latent_dim, data_shape=data_shape, **fields))

    def __call__(self, x: Array, *condition: Array) -> Array:
        z = self.embed(x)
        if isinstance(self.prior, priors.LearnedPrior):
            self.prior(x, z)
            self.log_prior(z)
        return self.decode_given(z, x)

    def decode_given(self, z: Array, x: Array) -> Array:
        """What the likelihood takes, each component from the code and those of x before it: `[B, ...]`."""
        return self.with_own_parameter(self.decoder(z, x))

    def decode(self, z: Array, *condition: Array) -> Array:
        """What the likelihood takes, given the means of the components before each: `[B, Z] -> [B, ...]`."""
        return self.decode_given(z, self._pixels(jax.random.key(0), z, means=True))

    def decode_features(self, features: Array) -> Array:
        """What the likelihood takes, of the features of places."""
        return self.with_own_parameter(self.decoder.output(features))

    def nll(self, z: Array, x: Array, *condition: Array) -> Array:
        """-log p(x|z), in nats per example, each component given those before it: `[B, Z], [B, ...] -> [B]`."""
        return likelihoods.get(self.likelihood).nll(self.decode_given(z, x), x)

    def nll_and_mean(self, z: Array, x: Array, *condition: Array) -> tuple[Array, Array]:
        """`nll`, and the mean of each component given the code and those before it, in one pass."""
        likelihood, output = likelihoods.get(self.likelihood), self.decode_given(z, x)
        return likelihood.nll(output, x), likelihood.mean(output)

    def sample(self, key: Array, n: int, *condition: Array) -> Array:
        """Draws of x itself: codes from the prior, and then component by component, `[n, ...]`; the key is consumed."""
        code_key, pixel_key = jax.random.split(key)
        return self._pixels(pixel_key, self.sample_prior(code_key, n))

    def _pixels(self, key: Array, z: Array, *, means: bool = False) -> Array:
        model, variables = self.unbind()
        decoder, own = model.decoder, {"params": variables["params"]["decoder"]}
        emit, shape = emitter(model, variables, "decode_features", means=means), (z.shape[0], *self.data_shape)
        told = self.decoder.told(z)
        if not isinstance(decoder.network, pixels.GatedPixels):
            features: Any = lambda x: decoder.apply(own, x, told, method="features")
            return pixels.draw_naively(features, emit, key, shape)
        network = {"params": own["params"]["network"]}
        return pixels.draw(decoder.network, network, emit, key, shape, told)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL term; 1 is the bound itself."""


pixel_vae = one_player(
    "pixel_vae", vae_loss, PixelVAE, HParams, player="elbo", learns_prior=True, check=check_samples,
    notes=(
        "`kl_nats` is the rate; `recon_nats` and `sse` are of each component given the code and those before it."
        " Departures: one layer of codes; the code is told to every gated layer, where the paper puts it beside the"
        " input of the first; networks are ours and small."
    ),
)  # fmt: skip

TERMS = {"test_rate_nats": Term("nats per image", "`kl_nats` of the test split: what the code holds of an image")}
METHOD = Method(
    PixelVAE, HParams, pixel_vae, "variational, its decoder a small PixelCNN that is told the code",
    "Gulrajani et al. 2017", terms=TERMS, knobs={"beta": 0.2},  # at 1 the pixels of 64 digits do without a code
)  # fmt: skip
