"""Sets that a user brings: `.npy` and `.npz` files."""

import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from aejax.checks import InputError, nearest
from aejax.data.arrays import Arrays, check_finite, check_kind, check_memory

SUFFIXES = (".npy", ".npz")
UNREADABLE = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)


def is_file_name(name: str) -> bool:
    """Whether a name means a file rather than a set."""
    return Path(name).suffix.lower() in SUFFIXES


def read(path: Path) -> Arrays:
    """The checked arrays of a file; images `[N, H, W]` get their channel axis.

    Raises:
      InputError: the file is missing, empty, truncated or not what its suffix says; or its arrays cannot be used.
    """
    if not path.is_file():
        found = [p.name for p in path.parent.glob("*") if p.is_file() and is_file_name(p.name)]
        hint = nearest(path.name, found, what="files there") if found else "Its folder holds no .npy or .npz file."
        raise InputError(f"There is no file {path}. {hint}")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).")
    try:
        arrays = _read_npy(path) if path.suffix.lower() == ".npy" else _read_npz(path)
    except InputError:
        raise
    except UNREADABLE as e:
        raise InputError(
            f"{path} cannot be read ({e}). It may be cut short, or not be a {path.suffix} file; write it again with"
            f" numpy.{'save' if path.suffix.lower() == '.npy' else 'savez'}."
        ) from e
    return _check(arrays, path.name)


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        return {"x": _read_array(stream, f"x of {path.name}")}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in found:
            holds = f"arrays {', '.join(found)}" if found else "no arrays"
            raise InputError(f"{path} holds {holds}; the examples have to be named x (labels y, a test set x_test).")
        for name in Arrays._fields:
            if name in found:
                with archive.open(f"{name}.npy") as stream:
                    arrays[name] = _read_array(stream, f"{name} of {path.name}")
    return arrays


def _read_array(stream: IO[bytes], what: str) -> np.ndarray:
    """One array; its header is checked before anything is allocated."""
    header_1 = np.lib.format.read_magic(stream) == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if header_1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if what.startswith("x"):
        check_kind(shape, dtype, what)
        check_memory(4 * int(np.prod(shape, dtype=object)), what)
    elif dtype.kind not in "buif":
        raise InputError(f"{what} has dtype {dtype}; labels have to be integers.")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _check(arrays: dict[str, np.ndarray], file: str) -> Arrays:
    x, found = arrays["x"], {}
    for split in ("", "_test", "_valid"):
        part, labels = arrays.get(f"x{split}"), arrays.get(f"y{split}")
        if part is None and labels is not None:
            raise InputError(f"{file} holds y{split} without x{split}.")
        if part is not None:
            found[f"x{split}"] = _examples(part, f"x{split} of {file}", like=x if split else None)
        if part is not None and labels is not None:
            found[f"y{split}"] = _labels(labels, len(part), f"y{split} of {file}")
    return Arrays(**{"y": None, "x_test": None, "y_test": None, **found})  # type: ignore[arg-type]


def _examples(x: np.ndarray, what: str, like: np.ndarray | None = None) -> np.ndarray:
    check_finite(x, what)
    if like is not None and x.shape[1:] != like.shape[1:]:
        raise InputError(f"{what} has examples of shape {x.shape[1:]}; those of x are {like.shape[1:]}.")
    if like is not None and (x.dtype == np.uint8) != (like.dtype == np.uint8):
        raise InputError(f"{what} is {x.dtype} and x is {like.dtype}; uint8 is divided by 255, so both have to be.")
    return x[..., None] if x.ndim == 3 else x


def _labels(y: np.ndarray, size: int, what: str) -> np.ndarray:
    if y.shape == (size, 1):
        y = y[:, 0]
    if y.shape != (size,):
        advice = ""
        if y.ndim == 2 and y.shape[0] == size:
            one_hot = ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
            advice = " They are one-hot: y.argmax(axis=1)." if one_hot else " Choose one of its columns: y[:, 0]."
        raise InputError(f"{what} has shape {y.shape}; one integer for each of the {size} examples is needed.{advice}")
    with np.errstate(invalid="ignore"):
        labels = y.astype(np.int32)
    wrong = np.flatnonzero(labels != y)
    if wrong.size:
        raise InputError(f"{what} holds {y[wrong[0]]} in row {wrong[0]}; labels have to be integers (of 32 bits).")
    return labels
