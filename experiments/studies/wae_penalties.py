"""What a prior costs a Wasserstein autoencoder: reconstructions against codes that follow N(0, I), by several weights.

WAE-MMD is penalised by an MMD with inverse multiquadratics, WAE-GAN by the surprise of a discriminator; a weight of
zero is the plain autoencoder. The codes of test and of training images are then held against as many draws of the
prior, up to 2,000, by an MMD with another kernel, a Gaussian one, and its permutation test: a p below 0.05 tells them
apart. Weights of the two penalties do not compare with each other; the curves do.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import evaluation, priors
from aejax.data import Dataset
from aejax.runner import Trained, study
from aejax.runner.folder import read_json
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import wae_gan, wae_mmd
from experiments.studies import code_shapes, generators
from experiments.studies.generators import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHTS, PENALTIES = (1.0, 10.0, 100.0, 1000.0), (0.1, 1.0, 10.0, 100.0)
SCORES = ("test_sse", "code_mmd", "code_mmd_p", "train_code_mmd", "train_code_mmd_p", "frechet")
_HEAD = (
    "", "test SSE", "MMD², test codes", "p", "MMD², training codes", "p", "Frechet distance of samples",
    "seeds, seconds a run",
)  # fmt: skip


ROWS = {"none": Row("no penalty", wae_mmd, {"mmd_weight": 0.0})}
ROWS |= {f"mmd_{w:g}": Row(f"WAE-MMD, weight {w:g}", wae_mmd, {"mmd_weight": w}) for w in WEIGHTS}
ROWS |= {f"gan_{w:g}": Row(f"WAE-GAN, weight {w:g}", wae_gan, {"penalty": w}) for w in PENALTIES}


@dataclasses.dataclass(frozen=True)
class Config(generators.Config):
    rows: tuple[str, ...] = tuple(ROWS)
    """Penalties with their weights."""


def runs(config: Config) -> Runs:
    """Every row with every seed."""
    return generators.with_knobs(config, ROWS, measure)


def measure(trained: Trained) -> dict[str, float]:
    """The error of reconstructions, and how far codes are from the prior."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    parts = {"": dataset.test, "train_": dataset.train}
    codes = {name: evaluation.embed(model, params, part) for name, part in parts.items()}
    found = {"test_sse": evaluation.reconstruction_sse(model, params, dataset.test)}
    return found | code_shapes.against(priors.get(trained.config.prior, model.latent_dim), codes, trained.measure_key)


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Scores of the test images, and of as many samples of every run."""
    return generators.scored(config, path)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    rows = []
    for row in summary["rows"]:
        found = summary["metrics"][row]
        rows.append([ROWS[row].title, *(study.spread(found[key]) for key in SCORES), study.cost(found)])
    return study.table(_HEAD, rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Error against MMD along the weights, means over seeds; samples and reconstructions of the first seed."""
    from aejax import plots

    curves = {}
    for color, (title, start) in enumerate({"WAE-MMD": "mmd_", "WAE-GAN": "gan_"}.items()):
        rows = [row for row in config.rows if row == "none" or row.startswith(start)]
        if len(rows) > 1:
            curves[title] = plots.Curve(*trade(config, path, rows), color)
    figures = generators.sheets(config, path, dataset, generators.titles(ROWS))
    if curves:
        panel = plots.Lines("MMD of training codes to the prior", "squared error of test images", curves)
        figures["trade"] = plots.line_panels({"along the weight of the penalty": panel}, title=dataset.name)
    return figures


def trade(config: Config, path: Path, rows: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of rows, the MMD of training codes, the root of the squared one where that is positive, and the error: `[K]`."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    files = [[path / f"{row}-{seed}" / "summary.json" for seed in seeds] for row in rows]
    found = [[read_json(file)["metrics"] for file in of_row] for of_row in files]
    sq, sse = (
        np.array([[each[name] for each in of_row] for of_row in found]) for name in ("train_code_mmd", "test_sse")
    )
    return np.sqrt(np.maximum(sq.mean(axis=1), 0)), sse.mean(axis=1)


STUDY = Study("wae_penalties", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
