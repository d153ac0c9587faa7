"""Eight bytes that tell parameters apart, for files that can be read with those alone that wrote them."""

import hashlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def of_params(params: Any, beside: Iterable[np.ndarray] = ()) -> bytes:
    """The first eight bytes of the SHA-256 of a tree of arrays: paths, shapes, dtypes and values.

    Args:
      params: by group.
      beside: further arrays that the file depends on.

    Example:
      >>> of_params({"w": np.zeros(2, np.float32)}) == of_params({"w": np.zeros((2, 1), np.float32)})
      False
    """
    found = hashlib.sha256()
    for path, leaf in (*jax.tree_util.tree_leaves_with_path(params), *(((), array) for array in beside)):
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.digest()[:8]
