"""The measurements and pictures that any autoencoder has; experiments add their own."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation, jacobian
from aejax.evaluation.apply import over_batches
from aejax.nets import MLP, Autoencoder
from aejax.priors import StandardNormal
from experiments.common import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.priors import Prior

_JACOBIANS = 1000  # test examples whose Jacobians are taken: exact, but dear for deep encoders


def standard(trained: Trained) -> dict[str, float]:
    """`test_sse`, `probe_accuracy`, `knn5_accuracy` (with labels), `jacobian_norm` of the first 1,000 test examples."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    metrics = {"test_sse": evaluation.reconstruction_sse(model, params, dataset.test.x)}
    return metrics | probes(trained) | {"jacobian_norm": jacobian_norm(trained)}


def probes(trained: Trained) -> dict[str, float]:
    """`probe_accuracy` and `knn5_accuracy` where there are labels."""
    dataset = trained.dataset
    if dataset.train.y is None or dataset.test.y is None:
        return {}
    splits = (_codes(trained, dataset.train.x), dataset.train.y, _codes(trained, dataset.test.x), dataset.test.y)
    return {"probe_accuracy": evaluation.linear_probe(*splits), "knn5_accuracy": evaluation.knn(*splits)}


def jacobian_norm(trained: Trained) -> float:
    """The Frobenius norm of the encoder's Jacobian, mean over the first 1,000 test examples."""
    norms = partial(_jacobian_norms, trained.state.params, model=trained.model)
    return float(over_batches(norms, trained.dataset.test.x[:_JACOBIANS], batch_size=50).mean())


def against_prior(z: np.ndarray, prior: "Prior", key: jax.Array) -> dict[str, float]:
    """How far codes are from the prior; of a VAE they have to be drawn from the posterior, its means are too narrow."""
    sample_key, test_key = jax.random.split(key)
    draws = np.asarray(prior.sample(sample_key, len(z)))
    test = evaluation.code_mmd(z, draws, test_key)
    return {"code_mmd": test.mmd_sq, "code_mmd_p": test.p_value}


def pictures(trained: Trained, prior: "Prior | None" = None) -> "dict[str, Figure]":
    """Reconstructions, filters, codes, walks, curves; samples where there is a prior; the manifold of a 2-D code."""
    from aejax import plots

    model, params, dataset = trained.model, trained.state.params, trained.dataset
    test, shape = dataset.test, dataset.image_shape
    generate = jax.jit(lambda z: model.apply({"params": params}, z, method="generate"))
    z = _codes(trained, test.x)
    figures = {"codes": plots.latent_scatter(z, test.y), "curves": plots.curves(trained.history)}
    if shape is None:
        return figures
    shown = test.x[:16]
    figures["reconstructions"] = plots.reconstructions(shown, evaluation.reconstruct(model, params, shown), shape)
    figures["walks"] = plots.walk(generate, z[:8], z[8:16], shape, x_a=test.x[:8], x_b=test.x[8:16])
    if isinstance(model.encoder, MLP):
        figures["filters"] = plots.filters(np.asarray(params["encoder"]["dense_0"]["kernel"]), shape)
    if prior is not None:
        figures["samples"] = plots.samples(np.asarray(generate(prior.sample(trained.draw_key, 100))), shape)
    if model.latent_dim == 2:
        is_normal = isinstance(prior, StandardNormal)
        centre, scale = (0.0, 1.0) if is_normal else (z.mean(axis=0), z.std(axis=0))
        figures["manifold"] = plots.manifold_grid(generate, shape, centre=centre, scale=scale)
    return figures


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
def _jacobian_norms(params: Any, x: jax.Array, *, model: Autoencoder) -> jax.Array:
    return jnp.sqrt(jacobian.embedding_sq(model, params, x))


def _codes(trained: Trained, x: Any) -> np.ndarray:
    return evaluation.embed(trained.model, trained.state.params, x)
