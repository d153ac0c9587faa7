"""Conditional variational autoencoder: the network is told the class, and the code holds what that does not tell."""

import dataclasses
from functools import partial

from aejax.methods import cvae as method
from experiments import common, registered, vae


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats, of x given its label; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


EXPERIMENT = registered.experiment(
    "cvae", Config, build_model=partial(vae.build_model, module=method.CVAE), measure=vae.measure
)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
