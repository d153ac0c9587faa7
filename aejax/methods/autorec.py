"""AutoRec: an autoencoder of ratings, of which it is told some and asked for the others.

Sedhain, Menon, Sanner & Xie, "AutoRec: autoencoders meet collaborative filtering", WWW 2015. An example is one item
with the ratings of all users (I-AutoRec), or one user with those of all items (U-AutoRec): the same method on the
transposed table. A rating that is not there is NaN.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from aejax import likelihoods
from aejax.algorithm import Metrics
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, one_player
from aejax.likelihoods import Likelihood
from aejax.methods.ae import AE
from aejax.methods.ae_l2 import squared_weights
from aejax.precision import sum_event

__all__ = ["AutoRec", "autorec", "autorec_loss"]


class AutoRec(AE):
    """An autoencoder that is told what was observed, and answers for everything; `dense` builds it as published.

    Where x is NaN the encoder sees 0, as in the paper, so that ratings are best given with their mean subtracted.
    `reconstruct` has a rating for every component, observed or not.

    Example:
      >>> import numpy as np
      >>> ratings = np.array([[4.0, np.nan, 1.0], [np.nan, np.nan, 5.0]], np.float32)
      >>> model = AutoRec.dense(3, 2)
      >>> params = model.init(jax.random.key(0), ratings)["params"]
      >>> bool(jnp.isfinite(model.apply({"params": params}, ratings, method="reconstruct")).all())
      True
    """

    likelihood: str | Likelihood = "gaussian_observed"

    takes_missing: ClassVar[bool] = True

    @classmethod
    def dense(cls, data_dim: int, latent_dim: int, *, hidden_dims: tuple[int, ...] = (), **fields: Any) -> Self:
        """One layer of sigmoid units between two of weights, on vectors `[B, D]`; more with `hidden_dims`."""
        fields = {"code_activation": nn.sigmoid} | fields
        return super().dense(data_dim, latent_dim, hidden_dims=hidden_dims, **fields)

    def encode(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        """The code of what was observed: `[B, ...] -> [B, Z]`."""
        return self.encoder(jnp.where(jnp.isnan(x), 0.0, x), *condition)


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    weight_decay: NonNegative = 1e-2
    """Weight of the squared weights against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model",))
def autorec_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: AE, weight_decay: float | jax.Array = 1e-2
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of what was observed, plus `weight_decay` times the sum of all squared weights.

    Weights are the kernels of encoder and decoder; biases are free. With unit variance the first part is half the
    squared error of the observed ratings, summed, and a constant for each of them. The paper has, over all N examples,
    the whole squared error and `lambda / 2` times the squared weights, so its lambda is `4 N weight_decay`; its code,
    with half the error, has `2 N weight_decay`.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`, NaN where it was not observed.
      key: ignored.
      model: static.
      weight_decay: weight of the squared weights.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` (of what was observed), `observed` (how many components were),
      likewise means, and `weights_sq`. The root of `sse / observed` is the RMSE of the ratings that were told.

    Reference: equations 1 and 3; the published code, `mesuvash/NNRec`, for the half.
    """
    x, bound = batch.x, model.bind({"params": params})
    nll, x_hat = bound.nll_and_mean(bound.encode(x), x)
    is_missing = jnp.isnan(x)
    sse = likelihoods.sse(x_hat, jnp.where(is_missing, x_hat, x)).mean()
    recon, weights = nll.mean(), squared_weights(params, model=model)
    observed = sum_event((~is_missing).astype(x.dtype)).mean()
    terms = {"recon_nats": recon, "sse": sse, "observed": observed, "weights_sq": weights}
    return recon + weight_decay * weights, terms


autorec = one_player(
    "autorec",
    autorec_loss,
    AutoRec,
    HParams,
    notes=(
        "The paper trains with resilient propagation or L-BFGS, with 500 units; here it is Adam, unless `tx` says"
        " otherwise. For whoever has no rating in training it answers 3, and this what the biases say."
    ),
)

METHOD = Method(
    AutoRec,
    HParams,
    autorec,
    title="of ratings, some of which are missing (AutoRec)",
    paper="Sedhain et al. 2015",
    noise_free=True,
    terms={"observed": Term("components per example", "AutoRec: how many were observed, and so are in `sse`")},
)
