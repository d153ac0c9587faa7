"""Generators side by side: samples and reconstructions of one network trained by several methods, with their scores.

Every row trains the same encoder and decoder for as many passes, with the other settings of its own experiment, and
then draws as many images as the test part has. Codes are drawn from the prior of the method, but of the plain AE, which
has none, from a Gaussian with the mean and covariance of its training codes. The scores hold the samples against the
training images, in the features of a classifier that is trained on these and their labels
(`evaluation.samples.classifier_features`), and so does the first row, the test images: that is what samples that are
as good as real would have. Figures are of this recipe; they are no FID, whose features are others.

"Memory" is the distance of a sample from its nearest training image, over that of a test image, in pixels and means:
well below 1 samples are copies, well above they are no digits.
"""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from aejax import data, evaluation, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.evaluation import samples
from aejax.runner import study
from aejax.runner.pieces import check_rows
from aejax.runner.study import Metrics, Once, Runs, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "ae": "AE, Gaussian of its codes", "vae": "VAE", "wae_mmd": "WAE-MMD", "wae_gan": "WAE-GAN", "aae": "AAE",
    "gan": "GAN", "ebgan": "EBGAN", "began": "BEGAN",
}  # fmt: skip
REAL = "test"
SCORES = ("frechet", "precision", "recall", "density", "coverage", "sharpness", "memory")
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another labelled image set, or a path to .npz (x, y) with x in [0, 1]."""
    rows: tuple[str, ...] = tuple(TITLES)
    """Methods."""
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, over all devices."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Every method with every seed."""
    check_rows(config.rows, TITLES)
    train = data.load(config.dataset, validation=0.0).train
    if train.y is None:
        raise InputError(f"{config.dataset} has no labels, and the scores are in the features of a classifier.")
    samples.check_classes(train.y, len(train.x))
    names = ("dataset", "latent_dim", "hidden_dims", "num_epochs", "batch_size")
    shared = {name: getattr(config, name) for name in names} | {"validation": 0.0}
    rows = {}
    for row in config.rows:
        found = import_module(f"experiments.{row}")
        rows[row] = found.EXPERIMENT, found.Config(**shared)
    return study.seeded(rows, config.seed, config.num_seeds)


def drawn(model: Any, params: Any, train: np.ndarray, key: jax.Array, n: int) -> np.ndarray:
    """Images by the model's own way, or where it has no prior of codes from a Gaussian like those of the training part.

    Returns:
      `[n, ...]`, as x.
    """
    variables = {"params": params}
    if model.prior is not None:
        return np.asarray(model.apply(variables, key, n, method="sample"))
    codes = np.asarray(evaluation.embed(model, params, train), np.float64)
    spread = np.linalg.cholesky(np.cov(codes.T).reshape(codes.shape[1], -1) + 1e-9 * np.eye(codes.shape[1]))
    z = codes.mean(axis=0) + np.asarray(jax.random.normal(key, (n, codes.shape[1]))) @ spread.T
    return np.asarray(model.apply(variables, z.astype(np.float32), method="generate"))


def scores(x: np.ndarray, dataset: Dataset, features: Any) -> dict[str, float]:
    """Of images `[N, D]`, held against the training part: the columns of the table."""
    train, test = dataset.train.x, dataset.test.x
    known = features(train)
    own = features(x)
    found: dict[str, float] = {"frechet": samples.frechet_distance(known, own)}
    found |= samples.manifold(known, own)._asdict()
    gap, of_test = (samples.nearest(each, train.reshape(len(train), -1))[1].mean() for each in (x, test))
    found["memory"] = float(gap / of_test)
    if dataset.image_shape is not None:
        found["sharpness"] = samples.sharpness(x.reshape(-1, *dataset.image_shape))
    return found


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Scores of the test images, and of as many samples of every run."""
    dataset = data.flatten(data.load(config.dataset, validation=0.0))
    assert dataset.train.y is not None
    features = samples.classifier_features(dataset.train.x, dataset.train.y, seed=0)
    found: Metrics = {REAL: {name: [value] for name, value in scores(dataset.test.x, dataset, features).items()}}
    for row in config.rows:
        for seed in range(config.seed, config.seed + config.num_seeds):
            _, model, state = runner.load(path / f"{row}-{seed}")
            x = drawn(model, state.params, dataset.train.x, jax.random.key(seed), len(dataset.test.x))
            for name, value in scores(x, dataset, features).items():
                found.setdefault(row, {}).setdefault(name, []).append(value)
    return found


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown, the test images first."""
    keys, head = (*SCORES, "test_sse"), ("", "Frechet", *SCORES[1:], "test SSE")
    rows = []
    for row in (REAL, *summary["rows"]):
        found = summary["metrics"][row]
        cells = [study.spread(found[key]) if key in found else "" for key in keys]
        rows.append(["test images" if row == REAL else TITLES[row], *cells, study.cost(found)])
    return study.table((*head, "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Samples of the first seed, and reconstructions of the same test images."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    flat = data.flatten(dataset)
    made, rebuilt = {"test images": flat.test.x[:_SHOWN]}, {"test images": flat.test.x[:_SHOWN]}
    for row in config.rows:
        _, model, state = runner.load(path / f"{row}-{config.seed}")
        key = jax.random.key(config.seed)
        made[TITLES[row]] = drawn(model, state.params, flat.train.x, key, len(flat.test.x))[:_SHOWN]
        rebuilt[TITLES[row]] = np.asarray(evaluation.reconstruct(model, state.params, flat.test.x[:_SHOWN]))
    return {
        "samples": plots.image_rows(made, dataset.image_shape, title=f"{dataset.name}, samples"),
        "reconstructions": plots.image_rows(rebuilt, dataset.image_shape, title=f"{dataset.name}, reconstructions"),
    }


STUDY = Study("generators", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
