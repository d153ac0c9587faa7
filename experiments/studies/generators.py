"""Generators side by side: samples and reconstructions of one network trained by several methods, with their scores.

Every row trains the same encoder and decoder for as many passes, with the other settings of its own experiment, and
then draws as many images as the test part has. Codes are drawn from the prior of the method, but of the plain AE, which
has none, from a Gaussian with the mean and covariance of its training codes, and of the RAE from a mixture of ten, as
in `ex_post`. VQ-VAE and FSQ have a token of 64 values for every two numbers of the others' codes, and an autoregressive
prior that learns those of the training images afterwards, as in `codebooks`; its time is not in the seconds of the run.

Samples are the mean pixels that a code stands for, but of PixelVAE and PixelCNN, whose pixels are drawn one after the
other. Drawn black or white, as their own experiments have them, they would be no images like the others. So these two
have a likelihood of levels of grey, 17 of the digits, and draw images of the same levels as the training images. Both
see vectors, by masked dense layers (MADE) as wide as those of the others. PixelCNN tells each pixel from the true ones
before it, without a code: its test SSE is not that of a reconstruction.

The scores hold the samples against the training images, in the features of a classifier that is trained on these and
their labels (`evaluation.samples.classifier_features`), and so does the first row, the test images: that is what
samples that are as good as real would have. Figures are of this recipe; they are no FID, whose features are others.

The last score is the mean distance of a sample from its nearest training image, in pixels, over that of a test image.
Copies have 0; means of several images, and so blurred and collapsed samples, are below 1 too; well above 1 is no digit.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from aejax import data, evaluation, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.evaluation import samples
from aejax.methods.pixel_cnn import PixelCNN
from aejax.priors import GaussianMixture
from aejax.runner import Trained, study
from aejax.runner.pieces import check_rows
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import fsq, pixel_cnn, rae, vq_vae
from experiments.studies import codebooks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "ae": "AE, Gaussian of its codes", "vae": "VAE", "wae_mmd": "WAE-MMD", "wae_gan": "WAE-GAN", "aae": "AAE",
    "gan": "GAN", "ali": "ALI, BiGAN", "alice": "ALICE", "vae_gan": "VAE/GAN", "ebgan": "EBGAN", "began": "BEGAN",
    "rae": "RAE-L2, ten Gaussians of its codes", "vq_vae": "VQ-VAE, prior of its tokens",
    "fsq": "FSQ, prior of its tokens", "pixel_vae": "PixelVAE of vectors, greys drawn",
    "pixel_cnn": "PixelCNN of vectors (MADE), greys drawn",
}  # fmt: skip
TOKENS, PIXELS = ("vq_vae", "fsq"), ("pixel_vae", "pixel_cnn")
GAUSSIANS = 10  # of the RAE's codes
REAL = "test"
SCORES = ("frechet", "precision", "recall", "density", "coverage", "sharpness", "nearest")
K = 5  # neighbours
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
    shared = checked(config, TITLES)
    x = data.load(config.dataset, validation=0.0).train.x
    tokens = max(1, config.latent_dim // 2)
    own: dict[str, dict[str, Any]] = {
        "vq_vae": {"latent_dim": 2 * tokens, "num_entries": 64, "entry_dim": 2},
        "fsq": {"latent_dim": 3 * tokens, "levels": (4, 4, 4)},
        "pixel_vae": (greys := {"net": "dense", "binarize": "none", "levels": grey_levels(x)}),
        "pixel_cnn": greys | {"latent_dim": pixel_cnn.Config.latent_dim},  # features of a place, and no code
    }
    rows = {}
    for row in config.rows:
        found = import_module(f"experiments.{row}")
        rows[row] = found.EXPERIMENT, found.Config(**shared | own.get(row, {}))
    return study.seeded(rows, config.seed, config.num_seeds)


def grey_levels(x: np.ndarray) -> int:
    """17 of images like the digits, of k / 16 alone, and 256 of others, of which pixels are the nearest."""
    return 17 if np.array_equal(16 * x, np.round(16 * x)) else 256


class Row(NamedTuple):
    """A row of another study of generators: a method with some of its knobs."""

    title: str
    module: ModuleType  # of its experiment
    knobs: Mapping[str, float] = MappingProxyType({})  # others are those of the experiment


def with_knobs(config: Any, rows: Mapping[str, Row], measure: Callable[[Trained], dict[str, float]]) -> Runs:
    """Every one of `config.rows` with every seed, measured by `measure` alone, without pictures of a run."""
    shared, own = checked(config, rows), {}
    for name in config.rows:
        _, module, knobs = rows[name]
        experiment, default = module.EXPERIMENT._replace(measure=measure, draw=lambda _: {}), module.Config(**shared)
        own[name] = experiment, dataclasses.replace(default, hparams=default.hparams._replace(**knobs))
    return study.seeded(own, config.seed, config.num_seeds)


def titles(rows: Mapping[str, Row]) -> dict[str, str]:
    """Of rows by name."""
    return {name: row.title for name, row in rows.items()}


def checked(config: Any, known: Collection[str], neighbours: int = K) -> dict[str, Any]:
    """The fields that all runs share; unknown rows are refused, and data on which no samples can be scored.

    Test images have to be more than the neighbours that scores look at; a Frechet distance alone takes more than 1.
    """
    check_rows(config.rows, known)
    dataset = data.load(config.dataset, validation=0.0)
    train = dataset.train
    if train.y is None:
        raise InputError(f"{config.dataset} has no labels, and the scores are in the features of a classifier.")
    samples.check_classes(train.y, len(train.x))
    if len(dataset.test.x) <= neighbours:
        raise InputError(f"{config.dataset} has {len(dataset.test.x)} test images; more than {neighbours} are needed.")
    names = ("dataset", "latent_dim", "hidden_dims", "num_epochs", "batch_size")
    return {name: getattr(config, name) for name in names} | {"validation": 0.0}


def of_run(path: Path, name: str, train: np.ndarray, n: int) -> tuple[Any, Any, np.ndarray]:
    """The model of a run, its parameters, and n images that it draws, `[n, ...]`.

    Args:
      path: of the study, where the tokens are that were drawn of a row of `TOKENS`.
      name: of the run.
      train: `[N, ...]`, to whose codes a density is fitted where the method has none.
      n: how many; of tokens as many as were drawn.
    """
    own, model, state = runner.load(path / name)
    params = state.params
    if isinstance(own, (vq_vae.Config, fsq.Config)):
        return model, params, codebooks.decoded(path, name, model, params)
    source = model
    if isinstance(own, rae.Config):
        codes = evaluation.embed(model, params, train)
        source = model.clone(prior=GaussianMixture.of(codes, GAUSSIANS, seed=own.seed))
    return model, params, drawn(source, params, train, jax.random.key(own.seed), n)


def sampled(model: Any, params: Any, key: jax.Array, n: int) -> np.ndarray:
    """Images `[n, ...]` by the model's own way; the key is consumed."""
    return np.asarray(model.apply({"params": params}, key, n, method="sample"))


def drawn(model: Any, params: Any, train: np.ndarray, key: jax.Array, n: int) -> np.ndarray:
    """Images by the model's own way, or where it has no prior of codes from a Gaussian like those of the training part.

    Returns:
      `[n, ...]`, as x.
    """
    if model.prior is not None or isinstance(model, PixelCNN):
        return sampled(model, params, key, n)
    codes = np.asarray(evaluation.embed(model, params, train), np.float64)
    variance, directions = np.linalg.eigh(np.cov(codes.T).reshape(codes.shape[1], -1))
    noise = np.asarray(jax.random.normal(key, (n, codes.shape[1]))) * np.sqrt(np.maximum(variance, 0))
    z = codes.mean(axis=0) + noise @ directions.T
    return np.asarray(model.apply({"params": params}, z.astype(np.float32), method="generate"))


class Real(NamedTuple):
    """What samples are held against, measured once."""

    dataset: Dataset  # flattened
    features: Any
    known: np.ndarray  # [N, F], of the training part
    reach: np.ndarray  # [N]
    gap: float  # of a test image from the nearest training image

    @classmethod
    def of(cls, dataset: Dataset, features: Any) -> "Real":
        known = features(dataset.train.x)
        gap = samples.nearest(dataset.test.x, dataset.train.x)[1].mean()
        return cls(dataset, features, known, samples.reaches(known, K), float(gap))


def scores(x: np.ndarray, real: Real) -> dict[str, float]:
    """Of images `[N, D]`: the columns of the table; the sharpness of images of 4 pixels and more alone."""
    own = real.features(x)
    found: dict[str, float] = {"frechet": samples.frechet_distance(real.known, own)}
    found |= samples.manifold(real.known, own, K, reach=real.reach)._asdict() | sharpness("sharpness", x, real)
    return found | {"nearest": float(samples.nearest(x, real.dataset.train.x)[1].mean()) / real.gap}


def sharpness(name: str, x: np.ndarray, real: Real) -> dict[str, float]:
    """Of images `[N, D]` of 4 pixels and more along a side, by its name; of others nothing."""
    shape = real.dataset.image_shape
    return {name: samples.sharpness(x.reshape(-1, *shape))} if shape is not None and min(shape[:2]) >= 4 else {}


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Scores of the test images, and of as many samples of every run, and what the tokens cost by their prior."""
    count, of_tokens = len(data.load(config.dataset, validation=0.0).test.x), {}
    for name in runs(config):
        if name.rpartition("-")[0] in TOKENS:
            metrics = once(f"prior-{name}", partial(codebooks.by_prior, path, name, None, count))
            of_tokens[name] = {key: value for key, value in metrics.items() if key != "seconds"}
    found = scored(config, path)
    return found | {row: found[row] | more for row, more in study.by_row(of_tokens).items()}


More = Callable[[Any, Any, np.ndarray, Real], dict[str, float]]  # (model, params, samples, real)


def scored(config: Any, path: Path, more: More = lambda model, params, x, real: {}) -> Metrics:
    """`scores` of the test images, and of as many samples of every run, of which `more` may be measured."""
    dataset = data.flatten(data.load(config.dataset, validation=0.0))
    assert dataset.train.y is not None
    features = samples.classifier_features(dataset.train.x, dataset.train.y, seed=0)
    real = Real.of(dataset, features)
    found: Metrics = {REAL: {name: [value] for name, value in scores(dataset.test.x, real).items()}}
    for row in config.rows:
        for seed in range(config.seed, config.seed + config.num_seeds):
            model, params, x = of_run(path, f"{row}-{seed}", dataset.train.x, len(dataset.test.x))
            for name, value in (scores(x, real) | more(model, params, x, real)).items():
                found.setdefault(row, {}).setdefault(name, []).append(value)
    return found


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown, the test images first."""
    keys, head = (*SCORES, "test_sse"), ("", "Frechet", *SCORES[1:-1], "nearest neighbour", "test SSE")
    rows = []
    for row in (REAL, *summary["rows"]):
        found = summary["metrics"][row]
        cells = [study.spread(found[key]) if key in found else "" for key in keys]
        rows.append(["test images" if row == REAL else TITLES[row], *cells, study.cost(found)])
    return study.table((*head, "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Both sheets."""
    return sheets(config, path, dataset, TITLES)


def sheets(config: Any, path: Path, dataset: Dataset, names: Mapping[str, str]) -> "dict[str, Figure]":
    """Samples of the first seed, and reconstructions of the same test images; rows by their names in the sheet."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    flat = data.flatten(dataset)
    made, rebuilt = {"test images": flat.test.x[:_SHOWN]}, {"test images": flat.test.x[:_SHOWN]}
    for row in config.rows:
        model, params, x = of_run(path, f"{row}-{config.seed}", flat.train.x, len(flat.test.x))
        made[names[row]] = x[:_SHOWN]
        rebuilt[names[row]] = np.asarray(evaluation.reconstruct(model, params, flat.test.x[:_SHOWN]))
    return {
        "samples": plots.image_rows(made, dataset.image_shape, title=f"{dataset.name}, samples"),
        "reconstructions": plots.image_rows(rebuilt, dataset.image_shape, title=f"{dataset.name}, reconstructions"),
    }


STUDY = Study("generators", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
