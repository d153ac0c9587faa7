"""The sparse autoencoder: many units, and each of them seldom on.

The penalty on the mean activation of every unit is that of Lee, Ekanadham & Ng (2008) in the form of Ng's lecture notes
(CS294A, "Sparse autoencoder"; the UFLDL tutorial): the divergence of a coin that falls with the target rate from one
that falls with the mean activation. Beside it the older penalty of sparse coding, the absolute values of the code
(Olshausen & Field, 1996).

The notes have one layer of 25 to 200 sigmoid units, untied weights, half the squared error as a mean over all examples,
the penalty as a sum over units weighted by beta = 3, rates of 0.01 to 0.1, weight decay, and L-BFGS on the whole set.
With `likelihood="gaussian"` the reconstruction here is theirs up to a constant, so `sparsity` is their beta and `rate`
their rho, and `weight_decay` half their lambda; with the Bernoulli likelihood the same penalty stands against the
cross-entropy in nats. Departure: the rates are those of a batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr

from aejax import parallel
from aejax.algorithm import Metrics
from aejax.checks import InputError, nearest
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Probability, one_player
from aejax.methods.ae import AE, reconstruction
from aejax.methods.ae_l2 import squared_weights
from aejax.nets import inputs

__all__ = ["SparseAE", "sparse_ae", "sparse_ae_loss"]


class SparseAE(AE):
    """An autoencoder whose code is an activation of what the encoder returns; `dense` builds it as in the notes.

    Attributes:
      code_activation: of the code, dense or convolutional; the penalty `kl` is on rates and wants the sigmoid.
    """

    code_activation: Callable[[jax.Array], jax.Array] = nn.sigmoid

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """One sigmoid layer with untied weights on vectors `[B, D]`; more layers with `hidden_dims`."""
        published: dict[str, Any] = {"activation": nn.sigmoid, "code_activation": nn.sigmoid} | fields
        code_activation = published.pop("code_activation")
        return (
            super()
            .dense(data_dim, latent_dim, hidden_dims=hidden_dims, **published)
            .clone(code_activation=code_activation)
        )

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The activations: `[B, ...] -> [B, Z]`."""
        return self.code_activation(self.encoder(x, *condition))


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    sparsity: NonNegative = 3.0
    """Weight of the penalty against the reconstruction in nats; the penalty `l1` wants about a hundredth of it."""
    rate: Probability = 0.1
    """The mean activation that the penalty `kl` asks of every unit; `l1` ignores it."""
    weight_decay: NonNegative = 1.5e-3
    """Weight of the squared weights; without it, pixels that hardly vary keep their first weights."""


PENALTIES = ("kl", "l1")


def rate_kl(rates: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Divergence of a coin with the target rate from coins with the given ones, in nats, summed over the units.

    Args:
      rates: `[Z]` in [0, 1]; held `eps` of its dtype away from 0 and 1, where the divergence is infinite. Value and
        gradient are therefore finite, and a unit beyond that bound gets no gradient.
      rate: the target, in [0, 1].

    Returns:
      A non-negative scalar, zero where every unit has the target rate.

    Example:
      >>> round(float(rate_kl(jnp.array([0.1, 0.5]), 0.1)), 4)  # 0.1 log 0.2 + 0.9 log 1.8
      0.3681

    Reference: Ng, CS294A lecture notes: the sum over j of KL(rho || rho_j).
    """
    eps = jnp.finfo(rates.dtype).eps
    rates = jnp.clip(rates, eps, 1 - eps)
    return jnp.sum(rel_entr(rate, rates) + rel_entr(1 - rate, 1 - rates))


@partial(jax.jit, static_argnames=("model", "penalty", "axis_name"))
def sparse_ae_loss(
    params: Any,
    batch: Batch,
    key: jax.Array,
    *,
    model: SparseAE,
    sparsity: float | jax.Array = 3.0,
    rate: float | jax.Array = 0.1,
    weight_decay: float | jax.Array = 1.5e-3,
    penalty: str = "kl",
    axis_name: str | None = None,
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `sparsity` times the penalty on the code.

    With `kl` the examples of a batch are coupled: the rates are means over it, and the loss of a batch is not the mean
    of the losses of its parts but at most that. The key is not used.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      sparsity: weight of the penalty; with this and `weight_decay` at zero this is `ae_loss`.
      rate: the target of `kl`.
      weight_decay: weight of the squared weights, tied ones counted twice.
      penalty: static; `kl` is `rate_kl` of the mean activations, `l1` the sum of `|z|`, mean over the batch.
      axis_name: static; the mapped axis over whose devices the rates are averaged, as in `play`.

    Returns:
      The loss, and `recon_nats`, `sse`, `sparsity` (the penalty, unweighted), `mean_rate` (the mean activation) and
      `weights_sq`.

    Raises:
      InputError: unknown penalty.
    """
    _check_penalty(penalty)
    z = model.bind({"params": params}).encode(*inputs(model, batch))
    recon, metrics = reconstruction(params, z, batch, model=model)
    rates = parallel.gather(z, axis_name).mean(axis=0)
    value = rate_kl(rates, rate) if penalty == "kl" else jnp.abs(z).sum(axis=1).mean()
    weights = squared_weights(params, model=model)
    terms = {"sparsity": value, "mean_rate": rates.mean(), "weights_sq": weights}
    return recon + sparsity * value + weight_decay * weights, metrics | terms


def _check(model: SparseAE, *_: Any, penalty: str) -> None:
    _check_penalty(penalty)
    if penalty == "kl" and model.code_activation is not nn.sigmoid:
        raise InputError(
            "The penalty 'kl' compares rates, which are between 0 and 1: it wants code_activation=nn.sigmoid."
            " For other codes there is 'l1'."
        )


sparse_ae = one_player("sparse_ae", sparse_ae_loss, SparseAE, HParams, coupled=True, check=_check)


def _check_penalty(penalty: str) -> None:
    if penalty not in PENALTIES:
        raise InputError(f"Unknown penalty {penalty!r}. {nearest(penalty, PENALTIES, what='penalties')}")


METHOD = Method(
    SparseAE,
    HParams,
    sparse_ae,
    title="sparse, by rates (KL) or absolute values (L1)",
    paper="Lee et al. 2008; Olshausen & Field 1996",
    noise_free=True,
)
