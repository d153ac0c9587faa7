"""The Wasserstein autoencoder, its codes matched to the prior by a discriminator.

Tolstikhin, Bousquet, Gelly & Scholkopf, "Wasserstein auto-encoders", ICLR 2018, algorithm 1. As in the adversarial
autoencoder a discriminator tells codes from draws of the prior; here the encoder has one loss, reconstruction and
penalty together, and one optimiser. As there, codes are functions of x by default, or drawn.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.aae import AAE, aae_disc_loss, check_posterior, codes
from aejax.methods.ae import reconstruction
from aejax.methods.gan import refuse_others

__all__ = ["WAEGAN", "wae_gan", "wae_gan_loss"]


class WAEGAN(AAE):
    """An encoder, a decoder, a discriminator of codes, and the prior that the codes are to follow.

    Attributes:
      prior: as in `Autoencoder`; N(0, I) by default.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the encoder and the decoder."""
    disc_lr: Positive = 5e-4
    """Learning rate of the discriminator."""
    penalty: NonNegative = 10.0
    """Weight of the discriminator's surprise against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model",))
def wae_gan_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: WAEGAN, penalty: float | jax.Array = 10.0
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `penalty` times the surprise of the discriminator, in nats.

    The last line of algorithm 1: `c(x, G(z)) - lambda log D(z)`. The Gaussian likelihood is half of the paper's squared
    error, so there `penalty` is its lambda over 2.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws of a stochastic posterior, on which both terms go; a deterministic one ignores it.
      model: static.
      penalty: at zero this is `ae_loss`.

    Returns:
      The mean over the batch; `recon_nats`, `sse` and `surprise_nats`, likewise means. The last is log 2 where the
      discriminator cannot tell.
    """
    wae = model.bind({"params": params})
    z = codes(model, params, batch, key)
    recon, metrics = reconstruction(params, z, batch, model=model)
    surprise = divergences.generator_loss(wae.discriminate(z)).mean()
    return recon + penalty * surprise, {**metrics, "surprise_nats": surprise}


@factory(takes_labels=True)
def wae_gan(
    model: WAEGAN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Two players: the discriminator moves first, and then encoder and decoder together.

    Departures from the paper: networks are ours, and rates do not fall in steps; lambda does not weigh the
    discriminator's own loss, which under Adam changes nothing. The authors' code can add log p(z) to the discriminator;
    that is left out.

    Returns:
      `disc` moves `discriminator`; then `recon` moves `encoder` and `decoder`.

    Raises:
      InputError: the model has no prior, or a learned one; or its posterior is unknown.
    """
    refuse_others(model, AAE)
    check_posterior(model)
    if model.prior is None:
        raise InputError("The codes need a prior to follow; got prior=None. Use prior='normal', or another.")
    prior = priors.get(model.prior, model.latent_dim)
    txs = optimisers(tx, {"disc": hparams.disc_lr, "recon": hparams.lr})
    disc = partial(aae_disc_loss, model=model, prior=prior)
    recon = Player(
        partial(wae_gan_loss, model=model),
        model.groups,
        txs["recon"],
        likelihoods.get(model.likelihood).coupled,
        {"penalty": hparams.penalty},
    )
    players = {"disc": Player(disc, ("discriminator",), txs["disc"]), "recon": recon}
    return play(players, [["disc"], ["recon"]], axis_name=axis_name, check=partial(check_data, model))


METHOD = Method(
    WAEGAN,
    HParams,
    wae_gan,
    title="Wasserstein, by a discriminator",
    paper="Tolstikhin et al. 2018",
    knobs={"penalty": 1.0},
    terms={"surprise_nats": Term("nats", "surprise of a discriminator told that codes are draws from the prior")},
)
