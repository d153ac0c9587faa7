"""Sparseness: of codes over examples and over units, and of filters over pixels."""

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError


def lifetime_sparsity(codes: ArrayLike) -> float:
    """How few examples a unit answers, mean over the units: 0 for a constant, 1 for a single example.

    For the responses r of one unit to N examples it is `(1 - (E |r|)^2 / E r^2) / (1 - 1/N)`. Units that never respond
    are left out; `dead_units` counts them.

    Args:
      codes: `[N, Z]`; signs do not matter.

    Returns:
      In [0, 1]; NaN where no unit ever responds.

    Raises:
      InputError: the codes are not `[N, Z]` of at least two examples, or not finite.

    Example:
      >>> lifetime_sparsity([[1.0, 3.0], [1.0, 0.0]])  # 0 and 1
      0.5

    Reference: Rolls & Tovee (1995), Treves & Rolls (1991), in the form of Vinje & Gallant (2000).
    """
    return _selectivity(_check(codes, what="codes"))


def population_sparsity(codes: ArrayLike) -> float:
    """How few units answer an example, mean over the examples: `lifetime_sparsity` of the transposed codes.

    Example:
      >>> round(population_sparsity([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]), 4)  # 1 and 2/3
      0.8333
    """
    return _selectivity(_check(np.asarray(codes).T, what="transposed codes"))


def dead_units(codes: ArrayLike, threshold: float = 0.0) -> float:
    """The share of units whose codes are never larger than `threshold`, in absolute value.

    Args:
      codes: `[N, Z]`.
      threshold: 0 for codes with exact zeros; sigmoid units are never quite off.

    Returns:
      In [0, 1].

    Example:
      >>> dead_units([[0.0, 0.3, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]])
      0.5
    """
    return float(np.mean(np.abs(_check(codes, what="codes")).max(axis=0) <= threshold))


def filter_sharpness(kernel: ArrayLike) -> float:
    """How few pixels a filter looks at, mean over the units: 0 for an even filter, 1 for one pixel.

    For the weights w of one unit on D pixels it is `(sqrt(D) - |w|_1 / |w|_2) / (sqrt(D) - 1)`; Gaussian noise has
    `(sqrt(D) - sqrt(2 D / pi)) / (sqrt(D) - 1)`, about 0.21 on 784 pixels. Units without weights are left out.

    Args:
      kernel: `[D, Z]`, D at least 2.

    Returns:
      In [0, 1]; NaN where all weights are zero.

    Raises:
      InputError: the kernel is no such matrix, or not finite.

    Example:
      >>> round(filter_sharpness([[1.0, 0.0], [1.0, 5.0]]), 4)  # 0 and 1
      0.5

    Reference: Hoyer (2004), section 3.1.
    """
    kernel = _check(kernel, what="a kernel")
    kernel = kernel[:, kernel.any(axis=0)]
    root = np.sqrt(len(kernel))
    ratio = np.abs(kernel).sum(axis=0) / np.linalg.norm(kernel, axis=0)
    return _mean((root - ratio) / (root - 1))


def _selectivity(codes: np.ndarray) -> float:
    """The measure of Vinje & Gallant along the first axis, mean over those of the second that are not zero."""
    codes = np.abs(codes[:, codes.any(axis=0)])
    ratio = np.square(codes.mean(axis=0)) / np.square(codes).mean(axis=0)
    return _mean((1 - ratio) / (1 - 1 / len(codes)))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _check(values: ArrayLike, *, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise InputError(f"Of shape {values.shape}: {what} are a matrix of at least two rows.")
    if not np.isfinite(values).all():
        raise InputError(f"Of {values.size} entries of {what}, {(~np.isfinite(values)).sum()} are not finite.")
    return values
