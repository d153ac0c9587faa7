"""Which modules are refused: those that `jit` cannot tell from another by value, and those that couple examples."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import numpy as np

from aejax.checks import InputError
from aejax.nets.autoencoder import Autoencoder, inputs

_ROWS = 64  # of the data, among which the two that differ most are looked for
_SHIFT = 0.01  # of the parameters, so that what begins at zero, such as a gate, is seen too
_TOLERANCE = 1e-5  # relative to the largest entry; the same program at the same shape gives a row the same bits


def check_module(module: nn.Module) -> None:
    """Refuses a module that `jit` cannot tell from another by value: its fields have to be hashable, and no lambdas.

    Raises:
      InputError: a field of the module, of one within it, or within a tuple, is a list or another value without a hash,
        a lambda, a `functools.partial`, or a network of another library.
    """
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name"):
            _check_field(f"{type(module).__name__}.{field.name}", getattr(module, field.name, None))


def check_networks(model: Autoencoder) -> None:
    """`check_module`, after each of the model's networks was found to be a Linen module."""
    for name in model.networks:
        value, own = getattr(model, name), type(model).__name__
        where = f"{own}.{name}"
        if value is None:
            raise InputError(f"This {own} has no {name}: build it with {own}.dense or {own}.conv, or give one.")
        for net in value if isinstance(value, tuple) else (value,):  # a stack has one for each layer
            _check_foreign(where, net)
            if not isinstance(net, nn.Module):
                what = f"the class {net.__name__}, not yet called" if isinstance(net, type) else type(net).__name__
                raise InputError(f"{where} is {what}; a Linen module is wanted, such as nets.MLP((256, 2)).")
    check_module(model)


def is_ours(value: Any) -> bool:
    """Whether a module, the modules within it and the functions that it holds are all of this library or of JAX.

    None of those couples examples, so that `check_rows` may be spared. Layers of Flax do not count: attention does.
    """
    if isinstance(value, tuple):
        return all(map(is_ours, value))
    if isinstance(value, nn.Module):
        fields = (getattr(value, f.name, None) for f in dataclasses.fields(value) if f.name not in ("parent", "name"))
        return type(value).__module__.startswith("aejax.") and all(map(is_ours, fields))
    return not callable(value) or getattr(value, "__module__", "").partition(".")[0] in ("jax", "aejax")


def check_rows(model: Autoencoder, params: Any, data: Any) -> None:
    """Refuses a model that couples examples: what it makes of one must not depend on the others of the batch.

    A row beside another is compared with the same row beside itself, by one program of two rows, at parameters close to
    those given. For concrete arrays, outside of any trace. Rows that are all alike tell nothing, and pass.

    Args:
      model: any `Autoencoder`.
      params: its parameters by group.
      data: `x` `[B, ...]`, or a `Batch`; two rows of the first few are used.

    Raises:
      InputError: one of the networks couples examples, or fails on two where it takes one.
    """
    arrays = [np.asarray(array[:_ROWS]) for array in inputs(model, data)]
    flat = arrays[0].reshape(len(arrays[0]), -1).astype(np.float32)
    other = int(np.abs(flat - flat[:1]).sum(axis=1).argmax())
    if np.array_equal(flat[0], flat[other]):
        return
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: (p + _SHIFT * rng.standard_normal(np.shape(p))).astype(p.dtype), params)

    pairs = ([0, other], [0, 0], [other, other])
    try:
        both, first, second = (jax.device_get(_maps(model, params, *(a[pair] for a in arrays))) for pair in pairs)
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        message = f"The model takes one example, and fails on two: {error} Treat the first axis as the batch."
        raise InputError(message) from error
    for group in sorted(both, key=lambda name: name != "encoder"):  # the first, for its fault is seen in all others
        alone = zip(*(jax.tree.leaves(result[group]) for result in (both, first, second)), strict=True)
        if not all(_is_same(np.asarray(a), np.asarray(b), np.asarray(c)) for a, b, c in alone):
            raise InputError(
                f"The {group} of {type(model).__name__} couples examples: what it returns for one depends on the others"
                " of the batch. Losses, Jacobians and evaluation go by single examples: compute means, attention and"
                " the like within an example, along the axes behind the first."
            )


@functools.partial(jax.jit, static_argnames="model", compiler_options={"xla_backend_optimization_level": 0})
def _maps(model: Autoencoder, params: Any, x: jax.Array, *condition: jax.Array) -> dict[str, Any]:
    """What the networks return, each under the name of its group."""
    bound = model.bind({"params": params})
    z = bound.embed(x, *condition)
    found = {"encoder": (bound.encode(x, *condition), z), "decoder": bound.decode(z, *condition)}
    return found | _others(model, params, x, *condition)


def _others(model: Autoencoder, params: Any, *arrays: jax.Array) -> dict[str, Any]:
    """What the networks beside encoder and decoder return, where `__call__` calls them."""
    names = _groups(model, (name for name in model.networks if name not in ("encoder", "decoder")))
    if not names:
        return {}
    is_one = lambda module, method: method == "__call__" and module.path in [(name,) for name in names]
    seen = model.apply({"params": params}, *arrays, capture_intermediates=is_one, mutable=["intermediates"])[1]
    return {name: own["__call__"] for name, own in seen.get("intermediates", {}).items() if name in names}


def _groups(model: Autoencoder, networks: Iterable[str]) -> list[str]:
    """The names of networks within the model: those of a tuple are numbered."""
    stacks = {name: getattr(model, name) for name in networks}
    named = ([f"{n}_{i}" for i in range(len(net))] if isinstance(net, tuple) else [n] for n, net in stacks.items())
    return [name for names in named for name in names]


def _is_same(both: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Whether each of two rows is what it is beside itself; what has no rows has to be the same in all."""
    rows = both.ndim > 0 and len(both) == 2
    alone = np.stack([first[0], second[1]]) if rows else first
    near = functools.partial(np.allclose, rtol=0, equal_nan=True)
    wide = [array.astype(np.float64) for array in (both, alone, second)]
    atol = _TOLERANCE * max(float(np.nanmax(np.abs(array), initial=0)) for array in wide)
    return near(wide[0], wide[1], atol=atol) and (rows or near(wide[0], wide[2], atol=atol))


def _check_field(where: str, value: Any) -> None:
    _check_foreign(where, value)
    if isinstance(value, nn.Module):
        check_module(value)
    elif isinstance(value, tuple):
        for item in value:
            _check_field(where, item)
    elif isinstance(value, functools.partial):
        arguments = [*map(repr, value.args), "x", *(f"{name}={v!r}" for name, v in value.keywords.items())]
        call = f"{getattr(value.func, '__name__', value.func)}({', '.join(arguments)})"
        raise InputError(
            f"{where} is a functools.partial, which equals no other made alike, so equal models would compile anew;"
            f" use a module-level function: def function(x): return {call}."
        )
    elif getattr(inspect.unwrap(value) if callable(value) else value, "__name__", "") == "<lambda>":
        raise InputError(f"{where} is a lambda, which would compile anew each time; use a module-level function.")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _check_field(f"{where}.{field.name}", getattr(value, field.name))
    else:
        try:
            hash(value)
        except TypeError:
            raise InputError(f"{where} is a {type(value).__name__}; use a tuple or another hashable.") from None


def _check_foreign(where: str, value: Any) -> None:
    """Refuses a network of another library, by the door that it has to come in by."""
    for library, door, name in (("flax.nnx", "from_nnx", "NNX"), ("equinox", "from_equinox", "Equinox")):
        if library in sys.modules and isinstance(value, sys.modules[library].Module):
            cls = type(value).__name__
            raise InputError(
                f"{where} is an {name} module, which comes in by a door: nets.{door}({cls}, ...) with the arguments"
                f" that {cls} takes."
            )
