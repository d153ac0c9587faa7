"""Sprites: binary images of three shapes, one of every combination of five factors, drawn when they are asked for.

After the description of dSprites (Matthey, Higgins, Hassabis & Lerchner, 2017: 64x64, 6 scales, 40 orientations, 32
positions along each axis), smaller: 24x24, and the sizes of `SIZES`. As there, the orientation goes once around, so
that the square comes again after a quarter of a turn and the ellipse after half of one: their images occur 4 times and
twice. All other images are different from each other.
"""

from functools import cache

import numpy as np

SIZES = {"shape": 3, "scale": 4, "orientation": 12, "x": 8, "y": 8}  # values of each factor
SHAPES = ("square", "ellipse", "heart")
SIDE = 24  # pixels

_HALF_SIDES = (2.5, 3.4, 4.3, 5.2)  # of the square, pixels, by scale; the other shapes have its area
_WINDOW = SIDE - (SIZES["x"] - 1)  # pixels that a shape has, whatever its factors, wherever it stands
_SAMPLES = 8  # along each side of a pixel, which is lit where the shape covers half of them
_HEART_AREA, _HEART_CENTRE = 3.662, 0.29  # inside (u^2 + v^2 - 1)^3 = u^2 v^3, and its mean of v, by quadrature


@cache
def sprites() -> tuple[np.ndarray, np.ndarray]:
    """All of them, the last factor changing first.

    Returns:
      x, `[9216, 24, 24, 1]` uint8, 0 or 1; and the factors, `[9216, 5]` int32, in the order of `SIZES`: which of
      `SHAPES`; the scale, growing; the orientation in twelfths of a turn, counter-clockwise; the place in pixels, x to
      the right and y downwards. Both are read-only.

    Example:
      >>> x, factors = sprites()
      >>> factors[-1].tolist(), int(x[-1].sum())
      ([2, 3, 11, 7, 7], 109)
    """
    factors = np.stack(np.meshgrid(*map(np.arange, SIZES.values()), indexing="ij"), axis=-1).reshape(-1, len(SIZES))
    x = np.zeros((*SIZES.values(), SIDE, SIDE), np.uint8)
    for shape, scale, orientation in np.ndindex(x.shape[:3]):
        window = _draw(SHAPES[shape], _HALF_SIDES[scale], orientation)
        for left, top in np.ndindex(x.shape[3:5]):
            x[shape, scale, orientation, left, top, top : top + _WINDOW, left : left + _WINDOW] = window
    x, factors = x.reshape(-1, SIDE, SIDE, 1), factors.astype(np.int32)
    for array in (x, factors):
        array.setflags(write=False)  # for they are kept
    return x, factors


def _draw(shape: str, half_side: float, orientation: int) -> np.ndarray:
    """One shape in the middle of its window, `[_WINDOW, _WINDOW]` bool."""
    across = (np.arange(_WINDOW * _SAMPLES) + 0.5) / _SAMPLES - _WINDOW / 2
    x, y = np.meshgrid(across, -across)
    quarters, rest = divmod(4 * orientation, SIZES["orientation"])
    angle = np.pi / 2 * rest / SIZES["orientation"]
    c, s = np.cos(angle), np.sin(angle)
    for _ in range(quarters):  # exactly: half a turn of an ellipse is to give the same pixels
        c, s = -s, c
    u, v = (c * x + s * y) / half_side, (c * y - s * x) / half_side
    if shape == "square":
        inside = np.maximum(np.abs(u), np.abs(v)) <= 1
    elif shape == "ellipse":  # twice as long as broad
        inside = np.square(u) * np.pi / 8 + np.square(v) * np.pi / 2 <= 1
    else:
        size = np.sqrt(4 / _HEART_AREA)
        u, v = u / size, v / size + _HEART_CENTRE
        inside = (np.square(u) + np.square(v) - 1) ** 3 <= np.square(u) * v**3
    return inside.reshape(_WINDOW, _SAMPLES, _WINDOW, _SAMPLES).mean(axis=(1, 3)) >= 0.5
