"""Generative adversarial networks: the decoder is the generator, and the encoder learns to invert it.

Goodfellow et al., "Generative adversarial nets", NIPS 2014, algorithm 1, with the generator's loss that does not
saturate (section 3). They have no encoder. Here it is the latent regressor that Donahue, Krahenbuhl & Darrell,
"Adversarial feature learning", ICLR 2017, compare with: it learns to tell z from what the generator makes of z, and
nobody else listens to it, so the two players of the paper play as if it were not there.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ae import AE
from aejax.nets import MLP, Autoencoder, ConvEncoder, TiedMLP, shaped

__all__ = ["GAN", "gan", "gan_disc_loss", "gan_gen_loss", "regressor_loss"]


def judge_like(encoder: MLP | ConvEncoder) -> nn.Module:
    """A network with the hidden layers of an encoder, of its own weights, that returns one number."""
    if isinstance(encoder, ConvEncoder):
        return encoder.clone(code_dim=1, place_dim=None)
    return encoder.clone(features=(*encoder.features[:-1], 1), final_activation=None)


def refuse_tied(model: Autoencoder) -> None:
    """Refuses a generator whose weights are those of the encoder, which another loss moves."""
    if isinstance(model.decoder, TiedMLP):
        raise InputError("A tied decoder is the encoder's, and so would the generator be: use tied=False.")


def refuse_others(model: Autoencoder, kind: type[Autoencoder]) -> None:
    """Refuses a model whose networks of the same names see something else, such as the discriminator of an AAE."""
    if not isinstance(model, kind):
        raise InputError(f"{kind.__name__} is needed, or a class made from it; got {type(model).__name__}.")


def refuse_densities(model: Autoencoder) -> None:
    """Refuses a likelihood of which more is to be learnt than the mean, since these losses see nothing else of it."""
    likelihood = likelihoods.get(model.likelihood)
    if likelihood.numbers > 1 or likelihood.own_parameter or likelihood.coupled:
        raise InputError(f"No density is asked for here, and {likelihood} has to learn one; use bernoulli or gaussian.")


class GAN(AE):
    """An encoder, a decoder that is the generator, and a discriminator of data. `sample` decodes draws of the prior.

    Attributes:
      discriminator: any Linen module, `[B, ...] -> [B, 1]`; of `dense` and `conv` by default with the hidden layers of
        the encoder.
      prior: of the generator's noise; N(0, I) by default.
    """

    discriminator: Any = None
    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"

    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a discriminator like the encoder."""
        refuse_tied(model)
        return model.clone(discriminator=model.discriminator or judge_like(model.encoder))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(x)
        return super().__call__(x, *condition)

    def discriminate(self, x: jax.Array) -> jax.Array:
        """Log-odds of being data and not generated, or what else a method makes of it: `[B, ...] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(x), (len(x), 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the encoder."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""
    gen_lr: Positive = 1e-3
    """Learning rate of the generator, which is the decoder."""


def told_apart(real: jax.Array, fake: jax.Array) -> tuple[jax.Array, Metrics]:
    """The loss of a discriminator, a mean over pairs, and its `accuracy`, from its log-odds, `[B, 1]` each."""
    accuracy = 0.5 + 0.25 * (jnp.sign(real) - jnp.sign(fake)).mean()
    return divergences.discriminator_loss(real, fake).mean(), {"accuracy": accuracy}


@partial(jax.jit, static_argnames=("model",))
def gan_disc_loss(params: Params, batch: Batch, key: jax.Array, *, model: GAN) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of the batch and of as many generated examples, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws from the prior.
      model: static.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell; `accuracy`, the share of the 2 B examples that it puts
      right, a logit of zero counting one half.

    Reference: equation 1, negated.
    """
    gan = model.bind({"params": params})
    return told_apart(gan.discriminate(batch.x), gan.discriminate(gan.sample(key, len(batch.x))))


@partial(jax.jit, static_argnames=("model",))
def gan_gen_loss(params: Params, batch: Batch, key: jax.Array, *, model: GAN) -> tuple[jax.Array, Metrics]:
    """The generator's loss against the discriminator, non-saturating, in nats; log 2 where that cannot tell.

    Args:
      params, key, model: as in `gan_disc_loss`.
      batch: the loss takes the number of its rows only; `sse` is of them.

    Returns:
      The mean over as many generated examples as the batch has; `sse`, the mean squared error of the reconstruction of
      the batch, which no player lowers.
    """
    gan = model.bind({"params": params})
    loss = divergences.generator_loss(gan.discriminate(gan.sample(key, len(batch.x)))).mean()
    return loss, {"sse": likelihoods.sse(gan.reconstruct(batch.x), batch.x).mean()}


@partial(jax.jit, static_argnames=("model",))
def regressor_loss(params: Params, batch: Batch, key: jax.Array, *, model: GAN) -> tuple[jax.Array, Metrics]:
    """How well the encoder tells z from what the generator makes of it: -log N(z; e(g(z)), I), in nats per example.

    An encoder that knows nothing has 1.419 nats for each number of a code of N(0, I), its entropy. Nobody tells it what
    to make of data.

    Args:
      params, key, model: as in `gan_disc_loss`.
      batch: only the number of its rows matters.

    Returns:
      The mean over as many codes as the batch has; `code_sq`, twice that without its constant.
    """
    gan = model.bind({"params": params})
    z = gan.sample_prior(key, len(batch.x))
    found = gan.embed(gan.generate(z))
    return likelihoods.Gaussian().nll(found, z).mean(), {"code_sq": likelihoods.sse(found, z).mean()}


@factory
def gan(model: GAN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """Three players in three phases, the first two in the order of algorithm 1, each with noise of its own.

    Departures: one step of the discriminator for one of the generator, the k = 1 of the paper's experiments; Adam in
    place of SGD with momentum; networks and rates are ours; and the encoder, which the paper has not.

    Returns:
      `disc` moves `discriminator`; then `gen` moves `decoder`; then `regress` moves `encoder`.

    Raises:
      InputError: a likelihood with more to learn than a mean, or a model that is no `GAN`.
    """
    refuse_others(model, GAN)
    refuse_densities(model)
    txs = optimisers(tx, {"disc": hparams.disc_lr, "gen": hparams.gen_lr, "regress": hparams.lr})
    players = {
        "disc": Player(partial(gan_disc_loss, model=model), ("discriminator",), txs["disc"]),
        "gen": Player(partial(gan_gen_loss, model=model), ("decoder",), txs["gen"]),
        "regress": Player(partial(regressor_loss, model=model), ("encoder",), txs["regress"]),
    }
    return play(players, [["disc"], ["gen"], ["regress"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {
    "code_sq": Term("squared code units per example", "latent regressor: squared error of z, of generated examples")
}
METHOD = Method(
    GAN, HParams, gan, "generative adversarial networks, inverted by a regressor", "Goodfellow et al. 2014", terms=TERMS
)
