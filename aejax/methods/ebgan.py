"""Energy-based generative adversarial networks: the discriminator is an autoencoder, and its error is the energy.

Zhao, Mathieu & LeCun, "Energy-based generative adversarial network", ICLR 2017. The autoencoder learns to reconstruct
images, and to fail at generated ones up to a margin; the generator learns to be reconstructed. The pulling-away term
keeps the codes of generated images from pointing the same way.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import likelihoods, parallel, priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE
from aejax.methods.gan import refuse_densities, refuse_tied
from aejax.nets import shaped
from aejax.precision import widen

__all__ = ["EBGAN", "ebgan", "ebgan_disc_loss", "ebgan_gen_loss", "pulling_away"]


class EBGAN(AE):
    """An autoencoder and a generator, made like its decoder. `generate` decodes a code; `sample` asks the generator.

    Attributes:
      generator: as `decoder`.
      prior: of the generator's noise.
    """

    generator: Any = None
    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"
    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "generator")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a generator like the decoder."""
        refuse_tied(model)
        return model.clone(generator=model.generator or model.decoder.clone())

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        shaped("generator", self.imagine(self.embed(x)), x.shape)
        return super().__call__(x, *condition)

    def imagine(self, noise: jax.Array) -> jax.Array:
        """What the generator makes of noise, in data space: `[B, Z] -> [B, ...]`."""
        return likelihoods.get(self.likelihood).mean(self.generator(noise))

    def sample(self, key: jax.Array, n: int, *condition: jax.Array) -> jax.Array:
        return self.imagine(self.sample_prior(key, n))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the autoencoder."""
    gen_lr: Positive = 1e-3
    """Learning rate of the generator."""
    margin: Positive = 1.0
    """The error, summed over pixels, from which on generated images no longer count for the autoencoder; it has to be
    near the one that images have."""
    repelling: NonNegative = 0.1
    """Weight of the pulling-away term; the paper has 0.1, and 0 without it."""


def energy(ebgan: EBGAN, x: jax.Array) -> jax.Array:
    """Squared error of the reconstruction, summed over pixels: `[B, ...] -> [B]`."""
    return likelihoods.sse(ebgan.reconstruct(x), x)


def pulling_away(z: jax.Array) -> jax.Array:
    """The mean squared cosine between the codes of two different examples: `[B, Z] -> ()`, in [0, 1].

    The repelling regulariser of the paper, from `S'S`, so that no pair is formed. A code of zero has no direction, and
    counts as 0.

    Example:
      >>> float(pulling_away(jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]))).__round__(4)
      0.3333
    """
    z = widen(z)
    norm_sq = jnp.square(z).sum(axis=1, keepdims=True)
    s = z * jax.lax.rsqrt(jnp.where(norm_sq > 0, norm_sq, 1.0))
    own = jnp.square(jnp.square(s).sum(axis=1)).sum()
    return (jnp.square(s.T @ s).sum() - own) / (len(z) * (len(z) - 1))


@partial(jax.jit, static_argnames=("model",))
def ebgan_disc_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: EBGAN, margin: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """The energy of images plus what generated ones lack to the margin: equation 1, in squared data units.

    Args:
      params: `{"encoder": ..., "decoder": ..., "generator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by B draws of noise.
      model: static.
      margin: m.

    Returns:
      The mean over the batch of `D(x) + max(0, m - D(G(z)))`, and the means `sse`, of images, and `fake_sse`. Where
      generated images are as images are, no autoencoder does better than m (theorem 1).
    """
    bound = model.bind({"params": params})
    real, fake = energy(bound, batch.x), energy(bound, bound.sample(jax.random.split(key)[0], len(batch.x)))
    return (real + jax.nn.relu(margin - fake)).mean(), {"sse": real.mean(), "fake_sse": fake.mean()}


@partial(jax.jit, static_argnames=("model", "axis_name"))
def ebgan_gen_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: EBGAN,
    repelling: float | jax.Array = 0.1,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """The energy of generated images, equation 2, plus `repelling` times the pulling-away term of their codes.

    Arguments as in `ebgan_disc_loss`, B at least 2; `axis_name` is the mapped axis, if any, over whose shards the codes
    are gathered. Returns the mean over the batch plus the weighted term, and `fake_sse` and `pulling_away`.

    Raises:
      InputError: a batch of a single example.
    """
    if len(batch.x) < 2:
        raise InputError("The pulling-away term needs at least 2 examples in a batch, on each device; got 1.")
    bound = model.bind({"params": params})
    fake = bound.sample(jax.random.split(key)[1], len(batch.x))
    mean, term = energy(bound, fake).mean(), pulling_away(parallel.gather(bound.embed(fake), axis_name))
    return mean + repelling * term, {"fake_sse": mean, "pulling_away": term}


@factory
def ebgan(
    model: EBGAN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players in one phase. Networks, rates, margin and batch are ours; the energy is the squared error, that of
    the paper the norm `|Dec(Enc(x)) - x|`.

    Returns:
      `disc` moves `encoder` and `decoder`, `gen` moves `generator`.
    """
    refuse_densities(model)
    own = optimisers(tx, {"disc": hparams.lr, "gen": hparams.gen_lr})
    disc, gen = partial(ebgan_disc_loss, model=model), partial(ebgan_gen_loss, model=model, axis_name=axis_name)
    players = {
        "disc": Player(disc, ("encoder", "decoder"), own["disc"], knobs={"margin": hparams.margin}),
        "gen": Player(gen, ("generator",), own["gen"], coupled=True, knobs={"repelling": hparams.repelling}),
    }
    return play(players, [["disc", "gen"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {
    "fake_sse": Term("squared data units per example, summed over pixels", "squared error on generated images"),
    "pulling_away": Term("between 0 and 1", "mean squared cosine between the codes of two generated images", True),
}
METHOD = Method(EBGAN, HParams, ebgan, "energy-based GAN", "Zhao et al. 2017", terms=TERMS)
