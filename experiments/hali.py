"""Hierarchical ALI: two layers of codes, of which the lower one keeps more of an image than the upper one.

As with `ali`, 2,200 steps on the digits end far from where the game would come to rest. With the defaults and seed 0
(2026-11-27) the squared error of a reconstruction from the mean of a code is 4.09, where ALI has 6.45 and the mean
image 4.72; from draws it is 4.62 on training images, and 7.09 from draws of the upper code, 4 of 12 numbers, which is
no better than the mean image. The discriminator has 0.83 nats, 2 log 2 = 1.39 where it
cannot tell.
"""

import dataclasses
from functools import partial

import optax

from aejax import runner
from aejax.methods import hali as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 12
    """Size of the code; a third of it is the upper layer."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of a dense encoder; decoder and discriminator are like it."""
    hparams: method.HParams = method.HParams(lr=5e-4)
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the discriminator and both errors over the last tenth of the steps."""
    last = {"disc_loss": "disc/loss", "upper_sse": "gen/upper_sse"}
    return measures.standard(trained) | {name: measures.final_mean(trained, term) for name, term in last.items()}


EXPERIMENT = runner.of_method("hali", Config, monitor="gen/sse", measure=measure, optimizer=partial(optax.adam, b1=0.5))


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
