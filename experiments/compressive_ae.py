"""Compressive autoencoder: a code of integers and a learned entropy model, which trade rate for distortion.

Curves against JPEG and WebP, and files as long as the rate says, are `python -m experiments compression`.
`--net images` is for images of any size: a run with it opens in `python -m aejax.runner.compress`.
"""

import dataclasses
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from aejax import evaluation, runner
from aejax.checks import InputError
from aejax.evaluation import call, over_batches
from aejax.methods import compressive_ae as method
from aejax.runner import Trained, measures, pictures
from aejax.runner.inputs import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    net: Literal["dense", "conv", "images"] = "dense"  # type: ignore[assignment]
    """Dense networks see vectors, the others images: conv those of one size, images those of any."""
    latent_dim: int = 16
    """Size of the code; of images its channels."""
    likelihood: str = "gaussian"
    """A name of aejax.likelihoods, whose mean is what is decoded; the loss has its squared error."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, spec: Spec) -> Any:
    if config.net != "images":
        return runner.build_model(config, spec, method.CompressiveAE)
    if len(spec.shape) != 3:
        raise InputError(f"--net images needs images; {config.dataset} holds vectors of {spec.shape}.")
    return method.CompressiveAE.images(spec.shape[2], config.latent_dim, likelihood=config.likelihood)


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the rate of the test split; of `--net images` that and the squared error alone."""
    model, params, test = trained.model, trained.state.params, trained.dataset.test
    codes = over_batches(partial(call, model, params, "embed"), test.x)
    rate = over_batches(partial(call, model, params, "rate"), codes).mean() / math.log(2)
    found = {"test_rate_bits": float(rate) / test.x[0].size}
    if trained.config.net == "images":
        return {"test_sse": evaluation.reconstruction_sse(model, params, test)} | found
    return measures.standard(trained) | found


def draw(trained: Trained) -> "dict[str, Figure]":
    """The usual; of `--net images`, whose codes are no vectors, reconstructions and curves."""
    from aejax import plots

    if trained.config.net != "images":
        return pictures.standard(trained)
    x, shape, show = trained.dataset.test.x[:16], trained.dataset.image_shape, pictures.shown(trained)
    assert shape is not None
    x_hat = evaluation.reconstruct(trained.model, trained.state.params, x)
    return trained.each(
        {
            "reconstructions": lambda: plots.reconstructions(show(x), show(x_hat), shape),
            "curves": lambda: plots.curves(trained.history),
        }
    )


EXPERIMENT = runner.of_method("compressive_ae", Config, build_model=build_model, measure=measure, draw=draw)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
