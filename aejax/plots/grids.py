"""Images in rows and grids: data beside their reconstructions, samples, first-layer filters."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import MARGIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def images(x: ArrayLike, image_shape: tuple[int, ...], *, columns: int | None = None, title: str = "") -> "Figure":
    """Images in a grid, row by row.

    Args:
      x: `[N, ...]` in [0, 1]; what lies outside is shown as black or white.
      image_shape: `(H, W)`, `(H, W, 1)` or `(H, W, 3)`.
      columns: images in a row; the grid is about square by default.
      title: over the grid.
    """
    tiles = canvas.as_tiles(x, image_shape)
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    scale = canvas.pixel_scale(tiles)
    gap = canvas.mosaic_gap(scale)
    width, height = canvas.mosaic_size(tiles, columns, scale, gap)
    head = 48 if title else 0
    figure = canvas.blank(max(width, canvas.title_width(title)) + 2 * MARGIN, height + 2 * MARGIN + head)
    canvas.title(figure, title)
    canvas.draw(figure, MARGIN, MARGIN + head, tiles, columns, scale, gap)
    return figure


def samples(x_hat: ArrayLike, image_shape: tuple[int, ...]) -> "Figure":
    """What a model generates from draws of its prior, `[N, ...]` in data space."""
    return images(x_hat, image_shape, title="samples")


def styles(
    generate: Callable[[np.ndarray, np.ndarray], ArrayLike],
    z: ArrayLike,
    classes: ArrayLike,
    image_shape: tuple[int, ...],
) -> "Figure":
    """What a decoder that is conditioned on labels makes of codes: one code a row, one class a column.

    Args:
      generate: `[N * K, Z], [N * K] -> [N * K, ...]` in data space.
      z: `[N, Z]`.
      classes: `[K]` labels, written over the columns.
      image_shape: as in `images`.

    Reference: Kingma, Mohamed, Rezende & Welling (2014), figure 1: analogies.
    """
    z, classes = np.asarray(z), np.asarray(classes)
    if z.ndim != 2 or classes.ndim != 1 or not (z.size and classes.size):
        raise InputError(f"Codes of shape {z.shape} and classes of shape {classes.shape}; wanted are [N, Z] and [K].")
    count = len(classes)
    tiles = canvas.as_tiles(generate(np.repeat(z, count, axis=0), np.tile(classes, len(z))), image_shape)
    scale = canvas.pixel_scale(tiles)
    gap = canvas.mosaic_gap(scale)
    width, height = canvas.mosaic_size(tiles, count, scale, gap)
    title, top = "styles: one code a row, one class a column", MARGIN + 84
    figure = canvas.blank(max(width, canvas.title_width(title)) + 2 * MARGIN, top + height + MARGIN)
    canvas.title(figure, title)
    for i, label in enumerate(classes):
        middle = MARGIN + i * (tiles.shape[2] + gap) * scale + tiles.shape[2] * scale / 2
        canvas.write(figure, middle, top - 14, str(label), ha="center", size=9)
    canvas.draw(figure, MARGIN, top, tiles, count, scale, gap)
    return figure


def reconstructions(x: ArrayLike, x_hat: ArrayLike, image_shape: tuple[int, ...]) -> "Figure":
    """Originals, and beneath each its reconstruction: `[N, ...]` both, in data space."""
    return image_rows({"original": x, "reconstruction": x_hat}, image_shape)


def image_rows(rows: Mapping[str, ArrayLike], image_shape: tuple[int, ...], *, title: str = "") -> "Figure":
    """Rows of images, aligned and labelled.

    Args:
      rows: label -> `[N, ...]` in [0, 1], the same N for all.
      image_shape: as in `images`.
      title: over the rows.

    Raises:
      InputError: the rows differ in length.
    """
    parts = [canvas.as_tiles(x, image_shape) for x in rows.values()]
    if len({len(part) for part in parts}) != 1:
        raise InputError(f"The rows {list(rows)} hold {[len(part) for part in parts]} images; they need one number.")
    tiles, columns = np.concatenate(parts), len(parts[0])
    scale = canvas.pixel_scale(tiles)
    gap = canvas.mosaic_gap(scale)
    width, height = canvas.mosaic_size(tiles, columns, scale, gap)
    head, side = 48 if title else 0, 24 + 12 * max(map(len, rows))
    figure = canvas.blank(max(width + side, canvas.title_width(title)) + 2 * MARGIN, height + 2 * MARGIN + head)
    canvas.title(figure, title)
    canvas.draw(figure, MARGIN + side, MARGIN + head, tiles, columns, scale, gap)
    step = (tiles.shape[1] + gap) * scale
    for i, name in enumerate(rows):
        middle = MARGIN + head + i * step + tiles.shape[1] * scale / 2
        canvas.write(figure, MARGIN + side - 18, middle, name, ha="right", va="center")
    return figure


def filters(kernel: ArrayLike, image_shape: tuple[int, ...], *, num: int = 100) -> "Figure":
    """What the units of a first layer look for: their weights, one colour scale for all, white at zero.

    Args:
      kernel: `[D, H]`, one column a unit.
      image_shape: of the D pixels. The weights of colour images are summed over the channels.
      num: how many are shown at most: those of the largest norm, largest first.
    """
    kernel = np.asarray(kernel)
    order = np.argsort(-np.linalg.norm(kernel, axis=0), kind="stable")[:num]
    tiles = canvas.as_tiles(kernel.T[order], image_shape)
    if tiles.ndim == 4:
        tiles = tiles.sum(axis=-1)
    columns, scale = math.ceil(math.sqrt(len(tiles))), canvas.pixel_scale(tiles)
    gap = canvas.mosaic_gap(scale)
    width, height = canvas.mosaic_size(tiles, columns, scale, gap)
    some = f", the {len(tiles)} of largest norm" if len(tiles) < kernel.shape[1] else ""
    title = f"{kernel.shape[1]} filters{some}"
    figure = canvas.blank(max(width + 130, canvas.title_width(title)) + 2 * MARGIN, height + 2 * MARGIN + 48)
    canvas.title(figure, title)
    limit = float(np.abs(tiles).max()) or 1.0
    ax = canvas.draw(figure, MARGIN, MARGIN + 48, tiles, columns, scale, gap, cmap="RdBu_r", vmin=-limit, vmax=limit)
    bar_height = min(height, 480)
    bar = canvas.place(figure, MARGIN + width + 28, MARGIN + 48 + (height - bar_height) / 2, 16, bar_height)
    figure.colorbar(ax.images[0], cax=bar, label="weight")
    bar.tick_params(labelsize=7, colors=canvas.SOFT)
    bar.yaxis.label.set(size=8, color=canvas.SOFT)
    bar.spines[:].set_visible(False)
    return figure


def filter_panels(
    kernels: Mapping[str, ArrayLike], image_shape: tuple[int, ...], *, num: int = 25, title: str = "first-layer filters"
) -> "Figure":
    """Filters of several models beside each other, one colour scale for all, white at zero.

    Args:
      kernels: name -> `[D, H]`, one column a unit.
      image_shape: of the D pixels; the weights of colour images are summed over the channels.
      num: how many of each are shown at most, evenly spaced in the order of their norms, largest first.
      title: over the panels.
    """
    panels = {}
    for name, kernel in kernels.items():
        weights = np.asarray(kernel)
        order = np.argsort(-np.linalg.norm(weights, axis=0), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(num, len(order))).round().astype(int)]
        tiles = canvas.as_tiles(weights.T[chosen], image_shape)
        panels[name] = tiles.sum(axis=-1) if tiles.ndim == 4 else tiles
    first = next(iter(panels.values()))
    side, scale = math.ceil(math.sqrt(num)), canvas.pixel_scale(first, 56)
    gap, per_row = canvas.mosaic_gap(scale), min(4, len(panels))
    width, height = canvas.mosaic_size(first, side, scale, gap)
    across, down = width + 30, height + 60
    rows = -(-len(panels) // per_row)
    limit = float(np.quantile(np.abs(np.concatenate([tiles.ravel() for tiles in panels.values()])), 0.999)) or 1.0
    title = f"{title}; red is +{limit:.2g}, blue is -{limit:.2g}"
    wide = max(per_row * across - 30, canvas.title_width(title))
    figure = canvas.blank(wide + 2 * MARGIN, rows * down + 2 * MARGIN + 40)
    canvas.title(figure, title)
    for i, (name, tiles) in enumerate(panels.items()):
        left, top = MARGIN + i % per_row * across, MARGIN + 86 + i // per_row * down
        canvas.write(figure, left, top - 12, name, weight="bold")
        canvas.draw(figure, left, top, tiles, side, scale, gap, cmap="RdBu_r", vmin=-limit, vmax=limit)
    return figure
