"""A table of figures as a picture: a line for each column of it, a dot for each row."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, MARGIN
from aejax.plots.latent import class_colors
from aejax.plots.lines import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _LINE = 640, 40  # pixels of the axes across, and of a line
_MARKERS = "osD^v<>PX*"


def dots(rows: Mapping[str, Mapping[str, ArrayLike | Sequence[float]]], *, x_label: str, title: str) -> "Figure":
    """One dot for each row of a table and each of its columns, the mean over runs, over a bar from lowest to highest.

    Args:
      rows: by the name of the row, by that of the column: a number, or `[S]` of several runs.
      x_label: what the numbers are.
      title: over the picture.

    Raises:
      InputError: there is no row, or rows differ in their columns.
    """
    columns = list(next(iter(rows.values()), {}))
    if not columns or any(list(row) != columns for row in rows.values()):
        raise InputError(f"Rows have the columns {[list(row) for row in rows.values()]}; wanted is the same of each.")
    side, legend = 24 + 8 * max(map(len, columns)), 60 + 8 * max(map(len, rows))
    height = _LINE * len(columns)
    width = max(side + _WIDTH + legend, canvas.title_width(title))
    figure = canvas.blank(width + 2 * MARGIN, 48 + max(height, 20 * len(rows)) + 60 + 2 * MARGIN)
    canvas.title(figure, title)
    ax = canvas.place(figure, MARGIN + side, MARGIN + 48, _WIDTH, height)
    style(ax, x_label, "")
    colors, places = class_colors(np.arange(len(rows))), np.arange(len(columns))
    apart = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else np.zeros(1)
    for i, (name, row) in enumerate(rows.items()):
        values = [np.atleast_1d(np.asarray(value, np.float64)) for value in row.values()]
        y = places + apart[i]
        ax.hlines(y, [v.min() for v in values], [v.max() for v in values], color=colors[i], linewidth=1)
        means, marker = [v.mean() for v in values], _MARKERS[i % len(_MARKERS)]
        ax.plot(means, y, marker, color=colors[i], markersize=4, label=name)
    for place in places[1:]:
        ax.axhline(place - 0.5, color=FAINT, linewidth=0.5)
    ax.set_yticks(places, columns)
    ax.set_ylim(len(columns) - 0.5, -0.5)
    ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure
