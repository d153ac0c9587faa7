"""Datasets as arrays: the digits that come with scikit-learn, prepared TFDS image sets, and files of your own.

Nothing here touches a network; `python -m aejax.data prepare NAME` (extra `prepare`) is the one command that does.
"""

import hashlib
from functools import cache, partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import extras
from aejax.checks import InputError, expanded
from aejax.data import cells, factors, files, gathered, prepared, ratings
from aejax.data.arrays import Arrays, as_float32, check, check_examples
from aejax.data.factors import Factored, load_factors
from aejax.data.gathered import load_documents
from aejax.data.ratings import Ratings, load_ratings

__all__ = [
    "BINARIZE", "Batch", "Dataset", "Factored", "Ratings", "binarize", "check", "check_examples", "digest", "flatten",
    "load", "load_documents", "load_factors", "load_ratings", "threshold",
]  # fmt: skip

TEST_FRACTION = 0.1  # of a set that has no test split
BINARIZE = ("none", "stochastic", "threshold")


class Batch(NamedTuple):
    """What a loss is given."""

    x: Any  # [B, ...] float32: examples, vectors [B, D] or images [B, H, W, C]
    y: Any = None  # [B] int32: labels, where there are any


class Dataset(NamedTuple):
    """A set in its splits, as NumPy arrays; the rows of the splits are disjoint and cover the set."""

    name: str  # 'digits', the TFDS name, or the stem of the file
    train: Batch  # x [N, H, W, C] or [N, D] float32, y [N] int32 or None
    validation: Batch | None  # the set's own, or the last rows of the training split; None where none were asked for
    test: Batch
    image_shape: tuple[int, int, int] | None  # (H, W, C), to draw one x; None for vectors


def load(name: str, *, validation: float = 0.1, seed: int = 0) -> Dataset:
    """Loads a set and splits it; the same arguments give the same splits, always.

    A set without a test split gets one: 10 %, drawn by the seed. The last `validation` of the training split are the
    validation split, of a set that has none of its own. The rows of files are permuted by the seed first, since files
    are often sorted by label; TFDS shuffles when it prepares, and that order is kept.

    Args:
      name: `digits` (1,797 real 8x8 images, pixels in [0, 1]); a TFDS image set by name, such as `mnist` or
        `emnist/letters`, prepared in `$TFDS_DATA_DIR`; `binarized_mnist` or `omniglot28`, in `$AEJAX_DATA` (the first
        from TFDS too), and `omniglot28_drawings`, the second split so that all characters are in both parts; there also
        `worm_neurons`, counts of genes in 4,186 cells, of which the 2,000 that vary most are kept, in that order, and
        `newsgroups20`, counts of the 2,000 most frequent words (`load_documents`); `cells`, counts of 200 genes in
        2,000 cells that were made up (`aejax.data.cells`); `sprites` or `cmu_faces`, as in `load_factors`, where y is
        the first factor; `ratings`, `movielens_small` or `jester5k`, as in `load_ratings`, users by items, NaN where
        there is no rating; or a path to `.npy` (x) or `.npz` (`x`, optional `y`, `x_test`, `y_test`, `x_valid`,
        `y_valid`), where x is `[N, D]`, `[N, H, W]` or `[N, H, W, C]`. Values of type uint8 are divided by 255 (unless
        all are 0 or 1); bool, float and other integers are taken as they are.
      validation: fraction of the training split, in [0, 1); of a set with a validation split of its own that is taken
        whole, or not at all where this is 0.
      seed: of the permutation.

    Returns:
      The splits as float32; `[N, H, W]` becomes `[N, H, W, 1]`, vectors stay vectors.

    Raises:
      InputError: an unknown name or an unprepared set, at once; a file that cannot be used; too few examples.

    Example:
      >>> digits = load("digits")
      >>> digits.train.x.shape, len(digits.validation.x), len(digits.test.x), digits.image_shape
      ((1455, 8, 8, 1), 162, 180, (8, 8, 1))
    """
    if not 0 <= validation < 1:
        raise InputError(f"validation={validation}; a fraction from 0 up to, not including, 1 is needed.")
    if seed < 0:
        raise InputError(f"seed={seed}; it has to be zero or more.")
    arrays = _read(name)
    stem = Path(name).stem if files.is_file_name(name) else name
    has_own = arrays.x_valid is not None
    num_train, num_validation = _sizes(len(arrays.x), arrays.x_test is None, 0.0 if has_own else validation, name)
    rows: list[Any] = [slice(num_train), slice(num_train, None)]  # views: nothing is copied
    if files.is_file_name(name) or gathered.find(name) or arrays.x_test is None:
        order = np.random.default_rng(seed).permutation(len(arrays.x))
        rows = np.split(order, [num_train, num_train + num_validation])
    binary = _is_binary(arrays)

    def batch(x: np.ndarray, y: np.ndarray | None, rows: Any) -> Batch:
        return Batch(as_float32(x[rows], binary), None if y is None else y[rows].astype(np.int32, copy=False))

    if arrays.x_test is None:
        test = batch(arrays.x, arrays.y, rows[2])
    else:
        test = batch(arrays.x_test, arrays.y_test, slice(None))
    held_out = (arrays.x_valid, arrays.y_valid, slice(None)) if has_own else (arrays.x, arrays.y, rows[1])
    return Dataset(
        stem,
        batch(arrays.x, arrays.y, rows[0]),
        batch(*held_out) if validation else None,
        test,
        arrays.x.shape[1:] if arrays.x.ndim == 4 else None,
    )


def digest(name: str) -> str:
    """SHA-256 of what a set holds, as it is stored: shapes, dtypes and values of its arrays, in hexadecimal digits.

    Args:
      name: as in `load`.

    Raises:
      InputError: as `load` does for a set that cannot be read.

    Example:
      >>> digest("digits")[:8]
      '5fbfcce0'
    """
    return _digest(_read(name)) if files.is_file_name(name) else _digest_of_set(name)


@cache  # prepared sets stay as they are; files may change
def _digest_of_set(name: str) -> str:
    return _digest(_read(name))


def _digest(arrays: Arrays) -> str:
    found = hashlib.sha256()
    for field, array in zip(Arrays._fields, arrays, strict=True):
        if array is not None:
            found.update(f"{field} {array.dtype.str} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def flatten(dataset: Dataset) -> Dataset:
    """The set with every x as vectors `[N, D]`, for dense models; `image_shape` still says how to draw them."""

    def flat(batch: Batch) -> Batch:
        return batch._replace(x=batch.x.reshape(len(batch.x), -1))

    validation = None if dataset.validation is None else flat(dataset.validation)
    return dataset._replace(train=flat(dataset.train), validation=validation, test=flat(dataset.test))


def binarize(key: jax.Array, batch: Batch) -> Batch:
    """Stochastic binarisation: each pixel is 1 with its own value as the probability, for `transform_batch`.

    Args:
      key: consumed.
      batch: x in [0, 1].

    Returns:
      The batch with x in {0, 1}, of the same shape and dtype.

    Reference: Salakhutdinov & Murray (2008).
    """
    return batch._replace(x=jax.random.bernoulli(key, batch.x).astype(jnp.asarray(batch.x).dtype))


binarize.check = partial(check_examples, likelihood="bernoulli")  # type: ignore[attr-defined]


def threshold(batch: Batch) -> Batch:
    """Deterministic binarisation: 1 where x > 0.5, else 0.

    Example:
      >>> threshold(Batch(np.array([[0.2, 0.5, 0.7]], np.float32))).x.tolist()
      [[0.0, 0.0, 1.0]]
    """
    return batch._replace(x=(batch.x > 0.5).astype(batch.x.dtype))


def _read(name: str) -> Arrays:
    if files.is_file_name(name):
        return files.read(expanded(name))
    if name == "digits":
        extras.need("The data set 'digits'", "sklearn", extra="data")
        return _digits()
    if name in factors.FACTORED:
        return factors.read(name)
    if name in ratings.RATED:
        return Arrays(ratings.table(load_ratings(name)), None, None, None)
    if name == "cells":
        return Arrays(cells.cells().x, cells.cells().kind, None, None)
    if expanded(name).is_file():
        raise InputError(f"{name} is neither .npy nor .npz; save its examples with numpy.save or numpy.savez(x=...).")
    if path := gathered.find(name):
        return gathered.read(path, name)
    if name in gathered.READERS and prepared.find(name) is None:
        raise gathered.missing(name)
    return prepared.read(name)


@cache
def _digits() -> Arrays:
    # The file that sklearn.datasets.load_digits reads, without the second that importing scikit-learn takes.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), np.float32, delimiter=",")
    x, y = (table[:, :-1] / 16).reshape(-1, 8, 8, 1), table[:, -1].astype(np.int32)
    for array in (x, y):
        array.setflags(write=False)  # for they are kept
    return Arrays(x, y, None, None)


def _is_binary(arrays: Arrays) -> bool:
    parts = (arrays.x, arrays.x_test, arrays.x_valid)
    return all(x is None or (x.dtype == np.uint8 and x.max() <= 1) for x in parts)


def _sizes(size: int, needs_test: bool, validation: float, name: str) -> tuple[int, int]:
    """Examples in the training and the validation split."""
    test = max(1, round(size * TEST_FRACTION)) if needs_test else 0
    held_out = max(1, round((size - test) * validation)) if validation else 0
    train = size - test - held_out
    if train < 1:
        splits = 1 + (held_out > 0) + needs_test
        raise InputError(f"{name} has {size} examples, too few to divide into {splits} splits.")
    return train, held_out
