"""Energy-based GAN: an autoencoder's error is the energy of an image, and a generator learns to have little of it.

The defaults are for the digits: generated images end with an energy of 1.20 to 1.23 at a margin of 1, and codes whose
mean squared cosine is 0.21 to 0.28, in 8 s a run (2026-11-27, seeds 0 to 4), and their samples look like digits of
all kinds. The margin has to be near the error that the autoencoder has on images, which is 1 here: in trials at 2 the
samples of 3 of 16 runs were nearly one image, at 10, the paper's number for an energy of another unit, those of both
that were tried, of a kind that the autoencoder reconstructs and that is no digit; at 1 those of none of 32.
"""

import dataclasses
from functools import partial

import optax

from aejax import runner
from aejax.methods import ebgan as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 8
    """Size of the code, and of the generator's noise."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of a dense encoder; decoder and generator mirror them."""
    hparams: method.HParams = method.HParams(gen_lr=5e-4, margin=1.0, repelling=1.0)
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the error on generated images and the pulling-away term, over the last tenth of the steps."""
    last = {name: measures.final_mean(trained, f"gen/{name}") for name in ("fake_sse", "pulling_away")}
    return measures.standard(trained) | last


EXPERIMENT = runner.of_method(
    "ebgan", Config, monitor="disc/loss", measure=measure, optimizer=partial(optax.adam, b1=0.5)
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
