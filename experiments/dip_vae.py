"""DIP-VAE: the covariance of all codes is to be the identity, beside the bound of each example."""

import dataclasses
from typing import Literal

from aejax import runner
from aejax.methods import dip_vae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    covariance: Literal["codes", "means"] = "codes"
    """Of drawn codes (DIP-VAE-II), or of posterior means (DIP-VAE-I, for which the paper has lambda_d ten times)."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("dip_vae", Config, build_model=vae.build_model, measure=vae.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
