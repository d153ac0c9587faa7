"""The experiment of a method of the registry: what is not given is taken from there."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from aejax import nets
from aejax.algorithm import Algorithm
from aejax.methods import METHODS
from experiments import common, measures
from experiments.common import Config, Experiment


def experiment(name: str, config: type[Config], *, method: str | None = None, **own: Any) -> Experiment:
    """An `Experiment` from a name, a Config with `hparams`, and whatever else is not as usual.

    By default the model and the algorithm are those of the registry, with those of their fields and keywords that the
    Config has too; the loss of the first player is monitored; measurements and pictures are those of any autoencoder.

    Args:
      name: of the experiment.
      config: its Config.
      method: its key in the registry, where that is not the name.
      own: fields of `Experiment`.
    """
    found = METHODS[method or name]
    usual: dict[str, Any] = {
        "build_model": partial(common.build_model, module=found.model),
        "build_algorithm": partial(build_algorithm, found.build),
        "monitor": None,
        "measure": measures.standard,
        "draw": measures.pictures,
    }
    return Experiment(name, config, **{**usual, **own})


def build_algorithm(
    build: Callable[..., Algorithm], config: Any, model: nets.Autoencoder, tx: Any, axis_name: str | None
) -> Algorithm:
    """`build(model, config.hparams, tx, ...)` with those of its keywords, knobs apart, that the Config has."""
    parameters = inspect.signature(build).parameters.items()
    keywords = {name for name, each in parameters if each.kind is each.KEYWORD_ONLY} - set(config.hparams._fields)
    own = {name: getattr(config, name) for name in keywords if hasattr(config, name)}
    return build(model, config.hparams, tx, **{**own, "axis_name": axis_name})
