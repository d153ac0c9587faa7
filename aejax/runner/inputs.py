"""What a run is given: the data set of its configuration, what a model is told of it, and which of it is trained on.

No model is built here, and nothing is trained.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import data, nets
from aejax.checks import InputError

EVALUATION_BATCH = 256  # examples at once wherever a run evaluates: losses that couple examples depend on it


class Spec(NamedTuple):
    """What a model is told of the data, which is kept with a run."""

    shape: tuple[int, ...]  # of one example
    num_classes: int | None = None  # labels are 0, 1, ...; None where there are none

    def example(self, model: nets.Autoencoder) -> Any:
        """One example of zeros, as the model takes it."""
        return seen(model, data.Batch(jnp.zeros((1, *self.shape)), jnp.zeros(1, jnp.int32)))


class Feed(NamedTuple):
    """What a run trains on: one data set, or streams, as in `aejax.data.streams`."""

    train: Any
    held_out: Any  # made as `train` is; None for none
    batch_size: Any  # over all devices; a tree prefix of `train`


def spec_of(dataset: data.Dataset) -> Spec:
    """The shape of an example, and one class more than the highest label of the training split."""
    y = dataset.train.y
    return Spec(dataset.train.x.shape[1:], None if y is None else int(y.max()) + 1)


def seen(model: nets.Autoencoder, batch: data.Batch) -> Any:
    """What a model takes of a batch: `Batch(x, y)` if it is conditioned on labels, else x."""
    return batch if model.takes_labels else batch.x


def fed(model: nets.Autoencoder, batch: data.Batch) -> data.Batch:
    """A batch for a loss: with its labels if the model is conditioned on them or learns from them, else without."""
    return batch if model.needs_labels() else data.Batch(batch.x)


def plain_feed(config: Any, dataset: data.Dataset, model: nets.Autoencoder) -> Feed:
    """The training and the validation split."""
    held_out = None if dataset.validation is None else fed(model, dataset.validation)
    return Feed(fed(model, dataset.train), held_out, config.batch_size)


def check_labels(dataset: data.Dataset, model: nets.Autoencoder, spec: Spec) -> None:
    """Refuses data without the labels that a model needs, and labels that the training split lacks."""
    if not model.needs_labels():
        return
    kinds = 0 if dataset.train.y is None else len(np.unique(dataset.train.y))
    if (spec.num_classes or 0) > max(1000, 10 * kinds):
        raise InputError(
            f"The training labels of {dataset.name} go up to {(spec.num_classes or 0) - 1}, and are of {kinds} kinds;"
            f" {type(model).__name__} has a number for each label from 0 up. Number them from 0, those of all splits"
            " together: np.unique(y, return_inverse=True)[1]."
        )
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        if split is None:
            continue
        if split.y is None:
            raise InputError(
                f"The {name} split of {dataset.name} has no labels, and {type(model).__name__} needs them."
                " Bring a .npz file with x and y (and y_test beside x_test), or use a labelled set such as digits."
            )
        known = spec.num_classes or 0
        if split.y.min() < 0 or split.y.max() >= known:
            raise InputError(
                f"The {name} labels of {dataset.name} go from {split.y.min()} to {split.y.max()};"
                f" {type(model).__name__} knows those of the training split, numbered from 0 to {known - 1}"
                " at most. Number the classes from 0, and keep only examples of classes that are trained on."
            )


def load_data(config: Any) -> data.Dataset:
    """The data set of a configuration, cut, checked, binarised by threshold if asked, and shaped for its network."""
    dataset = data.load(config.dataset, validation=config.validation)
    dataset = dataset._replace(
        train=_first(dataset.train, config.num_train, f"--num-train is {config.num_train}; {dataset.name}"),
        test=_first(dataset.test, config.num_test, f"--num-test is {config.num_test}; {dataset.name}"),
    )
    if config.net == "conv" and dataset.image_shape is None:
        raise InputError(f"--net conv needs images; {config.dataset} holds vectors of {dataset.train.x.shape[1:]}.")
    likelihood = "bernoulli" if config.binarize != "none" else config.likelihood
    for split in (dataset.train, dataset.validation, dataset.test):
        if split is not None:
            data.check(split.x, likelihood, name=config.dataset)
    if config.binarize == "threshold":
        dataset = dataset._replace(
            train=data.threshold(dataset.train),
            validation=dataset.validation and data.threshold(dataset.validation),
            test=data.threshold(dataset.test),
        )
    return data.flatten(dataset) if config.net == "dense" else dataset


def _first(batch: data.Batch, count: int | None, what: str) -> data.Batch:
    if count is None:
        return batch
    if not 1 <= count <= len(batch.x):
        raise InputError(f"{what} has {len(batch.x)} of them, and at least 1 is needed.")
    return data.Batch(batch.x[:count], None if batch.y is None else batch.y[:count])


def binarize(key: jax.Array, tree: Any) -> Any:
    """Stochastic binarisation of every `Batch` of a tree, each with a draw of its own; the key is consumed."""
    is_batch = lambda node: isinstance(node, data.Batch)
    batches, structure = jax.tree.flatten(tree, is_leaf=is_batch)
    for each in batches:
        if not is_batch(each):
            raise InputError(f"--binarize stochastic draws the x of a Batch; the feed holds a {type(each).__name__}.")
    keys = [key] if len(batches) == 1 else jax.random.split(key, len(batches))
    drawn = [data.binarize(own, batch) for own, batch in zip(keys, batches, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def binarized(dataset: data.Dataset, key: jax.Array) -> data.Dataset:
    """One stochastic binarisation of every split, to measure on; the key is consumed."""

    def draw(batch: Any, key: jax.Array) -> Any:
        return batch and data.Batch(np.asarray(data.binarize(key, data.Batch(batch.x)).x), batch.y)

    keys = jax.random.split(key, 3)
    train, validation, test = map(draw, (dataset.train, dataset.validation, dataset.test), keys)
    return dataset._replace(train=train, validation=validation, test=test)
