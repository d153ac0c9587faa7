"""What an embedding keeps of the neighbourhoods of the data, and of their labels."""

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError


def trustworthiness(x: ArrayLike, z: ArrayLike, *, k: int) -> float:
    """Whether neighbours in the embedding are neighbours in the data.

    With r(i, j) the rank of j among the neighbours of i in the data, counted from 1, and U(i) those of the k nearest
    codes of i that are not among the k nearest examples,

      T = 1 - 2 / (N k (2 N - 3 k - 1)) * sum_i sum_{j in U(i)} (r(i, j) - k).

    It holds N x N distances and ranks.

    Args:
      x: `[N, ...]` data; distances are Euclidean.
      z: `[N, Z]` codes.
      k: how many neighbours; below N / 2.

    Returns:
      At most 1, which it is for codes with the neighbours of the data; about 1/2 for codes at random.

    Raises:
      InputError: shapes disagree, a number is not finite, or k is not between 1 and N / 2.

    Example:
      >>> x = np.array([[0.0], [1.0], [3.0], [7.0]])
      >>> trustworthiness(x, 5 - 2 * x, k=1)
      1.0

    Reference: Venna & Kaski (2001); computed by scikit-learn.
    """
    extras.need("trustworthiness", "sklearn", extra="sklearn")
    from sklearn import manifold

    return float(manifold.trustworthiness(*_check(x, z, k), n_neighbors=k))


def continuity(x: ArrayLike, z: ArrayLike, *, k: int) -> float:
    """Whether neighbours in the data are neighbours in the embedding: `trustworthiness`, the two spaces exchanged.

    Args, returns, errors and costs are those of `trustworthiness`.

    Example:
      >>> x = np.array([[0.0], [1.0], [3.0], [7.0]])
      >>> continuity(x, [[0.0], [9.0], [3.0], [7.0]], k=1)  # the ranks of the nearest are now 3, 3, 3, 2
      0.125

    Reference: Venna & Kaski (2001, 2006).
    """
    extras.need("continuity", "sklearn", extra="sklearn")
    from sklearn import manifold

    x, z = _check(x, z, k)
    return float(manifold.trustworthiness(z, x, n_neighbors=k))


def neighborhood_hit(z: ArrayLike, y: ArrayLike, *, k: int) -> float:
    """The share of the k nearest codes that have the same label, mean over codes; nobody is a neighbour of itself.

    Args:
      z: `[N, Z]` codes; distances are Euclidean.
      y: `[N]` labels.
      k: how many neighbours; below N.

    Returns:
      Between 0 and 1; of codes that say nothing of the labels, the sum of the squared shares of the classes.

    Raises:
      InputError: shapes disagree, a code is not finite, or k is not between 1 and N - 1.

    Example:
      >>> neighborhood_hit([[0.0], [1.0], [3.0], [7.0]], [0, 0, 1, 1], k=1)  # hits: 0, 1, and 3 of 7, but not 1 of 3
      0.75

    Reference: Paulovich et al. (2008).
    """
    extras.need("neighborhood_hit", "sklearn", extra="sklearn")
    from sklearn.neighbors import NearestNeighbors

    z, y = _codes(z), np.asarray(y)
    if y.shape != z.shape[:1]:
        raise InputError(f"Codes {z.shape} and labels {y.shape}; wanted are [N, Z] and [N].")
    if not 1 <= k < len(z):
        raise InputError(f"k={k} neighbours of each of {len(z)} codes; it has to be between 1 and N - 1.")
    neighbours = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
    return float((y[neighbours] == y[:, None]).mean())


def _check(x: ArrayLike, z: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
    x, z = np.asarray(x), _codes(z)
    if x.ndim < 2 or len(x) != len(z):
        raise InputError(f"Data of shape {x.shape} and codes of shape {z.shape}; wanted are [N, ...] and [N, Z].")
    if not np.isfinite(x).all():
        raise InputError("The data hold NaN or infinity.")
    if not 1 <= k < len(x) / 2:
        raise InputError(f"k={k} neighbours of each of {len(x)} examples; it has to be at least 1 and below N / 2.")
    return x.reshape(len(x), -1), z


def _codes(z: ArrayLike) -> np.ndarray:
    z = np.asarray(z)
    if z.ndim != 2 or not z.size:
        raise InputError(f"Codes of shape {z.shape}; wanted is [N, Z], not empty.")
    if not np.isfinite(z).all():
        raise InputError(f"{int((~np.isfinite(z).all(axis=1)).sum())} of {len(z)} codes are not finite.")
    return z
