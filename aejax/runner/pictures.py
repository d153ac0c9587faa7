"""The pictures that any autoencoder has; experiments add their own.

No measurement, no file; how a picture is drawn is in `aejax.plots`.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from aejax import evaluation
from aejax.data import Batch
from aejax.nets import MLP, Autoencoder
from aejax.runner.experiment import Trained
from aejax.runner.measures import codes, prior_draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = 10  # rows of their picture
_WALKS = 8  # at most


def standard(trained: Trained) -> "dict[str, Figure]":
    """Reconstructions, filters, codes, walks, curves; samples where there is a prior; the manifold of a 2-D code.

    Of a model that is conditioned on labels the styles, one code a row and one class a column, in place of samples,
    walks and manifold. What the data do not allow is left out, and noted.
    """
    from aejax import plots

    test, shape = trained.dataset.test, trained.dataset.image_shape
    z = codes(trained, test)
    figures = {"codes": lambda: plots.latent_scatter(z, test.y), "curves": lambda: plots.curves(trained.history)}
    if shape is not None and shape[2] not in (1, 3):
        trained.notes["images"] = f"left out: they have {shape[2]} channels; pictures show one or three"
    elif shape is not None:
        figures |= _of_images(trained, z, shape)
    return trained.each(figures)


def _of_images(trained: Trained, z: np.ndarray, shape: tuple[int, ...]) -> "dict[str, Callable[[], Figure]]":
    from aejax import plots

    model, params, test, show = trained.model, trained.state.params, trained.dataset.test, shown(trained)
    few = Batch(*(None if v is None else v[:16] for v in test))
    figures: dict[str, Callable[[], Any]] = {
        "reconstructions": lambda: plots.reconstructions(
            show(few.x), show(evaluation.reconstruct(model, params, few)), shape
        )
    }
    if isinstance(model.encoder, MLP):
        figures["filters"] = lambda: plots.filters(np.asarray(params["encoder"]["dense_0"]["kernel"]), shape)
    if model.takes_labels:
        return figures | {"styles": partial(_styles, trained, z)}
    generate = jax.jit(lambda z: show(model.apply({"params": params}, z, method="generate")))
    if pairs := min(_WALKS, len(test.x) // 2):
        a, b = slice(pairs), slice(pairs, 2 * pairs)
        figures["walks"] = lambda: plots.walk(generate, z[a], z[b], shape, x_a=show(test.x[a]), x_b=show(test.x[b]))
    if samples_itself(model):
        draw = partial(model.apply, {"params": params}, trained.draw_key, 100, method="sample")
        figures["samples"] = lambda: plots.samples(show(np.asarray(draw())), shape)
    if model.latent_dim == 2:
        of_codes = model.prior is not None and type(model).sample is Autoencoder.sample
        is_normal = of_codes and model.has_normal_prior
        centre, scale = (0.0, 1.0) if is_normal else (z.mean(axis=0), z.std(axis=0))
        figures["manifold"] = lambda: plots.manifold_grid(generate, shape, centre=centre, scale=scale)
    return figures


def shown(trained: Trained) -> Callable[[Any], Any]:
    """What makes pixels of values: they stay where the data lie in [0, 1], and else are scaled, which is noted."""
    x = trained.dataset.train.x
    low, high = float(x.min()), float(x.max())
    if (low >= 0 and high <= 1) or not low < high:
        return lambda values: values
    low, high = (float(v) for v in np.percentile(x[:1000], (1, 99)))
    low, high = (low, high) if low < high else (float(x.min()), float(x.max()))
    trained.notes["images"] = f"values from {low:.3g} to {high:.3g} are shown from black to white"
    return lambda values: (values - low) / (high - low)


def samples_itself(model: Autoencoder) -> bool:
    """Whether `model.sample` has something to draw from: a prior, or a way of its own."""
    return model.prior is not None or type(model).sample is not Autoencoder.sample


def _styles(trained: Trained, z: np.ndarray) -> "Figure":
    """Ten codes, from the prior where there is one, each decoded as every class."""
    from aejax import plots

    model, dataset, show = trained.model, trained.dataset, shown(trained)
    assert dataset.image_shape is not None
    codes = prior_draws(trained, trained.draw_key, _STYLES) if model.prior is not None else z[:_STYLES]
    classes = np.unique(dataset.train.y)
    classes = classes[np.linspace(0, len(classes) - 1, min(len(classes), 2 * _STYLES)).round().astype(int)]
    generate = jax.jit(lambda z, y: show(model.apply({"params": trained.state.params}, z, y, method="generate")))
    return plots.styles(generate, codes, classes.astype(np.int32), dataset.image_shape)
