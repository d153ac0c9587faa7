"""The variational autoencoder.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014; `beta` after Higgins et al., ICLR 2017. The posterior
is a diagonal Gaussian, the prior N(0, I), and the bound is estimated from one sample for each example.
"""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from aejax import divergences, likelihoods
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.nets import Autoencoder

__all__ = ["VAE", "reparameterise", "vae", "vae_loss"]


class VAE(Autoencoder):
    """An encoder that returns mean and log-variance of the posterior, side by side, and a decoder."""

    @classmethod
    def code_size(cls, latent_dim: int) -> int:
        return 2 * latent_dim

    def encode(self, x: jax.Array, *condition: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(mean, logvar) of the posterior: `[B, ...] -> [B, Z], [B, Z]`."""
        mean, logvar = jnp.split(self.encoder(x, *condition), 2, axis=-1)
        return mean, logvar

    def embed(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The posterior mean: `[B, ...] -> [B, Z]`."""
        return self.encode(x, *condition)[0]


def reparameterise(key: jax.Array, mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """A draw from the diagonal Gaussian, differentiable in its parameters: `mean + exp(logvar / 2) * noise`.

    Args:
      key: consumed.
      mean: `[..., Z]`.
      logvar: `[..., Z]`.

    Returns:
      `[..., Z]`.

    Raises:
      AssertionError: the two shapes differ.
    """
    chex.assert_equal_shape([mean, logvar])
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL term; 1 is the bound itself."""


@partial(jax.jit, static_argnames=("model",))
def vae_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: VAE, beta: float | jax.Array = 1.0
) -> tuple[jax.Array, Metrics]:
    """The negative evidence lower bound, its KL term weighted by beta, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed.
      model: static.
      beta: weight of the KL term.

    Returns:
      `mean(recon + beta * kl)` over the batch, and the means `recon_nats`, `kl_nats` (unweighted), `bound_nats` (the
      negative bound itself, whatever beta: `recon_nats + kl_nats`) and `sse` (of the decoded sample).

    Reference: equation 10, with L = 1 and the KL in closed form.
    """
    vae = model.bind({"params": params})
    likelihood = likelihoods.get(model.likelihood)
    mean, logvar = vae.encode(batch.x)
    output = vae.decode(reparameterise(key, mean, logvar))
    recon = likelihood.nll(output, batch.x).mean()
    kl = divergences.gaussian_kl(mean, logvar).mean()
    sse = likelihoods.sse(likelihood.mean(output), batch.x).mean()
    return recon + beta * kl, {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": sse}


vae = one_player("vae", vae_loss, VAE, HParams, player="elbo")


METHOD = Method(VAE, HParams, vae, year=2014)
