"""Ratings that were hidden, by biases and by AutoRec: one split, all rows; part of the study `recommendation`."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from aejax import schedules, training
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import check_count, check_non_negative, check_positive
from aejax.data import Ratings, sparse
from aejax.evaluation.apply import call, over_batches
from aejax.evaluation.recommenders import biases
from aejax.methods.autorec import AutoRec, HParams, autorec
from aejax.nets import init_params
from aejax.sweep import sweep

TITLES = {
    "mean": "mean rating",
    "biases": "user and item biases, ridge 5",
    "u_autorec": "U-AutoRec",
    "i_autorec": "I-AutoRec",
    "i_autorec_biases": "I-AutoRec of what biases leave",
    "truth": "the true means",
}
AUTORECS = (("u_autorec", "users", False), ("i_autorec", "items", False), ("i_autorec_biases", "items", True))
HIDDEN = 0.1  # of all ratings for the test, and of the others for validation
GROUPS = 5  # of test ratings, by how often their item was rated


class Options(NamedTuple):
    """How the networks of hidden ratings are trained."""

    latent_dim: int = 200
    """Sigmoid units; 500 in the paper."""
    num_epochs: int = 100
    """Passes over the items, or the users."""
    batch_size: int = 32
    """Items, or users, per step."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    decays: tuple[float, ...] = (1e-4, 2e-4, 5e-4)
    """Weights of the squared weights, for each rating that an example has on average; chosen on validation ratings."""


class Split(NamedTuple):
    """Which ratings are for what, as places in the list."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Functions(NamedTuple):
    """What a sweep takes, and the model."""

    model: AutoRec
    build: Callable[[HParams], Algorithm]
    init: Callable[[jax.Array], Any]


def check(options: Options) -> None:
    """Refuses what cannot be trained."""
    check_count(**{f"--ratings.{n}": getattr(options, n) for n in ("latent_dim", "num_epochs", "batch_size")})
    check_positive(**{"--ratings.lr": options.lr})
    check_count(**{"number of --ratings.decays": len(options.decays)})
    for decay in options.decays:
        check_non_negative(**{"--ratings.decays": decay})


def split(count: int, seed: int) -> Split:
    """A tenth of all ratings for the test, and a tenth of the others for validation, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(count)
    test = round(HIDDEN * count)
    validation = test + round(HIDDEN * (count - test))
    return Split(order[validation:], order[test:validation], order[:test])


def rmse(predicted: np.ndarray, rating: np.ndarray) -> float:
    """Root of the mean squared error over all ratings, each the same weight."""
    return float(np.sqrt(np.mean(np.square(np.float64(predicted) - rating))))


@lru_cache(maxsize=8)  # the same functions are the same program
def functions(data_dim: int, latent_dim: int, num_steps: int) -> Functions:
    """Of rows of that length, which are made dense in the compiled step."""
    model = AutoRec.dense(data_dim, latent_dim)

    def build(hparams: HParams) -> Algorithm:
        algo = autorec(model, hparams, lambda lr: optax.adam(schedules.cosine(lr, num_steps)))
        return transform_batch(algo, sparse.Dense(data_dim, np.nan))

    return Functions(model, build, lambda key: init_params(model, key, np.zeros((1, data_dim), np.float32)))


@partial(jax.jit, static_argnames="model")
def _answers(params: Any, columns: jax.Array, values: jax.Array, *, model: AutoRec) -> jax.Array:
    told = sparse.Dense(model.decoder.features[-1], np.nan)(jax.random.key(0), sparse.Rows(columns, values))
    return call(model, params, "reconstruct", told.x)


def trained(
    found: Ratings, train: np.ndarray, asked: np.ndarray, rest: np.ndarray, by: str, decays: tuple[float, ...],
    options: Options, seed: int,
) -> list[np.ndarray]:  # fmt: skip
    """What AutoRec adds to the base, of each rating that is asked for; one array for each weight of decay.

    Args:
      found: the list.
      train, asked: places in it.
      rest: `[R]`, the ratings less the base, of which those to train on are looked at.
      by: `items` or `users`: what an example is.
      decays, options, seed: as in the configuration.
    """
    example, component = (found.item, found.user) if by == "items" else (found.user, found.item)
    shape = found.shape[::-1] if by == "items" else found.shape
    told = sparse.rows(example[train], component[train], rest[train], shape)
    batch_size = min(options.batch_size, shape[0])
    own = functions(shape[1], options.latent_dim, options.num_epochs * training.count_steps(told, batch_size))
    per_example = len(train) / shape[0]
    result = sweep(
        own.build, own.init, told, hparams=[HParams(options.lr, decay * per_example) for decay in decays],
        seeds=[seed], batch_size=batch_size, num_epochs=options.num_epochs,
    )  # fmt: skip
    answers = []
    for i in range(len(decays)):
        table = over_batches(partial(_answers, result.state(i, 0).params, model=own.model), *told)
        answers.append(table[example[asked], component[asked]])
    return answers


def base(found: Ratings, train: np.ndarray, *, with_biases: bool) -> np.ndarray:
    """The mean of the ratings to train on, and with their biases on top: of every rating of the list, `[R]`."""
    user, item, rating = (each[train] for each in found[1:4])
    mean, of_user, of_item = biases(user, item, rating, found.shape)
    return mean + with_biases * (of_user[found.user] + of_item[found.item])


def measure(found: Ratings, options: Options, seed: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """By row: `rmse` of the test ratings, `weight_decay` that was chosen, and `grouped`, the errors by group.

    The weight decay is the one of least error on the validation ratings, after training on the others; then AutoRec is
    trained again with both. The groups have as many test ratings each, of items that were rated more and more often.
    """
    parts = split(len(found.rating), seed)
    both, test = np.concatenate([parts.train, parts.validation]), parts.test
    truth = found.rating.astype(np.float64)
    times = np.bincount(found.item[both], minlength=found.shape[1])[found.item[test]]
    groups = np.array_split(np.argsort(times, kind="stable"), GROUPS)

    def scored(predicted: np.ndarray, **more: float) -> dict[str, Any]:
        grouped = [rmse(predicted[group], truth[test][group]) for group in groups]
        return {"rmse": rmse(predicted, truth[test]), "grouped": grouped, **more}

    rows = {"mean": scored(base(found, both, with_biases=False)[test])}
    rows["biases"] = scored(base(found, both, with_biases=True)[test])
    for name, by, with_biases in AUTORECS:
        say(f"seed {seed}: {TITLES[name]}")
        first, last = (base(found, train, with_biases=with_biases) for train in (parts.train, both))
        run = partial(trained, found, by=by, options=options, seed=seed)
        tried = run(parts.train, parts.validation, truth - first, decays=options.decays)
        errors = [rmse(first[parts.validation] + each, truth[parts.validation]) for each in tried]
        decay = options.decays[int(np.argmin(errors))]
        (answer,) = run(both, test, truth - last, decays=(decay,))
        rows[name] = scored(last[test] + answer, decay=decay)
    if found.truth is not None:
        rows["truth"] = scored(found.truth.mean[found.user[test], found.item[test]])
    return rows | {"times": {"grouped": [float(times[group].mean()) for group in groups]}}
