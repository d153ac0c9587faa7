"""Boundary equilibrium GAN: an autoencoder judges images by its error on them, and a generator learns to please it."""

import dataclasses
from functools import partial

from aejax.methods import began as method
from experiments import common, measures, registered
from experiments.common import Trained


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
    latent_dim: int = 16
    """Size of the code, and of the generator's noise."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the paper's measure of convergence and the controller's weight, over the last epoch."""
    last = {name: measures.final_mean(trained, f"control/{name}") for name in ("convergence", "balance")}
    return measures.standard(trained) | last


EXPERIMENT = registered.experiment("began", Config, monitor="control/convergence", measure=measure)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
