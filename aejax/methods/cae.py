"""The contractive autoencoder: reconstruct, with a code that moves as little as it can.

Rifai, Vincent, Muller, Glorot & Bengio (2011). The penalty is the squared Frobenius norm of the Jacobian of the code
with respect to the input: exact, in the cheapest form that the encoder allows (`aejax.jacobian`), or for encoders where
that is too dear an estimate from one random probe an example, which is right on average, and so is its gradient.

Published: one layer of sigmoids with tied weights, as `CAE.dense` has it. With untied weights the
encoder can shrink and the decoder grow: the penalty vanishes and nothing is contracted.
"""

from functools import partial
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax

from aejax import jacobian as jac
from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.nets import inputs

__all__ = ["CAE", "cae", "cae_loss"]


class CAE(AE):
    """The plain autoencoder; `dense` builds it as published."""

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """Tied sigmoid layers on vectors `[B, D]`: one by default, more with `hidden_dims`."""
        published: dict[str, Any] = {"activation": nn.sigmoid, "code_activation": nn.sigmoid, "tied": True}
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **published | fields)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    contraction: NonNegative = 0.1
    """Weight of the penalty against the reconstruction in nats."""


MODES = (*jac.MODES, "hutchinson")


@partial(jax.jit, static_argnames=("model", "jacobian", "memory_limit"))
def cae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: CAE,
    contraction: float | jax.Array = 0.1,
    jacobian: str = "auto",
    memory_limit: int | None = None,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `contraction` times `|d encode(x) / d x|_F^2`.

    The paper's lambda weighs the same penalty against the cross-entropy, summed over pixels, or the squared error. With
    the Bernoulli likelihood `contraction` is that lambda. The Gaussian likelihood is half the squared error, so there
    it is lambda / 2. Losses that average over D pixels want lambda / D where this one wants lambda.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: consumed by `hutchinson`, ignored by the others.
      model: static.
      contraction: weight of the penalty; at zero this is `ae_loss`.
      jacobian: static. `forward`, `reverse` and `auto` give the same number; `hutchinson` estimates it.
      memory_limit: static, bytes that the exact modes may take for the penalty and its gradient.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `jacobian_sq`, likewise means.

    Raises:
      InputError: unknown mode, or a limit that is too small.
    """
    jac.check_mode(jacobian, modes=MODES)
    if jacobian == "hutchinson":
        embed = model.bind({"params": params}).embed
        one = lambda v, *own: embed(v[None], *(a[None] for a in own))[0]
        probe = lambda key, v, *own: jac.hutchinson_sq(lambda v: one(v, *own), v, key).value
        arrays = inputs(model, batch)
        z, norms = embed(*arrays), jax.vmap(probe)(jax.random.split(key, len(batch.x)), *arrays)
    else:
        z, norms = jac.embed_and_sq(model, params, batch, mode=jacobian, memory_limit=memory_limit)
    recon, metrics = reconstruction(params, z, batch, model=model)
    penalty = norms.mean()
    return recon + contraction * penalty, {**metrics, "jacobian_sq": penalty}


def _check(model: CAE, *_: Any, jacobian: str, memory_limit: int | None) -> None:
    jac.check_mode(jacobian, modes=MODES)
    if memory_limit is not None and (jacobian == "hutchinson" or memory_limit <= 0):
        raise InputError(
            f"memory_limit is {memory_limit} with {jacobian!r}; it is a positive number of bytes, for the exact modes."
        )


cae = one_player("cae", cae_loss, CAE, HParams, check=_check)


METHOD = Method(CAE, HParams, cae, title="contractive", paper="Rifai et al. 2011", noise_free=True)
