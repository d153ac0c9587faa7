"""The denoising autoencoder: the plain one, asked to undo noise put on its input.

Vincent, Larochelle, Bengio & Manzagol (2008), with masking noise; Vincent et al. (2010), with Gaussian and
salt-and-pepper noise too. The module is that of the plain autoencoder. For small Gaussian noise of deviation sigma and
the Gaussian likelihood, `(reconstruct(x) - x) / sigma^2` estimates the gradient of the log-density of the data (Alain &
Bengio, 2014).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import corruption as corruptions
from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.methods.ae import AE
from aejax.nets import check_plain, inputs

__all__ = ["dae", "dae_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    level: float = 0.3
    """Of the corruption: standard deviation (gaussian), or the share of components that it hits."""
    corrupted: NonNegative = 1.0
    """Weight of the components that it hits; Gaussian noise hits all."""
    intact: NonNegative = 1.0
    """Weight of the others; 0 is full emphasis on what was corrupted."""


@partial(jax.jit, static_argnames=("model", "corruption"))
def dae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: AE,
    corruption: str = "gaussian",
    level: float | jax.Array = 0.3,
    corrupted: float | jax.Array = 1.0,
    intact: float | jax.Array = 1.0,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the clean x given the code of the corrupted one, in nats per example.

    With weights other than 1, that of each component times the weight of its kind: the emphasised loss of Vincent et
    al. (2010), section 3.4, whose alpha is `corrupted` and whose beta is `intact`. A component counts as corrupted
    where the noise hits it, though masking may leave a 0 what it was.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, clean.
      key: consumed by the corruption.
      model: static.
      corruption: a name of `aejax.corruption.CORRUPTIONS`; static.
      level: of the corruption.
      corrupted, intact: weights of the components that it hits, and of the others.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means, against the clean x and without weights.

    Raises:
      InputError: unknown corruption, or a model with an `nll` or `generate` of its own.
    """
    check_plain(model)
    corrupt, (x, *condition) = corruptions.get(corruption), inputs(model, batch)
    bound, likelihood = model.bind({"params": params}), likelihoods.get(model.likelihood)
    output = bound.decode(bound.encode(corrupt(key, x, level), *condition), *condition)
    is_hit = corruptions.hits(corruption, jax.random.clone(key), x, level)
    nats = likelihood.nll_components(output, x).reshape(len(x), -1)
    weights = jnp.where(is_hit, corrupted, intact).reshape(len(x), -1)
    loss, recon = (weights * nats).sum(axis=1).mean(), nats.sum(axis=1).mean()
    return loss, {"recon_nats": recon, "sse": likelihoods.sse(likelihood.mean(output), x).mean()}


def _check(model: AE, hparams: HParams, *, corruption: str) -> None:
    check_plain(model)
    corruptions.check_level(corruption, hparams.level)


dae = one_player("dae", dae_loss, AE, HParams, check=_check)


METHOD = Method(
    AE, HParams, dae, title="denoising, three noises, emphasised", paper="Vincent et al. 2008, 2010", inert=("intact",)
)  # Gaussian noise leaves no component intact
