"""Distances between distributions: a closed-form KL, the adversarial losses, and the maximum mean discrepancy.

The first two give nats per example: the first axis is the batch, everything behind it is one example and is summed.
The MMD compares two samples as wholes and is a scalar.
"""

import math
from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp

from aejax.checks import InputError, nearest
from aejax.precision import sum_event, widen

Array = jax.Array

_MEDIAN_POINTS = 2000  # of each sample, in the median heuristic: two million distances fix a median to a per mille
_TINY = 1e-30
_IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


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
    mean, logvar = widen(mean), widen(logvar)
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
    return sum_event(jax.nn.softplus(-widen(real_logits)) + jax.nn.softplus(widen(fake_logits)))


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
    return sum_event(jax.nn.softplus(-widen(fake_logits)))


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


def imq_gram(x: Array, y: Array, bandwidth: Array | float = 1.0) -> Array:
    """Inverse multiquadratics of every pair, `sum_s C_s / (C_s + |x_i - y_j|^2)` with `C_s = 2 Z s bandwidth^2`.

    Their tails are heavy: points far away still draw, where a Gaussian kernel has no slope.

    Args:
      x: `[N, Z]` float.
      y: `[M, Z]` float.
      bandwidth: the deviation of the prior in one dimension; 2 Z bandwidth^2 is the mean squared distance between two
        of its draws.

    Returns:
      `[N, M]` in [0, 7]: seven scales s from 0.1 to 10.

    Raises:
      AssertionError: the points are not vectors of one size.

    Example:
      >>> imq_gram(jnp.zeros((1, 2)), jnp.zeros((1, 2))).tolist()
      [[7.0]]

    Reference: Tolstikhin, Bousquet, Gelly & Schoelkopf (2018), section 4; the scales are those of their code.
    """
    sq, base = _sq_distances(x, y), 2 * x.shape[1] * jnp.square(bandwidth)
    return sum((base * scale / (base * scale + sq) for scale in _IMQ_SCALES), jnp.zeros_like(sq))


KERNELS = {"rbf": rbf_gram, "imq": imq_gram}


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


@partial(jax.jit, static_argnames=("kernel", "block_size"))
def mmd_sq(
    x: Array, y: Array, *, kernel: str = "rbf", bandwidth: Array | float | None = None, block_size: int = 1000
) -> Array:
    """Unbiased estimate of the squared maximum mean discrepancy between two samples.

    The mean of the kernel over pairs of different x, plus that of y, minus twice that of (x, y). Its mean is zero
    where both samples have one distribution, so about half of such values are negative. Memory grows with
    `block_size * max(N, M)`, in its gradient too, since blocks are computed again on the way back.

    Args:
      x: `[N, Z]` float, N at least 2.
      y: `[M, Z]` float, M at least 2.
      kernel: `rbf`, Gaussian, or `imq`, inverse multiquadratics; static.
      bandwidth: of `rbf_gram`, by default `median_bandwidth(x, y)`; or of `imq_gram`, by default 1, the deviation of a
        standard normal prior.
      block_size: rows at once.

    Returns:
      `()` in [-1, 2], for `imq` in [-7, 14]; differentiable in x and y, at a fixed bandwidth.

    Raises:
      AssertionError: the points are not vectors of one size, or a sample has fewer than two.
      InputError: an unknown kernel.

    Example:
      >>> x, y = jnp.array([[0.0], [0.0]]), jnp.array([[9.0], [9.0]])
      >>> round(float(mmd_sq(x, y, bandwidth=1.0)), 4)  # as far apart as can be
      2.0

    Reference: Gretton et al. (2012), equation 3; for `imq` Tolstikhin et al. (2018), algorithm 2.
    """
    if kernel not in KERNELS:
        raise InputError(f"Unknown kernel {kernel!r}. {nearest(kernel, KERNELS, what='kernels')}")
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape_suffix([x, y], 1)
    chex.assert_axis_dimension_gt(x, 0, 1)
    chex.assert_axis_dimension_gt(y, 0, 1)
    if bandwidth is None:
        bandwidth = median_bandwidth(x, y) if kernel == "rbf" else 1.0
    mean = partial(_mean_kernel, partial(KERNELS[kernel], bandwidth=bandwidth), block_size=block_size)
    return mean(x, x, is_same=True) + mean(y, y, is_same=True) - 2 * mean(x, y, is_same=False)


def _mean_kernel(gram: Callable[[Array, Array], Array], x: Array, y: Array, *, block_size: int, is_same: bool) -> Array:
    """The mean of the kernel over all pairs, less those of a point with itself where both samples are one."""
    n, m = x.shape[0], y.shape[0]
    block_size = min(block_size, n)
    num_blocks = math.ceil(n / block_size)
    rows = jnp.arange(num_blocks * block_size).reshape(num_blocks, block_size, 1)
    columns = jnp.arange(m).reshape(1, m)

    def row_sums(rows: Array) -> Array:
        values = gram(x[jnp.minimum(rows[:, 0], n - 1)], y)
        return jnp.where((rows < n) & ~((rows == columns) & is_same), values, 0.0).sum(axis=1)

    sums = jax.lax.map(jax.checkpoint(row_sums), rows)
    return (sums / (m - is_same)).sum() / n


def _sq_distances(x: Array, y: Array) -> Array:
    """`|x_i - y_j|^2`, `[N, M]`, as a matrix product about the centre of y, where it loses fewest digits."""
    chex.assert_rank([x, y], 2)
    chex.assert_equal_shape_suffix([x, y], 1)
    x, y = widen(x), widen(y)
    centre = jax.lax.stop_gradient(y.mean(axis=0, keepdims=True))
    x, y = x - centre, y - centre
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1)[None, :] - 2 * product, 0.0)


def _thin(x: Array) -> Array:
    return x[:: math.ceil(x.shape[0] / _MEDIAN_POINTS)]
