"""Semi-supervised variational autoencoder M2: a classifier from few labels and many images without."""

import dataclasses
from functools import partial
from typing import Any, Literal

import numpy as np

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call, over_batches
from aejax.methods import m2 as method
from aejax.methods.m2 import SemiBatch
from aejax.runner import Trained, later, measures
from aejax.runner.inputs import Feed


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 8
    """Size of the code."""
    num_labels: int = 100
    """How many training examples keep their labels, as many of each class as can be."""
    labels: Literal["first", "drawn"] = later("first")
    """Which ones: the first of each class, or a draw by the seed."""
    label_batch_size: int = 16
    """Labelled examples per step, beside --batch-size without labels; all of them where there are fewer."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def feed(config: Config, dataset: data.Dataset) -> Feed:
    """Some examples of each class with their labels, and all without."""
    train, held_out = dataset.train, dataset.validation
    rows = labelled(config, dataset)
    if config.label_batch_size < 1:
        raise InputError(f"--label-batch-size is {config.label_batch_size}; it has to be at least 1.")
    few = Batch(train.x[rows], train.y[rows])
    sizes = SemiBatch(min(config.label_batch_size, len(rows)), config.batch_size)
    validation = None if held_out is None else SemiBatch(held_out, Batch(held_out.x))
    return Feed(SemiBatch(few, Batch(train.x)), validation, sizes)


def labelled(config: Config, dataset: data.Dataset) -> np.ndarray:
    """Rows of the training examples that keep their labels."""
    y = dataset.train.y
    if not 1 <= config.num_labels <= len(y):
        raise InputError(f"--num-labels is {config.num_labels}; 1 to {len(y)} of {dataset.name} can keep theirs.")
    return balanced(y, config.num_labels, seed=None if config.labels == "first" else config.seed)


def balanced(y: np.ndarray, count: int, *, seed: int | None = None) -> np.ndarray:
    """Rows of so many examples, as many of each class as can be: the first of each, or drawn by a seed."""
    order = np.arange(len(y)) if seed is None else np.random.default_rng(seed).permutation(len(y))
    y = y[order]
    place = np.argsort(np.argsort(y, kind="stable"), kind="stable")  # among all, by class
    rank = place - np.searchsorted(np.sort(y), y)  # within the class
    return order[np.lexsort((y, rank))[:count]]


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the share of test images that the classifier gets wrong."""
    return measures.standard(trained) | {"test_error": misclassified(trained)}


def misclassified(trained: Trained) -> float:
    """The share of test images that the classifier gets wrong."""
    classify: Any = partial(call, trained.model, trained.state.params, "classify")
    guesses = over_batches(classify, trained.dataset.test.x).argmax(axis=1)
    return float(np.mean(guesses != trained.dataset.test.y))


EXPERIMENT = runner.of_method("m2", Config, measure=measure, feed=feed)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
