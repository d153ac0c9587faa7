"""Few labels: what codes of an autoencoder are worth to a classifier, beside pixels, PCA and a network from scratch.

Autoencoders are trained on all training images, without labels. Logistic regression then has the labelled images: their
pixels, their principal components, or their codes. `tuned` trains encoder and softmax on the labels from there, and
`regularised` beside the autoencoder's own loss of all images (`aejax.estimators.AutoencoderClassifier`). `scratch` is a
network of the encoder's widths that knows the labelled images alone (scikit-learn's MLPClassifier). Labels are drawn
by the seed, as many of each class as can be, the same for every row.

`--dataset mnist --num-labels 100 600 1000 3000 --num-epochs 30` are the numbers of labels of the semi-supervised
literature; M2 and M1+M2 stand beside such rows in `python -m experiments semi_supervised`.
"""

import dataclasses
import time
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import data, evaluation, extras
from aejax.checks import InputError, check_non_negative
from aejax.data import Dataset
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, Say, check_counts, check_rows, main

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "pixels": "logistic regression on pixels",
    "pca": "on principal components",
    "ae": "on codes of an AE",
    "dae": "on codes of a DAE",
    "vae": "on codes of a VAE",
    "scratch": "network from scratch",
    "tuned": "DAE, tuned",
    "regularised": "AE, tuned beside its own loss",
}
OPTIONS: dict[str, dict[str, Any]] = {  # of the autoencoders of images in [0, 1]
    "ae": {"options": {"likelihood": "bernoulli"}},
    "dae": {"options": {"likelihood": "bernoulli", "corruption": "masking", "level": 0.25}},
    "vae": {"options": {"likelihood": "bernoulli"}},
}


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another labelled image set, or a path to .npz (x, y) with x in [0, 1]."""
    num_labels: tuple[int, ...] = (20, 100, 1000)
    """How many training images have theirs: a column each."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Classifiers."""
    latent_dim: int = 32
    """Size of the code; principal components."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 100
    """Passes of the autoencoders over the training images."""
    finetune_steps: int = 1000
    """Steps of tuning, rounded up to whole passes: over the labelled images; of `regularised`, over all."""
    weight: float = 0.1
    """Of the autoencoder's own loss."""
    batch_size: int = 128
    """Images per step."""
    num_seeds: int = 3
    """Draws of the labels, each with autoencoders of its own."""
    seed: int = 0
    """The first one."""


def pieces(config: Config) -> Iterator[Piece]:
    """Seed by seed and row by row, all numbers of labels at once, for they share an autoencoder."""
    extras.need("the study classification", "sklearn", extra="sklearn")
    check_counts(config, "latent_dim", "num_epochs", "finetune_steps", "batch_size")
    check_non_negative(**{"--weight": config.weight})
    check_rows(config.rows, ROWS)
    if not config.num_labels or len(set(config.num_labels)) < len(config.num_labels):
        raise InputError(f"--num-labels are {config.num_labels}; wanted is at least one number, and none twice.")
    dataset = load(config.dataset)
    for count in config.num_labels:
        drawn(dataset.train.y, count, config.seed)
    for seed in range(config.seed, config.seed + config.num_seeds):
        for row in config.rows:
            yield Piece(f"seed-{seed}", row, partial(measure, config, row, seed))


@lru_cache(maxsize=1)
def load(name: str) -> Dataset:
    """Flat images with labels.

    Raises:
      InputError: there are none, or values outside [0, 1].
    """
    dataset = data.flatten(data.load(name, validation=0.0))
    if dataset.train.y is None or dataset.test.y is None:
        raise InputError(f"{name} has no labels.")
    data.check(dataset.train.x, "bernoulli", name=name)
    return dataset


def drawn(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The numbers of `count` examples, as many of each class as can be, sorted.

    Raises:
      InputError: there are fewer examples, or fewer labels than classes.
    """
    classes, rng = np.unique(y), np.random.default_rng(seed)
    if not len(classes) <= count <= len(y):
        raise InputError(f"--num-labels {count}: from {len(classes)}, one of each class, to all {len(y)} images.")
    places = [rng.permutation(np.flatnonzero(y == each)) for each in classes]
    rank = np.concatenate([np.arange(len(each)) + rng.random() for each in places])  # which class has one more
    return np.sort(np.concatenate(places)[np.argsort(rank, kind="stable")[:count]])


def measure(config: Config, row: str, seed: int, say: Say) -> dict[str, Any]:
    """The test error with each number of labels, and the seconds of all."""
    dataset, start = load(config.dataset), time.monotonic()
    errors: dict[str, float] = {}
    features = None if row in ("scratch", "tuned", "regularised") else codes(config, dataset, row, seed, say)
    for count in config.num_labels:
        rows = drawn(dataset.train.y, count, seed)
        say(f"{count} labels")
        if features is not None:
            train, test = features
            accuracy = evaluation.linear_probe(train[rows], dataset.train.y[rows], test, dataset.test.y)
        else:
            accuracy = classifier_accuracy(config, dataset, row, rows, seed)
        errors[f"error_{count}"] = 1 - accuracy
    return errors | {"seconds": time.monotonic() - start}


def codes(config: Config, dataset: Dataset, row: str, seed: int, say: Say) -> tuple[np.ndarray, np.ndarray]:
    """What logistic regression is given of the training and of the test images."""
    from sklearn.decomposition import PCA

    from aejax.estimators import AutoencoderTransformer

    train, test = dataset.train.x, dataset.test.x
    if row == "pixels":
        return train, test
    if row == "pca":
        pca = PCA(min(config.latent_dim, *train.shape), svd_solver="full").fit(train)
        return pca.transform(train), pca.transform(test)
    say("training")
    found = AutoencoderTransformer(row, **sizes(config, seed), **OPTIONS[row]).fit(train)
    return found.transform(train), found.transform(test)


def classifier_accuracy(config: Config, dataset: Dataset, row: str, rows: np.ndarray, seed: int) -> float:
    """The test accuracy of a network that has those labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    from aejax.estimators import AutoencoderClassifier

    (x, y), test = dataset.train, dataset.test
    if row == "scratch":
        widths = (*config.hidden_dims, config.latent_dim)
        net = MLPClassifier(widths, batch_size=min(config.batch_size, len(rows)), random_state=seed, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return float(net.fit(x[rows], y[rows]).score(test.x, test.y))
    few = np.full(len(y), -1)
    few[rows] = y[rows]
    method, weight, size = ("dae", 0.0, len(rows)) if row == "tuned" else ("ae", config.weight, len(x))
    passes = -(-config.finetune_steps // max(1, size // config.batch_size))
    own = {**sizes(config, seed), **OPTIONS[method]}
    found = AutoencoderClassifier(method, **own, finetune_epochs=passes, autoencoder_weight=weight)
    return float(found.fit(x, few).score(test.x, test.y))


def sizes(config: Config, seed: int) -> dict[str, Any]:
    """What all estimators are given."""
    return {
        "latent_dim": config.latent_dim, "hidden_dims": config.hidden_dims, "num_epochs": config.num_epochs,
        "batch_size": config.batch_size, "scaling": "none", "random_state": seed,
    }  # fmt: skip


def metrics(config: Config, found: Found) -> study.Metrics:
    """By row, of every seed: the error with each number of labels, and the seconds."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    names = (*(f"error_{count}" for count in config.num_labels), "seconds")
    return {row: {name: [found[f"seed-{seed}"][row][name] for seed in seeds] for name in names} for row in config.rows}


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """Errors by the number of labels: the mean over draws within their range."""
    from aejax import plots

    rows, counts = metrics(config, found), sorted(config.num_labels)
    curves = {
        ROWS[row]: plots.Curve(np.log10(counts), 100 * np.array([rows[row][f"error_{count}"] for count in counts]).T, i)
        for i, row in enumerate(config.rows)
    }
    panel = plots.Lines("labels, their logarithm to base 10", "test error, %", curves, log=True)
    return {"errors": plots.line_panels({"few labels": panel}, title=f"{config.dataset}: test errors")}


def table(summary: dict[str, Any]) -> str:
    """Test errors in %, mean and deviation over draws of the labels."""
    counts = summary["num_labels"]
    rows = [
        [ROWS[row], *(study.spread(found[f"error_{count}"], scale=100) for count in counts), study.cost(found)]
        for row, found in summary["metrics"].items()
    ]
    return study.table(("test error, %", *(f"{count:,} labels" for count in counts), "seeds, seconds a run"), rows)


STUDY = PiecedStudy("classification", Config, pieces, metrics, table, draw)


if __name__ == "__main__":
    main(STUDY, __doc__)
