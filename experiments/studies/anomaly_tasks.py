"""What the study `anomaly` detects: rows to train on, rows to judge, and which of these are anomalies.

The eight tables of ADBench (Han et al., NeurIPS 2022) and the heartbeats of ECG5000 (Chen et al., UCR archive;
Goldberger et al. 2000) are read where they lie, in `$AEJAX_DATA/adbench/NAME.npz` and `$AEJAX_DATA/ecg5000/`. No
detector is here.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax import data
from aejax.checks import InputError, expanded
from aejax.data import files, gathered

TABLES = (
    "annthyroid", "breastw", "cardio", "ionosphere", "mammography", "optdigits", "satellite", "thyroid",
)  # fmt: skip
ECG = "ecg5000"
_RESAMPLED = 1000  # rows: a smaller table is drawn to so many with replacement, by the published protocol


class Task(NamedTuple):
    """One set to train on and one to judge."""

    name: str
    train: np.ndarray  # [N, D] float32, normal rows alone
    test: np.ndarray  # [M, D] float32, other rows, some of which may be equal to one of train
    is_outlier: np.ndarray  # [M] bool
    image_shape: tuple[int, int, int] | None = None
    is_series: bool = False  # heartbeats
    twice: int = 0  # rows of test that are equal to one of train


def names(dataset: str) -> tuple[str, ...]:
    """The tasks of a set by name: a class of the digits or of an image set each, a table each, or one."""
    if dataset == "adbench":
        return TABLES
    if dataset in (*TABLES, ECG) or files.is_file_name(dataset):
        return (Path(dataset).stem,)
    y = data.load(dataset, validation=0.0).train.y
    if y is None:
        raise InputError(f"{dataset} has no labels; what is normal is told by its class.")
    return tuple(f"{dataset} {int(label)}" for label in np.unique(y))


def digest(dataset: str) -> str:
    """SHA-256 of the files of a set, or that of `aejax.data.digest`."""
    if dataset not in ("adbench", *TABLES, ECG):
        return data.digest(dataset)
    found = hashlib.sha256()
    for name in names(dataset):
        found.update(_path(ECG if dataset == ECG else "adbench", name).read_bytes())
    return found.hexdigest()


@lru_cache(maxsize=1)  # the detectors of one task are measured one after the other
def task(dataset: str, name: str, protocol: str, seed: int) -> Task:
    """One task of a set.

    A class of an image set is normal: its training images train, and the whole test split is judged (Ruff et al. 2018).
    Of a table half of the normal rows train; the rest and all anomalies are judged.

    Args:
      dataset: as the command line has it.
      name: one of `names(dataset)`.
      protocol: of a table, `file`: the first half of the normal rows in the order of the file (Livernoche et al. 2024),
        where one of ADBench's tables that has less than 1,000 rows is first drawn to 1,000 with replacement;
        `shuffled`: a random half. Heartbeats are always shuffled.
      seed: of that half, or of that draw.

    Raises:
      InputError: the set is not there, or has no two normal rows or no anomaly.
    """
    rng = np.random.default_rng(seed)
    if dataset == ECG:
        x, y = _arrays(ECG, "ecg5000", "x_train", "y_train", "x_test", "y_test")
        return _halved(name, x, y, rng, shuffled=True)._replace(is_series=True)
    if dataset == "adbench" or dataset in TABLES:
        x, y = _arrays("adbench", name, "x", "y")
    elif files.is_file_name(dataset):
        own = files.read(expanded(dataset))
        if own.y is None or own.x.ndim != 2:
            raise InputError(f"{dataset} needs x [N, D] and y [N], 0 for normal rows and another number for anomalies.")
        x, y = own.x, own.y
    else:
        return _one_class(dataset, name)
    if protocol == "file" and len(x) < _RESAMPLED and not files.is_file_name(dataset):
        rows = rng.integers(len(x), size=_RESAMPLED)
        x, y = x[rows], y[rows]
    return _halved(name, x, y, rng, shuffled=protocol == "shuffled")


def _one_class(dataset: str, name: str) -> Task:
    loaded = data.load(dataset, validation=0.0)
    label, (train, test) = int(name.rpartition(" ")[2]), (loaded.train, loaded.test)
    rows = train.x[train.y == label]
    flat = lambda x: x.reshape(len(x), -1)
    return Task(name, flat(rows), flat(test.x), test.y != label, loaded.image_shape)


def _halved(name: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, *, shuffled: bool) -> Task:
    normal, odd = np.flatnonzero(y == 0), np.flatnonzero(y != 0)
    if len(normal) < 2 or not len(odd):
        raise InputError(f"{name} has {len(normal)} normal rows and {len(odd)} anomalies; two and one are needed.")
    if shuffled:
        normal = rng.permutation(normal)
    half = len(normal) // 2
    train, test = x[normal[:half]].astype(np.float32), x[np.concatenate([normal[half:], odd])].astype(np.float32)
    known = {row.tobytes() for row in train}
    twice = sum(row.tobytes() in known for row in test)
    return Task(name, train, test, np.arange(len(test)) >= len(normal) - half, twice=twice)


def _arrays(folder: str, name: str, *fields: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a set, its parts one after the other."""
    path = _path(folder, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts: list[Any] = [arrays[field] for field in fields]
    except (KeyError, *files.UNREADABLE) as error:
        raise gathered.damaged(path, error) from error
    return np.concatenate(parts[::2]), np.concatenate(parts[1::2])


def _path(folder: str, name: str) -> Path:
    root = os.environ.get("AEJAX_DATA")
    path = expanded(root) / folder / f"{name}.npz" if root else None
    if path is None or not path.is_file():
        raise gathered.absent(folder, f"{name}.npz", "arrays x and y, where y is 0 for normal rows")
    return path
