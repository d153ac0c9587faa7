"""The compressive autoencoder: a code of integers, a learned probability for each, and rate against distortion.

Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017; Theis, Shi, Cunningham & Huszar,
"Lossy image compression with compressive autoencoders", ICLR 2017. Rounding has no gradient, so in training the code
gets uniform noise of the width of a rounding step in its place; what is evaluated, and what is written to files, is
rounded. `aejax.compress` writes the files.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, Rule, play
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, Tx, check_data, factory, optimisers
from aejax.nets import Autoencoder, quantise
from aejax.nets.entropy import LogisticMixtures
from aejax.nets.transforms import Analysis, Synthesis
from aejax.precision import sum_event

__all__ = ["CompressiveAE", "compressive_ae", "compressive_ae_loss"]


class CompressiveAE(Autoencoder):
    """An autoencoder whose code is rounded to integers, each as dear as an entropy model says.

    `dense` and `conv` have codes `[B, Z]`. `images` builds one for images of any size, with codes `[B, h, w, Z]`.

    Attributes:
      latent_dim: Z, the size of the last axis of the code; each of its channels has a distribution of its own.
      entropy: any Linen module, `[..., Z] -> [..., Z]` nats of the share from y - 1/2 to y + 1/2; its parameters are
        the group `entropy`. `dense`, `conv` and `images` take `LogisticMixtures`.
    """

    likelihood: str | likelihoods.Likelihood = "gaussian"
    entropy: nn.Module | None = None

    networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "entropy")
    takes_places: ClassVar[bool] = True

    @classmethod
    def completed(cls, model: Any) -> Any:
        return model if model.entropy is not None else model.clone(entropy=LogisticMixtures(model.latent_dim))

    @classmethod
    def images(
        cls,
        channels: int,
        latent_dim: int,
        *,
        features: tuple[int, ...] = (64, 64),
        strides: tuple[int, ...] = (4, 2, 2),
        kernels: tuple[int, ...] = (9, 5, 5),
        **fields: Any,
    ) -> Self:
        """For images `[B, H, W, channels]` of any size: convolutions and GDN, as published but for their widths.

        Args:
          channels: 1 for grey, 3 for colour.
          latent_dim: Z, channels of the code.
          features: channels after each convolution of the encoder but the last.
          strides, kernels: of each convolution; the code has a place for each `prod(strides)` pixels either way.
          fields: of the class, such as `entropy`.
        """
        outputs = cls.decoder_shape((1, 1, channels), **fields)[2]
        decoder = Synthesis(outputs, features, strides, kernels)
        encoder = Analysis(latent_dim, features, strides, kernels)
        return cls.completed(cls(encoder=encoder, decoder=decoder, latent_dim=latent_dim, **fields))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        y = self.encode(x)
        self.rate(y)
        return self.decode(y)

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The code, rounded: `[B, ...] -> [B, ..., Z]`; its gradient passes straight through to the encoder."""
        y = self.encode(x)
        return quantise.straight_through(y, jnp.round(y))

    def rate(self, y: jax.Array) -> jax.Array:
        """The information of a code, in nats per example: `[B, ..., Z] -> [B]`."""
        assert self.entropy is not None
        return sum_event(self.entropy(y))

    def reconstruct(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """x_hat of the rounded code, in data space: `[B, ...] -> [B, ...]`."""
        return cropped(self.generate(self.embed(x)), x.shape)

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "entropy")


def cropped(x_hat: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What a decoder returns, without the rows and columns by which the encoder padded its image."""
    return x_hat[tuple(map(slice, shape))]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of encoder and decoder."""
    entropy_lr: Positive = 1e-2
    """Learning rate of the entropy model."""
    distortion: Positive = 100.0
    """Weight of the squared error, summed over an example: nats that one unit of it is worth."""


@partial(jax.jit, static_argnames=("model", "rounded"))
def compressive_ae_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: CompressiveAE,
    distortion: float | jax.Array = 100.0,
    rounded: bool = False,
) -> tuple[jax.Array, Metrics]:
    """The rate of the code in nats, plus `distortion` times the squared error of what is decoded from it.

    With noise this is, but for a constant, the negative bound of a VAE whose posterior is uniform of width 1 and whose
    likelihood is Gaussian of variance `1 / (2 distortion)`. A lambda that weighs the mean squared error of 8-bit values
    beside bits per pixel is `distortion = 255^2 log(2) lambda / channels`; that does not depend on
    the size of the image.

    Args:
      params: `{"encoder": ..., "decoder": ..., "entropy": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed; of the noise, uniform in [-1/2, 1/2).
      model: static.
      distortion: weight.
      rounded: static: the code is rounded, and the key ignored.

    Returns:
      The mean over the batch, and the means `rate_nats` and `sse`.

    Reference: Ballé et al. (2017), who show the relation to variational autoencoders too.
    """
    x, bound = batch.x, model.bind({"params": params})
    y = _code(bound, x, key, rounded)
    rate = bound.rate(y).mean()
    sse = likelihoods.sse(cropped(bound.generate(y), x.shape), x).mean()
    return rate + distortion * sse, {"rate_nats": rate, "sse": sse}


@partial(jax.jit, static_argnames=("model", "rounded"))
def entropy_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: CompressiveAE, rounded: bool = False
) -> tuple[jax.Array, Metrics]:
    """The rate alone, of codes that are held fixed: all of `compressive_ae_loss` that moves the entropy model."""
    bound = model.bind({"params": params})
    return bound.rate(jax.lax.stop_gradient(_code(bound, batch.x, key, rounded))).mean(), {}


def _code(bound: CompressiveAE, x: jax.Array, key: jax.Array, rounded: bool) -> jax.Array:
    if rounded:
        return bound.embed(x)
    y = bound.encode(x)
    return y + jax.random.uniform(key, y.shape, y.dtype, -0.5, 0.5)


@factory
def compressive_ae(
    model: CompressiveAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players of one loss, at one noise: the entropy model has to follow the codes, and so has a rate of its own.

    Training is with noise, evaluation with rounding.

    Returns:
      `rd` moves encoder and decoder, `entropy` the entropy model; one phase. `evaluate` draws no noise.
    """
    own = optimisers(tx, {"rd": hparams.lr, "entropy": hparams.entropy_lr})
    networks = tuple(group for group in model.groups if group != "entropy")

    def game(rounded: bool) -> Algorithm:
        rd, entropy = (partial(loss, model=model, rounded=rounded) for loss in (compressive_ae_loss, entropy_loss))
        players: dict[str, Player | Rule] = {
            "rd": Player(rd, networks, own["rd"], knobs={"distortion": hparams.distortion}),
            "entropy": Player(entropy, ("entropy",), own["entropy"]),
        }
        return play(players, [["rd", "entropy"]], axis_name=axis_name, check=partial(check_data, model))

    evaluate = game(rounded=True).evaluate
    return game(rounded=False)._replace(evaluate=evaluate)


TERMS = {
    "rate_nats": Term(
        "nats per example",
        "information of the code under its entropy model: with noise in training, of the rounded code elsewhere",
    ),
    "test_rate_bits": Term("bits per component of x", "the same of the test split"),
}
METHOD = Method(
    CompressiveAE, HParams, compressive_ae, "compressive: a rounded code, and a learned entropy model of it",
    "Ballé et al. 2017; Theis et al. 2017", knobs={"distortion": 1.0}, terms=TERMS,
)  # fmt: skip
