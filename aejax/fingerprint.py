"""Eight bytes that tell models apart, for files that can be read with those alone that wrote them."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def of_params(params: Any, beside: Iterable[np.ndarray] = (), *, model: Any = None) -> bytes:
    """The first eight bytes of the SHA-256 of a tree of arrays: paths, shapes, dtypes and values.

    Args:
      params: by group.
      beside: further arrays that the file depends on.
      model: what the file depends on of modules and functions: their names, and their fields.

    Example:
      >>> of_params({"w": np.zeros(2, np.float32)}) == of_params({"w": np.zeros((2, 1), np.float32)})
      False
    """
    found = hashlib.sha256(_described(model).encode())
    for path, leaf in (*jax.tree_util.tree_leaves_with_path(params), *(((), array) for array in beside)):
        array = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype.name} {array.shape} ".encode() + array.tobytes())
    return found.digest()[:8]


def _described(value: Any) -> str:
    """Without the places in memory that `repr` has of functions, and without the module, which a version may change."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init and field.name != "parent"]
        return f"{type(value).__name__}({', '.join(f'{name}={_described(getattr(value, name))}' for name in fields)})"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_described, value))})"
    return getattr(value, "__name__", None) or repr(value)
