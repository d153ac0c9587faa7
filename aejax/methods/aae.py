"""The adversarial autoencoder.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", 2015 (arXiv:1511.05644). A discriminator tells
codes from draws of a prior; the encoder learns to fool it beside learning to reconstruct, so that the codes of the
data, taken together, follow the prior. What the encoder says of one example may be a code, a Gaussian, or a function of
noise.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods, posteriors, priors
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import InputError, check_count, nearest
from aejax.data import Batch
from aejax.factory import Method, Positive, check_data, factory, optimisers
from aejax.methods.ae import AE, reconstruction
from aejax.methods.gan import refuse_others, told_apart
from aejax.nets import MLP, Labelled, TiedMLP, inputs, shaped

__all__ = ["AAE", "aae", "aae_disc_loss", "aae_gen_loss", "aae_recon_loss"]

POSTERIORS = ("deterministic", "gaussian", "noise")


class AAE(AE):
    """An encoder, a decoder, and a discriminator of codes.

    Attributes:
      discriminator: any Linen module, `[B, Z] -> [B, 1]` log-odds of being a draw from the prior.
      posterior: q(z|x), one of the paper's three choices (section 2.1). "deterministic", the default, for it is the one
        of the paper's experiments: z is a function of x. "gaussian": the encoder returns means and log-variances, `[B,
        2 Z]`. "noise": the encoder takes normal numbers `[B, E]` as its last input, and q(z|x) has any shape; `dense`
        and `conv` put them behind x, as further numbers of a vector or channels of an image.
      noise_dim: E.
    """

    discriminator: nn.Module = MLP((256, 256, 1), nn.relu)
    posterior: str = "deterministic"
    noise_dim: int = 16

    networks: ClassVar[tuple[str, ...]] = (*AE.networks, "discriminator")

    @classmethod
    def code_size(cls, latent_dim: int, *, posterior: str = "deterministic", **fields: Any) -> int:
        return 2 * latent_dim if posterior == "gaussian" else latent_dim

    @classmethod
    def completed(cls, model: Any) -> Self:
        """With an encoder that takes noise, where the posterior does."""
        check_posterior(model)
        if model.posterior != "noise":
            return model
        if isinstance(model.decoder, TiedMLP):
            raise InputError("The encoder takes noise, and a decoder of its weights would return it: use tied=False.")
        return model.clone(encoder=Labelled(model.encoder, None))

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        z = self.embed(x, *condition)
        self.discriminate(z)
        return self.decode(z, *condition)

    def encode(self, x: jax.Array, *condition: jax.Array) -> Any:
        """z `[B, Z]`, or its posterior where that is stochastic."""
        if self.posterior == "deterministic":
            return super().encode(x, *condition)
        if self.posterior == "gaussian":
            found = shaped("encoder", self.encoder(x, *condition), (x.shape[0], 2 * self.latent_dim))
            return posteriors.DiagonalGaussian(*jnp.split(found, 2, axis=-1))
        mode = self.encoder(x, *condition, jnp.zeros((x.shape[0], self.noise_dim), x.dtype))
        net, params = self.encoder.unbind()
        return posteriors.Pushforward(mode, (x, *condition), params, net, self.noise_dim)

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """z, the mean of a Gaussian posterior, or what noise of zeros becomes: `[B, ...] -> [B, Z]`."""
        found = self.encode(x, *condition)
        return found if self.posterior == "deterministic" else found.mode

    def discriminate(self, z: jax.Array) -> jax.Array:
        """Log-odds of being a draw from the prior: `[B, Z] -> [B, 1]`."""
        return shaped("discriminator", self.discriminator(z), (len(z), 1))


def check_posterior(model: AAE) -> None:
    """Refuses an unknown posterior, and noise of no numbers."""
    if model.posterior not in POSTERIORS:
        known = nearest(model.posterior, POSTERIORS, what="posteriors")
        raise InputError(f"Unknown posterior={model.posterior!r}. {known}")
    check_count(noise_dim=model.noise_dim)


def codes(model: AAE, params: Any, batch: Batch, key: jax.Array) -> jax.Array:
    """A draw from the posterior of each example, `[B, Z]`; the key is consumed where that is stochastic."""
    found = model.bind({"params": params}).encode(*inputs(model, batch))
    return found if model.posterior == "deterministic" else found.sample(key)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate of reconstruction."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""
    gen_lr: Positive = 1e-3
    """Learning rate of the encoder against the discriminator."""


@partial(jax.jit, static_argnames=("model",))
def aae_recon_loss(params: Any, batch: Batch, key: jax.Array, *, model: AAE) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction from a draw of the code, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ..., "discriminator": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws of a stochastic posterior; a deterministic one ignores it, and this is `ae_loss`.
      model: static.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means.
    """
    return reconstruction(params, codes(model, params, batch, key), batch, model=model)


@partial(jax.jit, static_argnames=("model", "prior"))
def aae_disc_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: AAE, prior: priors.Prior
) -> tuple[jax.Array, Metrics]:
    """The discriminator's two cross-entropies, of as many draws from the prior as codes, in nats.

    Args:
      params, batch, model: as in `aae_recon_loss`.
      key: consumed by the draws of the prior; split before, where the codes are drawn too.
      prior: static.

    Returns:
      The mean over the batch, 2 log 2 where it cannot tell; `accuracy`, the share of the 2 B points that it puts
      right, a logit of zero counting one half.
    """
    aae = model.bind({"params": params})
    prior_key, code_key = (key, key) if model.posterior == "deterministic" else jax.random.split(key)
    real = aae.discriminate(prior.sample(prior_key, batch.x.shape[0]))
    return told_apart(real, aae.discriminate(codes(model, params, batch, code_key)))


@partial(jax.jit, static_argnames=("model",))
def aae_gen_loss(params: Any, batch: Batch, key: jax.Array, *, model: AAE) -> tuple[jax.Array, Metrics]:
    """The encoder's loss against the discriminator, non-saturating, in nats; log 2 where that cannot tell.

    Args:
      params, batch, model: as in `aae_recon_loss`.
      key: consumed by the draws of a stochastic posterior; a deterministic one ignores it.

    Returns:
      The mean over the batch, and no further metrics.
    """
    aae = model.bind({"params": params})
    return divergences.generator_loss(aae.discriminate(codes(model, params, batch, key))).mean(), {}


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

    A stochastic encoder is drawn from anew by each player. No term of the game keeps a posterior wide: reconstruction
    narrows it, and the discriminator sees only what all examples make together.

    Departures from the paper, whose training is told in prose: Adam in place of SGD with momentum; hidden layers,
    learning rates and the size of the noise are ours. Labels (section 2.3) are told by `aae_label`.

    Args:
      model: the module.
      hparams: knobs; may hold traced values. Each may be given by its name too.
      tx: learning rate -> optimiser, called for each player; or a dict of such by player.
      prior: a name of `aejax.priors`, or a prior, such as `PointCloud.of(points, noise=0.1)` of one's own points.
      axis_name: as in `play`.

    Returns:
      `recon` moves `encoder` and `decoder`; then `disc` moves `discriminator`; then `gen` moves `encoder`.

    Raises:
      InputError: the prior is unknown, or its size is not the model's `latent_dim`; or the posterior is unknown.
    """
    refuse_others(model, AAE)
    check_posterior(model)
    if isinstance(prior, str):
        prior = priors.get(prior, model.latent_dim)
    if prior.latent_dim != model.latent_dim:
        raise InputError(f"The prior has {prior.latent_dim} dimensions; the model's latent_dim is {model.latent_dim}.")
    txs = optimisers(tx, {"recon": hparams.lr, "disc": hparams.disc_lr, "gen": hparams.gen_lr})
    coupled = likelihoods.get(model.likelihood).coupled
    players = {
        "recon": Player(partial(aae_recon_loss, model=model), model.groups, txs["recon"], coupled),
        "disc": Player(partial(aae_disc_loss, model=model, prior=prior), ("discriminator",), txs["disc"]),
        "gen": Player(partial(aae_gen_loss, model=model), ("encoder",), txs["gen"]),
    }
    check = partial(check_data, model)
    return play(players, [["recon"], ["disc"], ["gen"]], axis_name=axis_name, check=check)


METHOD = Method(AAE, HParams, aae, title="adversarial", paper="Makhzani et al. 2015")
