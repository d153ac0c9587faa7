"""Adversarially learned inference: a discriminator of pairs, data with their codes and codes with what they decode to.

Dumoulin et al., "Adversarially learned inference" (ALI), ICLR 2017, algorithm 1; Donahue, Krahenbuhl & Darrell,
"Adversarial feature learning" (BiGAN), ICLR 2017, is the same game. Where the discriminator cannot tell, encoder and
decoder are the two conditionals of one joint distribution, and so invert each other, though nothing here measures a
reconstruction. The encoder is BiGAN's, without noise; ALI's is a Gaussian.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Loss, Metrics, Params, Player, play
from aejax.data import Batch
from aejax.factory import Method, Positive, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE
from aejax.methods.gan import judge_like, refuse_densities, refuse_others, refuse_tied, told_apart
from aejax.nets import MLP, Autoencoder, ConvEncoder, Labelled, shaped

__all__ = ["ALI", "ali", "ali_disc_loss", "ali_gen_loss"]


def judge_of_pairs(encoder: MLP | ConvEncoder) -> nn.Module:
    """`judge_like`, of data with numbers behind them: `[B, ...], [B, Z] -> [B, 1]`."""
    judge = judge_like(encoder)
    return Labelled(judge, None) if isinstance(judge, ConvEncoder) else judge  # a dense one takes two inputs by itself


class ALI(AE):
    """An encoder, a decoder, and a discriminator of pairs `(x, z)`. `sample` decodes draws of the prior.

    Attributes:
      discriminator: any Linen module, `[B, ...], [B, Z] -> [B, 1]`; of `dense` and `conv` by default with the hidden
        layers of the encoder, z standing behind x as further numbers, or as further channels of an image.
      prior: of the codes; N(0, I) by default.
    """

    discriminator: Any = None
    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"

    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a discriminator like the encoder."""
        refuse_tied(model)
        return model.clone(discriminator=model.discriminator or judge_of_pairs(model.encoder))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(x, self.embed(x))
        return super().__call__(x, *condition)

    def discriminate(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Log-odds of being data with their code: `[B, ...], [B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(x, z), (len(x), 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of encoder and decoder."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""


def pairs(ali: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-odds of data with their codes, those of draws of the prior with what they decode to, and the codes."""
    codes, z = ali.encode(x), ali.sample_prior(key, len(x))
    return ali.discriminate(x, codes), ali.discriminate(ali.generate(z), z), codes


@partial(jax.jit, static_argnames=("model",))
def ali_disc_loss(params: Params, batch: Batch, key: jax.Array, *, model: ALI) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of as many pairs of either kind, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws from the prior.
      model: static.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell; `accuracy`, the share of the 2 B pairs that it puts right,
      a logit of zero counting one half.
    """
    real, fake, _ = pairs(model.bind({"params": params}), batch.x, key)
    return told_apart(real, fake)


@partial(jax.jit, static_argnames=("model",))
def ali_gen_loss(params: Params, batch: Batch, key: jax.Array, *, model: ALI) -> tuple[jax.Array, Metrics]:
    """The same with the answers exchanged, in nats: each kind of pair is to be taken for the other.

    So neither half saturates, as in `gan_gen_loss`. Arguments are those of `ali_disc_loss`.

    Returns:
      The mean over the batch, 2 log 2 where the discriminator cannot tell; `sse`, the mean squared error of the decoded
      codes, which nothing lowers as such.
    """
    ali = model.bind({"params": params})
    real, fake, codes = pairs(ali, batch.x, key)
    loss = divergences.discriminator_loss(fake, real).mean()
    return loss, {"sse": likelihoods.sse(ali.generate(codes), batch.x).mean()}


@factory
def ali(model: ALI, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """Two players in one phase: as in algorithm 1, both see the parameters from before the step, and the same pairs.

    Departures from ALI: encoder and decoder have no noise; z joins x before the first layer of the discriminator; no
    batch normalisation, dropout or maxout; networks and rates are ours.

    Returns:
      `disc` moves `discriminator`, `gen` moves `encoder` and `decoder`.

    Raises:
      InputError: a likelihood with more to learn than a mean, or a model that is no `ALI`.
    """
    return game_of_pairs(model, ALI, hparams, tx, ali_disc_loss, ali_gen_loss, axis_name=axis_name)


def game_of_pairs(
    model: Autoencoder,
    kind: type[Autoencoder],
    hparams: Any,
    tx: Tx,
    disc_loss: Loss,
    gen_loss: Loss,
    *,
    axis_name: str | None,
    knobs: dict[str, Any] | None = None,
) -> Algorithm:
    """The game of a discriminator against all that makes pairs; knobs are those of `gen_loss`."""
    refuse_others(model, kind)
    refuse_densities(model)
    txs = optimisers(tx, {"disc": hparams.disc_lr, "gen": hparams.lr})
    players = {
        "disc": Player(partial(disc_loss, model=model), ("discriminator",), txs["disc"]),
        "gen": Player(partial(gen_loss, model=model), model.groups, txs["gen"], knobs=knobs or {}),
    }
    return play(players, [["disc", "gen"]], axis_name=axis_name, check=partial(check_data, model))


METHOD = Method(ALI, HParams, ali, "adversarially learned inference", "Dumoulin et al. 2017; Donahue et al. 2017")
