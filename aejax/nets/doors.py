"""Two doors: networks of Flax NNX and of Equinox as encoders and decoders like any other.

What comes out is a Linen module whose parameters are those of the network, `params["net"]`, nested by the names that
they have there. The network itself is built anew, from shapes, wherever the module is traced.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax.checks import InputError
from aejax.nets.checks import check_module

Names = tuple[str, ...]
N = TypeVar("N", bound="_Foreign")


class _Parts(NamedTuple):
    arrays: dict[Names, Any]  # the parameters
    merge: Callable[[list[Any]], Callable[..., jax.Array]]  # values for them, in their order -> the network


class _Foreign(nn.Module):
    """A network of another library, made by `constructor(*args, **kwargs)` and a key."""

    constructor: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *condition: jax.Array) -> jax.Array:
        parts, shapes = self.trace()
        fresh = lambda key: unflatten_dict(self.take_apart(key).arrays)
        if not self.is_initializing():  # Linen asks for the shapes, which are known
            fresh = lambda _: unflatten_dict({name: np.zeros(s.shape, s.dtype) for name, s in shapes.items()})
        values = flatten_dict(self.param("net", fresh))
        if values.keys() != shapes.keys():
            odd = sorted(".".join(names) for names in values.keys() ^ shapes.keys())
            raise InputError(f"The parameters are of another network than {self.constructor}: {odd} are in one only.")
        return self.run(parts.merge([values[name] for name in parts.arrays]), x, *condition)

    def trace(self) -> tuple[_Parts, dict[Names, jax.ShapeDtypeStruct]]:
        """The network without its numbers, and the shapes of its parameters."""
        found = []

        def arrays(key: jax.Array) -> list[Any]:
            found.append(self.take_apart(key))
            return list(found[0].arrays.values())

        shapes = jax.eval_shape(arrays, jax.random.key(0))
        return found[0], dict(zip(found[0].arrays, shapes, strict=True))

    def make(self, **key: Any) -> Any:
        return self.constructor(*self.args, **dict(self.kwargs), **key)

    def take_apart(self, key: jax.Array) -> _Parts:
        raise NotImplementedError

    def run(self, net: Callable[..., jax.Array], x: jax.Array, *condition: jax.Array) -> jax.Array:
        return net(x, *condition)


class NNXNet(_Foreign):
    """What `from_nnx` returns."""

    def take_apart(self, key: jax.Array) -> _Parts:
        from flax import nnx

        net = self.make(rngs=nnx.Rngs(key))
        if not isinstance(net, nnx.Module):
            raise InputError(f"{self.constructor} made a {type(net).__name__}; an NNX module is wanted.")
        others = [
            f"{'.'.join(map(str, path))} ({type(value).__name__ if isinstance(value, nnx.Variable) else value.dtype})"
            for path, value in nnx.iter_graph(net)  # which finds what was made in this trace, where split does not
            if isinstance(value, (nnx.Variable, jax.Array)) and not isinstance(value, nnx.Param)
        ]
        if others:
            raise InputError(
                f"{type(net).__name__} keeps {', '.join(others)} beside its parameters. Losses here are pure and per"
                " example: use LayerNorm or GroupNorm in place of BatchNorm, make Dropout with deterministic=True, keep"
                " no rngs, and hold constants as NumPy arrays."
            )
        graph, params, *rest = nnx.split(net, nnx.Param, ...)
        flat = dict(nnx.to_flat_state(params))
        arrays = {tuple(map(str, path)): variable.get_value() for path, variable in flat.items()}
        merge = lambda new: nnx.merge(graph, nnx.from_flat_state(dict(zip(flat, new, strict=True))), *rest)
        return _Parts(arrays, merge)


class EquinoxNet(_Foreign):
    """What `from_equinox` returns."""

    def take_apart(self, key: jax.Array) -> _Parts:
        import equinox as eqx

        net = self.make(key=key)
        if not (isinstance(net, eqx.Module) and callable(net)):
            raise InputError(f"{self.constructor} made a {type(net).__name__}; a callable Equinox module is wanted.")
        special = (eqx.nn.StateIndex, eqx.nn.Dropout)
        parts = jax.tree.leaves(net, is_leaf=lambda part: isinstance(part, special))
        silent = lambda part: isinstance(part, eqx.nn.Dropout) and (part.p == 0 or part.inference)
        others = [type(part).__name__ for part in parts if isinstance(part, special) and not silent(part)]
        params, rest = eqx.partition(net, eqx.is_inexact_array)
        others += [f"an array of {leaf.dtype}" for leaf in jax.tree.leaves(rest) if isinstance(leaf, jax.Array)]
        if others:
            raise InputError(
                f"{type(net).__name__} keeps {', '.join(others)} beside its parameters. Losses here are pure and per"
                " example: use LayerNorm or GroupNorm in place of BatchNorm, make Dropout with inference=True, and hold"
                " integers as NumPy arrays."
            )
        paths, treedef = jax.tree_util.tree_flatten_with_path(params)
        arrays = {tuple(jax.tree_util.keystr((k,), simple=True) for k in path): leaf for path, leaf in paths}
        return _Parts(arrays, lambda new: eqx.combine(jax.tree.unflatten(treedef, new), rest))

    def run(self, net: Callable[..., jax.Array], x: jax.Array, *condition: jax.Array) -> jax.Array:
        if x.shape[0] == 1:  # as `aejax.jacobian` has it, which sees more without the map
            return net(x[0], *(array[0] for array in condition))[None]
        return jax.vmap(net)(x, *condition)


class _Copies:
    """The constructor of an instance: the same weights for every key. Equal to itself alone."""

    def __init__(self, net: Any):
        self.net = net

    def __call__(self, **_: Any) -> Any:
        return self.net

    def __repr__(self) -> str:
        return f"copies of a {type(self.net).__name__}"


def from_nnx(constructor: Callable[..., Any], *args: Any, **kwargs: Any) -> NNXNet:
    """A network of Flax NNX as an encoder or decoder: `from_nnx(nnx.Linear, 12, 4)`.

    Args:
      constructor: called as `constructor(*args, **kwargs, rngs=nnx.Rngs(key))`: a class, or a function at the level of
        a module. Another key, another start. An instance is taken with its weights of now as the fixed first ones, with
        a warning: the runs of several seeds then start alike.
      args: hashable, since equal ones mean equal networks, which compile once.
      kwargs: likewise.

    Returns:
      A Linen module: what the network maps, a whole batch `[B, ...]` (and a condition) to a batch. Every `nnx.Param` is
      a parameter, NumPy arrays are constants.

    Raises:
      InputError: arguments that cannot be hashed, a lambda, no NNX module, or one that keeps state (BatchNorm,
        Dropout).

    Example:
      >>> from flax import nnx
      >>> model = aejax.AE(from_nnx(nnx.Linear, 12, 2), from_nnx(nnx.Linear, 2, 12), 2)
      >>> jax.tree.map(jnp.shape, aejax.init_params(model, jax.random.key(0), jnp.ones((1, 12)))["encoder"])
      {'net': {'bias': (2,), 'kernel': (12, 2)}}
    """
    from flax import nnx

    # Its parameters may move after this: the copy keeps those of now.
    return _open(NNXNet, "rngs", constructor, args, kwargs, nnx.Module, nnx.clone)


def from_equinox(constructor: Callable[..., Any], *args: Any, **kwargs: Any) -> EquinoxNet:
    """A network of Equinox as an encoder or decoder: `from_equinox(eqx.nn.MLP, 12, 4, width_size=20, depth=2)`.

    Args:
      constructor: called as `constructor(*args, **kwargs, key=key)`: a class, or a function at the level of a module.
        Another key, another start. An instance is taken with its weights as the fixed first ones, with a warning: the
        runs of several seeds then start alike.
      args: hashable, since equal ones mean equal networks, which compile once.
      kwargs: likewise.

    Returns:
      A Linen module. An Equinox network maps one example; here it is mapped over the batch (`jax.vmap`), and so is a
      condition. Every floating array in it is a parameter, as Equinox has it (`eqx.is_inexact_array`).

    Raises:
      InputError: Equinox is not installed; arguments that cannot be hashed, a lambda, no Equinox module, or one that
        keeps state (BatchNorm), integers in JAX arrays, or draws (Dropout).

    Example:
      >>> import equinox as eqx
      >>> model = aejax.AE(from_equinox(eqx.nn.Linear, 12, 2), from_equinox(eqx.nn.Linear, 2, 12), 2)
      >>> jax.tree.map(jnp.shape, aejax.init_params(model, jax.random.key(0), jnp.ones((1, 12)))["encoder"])
      {'net': {'bias': (2,), 'weight': (2, 12)}}
    """
    try:
        import equinox as eqx
    except ImportError:
        raise InputError("Equinox is not installed: pip install equinox.") from None
    return _open(EquinoxNet, "key", constructor, args, kwargs, eqx.Module, lambda net: net)


def _open(
    cls: type[N],
    key: str,
    constructor: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    base: type,
    copy: Callable[..., Any],
) -> N:
    while isinstance(constructor, functools.partial):  # which no other partial equals
        args, kwargs = (*constructor.args, *args), {**constructor.keywords, **kwargs}
        constructor = constructor.func
    if isinstance(constructor, base):
        if args or kwargs:
            raise InputError(f"A {type(constructor).__name__} came with arguments; give its class with them.")
        warnings.warn(
            f"A {type(constructor).__name__} that is made already gives its own weights to every start, whatever the"
            " key; for another start with each key give its class and arguments.",
            stacklevel=3,
        )
        constructor = _Copies(copy(constructor))
    try:
        inspect.signature(constructor).bind(*args, **kwargs, **{key: None})
    except TypeError as error:
        message = f"{constructor} is called with what it was given and {key}=...: {error}."
        raise InputError(message) from None
    net = cls(constructor, args, tuple(sorted(kwargs.items())))
    check_module(net)
    net.trace()
    return net
