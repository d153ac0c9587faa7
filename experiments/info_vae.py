"""InfoVAE: all codes together follow the prior, by an MMD, and each of them alone need not; MMD-VAE by default."""

import dataclasses

from aejax import runner
from aejax.methods import info_vae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method("info_vae", Config, build_model=vae.build_model, measure=vae.measure)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
