"""Distances between distributions: a closed-form KL, the adversarial losses, and the maximum mean discrepancy.

The first two give nats per example: the first axis is the batch, everything behind it is one example and is summed.
The MMD compares two samples as wholes and is a scalar.
"""

import math
from functools import partial

import chex
import jax
import jax.numpy as jnp

from aejax.likelihoods import sum_event

Array = jax.Array

_MEDIAN_POINTS = 2000  # of each sample, in the median heuristic: two million distances fix a median to a per mille
_TINY = 1e-30


def gaussian_kl(mean: Array, logvar: Array) -> Array:
    """KL from a diagonal Gaussian posterior to the standard normal, in nats per example.

    Weighting (beta, capacity, free bits) is the caller's business.

    Args:
      mean: `[B, Z]` float, posterior means.
      logvar: `[B, Z]` float, log of the posterior variances; +-80 stays finite.

    Returns:
      `[B]` non-negative, zero exactly where mean and logvar are zero.

    Raises:
      AssertionError: the two shapes differ.

    Example:
      >>> gaussian_kl(jnp.ones((1, 3)), jnp.zeros((1, 3))).tolist()
      [1.5]

    Reference: Kingma & Welling (2014), appendix B. Their sigma^2 is exp(logvar).
    """
    chex.assert_equal_shape([mean, logvar])
    # expm1: exp(logvar) - 1 - logvar loses every digit where the posterior is close to the prior.
    return sum_event(0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar))


def discriminator_loss(real_logits: Array, fake_logits: Array) -> Array:
    """The two cross-entropies of a discriminator, summed, in nats per pair of examples.

    A discriminator that cannot tell (all logits 0) sits at 2 log 2 = 1.386; one that is best possible sits
    2 JS(real, fake) below that.

    Args:
      real_logits: `[B, ...]` float, log-odds of being real, of samples that are; any size.
      fake_logits: `[B, ...]` float, the same of samples that are not.

    Returns:
      `[B]` non-negative.

    Raises:
      AssertionError: the two shapes differ.

    Example:
      >>> round(float(discriminator_loss(jnp.zeros((1, 1)), jnp.zeros((1, 1)))[0]), 4)
      1.3863

    Reference: Goodfellow et al. (2014), equation 1, negated.
    """
    chex.assert_equal_shape([real_logits, fake_logits])
    return sum_event(jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits))


def generator_loss(fake_logits: Array) -> Array:
    """The non-saturating loss of a generator: the surprise of a discriminator told that its samples are real, in nats.

    Its gradient does not vanish where the discriminator wins, as that of `log(1 - D)` does.

    Args:
      fake_logits: `[B, ...]` float, log-odds of being real; any size.

    Returns:
      `[B]` non-negative; log 2 where the discriminator cannot tell.

    Example:
      >>> round(float(generator_loss(jnp.zeros((1, 1)))[0]), 4)
      0.6931

    Reference: Goodfellow et al. (2014), section 3.
    """
    return sum_event(jax.nn.softplus(-fake_logits))


def rbf_gram(x: Array, y: Array, bandwidth: Array | float) -> Array:
    """The Gaussian kernel of every pair, `exp(-|x_i - y_j|^2 / (2 bandwidth^2))`.

    Args:
      x: `[N, Z]` float.
      y: `[M, Z]` float.
      bandwidth: positive scalar, in the unit of the points.

    Returns:
      `[N, M]` in [0, 1].

    Raises:
      AssertionError: the points are not vectors of one size.

    Example:
      >>> round(float(rbf_gram(jnp.zeros((1, 2)), jnp.ones((1, 2)), 1.0)[0, 0]), 4)  # exp(-1)
      0.3679
    """
    return jnp.exp(-_sq_distances(x, y) / (2 * jnp.square(bandwidth)))


@jax.jit
def median_bandwidth(x: Array, y: Array) -> Array:
    """The median heuristic: the median distance between two different points of the pooled sample.

    Exactly: of each sample at most 2,000 rows are taken, evenly spaced from the first; they are pooled; the bandwidth
    is the median of the Euclidean distances over all pairs `i < j` (of the two middle ones, their mean). It is cut
    off from the gradient, and never zero.

    Args:
      x: `[N, Z]` float.
      y: `[M, Z]` float.

    Returns:
      `()` positive, for `rbf_gram`, whose exponent is `|x - y|^2 / (2 bandwidth^2)`.

    Example:
      >>> float(median_bandwidth(jnp.zeros((1, 1)), jnp.array([[3.0], [4.0]])))  # of 3, 4 and 1
      3.0

    Reference: Gretton et al. (2012), section 8.
    """
    points = jax.lax.stop_gradient(jnp.concatenate([_thin(x), _thin(y)]))
    rows, columns = jnp.triu_indices(points.shape[0], k=1)
    return jnp.sqrt(jnp.maximum(jnp.median(_sq_distances(points, points)[rows, columns]), _TINY))


@partial(jax.jit, static_argnames="block_size")
def mmd_sq(x: Array, y: Array, *, bandwidth: Array | float | None = None, block_size: int = 1000) -> Array:
    """Unbiased estimate of the squared maximum mean discrepancy between two samples, Gaussian kernel.

    The mean of the kernel over pairs of different x, plus that of y, minus twice that of (x, y). Its mean is zero
    where both samples have one distribution, so about half of such values are negative. Memory grows with
    `block_size * max(N, M)`, in its gradient too, since blocks are computed again on the way back.

    Args:
      x: `[N, Z]` float, N at least 2.
      y: `[M, Z]` float, M at least 2.
      bandwidth: of `rbf_gram`; `median_bandwidth(x, y)` by default.
      block_size: rows at once.

    Returns:
      `()` in [-1, 2]; differentiable in x and y, at a fixed bandwidth.

    Raises:
      AssertionError: the points are not vectors of one size, or a sample has fewer than two.

    Example:
      >>> x, y = jnp.array([[0.0], [0.0]]), jnp.array([[9.0], [9.0]])
      >>> round(float(mmd_sq(x, y, bandwidth=1.0)), 4)  # as far apart as can be
      2.0

    Reference: Gretton et al. (2012), equation 3.
    """
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape_suffix([x, y], 1)
    chex.assert_axis_dimension_gt(x, 0, 1)
    chex.assert_axis_dimension_gt(y, 0, 1)
    if bandwidth is None:
        bandwidth = median_bandwidth(x, y)
    within_x = _mean_kernel(x, x, bandwidth, block_size, is_same=True)
    within_y = _mean_kernel(y, y, bandwidth, block_size, is_same=True)
    return within_x + within_y - 2 * _mean_kernel(x, y, bandwidth, block_size, is_same=False)


def _mean_kernel(x: Array, y: Array, bandwidth: Array | float, block_size: int, *, is_same: bool) -> Array:
    """The mean of the kernel over all pairs, less those of a point with itself where both samples are one."""
    n, m = x.shape[0], y.shape[0]
    block_size = min(block_size, n)
    num_blocks = math.ceil(n / block_size)
    rows = jnp.arange(num_blocks * block_size).reshape(num_blocks, block_size, 1)
    columns = jnp.arange(m).reshape(1, m)

    def row_sums(rows: Array) -> Array:
        gram = rbf_gram(x[jnp.minimum(rows[:, 0], n - 1)], y, bandwidth)
        return jnp.where((rows < n) & ~((rows == columns) & is_same), gram, 0.0).sum(axis=1)

    sums = jax.lax.map(jax.checkpoint(row_sums), rows)
    return (sums / (m - is_same)).sum() / n


def _sq_distances(x: Array, y: Array) -> Array:
    """`|x_i - y_j|^2`, `[N, M]`, as a matrix product about the centre of y, where it loses fewest digits."""
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape_suffix([x, y], 1)
    centre = jax.lax.stop_gradient(y.mean(axis=0, keepdims=True))
    x, y = x - centre, y - centre
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1)[None, :] - 2 * product, 0.0)


def _thin(x: Array) -> Array:
    return x[:: math.ceil(x.shape[0] / _MEDIAN_POINTS)]
