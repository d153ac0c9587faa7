"""Adversarial autoencoder: three players, two optimisers on one encoder, codes that follow a prior of your choice.

The discriminator ends where it cannot tell, at 2 log 2 = 1.386 nats: 1.382 +- 0.002 on digits with the defaults, in
11 s a run, and 1.384 +- 0.001 on MNIST after 30 epochs, 5 seeds each (2026-11-20, rows of experiments/figures.py). The
encoder may also be one of the paper's stochastic ones, `--posterior gaussian` or `noise`.
"""

import dataclasses
import math
from functools import partial
from typing import Any, Literal

import jax

from aejax import evaluation, runner
from aejax.methods import aae as method
from aejax.runner import Reference, Trained, measures
from aejax.runner.config import later
from experiments.vae import drawn_codes


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    prior: str = "normal"
    """What the codes shall follow, a name of aejax.priors; mixture and swiss_roll are 2-D."""
    posterior: Literal["deterministic", "gaussian", "noise"] = later("deterministic")
    """What the encoder says of an image: its code, a Gaussian, or a function of noise."""
    noise_dim: int = later(16)
    """How many normal numbers the encoder takes, of --posterior noise."""
    b1: float = 0.0
    """Adam's decay of the mean gradient, for all players: a game is steadier without the usual 0.9."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    adam = partial(tx, b1=config.b1)
    return method.aae(model, config.hparams, adam, prior=config.prior, axis_name=axis_name)


def measure(trained: Trained) -> dict[str, float]:
    """Beside the usual, how far the codes are from the prior, drawn where the posterior is stochastic."""
    model, params, test, key = trained.model, trained.state.params, trained.dataset.test, trained.measure_key
    if trained.config.posterior == "deterministic":
        z = evaluation.embed(model, params, test.x)
    else:
        key, code_key = jax.random.split(key)
        z = drawn_codes(model, params, test, code_key)
    metrics = measures.standard(trained) | measures.against_prior(trained, z, key)
    if trained.config.prior == "normal":
        metrics["code_mean_max"], metrics["code_var_dev"] = evaluation.moment_gaps(z)
    return metrics | {"disc_loss": measures.final_mean(trained, "disc/loss")}


def reference(config: Config) -> dict[str, Reference]:
    return {"disc_loss": Reference(2 * math.log(2), "in theory: 2 log 2, where the discriminator cannot tell")}


EXPERIMENT = runner.of_method("aae", Config, build_algorithm=build_algorithm, measure=measure, reference=reference)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
