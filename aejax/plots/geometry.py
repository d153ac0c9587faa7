"""The plane of a 2-D code as the decoder measures it: how it is magnified, and paths through it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, INK, MARGIN, SOFT
from aejax.plots.latent import class_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 720  # pixels, the side of a map
_STRAIGHT, _SHORTEST = "#ffffff", "#ffa90e"


class Magnification(NamedTuple):
    """What the decoder does to areas, on a grid of the plane."""

    values: ArrayLike
    """`[R, C]`, not negative: area of output over area of code; row r at `vertical[r]`, column c at `horizontal[c]`."""
    horizontal: ArrayLike
    """`[C]`, first coordinates, evenly spaced."""
    vertical: ArrayLike
    """`[R]`, second coordinates, evenly spaced, growing."""


class Connection(NamedTuple):
    """Two ways between the same two codes."""

    straight: ArrayLike  # [T, 2]
    shortest: ArrayLike  # [T, 2]
    straight_images: ArrayLike  # [S, ...] decoded along it
    shortest_images: ArrayLike  # [S, ...]
    straight_length: float  # of the decoded path
    shortest_length: float


def magnification_map(found: Magnification, z: ArrayLike, y: ArrayLike | None = None) -> "Figure":
    """Magnification factor over the plane on a logarithmic scale, with codes on top, coloured by label.

    Args:
      found: on a grid.
      z: `[N, 2]` codes.
      y: `[N]` labels, if any.
    """
    figure = canvas.blank(_PANEL + 2 * MARGIN + 60 + 170, _PANEL + 2 * MARGIN + 48 + 60)
    canvas.title(figure, f"magnification by the decoder, and the codes of {len(np.asarray(z)):,} examples")
    ax = _map(figure, MARGIN + 60, MARGIN + 48, _PANEL, found)
    _codes(ax, np.asarray(z), y)
    _bar(figure, ax, MARGIN + 60 + _PANEL + 28, MARGIN + 48, _PANEL)
    return figure


def paths(
    found: Magnification,
    connections: Sequence[Connection],
    image_shape: tuple[int, ...] | None,
    *,
    title: str = "straight and shortest paths",
) -> "Figure":
    """Straight and shortest paths on the map, numbered; beside it what the decoder makes of points along both.

    Args:
      found: the map beneath.
      connections: at least one; each with as many images.
      image_shape: as in `images`; None for data that are no images, of which only the map is shown.
      title: over the sheet.
    """
    if not connections:
        raise InputError("There is no path to draw; wanted is at least one connection.")
    left, top = MARGIN + 60, MARGIN + 48
    if image_shape is None:
        figure = canvas.blank(_PANEL + 2 * MARGIN + 60 + 170, _PANEL + 2 * MARGIN + 48 + 100)
    else:
        rows = [canvas.as_tiles(c, image_shape) for pair in connections for c in (pair[2], pair[3])]
        scale = canvas.pixel_scale(rows[0], 56)
        gap = canvas.mosaic_gap(scale)
        wide, tall = canvas.mosaic_size(rows[0], len(rows[0]), scale, gap)
        start, pitch = left + _PANEL + 340, 2 * tall + gap * scale + 36
        height = max(_PANEL + 90, len(connections) * pitch)
        figure = canvas.blank(start + wide + MARGIN, top + height + MARGIN)
        for i, pair in enumerate(connections):
            lengths = {"straight": pair.straight_length, "shortest": pair.shortest_length}
            for j, (name, length) in enumerate(lengths.items()):
                y = top + i * pitch + j * (tall + gap * scale)
                canvas.write(figure, start - 16, y + tall / 2, f"{i + 1} {name}, {length:.2f}", size=8, ha="right",
                             va="center")  # fmt: skip
                canvas.draw(figure, start, y, rows[2 * i + j], len(rows[2 * i + j]), scale, gap)
    canvas.title(figure, title)
    ax = _map(figure, left, top, _PANEL, found)
    for i, pair in enumerate(connections):
        for points, color, line in ((pair.straight, _STRAIGHT, "--"), (pair.shortest, _SHORTEST, "-")):
            ax.plot(*np.asarray(points).T, line, color=color, linewidth=1.6)
        for end in np.asarray(pair.straight)[[0, -1]]:
            circle = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": INK, "linewidth": 0.6}
            ax.annotate(str(i + 1), end, ha="center", va="center", size=7, color=INK, zorder=5, bbox=circle)
    _bar(figure, ax, left + _PANEL + 28, top, _PANEL)
    canvas.write(
        figure, left, top + _PANEL + 84, "dashed: straight; solid: shortest; numbers: pairs", size=8, color=SOFT
    )
    return figure


def _map(figure: "Figure", left: float, top: float, side: float, found: Magnification) -> "Axes":
    from matplotlib.colors import LogNorm

    values = np.asarray(found.values, np.float64)
    across, up = np.asarray(found.horizontal), np.asarray(found.vertical)
    if values.shape != (len(up), len(across)) or min(values.shape) < 2:
        raise InputError(
            f"A map of shape {values.shape} on {len(up)} x {len(across)} points; wanted is one value a point."
        )
    positive = values[values > 0]
    high = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()) if positive.size else 0.1, 1e-6 * high)
    ax = canvas.place(figure, left, top, side, side)
    steps = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2
    extent = (across[0] - steps[0], across[-1] + steps[0], up[0] - steps[1], up[-1] + steps[1])
    ax.imshow(np.maximum(values, low), norm=LogNorm(low, high), cmap="viridis", origin="lower", extent=extent,
              interpolation="nearest", aspect="auto")  # fmt: skip
    ax.set_xlabel("$z_1$", size=9, color=SOFT)
    ax.set_ylabel("$z_2$", size=9, color=SOFT)
    ax.tick_params(labelsize=8, colors=SOFT, length=3)
    ax.spines[:].set_color(FAINT)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
    return ax


def _codes(ax: "Axes", z: np.ndarray, y: ArrayLike | None) -> None:
    from matplotlib.patheffects import withStroke

    size = max(3.0, min(14.0, 2e4 / len(z)))
    if y is None:
        ax.scatter(z[:, 0], z[:, 1], s=size, c="white", linewidths=0.3, edgecolors=INK)
        return
    classes, index = np.unique(y, return_inverse=True)
    ax.scatter(z[:, 0], z[:, 1], s=size, c=class_colors(classes)[index], linewidths=0.3, edgecolors="white")
    halo = [withStroke(linewidth=3, foreground="white")]
    for i, name in enumerate(classes if len(classes) <= 20 else ()):
        across, up = np.median(z[index == i], axis=0)
        ax.text(across, up, str(name), size=11, weight="bold", color=INK, ha="center", va="center", path_effects=halo)


def _bar(figure: "Figure", ax: "Axes", left: float, top: float, height: float) -> None:
    place = canvas.place(figure, left, top, 18, height)
    figure.colorbar(ax.images[0], cax=place, label="area in data space / area of code, data units² / code units²")
    place.tick_params(which="both", labelsize=7, colors=SOFT)
    place.yaxis.label.set(size=8, color=SOFT)
    place.spines[:].set_visible(False)
