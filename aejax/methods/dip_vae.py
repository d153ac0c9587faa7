"""The DIP-VAE: the covariance of the codes, taken over all data, is to be the identity.

Kumar, Sattigeri & Balakrishnan, "Variational inference of disentangled latent concepts from unlabeled observations",
ICLR 2018. Where the prior has independent dimensions the aggregate posterior should have them too; what is penalised is
the part of that which two moments show.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import parallel
from aejax.algorithm import Metrics
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.methods.vae import VAE, terms
from aejax.posteriors import DiagonalGaussian
from aejax.precision import widen

__all__ = ["dip_vae", "dip_vae_loss"]

COVARIANCES = ("codes", "means")


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    lambda_od: NonNegative = 10.0
    """Weight of the squared covariances."""
    lambda_d: NonNegative = 10.0
    """Weight of the squared gaps of the variances from 1."""


def covariance_of(posterior: DiagonalGaussian, *, covariance: str) -> jax.Array:
    """The covariance over a batch, sums divided by its size B.

    Args:
      posterior: of B examples.
      covariance: `means`, of the posterior means; or `codes`, of codes: that of the means, plus the mean of the
        posterior variances on the diagonal.

    Returns:
      `[Z, Z]`.

    Example:
      >>> posterior = DiagonalGaussian(jnp.array([[1.0, 0.0], [-1.0, 2.0]]), jnp.zeros((2, 2)))
      >>> covariance_of(posterior, covariance="codes").tolist()
      [[2.0, -1.0], [-1.0, 2.0]]
    """
    mean, logvar = map(widen, posterior)
    centred = mean - mean.mean(axis=0, keepdims=True)
    of_means = jnp.matmul(centred.T, centred, precision="highest") / len(mean)
    return of_means if covariance == "means" else of_means + jnp.diag(jnp.exp(logvar).mean(axis=0))


@partial(jax.jit, static_argnames=("model", "covariance", "axis_name"))
def dip_vae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: VAE,
    lambda_od: float | jax.Array = 10.0,
    lambda_d: float | jax.Array = 10.0,
    covariance: str = "codes",
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """The negative bound plus the weighted squares of covariance less identity.

    The bound is in nats per example as in the paper, so its weights are these. Its experiments have
    `lambda_d = 10 lambda_od` for DIP-VAE-I and `lambda_d = lambda_od` for DIP-VAE-II.

    Args:
      params, batch, key, model: as in `vae_loss`; posteriors are diagonal Gaussians.
      lambda_od: weight of the squares off the diagonal, of which each pair of dimensions has two.
      lambda_d: weight of those on the diagonal; with both at zero this is `vae_loss`.
      covariance: static, as in `covariance_of`: `means` is DIP-VAE-I, `codes` DIP-VAE-II.
      axis_name: static; the mapped axis, if any, over whose shards the posteriors are gathered.

    Returns:
      `bound_nats + lambda_od * off_diagonal_sq + lambda_d * diagonal_sq`, these two, of the batch, and the terms of
      `vae_loss`.

    Raises:
      InputError: an unknown covariance, a posterior that is no diagonal Gaussian.

    Reference: equation 6 for `means`, 7 for `codes`.
    """
    _check_covariance(covariance)
    each = terms(model, params, batch, key)
    if not isinstance(each.posterior, DiagonalGaussian):
        raise InputError(f"The posterior is a {type(each.posterior).__name__}; a DiagonalGaussian is wanted.")
    everyone = DiagonalGaussian(*(parallel.gather(v, axis_name) for v in each.posterior))
    gaps = jnp.square(covariance_of(everyone, covariance=covariance) - jnp.eye(model.latent_dim))
    diagonal = jnp.trace(gaps)
    off_diagonal = jnp.where(jnp.eye(model.latent_dim, dtype=bool), 0.0, gaps).sum()
    recon, kl = each.recon.mean(), each.kl.mean()
    metrics = {"recon_nats": recon, "kl_nats": kl, "bound_nats": recon + kl, "sse": each.sse.mean()}
    metrics |= {"off_diagonal_sq": off_diagonal, "diagonal_sq": diagonal}
    return recon + kl + lambda_od * off_diagonal + lambda_d * diagonal, metrics


def _check_covariance(covariance: str) -> None:
    if covariance not in COVARIANCES:
        raise InputError(f"Unknown covariance {covariance!r}. {nearest(covariance, COVARIANCES, what='covariances')}")


def _check(model: VAE, hparams: HParams, *, covariance: str) -> None:
    _check_covariance(covariance)


dip_vae = one_player(
    "dip_vae", dip_vae_loss, VAE, HParams, player="elbo", coupled=True, learns_prior=True, check=_check
)

METHOD = Method(
    VAE,
    HParams,
    dip_vae,
    title="variational, covariance of codes (DIP-VAE I, II)",
    paper="Kumar et al. 2018",
    knobs={"lambda_od": 1.0, "lambda_d": 1.0},
    terms={
        "off_diagonal_sq": Term("code units^4", "DIP-VAE: squared covariances of the codes, summed", True),
        "diagonal_sq": Term("none", "DIP-VAE: squared gaps of the codes' variances from 1, summed", True),
    },
)
