"""Hierarchical adversarially learned inference: ALI with two layers of codes, all seen by one discriminator.

Belghazi, Rajeswar, Mastropietro, Rostamzadeh, Mitrovic & Courville, "Hierarchical adversarially learned inference"
(HALI), 2018 (arXiv:1802.01071). Codes are drawn from the top down, and data with them from the bottom up: x, the lower
code and the upper one are a Markov chain in either direction. Where the discriminator of all three cannot tell, the
conditionals of one direction invert those of the other, layer by layer, and an image comes back in more detail from
the lower code than from the upper one.
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Term, Tx, factory
from aejax.methods.ali import HParams, game_of_pairs, judge_of_pairs
from aejax.methods.gan import refuse_others, told_apart
from aejax.methods.two_layer_vae import TwoLayerVAE, check_prior
from aejax.nets import shaped

__all__ = ["HALI", "hali", "hali_disc_loss", "hali_gen_loss"]


class HALI(TwoLayerVAE):
    """The networks of `TwoLayerVAE`, and a discriminator of data with both layers of their code.

    Attributes:
      discriminator: any Linen module, `[B, ...], [B, Z] -> [B, 1]`, the code being (lower, upper); of `dense` and
        `conv` by default as in `ALI`.
    """

    discriminator: Any = None

    networks: ClassVar[tuple[str, ...]] = (*TwoLayerVAE.networks, "discriminator")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With networks between the layers, and a discriminator like the encoder."""
        return super().completed(model).clone(discriminator=model.discriminator or judge_of_pairs(model.encoder))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(x, self.embed(x))
        return super().__call__(x, *condition)

    def discriminate(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Log-odds of being data with their code: `[B, ...], [B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(x, z), (len(x), 1))

    def generate_from_upper(self, z: jax.Array) -> jax.Array:
        """As `generate`, of the upper layer alone, by the mean that it gives the lower one: `[B, Z] -> [B, ...]`."""
        _, upper = self._split(z)
        return self.generate(jnp.concatenate([self._lower(upper).mean, upper], axis=-1))


def triples(hali: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-odds of data with draws of their codes, those of draws from the top down, and the codes of the data."""
    code_key, prior_key = jax.random.split(key)
    codes, z = hali.encode(x).sample(code_key), hali.sample_prior(prior_key, len(x))
    return hali.discriminate(x, codes), hali.discriminate(hali.generate(z), z), codes


@partial(jax.jit, static_argnames=("model",))
def hali_disc_loss(params: Params, batch: Batch, key: jax.Array, *, model: HALI) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of as many triples of either kind, in nats.

    Args:
      params: `{"encoder", "decoder", "upper_encoder", "upper_decoder", "discriminator"}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws of codes, from data and from the prior.
      model: static.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell; `accuracy`, as in `ali_disc_loss`.
    """
    real, fake, _ = triples(model.bind({"params": params}), batch.x, key)
    return told_apart(real, fake)


@partial(jax.jit, static_argnames=("model",))
def hali_gen_loss(params: Params, batch: Batch, key: jax.Array, *, model: HALI) -> tuple[jax.Array, Metrics]:
    """The same with the answers exchanged, in nats, as in `ali_gen_loss`. Arguments are those of `hali_disc_loss`.

    Returns:
      The mean over the batch, 2 log 2 where the discriminator cannot tell; `sse`, the squared error of data decoded
      from a draw of the lower code, and `upper_sse`, from the upper one. Nothing lowers either as such.
    """
    hali = model.bind({"params": params})
    real, fake, codes = triples(hali, batch.x, key)
    loss = divergences.discriminator_loss(fake, real).mean()
    error = lambda x_hat: likelihoods.sse(x_hat, batch.x).mean()
    return loss, {"sse": error(hali.generate(codes)), "upper_sse": error(hali.generate_from_upper(codes))}


@factory
def hali(model: HALI, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """The two players of `ali` in one phase, with two layers of codes.

    Departures: data have no noise given the lower code; codes join x before the first layer of the discriminator; no
    batch normalisation or dropout; networks and rates are ours.

    Returns:
      `disc` moves `discriminator`, `gen` moves the four other networks.

    Raises:
      InputError: a likelihood with more to learn than a mean, a ladder, a prior other than normal, or a model that is
        no `HALI`.
    """
    refuse_others(model, HALI)
    check_prior(model)
    if model.ladder:
        raise InputError("Here the upper layer is inferred from a draw of the lower one: leave ladder out.")
    return game_of_pairs(model, HALI, hparams, tx, hali_disc_loss, hali_gen_loss, axis_name=axis_name)


TERMS = {
    "upper_sse": Term("summed over components, mean over examples", "squared error of data decoded from the upper code")
}
METHOD = Method(HALI, HParams, hali, "ALI with two layers of codes (HALI)", "Belghazi et al. 2018", terms=TERMS)
