"""What can be read off a program that JAX has recorded: the ways that derivatives go through it, and what it costs."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

Array = jax.Array

# Made where they are read.
_VIEWS = frozenset({"broadcast_in_dim", "expand_dims", "pad", "reshape", "slice", "squeeze", "transpose"})


def has_jvp(eqns: Sequence[Any]) -> bool:
    """Whether forward mode goes through a program: it has no rule for the backward pass alone."""
    return not any(
        eqn.primitive is jex.primitives.custom_vjp_call_p or not all(has_jvp(inner.eqns) for inner in _programs(eqn))
        for eqn in eqns
    )


def has_vjp(eqns: Sequence[Any]) -> bool:
    """Whether reverse mode goes through a program: it has no loop whose length only running it tells."""
    return not any(map(_is_open_loop, eqns))


def _is_open_loop(eqn: Any) -> bool:
    if eqn.primitive.name == "while":
        return any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
    return not eqn.primitive.name.startswith("custom_") and not all(has_vjp(inner.eqns) for inner in _programs(eqn))


def _programs(eqn: Any) -> Iterator[Any]:
    return jex.jaxprs_in_params(eqn.params)


def highest(precisions: Iterable[Any]) -> Any:
    """The most exact of the precisions that products were recorded with; a named algorithm before any."""

    def rank(precision: Any) -> int:
        if precision is None:
            return -1
        return max(p.value for p in precision) if isinstance(precision, tuple) else len(jax.lax.Precision)

    return max(precisions, key=rank, default=None)


def precisions(eqn: Any) -> Iterator[Any]:
    """Of the products and convolutions in an equation."""
    if "precision" in eqn.params:
        yield eqn.params["precision"]
    for inner in _programs(eqn):
        for inside in inner.eqns:
            yield from precisions(inside)


def count(eqn: Any) -> tuple[int, int]:
    """Multiplications in the matrix products and convolutions of an equation, and numbers that it computes."""
    name, params = eqn.primitive.name, eqn.params
    outputs = sum(v.aval.size for v in eqn.outvars)
    if name == "dot_general":
        (left, _), _ = params["dimension_numbers"]
        return outputs * math.prod(eqn.invars[0].aval.shape[axis] for axis in left), outputs
    if name == "conv_general_dilated":
        features = params["dimension_numbers"].rhs_spec[0]
        kernel = eqn.invars[1].aval
        return outputs * kernel.size // kernel.shape[features], outputs
    if name.startswith("select_and_"):  # the places of the largest, which XLA writes out
        return 0, outputs + 2 * max(v.aval.size for v in eqn.invars)
    inner = [count(e) for jaxpr in _programs(eqn) for e in jaxpr.eqns]
    if inner:
        times = params.get("length", 1)
        products, elements = map(sum, zip(*inner, strict=True))
        return times * products, times * elements
    return 0, outputs


def count_vector(apply: Callable[[Array], Array], x: jax.ShapeDtypeStruct, *, backward: bool) -> int:
    """Numbers that are computed to lead one vector back through a function, or forward."""
    side = jax.eval_shape(apply, x) if backward else x

    def through(x: Array, vectors: Array) -> Array:
        if backward:
            return jax.vmap(jax.vjp(apply, x)[1])(vectors)[0]
        return jax.vmap(lambda v: jax.jvp(apply, (x,), (v,))[1])(vectors)

    def total(num: int) -> int:
        program = jax.make_jaxpr(through)(x, jax.ShapeDtypeStruct((num, *side.shape), side.dtype))
        return sum(count(eqn)[1] for eqn in program.eqns if eqn.primitive.name not in _VIEWS)

    return total(2) - total(1)
