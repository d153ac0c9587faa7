"""The experiment of a method of the registry: what is not given is taken from there.

No method is named here: what one needs alone stands in its experiment.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn

from aejax import nets
from aejax.algorithm import Algorithm
from aejax.checks import InputError
from aejax.methods import METHODS
from aejax.runner import measures, pictures
from aejax.runner.config import Config
from aejax.runner.experiment import Experiment
from aejax.runner.inputs import Spec

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "sigmoid": nn.sigmoid, "softplus": nn.softplus, "gelu": nn.gelu}
_DENSE_ONLY = ("hidden_dims", "activation", "code", "tied", "use_bias")


def of_method(name: str, config: type[Config], **own: Any) -> Experiment:
    """An `Experiment` from a name, a Config with `hparams`, and whatever else is not as usual.

    By default the model and the algorithm are those of the registry, with those of their fields and keywords that the
    Config has too; the loss of the first player is monitored; measurements and pictures are those of any autoencoder.

    Args:
      name: of the experiment, the key of its method in the registry.
      config: its Config.
      own: fields of `Experiment`.
    """
    found = METHODS[name]
    usual: dict[str, Any] = {
        "build_model": partial(build_model, module=found.model),
        "build_algorithm": partial(build_algorithm, found.build),
        "monitor": None,
        "measure": measures.standard,
        "draw": pictures.standard,
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


def build_model(config: Any, spec: Spec, module: type[Any], **fields: Any) -> Any:
    """The module of a configuration: `fields`, and those of its own that the Config has too, such as `likelihood`."""
    known = {field.name for field in dataclasses.fields(module)} - {"latent_dim"}
    own = {name: getattr(config, name) for name in known if hasattr(config, name)}
    if "num_classes" in known:
        own["num_classes"] = spec.num_classes
    fields = {**own, **fields}
    if config.net == "conv":
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        for name in _DENSE_ONLY:
            if name in defaults and getattr(config, name) != defaults[name]:
                raise InputError(f"--{name.replace('_', '-')} is for dense networks; leave it out with --net conv.")
        if getattr(config, "grid", False):
            fields["grid"] = True
        return module.conv(spec.shape, config.latent_dim, **fields)
    if getattr(config, "grid", False):
        raise InputError("--grid is for --net conv: dense networks have no places.")
    return module.dense(spec.shape[0], config.latent_dim, **_dense_options(config), **fields)


def _dense_options(config: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"hidden_dims": config.hidden_dims}
    if hasattr(config, "activation"):
        options["activation"] = ACTIVATIONS[config.activation]
    if hasattr(config, "code"):
        options["code_activation"] = None if config.code == "linear" else ACTIVATIONS[config.code]
    return options | {name: getattr(config, name) for name in ("tied", "use_bias") if hasattr(config, name)}
