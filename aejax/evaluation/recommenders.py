"""Recommenders without a network, to be held against: popularity, biases, item-kNN, EASE. All in float64, in NumPy.

Ratings come as three arrays of one length, user, item and rating, all 0-based; sets of items as a matrix `[N, I]` of 0
and 1 (or counts), users by items. What is returned for sets is a matrix B `[I, I]`: the scores of users are `x @ B`.
"""

import numpy as np

from aejax.checks import InputError, check_count, check_positive


def biases(
    user: np.ndarray, item: np.ndarray, rating: np.ndarray, shape: tuple[int, int], *, ridge: float = 5.0
) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean of all ratings, and what each user and each item adds to it.

    They minimise `sum (rating - mean - b_user - b_item)^2 + ridge (|b_user|^2 + |b_item|^2)`, found by solving for
    users and items in turn, to 1e-10. Whoever has no rating has 0.

    Args:
      user, item: `[R]` integers.
      rating: `[R]` float.
      shape: numbers of users and of items.
      ridge: weight of the squared biases, in ratings.

    Returns:
      The mean, `[users]` and `[items]`, in units of the ratings.

    Example:
      >>> mean, of_user, of_item = biases(np.array([0, 1]), np.array([0, 0]), np.array([5.0, 1.0]), (2, 1), ridge=1.0)
      >>> mean, of_user.tolist(), of_item.tolist()
      (3.0, [1.0, -1.0], [0.0])

    Reference: Koren, Bell & Volinsky (2009), "Matrix factorization techniques for recommender systems", equation 4
    without the factors.
    """
    check_positive(ridge=ridge)
    mean = float(np.mean(rating, dtype=np.float64))
    rest = np.asarray(rating, np.float64) - mean
    of_user, of_item = np.zeros(shape[0]), np.zeros(shape[1])
    users, items = (ridge + np.bincount(index, minlength=n) for index, n in zip((user, item), shape, strict=True))
    for _ in range(1000):
        before = of_item
        of_item = np.bincount(item, rest - of_user[user], shape[1]) / items
        of_user = np.bincount(user, rest - of_item[item], shape[0]) / users
        if np.abs(of_item - before).max() < 1e-10:
            break
    return mean, of_user, of_item


def popularity(x: np.ndarray) -> np.ndarray:
    """How many users have each item, `[N, I] -> [I]`: the same score for everybody."""
    return (np.asarray(x) > 0).sum(axis=0).astype(np.float64)


def item_knn(x: np.ndarray, k: int) -> np.ndarray:
    """Cosines between items, of each item with its k nearest others: `[N, I] -> [I, I]`.

    Args:
      x: users by items, non-negative.
      k: neighbours that an item keeps; of equal cosines, those of smaller number.

    Returns:
      B, whose column i has the cosines of item i with its neighbours, and zeros; the score of i is the sum of its
      cosines to items that the user has. Items that nobody has are near to none.

    Example:
      >>> item_knn(np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1.0]]), 1).round(3).tolist()
      [[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]

    Reference: Sarwar, Karypis, Konstan & Riedl (2001), "Item-based collaborative filtering recommendation algorithms",
    section 3.1.1 for the cosine and 3.2.1 for the sum, not divided by that of the cosines, which ranks better for sets.
    """
    check_count(k=k)
    x = np.asarray(x, np.float64)
    length = np.sqrt(np.square(x).sum(axis=0))
    unit = x / np.where(length > 0, length, 1.0)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, 0.0)
    if k < len(cosine):
        order = np.argsort(-cosine, axis=0, kind="stable")
        np.put_along_axis(cosine, order[k:], 0.0, axis=0)
    return cosine


def ease(x: np.ndarray, ridge: float) -> np.ndarray:
    """EASE: the linear model of every item by all others, in closed form: `[N, I] -> [I, I]`.

    B minimises `|x - x B|^2 + ridge |B|^2` among the matrices whose diagonal is zero.

    Args:
      x: users by items.
      ridge: positive; hundreds for sets of thousands of users.

    Returns:
      B, with a zero diagonal; of 10,000 items it is 0.8 GB. Where there are fewer users than items, the matrix that is
      inverted is the one of users (Woodbury), which is the same and costs less.

    Example:
      >>> x = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1.0]])
      >>> ease(x, 1.0).round(3).tolist()
      [[0.0, 0.625, 0.2], [0.625, 0.0, 0.2], [0.125, 0.125, 0.0]]

    Reference: Steck (2019), "Embarrassingly shallow autoencoders for sparse data", equation 8.
    """
    check_positive(ridge=ridge)
    x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise InputError(f"x has shape {x.shape}; users by items, [N, I], is needed.")
    is_wide = x.shape[0] < x.shape[1]
    gram = x @ x.T if is_wide else x.T @ x
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    if is_wide:  # (x^T x + ridge)^-1 = (1 - x^T (x x^T + ridge)^-1 x) / ridge
        inverse = -(x.T @ inverse @ x) / ridge
        inverse[np.diag_indices_from(inverse)] += 1 / ridge
    b = -inverse / np.diag(inverse)
    np.fill_diagonal(b, 0.0)
    return b
