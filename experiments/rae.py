"""Regularised autoencoder: codes near the origin, a smooth decoder, so that a density of the codes can be sampled."""

import dataclasses
from typing import Literal

from aejax import runner
from aejax.methods import rae as method
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config(ae.Config):
    latent_dim: int = 8
    """Size of the code."""
    regularizer: Literal["weights", "gradient", "spectral"] = "weights"
    """What is asked of the decoder: small weights (RAE-L2), small gradients (RAE-GP), small spectral norms (RAE-SN)."""
    hparams: method.HParams = method.HParams()  # type: ignore[assignment]
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("rae", Config)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
