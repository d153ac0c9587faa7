"""The Wasserstein autoencoder, its codes matched to the prior by maximum mean discrepancy.

Tolstikhin, Bousquet, Gelly & Scholkopf, "Wasserstein auto-encoders", ICLR 2018, algorithm 2. Codes are deterministic;
what follows the prior is the distribution of the codes of all data, not that of each, so the MMD is a number of the
whole batch.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from aejax import divergences, parallel, priors
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.nets import inputs

__all__ = ["WAE", "wae_mmd", "wae_mmd_loss"]


class WAE(AE):
    """An encoder, a decoder, and the prior that the codes are to follow; `sample` draws from it and decodes.

    Attributes:
      prior: as in `Autoencoder`; N(0, I) by default.
    """

    prior: str | priors.Prior | priors.LearnedPrior | None = "normal"


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    mmd_weight: NonNegative = 100.0
    """Weight of the MMD against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model", "axis_name"))
def wae_mmd_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: WAE,
    mmd_weight: float | jax.Array = 100.0,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `mmd_weight` times the squared MMD of codes and prior.

    The kernel is the paper's sum of inverse multiquadratics, for a prior of deviation 1. The paper weighs the MMD
    against the whole squared error, with lambda = 10 on MNIST. The Gaussian likelihood is half the squared error, so
    there `mmd_weight` is lambda / 2. Under the Bernoulli likelihood no such translation exists; 100 is ours.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, B at least 2.
      key: consumed by the draws from the prior, as many as codes.
      model: static.
      mmd_weight: at zero this is `ae_loss`.
      axis_name: static; the mapped axis, if any, over whose shards the codes are gathered.

    Returns:
      `recon_nats` as a mean over the batch plus the weighted MMD, `recon_nats` and `sse`, means, and `mmd_sq`, of the
      batch: unbiased, and about half of the time negative once codes and prior agree.

    Raises:
      InputError: a batch of a single example.
    """
    if len(batch.x) < 2:
        raise InputError("An MMD needs at least 2 examples in a batch, on each device; got 1.")
    wae = model.bind({"params": params})
    z = wae.encode(*inputs(model, batch))
    recon, metrics = reconstruction(params, z, batch, model=model)
    drawn = wae.sample_prior(key, len(z))
    mmd = divergences.mmd_sq(parallel.gather(z, axis_name), parallel.gather(drawn, axis_name), kernel="imq")
    return recon + mmd_weight * mmd, {**metrics, "mmd_sq": mmd}


wae_mmd = one_player("wae_mmd", wae_mmd_loss, WAE, HParams, coupled=True)

METHOD = Method(
    WAE,
    HParams,
    wae_mmd,
    title="Wasserstein, by maximum mean discrepancy",
    paper="Tolstikhin et al. 2018",
    terms={
        "mmd_sq": Term("none", "squared MMD of codes and as many draws from the prior, inverse multiquadratics", True)
    },
)
