"""A picture of `experiments.contractive`: how the SCAE becomes the CAE."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import jacobian
from aejax.data import Batch
from aejax.methods.scae import scae_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIGMAS = np.geomspace(0.01, 1.0, 13)
_DRAWS = 20  # of the noise, for each example


def kernel(params: Any) -> np.ndarray:
    """The weights of the one layer, `[D, Z]`."""
    return np.asarray(params["encoder"]["dense_0"]["kernel"])


class Limit(NamedTuple):
    """The penalty of the SCAE for one layer of sigmoids, mean over examples, in float64."""

    expected: np.ndarray  # [S] E |h(x + sigma e) - h(x)|^2 / sigma^2
    jacobian_sq: float  # where it tends to
    slope: float  # expected = jacobian_sq + slope sigma^2 + O(sigma^4)


def limit(params: Any, x: np.ndarray, sigmas: np.ndarray) -> Limit:
    """The expectation of the penalty by quadrature: unit by unit the noise is one Gaussian, of deviation sigma |w_j|.

    By Taylor, and with the moments 1, 3 of e^2 and e^4, a unit of slope `s'` and weights of length a has
    `a^2 s'^2 + sigma^2 a^4 (3/4 s''^2 + s' s''') + O(sigma^4)`.
    """
    weights = kernel(params).astype(np.float64)
    bias = np.asarray(params["encoder"]["dense_0"]["bias"], np.float64)
    lengths = np.linalg.norm(weights, axis=0)
    pre = x.astype(np.float64) @ weights + bias
    nodes, mass = np.polynomial.hermite_e.hermegauss(80)
    rule = list(zip(nodes, mass / mass.sum(), strict=True))
    h = _sigmoid(pre)
    shifts = [sum(m * np.square(_sigmoid(pre + sigma * lengths * e) - h) for e, m in rule) for sigma in sigmas]
    expected = np.array([shift.sum(axis=1).mean() for shift in shifts]) / np.square(sigmas)
    first = h * (1 - h)
    second, third = first * (1 - 2 * h), first * (1 - 6 * first)
    slope = (lengths**4 * (0.75 * second**2 + first * third)).sum(axis=1).mean()
    return Limit(expected, float(np.square(lengths * first).sum(axis=1).mean()), float(slope))


def limit_figure(model: Any, params: Any, x: np.ndarray) -> "Figure":
    """The penalty over sigma^2 against sigma: its value with draws of the loss, and its distance to the limit."""
    from aejax.plots import canvas
    from aejax.plots.canvas import FAINT, MARGIN, SOFT

    found = limit(params, x, _SIGMAS)
    drawn = _draws(model, params, x)
    exact = float(jacobian.embedding_sq(model, params, jnp.asarray(x)).mean())
    figure = canvas.blank(2 * 640 + 2 * MARGIN, 560)
    canvas.title(figure, f"SCAE becomes CAE: a trained code of {model.latent_dim} units, {len(x)} test images")
    left, right = (canvas.place(figure, MARGIN + 90 + i * 640, 130, 500, 340) for i in range(2))
    left.axhline(exact, color=SOFT, linewidth=1, linestyle="--", label="squared Jacobian norm")
    left.plot(_SIGMAS, found.expected, color="#3f90da", linewidth=1.4, label="expected, by quadrature")
    bars = drawn.std(axis=1, ddof=1) / drawn.shape[1] ** 0.5
    left.errorbar(
        _SIGMAS, drawn.mean(axis=1), 2 * bars, fmt="o", color="#e76300", markersize=3, linewidth=1,
        label=f"the loss, {_DRAWS} draws, 2 standard errors",
    )  # fmt: skip
    left.set_ylabel("penalty / sigma^2", size=8, color=SOFT)
    gap = np.abs(found.expected / found.jacobian_sq - 1)
    line = np.abs(found.slope) / found.jacobian_sq * _SIGMAS**2
    right.loglog(
        _SIGMAS, gap, "o-", color="#3f90da", markersize=3, linewidth=1.4, label="distance to the limit, relative"
    )
    right.loglog(_SIGMAS, line, "--", color=SOFT, linewidth=1, label="predicted, sigma^2")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel("sigma", size=8, color=SOFT)
        ax.tick_params(which="both", labelsize=7, colors=SOFT, length=3)
        ax.grid(color=FAINT, linewidth=0.5, alpha=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(FAINT)
        ax.legend(fontsize=7, frameon=False)
    return figure


def _draws(model: Any, params: Any, x: np.ndarray) -> np.ndarray:
    """`[S, draws]`: the penalty as the loss computes it, each with noise of its own."""
    keys = jax.random.split(jax.random.key(0), (len(_SIGMAS), _DRAWS))
    penalty = lambda key, sigma: scae_loss(params, Batch(x), key, model=model, sigma=sigma)[1]["shift_sq"]
    return np.array(
        [[float(penalty(key, sigma)) for key in row] for row, sigma in zip(keys, _SIGMAS.tolist(), strict=True)]
    )


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))
