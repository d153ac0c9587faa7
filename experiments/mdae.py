"""Marginalised denoising autoencoder: the noise is integrated out to second order, none is drawn.

Beside the closed form of the linear one: `python -m experiments linear_ae`.
"""

import dataclasses
from typing import Literal

from aejax import runner
from aejax.methods import mdae as method
from experiments import ae, dae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    corruption: Literal["gaussian", "masking", "salt_and_pepper"] = "masking"
    """The noise that is integrated out; how much is --hparams.level."""
    activation: ae.Activation = "softplus"
    """Of the hidden layers of a dense network."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("mdae", Config, measure=dae.measure, draw=dae.draw)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
