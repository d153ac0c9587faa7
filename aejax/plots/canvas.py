"""Figures laid out in whole pixels from their top left corner, images on them, and files of them."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
MARGIN = 36  # pixels around every figure
TILE = 72  # pixels, about the side of a small image
INK, SOFT, FAINT = "#1f2933", "#64707d", "#c3cad2"  # of text and of lines


def save(figure: "Figure", path: str | os.PathLike) -> None:
    """Writes a figure as drawn; the suffix decides the format. A crash never leaves half a file under that name."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=figure.dpi)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def blank(width: int, height: int) -> "Figure":
    """An empty white figure of that many pixels."""
    extras.need("A picture", "matplotlib", extra="runner")
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")


def place(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at those pixels, counted from the top left corner."""
    w, h = figure.get_size_inches() * DPI
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def write(figure: "Figure", left: float, top: float, text: str, **style: Any) -> None:
    """Text at that pixel, above its baseline unless `va` says otherwise."""
    w, h = figure.get_size_inches() * DPI
    figure.text(left / w, 1 - top / h, text, **{"color": INK, "size": 9, "va": "baseline", **style})


def title(figure: "Figure", text: str, left: float = MARGIN) -> None:
    """The title of a figure, in the 48 pixels above its content."""
    write(figure, left, MARGIN + 20, text, size=11, weight="bold")


def title_width(text: str) -> int:
    """Pixels that a title takes, at most."""
    return 17 * len(text)


def as_tiles(x: ArrayLike, image_shape: tuple[int, ...]) -> np.ndarray:
    """`[N, ...]` -> `[N, H, W]` grey or `[N, H, W, 3]` colour; `InputError` where the sizes disagree."""
    x, shape = np.asarray(x), tuple(image_shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise InputError(f"image_shape={shape}; wanted is (H, W), (H, W, 1) or (H, W, 3).")
    if x.ndim < 2 or not len(x) or math.prod(x.shape[1:]) != math.prod(shape):
        raise InputError(f"Images of shape {x.shape} do not fit image_shape={shape}; wanted is [N, ...], N at least 1.")
    return x.reshape(len(x), *(shape[:2] if shape[2:] in ((), (1,)) else shape))


def pixel_scale(tiles: np.ndarray, side: int = TILE) -> int:
    """How many screen pixels a pixel gets for tiles of about that side."""
    return max(1, round(side / max(tiles.shape[1:3])))


def mosaic(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Tiles side by side, row by row, NaN between and behind them: `[N, H, W, ...]` -> `[rows, columns, ...]`."""
    h, w = tiles.shape[1:3]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, *tiles.shape[3:]), np.nan)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top : top + h, left : left + w] = tile
    return sheet


def mosaic_gap(scale: int) -> int:
    """Image pixels between tiles: at least four screen pixels."""
    return -(-4 // scale)


def mosaic_size(tiles: np.ndarray, columns: int, scale: int, gap: int) -> tuple[int, int]:
    """(width, height) of a mosaic in screen pixels."""
    h, w = tiles.shape[1:3]
    rows = -(-len(tiles) // columns)
    return (columns * (w + gap) - gap) * scale, (rows * (h + gap) - gap) * scale


def draw(
    figure: "Figure", left: int, top: int, tiles: np.ndarray, columns: int, scale: int, gap: int, **style: Any
) -> "Axes":
    """A mosaic with its top left corner at that pixel, each of its pixels `scale` screen pixels wide."""
    sheet = mosaic(tiles, columns, gap)
    if sheet.ndim == 3:  # colour: no norm and no NaN; what lies outside [0, 1] is cut, what is between is see-through
        sheet = np.concatenate([np.clip(np.nan_to_num(sheet), 0, 1), np.isfinite(sheet[..., :1])], axis=-1)
    ax = place(figure, left, top, *mosaic_size(tiles, columns, scale, gap))
    ax.imshow(sheet, interpolation="nearest", aspect="auto", **{"cmap": "gray", "vmin": 0, "vmax": 1, **style})
    ax.set_axis_off()
    return ax
