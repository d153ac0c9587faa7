"""Variational autoencoder, and beta-VAE with --hparams.beta."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from aejax import data, evaluation, priors, training
from aejax.checks import InputError
from aejax.methods import vae as method
from experiments import common, measures
from experiments.common import Experiment, Reference, Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Config, shape: tuple[int, ...]) -> Any:
    if config.nll_samples < 0:
        raise InputError(f"--nll-samples is {config.nll_samples}; it has to be 0 or more.")
    return common.build_model(config, shape, method.VAE)


def build_algorithm(config: Config, model: Any, tx: Any, axis_name: str | None) -> Any:
    return method.vae(model, config.hparams, tx, axis_name=axis_name)


def measure(trained: Trained) -> dict[str, float]:
    config, model, params = trained.config, trained.model, trained.state.params
    test = data.Batch(trained.dataset.test.x)
    draw_key, nll_key = jax.random.split(trained.key)
    metrics = measures.standard(trained)
    terms = training.evaluate(trained.algorithm, trained.state, test, trained.key)
    metrics["test_bound_nats"] = terms["elbo/bound_nats"]
    if config.nll_samples:
        x = data.binarize(draw_key, test).x if config.binarize == "stochastic" else test.x
        nll = evaluation.nll(model, params, x, nll_key, num_samples=config.nll_samples)
        metrics |= {"test_nll_nats": nll.nll_nats, "nll_samples": config.nll_samples, "nll_ess": nll.ess}
    metrics["active_units"] = evaluation.active_units(np.asarray(evaluation.embed(model, params, test.x)))
    return metrics | measures.against_prior(trained, priors.StandardNormal(config.latent_dim))


def draw(trained: Trained) -> "dict[str, Figure]":
    return measures.pictures(trained, priors.StandardNormal(trained.config.latent_dim))


def reference(config: Config) -> dict[str, Reference]:
    is_flax = config.hidden_dims == (500,) and config.latent_dim == 20 and config.num_epochs == 10
    if config.dataset == "mnist" and config.net == "dense" and is_flax and config.binarize == "stochastic":
        return {"test_bound_nats": Reference(104, "Flax's VAE example, about; on the fixed binarisation")}
    return {}


EXPERIMENT = Experiment("vae", Config, build_model, build_algorithm, "elbo/loss", measure, draw, reference)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
