"""Boundary equilibrium GAN: an autoencoder judges images by its error on them, and a generator learns to please it.

The defaults are for the digits, where 2,200 steps leave the paper's gain of 0.001 no time: with it, and a generator
that learns as fast as the autoencoder, all samples are one image. With them samples are of a few classes, not of all.
"""

import dataclasses
from functools import partial

import optax

from aejax import runner
from aejax.methods import began as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 4
    """Size of the code, and of the generator's noise."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of a dense encoder; decoder and generator mirror them."""
    hparams: method.HParams = method.HParams(gen_lr=2e-4, gamma=0.8, gain=1.0)
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the measure of convergence and the controller's weight, over the last tenth of the steps."""
    last = {name: measures.final_mean(trained, f"control/{name}") for name in ("convergence", "balance")}
    return measures.standard(trained) | last


EXPERIMENT = runner.of_method(
    "began", Config, monitor="control/convergence", measure=measure, optimizer=partial(optax.adam, b1=0.5)
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
