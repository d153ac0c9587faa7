"""Per-example negative log-likelihoods of what a decoder returns: logits for Bernoulli, the mean for Gaussian.

Shapes follow one rule, here and in `divergences`: the first axis is the batch, everything behind it is one example
and is summed. Results are in nats per example. Weights such as beta are the caller's business.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from aejax.checks import InputError, nearest

Array = jax.Array


def bernoulli_nll(logits: Array, x: Array) -> Array:
    """Negative log-likelihood of x under independent Bernoulli pixels, in nats per example.

    For x strictly between 0 and 1 this is the cross-entropy of the literature, not a likelihood; its floor is the
    entropy of the pixels.

    Args:
      logits: `[B, ...]` float, log-odds; any size, +-1e4 included, stays finite.
      x: `[B, ...]` float in [0, 1], the shape of logits.

    Returns:
      `[B]` non-negative.

    Raises:
      AssertionError: the two shapes differ.

    Example:
      >>> round(float(bernoulli_nll(jnp.zeros((1, 784)), jnp.ones((1, 784)))[0]), 2)  # 784 log 2
      543.43
    """
    chex.assert_equal_shape([logits, x])
    return sum_event(optax.sigmoid_binary_cross_entropy(logits, x))


def gaussian_nll(mean: Array, x: Array, logvar: Array | float = 0.0) -> Array:
    """Negative log-density of x under independent Gaussians, in nats per example, constant and 1/2 kept.

    With the default unit variance this is `sse / 2 + D / 2 log(2 pi)`. May be negative: it is a density.

    Args:
      mean: `[B, ...]` float.
      x: `[B, ...]` float, the shape of mean.
      logvar: log of the variance, `[B, ...]` or a scalar.

    Returns:
      `[B]`.

    Raises:
      AssertionError: mean and x differ in shape.

    Example:
      >>> round(float(gaussian_nll(jnp.zeros((1, 2)), jnp.ones((1, 2)))[0]), 3)  # 1 + log(2 pi)
      2.838
    """
    chex.assert_equal_shape([mean, x])
    logvar = jnp.broadcast_to(jnp.asarray(logvar, mean.dtype), mean.shape)
    return sum_event(0.5 * (jnp.square(x - mean) * jnp.exp(-logvar) + logvar + math.log(2 * math.pi)))


def sse(x_hat: Array, x: Array) -> Array:
    """Squared error summed over the pixels of each example, `[B]`; its mean is the figure of Hinton & Salakhutdinov.

    Example:
      >>> sse(jnp.zeros((1, 3)), jnp.full((1, 3), 2.0)).tolist()
      [12.0]
    """
    chex.assert_equal_shape([x_hat, x])
    return sum_event(jnp.square(x - x_hat))


class Likelihood(NamedTuple):
    """What a decoder's output means."""

    nll: Callable[[Array, Array], Array]  # (output, x) -> [B], nats
    mean: Callable[[Array], Array]  # output -> x_hat, data space
    low: float  # the range of x in which it is defined
    high: float


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_nll, jax.nn.sigmoid, 0.0, 1.0),
    "gaussian": Likelihood(gaussian_nll, lambda mean: mean, -math.inf, math.inf),
}


def get(name: str) -> Likelihood:
    """The likelihood of that name; `InputError` names the known ones."""
    if name not in LIKELIHOODS:
        raise InputError(f"Unknown likelihood {name!r}. {nearest(name, LIKELIHOODS, what='likelihoods')}")
    return LIKELIHOODS[name]


def sum_event(values: Array) -> Array:
    """Sums all but the first axis: `[B, ...] -> [B]`."""
    return values.reshape(values.shape[0], -1).sum(axis=1)
