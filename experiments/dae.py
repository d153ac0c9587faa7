"""Denoising autoencoder: Gaussian, masking or salt-and-pepper noise in, the clean image out."""

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np

from aejax import corruption, evaluation, runner
from aejax.methods import dae as method
from aejax.runner import Trained, measures, pictures
from experiments import ae

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "gaussian"
    """What happens to the input; how much is --hparams.level."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    metrics = measures.standard(trained)
    x, x_tilde = trained.dataset.test.x, _corrupted(trained)
    x_hat = evaluation.reconstruct(trained.model, trained.state.params, x_tilde)
    metrics["corrupted_sse"] = float(np.square(x_tilde - x).reshape(len(x), -1).sum(axis=1).mean())
    metrics["denoised_sse"] = float(np.square(x_hat - x).reshape(len(x), -1).sum(axis=1).mean())
    return metrics


def draw(trained: Trained) -> "dict[str, Figure]":
    from aejax import plots

    figures = pictures.standard(trained)
    shape, show = trained.dataset.image_shape, pictures.shown(trained)
    if shape is not None and shape[2] in (1, 3):
        x, x_tilde = trained.dataset.test.x[:16], _corrupted(trained)[:16]
        x_hat = evaluation.reconstruct(trained.model, trained.state.params, x_tilde)
        figures["denoised"] = plots.image_rows(
            {"clean": show(x), "corrupted": show(x_tilde), "denoised": show(x_hat)}, shape
        )
    return figures


def _corrupted(trained: Trained) -> np.ndarray:
    corrupt = corruption.get(trained.config.corruption)
    return np.asarray(corrupt(trained.measure_key, trained.dataset.test.x, trained.config.hparams.level))


EXPERIMENT = runner.of_method("dae", Config, measure=measure, draw=draw)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
