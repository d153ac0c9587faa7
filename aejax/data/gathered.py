"""Sets that lie in one folder, `$AEJAX_DATA/NAME/NAME.npz`, in the layout in which each is handed around.

One reader for each layout; what is in the files, and where they come from, is said there.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aejax.checks import InputError, expanded
from aejax.data.arrays import Arrays
from aejax.data.files import UNREADABLE

_Files = dict[str, np.ndarray]


def find(name: str) -> Path | None:
    """The file of a set, or None: the name is not among `READERS`, or there is no such file."""
    folder = os.environ.get("AEJAX_DATA")
    path = expanded(folder) / name / f"{name}.npz" if folder and name in READERS else None
    return path if path is not None and path.is_file() else None


def read(path: Path) -> Arrays:
    """The arrays of the set that lies there.

    Raises:
      InputError: the file is damaged, or lacks an array.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return READERS[path.stem](dict(arrays))
    except (KeyError, *UNREADABLE) as error:
        raise damaged(path, error) from error


def missing(name: str) -> InputError:
    """The error for one of `READERS` that is not there."""
    return absent(name, f"{name}.npz", _SOURCES[name])


def absent(name: str, file: str, holds: str) -> InputError:
    """The error for a file that is not in the folder of its set."""
    folder = os.environ.get("AEJAX_DATA")
    where = f"not in {folder}" if folder else "looked for in the folder AEJAX_DATA, which is not set"
    return InputError(f"The data set {name!r} is {where}. Put {name}/{file} there: {holds}.")


def damaged(path: Path, error: Exception) -> InputError:
    """The error for a file that is there and cannot be read."""
    return InputError(f"{path} cannot be read ({error}). Copy it again from where it came.")


def _binarized_mnist(arrays: _Files) -> Arrays:
    """Larochelle's binary images, packed: `train`, `valid`, `test`, `[N, 98]` bytes; sorted by class."""
    train, valid, test = (_unpacked(arrays[name], (28, 28, 1)) for name in ("train", "valid", "test"))
    return Arrays(train, None, test, None, valid)


def _omniglot28(arrays: _Files) -> Arrays:
    """Ink is 255. Characters of the two parts are disjoint, so that they are no classes."""
    train, test = (arrays[name][..., None] for name in ("x_train", "x_test"))
    return Arrays(train, None, test, None)


def _unpacked(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(rows, axis=1).reshape(len(rows), *shape)


READERS: dict[str, Callable[[_Files], Arrays]] = {"binarized_mnist": _binarized_mnist, "omniglot28": _omniglot28}
_SOURCES = {
    "binarized_mnist": "train, valid and test of Larochelle and Murray (2011), bits packed along the last axis; or"
    " prepare it once, with a network: python -m aejax.data prepare binarized_mnist",
    "omniglot28": "x_train and x_test of Lake et al. (2015), 28x28 uint8, the drawings averaged over area",
}
