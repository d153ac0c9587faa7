"""Sets that lie in one folder, `$AEJAX_DATA/NAME/NAME.npz`, in the layout in which each is handed around.

One reader for each layout; what is in the files, and where they come from, is said there.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aejax.checks import InputError, expanded, nearest
from aejax.data import words
from aejax.data.arrays import Arrays
from aejax.data.files import UNREADABLE

_Files = dict[str, np.ndarray]
_DRAWINGS = 20  # of each character of Omniglot
_GENES = 2000  # of a set of counts, dense
_WORDS = 2000  # of documents, likewise
_FILE_OF = {"omniglot28_drawings": "omniglot28"}  # of a set that is another's, split otherwise


def find(name: str) -> Path | None:
    """The file of a set, or None: the name is not among `READERS`, or there is no such file."""
    folder = os.environ.get("AEJAX_DATA")
    path = expanded(folder) / _stem(name) / f"{_stem(name)}.npz" if folder and name in READERS else None
    return path if path is not None and path.is_file() else None


def _stem(name: str) -> str:
    return _FILE_OF.get(name, name)


def read(path: Path, name: str) -> Arrays:
    """The arrays of a set whose file that is.

    Raises:
      InputError: the file is damaged, or lacks an array.
    """
    return _opened(path, READERS[name])


def _opened(path: Path, reader: Callable[[_Files], Any]) -> Any:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return reader(dict(arrays))
    except (KeyError, *UNREADABLE) as error:
        raise damaged(path, error) from error


def load_documents(name: str = "newsgroups20") -> words.Documents:
    """Documents with all of their words, sparse; `load` has the 2,000 most frequent of them, dense.

    Args:
      name: `newsgroups20`, in `$AEJAX_DATA`: 20 Newsgroups, sorted by date into 11,269 and 7,505 posts.

    Raises:
      InputError: another name; the set is not there, or its file is damaged.

    Reference: Lang (1995), "NewsWeeder: learning to filter netnews".
    """
    if name != "newsgroups20":
        raise InputError(f"{name!r} is no set of documents. {nearest(name, ['newsgroups20'], what='sets')}")
    if (path := find(name)) is None:
        raise missing(name)
    return _opened(path, words.documents)


def missing(name: str) -> InputError:
    """The error for one of `READERS` that is not there."""
    return absent(name, f"{_stem(name)}.npz", _SOURCES[_stem(name)])


def absent(name: str, file: str, holds: str) -> InputError:
    """The error for a file that is not in the folder of its set."""
    folder = os.environ.get("AEJAX_DATA")
    where = f"not in {folder}" if folder else "looked for in the folder AEJAX_DATA, which is not set"
    return InputError(f"The data set {name!r} is {where}. Put {_stem(name)}/{file} there: {holds}.")


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


def _omniglot28_drawings(arrays: _Files) -> Arrays:
    """The same images, the first 15 drawings of each character to train and the last 5 to test: 24,345 and 8,115.

    Drawings are in the order of the people who made them, 20 for each alphabet, so 5 people of each are new. Burda et
    al. (2016) train on 24,345 images and test on 8,070. Labels are left out: 1,623 classes of 15 images are no task
    for a probe.
    """
    x, y = (np.concatenate([arrays[f"{kind}_{part}"] for part in ("train", "test")]) for kind in "xy")
    if (np.unique(y, return_counts=True)[1] != _DRAWINGS).any():
        raise ValueError(f"its characters do not have {_DRAWINGS} drawings each")
    by_character = x[np.argsort(y, kind="stable")].reshape(-1, _DRAWINGS, 28, 28, 1)
    train, test = (part.reshape(-1, 28, 28, 1) for part in np.split(by_character, [15], axis=1))
    return Arrays(train, None, test, None)


def _worm_neurons(arrays: _Files) -> Arrays:
    """Counts in CSR form, `shape`, `indptr`, `indices`, `counts`, of which `most_variable` are kept; and `labels`."""
    csr = (arrays[name].astype(np.int64) for name in ("shape", "indptr", "indices", "counts"))
    return Arrays(most_variable(*csr, num_genes=_GENES), arrays["labels"], None, None)


def _newsgroups20(arrays: _Files) -> Arrays:
    """Word counts in CSR form, as `aejax.data.words` has it, of which the most frequent words are kept."""
    found = words.frequent(words.documents(arrays), _WORDS)
    train, test = (part.toarray().astype(np.int32) for part in (found.train, found.test))
    return Arrays(train, found.train_labels, test, found.test_labels)


def most_variable(
    shape: np.ndarray, indptr: np.ndarray, indices: np.ndarray, counts: np.ndarray, *, num_genes: int
) -> np.ndarray:
    """The columns of a sparse matrix of counts that vary most, dense, `[N, num_genes]` int32; the first the most.

    What is to vary is `log(1 + 10^4 x / library)`, where the library is the sum of a row over all columns. No matrix of
    all columns is made.

    Args:
      shape: `[N, D]`.
      indptr, indices, counts: of the CSR form; integers.
      num_genes: how many columns; all where there are fewer.
    """
    num_cells, num_columns = shape.tolist()
    cells = np.repeat(np.arange(num_cells), np.diff(indptr))
    values = np.log1p(1e4 * counts / np.bincount(cells, counts, num_cells)[cells])
    mean, mean_sq = (np.bincount(indices, values**power, num_columns) / num_cells for power in (1, 2))
    chosen = np.argsort(mean**2 - mean_sq, kind="stable")[:num_genes]
    place = np.full(num_columns, -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[indices] >= 0
    x = np.zeros((num_cells, len(chosen)), np.int32)
    x[cells[kept], place[indices[kept]]] = counts[kept]
    return x


def _unpacked(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.unpackbits(rows, axis=1).reshape(len(rows), *shape)


READERS: dict[str, Callable[[_Files], Arrays]] = {
    "binarized_mnist": _binarized_mnist,
    "newsgroups20": _newsgroups20,
    "omniglot28": _omniglot28,
    "omniglot28_drawings": _omniglot28_drawings,
    "worm_neurons": _worm_neurons,
}
_SOURCES = {
    "binarized_mnist": "train, valid and test of Larochelle and Murray (2011), bits packed along the last axis; or"
    " prepare it once, with a network: python -m aejax.data prepare binarized_mnist",
    "newsgroups20": "counts of words in 20 Newsgroups by date (Lang 1995), as aejax.data.words says: of train and"
    " test the CSR form and labels, vocab and label_names",
    "omniglot28": "x_train, y_train, x_test, y_test of Lake et al. (2015), 28x28 uint8, drawings averaged over area",
    "worm_neurons": "counts of genes in neurons of C. elegans, of Cao et al. (2017), GEO GSE98561: shape, indptr,"
    " indices and counts of the CSR form, cells by genes, and labels",
}
