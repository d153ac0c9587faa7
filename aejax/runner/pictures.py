"""The pictures that any autoencoder has; experiments add their own."""

from typing import TYPE_CHECKING

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


def standard(trained: Trained) -> "dict[str, Figure]":
    """Reconstructions, filters, codes, walks, curves; samples where there is a prior; the manifold of a 2-D code.

    Of a model that is conditioned on labels the styles, one code a row and one class a column, in place of samples,
    walks and manifold.
    """
    from aejax import plots

    model, params, dataset = trained.model, trained.state.params, trained.dataset
    test, shape = dataset.test, dataset.image_shape
    z = codes(trained, test)
    figures = {"codes": plots.latent_scatter(z, test.y), "curves": plots.curves(trained.history)}
    if shape is None:
        return figures
    shown = Batch(*(None if v is None else v[:16] for v in test))
    figures["reconstructions"] = plots.reconstructions(shown.x, evaluation.reconstruct(model, params, shown), shape)
    if isinstance(model.encoder, MLP):
        figures["filters"] = plots.filters(np.asarray(params["encoder"]["dense_0"]["kernel"]), shape)
    if model.takes_labels:
        return figures | {"styles": _styles(trained, z)}
    generate = jax.jit(lambda z: model.apply({"params": params}, z, method="generate"))
    figures["walks"] = plots.walk(generate, z[:8], z[8:16], shape, x_a=test.x[:8], x_b=test.x[8:16])
    if samples_itself(model):
        samples = model.apply({"params": params}, trained.draw_key, 100, method="sample")
        figures["samples"] = plots.samples(np.asarray(samples), shape)
    if model.latent_dim == 2:
        is_normal = model.prior is not None and model.has_normal_prior
        centre, scale = (0.0, 1.0) if is_normal else (z.mean(axis=0), z.std(axis=0))
        figures["manifold"] = plots.manifold_grid(generate, shape, centre=centre, scale=scale)
    return figures


def samples_itself(model: Autoencoder) -> bool:
    """Whether `model.sample` has something to draw from: a prior, or a way of its own."""
    return model.prior is not None or type(model).sample is not Autoencoder.sample


def _styles(trained: Trained, z: np.ndarray) -> "Figure":
    """Ten codes, from the prior where there is one, each decoded as every class."""
    from aejax import plots

    model, dataset = trained.model, trained.dataset
    assert dataset.image_shape is not None
    codes = prior_draws(trained, trained.draw_key, _STYLES) if model.prior is not None else z[:_STYLES]
    classes = np.unique(dataset.train.y)
    classes = classes[np.linspace(0, len(classes) - 1, min(len(classes), 2 * _STYLES)).round().astype(int)]
    generate = jax.jit(lambda z, y: model.apply({"params": trained.state.params}, z, y, method="generate"))
    return plots.styles(generate, codes, classes.astype(np.int32), dataset.image_shape)
