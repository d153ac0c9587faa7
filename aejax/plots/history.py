"""How a run went."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, MARGIN, SOFT
from aejax.plots.latent import class_colors
from aejax.plots.lines import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 470, 270  # pixels of a panel
_TRAIN, _VALIDATION = "#3f90da", "#e76300"
_UNITS = {"loss": "nats", "sse": "squared error", "jacobian_sq": "squared norm", "accuracy": "share"}


def curves(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Every metric of a run against its epochs, training and validation together, one panel a metric.

    A panel is logarithmic where its values are positive and span more than a factor of ten.

    Args:
      history: rows with `epoch` (or `step`), `player/term` and `val/player/term`, as in `metrics.jsonl`.

    Raises:
      InputError: there is no row, or no metric.
    """
    names = list(dict.fromkeys(name.removeprefix("val/") for row in history for name in row))
    names = sorted(set(names) - {"step", "epoch"}, key=lambda name: (not name.endswith("/loss"), names.index(name)))
    if not names:
        raise InputError(f"A history of {len(history)} rows without a metric; wanted are rows as in metrics.jsonl.")
    axis = "epoch" if "epoch" in history[0] else "step"
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = canvas.blank(columns * (_WIDTH + 110) - 30 + 2 * MARGIN, rows * (_HEIGHT + 90) + 2 * MARGIN + 34)
    for i, name in enumerate(names):
        left = MARGIN + 80 + i % columns * (_WIDTH + 110)
        top = MARGIN + 64 + i // columns * (_HEIGHT + 90)
        ax = canvas.place(figure, left, top, _WIDTH, _HEIGHT)
        drawn = []
        for key, color, label in ((name, _TRAIN, "training"), (f"val/{name}", _VALIDATION, "validation")):
            points = [(row[axis], row[key]) for row in history if key in row]
            if points:
                ax.plot(*zip(*points, strict=True), color=color, linewidth=1.4, label=label,
                        marker="o" if len(points) == 1 else None, markersize=4)  # fmt: skip
                drawn += [value for _, value in points]
        low, high = np.nanmin(drawn), np.nanmax(drawn)
        if low > 0 and high > 10 * low:
            ax.set_yscale("log")
        canvas.write(figure, left, top - 12, name, weight="bold")
        ax.set_ylabel(unit(name), size=8, color=SOFT)
        ax.set_xlabel(axis, size=8, color=SOFT)
        ax.tick_params(which="both", labelsize=7, colors=SOFT, length=3)
        ax.grid(color=FAINT, linewidth=0.5, alpha=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(FAINT)
    for i, (label, color) in enumerate((("training", _TRAIN), ("validation", _VALIDATION))):
        if i == 0 or any(name.startswith("val/") for row in history for name in row):
            canvas.write(figure, MARGIN + 80 + 170 * i, MARGIN + 12, f"\N{BLACK CIRCLE} {label}", color=color)
    return figure


def histories(runs: Mapping[str, Sequence[Mapping[str, float]]], term: str) -> "Figure":
    """One metric of several runs against their epochs, with a legend beside the panel.

    It is logarithmic where the values are positive and span more than a factor of ten.

    Args:
      runs: by their names in the legend, rows as in `curves`; of rows without the term nothing is drawn.
      term: such as `val/recon/loss`.

    Raises:
      InputError: no run has the term.
    """
    points = {name: [(row["epoch"], row[term]) for row in rows if term in row] for name, rows in runs.items()}
    points = {name: drawn for name, drawn in points.items() if drawn}
    if not points:
        raise InputError(f"None of {len(runs)} runs has {term!r}.")
    letters = max(map(len, points))
    width, height = 640, max(380, 30 * len(points))
    figure = canvas.blank(80 + width + 60 + 11 * letters + 2 * MARGIN, 48 + height + 60 + 2 * MARGIN)
    canvas.title(figure, term)
    ax = canvas.place(figure, MARGIN + 80, MARGIN + 48, width, height)
    style(ax, "epoch", unit(term))
    values = [value for drawn in points.values() for _, value in drawn]
    if np.nanmin(values) > 0 and np.nanmax(values) > 10 * np.nanmin(values):
        ax.set_yscale("log")
    colors = class_colors(np.arange(len(points)))
    for i, (name, drawn) in enumerate(points.items()):
        x, y = zip(*drawn, strict=True)
        ax.plot(x, y, color=colors[i], linewidth=1.4, label=name,
                marker="o" if len(drawn) == 1 else None, markersize=4)  # fmt: skip
    ax.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


def unit(name: str) -> str:
    """What a metric is counted in: `recon/kl_nats` -> nats."""
    term = name.rsplit("/", 1)[-1]
    return "nats" if term.endswith("nats") else _UNITS.get(term, "")
