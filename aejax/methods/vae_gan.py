"""The VAE/GAN: a VAE whose reconstructions are judged in the features of a discriminator, and as images by itself.

Larsen, Sonderby, Larochelle & Winther, "Autoencoding beyond pixels using a learned similarity metric", ICML 2016,
algorithm 1. The decoder of the VAE is the generator of a GAN. A hidden layer of the discriminator stands where a VAE
has pixels: the likelihood of an image is a Gaussian of its features around those of its reconstruction.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax import divergences, likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.gan import refuse_densities, refuse_others
from aejax.methods.vae import VAE
from aejax.nets import MLP, ConvEncoder, shaped
from aejax.posteriors import refuse_uniform, sample_and_kl
from aejax.precision import widen

__all__ = ["VAEGAN", "vae_gan", "vae_gan_dec_loss", "vae_gan_disc_loss", "vae_gan_enc_loss"]


class VAEGAN(VAE):
    """A VAE, and a discriminator of data in two parts, between which its features are read.

    Attributes:
      hidden_layers: any Linen module, `[B, ...] -> [B, F]`, the features; of `dense` by default the hidden layers of
        the encoder, of `conv` its convolutions and a dense layer as wide as their channels.
      discriminator: any Linen module, `[B, F] -> [B, 1]` log-odds of being data.
    """

    hidden_layers: Any = None
    discriminator: Any = None

    networks: ClassVar[tuple[str, ...]] = (*VAE.networks, "hidden_layers", "discriminator")

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With a discriminator like the encoder."""
        net = model.encoder
        if isinstance(net, ConvEncoder):
            own, judge = net.clone(code_dim=net.features[-1]), MLP((net.features[-1], 1), net.activation)
        elif len(net.features) > 1 or model.hidden_layers is not None:
            own, judge = net.clone(features=net.features[:-1], final_activation=net.activation), MLP((1,))
        else:
            raise InputError(
                "The features are those of hidden layers, and the encoder has none: give hidden_dims, or hidden_layers"
                " of your own."
            )
        return model.clone(hidden_layers=model.hidden_layers or own, discriminator=model.discriminator or judge)

    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        self.discriminate(x)
        return super().__call__(x, *condition)

    def look(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features and log-odds of being data: `[B, ...] -> [B, F], [B, 1]`."""
        found = self.hidden_layers(x)
        return found, shaped("discriminator", self.discriminator(found), (len(x), 1))

    def discriminate(self, x: jax.Array) -> jax.Array:
        """Log-odds of being data: `[B, ...] -> [B, 1]`."""
        return self.look(x)[1]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate of the encoder."""
    dec_lr: Positive = 1e-3
    """Learning rate of the decoder."""
    disc_lr: Positive = 1e-3
    """Learning rate of the discriminator."""
    gamma: NonNegative = 1.0
    """Weight of the features' likelihood against the discriminator's verdict, in the decoder's loss."""


class Passes(NamedTuple):
    """One pass of a batch through all networks: what the three losses share."""

    kl: jax.Array  # [B] nats
    feature_nll: jax.Array  # [B] nats, of the features of x given those of its reconstruction
    sse: jax.Array  # [B]
    real: jax.Array  # [B, 1] log-odds of data
    rebuilt: jax.Array  # [B, 1] log-odds of their reconstructions
    drawn: jax.Array  # [B, 1] log-odds of as many decoded draws of the prior


def passes(model: VAEGAN, params: Params, batch: Batch, key: jax.Array) -> Passes:
    """Data, their reconstructions from a draw of the posterior, and decoded draws of the prior, all judged."""
    bound, (draw_key, prior_key) = model.bind({"params": params}), jax.random.split(key)
    z, kl = sample_and_kl(bound.encode(batch.x), draw_key, bound)
    rebuilt = bound.generate(z)
    drawn = bound.sample(prior_key, len(batch.x))
    (of_x, real), (of_rebuilt, fake) = bound.look(batch.x), bound.look(rebuilt)
    nll = likelihoods.Gaussian().nll(of_rebuilt, of_x)
    return Passes(kl, nll, likelihoods.sse(rebuilt, batch.x), real, fake, bound.discriminate(drawn))


@partial(jax.jit, static_argnames=("model",))
def vae_gan_enc_loss(params: Params, batch: Batch, key: jax.Array, *, model: VAEGAN) -> tuple[jax.Array, Metrics]:
    """The negative bound with features in place of pixels, in nats per example: `L_prior + L_llike`.

    Args:
      params: `{"encoder", "decoder", "hidden_layers", "discriminator"}`.
      batch: `x` `[B, ...]`.
      key: consumed by the draws from the posterior and from the prior.
      model: static.

    Returns:
      The mean over the batch, and the means `kl_nats`, `feature_nats` and `sse`, of pixels, which no player lowers. An
      encoder whose features nobody can tell apart has `feature_nats` of `F log(2 pi) / 2`.
    """
    each = passes(model, params, batch, key)
    kl, features = each.kl.mean(), each.feature_nll.mean()
    return kl + features, {"kl_nats": kl, "feature_nats": features, "sse": each.sse.mean()}


@partial(jax.jit, static_argnames=("model",))
def vae_gan_dec_loss(
    params: Params, batch: Batch, key: jax.Array, *, model: VAEGAN, gamma: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """`gamma` times the features' negative log-likelihood, plus the surprise of the discriminator, in nats per example.

    Args:
      params, batch, key, model: as in `vae_gan_enc_loss`.
      gamma: weight of the likelihood, the paper's; it weighs content against style.

    Returns:
      The mean over the batch; `feature_nats`, unweighted; `surprise_nats`, the sum for reconstructions and for decoded
      draws of the prior, 2 log 2 where the discriminator cannot tell.
    """
    each = passes(model, params, batch, key)
    features = each.feature_nll.mean()
    surprise = (divergences.generator_loss(each.rebuilt) + divergences.generator_loss(each.drawn)).mean()
    return gamma * features + surprise, {"feature_nats": features, "surprise_nats": surprise}


@partial(jax.jit, static_argnames=("model",))
def vae_gan_disc_loss(params: Params, batch: Batch, key: jax.Array, *, model: VAEGAN) -> tuple[jax.Array, Metrics]:
    """Three cross-entropies: of data, of their reconstructions and of decoded draws of the prior, in nats per example.

    Arguments are those of `vae_gan_enc_loss`.

    Returns:
      The mean over the batch, the paper's `L_GAN` negated; where it cannot tell its log-odds are -log 2, and this
      `3 log 3 - 2 log 2`. `accuracy`, the share of the 3 B examples that it puts right, a logit of zero counting one
      half.
    """
    each = passes(model, params, batch, key)
    loss = divergences.discriminator_loss(each.real, each.rebuilt).mean() + jax.nn.softplus(widen(each.drawn)).mean()
    signs = jnp.sign(jnp.concatenate([each.real, -each.rebuilt, -each.drawn]))
    return loss, {"accuracy": 0.5 + 0.5 * signs.mean()}


@factory
def vae_gan(
    model: VAEGAN, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """Three players in one phase: as in algorithm 1, all see the parameters from before the step, and the same draws.

    Which gradients stop where is said by the groups: the likelihood of features moves no discriminator, and the
    discriminator's verdict no encoder.

    Departures: the decoder's loss does not saturate, as in `gan_gen_loss`, where algorithm 1 has the discriminator's
    loss negated; Adam in place of RMSProp; no batch normalisation; networks, rates and gamma are ours.

    Returns:
      `enc` moves `encoder`, `dec` moves `decoder`, `disc` moves `hidden_layers` and `discriminator`.

    Raises:
      InputError: a likelihood with more to learn than a mean, the uniform prior, or a model that is no `VAEGAN`.
    """
    refuse_others(model, VAEGAN)
    refuse_densities(model)
    refuse_uniform(model)
    txs = optimisers(tx, {"enc": hparams.lr, "dec": hparams.dec_lr, "disc": hparams.disc_lr})
    dec, knobs = partial(vae_gan_dec_loss, model=model), {"gamma": hparams.gamma}
    players = {
        "enc": Player(partial(vae_gan_enc_loss, model=model), ("encoder",), txs["enc"]),
        "dec": Player(dec, ("decoder",), txs["dec"], knobs=knobs),
        "disc": Player(partial(vae_gan_disc_loss, model=model), ("hidden_layers", "discriminator"), txs["disc"]),
    }
    return play(players, [["enc", "dec", "disc"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {"feature_nats": Term("nats per example", "unit Gaussian of features around those of the reconstruction")}
METHOD = Method(
    VAEGAN, HParams, vae_gan, "VAE/GAN, judged in a discriminator's features", "Larsen et al. 2016",
    knobs={"gamma": 30.0}, terms=TERMS,  # at a rate that is ten times the default
)  # fmt: skip
