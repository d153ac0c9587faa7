"""The autoencoder with the squared weights of encoder and decoder in its loss.

Kunin, Bloom, Goeva & Seed, "Loss landscapes of regularized linear autoencoders" (ICML 2019). The minimum of the plain
linear autoencoder is a subspace, in any basis; with the squared weights it is the principal directions themselves, and
the singular values of the decoder tell the variance along each.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.algorithm import Metrics
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, one_player
from aejax.methods.ae import AE, ae_loss
from aejax.nets import TiedMLP

__all__ = ["ae_l2", "ae_l2_loss", "principal_directions"]


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it."""

    lr: Positive = 1e-3
    """Learning rate."""
    weight_decay: NonNegative = 1e-3
    """Weight of the squared weights against the reconstruction in nats."""


@partial(jax.jit, static_argnames=("model",))
def ae_l2_loss(
    params: Any, batch: Batch, key: jax.Array, *, model: AE, weight_decay: float | jax.Array = 1e-3
) -> tuple[jax.Array, Metrics]:
    """Negative log-likelihood of the reconstruction, plus `weight_decay` times the sum of all squared weights.

    Weights are the kernels of encoder and decoder; biases are free. Those of a tied decoder are the encoder's, and
    count twice.

    With the Gaussian likelihood, no hidden layers and biases, let `u_i` be the eigenvectors and `v_i` the eigenvalues,
    descending, of the covariance of the data. The minima have the decoder `sum_i s_i u_i w_i^T` and its transpose as
    the encoder, with `w_i` any orthonormal basis of the code. Along `u_i` the loss is
    `v_i (1 - s_i^2)^2 / 2 + 2 weight_decay s_i^2`, which is least at

        1 - s_i^2 = 2 weight_decay / v_i,

    or at `s_i = 0` where that is negative. The paper has the whole squared error against its lambda, and so
    `1 - s_i^2 = lambda / v_i`: its lambda is `2 weight_decay`. It centres the data where we have biases.

    Args:
      params: `{"encoder": ..., "decoder": ...}`.
      batch: `x` `[B, ...]`.
      key: ignored.
      model: static.
      weight_decay: weight of the squared weights; at zero this is `ae_loss`.

    Returns:
      The mean over the batch, and `recon_nats`, `sse` and `weights_sq`, the sum of the squared weights.
    """
    recon, metrics = ae_loss(params, batch, key, model=model)
    weights = squared_weights(params, model=model)
    return recon + weight_decay * weights, {**metrics, "weights_sq": weights}


ae_l2 = one_player("ae_l2", ae_l2_loss, AE, HParams)


def principal_directions(params: Any, *, weight_decay: float) -> tuple[np.ndarray, np.ndarray]:
    """The principal directions of the data, and the variance along each, read off a trained linear autoencoder.

    Args:
      params: of `AE.dense` without hidden layers, tied or not, trained with `ae_l2` and the Gaussian likelihood.
      weight_decay: that it was trained with.

    Returns:
      `[D, k]` unit columns, by descending variance, each with any sign; and `[k]` variances,
      `2 weight_decay / (1 - s^2)` of the singular values s of the decoder. A direction whose variance is not above
      `2 weight_decay` is lost: its s is about zero, its variance reads as about that bound, and it points anywhere. An
      s of one or more, which no minimum has, reads as an infinite variance.

    Raises:
      InputError: the network has hidden layers, or was trained without weight decay, where nothing can be read.

    Reference: Kunin et al. (2019), whose own implementation has `sqrt(lambda / (1 - s^2))`, a singular value of the
    data.
    """
    if not weight_decay > 0:
        raise InputError(f"weight_decay is {weight_decay}; the directions can be read only where it was positive.")
    kernels = [leaf for group in ("decoder", "encoder") for leaf in kernels_of(params.get(group, {}))]
    is_tied = not kernels_of(params.get("decoder", {}))
    if len(kernels) != 2 - is_tied or kernels[0].ndim != 2:
        raise InputError(f"The network has {len(kernels)} kernels; wanted is one dense layer each way.")
    decoder = np.asarray(kernels[0], np.float64)
    u, s, _ = np.linalg.svd(decoder if is_tied else decoder.T, full_matrices=False)
    rest = 1 - np.square(s)
    return u, np.where(rest > 0, 2 * weight_decay / np.where(rest > 0, rest, 1.0), np.inf)


def kernels_of(group: Any) -> list[jax.Array]:
    """The weights of a group, `[in, out]` where they are matrices: `kernel` of Flax, `weight` of Equinox.

    Equinox has them `[out, in]`, and its parameters are those that came by the door, under `net`.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(group):
        *names, last = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if last == "kernel" or (last == "weight" and leaf.ndim > 1):
            found.append(leaf.swapaxes(0, 1) if last == "weight" and "net" in names else leaf)
    return found


def squared_weights(params: Any, *, model: AE) -> jax.Array:
    """The sum of the squares of all kernels of encoder and decoder, tied ones counted twice; biases are left out."""
    kernels = kernels_of(params["encoder"]) + kernels_of(params.get("decoder", {}))
    total = sum((jnp.square(kernel).sum() for kernel in kernels), jnp.zeros(()))
    return 2 * total if isinstance(model.decoder, TiedMLP) else total


METHOD = Method(
    AE,
    HParams,
    ae_l2,
    title="linear with squared weights in the loss: the principal directions",
    paper="Kunin et al. 2019",
    noise_free=True,
)
