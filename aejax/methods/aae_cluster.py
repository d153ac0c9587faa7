"""Clusters by an adversarial autoencoder: the one of few labels, without any.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", 2015 (arXiv:1511.05644), section 6. The encoder
returns shares of clusters, which one discriminator tells from one-hot draws, and a style, which another tells from
normal draws. So each example is brought into one cluster, clusters become about equally large, and what is not style
decides which. Not offered: the embedding in the plane of section 7, where clusters get places that are learned.
"""

from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.aae_semi import SplitAAE, check_prior
from aejax.methods.ae import ae_loss
from aejax.methods.gan import told_apart

__all__ = ["ClusterAAE", "aae_cluster"]


class ClusterAAE(SplitAAE):
    """A code is the shares of clusters, and a style.

    Attributes:
      num_clusters: K, 16 and 30 in the paper; `dense` and `conv` make a code of K numbers and those of the style.
    """

    num_clusters: int = 16
    kinds: ClassVar[str] = "num_clusters"

    def heads(self) -> jax.Array:
        """The code of each cluster alone, with the style in the middle, zero: `[K, Z]`."""
        return jnp.eye(self.num_clusters, self.latent_dim)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of reconstruction."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminators."""
    gen_lr: Positive = 1e-3
    """Learning rate of the encoder against the discriminators."""
    noise: NonNegative = 0.3
    """Standard deviation of the noise on what the discriminators see; without, they tell shares from one-hot draws."""


def _seen(bound: ClusterAAE, z: jax.Array, key: jax.Array, noise: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the two discriminators say of codes with noise."""
    return bound.discriminate(z + noise * jax.random.normal(key, z.shape, z.dtype))


@partial(jax.jit, static_argnames=("model", "of_clusters"))
def aae_cluster_disc_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: ClusterAAE,
    of_clusters: bool,
    noise: float | jax.Array = 0.3,
) -> tuple[jax.Array, Metrics]:
    """The two cross-entropies of one discriminator, in nats: 2 log 2 where it cannot tell.

    Args:
      params: `{"encoder", "decoder", "discriminator", "class_discriminator"}`.
      batch: `x` `[B, ...]`.
      key: consumed by as many draws of the prior, and the noise.
      model: static.
      of_clusters: static: of the shares, or of the style.
      noise: its standard deviation, of codes and draws alike.

    Returns:
      The mean over the batch, and `accuracy`, as in `aae_disc_loss`.
    """
    bound, (prior_key, real_key, fake_key) = model.bind({"params": params}), jax.random.split(key, 3)
    real = _seen(bound, bound.sample_prior(prior_key, len(batch.x)), real_key, noise)[of_clusters]
    fake = _seen(bound, bound.encode(batch.x), fake_key, noise)[of_clusters]
    return told_apart(real, fake)


@partial(jax.jit, static_argnames=("model",))
def aae_cluster_gen_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: ClusterAAE, noise: float | jax.Array = 0.3
) -> tuple[jax.Array, Metrics]:
    """The encoder's loss against both discriminators, non-saturating; 2 log 2 where neither can tell.

    Args:
      params, batch, model, noise: as in `aae_cluster_disc_loss`.
      key: consumed.

    Returns:
      The mean over the batch of the sum of `style_nats` and `share_nats`.
    """
    bound = model.bind({"params": params})
    logits = _seen(bound, bound.encode(batch.x), key, noise)
    style, share = (divergences.generator_loss(each).mean() for each in logits)
    return style + share, {"style_nats": style, "share_nats": share}


@factory
def aae_cluster(
    model: ClusterAAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Four players in three phases, those of `aae_semi` that need no label.

    Departures from the paper: those of `aae_semi`; and the discriminators see codes with noise, whose size is that of a
    reimplementation, `musyoku/adversarial-autoencoder`. What an error is there, `evaluation.typical_labels` says.

    Returns:
      `recon` moves `encoder` and `decoder`; then `disc` and `class_disc` their discriminators, together; then `gen`
      `encoder`.

    Raises:
      InputError: another prior than that of the model's clusters and style.
    """
    check_prior(model)
    rates = {"recon": hparams.lr, "disc": hparams.disc_lr, "class_disc": hparams.disc_lr, "gen": hparams.gen_lr}
    txs, knobs = optimisers(tx, rates), {"noise": hparams.noise}
    disc = partial(aae_cluster_disc_loss, model=model)
    gen = partial(aae_cluster_gen_loss, model=model)
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "recon": Player(partial(ae_loss, model=model), model.groups, txs["recon"], coupled),
        "disc": Player(partial(disc, of_clusters=False), ("discriminator",), txs["disc"], knobs=knobs),
        "class_disc": Player(partial(disc, of_clusters=True), ("class_discriminator",), txs["class_disc"], knobs=knobs),
        "gen": Player(gen, ("encoder",), txs["gen"], knobs=knobs),
    }
    phases = [["recon"], ["disc", "class_disc"], ["gen"]]
    return play(players, phases, axis_name=axis_name, check=partial(check_data, model))


TERMS = {
    "typical_error": Term(
        "between 0 and 1",
        "share of test images whose cluster is named otherwise: each by the label of its most typical held-out image",
    )
}
METHOD = Method(ClusterAAE, HParams, aae_cluster, "adversarial, by clusters", "Makhzani et al. 2015", terms=TERMS)
