"""Images in two parts, one that is seen and one that is not: quadrants, halves, and what the two make together."""

from collections.abc import Callable
from typing import Any

import numpy as np

from aejax.checks import InputError, nearest
from aejax.data import Batch

REGIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of whether a pixel is in the lower, right half
    "left": lambda lower, right: ~right,
    "right": lambda lower, right: right,
    "upper": lambda lower, right: ~lower,
    "lower": lambda lower, right: lower,
    "upper_left": lambda lower, right: ~lower & ~right,
    "upper_right": lambda lower, right: ~lower & right,
    "lower_left": lambda lower, right: lower & ~right,
    "lower_right": lambda lower, right: lower & right,
}


def region(image_shape: tuple[int, ...], *names: str) -> np.ndarray:
    """Which numbers of an image lie in some of its quadrants and halves.

    Args:
      image_shape: (H, W) or (H, W, C). The middle row and column of odd sizes are of the lower and the right half.
      names: of `REGIONS`.

    Returns:
      Of that shape, bool: True within any of them, in all channels.

    Raises:
      InputError: no names or unknown ones, another number of axes, or a region that is empty or the whole image.

    Example:
      >>> region((2, 3), "lower_left").astype(int).tolist()
      [[0, 0, 0], [1, 0, 0]]
    """
    for name in names:
        if name not in REGIONS:
            raise InputError(f"Unknown region {name!r}. {nearest(name, REGIONS, what='regions')}")
    if len(image_shape) not in (2, 3):
        raise InputError(f"image_shape={image_shape}; images have a shape (H, W) or (H, W, C).")
    height, width = image_shape[:2]
    lower, right = np.arange(height)[:, None] >= height // 2, np.arange(width)[None] >= width // 2
    found = np.zeros((height, width), bool)
    for name in names:
        found |= REGIONS[name](lower, right)
    if found.all() or not found.any():
        raise InputError(f"The regions {names} are {'all' if found.any() else 'nothing'} of an image {image_shape}.")
    return np.broadcast_to(found.reshape(height, width, *(1,) * (len(image_shape) - 2)), image_shape).copy()


def split(x: Any, seen: np.ndarray) -> Batch:
    """Images as what is to be modelled, the part that is not seen, and its condition, the part that is.

    Args:
      x: `[N, ...]`, images or vectors of as many numbers as `seen` has.
      seen: bool, of one image, as `region` returns it.

    Returns:
      `Batch(x [N, U], y [N, S])`: a loss of x given y covers the U numbers that are not seen, and no other.

    Example:
      >>> split(np.array([[1.0, 2.0, 3.0]]), np.array([False, True, False]))
      Batch(x=array([[1., 3.]]), y=array([[2.]]))
    """
    flat = np.asarray(x).reshape(len(x), -1)
    if flat.shape[1] != seen.size:
        raise InputError(f"x has shape {np.shape(x)}, and seen {seen.shape}; they need as many numbers an example.")
    return Batch(flat[:, ~seen.ravel()], flat[:, seen.ravel()])


def join(unseen: Any, told: Any, seen: np.ndarray) -> np.ndarray:
    """What `split` took apart: `[N, U], [N, S] -> [N, *seen.shape]`; `unseen` may be what a model made of `told`.

    Example:
      >>> join(np.array([[1.0, 3.0]]), np.array([[2.0]]), np.array([False, True, False]))
      array([[1., 2., 3.]])
    """
    unseen, told = np.asarray(unseen), np.asarray(told)
    shapes = (len(unseen), int((~seen).sum())), (len(unseen), int(seen.sum()))
    if (unseen.shape, told.shape) != shapes:
        raise InputError(f"The parts have the shapes {unseen.shape} and {told.shape}; wanted are {shapes}.")
    whole = np.empty((len(unseen), seen.size), np.result_type(unseen, told))
    whole[:, ~seen.ravel()], whole[:, seen.ravel()] = unseen, told
    return whole.reshape(len(unseen), *seen.shape)
