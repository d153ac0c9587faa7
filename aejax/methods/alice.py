"""ALICE: adversarially learned inference that also reconstructs.

Li, Liu, Chen, Pu, Chen, Henao & Carin, "ALICE: Towards understanding adversarial learning for joint distribution
matching", NIPS 2017. Where the discriminator of ALI cannot tell its pairs apart, x and z have one joint distribution,
but any joint distribution with the right marginals will do, also one in which z says nothing of x. The conditional
entropy of x given z decides between them; the loss of a reconstruction is its upper bound, and is lowered beside.
"""

from functools import partial
from typing import NamedTuple

import jax
import optax

from aejax import divergences
from aejax.algorithm import Algorithm, Metrics, Params
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, factory
from aejax.methods.ae import reconstruction
from aejax.methods.ali import ALI, ali_disc_loss, game_of_pairs, pairs

__all__ = ["alice", "alice_gen_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of encoder and decoder."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""
    cycle: NonNegative = 1.0
    """Weight of the reconstruction in nats, against the discriminator's verdict; at 0 this is `ali`."""


@partial(jax.jit, static_argnames=("model",))
def alice_gen_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: ALI, cycle: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """`ali_gen_loss` plus `cycle` times the negative log-likelihood of the reconstruction, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws from the prior.
      model: static.
      cycle: weight of the cycle from x over its code to x. By the likelihood of the model: half the squared error for
        a Gaussian, the cross-entropy of pixels for Bernoulli.

    Returns:
      The mean over the batch; `game_nats`, the loss of `ali_gen_loss`, 2 log 2 where the discriminator cannot tell;
      `recon_nats`, unweighted, and `sse`.

    Reference: the paper's cycle-consistency in its explicit form, where a likelihood stands in place of a second
    discriminator of pairs (x, x) and (x, reconstruction).
    """
    real, fake, codes = pairs(model.bind({"params": params}), batch.x, key)
    game = divergences.discriminator_loss(fake, real).mean()
    recon, metrics = reconstruction(params, codes, batch, model=model)
    return game + cycle * recon, {**metrics, "game_nats": game}


@factory
def alice(model: ALI, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None) -> Algorithm:
    """The two players of `ali` in one phase, of which the second also reconstructs.

    Departures are those of `ali`; the cycle is from data to data only, and pairs (x, z) are never given.

    Returns:
      `disc` moves `discriminator`, `gen` moves `encoder` and `decoder`.

    Raises:
      InputError: a likelihood with more to learn than a mean, or a model that is no `ALI`.
    """
    knobs = {"cycle": hparams.cycle}
    return game_of_pairs(model, ALI, hparams, tx, ali_disc_loss, alice_gen_loss, knobs=knobs, axis_name=axis_name)


TERMS = {"game_nats": Term("nats per pair", "loss of encoder and decoder against the discriminator of pairs")}
METHOD = Method(ALI, HParams, alice, "adversarially learned inference that reconstructs", "Li et al. 2017", terms=TERMS)
