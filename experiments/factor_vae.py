"""FactorVAE: a discriminator tells codes from codes of mixed dimensions, and the encoder learns that it cannot."""

import dataclasses
import math
from functools import partial
from typing import Any

import flax.linen as nn

from aejax import runner
from aejax.methods import factor_vae as method
from aejax.nets import MLP
from aejax.runner import Reference, Trained, measures
from aejax.runner.inputs import Spec
from experiments import vae


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    latent_dim: int = 10
    """Size of the code."""
    disc_dims: tuple[int, ...] = (256, 256)
    """Widths of the discriminator's hidden layers; the paper has six of 1000."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, spec: Spec) -> Any:
    discriminator = MLP((*config.disc_dims, 1), nn.leaky_relu)
    return vae.build_model(config, spec, method.FactorVAE, discriminator=discriminator)


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    own = {"elbo": tx, "disc": partial(tx, b1=0.5, b2=0.9)}  # the paper's
    return method.factor_vae(model, config.hparams, own, axis_name=axis_name)


def measure(trained: Trained) -> dict[str, float]:
    return vae.measure(trained) | {"disc_loss": measures.final_mean(trained, "disc/loss")}


def reference(config: Config) -> dict[str, Reference]:
    return {"disc_loss": Reference(2 * math.log(2), "in theory: 2 log 2, where the discriminator cannot tell")}


EXPERIMENT = runner.of_method(
    "factor_vae", Config, build_model=build_model, build_algorithm=build_algorithm, measure=measure, reference=reference
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
