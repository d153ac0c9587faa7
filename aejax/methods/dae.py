"""The denoising autoencoder: the plain one, asked to undo noise put on its input.

Vincent, Larochelle, Bengio & Manzagol (2008), with masking noise; Vincent et al. (2010), with Gaussian and
salt-and-pepper noise too. The module is that of the plain autoencoder. For small Gaussian noise of deviation sigma and
the Gaussian likelihood, `(reconstruct(x) - x) / sigma^2` estimates the gradient of the log-density of the data (Alain &
Bengio, 2014).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from aejax import corruption as corruptions
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import check_positive
from aejax.data import Batch
from aejax.methods.ae import AE, reconstruction


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: float = 1e-3
    """Learning rate."""
    level: float = 0.3
    """Of the corruption: standard deviation (gaussian), or the share of components that it hits."""


@partial(jax.jit, static_argnames=("model", "corruption"))
def dae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: AE,
    corruption: str = "gaussian",
    level: float | jax.Array = 0.3,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the clean x given the code of the corrupted one, in nats per example.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, clean.
      key: consumed by the corruption.
      model: static.
      corruption: a name of `aejax.corruption.CORRUPTIONS`; static.
      level: of the corruption.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means, against the clean x.

    Raises:
      InputError: unknown corruption.
    """
    x_tilde = corruptions.get(corruption)(key, batch.x, level)
    return reconstruction(params, model.bind({"params": params}).encode(x_tilde), batch.x, model=model)


def dae(
    model: AE,
    hparams: HParams = HParams(),
    tx: Callable[..., Any] = optax.adam,
    *,
    corruption: str = "gaussian",
    axis_name: str | None = None,
) -> Algorithm:
    """The one-player game.

    Args:
      model: the module.
      hparams: knobs; may hold traced values.
      tx: learning rate -> optimiser.
      corruption: a name of `aejax.corruption.CORRUPTIONS`.
      axis_name: as in `play`.

    Returns:
      Player `recon` moves `encoder` and `decoder`; one phase.

    Raises:
      InputError: unknown corruption, or a level that it cannot have.
    """
    check_positive(lr=hparams.lr)
    corruptions.check_level(corruption, hparams.level)
    loss = partial(dae_loss, model=model, corruption=corruption, level=hparams.level)
    recon = Player(loss, ("encoder", "decoder"), tx(hparams.lr))
    return play({"recon": recon}, [["recon"]], axis_name=axis_name)
