"""The one picture of `python -m experiments compare`."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.plots import canvas
from aejax.plots.canvas import MARGIN, SOFT
from aejax.plots.latent import legend, legend_width, project, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = "test images and their reconstructions"
_SHOWN = 10  # images
_APART = 18  # pixels between the originals and the rest
_BETWEEN = 24  # pixels between the plots of the codes


class Column(NamedTuple):
    """What one method made of the test images."""

    z: ArrayLike  # [N, Z] codes
    x_hat: ArrayLike  # [N, ...] reconstructions
    samples: ArrayLike | None  # [S, ...] draws, where the method can
    note: str = ""  # beneath its name, such as its error


def compare_sheet(
    x: ArrayLike,
    y: ArrayLike | None,
    columns: Mapping[str, Column],
    image_shape: tuple[int, ...] | None,
    *,
    title: str = "",
) -> "Figure":
    """Methods beside each other: originals over reconstructions, codes by label, and samples.

    Args:
      x: `[N, ...]` test images, of which ten are shown: the first of every class, equally many.
      y: `[N]` labels, if any.
      columns: by the name of the method.
      image_shape: as in `images`; None for data that are no images, of which only the codes are shown.
      title: over the sheet.
    """
    labels = None if y is None else np.asarray(y)
    head = 100 if title else 40  # down to the first block
    if image_shape is None:
        side, top = 380, MARGIN + head
        per_row = min(3, len(columns))
        rows = -(-len(columns) // per_row)
        width, height = per_row * (side + _BETWEEN) - _BETWEEN, rows * (side + _BETWEEN) - _BETWEEN
        figure = canvas.blank(width + 2 * MARGIN, top + height + MARGIN)
        _codes(figure, (MARGIN, top, width, height), per_row, columns, labels)
        canvas.write(figure, MARGIN, MARGIN + 24, title, size=15, weight="bold")
        return figure

    shown = _choose(len(np.asarray(x)), labels)
    originals = canvas.as_tiles(np.asarray(x)[shown], image_shape)
    scale = canvas.pixel_scale(originals)
    gap = canvas.mosaic_gap(scale)
    width, tall = canvas.mosaic_size(originals, len(shown), scale, gap)
    step = tall + gap * scale
    height = tall + _APART + len(columns) * step - gap * scale

    # Everything stands on the columns of the tiles: one is left free before the codes, and the codes fill whole ones.
    left = MARGIN + _label_width(columns)
    pitch = (originals.shape[2] + gap) * scale
    before = 1 + math.ceil(max(len(shown), 11 * len(_IMAGES) / pitch))  # tiles left of the codes
    right = left + before * pitch
    rows = max(1, round(height / 330))
    per_row = -(-len(columns) // rows)
    side = (height + _BETWEEN) // rows - _BETWEEN
    heading = "codes of the test images" + _projection(columns)
    legend_room = 0 if labels is None else legend_width(np.unique(labels)) + 40
    room = math.ceil(max(per_row * (side + _BETWEEN), 11 * len(heading) + legend_room) / pitch)  # tiles above the codes
    total = right + room * pitch - gap * scale + MARGIN
    top = MARGIN + head
    drawers = {name: column.samples for name, column in columns.items() if column.samples is not None}
    below = top + height + 84  # where samples begin
    figure = canvas.blank(total, (below + len(drawers) * step if drawers else top + height) + MARGIN)

    canvas.write(figure, MARGIN, MARGIN + 24, title, size=15, weight="bold")
    _heading(figure, left, top, _IMAGES)
    _row(figure, left, top, "original", "", originals, scale, gap)
    for i, (name, column) in enumerate(columns.items()):
        tiles = canvas.as_tiles(np.asarray(column.x_hat)[shown], image_shape)
        _row(figure, left, top + tall + _APART + i * step, name, column.note, tiles, scale, gap)
    _heading(figure, right, top, heading)
    _codes(figure, (right, top, total - MARGIN - right, height), per_row, columns, labels)
    if drawers:
        _heading(figure, left, below, "samples: what the decoder makes of draws from the prior")
        for i, (name, x_hat) in enumerate(drawers.items()):
            tiles = canvas.as_tiles(x_hat, image_shape)[: before + room]
            _row(figure, left, below + i * step, name, "", tiles, scale, gap)
    return figure


def _choose(size: int, y: np.ndarray | None) -> np.ndarray:
    """Which images are shown: of every class equally many, the first ones, class by class."""
    if y is None:
        return np.arange(min(size, _SHOWN))
    _, index, counts = np.unique(y, return_inverse=True, return_counts=True)
    order = np.argsort(index, kind="stable")
    rank = np.empty(size, int)  # how many of its class come before
    rank[order] = np.arange(size) - (np.cumsum(counts) - counts)[index[order]]
    chosen = np.lexsort((index, rank))[:_SHOWN]
    return chosen[np.lexsort((rank[chosen], index[chosen]))]


def _heading(figure: "Figure", left: float, top: float, text: str) -> None:
    canvas.write(figure, left, top - 14, text, color=SOFT)


def _row(figure: "Figure", left: int, top: int, name: str, note: str, tiles: np.ndarray, scale: int, gap: int) -> None:
    """Images in one row, the name of the method to their left."""
    middle = top + tiles.shape[1] * scale / 2
    canvas.write(figure, left - 20, middle - (9 if note else 0), name, size=10, weight="bold", ha="right", va="center")
    canvas.write(figure, left - 20, middle + 16, note, size=7, color=SOFT, ha="right", va="center")
    canvas.draw(figure, left, top, tiles, len(tiles), scale, gap)


def _codes(
    figure: "Figure", box: tuple[int, int, int, int], per_row: int, columns: Mapping[str, Column], y: np.ndarray | None
) -> None:
    """A scatter plot a method, filling a box (left, top, width, height), and over it the legend of them all."""
    left, top, width, height = box
    rows = -(-len(columns) // per_row)
    across, down = (width + _BETWEEN) / per_row, (height + _BETWEEN) / rows
    for i, (name, column) in enumerate(columns.items()):
        z = np.asarray(column.z)
        row, place = divmod(i, per_row)
        ax = canvas.place(figure, left + place * across, top + row * down, across - _BETWEEN, down - _BETWEEN)
        scatter(ax, project(z)[0], y, size=max(1.5, min(9.0, 6e3 / len(z))), label_size=8)
        ax.set_xticks([])
        ax.set_yticks([])
        backing = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
        canvas.write(
            figure,
            left + place * across + 10,
            top + row * down + 24,
            name,
            size=8,
            weight="bold",
            bbox=backing,
            zorder=9,
        )
    if y is not None:
        classes = np.unique(y)
        legend(figure, left + width - legend_width(classes), top - 20, classes)


def _projection(columns: Mapping[str, Column]) -> str:
    """How codes of more than two dimensions are shown."""
    sizes = sorted({np.shape(column.z)[1] for column in columns.values()} - {1, 2})
    return f", principal components of {', '.join(f'{size}-D' for size in sizes)}" if sizes else ""


def _label_width(columns: Mapping[str, Column]) -> int:
    return 44 + max(
        9 * max(len(column.note) for column in columns.values()), 15 * max(map(len, (*columns, "original")))
    )
