"""The directions of the input that a code follows most, as images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import MARGIN, SOFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_APART = 28  # pixels between the blocks


def tangents(
    x: ArrayLike, directions: Mapping[str, ArrayLike], image_shape: tuple[int, ...], *, step: float
) -> "Figure":
    """Examples, directions at each, and what a step along them does: a row for each example and method.

    Directions share one colour scale, white at zero; images share one grey scale.

    Args:
      x: `[N, ...]` in [0, 1].
      directions: by the name of the method, `[N, K, D]` of length one.
      image_shape: as in `images`; the directions of colour images are summed over the channels.
      step: how far `x - step v` and `x + step v` are from x.

    Raises:
      InputError: the methods differ in the shape of their directions, or it does not fit the images.
    """
    originals = canvas.as_tiles(x, image_shape)
    parts = {name: np.asarray(v, np.float64) for name, v in directions.items()}
    shapes = {v.shape for v in parts.values()}
    if len(shapes) != 1 or next(iter(shapes))[0] != len(originals) or next(iter(shapes))[1:2] == ():
        found = ", ".join(f"{name} {list(v.shape)}" for name, v in parts.items())
        raise InputError(
            f"Directions of {len(originals)} images are [{len(originals)}, K, D], for each method: {found}."
        )
    num, k = next(iter(shapes))[:2]
    stacked = np.stack(list(parts.values()), axis=1)  # [N, methods, K, D]
    flat = np.asarray(x, np.float64).reshape(num, 1, 1, 1, -1)
    moved = flat + step * np.array([-1.0, 1.0])[:, None] * stacked[:, :, :, None, :]  # [N, methods, K, 2, D]
    tiles = canvas.as_tiles(stacked.reshape(num * len(parts) * k, -1), image_shape)
    tiles = tiles.sum(axis=-1) if tiles.ndim == 4 else tiles
    steps = canvas.as_tiles(moved.reshape(num * len(parts) * k * 2, -1), image_shape)

    scale = canvas.pixel_scale(originals)
    gap = canvas.mosaic_gap(scale)
    (across, tall), (wide, _), (wider, _) = (
        canvas.mosaic_size(originals[:1], columns, scale, gap) for columns in (1, k, 2 * k)
    )
    pitch, room = tall + gap * scale, 24 + 12 * max(map(len, parts))
    lefts = np.cumsum([MARGIN + room, across + _APART, wide + _APART])
    title = f"directions that the code follows most, steps of {step:.2g}"
    block = len(parts) * pitch + _APART
    width = max(int(lefts[2]) + wider, MARGIN + canvas.title_width(title)) + MARGIN
    figure = canvas.blank(width, MARGIN + 100 + num * block + MARGIN)
    canvas.title(figure, title)
    limit = float(np.abs(tiles).max()) or 1.0
    heads = ("x", f"v_1 to v_{k}: red +{limit:.2g}, blue -{limit:.2g}", f"x - step v, x + step v, for v_1 to v_{k}")
    top = MARGIN + 100
    canvas.write(figure, lefts[0], top - 12, heads[0], size=8, color=SOFT)
    canvas.write(figure, lefts[1], top - 36, heads[1], size=8, color=SOFT)
    canvas.write(figure, lefts[2], top - 12, heads[2], size=8, color=SOFT)
    for i in range(num):
        for j, name in enumerate(parts):
            row, y = (i * len(parts) + j) * k, top + i * block + j * pitch
            canvas.write(figure, lefts[0] - 18, y + tall / 2, name, ha="right", va="center")
            canvas.draw(figure, int(lefts[0]), y, originals[i : i + 1], 1, scale, gap)
            colors = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
            canvas.draw(figure, int(lefts[1]), y, tiles[row : row + k], k, scale, gap, **colors)
            canvas.draw(figure, int(lefts[2]), y, steps[2 * row : 2 * (row + k)], 2 * k, scale, gap)
    return figure
