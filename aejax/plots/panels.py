"""Curves in several panels of one sheet."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import MARGIN
from aejax.plots.latent import class_colors
from aejax.plots.lines import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 640, 380  # pixels of a panel
_LEFT, _HEAD, _BELOW, _APART = 90, 52, 70, 40  # pixels around it


class Curve(NamedTuple):
    """One line of a panel."""

    x: ArrayLike  # [K]
    y: ArrayLike  # [K], or [S, K] of several runs: their mean over the band from the lowest to the highest
    color: int = 0  # the place of its colour among those of the panel
    dashed: bool = False


class Lines(NamedTuple):
    """One panel."""

    x_label: str
    y_label: str
    curves: Mapping[str, Curve]  # by their names in the legend
    log: bool = False  # whether y is on a logarithmic scale


def line_panels(panels: Mapping[str, Lines], *, title: str, columns: int = 2) -> "Figure":
    """Panels of curves, each with its legend.

    Args:
      panels: by title.
      title: over the sheet.
      columns: panels in a row, at most.

    Raises:
      InputError: there is no panel, or a panel without a curve.
    """
    if not panels or not all(panel.curves for panel in panels.values()):
        raise InputError(f"Panels {list(panels)}; wanted is at least one, each with a curve.")
    across = min(columns, len(panels))
    down = -(-len(panels) // across)
    width = max(across * (_LEFT + _WIDTH + _APART) - _APART, canvas.title_width(title))
    figure = canvas.blank(width + 2 * MARGIN, 48 + down * (_HEAD + _HEIGHT + _BELOW) + 2 * MARGIN)
    canvas.title(figure, title)
    for i, (name, panel) in enumerate(panels.items()):
        row, column = divmod(i, across)
        left = MARGIN + _LEFT + column * (_LEFT + _WIDTH + _APART)
        top = MARGIN + 48 + _HEAD + row * (_HEAD + _HEIGHT + _BELOW)
        canvas.write(figure, left, top - 14, name, weight="bold")
        ax = canvas.place(figure, left, top, _WIDTH, _HEIGHT)
        style(ax, panel.x_label, panel.y_label)
        if panel.log:
            ax.set_yscale("log")
        colors = class_colors(np.arange(1 + max(curve.color for curve in panel.curves.values())))
        for label, curve in panel.curves.items():
            y = np.atleast_2d(np.asarray(curve.y))
            look = {"color": colors[curve.color], "linestyle": "--" if curve.dashed else "-"}
            ax.plot(np.asarray(curve.x), y.mean(axis=0), linewidth=1.5, label=label, **look)
            if len(y) > 1:
                ax.fill_between(
                    curve.x, y.min(axis=0), y.max(axis=0), color=colors[curve.color], alpha=0.2, linewidth=0
                )
        low, high = ax.get_ylim()  # room above for the legend
        ax.set_ylim(low, high * (high / low) ** 0.35 if panel.log else high + 0.35 * (high - low))
        ax.legend(fontsize=7, frameon=False, loc="upper right", ncols=1 + (len(panel.curves) > 4))
    return figure
