"""The plain autoencoder, from linear to deep.

Rumelhart, Hinton & Williams (1986); Bourlard & Kamp (1988) and Baldi & Hornik (1989) for the linear one, whose
minimum spans the principal subspace; Hinton & Salakhutdinov (2006) for the deep one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Player, play
from aejax.checks import check_positive
from aejax.data import Batch
from aejax.nets import Autoencoder


class AE(Autoencoder):
    """An encoder and a decoder. Linear: no hidden layers and `likelihood="gaussian"`."""


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: float = 1e-3
    """Learning rate."""


@partial(jax.jit, static_argnames=("model",))
def ae_loss(params: Any, batch: Batch, key: jax.Array, *, model: AE) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, in nats per example.

    With the Gaussian likelihood this is `sse / 2` plus a constant. The key is not used.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means.
    """
    return reconstruction(params, model.bind({"params": params}).encode(batch.x), batch.x, model=model)


def reconstruction(params: Any, z: jax.Array, x: jax.Array, *, model: AE) -> tuple[jax.Array, Metrics]:
    """How well the code says what x is: `ae_loss` for codes from anywhere."""
    output = model.bind({"params": params}).decode(z)
    likelihood = likelihoods.get(model.likelihood)
    recon = likelihood.nll(output, x).mean()
    return recon, {"recon_nats": recon, "sse": likelihoods.sse(likelihood.mean(output), x).mean()}


def ae(
    model: AE, hparams: HParams = HParams(), tx: Callable[..., Any] = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """The one-player game.

    Args:
      model: the module.
      hparams: knobs; may hold traced values.
      tx: learning rate -> optimiser.
      axis_name: as in `play`.

    Returns:
      Player `recon` moves `encoder` and `decoder`; one phase.
    """
    check_positive(lr=hparams.lr)
    recon = Player(partial(ae_loss, model=model), ("encoder", "decoder"), tx(hparams.lr))
    return play({"recon": recon}, [["recon"]], axis_name=axis_name)
