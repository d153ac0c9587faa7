"""Lists for users who were held out: popularity, item-kNN, EASE, Mult-DAE, Mult-VAE; part of `recommendation`.

The protocol is that of Liang et al. (2018), section 4.3: of the users held out, four fifths of what they liked are
told, and a fifth has to be found; what is chosen is chosen by NDCG@100 of other users.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import ndtr

from aejax import training
from aejax.algorithm import transform_batch
from aejax.checks import InputError, check_count, check_positive
from aejax.data import Ratings, sparse
from aejax.evaluation import embed
from aejax.evaluation.apply import call, over_batches
from aejax.evaluation.ranking import ndcg, ranked, recall
from aejax.evaluation.recommenders import ease, item_knn, popularity
from aejax.methods import mult_dae, mult_vae
from aejax.nets import init_params
from aejax.schedules import Ramp

TITLES = {
    "popularity": "popularity",
    "item_knn": "item-kNN, cosine",
    "ease": "EASE",
    "mult_dae": "Mult-DAE",
    "mult_vae": "Mult-VAE",
    "truth": "the true probabilities",
}
PLACES, CHOSEN_BY = (20, 50), 100  # of recall, and of NDCG
LEAST = 5  # items that a user has to have liked
HELD_OUT, FOUND = 0.1, 0.2  # of the users, for the test and for validation; of the items of such a user, rounded down
GROUPS = 3  # of users, by how many items they told


class Options(NamedTuple):
    """How the recommenders of lists are trained."""

    latent_dim: int = 200
    """Size of both codes."""
    hidden_dims: tuple[int, ...] = (600,)
    """Widths of the hidden layers of the encoder of Mult-VAE; Mult-DAE has none."""
    num_epochs: int = 100
    """Passes over the users; the pass of highest validation NDCG is kept."""
    every: int = 2
    """Passes between two validations."""
    batch_size: int = 50
    """Users per step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    weight_decay: float = 2e-4
    """Of Mult-DAE: 0.01 over the batch size, as in the published run."""
    beta: float = 0.2
    """Weight of the KL term of Mult-VAE, reached in a straight line after half of the passes."""
    neighbours: tuple[int, ...] = (10, 30, 100, 300)
    """Of item-kNN; chosen on validation users."""
    ridges: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    """Of EASE; likewise."""


class Users(NamedTuple):
    """Users who were held out; items are those that some user to train on liked."""

    user: np.ndarray  # [N] their numbers
    told: np.ndarray  # [N, I] bool
    held_out: np.ndarray  # [N, I] bool


class Held(NamedTuple):
    """One split of the users."""

    train: np.ndarray  # [N, I] float32 of 0 and 1
    items: np.ndarray  # [I] their numbers
    validation: Users
    test: Users


def check(options: Options) -> None:
    """Refuses what cannot be trained."""
    counts = {"neighbours": len(options.neighbours), "ridges": len(options.ridges)}
    counts |= {n: getattr(options, n) for n in ("latent_dim", "num_epochs", "every", "batch_size")}
    check_count(**{f"--lists.{name}": count for name, count in counts.items()})
    check_count(**{f"--lists.neighbours {k}": k for k in options.neighbours})
    check_positive(**{f"--lists.ridges {ridge}": ridge for ridge in options.ridges})
    if options.every > options.num_epochs:
        raise InputError(f"--lists.every is {options.every}, and there are {options.num_epochs} passes.")


def held(found: Ratings, seed: int) -> Held:
    """The split of a seed.

    Users who liked fewer than 5 items are left out; of the others a tenth are for the test and a tenth for validation.
    Of these, items that no user to train on liked are dropped, and whoever is left with fewer than 5 is left out.

    Raises:
      InputError: nobody is left to be held out.
    """
    rng = np.random.default_rng(seed)
    liked = np.zeros(found.shape, bool)
    good = found.rating >= found.liked
    liked[found.user[good], found.item[good]] = True
    users = rng.permutation(np.flatnonzero(liked.sum(axis=1) >= LEAST))
    few = max(1, round(HELD_OUT * len(users)))
    test, validation, train = np.split(users, [few, 2 * few])
    items = np.flatnonzero(liked[train].any(axis=0)) if len(train) else np.zeros(0, int)

    def parted(users: np.ndarray) -> Users:
        whole = liked[np.ix_(users, items)]
        users, whole = users[whole.sum(axis=1) >= LEAST], whole[whole.sum(axis=1) >= LEAST]
        if not len(users):
            raise InputError(f"{found.name} has too few users who liked {LEAST} items or more.")
        told = whole.copy()
        for row in told:
            own = np.flatnonzero(row)
            row[rng.choice(own, int(FOUND * len(own)), replace=False)] = False
        return Users(users, told, whole & ~told)

    return Held(liked[np.ix_(train, items)].astype(np.float32), items, parted(validation), parted(test))


def scored(scores: np.ndarray, users: Users) -> dict[str, Any]:
    """Means over the users: `recall_20`, `recall_50`, `ndcg_100`; and `grouped`, that by how many items were told."""
    found = ranked(scores, users.told, users.held_out, CHOSEN_BY)
    gain = ndcg(found, CHOSEN_BY)
    order = np.array_split(np.argsort(users.told.sum(axis=1), kind="stable"), GROUPS)
    return {
        **{f"recall_{k}": float(recall(found, k).mean()) for k in PLACES},
        f"ndcg_{CHOSEN_BY}": float(gain.mean()),
        "grouped": [float(gain[group].mean()) if len(group) else float("nan") for group in order],
    }


def linear(split: Held, makers: Mapping[float, Callable[[], np.ndarray]]) -> dict[str, Any]:
    """Of the matrices `[I, I]`, the one of highest validation NDCG, scored on the test users; and its `chosen`."""
    best, chosen, scores = -1.0, float("nan"), np.zeros(0)
    for value, make in makers.items():
        b = make()
        ndcg_there = scored(split.validation.told @ b, split.validation)[f"ndcg_{CHOSEN_BY}"]
        if ndcg_there > best:
            best, chosen, scores = ndcg_there, value, split.test.told @ b
    return scored(scores, split.test) | {"chosen": chosen}


def net(name: str, split: Held, options: Options, seed: int) -> dict[str, Any]:
    """Mult-DAE or Mult-VAE at the pass of highest validation NDCG, `chosen`, and the users that it trains on a second.

    The rows of users are sparse, and made dense in the compiled step.
    """
    num_items = split.train.shape[1]
    batch_size = min(options.batch_size, len(split.train))
    row, column = np.nonzero(split.train)
    listed = sparse.rows(row, column, split.train[row, column], split.train.shape)
    steps = training.count_steps(listed, batch_size)
    if name == "mult_dae":
        model: Any = mult_dae.MultDAE.dense(num_items, options.latent_dim)
        algo = mult_dae.mult_dae(model, lr=options.lr, weight_decay=options.weight_decay)
    else:
        model = mult_vae.MultVAE.dense(num_items, options.latent_dim, hidden_dims=options.hidden_dims)
        beta = Ramp(0.0, options.beta, max(1, options.num_epochs * steps // 2))
        algo = mult_vae.mult_vae(model, lr=options.lr, beta=beta)
    init_key, train_key = jax.random.split(jax.random.key(seed))
    state = algo.init(init_params(model, init_key, split.train[:1]))
    algo = transform_batch(algo, sparse.Dense(num_items))
    boundary = steps * options.every

    def scores(params: Any, users: Users) -> np.ndarray:
        z = embed(model, params, np.float32(users.told))
        return over_batches(partial(call, model, params, "decode"), z)

    best, chosen, params = -1.0, 0, state.params
    seconds, before, last = 0.0, 0, 0
    sizes: dict[str, Any] = {"batch_size": batch_size, "num_epochs": options.num_epochs}
    for chunk in training.train(algo, state, listed, train_key, boundary=boundary, **sizes):
        last = chunk.step
        if not before:
            before = last  # the first chunk compiles
        else:
            seconds += chunk.seconds
        if chunk.step % boundary and chunk.step < steps * options.num_epochs:
            continue
        gain = scored(scores(chunk.state.params, split.validation), split.validation)[f"ndcg_{CHOSEN_BY}"]
        if gain > best:
            best, chosen, params = gain, chunk.step // steps, chunk.state.params
    speed = {"users_per_second": (last - before) * batch_size / seconds} if seconds else {}
    return scored(scores(params, split.test), split.test) | {"chosen": float(chosen)} | speed


def true_scores(found: Ratings, users: Users, items: np.ndarray) -> np.ndarray:
    """The probability that a user is seen to rate an item, and likes it."""
    assert found.truth is not None
    mean, seen, noise = found.truth
    where = np.ix_(users.user, items)
    return seen[where] * ndtr((mean[where] - found.liked) / noise)


def measure(found: Ratings, options: Options, seed: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """By row: what `scored` says of the test users, what was `chosen`, and `seconds`."""
    split = held(found, seed)
    x = split.train.astype(np.float64)
    neighbours = {float(k): partial(item_knn, x, k) for k in options.neighbours}
    ridges = {ridge: partial(ease, x, ridge) for ridge in options.ridges}
    popular = lambda: scored(np.broadcast_to(popularity(x), split.test.told.shape), split.test)
    rows: dict[str, Callable[[], dict[str, Any]]] = {
        "popularity": popular,
        "item_knn": lambda: linear(split, neighbours),
        "ease": lambda: linear(split, ridges),
        "mult_dae": lambda: net("mult_dae", split, options, seed),
        "mult_vae": lambda: net("mult_vae", split, options, seed),
    }
    if found.truth is not None:
        rows["truth"] = lambda: scored(true_scores(found, split.test, split.items), split.test)
    results = {}
    for name, row in rows.items():
        say(f"seed {seed}: {TITLES[name]}")
        start = time.monotonic()
        results[name] = row() | {"seconds": time.monotonic() - start}
    told = np.array_split(np.sort(split.test.told.sum(axis=1)), GROUPS)
    return results | {"told": {"grouped": [float(group.mean()) if len(group) else float("nan") for group in told]}}
