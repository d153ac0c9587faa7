"""Mult-VAE: a variational autoencoder of sets and counts, with a multinomial likelihood.

Liang, Krishnan, Hoffman & Jebara, "Variational autoencoders for collaborative filtering", WWW 2018. An example is a
user, with 1 at each item of theirs and 0 elsewhere, or with counts; items are ranked by the probability that they come
next. The weight of the KL term is well below 1, and is reached slowly.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from aejax import likelihoods, posteriors, priors
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Probability, one_player
from aejax.likelihoods import Likelihood
from aejax.methods.mult_dae import OfEvents, check, dropped
from aejax.methods.vae import VAE

__all__ = ["MultVAE", "mult_vae", "mult_vae_loss"]


class MultVAE(OfEvents, VAE):
    """q(z|x) a Gaussian whose moments are networks of x at length 1, and x events of the kinds `softmax(f(z))`.

    `dense` builds it as published, with tanh between the layers. `generate` returns the probabilities of the kinds of
    event, `reconstruct` expected counts.
    """

    likelihood: str | Likelihood = "multinomial"
    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (600,), **fields: Any) -> Self:
        """One hidden layer of tanh units each way, on vectors `[B, D]`; the paper has 600 of them and a code of 200."""
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **{"activation": jnp.tanh} | fields)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 0.2
    """Weight of the KL term, at its end if it rises."""
    dropout: Probability = 0.5
    """Share of the input that is lost, below 1."""


@partial(jax.jit, static_argnames=("model",))
def mult_vae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: MultVAE,
    beta: float | jax.Array = 0.2,
    dropout: float | jax.Array = 0.5,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of all events given a code drawn for some of them, and beta times the KL term, in nats.

    Args:
      params: `{"encoder": ..., "decoder": ...}`, and `prior` where that is learned.
      batch: `x` `[B, ...]`, 1 for each event, or counts.
      key: consumed.
      model: static.
      beta: weight of the KL term; below 1 it is no bound on the likelihood, and the paper wants none.
      dropout: probability that a component of the input, at length 1, is lost; the others are `1 / (1 - dropout)`
        times as large. The posterior is that of what is left.

    Returns:
      `mean(recon + beta * kl)` over the batch, and the means `recon_nats`, `kl_nats` (unweighted), `bound_nats`
      (`recon_nats + kl_nats`, at this dropout) and `sse` (of the expected counts).

    Reference: equations 2, 6 and 7; the dropout and its place are those of section 3.2 and the published code.
    """
    x, bound = batch.x, model.bind({"params": params})
    drop_key, z_key = jax.random.split(key)
    posterior = bound.encode_unit(dropped(drop_key, x, dropout))
    z, kl_each = posteriors.sample_and_kl(posterior, z_key, bound)
    nll, x_hat = bound.nll_and_mean(z, x)
    recon, kl = nll.mean(), kl_each.mean()
    terms = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": likelihoods.sse(x_hat, x).mean()}
    return recon + beta * kl, terms


mult_vae = one_player(
    "mult_vae",
    mult_vae_loss,
    MultVAE,
    HParams,
    player="elbo",
    learns_prior=True,
    check=check,
    notes="The paper's annealing is `beta=schedules.Ramp(0.0, 0.2, steps)`, with 200,000 steps in its code.",
)

METHOD = Method(
    MultVAE,
    HParams,
    mult_vae,
    title="variational, of events, multinomial (Mult-VAE)",
    paper="Liang et al. 2018",
)
