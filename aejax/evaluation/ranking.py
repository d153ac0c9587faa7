"""Recommended lists against what was held out: recall and NDCG of the first k, ties counted by their expectation.

Scores are of all items; those that a user is known to have are taken out first. Items of equal score are taken to be in
a random order, and what is returned is the mean over these orders, in closed form: a constant score is worth what
chance is, whatever the numbers of the items.
"""

from typing import NamedTuple

import numpy as np

from aejax.checks import InputError


class Ranked(NamedTuple):
    """For each user, what stands at each of the first K places."""

    gain: np.ndarray  # [N, K] float64: probability that the item there was held out
    held_out: np.ndarray  # [N] int64: how many were, at least 1


def ranked(scores: np.ndarray, known: np.ndarray, held_out: np.ndarray, k: int) -> Ranked:
    """The first k places of each user's list.

    Args:
      scores: `[N, I]` float, larger is better; finite.
      known: `[N, I]` bool, what the scores were made from, which is not recommended.
      held_out: `[N, I]` bool, what should be found; none of it is known, and every user has some.
      k: at least 1; places beyond the last item stay empty.

    Raises:
      InputError: shapes that differ, scores that are not finite, a user without held-out items, or one whose item is
        both known and held out.

    Example:
      >>> scores, known = np.array([[3.0, 2.0, 2.0, 1.0]]), np.array([[True, False, False, False]])
      >>> ranked(scores, known, np.array([[False, True, False, False]]), 3).gain.tolist()
      [[0.5, 0.5, 0.0]]
    """
    scores, known, held_out = np.asarray(scores), np.asarray(known, bool), np.asarray(held_out, bool)
    if not scores.shape == known.shape == held_out.shape or scores.ndim != 2:
        raise InputError(f"scores, known and held_out have shapes {scores.shape}, {known.shape}, {held_out.shape}.")
    if k < 1 or not np.isfinite(scores).all():
        raise InputError(f"k is {k}, at least 1 is needed, and scores have to be finite.")
    count = held_out.sum(axis=1)
    if not count.all() or (known & held_out).any():
        raise InputError("Every user needs an item that is held out, and none of these may be known.")
    masked = np.where(known, -np.inf, scores)
    order = np.argsort(-masked, axis=1, kind="stable")
    value, hit = np.take_along_axis(masked, order, 1), np.take_along_axis(held_out, order, 1).astype(np.float64)
    starts = np.concatenate([np.ones((len(value), 1), bool), value[:, 1:] != value[:, :-1]], axis=1)
    group = np.cumsum(starts, axis=1) - 1 + np.arange(len(value))[:, None] * value.shape[1]  # of equal scores
    size, hits = (np.bincount(group.ravel(), weights, value.size) for weights in (None, hit.ravel()))
    gain = (hits / np.maximum(size, 1))[group][:, :k]
    return Ranked(np.pad(gain, ((0, 0), (0, max(0, k - gain.shape[1])))), count)


def recall(found: Ranked, k: int) -> np.ndarray:
    """Recall at k of each user, `[N]`, in [0, 1]: the share of min(k, held out) that is among the first k.

    Args:
      found: of at least k places.
      k: at least 1.

    Example:
      >>> recall(Ranked(np.array([[1.0, 0.0, 1.0]]), np.array([5])), 2).tolist()
      [0.5]

    Reference: Liang et al. (2018), section 4.2, Recall@R: the denominator is the smaller of R and the number held out.
    """
    _check_places(found, k)
    return found.gain[:, :k].sum(axis=1) / np.minimum(k, found.held_out)


def ndcg(found: Ranked, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain at k of each user, `[N]`, in [0, 1].

    Place p, from 1 on, is worth `1 / log2(p + 1)`; the sum is divided by that of the best list.

    Args:
      found: of at least k places.
      k: at least 1.

    Example:
      >>> round(float(ndcg(Ranked(np.array([[0.0, 1.0, 0.0]]), np.array([1])), 3)[0]), 4)  # 1 / log2(3)
      0.6309

    Reference: Liang et al. (2018), section 4.2, binary relevance.
    """
    _check_places(found, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discount)[np.minimum(k, found.held_out) - 1]
    return found.gain[:, :k] @ discount / best


def _check_places(found: Ranked, k: int) -> None:
    if not 1 <= k <= found.gain.shape[1]:
        raise InputError(f"k is {k}; the list has {found.gain.shape[1]} places.")
