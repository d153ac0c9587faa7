"""Generators that an autoencoder judges: EBGAN with several margins, with its repelling term and without, and BEGAN.

All rows have equal networks, and the rates of their own experiments. A run counts as collapsed if its samples are, in
the features of `evaluation.samples.classifier_features`, less than half as far from each other as test images are.
Each method has its own measure of convergence. That of EBGAN is the loss of its autoencoder over the margin, which is 1
where generated images are as images are and no autoencoder does better (theorem 1 of its paper). That of BEGAN is
equation 6 of its paper, an absolute error plus the gap of the controller.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import evaluation
from aejax.data import Dataset
from aejax.evaluation import samples
from aejax.runner import Trained, measures, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import began, ebgan
from experiments.studies import generators
from experiments.studies.generators import REAL, Real, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGINS, GAMMAS = (0.5, 1.0, 2.0, 5.0), (0.5, 0.7, 0.9)
COLLAPSE = 0.5  # diversity below which a run has collapsed
SCORES = (
    "frechet", "diversity", "recall", "test_sse", "sampled_sse", "loss_over_margin", "convergence",
)  # fmt: skip
_HEAD = (
    "", "collapsed", "Frechet distance", "diversity", "recall", "error on test images", "on samples",
    "EBGAN: loss over margin", "BEGAN: convergence", "seeds, seconds a run",
)  # fmt: skip


ROWS = {f"margin_{m:g}": Row(f"EBGAN, margin {m:g}", ebgan, {"margin": m}) for m in MARGINS}
ROWS |= {
    f"margin_{m:g}_alone": Row(f"EBGAN, margin {m:g}, no repelling", ebgan, {"margin": m, "repelling": 0.0})
    for m in MARGINS
}
ROWS |= {f"gamma_{g:g}": Row(f"BEGAN, gamma {g:g}", began, {"gamma": g}) for g in GAMMAS}


@dataclasses.dataclass(frozen=True)
class Config(generators.Config):
    rows: tuple[str, ...] = tuple(ROWS)
    """Methods with their knobs."""


def runs(config: Config) -> Runs:
    """Every row with every seed."""
    return generators.with_knobs(config, ROWS, measure)


def measure(trained: Trained) -> dict[str, float]:
    """The error on test images, and the method's own measure of convergence over the last tenth of the steps."""
    found = {"test_sse": evaluation.reconstruction_sse(trained.model, trained.state.params, trained.dataset.test)}
    if isinstance(trained.config, ebgan.Config):
        loss = measures.final_mean(trained, "disc/loss")
        return found | {"loss_over_margin": loss / trained.config.hparams.margin}
    return found | {"convergence": measures.final_mean(trained, "control/convergence")}


def spread_out(x: np.ndarray, real: Real) -> dict[str, float]:
    """`diversity` of samples `[N, D]`."""
    own, known = (samples.mean_distance(real.features(each)) for each in (x, real.dataset.test.x))
    return {"diversity": own / known}


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Scores of the test images, and of as many samples of every run."""

    def more(model: Any, params: Any, x: np.ndarray, real: Real) -> dict[str, float]:
        error = np.square(np.asarray(evaluation.reconstruct(model, params, x)) - x).sum(axis=1).mean()
        return spread_out(x, real) | {"sampled_sse": float(error)}

    return generators.scored(config, path, more)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown, the test images first, whose diversity is 1."""
    rows = []
    for row in (REAL, *summary["rows"]):
        found = {"diversity": [1.0], **summary["metrics"][row]}
        cells = [study.spread(found[key]) if key in found else "" for key in SCORES]
        lost = sum(each < COLLAPSE for each in found["diversity"])
        names = ["test images", ""] if row == REAL else [ROWS[row].title, f"{lost} of {len(found['diversity'])}"]
        rows.append([*names, *cells, study.cost(found)])
    return study.table(_HEAD, rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Samples of the first seed, and reconstructions of test images."""
    return generators.sheets(config, path, dataset, generators.titles(ROWS))


STUDY = Study("energy", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
