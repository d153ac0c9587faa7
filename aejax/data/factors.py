"""Sets whose images are made of known factors: the sprites, and faces that lie in `$AEJAX_DATA`."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aejax.checks import InputError, expanded, nearest
from aejax.data import sprites
from aejax.data.arrays import Arrays, as_float32
from aejax.data.files import UNREADABLE
from aejax.data.gathered import absent, damaged


class Factored(NamedTuple):
    """A set that is not split, and what its images are made of, as NumPy arrays."""

    name: str
    x: np.ndarray  # [N, H, W, C] float32 in [0, 1]
    factors: np.ndarray  # [N, K] int32, each factor 0, 1, ...
    factor_names: tuple[str, ...]  # [K]


def load_factors(name: str) -> Factored:
    """Loads a set with the factors of its images, all of it.

    Args:
      name: `sprites`: 9,216 binary images 24x24 of `shape` 3, `scale` 4, `orientation` 12, `x` 8 and `y` 8, every
        combination once, drawn after the description of dSprites (`aejax.data.sprites`). Or `cmu_faces`: 624 grey
        faces 60x64 of `person` 20, `pose` 4, `expression` 4 and `eyes` 2, of 640 combinations, in
        `$AEJAX_DATA/cmu_faces/cmu_faces_60x64.npz` (`x` uint8, `factors`, `factor_names`; Mitchell 1999, UCI "CMU Face
        Images", without the 16 that are damaged there).

    Returns:
      The set. `aejax.data.load` gives it in splits, its labels the first factor.

    Raises:
      InputError: another name; the faces are not there, or their file is damaged.

    Example:
      >>> found = load_factors("sprites")
      >>> found.x.shape, found.factor_names
      ((9216, 24, 24, 1), ('shape', 'scale', 'orientation', 'x', 'y'))
    """
    if name not in FACTORED:
        raise InputError(f"{name!r} is no set with known factors. {nearest(name, FACTORED, what='sets')}")
    x, factors, names = FACTORED[name]()
    return Factored(name, as_float32(x, binary=x.max() <= 1), factors, names)


def read(name: str) -> Arrays:
    """The arrays of one of `FACTORED`, its labels the first factor."""
    x, factors, _ = FACTORED[name]()
    return Arrays(x, factors[:, 0], None, None)


_Found = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def _sprites() -> _Found:
    return *sprites.sprites(), tuple(sprites.SIZES)


def _cmu_faces() -> _Found:
    folder, file = os.environ.get("AEJAX_DATA"), "cmu_faces_60x64.npz"
    path = expanded(folder or ".") / "cmu_faces" / file
    if not folder or not path.is_file():
        raise absent("cmu_faces", file, "x of 'CMU Face Images' (UCI), 60x64 uint8, factors and factor_names")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            x, factors, names = (arrays[name] for name in ("x", "factors", "factor_names"))
    except (KeyError, *UNREADABLE) as error:
        raise damaged(path, error) from error
    return x[..., None], factors.astype(np.int32), tuple(map(str, names))


FACTORED: dict[str, Callable[[], _Found]] = {"sprites": _sprites, "cmu_faces": _cmu_faces}
