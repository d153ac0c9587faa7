"""The InfoVAE and MMD-VAE: the KL of each posterior weighed less, the divergence of their mixture weighed more.

Zhao, Song & Ermon, "InfoVAE: Balancing learning and inference in variational autoencoders", AAAI 2019
(arXiv:1706.02262). The bound asks the posterior of each example to be the prior, so a code may come to say nothing;
that all of them together follow the prior is enough. Their divergence from it is a maximum mean discrepancy.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from aejax import divergences, parallel
from aejax.algorithm import Metrics
from aejax.checks import InputError, ends_of
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.vae import VAE, terms

__all__ = ["info_vae", "info_vae_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    alpha: float = 1.0
    """What the KL of each posterior is weighed less than 1; 1 is the MMD-VAE, 0 keeps the KL of the bound."""
    scale: NonNegative = 100.0
    """The paper's lambda; the MMD has the weight `alpha + scale - 1`, which has to be 0 or more."""


@partial(jax.jit, static_argnames=("model", "axis_name"))
def info_vae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: VAE,
    alpha: float | jax.Array = 1.0,
    scale: float | jax.Array = 100.0,
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """`recon + (1 - alpha) KL + (alpha + scale - 1) MMD^2`, in nats per example.

    The paper maximises the expectation over the data of the negative of this (equation 6 of the arXiv version), the
    reconstruction as a log-likelihood in nats, so `scale` is its lambda unchanged. Its code for the MMD-VAE adds the
    MMD with weight 1 to the mean of the squared error over pixels: for D pixels, and the Gaussian likelihood, which
    has half of the summed squared error, that is `alpha=1, scale=D / 2`.

    The kernel is that of their code, `exp(-|z - z'|^2 / Z^2)`. Departure: the estimate of the MMD is unbiased, without
    the pairs of a point with itself, which theirs counts.

    Args:
      params, batch, model: as in `vae_loss`; B is at least 2.
      key: consumed, by the codes and by as many draws from the prior.
      alpha: at most 1. With `alpha=0, scale=1` this is `vae_loss`, with `alpha = 1 - beta, scale = beta` that of a beta
        (the MMD has weight 0), and with `alpha=1` the MMD-VAE, without the KL.
      scale: as in `HParams`.
      axis_name: static; the mapped axis, if any, over whose shards codes are gathered.

    Returns:
      The loss, `mmd_code_sq`, of the batch, and the terms of `vae_loss`.

    Raises:
      InputError: a batch of a single example.
    """
    if len(batch.x) < 2:
        raise InputError("An MMD needs at least 2 examples in a batch, on each device; got 1.")
    draw_key, prior_key = jax.random.split(key)
    each = terms(model, params, batch, draw_key)
    drawn = model.bind({"params": params}).sample_prior(prior_key, len(each.z))
    codes, draws = (parallel.gather(v, axis_name) for v in (each.z, drawn))
    # In two blocks: the compiler drops a loop of one, whose sums then have other bits inside that of the training.
    bandwidth, block_size = model.latent_dim / 2**0.5, len(codes) // 2
    mmd = divergences.mmd_sq(codes, draws, kernel="rbf", bandwidth=bandwidth, block_size=block_size)
    recon, kl = each.recon.mean(), each.kl.mean()
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}
    return recon + (1 - alpha) * kl + (alpha + scale - 1) * mmd, metrics | {"mmd_code_sq": mmd}


def _check(model: VAE, hparams: HParams) -> None:
    known = [[v for v in ends_of(knob) if not isinstance(v, jax.core.Tracer)] for knob in hparams[1:]]
    if any(v > 1 for v in known[0]):
        raise InputError(f"alpha is {hparams.alpha}; above 1 the KL would be rewarded.")
    if known[0] and known[1] and min(known[0]) + min(known[1]) < 1:
        raise InputError(
            f"alpha is {hparams.alpha} and scale {hparams.scale}; the MMD has the weight alpha + scale - 1, and below 0"
            " it would be rewarded: take a scale of 1 - alpha or more."
        )


info_vae = one_player(
    "info_vae", info_vae_loss, VAE, HParams, player="elbo", coupled=True, learns_prior=True, check=_check
)

METHOD = Method(
    VAE,
    HParams,
    info_vae,
    title="variational, MMD of codes (InfoVAE, MMD-VAE)",
    paper="Zhao et al. 2019",
    knobs={"scale": 10.0},
    terms={"mmd_code_sq": Term("none", "InfoVAE: squared MMD of drawn codes and draws from the prior, Gaussian", True)},
)
