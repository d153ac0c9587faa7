"""The plain autoencoder, from linear to deep.

Rumelhart, Hinton & Williams (1986); Bourlard & Kamp (1988) and Baldi & Hornik (1989) for the linear one, whose
minimum spans the principal subspace; Hinton & Salakhutdinov (2006) for the deep one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, Positive, one_player
from aejax.nets import Autoencoder, inputs

__all__ = ["AE", "ae", "ae_loss"]


class AE(Autoencoder):
    """An encoder and a decoder. Linear: no hidden layers and `likelihood="gaussian"`."""


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""


@partial(jax.jit, static_argnames=("model",))
def ae_loss(params: Any, batch: Batch, key: jax.Array, *, model: AE) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, in nats per example.

    With the Gaussian likelihood this is `sse / 2` plus a constant. The key is not used.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, and `y` where the model is conditioned.
      key: ignored.
      model: static.

    Returns:
      The mean over the batch, and `recon_nats` and `sse`, likewise means.
    """
    z = model.bind({"params": params}).encode(*inputs(model, batch))
    return reconstruction(params, z, batch, model=model)


def reconstruction(params: Any, z: jax.Array, batch: Batch, *, model: Autoencoder) -> tuple[jax.Array, Metrics]:
    """How well the code says what x is: `ae_loss` for codes from anywhere."""
    x, *condition = inputs(model, batch)
    nll, x_hat = model.bind({"params": params}).nll_and_mean(z, x, *condition)
    recon = nll.mean()
    return recon, {"recon_nats": recon, "sse": likelihoods.sse(x_hat, x).mean()}


@partial(jax.jit, static_argnames=("model",))
def decoder_loss(params: Any, batch: Batch, key: jax.Array, *, model: Autoencoder) -> tuple[jax.Array, Metrics]:
    """`ae_loss` for codes that are held fixed, so that it has a gradient in the decoder alone; arguments as there.

    For methods whose codes are not made to reconstruct, and are looked at all the same.
    """
    z = jax.lax.stop_gradient(model.bind({"params": params}).embed(batch.x))
    return reconstruction(params, z, batch, model=model)


ae = one_player("ae", ae_loss, AE, HParams)


METHOD = Method(
    AE,
    HParams,
    ae,
    title="autoencoder, linear to deep, dense or convolutional",
    paper="Bourlard & Kamp 1988; Hinton & Salakhutdinov 2006",
    noise_free=True,
)
