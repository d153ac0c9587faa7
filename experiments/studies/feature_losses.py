"""What pixel losses and feature losses keep of an image: VAE, MS-SSIM VAE, DFC-VAE and VAE/GAN with equal networks.

The loss of the VAE compares pixels, that of the MS-SSIM VAE means, variances and covariances of small windows, that of
the DFC-VAE the hidden layers of a classifier, that of the VAE/GAN a hidden layer of its discriminator. The DFC-VAE has
seen labels: its classifier is trained on those of the training part, so its probe, and all that is measured in the
features of another classifier of the same labels, are ahead by that.

Reconstructions are measured by squared error, by their sharpness, and by their distance from the originals in the
features of `evaluation.samples.classifier_features`, over the mean distance of two test images there: 0 for equals,
about 1 for any other image. Samples are measured as in the study generators.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import data, evaluation
from aejax.data import Dataset
from aejax.evaluation import samples
from aejax.runner import Trained, measures, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import dfc_vae, ms_ssim_vae, vae, vae_gan
from experiments.studies import generators
from experiments.studies.generators import REAL, Real, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "vae": Row("VAE, pixels", vae),
    "ms_ssim_vae": Row("MS-SSIM VAE, structure", ms_ssim_vae),
    "dfc_vae": Row("DFC-VAE, a classifier's layers", dfc_vae),
    "vae_gan": Row("VAE/GAN, a discriminator's layer", vae_gan),
}
SCORES = ("test_sse", "feature_distance", "rebuilt_sharpness", "sharpness", "frechet", "recall", "probe_accuracy")
_HEAD = (
    "", "test SSE", "feature distance", "sharpness of reconstructions", "of samples", "Frechet distance of samples",
    "recall", "probe", "seeds, seconds a run",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(generators.Config):
    rows: tuple[str, ...] = tuple(ROWS)
    """Methods."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the encoder; decoder, classifier and discriminator are like it."""


def runs(config: Config) -> Runs:
    """Every method with every seed."""
    found, shape = generators.with_knobs(config, ROWS, measure), data.load(config.dataset, validation=0.0).image_shape
    of_images = lambda own: dataclasses.replace(own, image_shape=shape) if hasattr(own, "image_shape") else own
    return {name: (experiment, of_images(own)) for name, (experiment, own) in found.items()}


def measure(trained: Trained) -> dict[str, float]:
    """The error of reconstructions, and what a probe reads off the codes."""
    found = {"test_sse": evaluation.reconstruction_sse(trained.model, trained.state.params, trained.dataset.test)}
    return found | measures.probes(trained)


def rebuilt(x_hat: np.ndarray, real: Real) -> dict[str, float]:
    """Of reconstructions `[N, D]` of the test images: `feature_distance`, and `rebuilt_sharpness` of images."""
    known = real.features(real.dataset.test.x)
    gaps = np.linalg.norm(real.features(x_hat) - known, axis=1)
    found = {"feature_distance": float(gaps.mean()) / samples.mean_distance(known)}
    return found | generators.sharpness("rebuilt_sharpness", x_hat, real)


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Scores of the test images, of as many samples, and of reconstructions, of every run."""

    def more(model: Any, params: Any, x: np.ndarray, real: Real) -> dict[str, float]:
        return rebuilt(np.asarray(evaluation.reconstruct(model, params, real.dataset.test.x)), real)

    return generators.scored(config, path, more)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown, the test images first, whose sharpness is that of perfect reconstructions."""
    rows = []
    for row in (REAL, *summary["rows"]):
        found = summary["metrics"][row]
        if row == REAL and "sharpness" in found:
            found = found | {"rebuilt_sharpness": found["sharpness"]}
        cells = [study.spread(found[key]) if key in found else "" for key in SCORES]
        rows.append(["test images" if row == REAL else ROWS[row].title, *cells, study.cost(found)])
    return study.table(_HEAD, rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Reconstructions below their originals, and samples, of the first seed."""
    return generators.sheets(config, path, dataset, generators.titles(ROWS))


STUDY = Study("feature_losses", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
