"""A function, cut into the factors of its chain rule.

Wherever a single value leads from the input of a function to its output, the Jacobian is a product: that of what comes
after times that of what comes before. `trace` finds all such places in the program that JAX records of the function.
So structure is found in any module, whoever wrote it: layers, element-wise activations, blocks with a skip connection
or a normalisation, bottlenecks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp

Array = jax.Array

# Each number of the result depends on the numbers at its own place in the operands.
_ELEMENTWISE = frozenset(
    {
        "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
        "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp",
        "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic",
        "lt", "max", "min", "mul", "name", "ne", "neg", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt",
        "select_n", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor",
    }
)  # fmt: skip
_RESHAPES = frozenset({"broadcast_in_dim", "expand_dims", "reshape", "squeeze"})  # keep the order of the numbers
_SHIFTS = frozenset({"add", "convert_element_type", "copy", "name", "sub"}) | _RESHAPES  # of slope one in their first
_LINEAR = _SHIFTS | {"concatenate", "cumsum", "neg", "pad", "reduce_sum", "rev", "slice", "transpose"}
_BILINEAR = frozenset({"conv_general_dilated", "div", "dot_general", "mul"})  # linear in one operand
_JIT = jex.primitives.jit_p


class Linear(NamedTuple):
    """`y = x @ kernel`, the same for every example."""

    inputs: int
    outputs: int
    apply: Callable[[Array], Array]
    kernel: Array  # [inputs, outputs]


class Diagonal(NamedTuple):
    """An element-wise function."""

    inputs: int
    outputs: int  # as many
    apply: Callable[[Array], Array]
    is_linear: bool  # or affine: its slope is the same for every example
    is_shift: bool  # its slope is one


class Block(NamedTuple):
    """Any function."""

    inputs: int
    outputs: int
    apply: Callable[[Array], Array]
    is_linear: bool  # or affine: its Jacobian is the same for every example
    has_jvp: bool  # forward mode is possible
    products: int  # multiplications in its matrix products and convolutions
    elements: int  # numbers computed on the way


Segment = Linear | Diagonal | Block


class Trace(NamedTuple):
    """A function of one example as a chain: each segment takes the flat vector that the one before returns."""

    segments: tuple[Segment, ...]
    finish: Callable[[Array], Array]  # the last flat vector -> what the function returns
    is_constant: bool  # the function ignores its argument: there are no segments
    fixed: int  # bytes of what all examples share: parameters, and what follows from them alone
    itemsize: int  # bytes of the widest number on the way


class _Step(NamedTuple):
    """An equation of the program with its variables renamed: one name, one value, also where a jit is called twice."""

    eqn: Any
    inputs: tuple[Any, ...]  # names (int), or literals
    outputs: tuple[int, ...]


def trace(f: Callable[[Array], Array], x: Array) -> Trace:
    """Records f at the shape of x, computes what does not depend on x, and cuts the rest into segments.

    Args:
      f: `[...] -> [...]`, any two shapes.
      x: float, one example; only its shape and type are used.
    """
    closed = jax.make_jaxpr(f)(x)
    values: dict[int, Array] = {}
    steps, source, target = _flatten(closed, values)
    steps = _needed(steps, target)
    depends, varying = {source}, []
    for step in steps:
        if any(_is_name(name) and name in depends for name in step.inputs):
            depends.update(step.outputs)
            varying.append(step)
        else:
            _run([step], values)
    fixed = sum(value.size * value.dtype.itemsize for value in values.values() if hasattr(value, "dtype"))
    itemsize = max([x.dtype.itemsize, *(v.aval.dtype.itemsize for step in varying for v in step.eqn.outvars)])
    aval = closed.out_avals[0]
    if not (_is_name(target) and target in depends):
        constant = _value(target, values)
        return Trace((), lambda _: constant, True, fixed, itemsize)
    segments, avals = [], {source: jax.typeof(x)}
    for step in varying:
        avals |= {name: var.aval for name, var in zip(step.outputs, step.eqn.outvars, strict=True)}
    for group, begin, end in _cut(varying, avals, source, target):
        segments.append(_classify(group, begin, end, avals, values))
    return Trace(tuple(_merged(segments)), lambda v: v.reshape(aval.shape), False, fixed, itemsize)


def _flatten(closed: jex.ClosedJaxpr, values: dict[int, Array]) -> tuple[list[_Step], int, Any]:
    """The program without its jits, the name of its first argument, and the name or literal that it returns first."""
    steps: list[_Step] = []
    count = 0

    def fresh() -> int:
        nonlocal count
        count += 1
        return count

    def walk(closed: jex.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        names: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))
        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            names[var] = fresh()
            values[names[var]] = value
        read = lambda var: var if isinstance(var, jex.Literal) else names[var]
        for eqn in jaxpr.eqns:
            inputs = tuple(map(read, eqn.invars))
            if eqn.primitive is _JIT:
                outputs = walk(eqn.params["jaxpr"], inputs)
            else:
                outputs = [fresh() for _ in eqn.outvars]
                steps.append(_Step(eqn, inputs, tuple(outputs)))
            names.update(zip(eqn.outvars, outputs, strict=True))
        return [read(var) for var in jaxpr.outvars]

    sources = [fresh() for _ in closed.in_avals]
    return steps, sources[0], walk(closed, sources)[0]


def _needed(steps: Sequence[_Step], target: Any) -> list[_Step]:
    wanted, kept = {target} if _is_name(target) else set(), []
    for step in reversed(steps):
        if wanted.intersection(step.outputs):
            wanted.update(filter(_is_name, step.inputs))
            kept.append(step)
    return kept[::-1]


def _cut(
    steps: Sequence[_Step], avals: dict[int, Any], source: int, target: int
) -> Iterator[tuple[list[_Step], int, int]]:
    """The steps between two places where a single real value is alive, with the names of both values."""
    last_use = {target: len(steps)}
    for i, step in enumerate(steps):
        last_use |= {name: max(i, last_use.get(name, i)) for name in step.inputs if _is_name(name) and name in avals}
    alive, group, begin = {source}, [], source
    for i, step in enumerate(steps):
        group.append(step)
        alive = {name for name in alive.union(step.outputs) if last_use.get(name, -1) > i}
        if len(alive) == 1:
            (end,) = alive
            if jnp.issubdtype(avals[end].dtype, jnp.floating):
                yield group, begin, end
                group, begin = [], end


def _classify(group: list[_Step], begin: int, end: int, avals: dict[int, Any], values: dict[int, Array]) -> Segment:
    inputs, outputs, shape = avals[begin].size, avals[end].size, avals[begin].shape

    def apply(v: Array) -> Array:
        local = {begin: v.reshape(shape)}
        _run(group, local, values)
        return local[end].reshape(-1)

    operands = [[i for i, name in enumerate(step.inputs) if _is_name(name) and name in avals] for step in group]
    names = [step.eqn.primitive.name for step in group]
    is_linear = all(map(_is_linear, group, operands))
    if all(_keeps_places(step.eqn, used, inputs) for step, used in zip(group, operands, strict=True)):
        is_shift = is_linear and _SHIFTS.issuperset(names) and operands == [[0]] * len(group)
        return Diagonal(inputs, outputs, apply, is_linear, is_shift)
    kernel = _kernel(group[0], begin, shape, values) if len(group) == 1 else None
    if kernel is not None:
        return Linear(inputs, outputs, apply, kernel)
    has_jvp = not any(_has_custom_vjp(step.eqn) for step in group)
    products, elements = map(sum, zip(*(count(step.eqn) for step in group), strict=True))
    return Block(inputs, outputs, apply, is_linear, has_jvp, products, elements)


def _is_linear(step: _Step, operands: Sequence[int]) -> bool:
    """Whether the derivative of a step is the same for every example; `operands` are those that depend on it."""
    name = step.eqn.primitive.name
    if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in step.eqn.outvars):
        return False
    if name == "div":
        return operands == [0]
    return name in _LINEAR or (name in _BILINEAR and len(operands) == 1)


def _keeps_places(eqn: Any, operands: Sequence[int], size: int) -> bool:
    """Whether each of the `size` numbers that an equation returns depends on the number at its place alone."""
    if any(eqn.invars[i].aval.size != size for i in operands) or any(v.aval.size != size for v in eqn.outvars):
        return False
    if eqn.primitive is jex.primitives.custom_jvp_call_p:
        return _rule_keeps_places(eqn, size)
    return eqn.primitive.name in _ELEMENTWISE or eqn.primitive.name in _RESHAPES


def _rule_keeps_places(eqn: Any, size: int) -> bool:
    """The same of a function with a derivative of its own, which is what counts."""
    avals = [v.aval for v in eqn.invars]
    if not all(jnp.issubdtype(aval.dtype, jnp.floating) for aval in avals):
        return False
    run = lambda *x: eqn.primitive.bind(*x, **eqn.primitive.get_bind_params(eqn.params))
    program = jax.make_jaxpr(lambda x, t: jax.jvp(run, x, t))(avals, avals)
    steps, _, _ = _flatten(program, {})
    known = _ELEMENTWISE | _RESHAPES
    return all(s.eqn.primitive.name in known and all(v.aval.size in (1, size) for v in s.eqn.outvars) for s in steps)


def _kernel(step: _Step, begin: int, shape: tuple[int, ...], values: dict[int, Array]) -> Array | None:
    """The matrix of a product of the whole vector with a constant, `[in, out]`."""
    if step.eqn.primitive.name != "dot_general":
        return None
    (contracted, (left_batch, _)) = step.eqn.params["dimension_numbers"]
    side = 0 if step.inputs[0] == begin else 1
    other = step.inputs[1 - side]
    if left_batch or len(contracted[0]) != 1 or other == begin or not _is_name(other):
        return None
    (axis,), weights = contracted[side], values[other]
    if shape[axis] != math.prod(shape) or not jnp.issubdtype(weights.dtype, jnp.floating):
        return None
    return jnp.moveaxis(weights, contracted[1 - side][0], 0).reshape(shape[axis], -1)


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Element-wise functions that follow each other become one, and mere shifts a part of their neighbour."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if isinstance(last, Diagonal) and isinstance(segment, Diagonal):
            both = (last.is_linear and segment.is_linear, last.is_shift and segment.is_shift)
            merged[-1] = Diagonal(last.inputs, last.inputs, _then(last, segment), *both)
        elif isinstance(last, Diagonal) and last.is_shift:
            merged[-1] = segment._replace(apply=_then(last, segment))
        elif last is not None and isinstance(segment, Diagonal) and segment.is_shift:
            merged[-1] = last._replace(apply=_then(last, segment))
        else:
            merged.append(segment)
    return merged


def _then(first: Segment, second: Segment) -> Callable[[Array], Array]:
    return lambda v: second.apply(first.apply(v))


def _has_custom_vjp(eqn: Any) -> bool:
    inner = (e for jaxpr in jex.jaxprs_in_params(eqn.params) for e in jaxpr.eqns)
    return eqn.primitive is jex.primitives.custom_vjp_call_p or any(map(_has_custom_vjp, inner))


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
    inner = [count(e) for jaxpr in jex.jaxprs_in_params(params) for e in jaxpr.eqns]
    if inner:
        times = params.get("length", 1)
        products, elements = map(sum, zip(*inner, strict=True))
        return times * products, times * elements
    return 0, outputs


def _run(steps: Sequence[_Step], values: dict[int, Array], others: dict[int, Array] | None = None) -> None:
    """Adds what the steps compute to `values`."""
    for step in steps:
        read = [_value(name, values, others) for name in step.inputs]
        params = step.eqn.primitive.get_bind_params(step.eqn.params)
        with step.eqn.ctx.manager:  # the precision and the like that it was recorded under
            results = step.eqn.primitive.bind(*read, **params)
        values |= zip(step.outputs, results if step.eqn.primitive.multiple_results else [results], strict=True)


def _value(name: Any, values: dict[int, Array], others: dict[int, Array] | None = None) -> Array:
    if not _is_name(name):
        return name.val
    return values[name] if others is None or name in values else others[name]


def _is_name(name: Any) -> bool:
    return isinstance(name, int)
