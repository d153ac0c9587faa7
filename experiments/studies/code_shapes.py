"""Codes of a shape that is asked for: the AAE with several priors in the plane, with and without labels.

Every row trains the same networks by `aae`, or where the discriminator is told labels by `aae_label`, all of them. The
shapes are N(0, I), a petal or a stretch of a swiss roll for each class, and as points of one's own a ring, of which
each class has an arc. Up to 2,000 codes of test and of training images are held against as many draws of the prior by
MMD; under 0.05 the permutation test tells them apart. With labels a code may lie in the part of its class: petal,
stretch or arc. Parts touch, so even a draw from one may lie in another; the column of draws says how many do not. The
worst part is the one that has the smallest share of codes of its class among all that lie there.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from aejax import data, evaluation, priors, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods import aae, aae_label
from aejax.methods.m2 import SemiBatch
from aejax.runner import Experiment, Trained, study
from aejax.runner.inputs import Feed, Spec
from aejax.runner.pieces import check_rows
from aejax.runner.study import Runs, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = {"normal": "N(0, I)", "mixture": "petals", "swiss_roll": "swiss roll", "ring": "ring of points"}
ROWS = SHAPES | {f"{shape}_labels": f"{SHAPES[shape]}, labels" for shape in ("mixture", "swiss_roll", "ring")}
HEAD = {
    "code_mmd": "MMD²", "code_mmd_p": "p, test codes", "train_code_mmd_p": "p, training codes",
    "own_part": "test codes in their part, %", "train_own_part": "training codes, %", "drawn_own_part": "draws, %",
    "worst_part": "worst part, test codes, %", "train_worst_part": "worst part, training codes, %",
    "test_sse": "test SSE",
}  # fmt: skip
TESTED = 2000  # codes
RING, THICKNESS, POINTS = 2.0, 0.1, 1000  # of the ring: radius, deviation across, and number of points
STEPS = 12  # images along the part of a class


@dataclasses.dataclass(frozen=True)
class RunConfig(runner.Config):
    """One run."""

    shape: str = "normal"
    """What the codes shall follow."""
    labels: bool = False
    """Whether the discriminator is told them."""
    b1: float = 0.0
    """Adam's decay of the mean gradient, for all players."""
    schedule: str = "cosine"
    """How the learning rates change."""
    hparams: aae.HParams = aae.HParams()
    """Real-valued knobs."""


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y) with x in [0, 1]."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Shapes, and shapes with labels."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step; where labels are told as many with them beside."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def prior_of(shape: str, num_classes: int) -> priors.Prior:
    """A prior in the plane, all but N(0, I) with a part for each class."""
    if shape == "ring":
        share = np.arange(POINTS) / POINTS
        points = RING * np.stack([np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)], axis=1)
        return priors.PointCloud.of(points, noise=THICKNESS, y=(share * num_classes).astype(int))
    return priors.GaussianMixture.ring(num_classes) if shape == "mixture" else priors.get(shape, 2)


def along(shape: str, num_classes: int, steps: int = STEPS) -> np.ndarray:
    """Places along the part of each class, `[K, steps, 2]`: out along a petal, along a stretch, around an arc."""
    prior, within = prior_of(shape, num_classes), (np.arange(steps) + 0.5) / steps
    share = (np.arange(num_classes)[:, None] + within) / num_classes  # of the whole that lies before
    if isinstance(prior, priors.GaussianMixture):
        means = np.asarray(prior.means)
        ends = np.linspace(-2, 2, steps)[:, None]  # deviations along the petal
        deviation = math.sqrt(np.linalg.eigvalsh(np.asarray(prior.covariances[0])).max())
        return means[:, None] + ends * deviation * (means / np.linalg.norm(means, axis=1, keepdims=True))[:, None]
    radius, turns = np.full_like(share, RING), share
    if isinstance(prior, priors.SwissRoll):
        radius, turns = prior.radius * np.sqrt(share), prior.turns * np.sqrt(share)
    return radius[..., None] * np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=-1)


def build_model(config: RunConfig, spec: Spec) -> Any:
    assert spec.num_classes is not None
    prior = prior_of(config.shape, spec.num_classes)
    return runner.build_model(config, spec, aae_label.LabelAAE if config.labels else aae.AAE, prior=prior)


def build_algorithm(config: RunConfig, model: Any, tx: Any, axis_name: str | None) -> Any:
    own: dict[str, Any] = {"hparams": config.hparams, "tx": partial(tx, b1=config.b1), "axis_name": axis_name}
    if config.labels:
        return aae_label.aae_label(model, **own)
    return aae.aae(model, prior=model.prior, **own)


def feed(config: RunConfig, dataset: Dataset) -> Feed:
    """The training images, and where labels are told again with them."""
    images = Batch(dataset.train.x)
    if not config.labels:
        return Feed(images, None, config.batch_size)
    return Feed(SemiBatch(dataset.train, images), None, SemiBatch(config.batch_size, config.batch_size))


def measure(trained: Trained) -> dict[str, float]:
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    prior = prior_of(trained.config.shape, int(dataset.train.y.max()) + 1)
    found = {"test_sse": evaluation.reconstruction_sse(model, params, dataset.test)}
    parts = {"": dataset.test, "train_": dataset.train}
    codes = {name: evaluation.embed(model, params, part.x) for name, part in parts.items()}
    found |= against(prior, codes, trained.measure_key)
    if trained.config.labels:
        for name, z in codes.items():
            own, worst = purity(np.asarray(model.part_of(z)), parts[name].y, model.num_classes)
            found |= {f"{name}own_part": own, f"{name}worst_part": worst}
        y = np.arange(10_000) % model.num_classes
        drawn = prior.sample_parts(jax.random.fold_in(trained.measure_key, 2), y, model.num_classes)
        found["drawn_own_part"] = float(np.mean(np.asarray(model.part_of(drawn)) == y))
    return found


def purity(part: np.ndarray, y: np.ndarray, num_classes: int) -> tuple[float, float]:
    """The share of codes in the part of their class, `[N]` each; and of a part's codes that of its class, the least."""
    of_part = np.bincount(part, minlength=num_classes)
    right = np.bincount(part[part == y], minlength=num_classes)
    return float(right.sum() / len(y)), float((right / np.maximum(of_part, 1)).min())


def against(prior: priors.Prior, codes: dict[str, np.ndarray], key: jax.Array) -> dict[str, float]:
    """`code_mmd` and `code_mmd_p` of up to 2,000 codes `[N, Z]` of each part, with the name of the part before them."""
    found: dict[str, float] = {}
    for (name, z), own in zip(codes.items(), jax.random.split(key, len(codes)), strict=True):
        (draw_key, test_key), size = jax.random.split(own), min(TESTED, len(z))
        test = evaluation.code_mmd(z[:size], np.asarray(prior.sample(draw_key, size)), test_key)
        found |= {f"{name}code_mmd": test.mmd_sq, f"{name}code_mmd_p": test.p_value}
    return found


EXPERIMENT = Experiment(
    "code_shapes_run", RunConfig, build_model, build_algorithm, None, measure, lambda _: {}, feed=feed
)


def runs(config: Config) -> Runs:
    """Every row with every seed."""
    check_rows(config.rows, ROWS)
    names = ("dataset", "hidden_dims", "num_epochs", "batch_size")
    shared = {name: getattr(config, name) for name in names} | {"validation": 0.0}
    dataset = runner.load_data(RunConfig(**shared))
    for part, y in (("training", dataset.train.y), ("test", dataset.test.y)):
        if y is None:
            raise InputError(f"The {part} images of {config.dataset} have no labels; bring an .npz with x and y.")
    if len(np.unique(dataset.train.y)) < 2 or len(dataset.test.x) < 2:
        raise InputError(f"{config.dataset} needs labels of two classes or more, and two test images or more.")
    rows = {}
    for row in config.rows:
        shape, told = row.removesuffix("_labels"), row.endswith("_labels")
        rows[row] = EXPERIMENT, RunConfig(**shared, shape=shape, labels=told)
    return study.seeded(rows, config.seed, config.num_seeds)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown; parts of rows that were told labels alone, and no column that nothing was measured for."""
    metrics = summary["metrics"]
    head = {name: title for name, title in HEAD.items() if any(name in found for found in metrics.values())}
    scales, rows = {name: 100 if "part" in name else 1 for name in head}, []
    for row in summary["rows"]:
        found = metrics[row]
        cells = [study.spread(found[name], scale=scales[name]) if name in found else "" for name in head]
        rows.append([ROWS[row], *cells, study.cost(found)])
    return study.table(("shape", *head.values(), "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Of the first seed: test codes over draws of the prior, and with labels what lies along the part of each class."""
    from aejax import plots

    flat = data.flatten(dataset)
    assert flat.train.y is not None
    count = int(flat.train.y.max()) + 1
    x, y = (each[:TESTED] for each in flat.test)
    panels, figures = {}, {}
    for row in config.rows:
        own, model, state = runner.load(path / f"{row}-{config.seed}")
        behind = prior_of(own.shape, count).sample(jax.random.key(config.seed), TESTED)
        panels[ROWS[row]] = plots.Embedding(evaluation.embed(model, state.params, x), behind=behind)
        if own.labels and dataset.image_shape is not None:
            z = along(own.shape, count).astype(np.float32)
            decoded = np.asarray(model.apply({"params": state.params}, z.reshape(-1, 2), method="generate"))
            images = decoded.reshape(*z.shape[:2], -1)
            title = f"{dataset.name}, {SHAPES[own.shape]}: along the part of each class"
            sheet = {str(label): images[label] for label in range(count)}
            figures[f"styles_{own.shape}"] = plots.image_rows(sheet, dataset.image_shape, title=title)
    title = f"{dataset.name}: test codes by label, over draws of the prior"
    return {"codes": plots.embeddings(panels, y, title=title, columns=4, names=False), **figures}


STUDY = Study("code_shapes", Config, runs, table, draw)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
