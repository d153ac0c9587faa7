"""Conditional variational autoencoder: the network is told the class, and the code holds what that does not tell."""

import dataclasses
from functools import partial

from aejax import runner
from aejax.methods import cvae as method
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats, of x given its label; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = runner.of_method(
    "cvae", Config, build_model=partial(vae.build_model, module=method.CVAE), measure=vae.measure
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
