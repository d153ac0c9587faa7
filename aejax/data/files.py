"""Sets that a user brings: `.npy` and `.npz` files."""

import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from aejax.checks import InputError, nearest
from aejax.data.arrays import Arrays, check_finite, check_kind, check_memory

SUFFIXES = (".npy", ".npz")
_UNREADABLE = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)


def is_file_name(name: str) -> bool:
    """Whether a name means a file rather than a set."""
    return Path(name).suffix.lower() in SUFFIXES


def read(path: Path) -> Arrays:
    """The checked arrays of a file; images get their channel axis.

    Raises:
      InputError: the file is missing, empty, truncated or not what its suffix says; or its arrays cannot be used.
    """
    if not path.is_file():
        found = [p.name for p in path.parent.iterdir() if is_file_name(p.name)] if path.parent.is_dir() else []
        hint = nearest(path.name, found, what=f"files in {path.parent}") if found else ""
        raise InputError(f"There is no file {path}. {hint}".strip())
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    arrays = _read_npy(path) if path.suffix.lower() == ".npy" else _read_npz(path)
    x = _examples(arrays["x"], f"x of {path.name}")
    y = _labels(arrays.get("y"), len(x), path.name, "y")
    if "x_test" not in arrays:
        return Arrays(x, y, None, None)
    x_test = _examples(arrays["x_test"], f"x_test of {path.name}")
    if (x_test.shape[1:], x_test.dtype) != (x.shape[1:], x.dtype):
        raise InputError(
            f"In {path.name}, an example of x_test is {x_test.shape[1:]} {x_test.dtype} and one of x"
            f" {x.shape[1:]} {x.dtype}; they have to agree."
        )
    return Arrays(x, y, x_test, _labels(arrays.get("y_test"), len(x_test), path.name, "y_test"))


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        return {"x": _read_stream(stream, path, "x")}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as e:
        raise _unreadable(path, e) from e
    with archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in names:
            raise InputError(f"{path} holds no array x; it has {', '.join(names) or 'none'}. Name the examples x.")
        arrays: dict[str, np.ndarray] = {}
        for name in ("x", "y", "x_test", "y_test"):
            if name in names:
                try:
                    stream = archive.open(f"{name}.npy")
                except (KeyError, *_UNREADABLE) as e:
                    raise _unreadable(path, e) from e
                with stream:
                    arrays[name] = _read_stream(stream, path, name)
    return arrays


def _read_stream(stream: IO[bytes], path: Path, name: str) -> np.ndarray:
    """One array; its header is checked before anything is allocated."""
    what = f"{name} of {path.name}"
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except _UNREADABLE as e:
        raise _unreadable(path, e) from e
    if name.startswith("x"):
        check_kind(shape, dtype, what)
        check_memory(4 * int(np.prod(shape, dtype=object)), what)
    elif dtype.kind not in "buif":
        raise InputError(f"{what} has dtype {dtype}; labels are integers.")
    try:
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except _UNREADABLE as e:
        raise _unreadable(path, e) from e


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path} cannot be read as {path.suffix} ({error}); it may be cut short or of another format.")


def _examples(x: np.ndarray, what: str) -> np.ndarray:
    check_finite(x, what)
    return x[..., None] if x.ndim == 3 else x


def _labels(y: np.ndarray | None, size: int, file: str, name: str) -> np.ndarray | None:
    if y is None:
        return None
    if y.shape != (size,):
        raise InputError(f"{name} of {file} has shape {y.shape}; ({size},) is needed, one label for each example.")
    bounds = np.iinfo(np.int32)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(y) & (y == np.round(y)) if y.dtype.kind == "f" else np.ones(size, bool)
        good = whole & (y >= bounds.min) & (y <= bounds.max)
    if not good.all():
        row = int(good.argmin())
        raise InputError(f"{name} of {file} holds {y[row]} in row {row}; labels are integers that fit int32.")
    return y
