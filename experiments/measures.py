"""The measurements and pictures that any autoencoder has; experiments add their own."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation, jacobian
from aejax.data import Batch
from aejax.evaluation.apply import over_batches
from aejax.nets import MLP, Autoencoder, inputs
from experiments.common import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = 10  # rows of their picture
_JACOBIANS = 1000  # test examples whose Jacobians are taken: exact, but dear for deep encoders


def standard(trained: Trained) -> dict[str, float]:
    """`test_sse`, `probe_accuracy`, `knn5_accuracy` (with labels), `jacobian_norm` of the first 1,000 test examples."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    metrics = {"test_sse": evaluation.reconstruction_sse(model, params, dataset.test)}
    return metrics | probes(trained) | {"jacobian_norm": jacobian_norm(trained)}


def probes(trained: Trained) -> dict[str, float]:
    """`probe_accuracy` and `knn5_accuracy` where there are labels."""
    dataset = trained.dataset
    if dataset.train.y is None or dataset.test.y is None:
        return {}
    splits = (_codes(trained, dataset.train), dataset.train.y, _codes(trained, dataset.test), dataset.test.y)
    return {"probe_accuracy": evaluation.linear_probe(*splits), "knn5_accuracy": evaluation.knn(*splits)}


def jacobian_norm(trained: Trained) -> float:
    """The Frobenius norm of the encoder's Jacobian, mean over the first 1,000 test examples."""
    norms = partial(_jacobian_norms, trained.state.params, model=trained.model)
    arrays = inputs(trained.model, trained.dataset.test)
    return float(over_batches(norms, *(a[:_JACOBIANS] for a in arrays), batch_size=50).mean())


def against_prior(z: np.ndarray, draws: np.ndarray, key: jax.Array) -> dict[str, float]:
    """How far codes are from draws of the prior.

    Of a VAE they have to be drawn from the posterior: its means are too narrow.

    Args:
      z: `[N, Z]`.
      draws: `[N, Z]`, as in `prior_draws`.
      key: of the permutations, consumed.
    """
    test = evaluation.code_mmd(z, draws, key)
    return {"code_mmd": test.mmd_sq, "code_mmd_p": test.p_value}


def prior_draws(trained: Trained, key: jax.Array, n: int) -> np.ndarray:
    """Codes from the prior of the model, `[n, Z]`; `InputError` where it has none."""
    return np.asarray(trained.model.apply({"params": trained.state.params}, key, n, method="sample_prior"))


def pictures(trained: Trained) -> "dict[str, Figure]":
    """Reconstructions, filters, codes, walks, curves; samples where there is a prior; the manifold of a 2-D code.

    Of a model that is conditioned on labels the styles, one code a row and one class a column, in place of samples,
    walks and manifold.
    """
    from aejax import plots

    model, params, dataset = trained.model, trained.state.params, trained.dataset
    test, shape = dataset.test, dataset.image_shape
    z = _codes(trained, test)
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


def principal_angle(directions: np.ndarray, x: np.ndarray) -> float:
    """Largest angle between a subspace and the principal subspace of x, in degrees.

    Args:
      directions: `[D, k]`, spanning the subspace.
      x: `[N, D]`, centred or not, as the principal subspace is meant.
    """
    from scipy.linalg import subspace_angles

    return float(np.degrees(subspace_angles(directions, principal(x, directions.shape[1])[0]).max()))


def pca_sse(train_x: np.ndarray, test_x: np.ndarray, k: int, *, centred: bool = True) -> float:
    """Squared error of PCA with k directions, sum over pixels, mean over test images: what a linear code can do."""
    return float(np.square(pca_reconstruct(train_x, test_x, k, centred=centred) - test_x).sum(axis=1).mean())


def pca_reconstruct(train_x: np.ndarray, x: np.ndarray, k: int, *, centred: bool = True) -> np.ndarray:
    """What is left of x `[M, D]`, in float64, in k directions of `train_x`."""
    mean = train_x.mean(axis=0, dtype=np.float64) if centred else 0.0
    directions, _ = principal(train_x - mean, k)
    return mean + (x - mean) @ directions @ directions.T


def principal(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k leading eigenvectors `[D, k]` of `x^T x / N`, in float64, and their eigenvalues `[k]`, descending."""
    x = x.astype(np.float64)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return vectors[:, ::-1][:, :k], values[::-1][:k]


def final_mean(trained: Trained, term: str) -> float:
    """The mean of a training term over the last 10 % of the steps, from the rows of the history."""
    rows = trained.history
    ends = np.array([row["step"] for row in rows])
    starts = np.concatenate([[0], ends[:-1]])
    weights = np.maximum(ends - np.maximum(starts, 0.9 * ends[-1]), 0.0)
    return float(np.average([row[term] for row in rows], weights=weights))


@partial(jax.jit, static_argnames="model")
def _jacobian_norms(params: Any, x: jax.Array, *condition: jax.Array, model: Autoencoder) -> jax.Array:
    return jnp.sqrt(jacobian.embedding_sq(model, params, Batch(x, *condition)))


def _codes(trained: Trained, batch: Batch) -> np.ndarray:
    return evaluation.embed(trained.model, trained.state.params, batch)
