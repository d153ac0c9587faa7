"""What comes of random codes: an autoencoder, a "VAE" without the KL, and a VAE, looked at and counted.

A decoder is a generator only where it has seen codes. An autoencoder puts them anywhere, and so does a VAE whose KL has
the weight 0: draws of N(0, I) miss them, and what they decode to is no digit. Draws of a Gaussian with the mean and
covariance of the training codes come closer. A VAE has been taught that codes are N(0, I).

Numbers stand beside the pictures, each also of the test images, which say what is possible, and of draws of a Gaussian
with the mean and covariance of the training pixels, which has no code. Draws are the means that codes are decoded to.

- digits: share of draws that a classifier takes for some digit with a probability of 0.9 and more. It is a logistic
  regression on 300 radial features (Nystroem, training images): far from all of these it is not sure of anything.
- kinds: how many digits there are among these, by the perplexity of their shares; 10 where all are as frequent.
- nearest: distance of a draw to the nearest training image, root of summed squared pixels. Above that of test images a
  draw is like no image; below it, it is an average of some, or a copy.
- Frechet: distance of two Gaussians with the means and covariances of draws and of training images, in the 20 leading
  principal components: `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`, in form the Frechet inception distance (Heusel et
  al. 2017), without its network. As many draws are taken at a time as there are test images, for it grows as samples
  get smaller; the mean of 10 times.
- between: share of codes halfway between the codes of two test images of different digits that are decoded to a digit,
  for the digits 2, 4, 5 and 6; beside it that of the images' own averages.

On the digits (2 seeds, 2026-11-26, 3 minutes in all on two shared CPU cores) of the draws of N(0, I) 1.1 +- 0.8 % are
digits for the AE, 0.2 +- 0.2 % without the KL and 75.9 +- 0.4 % for the VAE; of test images 77.8 %, of a Gaussian of
the pixels 15 %. Fitted Gaussians take the AE to 36.6 +- 0.9 % and the VAE to 77.6 +- 0.8 %. Halfway between two digits
46 +- 6 % of what the AE decodes are digits and 74 +- 5 % of the VAE's, of averages of images 25 %. The price is the
error, 1.65 of the VAE against 0.73. The Frechet distance says otherwise: 2.8 of the AE and 0.71 of the VAE, but 0.28
of the AE with a fitted Gaussian, and 0.24 of the Gaussian of the pixels. It sees means and covariances alone, and the
means that a VAE decodes vary less than images do.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from aejax import evaluation, runner
from aejax.checks import InputError, check_count
from aejax.data import Batch, Dataset
from aejax.evaluation.apply import over_batches
from aejax.methods.vae import HParams
from aejax.runner import Trained, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import ae, vae
from experiments.studies.manifold import Hashed, hashed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"ae": "AE", "free": "VAE without the KL", "vae": "VAE", "plane": "VAE, 2-D code"}
SOURCES = {"prior": "N(0, I)", "fitted": "a Gaussian fitted to its codes"}
SCORES = {"digits": "digits, %", "kinds": "kinds", "nearest": "nearest", "frechet": "Frechet"}
_FEATURES, _COMPONENTS, _SURE = 300, 20, 0.9
_SETS = 10  # of draws, each of as many as there are test images
_PAIRS = 200  # of test images between which codes are decoded
_SHOWN = 16
_CODES = 2**31 - 1  # the fold of the key by which draws are made


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y) of images with values in [0, 1]."""
    latent_dim: int = 8
    """Size of the code, but of the VAE whose code is a plane."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    walk_between: tuple[int, ...] = (2, 4, 5, 6)
    """Labels between whose images codes are decoded."""
    num_seeds: int = 2
    """Runs of each row."""
    seed: int = 0
    """The first one."""


class Judge(NamedTuple):
    """What draws are held against."""

    classify: Callable[[np.ndarray], np.ndarray]  # [N, D] -> probabilities [N, K]
    train_x: np.ndarray  # [N, D]
    mean: np.ndarray  # [D] of the training images
    directions: np.ndarray  # [D, k] their leading principal ones


def runs(config: Config) -> Runs:
    """Every model with every seed; `InputError` for data without the labels that are walked between."""
    check_count(**{"--num-seeds": config.num_seeds})
    own = {name: getattr(config, name) for name in ("dataset", "latent_dim", "hidden_dims", "num_epochs", "batch_size")}
    shared: dict[str, Any] = own | {"schedule": "cosine", "validation": 0.0}
    rows = {
        "ae": (ae.EXPERIMENT, ae.Config(**shared, hparams=ae.method.HParams(config.lr))),
        **{
            name: (vae.EXPERIMENT, vae.Config(**shared | sizes, nll_samples=0, hparams=HParams(config.lr, beta)))
            for name, beta, sizes in (("free", 0.0, {}), ("vae", 1.0, {}), ("plane", 1.0, {"latent_dim": 2}))
        },
    }
    y = runner.load_data(rows["ae"][1]).test.y
    known = [] if y is None else np.unique(y).tolist()
    if not set(config.walk_between) <= set(known) or len(set(config.walk_between)) < 2:
        raise InputError(
            f"--walk-between is {config.walk_between}; wanted are at least two labels of the test images of"
            f" {config.dataset}, which have {known or 'none'}."
        )
    measured = partial(measure, labels=config.walk_between)
    changed = {name: (each._replace(measure=measured, draw=lambda _: {}), row) for name, (each, row) in rows.items()}
    return study.seeded(changed, config.seed, config.num_seeds)


@lru_cache(maxsize=1)
def _judge(known: Hashed) -> Judge:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestNeighbors
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    x, y = known.dataset.train
    with threadpool_limits(1):
        near = NearestNeighbors(n_neighbors=2).fit(x[:1000]).kneighbors(x[:1000])[0][:, 1]
        features = Nystroem(gamma=1 / np.square(near).mean(), n_components=min(_FEATURES, len(x)), random_state=0)
        model = make_pipeline(features, LogisticRegression(C=100, max_iter=1000)).fit(x, y)
    mean = x.mean(axis=0, dtype=np.float64)
    directions = np.linalg.eigh(np.cov((x - mean).T))[1][:, : -_COMPONENTS - 1 : -1]
    return Judge(model.predict_proba, x, mean, directions)


def judge(dataset: Dataset) -> Judge:
    """Of the training images, flat and with labels; made once."""
    return _judge(hashed(dataset))


def sure(own: Judge, x: np.ndarray) -> np.ndarray:
    """The label that the classifier is sure of, `[N]`, or -1: the place among the labels, not the label itself."""
    found = own.classify(x)
    return np.where(found.max(axis=1) >= _SURE, found.argmax(axis=1), -1)


def scores(own: Judge, sets: np.ndarray) -> dict[str, float]:
    """All of `SCORES` of draws `[S, M, D]`."""
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    x = sets.reshape(-1, sets.shape[-1])
    with threadpool_limits(1):
        labels = sure(own, x)
        nearest = NearestNeighbors(n_neighbors=1).fit(own.train_x).kneighbors(x)[0]
    known = labels[labels >= 0]
    project = lambda v: (v - own.mean) @ own.directions
    distances = [frechet(project(each), project(own.train_x)) for each in sets]
    return {
        "digits": len(known) / len(x),
        "kinds": evaluation.perplexity(known) if len(known) else 0.0,
        "nearest": float(nearest.mean()),
        "frechet": float(np.mean(distances)),
    }


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Frechet (Wasserstein-2) distance of the Gaussians that have the moments of `[N, k]` and `[M, k]`.

    Reference: Dowson & Landau, The Frechet distance between multivariate normal distributions, 1982.
    """
    cov_a, cov_b = (np.atleast_2d(np.cov(v.T.astype(np.float64))) for v in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    middle = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    gap = np.square(a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)).sum()
    return float(gap + np.trace(cov_a) + np.trace(cov_b) - 2 * middle)


def drawn(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`[count, Z]` of that Gaussian."""
    values, vectors = np.linalg.eigh(covariance)
    z = np.random.default_rng(seed).normal(size=(count, len(mean)))
    return (mean + z * np.sqrt(np.maximum(values, 0)) @ vectors.T).astype(np.float32)


def decoder(model: Any, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Codes `[N, Z]` -> the means that they stand for `[N, D]`."""
    generate = jax.jit(lambda z: model.apply({"params": params}, z, method="generate"))
    return lambda z: over_batches(generate, z, batch_size=256)


def codes(model: Any, params: Any, x: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
    """Draws `[count, Z]` of N(0, I), and of a Gaussian with the moments of the codes of x, drawn from posteriors."""
    z = evaluation.embed(model, params, x)
    if isinstance(model, vae.method.VAE):
        z = vae.drawn_codes(model, params, Batch(x), jax.random.fold_in(jax.random.key(seed), _CODES))
    z, dim = z.astype(np.float64), z.shape[1]
    moments = {"prior": (np.zeros(dim), np.eye(dim)), "fitted": (z.mean(axis=0), np.atleast_2d(np.cov(z.T)))}
    return {source: drawn(*each, count, seed) for source, each in moments.items()}


def pairs(y: np.ndarray, labels: tuple[int, ...], seed: int) -> np.ndarray:
    """Rows `[P, 2]` of two images each, whose labels are two different ones of these."""
    rng, rows = np.random.default_rng(seed), np.flatnonzero(np.isin(y, labels))
    both = rng.choice(rows, size=(20 * _PAIRS, 2))
    return both[y[both[:, 0]] != y[both[:, 1]]][:_PAIRS]


def measure(trained: Trained, *, labels: tuple[int, ...]) -> dict[str, float]:
    """Squared error, and all scores of both kinds of draws."""
    model, params, (train, test) = trained.model, trained.state.params, (trained.dataset.train, trained.dataset.test)
    own, decode, seed = judge(trained.dataset), decoder(trained.model, trained.state.params), trained.config.seed
    metrics = {"test_sse": evaluation.reconstruction_sse(model, params, test.x)}
    for source, z in codes(model, params, train.x, _SETS * len(test.x), seed).items():
        found = scores(own, decode(z).reshape(_SETS, len(test.x), -1))
        metrics |= {f"{source}_{name}": value for name, value in found.items()}
    z = evaluation.embed(model, params, test.x)[pairs(test.y, labels, seed)].mean(axis=1)
    return metrics | {"between_digits": float((sure(own, decode(z)) >= 0).mean())}


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """The test images, and a Gaussian of the pixels."""
    own, test = judge(dataset), dataset.test
    x = dataset.train.x.astype(np.float64)
    pixels = drawn(x.mean(axis=0), np.cov(x.T), _SETS * len(test.x), config.seed)
    halfway = test.x[pairs(test.y, config.walk_between, config.seed)].mean(axis=1)
    found = {
        "test": scores(own, test.x[None]) | {"between_digits": float((sure(own, halfway) >= 0).mean())},
        "pixels": scores(own, pixels.reshape(_SETS, len(test.x), -1).clip(0, 1)),
    }
    return {row: {name: [value] for name, value in each.items()} for row, each in found.items()}


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Of the first seed: draws, walks of the three models, and the plane."""
    from aejax import plots

    shape, test = dataset.image_shape, dataset.test
    if shape is None:
        return {}
    firsts = {label: np.flatnonzero(test.y == label)[0] for label in config.walk_between}
    ends = np.array([*firsts.values()]), np.roll([*firsts.values()], -1)
    rows, figures = {"training images": dataset.train.x[:_SHOWN]}, {}
    for name in TITLES:
        _, model, state = runner.load(path / f"{name}-{config.seed}")
        decode = decoder(model, state.params)
        if name == "plane":
            figures["plane"] = plots.manifold_grid(decode, shape)
            continue
        found = codes(model, state.params, dataset.train.x, _SETS * len(test.x), config.seed)
        rows |= {f"{TITLES[name]}, {SOURCES[source]}": decode(z[:_SHOWN]) for source, z in found.items()}
        a, b = (evaluation.embed(model, state.params, test.x[end]) for end in ends)
        figures[f"walks_{name}"] = plots.walk(decode, a, b, shape, x_a=test.x[ends[0]], x_b=test.x[ends[1]])
    title = "random codes decoded, the first draws of each kind"
    return {"draws": plots.image_rows(rows, shape, title=title), **figures}


def table(summary: dict[str, Any]) -> str:
    """A row for each kind of draws."""
    head = ["", *SCORES.values(), "digits between, %", "test SSE", "seeds, seconds a run"]
    found = summary["metrics"]
    rows = []
    for name, title in (("test", "test images"), ("pixels", "Gaussian of the pixels")):
        between = study.spread(found[name]["between_digits"], scale=100) if "between_digits" in found[name] else ""
        rows.append([title, *_cells(found[name], ""), between, "", ""])
    for name, title in TITLES.items():
        for source, of in SOURCES.items():
            last = ["", "", ""]
            if source == "prior":
                between = study.spread(found[name]["between_digits"], scale=100)
                last = [between, study.spread(found[name]["test_sse"]), study.cost(found[name])]
            rows.append([f"{title}, {of}", *_cells(found[name], f"{source}_"), *last])
    return study.table(head, rows)


def _cells(found: dict[str, list[float]], prefix: str) -> list[str]:
    return [study.spread(found[prefix + name], scale=100 if name == "digits" else 1) for name in SCORES]


STUDY = Study("generate", Config, runs, table, draw, beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
