"""Importance-weighted autoencoder: a tighter bound from several draws of each image, and gradients made for it.

Beside the VAE, with the published figures: `python -m experiments bounds`.
"""

import dataclasses
from typing import Literal

from aejax import runner
from aejax.methods import iwae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    num_samples: int = 5
    """Draws of the code for each image."""
    num_groups: int = 1
    """Into how many groups they fall; above 1 it is MIWAE."""
    estimator: Literal["plain", "stl", "dreg"] = "plain"
    """Of the gradient: as it is, without the score, or doubly reparameterised."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("iwae", Config, build_model=vae.build_model, measure=vae.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
