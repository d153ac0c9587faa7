"""Adversarial variational Bayes: a VAE whose posterior is any function of the example and of noise.

Mescheder, Nowozin & Geiger, "Adversarial variational Bayes: unifying variational autoencoders and generative
adversarial networks", ICML 2017, with adaptive contrast (algorithm 2). The density of such a posterior is not known. A
discriminator that tells its draws from those of a Gaussian of the same mean and variance has the log-ratio of the two
densities as its log-odds, which is the term of the bound that is missing.
"""

import math
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import likelihoods, posteriors
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError, check_count
from aejax.data import Batch
from aejax.factory import Method, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.ali import judge_of_pairs
from aejax.methods.gan import refuse_others, told_apart
from aejax.methods.vae import VAE
from aejax.nets import MLP, shaped
from aejax.precision import sum_last

__all__ = ["AVB", "avb", "avb_disc_loss", "avb_loss"]

_FLOOR = 1e-8  # of a variance, so that a posterior that has become a point has a finite density


class AVB(VAE):
    """An encoder of examples, functions of noise, a decoder, and a discriminator of examples with standardised codes.

    Attributes:
      encoder: any Linen module, `[B, ...] -> [B, (M + 1) Z]`: the offset of the code and its M scales.
      functions: any Linen module, `[B, E] -> [B, M Z]`, of noise; by default two hidden layers of 64.
      noise_dim: E.
      num_functions: M.
      discriminator: any Linen module, `[B, ...], [B, Z] -> [B, 1]`; by default with the hidden layers of the encoder.
    """

    functions: Any = None
    noise_dim: int = 16
    discriminator: Any = None

    num_functions: ClassVar[int] = 8
    networks: ClassVar[tuple[str, ...]] = (*VAE.networks, "functions", "discriminator")

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        return (cls.num_functions + 1) * latent_dim

    @classmethod
    def completed(cls, model: Any) -> Self:
        """With functions of noise, and a discriminator like the encoder."""
        check_count(noise_dim=model.noise_dim)
        functions = model.functions or MLP((64, 64, cls.num_functions * model.latent_dim), nn.tanh)
        judge = model.discriminator or judge_of_pairs(model.encoder)
        return model.clone(functions=functions, discriminator=judge)

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(x, self.embed(x))
        return super().__call__(x, *condition)

    def encode(self, x: jax.Array, *condition: jax.Array) -> posteriors.Implicit:  # type: ignore[override]
        """The posterior, which can be drawn from."""
        found = self.encoder(x).reshape(x.shape[0], -1, self.latent_dim)
        if self.is_initializing():
            wanted = (1, (found.shape[1] - 1) * self.latent_dim)
            shaped("network of functions", self.functions(jnp.zeros((1, self.noise_dim), x.dtype)), wanted)
        net, params = self.functions.unbind()
        return posteriors.Implicit(found[:, 0], found[:, 1:], params, net, self.noise_dim)

    @property
    def groups(self) -> tuple[str, ...]:
        return (*super().groups, "functions")

    def discriminate(self, x: jax.Array, z: jax.Array) -> jax.Array:
        """Log-odds of being a code of x, standardised, and no normal draw: `[B, ...], [B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(x, z), (len(x), 1))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of encoder and decoder."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""


class Draw(NamedTuple):
    """A code of each example, and the Gaussian that it is held against."""

    z: jax.Array  # [B, Z]
    standard: jax.Array  # [B, Z], z with the mean taken off, over the deviation
    logvar: jax.Array  # [B, Z] of the Gaussian


def draw(avb: Any, x: jax.Array, key: jax.Array, num_moments: int) -> Draw:
    """One draw from the posterior of each example, standardised by the moments of `num_moments` that it is among."""
    z, mean, variance = avb.encode(x).sample_and_moments(key, num_moments)
    variance = variance + _FLOOR
    return Draw(z, (z - mean) * jax.lax.rsqrt(variance), jnp.log(variance))


@partial(jax.jit, static_argnames=("model", "num_moments"))
def avb_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: AVB, num_moments: int = 256
) -> tuple[jax.Array, Metrics]:
    """The negative bound, with the discriminator's log-odds for what is not known of the posterior, nats per example.

    With r(z|x) the Gaussian and T the log-odds, `log q(z|x)` is `log r(z|x) + T`, and the loss is

        mean(-log p(x|z) + log r(z|x) + T(x, (z - mean) / deviation) - log p(z)).

    The mean of T over the posterior is the KL from it to r. Where the discriminator is not the best there is, this is
    no bound.

    Args:
      params: `{"encoder", "decoder", "discriminator"}`.
      batch: `x` `[B, ...]`.
      key: consumed.
      model: static.
      num_moments: draws of the noise for the mean and the variance of each posterior, at least as many as
        examples; static.

    Returns:
      The mean over the batch; `recon_nats`, `kl_nats` (as it is estimated), `bound_nats` (their sum), `contrast_nats`
      (the mean of T: how far the posteriors are from Gaussian) and `sse`.
    """
    avb = model.bind({"params": params})
    z, standard, logvar = draw(avb, batch.x, key, num_moments)
    contrast = avb.discriminate(batch.x, standard)[:, 0]
    log_r = -0.5 * sum_last(jnp.square(standard) + logvar + math.log(2 * math.pi))
    nll, x_hat = avb.nll_and_mean(z, batch.x)
    recon, kl = nll.mean(), (log_r + contrast - avb.log_prior(z)).mean()
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "contrast_nats": contrast.mean()}
    return recon + kl, metrics | {"sse": likelihoods.sse(x_hat, batch.x).mean()}


@partial(jax.jit, static_argnames=("model", "num_moments"))
def avb_disc_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: AVB, num_moments: int = 256
) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of standardised codes and of as many normal draws, in nats.

    Arguments are those of `avb_loss`.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell, which is so of Gaussian posteriors; `accuracy`.
    """
    avb, (own_key, normal_key) = model.bind({"params": params}), jax.random.split(key)
    standard = draw(avb, batch.x, own_key, num_moments).standard
    other = jax.random.normal(normal_key, standard.shape, standard.dtype)
    return told_apart(avb.discriminate(batch.x, standard), avb.discriminate(batch.x, other))


@factory(learns_prior=True)
def avb(
    model: AVB,
    hparams: HParams = HParams(),
    tx: Tx = optax.adam,
    *,
    num_moments: int = 256,
    axis_name: str | None = None,
) -> Algorithm:
    """Two players in two phases: the bound with the discriminator as it is, then the discriminator.

    Departures: mean and variance of a posterior are those of many draws of the noise, an example's own among them, and
    the gradient goes through them; all functions of noise see the same noise; networks and rates are ours.

    Args:
      model: the module.
      hparams: knobs; each may be traced, or a schedule; or each by its own name.
      tx: learning rate -> optimiser, for all players; or a dict of such by player.
      num_moments: as in `avb_loss`.
      axis_name: as in `play`.

    Returns:
      `elbo` moves `model.groups`; then `disc` moves `discriminator`.

    Raises:
      InputError: fewer than two draws for a variance, or a model that is no `AVB`.
    """
    refuse_others(model, AVB)
    if num_moments < 2:
        raise InputError(f"num_moments is {num_moments}; a variance takes at least 2 draws.")
    txs = optimisers(tx, {"elbo": hparams.lr, "disc": hparams.disc_lr})
    loss, disc = (partial(each, model=model, num_moments=num_moments) for each in (avb_loss, avb_disc_loss))
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "elbo": Player(loss, model.groups, txs["elbo"], coupled),
        "disc": Player(disc, ("discriminator",), txs["disc"]),
    }
    return play(players, [["elbo"], ["disc"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {"contrast_nats": Term("nats per example", "AVB: log-odds of its discriminator, for the KL to a Gaussian")}
METHOD = Method(
    AVB,
    HParams,
    avb,
    "variational, any posterior (adversarial variational Bayes)",
    "Mescheder et al. 2017",
    terms=TERMS,
)
