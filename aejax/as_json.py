"""Options in JSON and back: numbers, names and tuples, objects by class and fields, functions by their module."""

import dataclasses
from importlib import import_module
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from aejax.checks import InputError

# Where functions and classes are looked for by their name, before the module that they say to be from.
_HOMES = ("flax.linen", "jax.nn", "jax.numpy", "aejax.likelihoods", "aejax.priors", "aejax.schedules", "aejax.nets")


def to_json(value: Any) -> Any:
    """A value in JSON types: numbers, names and tuples as they are, objects by class and fields, functions by name.

    Raises:
      InputError: it is something else, or its class or function cannot be imported by name.

    Example:
      >>> to_json((2, aejax.likelihoods.Gaussian(0.1), jax.nn.relu))
      [2, {'class': 'aejax.likelihoods:Gaussian', 'fields': {'variance': 0.1}}, {'function': 'flax.linen:relu'}]
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        return value.item()
    if isinstance(value, dict):
        return {"dict": {name: to_json(each) for name, each in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        names = [name for name in names if not (isinstance(value, nn.Module) and name in ("parent", "name"))]
        return {"class": _address(type(value)), "fields": {name: to_json(getattr(value, name)) for name in names}}
    if hasattr(value, "_fields"):
        return {"class": _address(type(value)), "fields": {n: to_json(each) for n, each in value._asdict().items()}}
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if callable(value):
        return {"function": _address(value)}
    raise InputError(f"{value!r} has no form in JSON; numbers, names, tuples, objects of these and functions have.")


def from_json(saved: Any) -> Any:
    """What `to_json` was given, lists as tuples.

    Raises:
      InputError: a class or a function cannot be imported here.
    """
    if isinstance(saved, list):
        return tuple(map(from_json, saved))
    if not isinstance(saved, dict):
        return saved
    if "dict" in saved:
        return {name: from_json(each) for name, each in saved["dict"].items()}
    if "function" in saved:
        return _find(saved["function"])
    return _find(saved["class"])(**{name: from_json(each) for name, each in saved["fields"].items()})


def _address(value: Any) -> str:
    name, own = getattr(value, "__name__", ""), getattr(value, "__module__", None)
    for home in (*_HOMES, own):
        if home not in (None, "__main__") and getattr(import_module(home), name, None) is value:
            return f"{home}:{name}"
    raise InputError(
        f"{name or value!r} is of {own}, where no other process finds it by name; define it in a module of its own."
    )


def _find(address: str) -> Any:
    home, _, name = address.partition(":")
    try:
        return getattr(import_module(home), name)
    except (ImportError, AttributeError):
        raise InputError(f"{address} cannot be imported here; start Python where the module {home} is.") from None
