"""Variational autoencoder, and beta-VAE with --hparams.beta.

On MNIST, stochastically binarised, 784-500-20 reaches a test bound of 102.24 +- 0.22 nats after 10 epochs, 3 seeds
(2026-11-20, row `vae` of experiments/figures.py); Flax's example reports about 104 on the fixed binarisation.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from aejax import evaluation, likelihoods, nets, runner, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation.apply import over_batches
from aejax.methods import vae as method
from aejax.runner import Optimizers, Reference, Trained, measures
from aejax.runner.config import is_recipe, later
from aejax.runner.inputs import Spec, fed
from aejax.schedules import Ramp


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    warmup_epochs: int = later(0)
    """Epochs in which beta rises in a straight line from 0 (validation has its final value); 0 for none."""
    num_samples: int = later(1)
    """Draws of the code for each image and step."""
    closed_kl: bool = later(True)
    """Whether the KL is taken in closed form where there is one; else it is estimated from those draws."""
    nll_samples: int = 100
    """Importance samples per test image for test_nll_nats; 0 leaves it out. Papers use 5000."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: Any, spec: Spec, module: type[method.VAE] = method.VAE, **fields: Any) -> Any:
    for name in ("nll_samples", "warmup_epochs"):
        value = getattr(config, name, 0)
        if value < 0:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it has to be 0 or more.")
    return runner.build_model(config, spec, module, **fields)


def build_algorithm(
    config: Any, model: Any, tx: Optimizers, axis_name: str | None, build: Callable[..., Any] = method.vae
) -> Any:
    hparams: Any = config.hparams
    if config.warmup_epochs:
        hparams = hparams._replace(beta=Ramp(0.0, hparams.beta, config.warmup_epochs * tx.steps_per_epoch))
    draws = {name: getattr(config, name) for name in ("num_samples", "closed_kl") if hasattr(config, name)}
    return build(model, hparams, tx, axis_name=axis_name, **draws)


def measure(trained: Trained) -> dict[str, float]:
    """`measures.standard`, and `of_posterior`."""
    return measures.standard(trained) | of_posterior(trained)


def of_posterior(trained: Trained) -> dict[str, float]:
    """What there is to measure of a model with a posterior and a prior, conditioned ones too."""
    config, model, params = trained.config, trained.model, trained.state.params
    test = fed(model, trained.dataset.test)
    bound_key, nll_key, z_key, prior_key = jax.random.split(trained.measure_key, 4)
    terms = training.evaluate(trained.algorithm, trained.state, test, bound_key)
    metrics = {"test_bound_nats": next(value for term, value in terms.items() if term.endswith("/bound_nats"))}
    if config.nll_samples and not likelihoods.get(model.likelihood).coupled:
        estimate = partial(evaluation.nll, model, params, test, nll_key, num_samples=config.nll_samples)
        for nll in trained.each({"test_nll_nats": estimate}).values():
            metrics |= {"test_nll_nats": nll.nll_nats, "nll_samples": config.nll_samples, "nll_ess": nll.ess}
    metrics["active_units"] = evaluation.active_units(evaluation.embed(model, params, test))
    return metrics | measures.against_prior(trained, drawn_codes(model, params, test, z_key), prior_key)


def drawn_codes(model: nets.Autoencoder, params: Any, data: Batch, key: jax.Array) -> np.ndarray:
    """A code of each example, `[N, Z]`, drawn from its posterior with noise of its own; the key is consumed."""
    draw = partial(_draw, params, key, model=model)
    return over_batches(draw, np.arange(len(data.x)), *nets.inputs(model, data))


@partial(jax.jit, static_argnames="model")
def _draw(params: Any, key: jax.Array, rows: jax.Array, *inputs: jax.Array, model: nets.Autoencoder) -> jax.Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
    return model.bind({"params": params}).encode(*inputs).sample(keys)


def reference(config: Config) -> dict[str, Reference]:
    recipe = Config(
        dataset="mnist", hidden_dims=(500,), latent_dim=20, num_epochs=10, binarize="stochastic", validation=0.0
    )
    if is_recipe(config, recipe):
        return {"test_bound_nats": Reference(104, "Flax's VAE example, about; on the fixed binarisation")}
    return {}


EXPERIMENT = runner.of_method(
    "vae", Config, build_model=build_model, build_algorithm=build_algorithm, measure=measure, reference=reference
)


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
