"""Codes as a sample: which of their units carry anything, and whether they are distributed as the prior."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import divergences
from aejax.checks import InputError

_BLOCK = 1000  # rows of the kernel matrix that exist at a time


class MMDTest(NamedTuple):
    """A two-sample test."""

    mmd_sq: float  # unbiased estimate of the squared maximum mean discrepancy; may be negative
    p_value: float  # share of the relabelled samples with at least this discrepancy, itself included
    bandwidth: float  # of the kernel


def active_units(mean_codes: ArrayLike, threshold: float = 0.01) -> int:
    """How many units of a code depend on the data: those whose posterior mean has more variance than `threshold`.

    Args:
      mean_codes: `[N, Z]` posterior means, `embed` of a VAE.
      threshold: on the variance over the data.

    Returns:
      Between 0 and Z.

    Example:
      >>> active_units([[0.0, 5.0, 1.0], [0.1, 5.0, 3.0]])  # variances 0.0025, 0, 1
      1

    Reference: Burda, Grosse & Salakhutdinov (2016), section 5.2: A_u = Cov_x(E_q[u|x]) > 0.01.
    """
    return int((np.var(_check_codes(mean_codes), axis=0, dtype=np.float64) > threshold).sum())


def perplexity(tokens: ArrayLike) -> float:
    """How many entries of a codebook discrete codes use, were they used evenly: `exp` of the entropy of their shares.

    Args:
      tokens: integers from 0 on, of any shape.

    Returns:
      From 1, where all are the same, to the number of entries.

    Raises:
      InputError: there are no tokens, or such as are no integers from 0 on.

    Example:
      >>> round(perplexity([[0, 5], [5, 0]]), 6)
      2.0
    """
    tokens = np.asarray(tokens)
    if tokens.dtype.kind not in "iu" or not tokens.size or tokens.min() < 0:
        raise InputError(f"Tokens of shape {tokens.shape} and dtype {tokens.dtype}; wanted are integers from 0 on.")
    shares = np.bincount(tokens.ravel()) / tokens.size
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum()))


def moment_gaps(codes: ArrayLike, mean: ArrayLike = 0.0, variance: ArrayLike = 1.0) -> tuple[float, float]:
    """How far the moments of codes are from those of their prior, in the worst dimension.

    Args:
      codes: `[N, Z]`.
      mean: of the prior, a scalar or `[Z]`.
      variance: of the prior, likewise.

    Returns:
      The largest absolute gap of a mean, and the largest relative gap of a variance.

    Example:
      >>> moment_gaps([[1.0, 0.0], [-1.0, 3.0]])  # means 0 and 1.5, variances 1 and 2.25
      (1.5, 1.25)
    """
    codes = _check_codes(codes).astype(np.float64)
    variances = codes.var(axis=0) / np.asarray(variance)
    return float(np.abs(codes.mean(axis=0) - mean).max()), float(np.abs(variances - 1).max())


def code_mmd(codes: ArrayLike, prior_samples: ArrayLike, key: jax.Array, *, num_permutations: int = 500) -> MMDTest:
    """Whether codes are distributed as their prior: unbiased squared MMD with a permutation test.

    The kernel is `divergences.rbf_gram` with the median heuristic. All relabellings are tested in one pass over the
    kernel matrix, a block of rows at a time: their sums are quadratic forms `s' K s` of membership vectors, hence one
    matrix product. 10,000 codes against 10,000 samples take some 10 s on 2 CPU cores.

    Args:
      codes: `[N, Z]`, N at least 2.
      prior_samples: `[M, Z]`, M at least 2.
      key: consumed.
      num_permutations: the p-value is a multiple of 1 / (1 + this).

    Returns:
      `MMDTest(mmd_sq, p_value, bandwidth)`. Under the null hypothesis the p-value is uniform, on its grid.

    Raises:
      InputError: shapes disagree, or a code is not finite.

    Reference: Gretton et al., A Kernel Two-Sample Test (2012), equation 3; Phipson & Smyth (2010) for the p-value.
    """
    codes, prior_samples = _check_codes(codes), _check_codes(prior_samples)
    if codes.shape[1] != prior_samples.shape[1] or min(len(codes), len(prior_samples)) < 2:
        raise InputError(f"Codes {codes.shape} and prior samples {prior_samples.shape}; at least 2 of one dimension.")
    few, many = sorted((codes.astype(np.float32), prior_samples.astype(np.float32)), key=len)
    bandwidth = divergences.median_bandwidth(jnp.asarray(few), jnp.asarray(many))
    pooled, n = np.concatenate([few, many]), len(few)
    labels = np.concatenate([np.arange(len(pooled))[:, None] < n, _relabel(n, len(pooled), num_permutations, key)], 1)
    values = _unbiased_mmd_sq(pooled, labels, bandwidth)
    p_value = (1 + np.sum(values[1:] >= values[0])) / (1 + num_permutations)
    return MMDTest(float(values[0]), float(p_value), float(bandwidth))


def _relabel(n: int, size: int, num_permutations: int, key: jax.Array) -> np.ndarray:
    """`[size, num_permutations]` bool: each column a random choice of n points."""
    order = np.argpartition(np.asarray(jax.random.bits(key, (num_permutations, size))), n, axis=1)
    members = np.zeros((size, num_permutations), bool)
    members[order[:, :n].T, np.arange(num_permutations)] = True
    return members


def _unbiased_mmd_sq(pooled: np.ndarray, members: np.ndarray, bandwidth: jax.Array) -> np.ndarray:
    """The statistic of every column of `members`, which marks the smaller sample: `[size, P] -> [P]` float64."""
    size, n = len(pooled), int(members[:, 0].sum())
    m = size - n
    signs = members.astype(np.float32)
    blocks = [_block_sums(pooled, signs, np.arange(i, i + _BLOCK), bandwidth) for i in range(0, size, _BLOCK)]
    within, rows, total = (np.array(part, np.float64).sum(axis=0) for part in zip(*blocks, strict=True))
    across = rows - within  # s'K1 = s'Ks + s'K(1 - s)
    others = total - within - 2 * across
    return within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)


@jax.jit
def _block_sums(
    pooled: jax.Array, signs: jax.Array, block: jax.Array, bandwidth: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The rows `block` of K, its diagonal left out: their part of s'Ks and s'K1 (each `[P]`), and of 1'K1."""
    inside = (block < len(pooled))[:, None]
    rows = jnp.minimum(block, len(pooled) - 1)
    gram = divergences.rbf_gram(pooled[rows], pooled, bandwidth)
    # A constant drops out of the statistic; without the kernel's value at the median, float32 keeps two more digits.
    gram = jnp.where(inside & (block[:, None] != jnp.arange(len(pooled))[None]), gram - math.exp(-0.5), 0.0)
    sums = gram.sum(axis=1)
    product = jnp.matmul(gram, signs, precision="highest")
    return (signs[rows] * product).sum(axis=0), sums @ signs[rows], sums.sum()


def _check_codes(codes: ArrayLike) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size:
        raise InputError(f"Codes of shape {codes.shape}; wanted is [N, Z], not empty.")
    if not np.isfinite(codes).all():
        raise InputError(f"{int((~np.isfinite(codes).all(axis=1)).sum())} of {len(codes)} codes are not finite.")
    return codes
