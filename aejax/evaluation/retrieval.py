"""Retrieval: how many of what a query finds are of its kind, by cosine or by Hamming distance, ties by expectation.

Queries are of the test part and the database is the training part; labels say what is relevant, and nothing else. Items
at equal distance from a query are taken to be in a random order, and what is returned is the mean over these orders, in
closed form: with few bits most of a list is ties, and their order in a file would decide.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError, check_count

_BLOCK = 256  # queries whose scores of the whole database exist at a time


class Ball(NamedTuple):
    """What is within a Hamming ball, as means over the queries."""

    precision: float  # the share of relevant items among those in the ball; of an empty ball 0
    recall: float  # the share of the relevant items that is in the ball; of a query that has none 0
    empty: float  # the share of the queries whose ball is empty


def first_k(scores: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """The share of relevant items among the first k of each query, in expectation over the orders of ties.

    With `a` relevant items above the score of place k, and `b` of `n` relevant among those that share it, of which m
    have a place, it is `(a + m b / n) / k`.

    Args:
      scores: `[Q, N]`, larger is nearer; not NaN.
      relevant: `[Q, N]` bool.
      k: from 1 to N.

    Returns:
      `[Q]` float64, in [0, 1].

    Raises:
      InputError: shapes that differ, NaN, or a k that is out of range.

    Example:
      >>> first_k(np.array([[3.0, 2.0, 2.0, 1.0]]), np.array([[True, True, False, True]]), 2).tolist()
      [0.75]
    """
    scores, relevant = np.asarray(scores), np.asarray(relevant, bool)
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise InputError(f"scores and relevant have shapes {scores.shape} and {relevant.shape}; [Q, N] each.")
    check_count(k=k)
    if k > scores.shape[1]:
        raise InputError(f"k is {k}; there are {scores.shape[1]} items.")
    if np.isnan(scores).any():
        raise InputError("scores hold NaN; every item needs a place.")
    last = np.partition(scores, -k, axis=1)[:, -k, None]
    above, tied = scores > last, scores == last
    places = k - above.sum(axis=1)
    return ((above & relevant).sum(axis=1) + places * (tied & relevant).sum(axis=1) / tied.sum(axis=1)) / k


def by_cosine(queries: Any, database: Any, query_labels: ArrayLike, labels: ArrayLike, *, k: int = 100) -> float:
    """Precision of the first k by cosine, the mean over the queries.

    Args:
      queries: `[Q, D]` real, or sparse of SciPy. Rows of zeros are as near to one item as to another.
      database: `[N, D]`, likewise.
      query_labels: `[Q]`; an item is relevant where it has the label of the query.
      labels: `[N]`.
      k: from 1 to N.

    Raises:
      InputError: shapes that do not go together, no queries, or a k that is out of range.

    Example:
      >>> by_cosine([[1.0, 0.0]], [[2.0, 0.1], [0.0, 1.0], [1.0, 1.0]], [7], [7, 7, 3], k=2)
      0.5
    """
    queries, database = _directions(queries), _directions(database)

    def scores(rows: slice) -> np.ndarray:
        product = queries[rows] @ database.T
        product = product.toarray() if hasattr(product, "toarray") else product
        return np.round(product, 12)  # so that ties are ties, whatever order the sum had

    _check(queries, database, query_labels, labels)
    return float(_over_queries(scores, query_labels, labels, lambda s, r: first_k(s, r, k)).mean())


def by_bits(
    queries: ArrayLike, database: ArrayLike, query_labels: ArrayLike, labels: ArrayLike, *, k: int = 100
) -> float:
    """Precision of the first k by Hamming distance, the mean over the queries.

    Args:
      queries: `[Q, Z]` bool, as of `aejax.hamming.cut`.
      database: `[N, Z]` bool.
      query_labels, labels, k: as in `by_cosine`.

    Raises:
      InputError: as there, and bits that are no bool.

    Example:
      >>> by_bits(np.array([[True, True]]), np.array([[True, True], [True, False], [False, True]]), [7], [7, 7, 3], k=2)
      0.75
    """
    agreement = _agreement(queries, database, query_labels, labels)
    return float(_over_queries(agreement, query_labels, labels, lambda s, r: first_k(s, r, k)).mean())


def balls(queries: ArrayLike, database: ArrayLike, query_labels: ArrayLike, labels: ArrayLike) -> list[Ball]:
    """Precision and recall within Hamming balls of every radius, from 0 to all bits.

    Args:
      queries, database, query_labels, labels: as in `by_bits`.

    Returns:
      For each radius, `Z + 1` of them, a `Ball`. A query that finds nothing counts with precision 0, as in the papers
      on hashing, and the share of such queries stands beside it.

    Raises:
      InputError: as in `by_bits`.

    Example:
      >>> found = balls(np.array([[True, True]]), np.array([[True, False], [False, False]]), [7], [7, 3])
      >>> [(each.precision, each.recall, each.empty) for each in found]
      [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (0.5, 1.0, 0.0)]
    """
    agreement, num_bits = _agreement(queries, database, query_labels, labels), np.shape(queries)[1]

    def counts(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
        """`[Q, 2, Z + 1]`: how many are in the ball of each radius, and how many relevant."""
        distance = np.rint((num_bits - scores) / 2).astype(np.int64)
        place = distance + np.arange(len(scores))[:, None] * (num_bits + 1)
        size = len(scores) * (num_bits + 1)
        both = [np.bincount(each, minlength=size) for each in (place.ravel(), place[relevant])]
        return np.stack([each.reshape(len(scores), -1).cumsum(axis=1) for each in both], axis=1)

    found, hits = _over_queries(agreement, query_labels, labels, counts).swapaxes(0, 1)
    precision, recall = hits / np.maximum(found, 1), hits / np.maximum(hits[:, -1:], 1)
    rows = zip(precision.mean(axis=0), recall.mean(axis=0), (found == 0).mean(axis=0), strict=True)
    return [Ball(*map(float, row)) for row in rows]


def _over_queries(
    scores: Callable[[slice], np.ndarray], query_labels: ArrayLike, labels: ArrayLike,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """`measure(scores, relevant)` of all queries, a block at a time."""
    asked, known = np.asarray(query_labels), np.asarray(labels)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(asked), _BLOCK)]
    return np.concatenate([measure(scores(rows), asked[rows, None] == known[None]) for rows in blocks])


def _agreement(
    queries: ArrayLike, database: ArrayLike, query_labels: ArrayLike, labels: ArrayLike
) -> Callable[[slice], np.ndarray]:
    """Of blocks of queries: bits that agree, less those that do not, with each item; exact in float32."""
    queries, database = np.asarray(queries), np.asarray(database)
    for bits in (queries, database):
        if bits.dtype != bool:
            raise InputError(f"Bits have dtype {bits.dtype}; bool is wanted, as `aejax.hamming.cut` makes.")
    _check(queries, database, query_labels, labels)
    signs, items = (np.where(bits, np.float32(1), np.float32(-1)) for bits in (queries, database))
    return lambda rows: signs[rows] @ items.T


def _directions(x: Any) -> Any:
    """Rows at length 1, those of zeros as they are."""
    if hasattr(x, "toarray"):
        x = x.tocsr().astype(np.float64)
        lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
        scaled = x.copy()
        scaled.data = x.data / np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(x.indptr))
        return scaled
    x = np.asarray(x, np.float64)
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1.0)


def _check(queries: Any, database: Any, query_labels: ArrayLike, labels: ArrayLike) -> None:
    if len(queries.shape) != 2 or len(database.shape) != 2 or queries.shape[1] != database.shape[1]:
        raise InputError(f"Queries {queries.shape} and database {database.shape}; [Q, D] and [N, D] are wanted.")
    if 0 in queries.shape or 0 in database.shape:
        raise InputError(f"Queries {queries.shape} and database {database.shape}; at least one of each is needed.")
    for x, y in ((queries, query_labels), (database, labels)):
        if np.shape(y) != x.shape[:1]:
            raise InputError(f"Labels have shape {np.shape(y)} for {x.shape[0]} items; one for each is wanted.")
