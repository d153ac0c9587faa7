"""The variational autoencoder.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; `beta` after Higgins et al., ICLR 2017. The posterior
is a diagonal Gaussian, the prior that of the model, by default N(0, I), and the bound is estimated from one sample for
each example, or from several.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import likelihoods, posteriors, priors
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.nets import Autoencoder, inputs

__all__ = ["VAE", "vae", "vae_loss"]


class VAE(Autoencoder):
    """An encoder that returns mean and log-variance of the posterior, side by side, and a decoder.

    Attributes:
      prior: as in `Autoencoder`; N(0, I) by default.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"

    @classmethod
    def code_size(cls, latent_dim: int, **fields: Any) -> int:
        return 2 * latent_dim

    def encode(self, x: jax.Array, *condition: jax.Array) -> posteriors.DiagonalGaussian:
        """The posterior, of means and log-variances `[B, Z]`."""
        return posteriors.DiagonalGaussian(*jnp.split(self.encoder(x, *condition), 2, axis=-1))

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The posterior mean: `[B, ...] -> [B, Z]`."""
        return self.encode(x, *condition).mode


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL term; 1 is the bound itself."""


class Terms(NamedTuple):
    """The terms of the bound, of each example."""

    recon: jax.Array  # [B] -log p(x|z), nats
    kl: jax.Array  # [B] nats
    sse: jax.Array  # [B] squared error of the decoded sample
    z: jax.Array  # [B, Z] the sample
    posterior: Any  # of the codes, as the model's `encode` returns it


def terms(model: Autoencoder, params: Any, batch: Batch, key: jax.Array, *, closed: bool = True) -> Terms:
    """One draw from the posterior of each example, and what it is worth.

    Args:
      model: any whose `encode` returns a posterior, conditioned ones too.
      params: by group.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: consumed.
      closed: as in `posteriors.sample_and_kl`; without it, `-(recon + kl)` are log importance weights.
    """
    bound, (x, *condition) = model.bind({"params": params}), inputs(model, batch)
    posterior = bound.encode(x, *condition)
    z, kl = posteriors.sample_and_kl(posterior, key, bound, closed=closed)
    recon, x_hat = bound.nll_and_mean(z, x, *condition)
    return Terms(recon, kl, likelihoods.sse(x_hat, x), z, posterior)


def draws(
    model: Autoencoder, params: Any, batch: Batch, key: jax.Array, num_samples: int, *, closed: bool = True
) -> Terms:
    """`terms` of L independent draws for each example, all with the draws in front, `[L, B, ...]`.

    The encoder runs once. Arguments are those of `terms`, and `num_samples`, which is L.
    """
    each = partial(terms, model, params, batch, closed=closed)
    return jax.vmap(each)(jax.random.split(key, num_samples))


@partial(jax.jit, static_argnames=("model", "num_samples", "closed_kl"))
def vae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: Autoencoder,
    beta: float | jax.Array = 1.0,
    num_samples: int = 1,
    closed_kl: bool = True,
) -> tuple[jax.Array, Metrics]:
    """The negative evidence lower bound, its KL term weighted by beta, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ...}`, and `prior` where that is learned.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: consumed.
      model: static.
      beta: weight of the KL term.
      num_samples: L, draws from the posterior of each example; static. The decoder sees L B codes, the encoder B
        examples.
      closed_kl: whether the KL is taken in closed form where there is one, and so without noise; else, and elsewhere,
        it is estimated from the same draws. Static.

    Returns:
      `mean(recon + beta * kl)` over the batch and the draws, and the means `recon_nats`, `kl_nats` (unweighted),
      `bound_nats` (the negative bound itself, whatever beta: `recon_nats + kl_nats`) and `sse` (of the decoded draws).

    Reference: equation 10 with the KL in closed form, equation 8 without; L is the paper's.
    """
    if num_samples == 1:
        each = terms(model, params, batch, key, closed=closed_kl)
    else:
        each = draws(model, params, batch, key, num_samples, closed=closed_kl)
    recon, kl = each.recon.mean(), each.kl.mean()
    return recon + beta * kl, {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}


def check_samples(model: Autoencoder, hparams: Any, *, num_samples: int, **others: Any) -> None:
    """Refuses fewer than one draw."""
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}; it has to be at least 1.")


vae = one_player("vae", vae_loss, VAE, HParams, player="elbo", learns_prior=True, check=check_samples)

METHOD = Method(
    VAE,
    HParams,
    vae,
    title="variational, beta; any likelihood, learned priors",
    paper="Kingma & Welling 2014; Higgins et al. 2017",
)
