"""Rate-distortion curves: what the bits of a code buy in reconstruction."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import MARGIN, SOFT
from aejax.plots.latent import class_colors
from aejax.plots.lines import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 640, 520  # pixels of a panel
_LEFT, _HEAD, _BELOW, _APART = 90, 52, 70, 50  # pixels around it
_TANGENT = 0.08  # half of its length, in widths of the panel


class RateDistortion(NamedTuple):
    """One panel: H weights of the rate, each of S runs."""

    weights: ArrayLike  # [H] betas
    rates: ArrayLike  # [H, S] nats
    distortions: ArrayLike  # [H, S] nats
    exact: tuple[ArrayLike, ArrayLike] | None = None  # rates and distortions [K] of the best possible curve


def rate_distortion(panels: Mapping[str, RateDistortion], *, title: str) -> "Figure":
    """Distortion against rate: a dot a run, a line through the means of each weight.

    At the best model of a kind the curve has the slope -beta: a stroke with this slope is drawn through each mean. The
    dotted line joins all places that have the lowest sum of the two, which is the bound.

    Args:
      panels: by title.
      title: over the sheet.

    Raises:
      InputError: there is no panel, or its arrays do not go together.
    """
    if not panels:
        raise InputError("There is no panel; wanted is at least one.")
    width = max(len(panels) * (_LEFT + _WIDTH + _APART) - _APART, canvas.title_width(title))
    figure = canvas.blank(width + 2 * MARGIN, 48 + _HEAD + _HEIGHT + _BELOW + 2 * MARGIN)
    canvas.title(figure, title)
    for i, (name, panel) in enumerate(panels.items()):
        left, top = MARGIN + _LEFT + i * (_LEFT + _WIDTH + _APART), MARGIN + 48 + _HEAD
        canvas.write(figure, left, top - 14, name, weight="bold")
        _draw(canvas.place(figure, left, top, _WIDTH, _HEIGHT), name, panel)
    return figure


def _draw(ax: "Axes", name: str, panel: RateDistortion) -> None:
    weights, rates, distortions = (np.asarray(v, np.float64) for v in panel[:3])
    if rates.ndim != 2 or rates.shape != distortions.shape or weights.shape != rates.shape[:1]:
        raise InputError(
            f"{name}: weights {weights.shape}, rates {rates.shape} and distortions {distortions.shape}; wanted are [H]"
            " and [H, S] twice."
        )
    style(ax, "rate: KL(q(z|x) | p(z)), nats", "distortion: -log p(x|z), nats")
    (ours,) = class_colors(np.arange(1))
    ax.plot(
        rates.ravel(), distortions.ravel(), "o", color=ours, alpha=0.35, markersize=4, markeredgewidth=0, label="a run"
    )
    across, up = rates.mean(axis=1), distortions.mean(axis=1)
    order = np.argsort(across)
    ax.plot(across[order], up[order], "-", color=ours, linewidth=1.5, label="mean of the runs")
    if panel.exact is not None:
        ax.plot(*map(np.asarray, panel.exact), "--", color=canvas.INK, linewidth=1.2, label="exact")
    ax.margins(0.12)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    left = max(left, -0.04 * right)  # no rate is below 0
    shape = np.array([right - left, high - low])
    for beta, centre in zip(weights, np.stack([across, up], axis=1), strict=True):
        step = np.array([1.0, -beta])
        step *= _TANGENT / np.linalg.norm(step / shape)
        ax.plot(*np.stack([centre - step, centre + step], axis=1), "-", color=SOFT, linewidth=0.9)
        ax.annotate(f"$\\beta$ = {beta:g}", centre, xytext=(7, 7), textcoords="offset points", size=7, color=canvas.INK)
    ax.plot([], [], "-", color=SOFT, linewidth=0.9, label="slope of -$\\beta$")
    best = (across + up).min()
    ax.plot([left, right], [best - left, best - right], ":", color=SOFT, linewidth=1, label=f"sum of {best:.2f}")
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    ax.legend(fontsize=7, frameon=False, loc="upper right")
