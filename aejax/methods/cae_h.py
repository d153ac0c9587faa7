"""The contractive autoencoder of higher order, CAE+H: the code moves little, and its slope changes little too.

Rifai, Mesnil, Vincent, Muller, Bengio, Dauphin & Glorot, "Higher order contractive auto-encoder" (ECML PKDD 2011). To
the penalty of the CAE comes one on the Hessian, estimated as in the paper by the change of the Jacobian under noise.
The penalty of the Jacobian is exact.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax import corruption
from aejax import jacobian as jac
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.methods.ae import reconstruction
from aejax.methods.cae import CAE

__all__ = ["cae_h", "cae_h_loss"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    contraction: NonNegative = 0.1
    """Weight of the squared norm of the Jacobian against the reconstruction in nats: the paper's lambda."""
    gamma: NonNegative = 0.1
    """Weight of the squared change of the Jacobian under noise."""
    sigma: Positive = 0.1
    """Standard deviation of that noise, in the units of x."""


@partial(jax.jit, static_argnames=("model", "num_samples"))
def cae_h_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: CAE,
    contraction: float | jax.Array = 0.1,
    gamma: float | jax.Array = 0.1,
    sigma: float | jax.Array = 0.1,
    num_samples: int = 4,
) -> tuple[jax.Array, Metrics]:
    """The loss of the CAE, plus `gamma` times the mean of `|J(x) - J(x + sigma e)|_F^2` over draws of e from N(0, I).

    J is the Jacobian of the encoder. As in the paper the change is not divided by `sigma^2`: for small sigma its
    expectation is `sigma^2 |H|_F^2 + O(sigma^4)`, the squared sum over all second derivatives, so a weight on the
    Hessian itself is `gamma sigma^2`. What a weight means for the Gaussian likelihood is said at `cae_loss`.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by the noise.
      model: static.
      contraction: weight of the Jacobian.
      gamma: weight of its change; at zero this is `cae_loss`.
      sigma: positive.
      num_samples: draws of e for each example; static. Four by default, which is ours.

    Returns:
      The mean over the batch, and `recon_nats`, `sse`, `jacobian_sq` and `jacobian_change_sq`, likewise means.
    """
    z, norms = jac.embed_and_sq(model, params, batch)
    recon, metrics = reconstruction(params, z, batch, model=model)
    x_tilde = corruption.gaussian(key, jnp.broadcast_to(batch.x, (num_samples, *batch.x.shape)), sigma)
    moved = lambda x: jac.embedding_difference_sq(model, params, batch, batch._replace(x=x))
    change = jax.vmap(moved)(x_tilde).mean()
    penalty = norms.mean()
    terms = {**metrics, "jacobian_sq": penalty, "jacobian_change_sq": change}
    return recon + contraction * penalty + gamma * change, terms


def _check(model: CAE, *_: Any, num_samples: int) -> None:
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}; it has to be at least 1.")


cae_h = one_player("cae_h", cae_h_loss, CAE, HParams, check=_check)


METHOD = Method(CAE, HParams, cae_h, title="contractive, of higher order (CAE+H)", paper="Rifai et al. 2011, ECML")
