"""Vector fields of the plane over a density, and errors against the level of the noise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import INK, MARGIN, SOFT
from aejax.plots.latent import class_colors
from aejax.plots.lines import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 560  # pixels, the side of a field
_WIDTH, _HEIGHT = 760, 460  # of the errors


def vector_fields(
    fields: Mapping[str, ArrayLike],
    horizontal: ArrayLike,
    vertical: ArrayLike,
    density: ArrayLike,
    *,
    title: str,
    columns: int = 3,
) -> "Figure":
    """Vector fields as arrows over a density, one panel a field, lengths on one scale for all.

    The longest arrow is as long as the grid is wide in steps of 1.6, so that directions stay readable; arrows at less
    than a thousandth of the highest density are left out.

    Args:
      fields: name -> `[R, C, 2]`, at `(horizontal[c], vertical[r])`.
      horizontal: `[C]`, evenly spaced, growing.
      vertical: `[R]`, likewise.
      density: `[R, C]`, not negative.
      title: over the panels.
      columns: panels in a row.

    Raises:
      InputError: there is no field, or shapes disagree.
    """
    across, up, density = np.asarray(horizontal), np.asarray(vertical), np.asarray(density, np.float64)
    shape = (len(up), len(across))
    arrows = {name: np.asarray(field, np.float64) for name, field in fields.items()}
    if not arrows or density.shape != shape or any(field.shape != (*shape, 2) for field in arrows.values()):
        shapes = {name: field.shape for name, field in arrows.items()}
        raise InputError(f"Fields {shapes} over a density {density.shape}; wanted are {(*shape, 2)} over {shape}.")
    shown = density > 1e-3 * density.max()
    longest = max(np.linalg.norm(field[shown], axis=1).max() for field in arrows.values()) or 1.0
    step = across[1] - across[0]
    columns = min(columns, len(arrows))
    rows = -(-len(arrows) // columns)
    width = max(columns * (_PANEL + 70) + 2 * MARGIN, canvas.title_width(title) + 2 * MARGIN)
    figure = canvas.blank(width, rows * (_PANEL + 90) + 2 * MARGIN + 40)
    canvas.title(figure, title)
    grid = np.meshgrid(across, up)
    for i, (name, field) in enumerate(arrows.items()):
        left, top = MARGIN + 50 + i % columns * (_PANEL + 70), MARGIN + 86 + i // columns * (_PANEL + 90)
        canvas.write(figure, left, top - 12, name, weight="bold")
        ax = canvas.place(figure, left, top, _PANEL, _PANEL)
        ax.imshow(density, origin="lower", cmap="Blues", vmin=0, vmax=1.5 * density.max(), aspect="auto",
                  interpolation="nearest", extent=_extent(across, up))  # fmt: skip
        ax.quiver(*(g[shown] for g in grid), *field[shown].T, angles="xy", scale_units="xy", units="dots", width=2,
                  scale=longest / (1.6 * step), color=INK)  # fmt: skip
        ax.tick_params(labelsize=7, colors=SOFT, length=3)
        ax.spines[:].set_visible(False)
    return figure


def level_errors(
    errors: Mapping[str, ArrayLike],
    levels: ArrayLike,
    *,
    title: str,
    y_label: str,
    x_label: str = "standard deviation of the noise, data units",
    logarithmic: bool = True,
) -> "Figure":
    """Errors against the level of the noise: a dot for every seed, a line through their means.

    Args:
      errors: name -> `[H, S]`: a row for each level, a column for each seed.
      levels: `[H]`.
      title: over the plot.
      y_label: what is drawn, with its unit.
      x_label: what the levels are.
      logarithmic: both axes, of positive numbers.

    Raises:
      InputError: there is nothing to draw, or shapes disagree.
    """
    levels = np.asarray(levels, np.float64)
    values = {name: np.asarray(each, np.float64) for name, each in errors.items()}
    if not values or any(each.ndim != 2 or len(each) != len(levels) for each in values.values()):
        shapes = {name: each.shape for name, each in values.items()}
        raise InputError(f"Errors {shapes} at {len(levels)} levels; wanted is a row for each level, by name.")
    figure = canvas.blank(max(_WIDTH + 110, canvas.title_width(title)) + 2 * MARGIN, _HEIGHT + 128 + 2 * MARGIN)
    canvas.title(figure, title)
    ax = canvas.place(figure, MARGIN + 100, MARGIN + 56, _WIDTH, _HEIGHT)
    style(ax, x_label, y_label)
    if logarithmic:
        ax.set_xscale("log")
        ax.set_yscale("log")
    for (name, each), color in zip(values.items(), class_colors(np.array(list(values))), strict=True):
        ax.plot(levels, each.mean(axis=1), color=color, linewidth=1.6, label=name)
        ax.plot(np.repeat(levels, each.shape[1]), each.ravel(), "o", color=color, markersize=3)
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.minorticks_off()
    ax.legend(fontsize=8, frameon=False)
    return figure


def _extent(across: np.ndarray, up: np.ndarray) -> tuple[float, float, float, float]:
    half = (across[1] - across[0]) / 2, (up[1] - up[0]) / 2
    return across[0] - half[0], across[-1] + half[0], up[0] - half[1], up[-1] + half[1]
