"""The measurements that any autoencoder has; experiments add their own.

No picture, no file, no metric of one method alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation, jacobian
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation.apply import over_batches
from aejax.nets import Autoencoder, inputs
from aejax.runner.experiment import Trained
from aejax.runner.inputs import fed

_PROBE = 5 * 10**7  # training examples times kinds of label, which is what a probe's memory grows with
_PCA = 10_000  # rows of the matrix whose eigenvectors are found, at most
_JACOBIANS = 1000  # test examples whose Jacobians are taken: exact, but dear for deep encoders
_EXAMPLES, _NUMBERS = 1000, 2 * 10**7  # of the test split, on which a collapse shows


def standard(trained: Trained) -> dict[str, float]:
    """`test_sse`, `probe_accuracy`, `knn5_accuracy` (with labels), `jacobian_norm` of the first 1,000 test examples."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    metrics = trained.each({"test_sse": lambda: evaluation.reconstruction_sse(model, params, dataset.test)})
    return metrics | probes(trained) | trained.each({"jacobian_norm": lambda: jacobian_norm(trained)})


def probes(trained: Trained) -> dict[str, float]:
    """`probe_accuracy` and `knn5_accuracy` where there are labels that repeat, of two kinds or more."""
    dataset = trained.dataset
    if dataset.train.y is None or dataset.test.y is None:
        return {}
    splits = (codes(trained, dataset.train), dataset.train.y, codes(trained, dataset.test), dataset.test.y)
    size, kinds = len(dataset.train.x), len(np.unique(dataset.train.y))

    def checked(measure: Callable[..., float], most: float) -> float:
        if 2 * kinds > size:
            raise InputError(f"{size} training labels of {kinds} kinds look like identifiers.")
        if size * kinds > most:
            raise InputError(f"{size} training labels of {kinds} kinds take more memory than a measurement may.")
        return measure(*splits)

    probe, neighbours = partial(checked, evaluation.linear_probe, _PROBE), partial(checked, evaluation.knn, np.inf)
    return trained.each({"probe_accuracy": probe, "knn5_accuracy": neighbours})


def clusters(trained: Trained) -> dict[str, float]:
    """`cluster_accuracy`, `nmi` and `ari` of the test examples, where there are labels, of a model with `clusters`."""
    test = trained.dataset.test
    if test.y is None:
        return {}
    y = np.asarray(test.y)

    def scores() -> dict[str, float]:
        found = over_batches(partial(evaluation.call, trained.model, trained.state.params, "clusters"), test.x)
        return evaluation.cluster_scores(y, found)._asdict()

    return trained.each({"clusters": scores}).get("clusters", {})


def tokens(trained: Trained) -> dict[str, float]:
    """`test_perplexity` of the discrete codes of the test examples, and `used_entries`, of a model with `tokens`."""
    call = partial(evaluation.call, trained.model, trained.state.params, "tokens")
    found = over_batches(call, trained.dataset.test.x)
    return {"test_perplexity": evaluation.perplexity(found), "used_entries": len(np.unique(found))}


def jacobian_norm(trained: Trained) -> float:
    """The Frobenius norm of the encoder's Jacobian, mean over the first 1,000 test examples."""
    norms = partial(_jacobian_norms, trained.state.params, model=trained.model)
    arrays = inputs(trained.model, trained.dataset.test)
    return float(over_batches(norms, *(a[:_JACOBIANS] for a in arrays), batch_size=50).mean())


def against_prior(trained: Trained, z: np.ndarray, key: jax.Array) -> dict[str, float]:
    """How far codes are from draws of the prior: `code_mmd` and `code_mmd_p`.

    Of a VAE they have to be drawn from the posterior: its means are too narrow.

    Args:
      trained: whose prior it is.
      z: `[N, Z]`.
      key: of the draws and of the permutations, consumed.
    """
    draw_key, test_key = jax.random.split(key)
    compute = lambda: evaluation.code_mmd(z, prior_draws(trained, draw_key, len(z)), test_key)
    found = trained.each({"code_mmd": compute})
    return {"code_mmd": found["code_mmd"].mmd_sq, "code_mmd_p": found["code_mmd"].p_value} if found else {}


def note_collapse(trained: Trained, untrained: Callable[[], Any], key: jax.Array) -> None:
    """Notes what `evaluation.collapse` finds wrong on the first 1,000 test examples, and nothing of a sound model.

    Of examples of more than 20,000 numbers fewer are taken. No metric depends on it, and whatever goes wrong in it
    fails no run.

    Args:
      trained: whose notes get `collapse`.
      untrained: makes the parameters before the first step.
      key: consumed.
    """
    try:
        test = fed(trained.model, trained.dataset.test)
        count = min(_EXAMPLES, max(2, _NUMBERS // test.x[0].size))
        test = jax.tree.map(lambda rows: rows[:count], test)
        found = evaluation.collapse(trained.model, trained.state.params, test, key, untrained=untrained())
    except Exception as error:
        text = str(error).partition("\n")[0]
        refused = isinstance(error, InputError)
        trained.notes["collapse"] = f"not looked for: {text if refused else f'{type(error).__name__}: {text}'}"
    else:
        if found.findings:
            trained.notes["collapse"] = " ".join(found.findings)


def prior_draws(trained: Trained, key: jax.Array, n: int) -> np.ndarray:
    """Codes from the prior of the model, `[n, Z]`; `InputError` where it has none."""
    return np.asarray(trained.model.apply({"params": trained.state.params}, key, n, method="sample_prior"))


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
    """The k leading eigenvectors `[D, k]` of `x^T x / N`, in float64, and their eigenvalues `[k]`, descending.

    Found from `x^T x` or `x x^T`, whichever is smaller. Where x has fewer rows than columns there are at most as many
    as its rank.

    Args:
      x: `[N, D]`, centred or not, as the directions are meant.
      k: how many.

    Raises:
      InputError: both have more than 10,000 rows.
    """
    n, d = x.shape
    if min(n, d) > _PCA:
        raise InputError(f"PCA of x {x.shape} takes a matrix of {min(n, d)} rows; up to {_PCA} are taken.")
    x = x.astype(np.float64)
    if d <= n:
        values, vectors = np.linalg.eigh(x.T @ x / n)
        return vectors[:, ::-1][:, :k], values[::-1][:k]
    values, vectors = np.linalg.eigh(x @ x.T / n)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    kept = values > values[0] * n * np.finfo(np.float64).eps
    return x.T @ vectors[:, kept] / np.sqrt(n * values[kept]), values[kept]


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


def codes(trained: Trained, batch: Batch) -> np.ndarray:
    """The codes of a batch, `[B, Z]`."""
    return evaluation.embed(trained.model, trained.state.params, batch)
