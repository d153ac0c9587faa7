"""The VAE of a given capacity: the KL is held at C nats, and C grows.

Burgess, Higgins, Pal, Matthey, Watters, Desjardins & Lerchner, "Understanding disentangling in beta-VAE", 2018
(arXiv:1804.03599). A code with few nats spends them on what lowers the error most; more of them come step by step.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import parallel
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.vae import VAE, terms

__all__ = ["annealed_vae", "annealed_vae_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    gamma: NonNegative = 10.0
    """Weight of the gap between KL and capacity, per nat."""
    capacity: NonNegative = 25.0
    """C, in nats; `schedules.Ramp(0.0, 25.0, 100_000)` lets it grow."""


@partial(jax.jit, static_argnames=("model", "axis_name"))
def annealed_vae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: VAE,
    gamma: float | jax.Array = 10.0,
    capacity: float | jax.Array = 25.0,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """`recon + gamma |KL - capacity|`, in nats per example; the KL is the mean over the batch.

    Once gamma exceeds what a further nat of KL lowers the reconstruction by, the optimum has a KL of exactly C: gamma
    is a penalty, not a price. Far beyond that, it leaves the reconstruction little of each step. The paper writes the
    absolute value for an example; as a mean inside it, as in disentanglement_lib, some examples may take more nats
    than others.

    Args:
      params, batch, key, model: as in `vae_loss`.
      gamma: weight of the gap; with a capacity of 0 it is beta.
      capacity: C.
      axis_name: static; the mapped axis, if any, over whose shards the KL is a mean.

    Returns:
      The loss, `capacity_gap_nats`, of the batch, and the terms of `vae_loss`.

    Reference: equation 8.
    """
    each = terms(model, params, batch, key)
    recon, kl = each.recon.mean(), each.kl.mean()
    gap = jnp.abs(parallel.gather(each.kl, axis_name).mean() - capacity)
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}
    return recon + gamma * gap, metrics | {"capacity_gap_nats": gap}


annealed_vae = one_player(
    "annealed_vae", annealed_vae_loss, VAE, HParams, player="elbo", coupled=True, learns_prior=True
)

METHOD = Method(
    VAE,
    HParams,
    annealed_vae,
    title="variational, capacity held and annealed",
    paper="Burgess et al. 2018",
    knobs={"gamma": 3.0, "capacity": 1.0},
    terms={"capacity_gap_nats": Term("nats per example", "annealed VAE: gap of the mean KL from the capacity", True)},
)
