"""Variational autoencoder, and beta-VAE with --hparams.beta.

On MNIST, stochastically binarised, 784-500-20 reaches a test bound of 102.24 +- 0.22 nats after 10 epochs, 3 seeds
(2026-11-20, row `vae` of experiments/figures.py); Flax's example reports about 104 on the fixed binarisation.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax import data, evaluation, priors, training
from aejax.checks import InputError
from aejax.evaluation.apply import over_batches
from aejax.methods import vae as method
from aejax.posteriors import DiagonalGaussian
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
    config, model, params, x = trained.config, trained.model, trained.state.params, trained.dataset.test.x
    bound_key, nll_key, z_key, prior_key = jax.random.split(trained.measure_key, 4)
    metrics = measures.standard(trained)
    terms = training.evaluate(trained.algorithm, trained.state, data.Batch(x), bound_key)
    metrics["test_bound_nats"] = terms["elbo/bound_nats"]
    if config.nll_samples:
        nll = evaluation.nll(model, params, x, nll_key, num_samples=config.nll_samples)
        metrics |= {"test_nll_nats": nll.nll_nats, "nll_samples": config.nll_samples, "nll_ess": nll.ess}
    metrics["active_units"] = evaluation.active_units(evaluation.embed(model, params, x))
    encode = partial(_encode, params, model=model)
    mean, logvar = jnp.split(jnp.asarray(over_batches(encode, x)), 2, axis=1)
    z = np.asarray(DiagonalGaussian(mean, logvar).sample(z_key))
    return metrics | measures.against_prior(z, priors.StandardNormal(config.latent_dim), prior_key)


@partial(jax.jit, static_argnames="model")
def _encode(params: Any, x: jax.Array, *, model: method.VAE) -> jax.Array:
    """Means and log-variances side by side."""
    return jnp.concatenate(model.bind({"params": params}).encode(x), axis=1)


def draw(trained: Trained) -> "dict[str, Figure]":
    return measures.pictures(trained, priors.StandardNormal(trained.config.latent_dim))


def reference(config: Config) -> dict[str, Reference]:
    recipe = Config(
        dataset="mnist", hidden_dims=(500,), latent_dim=20, num_epochs=10, binarize="stochastic", validation=0.0
    )
    if common.is_recipe(config, recipe):
        return {"test_bound_nats": Reference(104, "Flax's VAE example, about; on the fixed binarisation")}
    return {}


EXPERIMENT = Experiment("vae", Config, build_model, build_algorithm, "elbo/loss", measure, draw, reference)
run = partial(common.run, EXPERIMENT)


def main() -> None:
    from experiments import launch

    launch.main(EXPERIMENT, __doc__)


if __name__ == "__main__":
    main()
