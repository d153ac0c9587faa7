"""The adversarial autoencoder.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", 2015 (arXiv:1511.05644). A discriminator tells
codes from draws of a prior; the encoder learns to fool it beside learning to reconstruct, so that the codes of the
data, taken together, follow the prior.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import optax

from aejax import divergences, likelihoods, priors
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, Positive, check_data, factory, optimisers
from aejax.methods.ae import AE, ae_loss
from aejax.methods.gan import told_apart
from aejax.nets import MLP, inputs, shaped

__all__ = ["AAE", "aae"]


class AAE(AE):
    """An encoder, a decoder, and a discriminator of codes.

    The encoder is deterministic: z is a function of x, the first of the paper's three choices (section 2.1) and the
    one of its experiments.

    Attributes:
      discriminator: any Linen module, `[B, Z] -> [B, 1]` log-odds of being a draw from the prior.
    """

    discriminator: nn.Module = MLP((256, 256, 1), nn.relu)

    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator")

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        z = self.embed(x, *condition)
        self.discriminate(z)
        return self.decode(z, *condition)

    def discriminate(self, z: jax.Array) -> jax.Array:
        """Log-odds of being a draw from the prior: `[B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(z), (len(z), 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate of reconstruction."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""
    gen_lr: Positive = 1e-3
    """Learning rate of the encoder against the discriminator."""


@partial(jax.jit, static_argnames=("model", "prior"))
def aae_disc_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: AAE, prior: priors.Prior
) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of as many draws from the prior as codes, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed.
      model: static.
      prior: static.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell; `accuracy`, the share of the 2 B points that it puts
      right, a logit of zero counting one half.
    """
    aae = model.bind({"params": params})
    real = aae.discriminate(prior.sample(key, batch.x.shape[0]))
    fake = aae.discriminate(aae.encode(*inputs(model, batch)))
    return told_apart(real, fake)


@partial(jax.jit, static_argnames=("model",))
def aae_gen_loss(params: Any, batch: Batch, key: jax.Array, *, model: AAE) -> tuple[jax.Array, Metrics]:
    """The encoder's loss against the discriminator, non-saturating, in nats; log 2 where that cannot tell.

    Args:
      params: as in `aae_disc_loss`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.

    Returns:
      The mean over the batch, and no further metrics.
    """
    aae = model.bind({"params": params})
    return divergences.generator_loss(aae.discriminate(aae.encode(*inputs(model, batch)))).mean(), {}


@factory(takes_labels=True)
def aae(
    model: AAE,
    hparams: HParams = HParams(),
    tx: Callable[..., Any] | Mapping[str, Any] = optax.adam,
    *,
    prior: str | priors.Prior = "normal",
    axis_name: str | None = None,
) -> Algorithm:
    """Three players, and two optimisers on one encoder.

    Departures from the paper, whose training is told in prose: Adam in place of SGD with momentum; hidden layers and
    learning rates are ours; its stochastic encoders (Gaussian posterior, universal approximator) are not offered, for
    reconstruction, evaluation and pictures go by the code of an example. Labels (section 2.3) are told by `aae_label`.

    Args:
      model: the module.
      hparams: knobs; may hold traced values. Each may be given by its name too.
      tx: learning rate -> optimiser, called for each player; or a dict of such by player.
      prior: a name of `aejax.priors`, or a prior, such as `PointCloud.of(points, noise=0.1)` of one's own points.
      axis_name: as in `play`.

    Returns:
      `recon` moves `encoder` and `decoder`; then `disc` moves `discriminator`; then `gen` moves `encoder`.

    Raises:
      InputError: the prior is unknown, or its size is not the model's `latent_dim`.
    """
    if isinstance(prior, str):
        prior = priors.get(prior, model.latent_dim)
    if prior.latent_dim != model.latent_dim:
        raise InputError(f"The prior has {prior.latent_dim} dimensions; the model's latent_dim is {model.latent_dim}.")
    txs = optimisers(tx, {"recon": hparams.lr, "disc": hparams.disc_lr, "gen": hparams.gen_lr})
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "recon": Player(partial(ae_loss, model=model), model.groups, txs["recon"], coupled),
        "disc": Player(partial(aae_disc_loss, model=model, prior=prior), ("discriminator",), txs["disc"]),
        "gen": Player(partial(aae_gen_loss, model=model), ("encoder",), txs["gen"]),
    }
    check = partial(check_data, model)
    return play(players, [["recon"], ["disc"], ["gen"]], axis_name=axis_name, check=check)


METHOD = Method(AAE, HParams, aae, title="adversarial", paper="Makhzani et al. 2015")
