"""What differs between two models and between two sets of parameters, in words; nothing is refused here."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """By path, such as `['encoder']['out']['kernel']`."""
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}


def differences(there: Any, here: Any, name: str = "the model") -> Iterator[str]:
    """What differs between two models, field by field: `encoder.features is (8, 2) there and (8, 3) here`."""
    if dataclasses.is_dataclass(there) and type(there) is type(here):
        for field in dataclasses.fields(there):
            if field.name not in ("parent", "name"):  # where Flax keeps the tree of modules
                own = field.name if name == "the model" else f"{name}.{field.name}"
                yield from differences(getattr(there, field.name), getattr(here, field.name), own)
    elif isinstance(there, dict) and isinstance(here, dict):
        for key in {**here, **there}:
            yield from differences(there.get(key), here.get(key), f"{name}{key}" if name != "the model" else key)
    elif _shown(there) != _shown(here):
        yield f"{name} is {_shown(there)} there and {_shown(here)} here"


def _shown(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return str(getattr(value, "__qualname__", value))
