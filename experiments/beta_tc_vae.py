"""Beta-TC-VAE: of the three parts of the KL only the total correlation is weighted, so codes keep what they know."""

import dataclasses
from functools import partial
from typing import Literal

from aejax import runner
from aejax.methods import beta_tc_vae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    sampling: Literal["stratified", "weighted"] = "stratified"
    """How a batch stands for all data; the terms that weighted reports are off, the loss of both may be minimised."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method(
    "beta_tc_vae", Config, build_model=partial(vae.build_model, module=method.TCVAE), measure=vae.measure
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
