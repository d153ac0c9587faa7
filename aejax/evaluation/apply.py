"""A model applied to a whole data set, batch by batch, with results on the host.

One function is compiled per shape and called in a Python loop: a compiled loop would take the `lax` convolutions of a
module that a user brings off their fast path on CPU. The last batch is padded and the padding dropped.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from aejax import likelihoods
from aejax.checks import InputError
from aejax.nets import Autoencoder

BATCH_SIZE = 256


def embed(model: Autoencoder, params: Any, x: ArrayLike, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """The codes of all examples, without noise.

    Args:
      model: any `Autoencoder`.
      params: by group.
      x: `[N, ...]` what the model takes.
      batch_size: examples at once; bounds the memory, does not change the result.

    Returns:
      `[N, Z]` float.
    """
    return over_batches(partial(_apply, params, model=model, method="embed"), x, batch_size=batch_size)


def reconstruct(model: Autoencoder, params: Any, x: ArrayLike, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """x_hat of all examples in data space, `[N, ...] -> [N, ...]`; arguments as in `embed`."""
    return over_batches(partial(_apply, params, model=model, method="reconstruct"), x, batch_size=batch_size)


def reconstruction_sse(model: Autoencoder, params: Any, x: ArrayLike, *, batch_size: int = BATCH_SIZE) -> float:
    """Squared error of the reconstruction: sum over pixels, mean over images. The metric `test_sse`.

    Args:
      model, params, x, batch_size: as in `embed`; x in the units of the data, so pixels in [0, 1] for the published
        figures of MNIST.

    Returns:
      The mean, accumulated in float64.

    Reference: Hinton & Salakhutdinov (2006), figure 2, where PCA with 30 components has 13.87 on MNIST.
    """
    return float(over_batches(partial(_sse, params, model=model), x, batch_size=batch_size).mean(dtype=np.float64))


def over_batches(
    function: Callable[[np.ndarray], jax.Array], x: ArrayLike, *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """`function(x)` for a function of batches `[B, ...] -> [B, ...]` that treats examples one by one.

    Args:
      function: jitted; it sees one shape only.
      x: `[N, ...]`.
      batch_size: the B that it sees, or N where that is smaller.

    Returns:
      `[N, ...]` on the host.

    Raises:
      InputError: there are no examples.
    """
    x = np.asarray(x)
    if not x.ndim or not len(x):
        raise InputError(f"Data of shape {x.shape} hold no examples.")
    size = min(batch_size, len(x))
    parts = [function(pad(x[start : start + size], size)) for start in range(0, len(x), size)]
    return np.concatenate([np.asarray(part) for part in parts])[: len(x)]


def pad(x: np.ndarray, size: int) -> np.ndarray:
    """x with its last example repeated until there are `size`."""
    return x if len(x) == size else np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


@partial(jax.jit, static_argnames=("model", "method"))
def _apply(params: Any, x: jax.Array, *, model: Autoencoder, method: str) -> jax.Array:
    return getattr(model.bind({"params": params}), method)(x)


@partial(jax.jit, static_argnames="model")
def _sse(params: Any, x: jax.Array, *, model: Autoencoder) -> jax.Array:
    return likelihoods.sse(_apply(params, x, model=model, method="reconstruct"), x)
