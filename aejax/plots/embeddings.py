"""Several embeddings of one set beside each other, with what they are worth."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, MARGIN, SOFT
from aejax.plots.latent import legend, legend_width, project, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 420  # pixels of a panel, at least
_APART = 28  # pixels between panels
_HEAD = 66  # pixels above a panel, for its name and its note
_TOP = 72  # pixels for the title and the legend


class Embedding(NamedTuple):
    """What one method made of a set."""

    z: ArrayLike  # [N, Z] codes
    note: str = ""  # beneath its name, such as its scores
    behind: ArrayLike | None = None  # [M, 2] points in grey beneath codes of two numbers, such as draws of their prior


def embeddings(
    panels: Mapping[str, Embedding],
    y: ArrayLike | None = None,
    *,
    title: str = "",
    columns: int = 4,
    names: bool = True,
) -> "Figure":
    """The codes of one set by several methods, in equal panels with one legend.

    Axes have no numbers: each panel has a scale of its own, equal along both axes. Codes of more than two dimensions
    are shown by their first two principal components, those of one dimension against zero.

    Args:
      panels: by the name of the method.
      y: `[N]` labels of the set, if any.
      title: over the sheet.
      columns: panels in a row, at most.
      names: whether each class is named at its median too.

    Raises:
      InputError: there is no panel, codes and labels differ in number, or points behind are not in the plane of codes.
    """
    if not panels:
        raise InputError("There is no embedding to draw; wanted is at least one, by name.")
    sizes = {name: len(np.asarray(panel.z)) for name, panel in panels.items()}
    if len({*sizes.values(), *(() if y is None else (len(np.asarray(y)),))}) > 1:
        raise InputError(f"Embeddings of {sizes} examples{'' if y is None else f', {len(np.asarray(y))} labels'}.")
    for name, panel in panels.items():
        shapes = np.asarray(panel.z).shape, np.asarray(panel.behind).shape
        if panel.behind is not None and not all(len(shape) == 2 and shape[1] == 2 for shape in shapes):
            raise InputError(f"{name} has codes {shapes[0]} and behind them {shapes[1]}; both are [., 2], or none is.")
    side = max(_SIDE, *(10 * len(panel.note) for panel in panels.values()))
    across = min(columns, len(panels))
    down = -(-len(panels) // across)
    classes = None if y is None else np.unique(y)
    heading = canvas.title_width(title) + (0 if classes is None else 40 + legend_width(classes))
    width = max(across * (side + _APART) - _APART, heading)
    figure = canvas.blank(width + 2 * MARGIN, _TOP + down * (_HEAD + side + _APART) - _APART + 2 * MARGIN)
    canvas.write(figure, MARGIN, MARGIN + 24, title, size=13, weight="bold")
    if classes is not None:
        legend(figure, MARGIN + width - legend_width(classes), MARGIN + 16, classes)
    for i, (name, panel) in enumerate(panels.items()):
        row, column = divmod(i, across)
        left, top = MARGIN + column * (side + _APART), MARGIN + _TOP + row * (_HEAD + side + _APART) + _HEAD
        canvas.write(figure, left, top - 40, name, size=10, weight="bold")
        canvas.write(figure, left, top - 14, panel.note, size=7, color=SOFT)
        ax = canvas.place(figure, left, top, side, side)
        z = np.asarray(panel.z)
        if panel.behind is not None:
            behind = np.asarray(panel.behind)
            ax.scatter(behind[:, 0], behind[:, 1], s=2, c=FAINT, linewidths=0, zorder=0)
        scatter(ax, project(z)[0], y, size=max(1.5, min(9.0, 8e3 / len(z))), label_size=8 if names else 0)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure
