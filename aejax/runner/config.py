"""The configuration of a run: what decides its numbers, its checks, and its JSON form.

Nothing that decides no number: that is a launch option. Nothing is trained or read here.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, get_type_hints

from aejax import likelihoods, schedules
from aejax.checks import InputError, check_positive
from aejax.factory import LATER


def later(default: Any) -> Any:
    """A field of a Config that came when there were run folders already: at its default the JSON lacks it, as theirs.

    So they stay the same runs.
    """
    return dataclasses.field(default=default, metadata={"later": True})


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides the numbers of a run. Experiments add their own fields and defaults."""

    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    net: Literal["dense", "conv"] = "dense"
    """Dense networks see vectors, convolutional ones images."""
    latent_dim: int = 2
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of a dense encoder; the decoder mirrors them."""
    likelihood: str = "bernoulli"
    """A name of aejax.likelihoods; bernoulli is cross-entropy, gaussian (unit variance) half the squared error."""
    binarize: Literal["none", "stochastic", "threshold"] = "none"
    """Stochastic draws x ~ Bernoulli(pixel) anew at every presentation."""
    num_epochs: int = 200
    """Passes over the training examples, in all; may grow with --resume, on the schedule of the longer run."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    schedule: str = "constant"
    """How the learning rates change: constant, cosine, ..."""
    validation: float = 0.1
    """Fraction of the training split, its end, held out to choose the best checkpoint; 0 for none."""
    num_train: int | None = None
    """Only the first so many training examples, of those that are not held out; all of them by default."""
    num_test: int | None = None
    """Only the first so many test examples."""
    seed: int = 0
    """Of the initialisation, the order of the data and the noise."""
    clip: float | None = later(None)
    """Largest global norm of the gradients of a player, which are scaled down to it; no limit by default."""


def check(config: Config) -> None:
    """Refuses sizes and rates that no run can have."""
    for name in ("latent_dim", "num_epochs", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; it has to be at least 1.")
    if any(width < 1 for width in config.hidden_dims):
        raise InputError(f"--hidden-dims are {config.hidden_dims}; each has to be at least 1.")
    if not 0 <= config.validation < 1:
        raise InputError(f"--validation is {config.validation}; it has to be at least 0 and below 1.")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed is {config.seed}; it has to be at least 0 and below 2^32.")
    if config.clip is not None:
        check_positive(**{"--clip": config.clip})
    likelihoods.get(config.likelihood)
    schedules.get(config.schedule)


def is_recipe(config: Config, recipe: Config) -> bool:
    """Whether two configurations train in the same way: all is equal but the seed and what is measured afterwards."""
    names = {field.name for field in dataclasses.fields(recipe)} - {"seed", "nll_samples"}
    return all(getattr(config, name) == getattr(recipe, name) for name in names)


def module_of(config: type[Any]) -> str:
    """The module that a class of configurations is from, by which it can be imported; of a script the file's name."""
    if config.__module__ != "__main__":
        return config.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else Path(getattr(main, "__file__", "__main__")).stem


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """A Config from its JSON, tuples and nested knobs restored."""

    def value(default: Any, saved: Any) -> Any:
        if hasattr(default, "_fields"):
            return type(default)(**saved)
        return tuple(saved) if isinstance(saved, list) else saved

    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return cls(**{name: value(defaults[name], saved) for name, saved in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The JSON form of a Config, without the fields and knobs that came later where they have their defaults."""
    fields = dataclasses.fields(config)
    values = {field.name: getattr(config, field.name) for field in fields}
    values = {f.name: values[f.name] for f in fields if not ("later" in f.metadata and values[f.name] == f.default)}
    return {name: _knobs(value) if hasattr(value, "_fields") else value for name, value in values.items()}


def _knobs(hparams: Any) -> dict[str, Any]:
    types, defaults = get_type_hints(type(hparams), include_extras=True), hparams._field_defaults
    is_late = lambda name: LATER in getattr(types[name], "__metadata__", ())
    return {k: value for k, value in hparams._asdict().items() if not (is_late(k) and value == defaults[k])}
