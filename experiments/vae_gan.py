"""VAE/GAN: a VAE judged in the features of a discriminator, which also tells its images from data.

With the defaults and seeds 0 to 2 (2026-11-27) the squared error of a reconstruction is 1.44 +- 0.07, though no loss
compares pixels; logistic regression on the codes has 92 +- 1 %. The discriminator has 1.52 nats, `3 log 3 - 2 log 2` =
1.91 where it cannot tell. With gamma 0.1 and 0.01 (one seed) the error is 2.1 and 1.9.
"""

import dataclasses
from functools import partial

import optax

from aejax import runner
from aejax.methods import vae_gan as method
from aejax.runner import Trained, measures


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of a dense encoder; decoder and discriminator are like it."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, the discriminator over the last tenth of the steps."""
    return measures.standard(trained) | {"disc_loss": measures.final_mean(trained, "disc/loss")}


EXPERIMENT = runner.of_method(
    "vae_gan", Config, monitor="enc/loss", measure=measure, optimizer=partial(optax.adam, b1=0.5)
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
