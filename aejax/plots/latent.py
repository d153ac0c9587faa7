"""Pictures of the code: where the data lie in it, and what the decoder makes of its places."""

from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError
from aejax.plots import canvas
from aejax.plots.canvas import FAINT, INK, MARGIN, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 760  # pixels, the side of a scatter plot


def latent_scatter(z: ArrayLike, y: ArrayLike | None = None, *, title: str = "") -> "Figure":
    """Codes as points of the plane, coloured by label.

    Codes of more than two dimensions are shown by their first two principal components, as the axes then say; those
    of one dimension against zero.

    Args:
      z: `[N, Z]`.
      y: `[N]` labels; without them all points have one colour.
      title: over the plot, by default what is shown.
    """
    z = np.asarray(z)
    points, axes = project(z)
    classes = None if y is None else np.unique(y)
    figure = canvas.blank(_PANEL + 2 * MARGIN + 60 + (130 if y is not None else 0), _PANEL + 2 * MARGIN + 48 + 60)
    shown = "" if z.shape[1] <= 2 else ", first two principal components"
    canvas.title(figure, title or f"codes of {len(z):,} examples, {z.shape[1]}-D{shown}")
    ax = canvas.place(figure, MARGIN + 60, MARGIN + 48, _PANEL, _PANEL)
    scatter(ax, points, y, size=max(4.0, min(22.0, 3e4 / len(z))))
    ax.set_xlabel(axes[0], size=9, color=SOFT)
    ax.set_ylabel(axes[1], size=9, color=SOFT)
    ax.tick_params(labelsize=8, colors=SOFT, length=3)
    if classes is not None:
        legend(figure, MARGIN + 60 + _PANEL + 36, MARGIN + 48 + 12, classes, down=True)
    return figure


def project(z: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Codes `[N, Z]` as points `[N, 2]`, and what the two axes are."""
    if z.ndim != 2 or not z.size:
        raise InputError(f"Codes of shape {z.shape}; wanted is [N, Z], not empty.")
    if z.shape[1] == 1:
        return np.concatenate([z, np.zeros_like(z)], axis=1), ("z", "")
    if z.shape[1] == 2:
        return z, ("$z_1$", "$z_2$")
    centred = z.astype(np.float64) - z.mean(axis=0, dtype=np.float64)
    padded = np.concatenate([centred, np.zeros((2, z.shape[1]))])  # of one code there are two directions too
    _, scales, rows = np.linalg.svd(padded, full_matrices=False)
    values, directions = np.square(scales), rows[:2].T
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])  # their sign is otherwise arbitrary
    shares = 100 * values[:2] / max(values.sum(), 1e-30)
    names = tuple(f"principal component {i + 1} ({share:.0f} % of the variance)" for i, share in enumerate(shares))
    return centred @ directions, (names[0], names[1])


def class_colors(classes: np.ndarray) -> np.ndarray:
    """One colour a class, `[K, 4]`: up to ten that people of any colour vision tell apart, else the rainbow in order.

    Reference: Petroff (2021), Accessible color sequences for data visualization.
    """
    import matplotlib
    from matplotlib.colors import to_rgba_array

    if len(classes) <= 10:
        return to_rgba_array(matplotlib.color_sequences["petroff10"][: len(classes)])
    return matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(classes)))


def scatter(ax: "Axes", points: np.ndarray, y: ArrayLike | None, *, size: float, label_size: float = 11) -> None:
    """Points `[N, 2]` in the order given, each class named at its median, if names have a size."""
    from matplotlib.patheffects import withStroke

    if y is None:
        colors: Any = "#3f90da"
    else:
        classes, index = np.unique(y, return_inverse=True)
        colors = class_colors(classes)[index]
    ax.scatter(points[:, 0], points[:, 1], s=size, c=colors, alpha=0.7, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.04)
    ax.spines[:].set_color(FAINT)
    if y is None or len(classes) > 20 or not label_size:
        return
    ax.apply_aspect()  # what follows needs to know where on the screen a point is
    medians = ax.transData.transform([np.median(points[index == i], axis=0) for i in range(len(classes))])
    halo = [withStroke(linewidth=label_size / 4, foreground="white")]
    style: dict[str, Any] = {"size": label_size, "weight": "bold", "color": INK, "path_effects": halo}
    places = ax.transData.inverted().transform(apart(medians, label_size * 2.4))
    for (across, up), name in zip(places, classes, strict=True):
        ax.text(across, up, str(name), ha="center", va="center", **style)


def apart(points: np.ndarray, distance: float) -> np.ndarray:
    """Points `[K, 2]`, those closer than `distance` to each other pushed apart as little as that takes."""
    points = points + 1e-3 * distance * np.arange(len(points))[:, None]  # two in one place need a direction
    for _ in range(200):
        gaps = points[:, None] - points
        lengths = np.linalg.norm(gaps, axis=-1) + np.diag(np.full(len(points), np.inf))
        push = np.maximum(distance - lengths, 0) / lengths
        if not push.any():
            break
        points = points + 0.3 * (push[..., None] * gaps).sum(axis=1)
    return points


def legend(figure: "Figure", left: float, top: float, classes: np.ndarray, *, down: bool = False) -> None:
    """A dot and a name for each class, from that pixel to the right, or down; of many classes twenty, evenly chosen."""
    colors = class_colors(classes)
    for i, place in enumerate(np.linspace(0, len(classes) - 1, _legend_entries(classes)).round().astype(int)):
        x, y = (left, top + 32 * i) if down else (left + _entry_width(classes) * i, top)
        canvas.write(figure, x, y, "\N{BLACK CIRCLE}", color=colors[place], size=9, va="center")
        canvas.write(figure, x + 20, y, str(classes[place]), size=9, va="center")


def legend_width(classes: np.ndarray) -> int:
    """Pixels that the legend takes from left to right."""
    return _entry_width(classes) * _legend_entries(classes) - 14


def _legend_entries(classes: np.ndarray) -> int:
    return min(len(classes), 20)


def _entry_width(classes: np.ndarray) -> int:
    return 34 + 12 * max(len(str(name)) for name in classes)


def manifold_grid(
    generate: Callable[[np.ndarray], ArrayLike],
    image_shape: tuple[int, ...],
    *,
    n: int = 20,
    centre: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
) -> "Figure":
    """What the decoder makes of a 2-D code: a grid of images at quantiles of a normal distribution.

    Row and column i stand at quantile `(i + 1/2) / n`, so that every image stands for the same share of the prior.
    The first coordinate grows to the right, the second upwards.

    Args:
      generate: `[n * n, 2] -> [n * n, ...]` in data space.
      image_shape: as in `images`.
      n: images along a side.
      centre: mean of the normal distribution, a scalar or `[2]`.
      scale: its standard deviation, likewise.

    Reference: Kingma & Welling (2014), figure 4.
    """
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
    across, up = (np.broadcast_to(centre, 2)[i] + np.broadcast_to(scale, 2)[i] * quantiles for i in (0, 1))
    z = np.stack(np.meshgrid(across, up[::-1]), axis=-1).reshape(-1, 2).astype(np.float32)
    tiles = canvas.as_tiles(generate(z), image_shape)
    pixels = canvas.pixel_scale(tiles, 48)
    width, height = canvas.mosaic_size(tiles, n, pixels, 1)
    title = "the code, decoded"
    figure = canvas.blank(max(width, canvas.title_width(title)) + 2 * MARGIN + 70, height + 2 * MARGIN + 48 + 50)
    canvas.title(figure, title, MARGIN + 70)
    ax = canvas.draw(figure, MARGIN + 70, MARGIN + 48, tiles, n, pixels, 1)
    ax.set_axis_on()
    ax.set_facecolor("black")  # between the images
    shown = np.unique(np.round(np.linspace(0, n - 1, min(n, 7))).astype(int))
    h, w = tiles.shape[1] + 1, tiles.shape[2] + 1
    ax.set_xticks((shown + 0.5) * w - 1, [f"{across[i]:.2f}" for i in shown])
    ax.set_yticks((n - shown - 0.5) * h - 1, [f"{up[i]:.2f}" for i in shown])
    ax.set_xlabel("$z_1$", size=10, color=SOFT)
    ax.set_ylabel("$z_2$", size=10, color=SOFT)
    ax.tick_params(labelsize=8, colors=SOFT, length=3)
    ax.spines[:].set_visible(False)
    return figure


def walk(
    generate: Callable[[np.ndarray], ArrayLike],
    z_a: ArrayLike,
    z_b: ArrayLike,
    image_shape: tuple[int, ...],
    *,
    x_a: ArrayLike | None = None,
    x_b: ArrayLike | None = None,
    num_steps: int = 9,
) -> "Figure":
    """Straight walks through the code, from one image to another, one a row.

    Args:
      generate: `[N * num_steps, Z] -> [N * num_steps, ...]` in data space.
      z_a: `[N, Z]` where they start.
      z_b: `[N, Z]` where they end.
      image_shape: as in `images`.
      x_a: `[N, ...]` the images whose codes are z_a, shown beside the start.
      x_b: `[N, ...]` the same at the end.
      num_steps: images on the way, both ends included.
    """
    a, b = np.asarray(z_a), np.asarray(z_b)
    if a.shape != b.shape or a.ndim != 2 or num_steps < 2:
        raise InputError(f"A walk of {num_steps} steps from {a.shape} to {b.shape}; wanted are [N, Z] twice, 2 steps.")
    t = np.linspace(0, 1, num_steps, dtype=a.dtype)[None, :, None]
    path = ((1 - t) * a[:, None] + t * b[:, None]).reshape(-1, a.shape[1])
    tiles = canvas.as_tiles(generate(path), image_shape)
    scale = canvas.pixel_scale(tiles)
    gap = canvas.mosaic_gap(scale)
    width, height = canvas.mosaic_size(tiles, num_steps, scale, gap)
    side, title = tiles.shape[2] * scale + 40, "straight walks through the code"
    start = MARGIN + (0 if x_a is None else side)
    content = start + width + (0 if x_b is None else side)
    top = MARGIN + 84
    figure = canvas.blank(max(content, MARGIN + canvas.title_width(title)) + MARGIN, top + height + MARGIN)
    canvas.title(figure, title)
    for x, left in ((x_a, MARGIN), (x_b, start + width + 40)):
        if x is not None:
            canvas.write(figure, left, top - 14, "image", size=8, color=SOFT)
            canvas.draw(figure, left, top, canvas.as_tiles(x, image_shape), 1, scale, gap)
    canvas.write(figure, start, top - 14, "decoded", size=8, color=SOFT)
    canvas.draw(figure, start, top, tiles, num_steps, scale, gap)
    return figure
