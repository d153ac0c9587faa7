"""Curves of several methods on one pair of axes, and the style of axes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, MARGIN, SOFT
from aejax.plots.latent import class_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 760, 460  # pixels of the axes


class ContractionCurve(NamedTuple):
    """How one encoder shrinks distances."""

    radii: ArrayLike  # [R] distances before
    ratios: ArrayLike  # [R] distance after over distance before, to random points
    pairs: float  # the same between examples


def spectra(values: Mapping[str, ArrayLike], *, title: str) -> "Figure":
    """Singular values by rank, one curve a method, on a logarithmic scale; what is zero is left out.

    Args:
      values: name -> `[K]`, descending.
      title: over the plot.
    """
    figure, ax = _axes(title, "rank", "singular value, code units / data units")
    ax.set_yscale("log")
    for (name, spectrum), color in zip(values.items(), _colors(values), strict=True):
        s = np.asarray(spectrum, np.float64)
        ax.plot(np.arange(1, len(s) + 1), np.where(s > 0, s, np.nan), color=color, linewidth=1.6, label=name)
    _legend(ax)
    return figure


def contraction_curves(curves: Mapping[str, ContractionCurve], *, nearest: float, distance: float) -> "Figure":
    """Contraction ratio against distance, one curve a method; a ring is the ratio between examples.

    Args:
      curves: by the name of the method.
      nearest: mean distance from an example to its nearest neighbour, drawn as a line.
      distance: mean distance between two examples, likewise; where the rings stand.
    """
    title = "how far codes move, over how far inputs do"
    figure, ax = _axes(title, "distance from a test example, data units", "ratio, code units / data units")
    ax.set_xscale("log")
    for (name, curve), color in zip(curves.items(), _colors(curves), strict=True):
        ax.plot(curve.radii, curve.ratios, "o-", color=color, linewidth=1.6, markersize=3, label=name)
        ax.plot([distance], [curve.pairs], "o", markersize=8, markerfacecolor="none", color=color)
    ax.plot([], [], "o", markersize=8, markerfacecolor="none", color=SOFT, label="between examples")
    for place, what in ((nearest, "nearest example"), (distance, "mean example")):
        ax.axvline(place, color=SOFT, linewidth=0.8, linestyle=":")
        ax.annotate(what, (place, 1), xycoords=("data", "axes fraction"), xytext=(-4, -4), textcoords="offset points",
                    rotation=90, ha="right", va="top", size=7, color=SOFT)  # fmt: skip
    ax.set_ylim(0, 1.3 * ax.dataLim.ymax)  # from zero, with room above for what the lines are
    _legend(ax)
    return figure


def style(ax: "Axes", x_label: str, y_label: str) -> None:
    """The quiet axes of all curves."""
    ax.set_xlabel(x_label, size=8, color=SOFT)
    ax.set_ylabel(y_label, size=8, color=SOFT)
    ax.tick_params(which="both", labelsize=7, colors=SOFT, length=3)
    ax.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)


def _axes(title: str, x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    figure = canvas.blank(max(_WIDTH + 110, canvas.title_width(title)) + 2 * MARGIN, _HEIGHT + 48 + 80 + 2 * MARGIN)
    canvas.title(figure, title)
    ax = canvas.place(figure, MARGIN + 100, MARGIN + 56, _WIDTH, _HEIGHT)
    style(ax, x_label, y_label)
    return figure, ax


def _colors(names: Mapping[str, Any]) -> np.ndarray:
    if not names:
        raise InputError("There is no curve to draw; wanted is at least one, by name.")
    return class_colors(np.array(list(names)))


def _legend(ax: "Axes") -> None:
    ax.legend(fontsize=8, frameon=False)
