"""The stochastic contractive autoencoder: contraction measured by a nudge in place of a derivative.

The code of x is asked to stay where it is when Gaussian noise is put on x. To first order in the noise that is the
penalty of the contractive autoencoder (Rifai, Vincent, Muller, Glorot & Bengio, 2011), by the Taylor argument with
which Bishop (1995) reads training with noise as a penalty on derivatives. It costs a second pass through the encoder,
whatever its depth, and no Jacobian. The name is that of the method table of this project; we know of no one paper that
introduces it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import corruption
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.likelihoods import sse
from aejax.methods.ae import reconstruction
from aejax.methods.cae import CAE
from aejax.nets import inputs

__all__ = ["scae", "scae_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    contraction: NonNegative = 0.1
    """Weight of the penalty against the reconstruction in nats, as in the CAE."""
    sigma: Positive = 0.1
    """Standard deviation of the noise, in the units of x."""


@partial(jax.jit, static_argnames=("model",))
def scae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: CAE,
    contraction: float | jax.Array = 0.1,
    sigma: float | jax.Array = 0.1,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `contraction` times `|h(x) - h(x_tilde)|^2 / sigma^2`.

    h is the encoder, and `x_tilde = x + sigma e` with e from N(0, I), one draw an example. By Taylor,
    `h(x_tilde) - h(x) = sigma J e + sigma^2 e'He / 2 + ...`, whose odd moments vanish, so in expectation the penalty is
    `|J|_F^2 + O(sigma^2)`: for sigma to zero this is `cae_loss` of the same `contraction`. For a linear encoder it is
    that for every sigma. The code is of order one and sigma |J| is what is left of it in the difference: far below
    sigma = 1e-3, float32 has few digits to spare for it.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`; the clean x is reconstructed from its own code.
      key: consumed by the noise.
      model: static.
      contraction: weight of the penalty; at zero this is `ae_loss`.
      sigma: positive.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `shift_sq` (the penalty before its weight), likewise means.
    """
    encode, (x, *condition) = model.bind({"params": params}).embed, inputs(model, batch)
    z, z_tilde = encode(x, *condition), encode(corruption.gaussian(key, x, sigma), *condition)
    recon, metrics = reconstruction(params, z, batch, model=model)
    penalty = sse(z_tilde, z).mean() / jnp.square(sigma)
    return recon + contraction * penalty, {**metrics, "shift_sq": penalty}


scae = one_player("scae", scae_loss, CAE, HParams)


METHOD = Method(
    CAE,
    HParams,
    scae,
    title="contractive, stochastic (SCAE)",
    paper="the CAE by finite noise, after Rifai et al. 2011 and Bishop 1995",
)
