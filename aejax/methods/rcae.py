"""The reconstruction-contractive autoencoder: not the code but the whole reconstruction moves as little as it can.

Alain & Bengio, "What regularized auto-encoders learn from the data-generating distribution" (JMLR 2014). There it is
the bridge from the denoising to the contractive autoencoder: what small Gaussian noise does to the squared error,
written as a penalty.
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from aejax import jacobian as jac
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.nets import inputs

__all__ = ["rcae", "rcae_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    contraction: NonNegative = 0.1
    """Weight of the penalty against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model",))
def rcae_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: AE, contraction: float | jax.Array = 0.1
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `contraction` times `|d r(x) / d x|_F^2`.

    r is `reconstruct`, from data space to data space. With noise of deviation sigma on its input,

        E |r(x + sigma e) - x|^2 = |r(x) - x|^2 + sigma^2 (|J_r|_F^2 + (r(x) - x) . laplacian r(x)) + O(sigma^4),

    and the second term in the brackets is of higher order where r(x) - x tends to zero with sigma, as the paper shows
    of the best r, and absent where r is affine. The Gaussian likelihood is half the squared error, so there
    `contraction = sigma^2 / 2` stands for the denoising autoencoder of that level. The paper's squared error against
    `lambda |J_r|_F^2` is `contraction = lambda / 2`, likewise. With the Bernoulli likelihood the penalty is the same,
    on the probabilities, and the equivalence is lost.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      contraction: weight of the penalty; at zero this is `ae_loss`.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `reconstruction_jacobian_sq`, likewise means.
    """
    z = model.bind({"params": params}).embed(*inputs(model, batch))
    recon, metrics = reconstruction(params, z, batch, model=model)
    penalty = jac.reconstruction_sq(model, params, batch).mean()
    return recon + contraction * penalty, {**metrics, "reconstruction_jacobian_sq": penalty}


rcae = one_player("rcae", rcae_loss, AE, HParams)


METHOD = Method(
    AE, HParams, rcae, title="contractive in the reconstruction", paper="Alain & Bengio 2014", noise_free=True
)
