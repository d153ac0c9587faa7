"""The adversarial autoencoder whose discriminator is told labels, so that each class has its own part of the prior.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", 2015 (arXiv:1511.05644), section 2.3. The
discriminator sees a one-hot label beside the code: for a draw from the prior that of the part it is from, such as one
Gaussian of a mixture or one stretch of a swiss roll; for the code of an example its own. A further class says that
there is no label; such draws are from the whole prior. Encoder and decoder are told nothing.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.factory import Method, Term, Tx, factory, optimisers
from aejax.methods.aae import HParams
from aejax.methods.aae_semi import aae_semi_recon_loss, check
from aejax.methods.ae import AE
from aejax.methods.gan import told_apart
from aejax.methods.m2 import SemiBatch, split
from aejax.nets import MLP, Labelled, shaped

__all__ = ["LabelAAE", "aae_label"]


class LabelAAE(AE):
    """An encoder, a decoder, and a discriminator of codes that is told their class.

    Attributes:
      num_classes: K.
      discriminator: any Linen module of `z [B, Z]` and `y [B]`, where K is no label, `-> [B, 1]` log-odds of being a
        draw from the prior. `dense` and `conv` take one of z alone, and let it see y as K + 1 numbers beside.
      prior: with a part for each class; of `dense` and `conv` by default as many petals, `GaussianMixture.ring`.
    """

    num_classes: int = 10
    discriminator: nn.Module = MLP((256, 256, 1), nn.relu)

    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator")
    learns_labels: ClassVar[bool] = True

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With its prior, and a discriminator that takes labels."""
        count = model.num_classes
        if count is None or count < 2:  # None: of data without labels
            raise InputError(f"{cls.__name__} needs labels of two classes or more; num_classes is {count}.")
        prior = model.prior or priors.GaussianMixture.ring(count, latent_dim=model.latent_dim)
        return model.clone(prior=prior, discriminator=Labelled(model.discriminator, count + 1))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        z = self.embed(x)
        self.discriminate(z, jnp.zeros(len(z), jnp.int32))
        return self.decode(z)

    def discriminate(self, z: jax.Array, y: jax.Array) -> jax.Array:
        """Log-odds of being a draw from the part of a class, K for the whole prior: `[B, Z], [B] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(z, y), (len(z), 1))

    def sample_parts(self, key: jax.Array, y: jax.Array) -> jax.Array:
        """Codes from the parts of classes: `[N] -> [N, Z]`; the key is consumed."""
        return self._fixed_prior().sample_parts(key, y, self.num_classes)

    def part_of(self, z: jax.Array) -> jax.Array:
        """The class whose part of the prior a code lies in: `[N, Z] -> [N]` int32. It takes no parameters."""
        return self._fixed_prior().part_of(z, self.num_classes)

    def _fixed_prior(self) -> priors.Prior:
        prior = self._known_prior()
        assert isinstance(prior, priors.Prior)
        return prior


def _codes(model: LabelAAE, bound: LabelAAE, batch: SemiBatch) -> tuple[jax.Array, jax.Array]:
    """Codes of both streams, `[B, Z]`, and what the discriminator is told of each, `[B]`."""
    few, many = batch
    y = jnp.concatenate([few.y.astype(jnp.int32), jnp.full(len(many.x), model.num_classes, jnp.int32)])
    return bound.encode(jnp.concatenate([few.x, many.x])), y


@partial(jax.jit, static_argnames=("model",))
def aae_label_disc_loss(
    params: Params, batch: SemiBatch, key: jax.Array, *, model: LabelAAE
) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of as many draws as codes with the same labels, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `SemiBatch(labelled, unlabelled)`, whose B examples are one set here.
      key: consumed.
      model: static.

    Returns:
      The mean over the B examples, 2 log 2 where it cannot tell; `accuracy`, as in `aae_disc_loss`.
    """
    bound, (few_key, many_key) = model.bind({"params": params}), jax.random.split(key)
    fake, y = _codes(model, bound, batch)
    of_class = bound.sample_parts(few_key, batch.labelled.y)
    real = jnp.concatenate([of_class, bound.sample_prior(many_key, len(batch.unlabelled.x))])
    return told_apart(bound.discriminate(real, y), bound.discriminate(fake, y))


@partial(jax.jit, static_argnames=("model",))
def aae_label_gen_loss(
    params: Params, batch: SemiBatch, key: jax.Array, *, model: LabelAAE
) -> tuple[jax.Array, Metrics]:
    """The encoder's loss against the discriminator, non-saturating, in nats; log 2 where that cannot tell.

    Args:
      params, batch, model: as in `aae_label_disc_loss`.
      key: ignored.

    Returns:
      The mean over all examples of the batch, and no further metrics.
    """
    bound = model.bind({"params": params})
    return divergences.generator_loss(bound.discriminate(*_codes(model, bound, batch))).mean(), {}


@factory
def aae_label(
    model: LabelAAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Three players in three phases, as of `aae`, on two streams: examples with labels, and without.

    Every example may be in the second stream, those with labels too. Classes are to be about as frequent as the parts
    of the prior, or the two streams ask for different things.

    Departures from the paper: those of `aae`; and labelled examples are a stream of their own, not some of each batch.

    Returns:
      `recon` moves `encoder` and `decoder`, on the second stream; then `disc` moves `discriminator`, and `gen`
      `encoder`, on both.

    Raises:
      InputError: the model's prior is of another size, or has not one part for each class.
    """
    if model.prior is None:
        raise InputError("The codes need a prior to follow; got prior=None. Use LabelAAE.dense, which has one.")
    priors.get(model.prior, model.latent_dim).check_parts(model.num_classes)
    txs = optimisers(tx, {"recon": hparams.lr, "disc": hparams.disc_lr, "gen": hparams.gen_lr})
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "recon": Player(partial(aae_semi_recon_loss, model=model), model.groups, txs["recon"], coupled),
        "disc": Player(partial(aae_label_disc_loss, model=model), ("discriminator",), txs["disc"]),
        "gen": Player(partial(aae_label_gen_loss, model=model), ("encoder",), txs["gen"]),
    }
    return play(players, [["recon"], ["disc"], ["gen"]], axis_name=axis_name, check=partial(check, model))


TERMS = {"own_part": Term("between 0 and 1", "share of test codes that lie in their class's part of the prior")}
METHOD = Method(
    LabelAAE, HParams, aae_label, "adversarial, told labels", "Makhzani et al. 2015", terms=TERMS,
    batch=split, batch_size=lambda size: SemiBatch(size, size),
)  # fmt: skip
