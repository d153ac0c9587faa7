"""Ratings: made up with a known truth, MovieLens and Jester; lists of who rated what, and how.

MovieLens latest-small, 100,836 ratings of films, 0.5 to 5, by 610 users: F. Maxwell Harper and Joseph A. Konstan, "The
MovieLens datasets: history and context", ACM TiiS 5(4), 2015; for research, redistributed under the same terms, not for
commercial use without permission of GroupLens. Jester, 5,000 users and 100 jokes, -10 to 10: Goldberg, Roeder, Gupta &
Perkins, "Eigentaste: a constant time collaborative filtering algorithm", 2001; the sample of the R package
recommenderlab, free for research with that citation. Both are read from `$AEJAX_DATA/NAME/ratings.npz`.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from aejax.checks import InputError, expanded, nearest
from aejax.data.files import UNREADABLE
from aejax.data.gathered import absent, damaged

_USERS, _ITEMS, _FACTORS, _NOISE, _LIKED = 800, 300, 4, 0.6, 4.0


class Truth(NamedTuple):
    """What made-up ratings were drawn from: `rating ~ N(mean, noise^2)`, if it is seen at all; read-only."""

    mean: np.ndarray  # [users, items] float64
    seen: np.ndarray  # [users, items] float64: the probability that it is
    noise: float


class Ratings(NamedTuple):
    """A list of ratings; each pair of user and item is there once at most. Read-only."""

    name: str
    user: np.ndarray  # [R] int32
    item: np.ndarray  # [R] int32
    rating: np.ndarray  # [R] float32
    shape: tuple[int, int]  # users, items
    liked: float  # from there on a rating says that the item was liked
    truth: Truth | None = None  # where it is known


def load_ratings(name: str) -> Ratings:
    """Loads a set of ratings, whole.

    Args:
      name: `ratings`, made up: about 30,000 by 800 users of 300 items, whose means are biases and a product of 4
        factors, with Gaussian noise, seen the more often the more popular an item and the higher its mean; liked from
        4.0 on. `movielens_small`, liked from 4 on as in Liang et al. (2018); `jester5k`, liked from 5 on.

    Returns:
      The list, in the order of the file.

    Raises:
      InputError: another name; the set is not there, or its file is damaged.

    Example:
      >>> found = load_ratings("ratings")
      >>> found.shape, bool(25_000 < len(found.rating) < 35_000), found.truth.noise
      ((800, 300), True, 0.6)
    """
    if name not in RATED:
        raise InputError(f"{name!r} is no set of ratings. {nearest(name, RATED, what='sets')}")
    found = RATED[name]()
    for array in found[1:4]:
        array.setflags(write=False)
    return found


@cache
def _made_up() -> Ratings:
    rng = np.random.default_rng(0)
    users, items = rng.normal(0, 1, (_USERS, _FACTORS)), rng.normal(0, 0.4, (_ITEMS, _FACTORS))
    of_user, of_item = rng.normal(0, 0.4, (_USERS, 1)), rng.normal(0, 0.5, _ITEMS)
    taste = users @ items.T
    mean = 3.3 + of_user + of_item + taste
    popular = rng.normal(-2.6, 1.0, _ITEMS) + rng.normal(0, 0.5, (_USERS, 1))
    seen = 1 / (1 + np.exp(-(popular + 0.8 * (taste + of_item))))
    user, item = np.nonzero(rng.random(seen.shape) < seen)
    rating = rng.normal(mean[user, item], _NOISE)
    for array in (mean, seen):
        array.setflags(write=False)
    return Ratings(
        "ratings", user.astype(np.int32), item.astype(np.int32), rating.astype(np.float32), mean.shape, _LIKED,
        Truth(mean, seen, _NOISE),
    )  # fmt: skip


def _read(name: str, holds: str) -> dict[str, np.ndarray]:
    folder = os.environ.get("AEJAX_DATA")
    path = expanded(folder or ".") / name / "ratings.npz"
    if not folder or not path.is_file():
        raise absent(name, "ratings.npz", holds)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in holds.partition(" ")[0].split(",")}
    except (KeyError, *UNREADABLE) as error:
        raise damaged(path, error) from error


def _movielens_small() -> Ratings:
    found = _read("movielens_small", "user,item,rating of MovieLens latest-small (2018), users and items from 0 on")
    user, item = (found[name].astype(np.int32) for name in ("user", "item"))
    shape = int(user.max()) + 1, int(item.max()) + 1
    return Ratings("movielens_small", user, item, found["rating"].astype(np.float32), shape, 4.0)


def _jester5k() -> Ratings:
    table = _read("jester5k", "ratings of Jester5k (recommenderlab), 5,000 x 100, NaN where not rated")["ratings"]
    user, item = np.nonzero(~np.isnan(table))
    rating = table[user, item].astype(np.float32)
    return Ratings("jester5k", user.astype(np.int32), item.astype(np.int32), rating, table.shape, 5.0)


def table(found: Ratings) -> np.ndarray:
    """All of it, users by items, float32, NaN where there is no rating."""
    dense = np.full(found.shape, np.nan, np.float32)
    dense[found.user, found.item] = found.rating
    return dense


RATED: dict[str, Callable[[], Ratings]] = {
    "ratings": _made_up,
    "movielens_small": _movielens_small,
    "jester5k": _jester5k,
}
