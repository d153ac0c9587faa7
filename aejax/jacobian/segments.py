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

from aejax.jacobian.programs import count, has_jvp, has_vjp, highest, precisions

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
    precision: Any = None  # of the product, as `lax.dot_general` takes it
    preferred: Any = None  # the type that it is summed in


class Diagonal(NamedTuple):
    """An element-wise function."""

    inputs: int
    outputs: int  # as many
    apply: Callable[[Array], Array]
    is_shared: bool  # its slope is the same for every example
    is_shift: bool  # its slope is one


class Block(NamedTuple):
    """Any function."""

    inputs: int
    outputs: int
    apply: Callable[[Array], Array]
    is_shared: bool  # its Jacobian is the same for every example
    has_jvp: bool  # forward mode is possible
    has_vjp: bool  # reverse mode is possible
    products: int  # multiplications in its matrix products and convolutions
    elements: int  # numbers computed on the way
    precision: Any = None  # the highest of its products


Segment = Linear | Diagonal | Block


class Trace(NamedTuple):
    """A function of one example as a chain: each segment takes the flat vector that the one before returns."""

    segments: tuple[Segment, ...]
    finish: Callable[[Array], Array]  # the last flat vector -> what the function returns
    is_constant: bool  # the function ignores its argument: there are no segments
    fixed: int  # bytes of what all examples share: parameters, and what follows from them alone
    own: int  # bytes of what an example has beside x, and of what follows from it without x
    itemsize: int  # bytes of the widest number on the way


class _Step(NamedTuple):
    """An equation of the program with its variables renamed: one name, one value, also where a jit is called twice."""

    eqn: Any
    inputs: tuple[Any, ...]  # names (int), or literals
    outputs: tuple[int, ...]


def trace(f: Callable[..., Array], x: Array, *own: Any) -> Trace:
    """Records f at the shape of x, computes what does not depend on x, and cuts the rest into segments.

    Args:
      f: `(x, *own) -> [...]`.
      x: float, one example; only its shape and type are used.
      own: further arguments of f, arrays that differ between examples; the segments hold their values.
    """
    closed = jax.make_jaxpr(f)(x, *own)
    values: dict[int, Array] = {}
    steps, (source, *sources), target = _flatten(closed, values)
    common = set(values)
    values |= zip(sources, jax.tree.leaves(own), strict=True)
    steps = _needed(steps, target)
    depends, varying = {source}, []
    for step in steps:
        names = set(filter(_is_name, step.inputs))
        if names & depends:
            depends.update(step.outputs)
            varying.append(step)
        else:
            _run([step], values)
            if names <= common:
                common.update(step.outputs)
    fixed = sum(_num_bytes(value) for name, value in values.items() if name in common)
    beside = sum(_num_bytes(value) for name, value in values.items() if name not in common)
    itemsize = max([x.dtype.itemsize, *(v.aval.dtype.itemsize for step in varying for v in step.eqn.outvars)])
    aval = closed.out_avals[0]
    if not (_is_name(target) and target in depends):
        constant = _value(target, values)
        return Trace((), lambda _: constant, True, fixed, beside, itemsize)
    segments, avals = [], {source: jax.typeof(x)}
    for step in varying:
        avals |= {name: var.aval for name, var in zip(step.outputs, step.eqn.outvars, strict=True)}
    for group, begin, end in _cut(varying, avals, source, target):
        segments.append(_classify(group, begin, end, avals, values, common))
    finish = lambda v: v.reshape(aval.shape)
    return Trace(tuple(_merged(segments)), finish, False, fixed, beside, itemsize)


def _num_bytes(value: Any) -> int:
    return value.size * value.dtype.itemsize if hasattr(value, "dtype") else 0


def _flatten(closed: jex.ClosedJaxpr, values: dict[int, Array]) -> tuple[list[_Step], list[int], Any]:
    """The program without its jits, the names of its arguments, and the name or literal that it returns first."""
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
    return steps, sources, walk(closed, sources)[0]


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


def _classify(
    group: list[_Step], begin: int, end: int, avals: dict[int, Any], values: dict[int, Array], common: set[int]
) -> Segment:
    inputs, outputs, shape = avals[begin].size, avals[end].size, avals[begin].shape

    def apply(v: Array) -> Array:
        local = {begin: v.reshape(shape)}
        _run(group, local, values)
        return local[end].reshape(-1)

    operands = [[i for i, name in enumerate(step.inputs) if _is_name(name) and name in avals] for step in group]
    names = [step.eqn.primitive.name for step in group]
    is_shared = all(_is_shared(step, used, common) for step, used in zip(group, operands, strict=True))
    if all(_keeps_places(step.eqn, used, inputs) for step, used in zip(group, operands, strict=True)):
        is_shift = is_shared and _SHIFTS.issuperset(names) and operands == [[0]] * len(group)
        return Diagonal(inputs, outputs, apply, is_shared, is_shift)
    kernel = _kernel(group[0], begin, shape, values, common) if len(group) == 1 else None
    if kernel is not None:
        params = group[0].eqn.params
        return Linear(inputs, outputs, apply, kernel, params["precision"], params["preferred_element_type"])
    eqns = [step.eqn for step in group]
    products, elements = map(sum, zip(*map(count, eqns), strict=True))
    precision = highest(found for eqn in eqns for found in precisions(eqn))
    return Block(inputs, outputs, apply, is_shared, has_jvp(eqns), has_vjp(eqns), products, elements, precision)


def _is_shared(step: _Step, operands: Sequence[int], common: set[int]) -> bool:
    """Whether the derivative of a step is the same for every example; `operands` are those that depend on it."""
    name = step.eqn.primitive.name
    if not all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in step.eqn.outvars):
        return False
    if name in _LINEAR:
        return True
    factors = [factor for i, factor in enumerate(step.inputs) if i not in operands and _is_name(factor)]
    if name not in _BILINEAR or len(operands) != 1 or not common.issuperset(factors):
        return False
    return name != "div" or operands == [0]


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


def _kernel(
    step: _Step, begin: int, shape: tuple[int, ...], values: dict[int, Array], common: set[int]
) -> Array | None:
    """The matrix of a product of the whole vector with what all examples share, `[in, out]`."""
    if step.eqn.primitive.name != "dot_general":
        return None
    (contracted, (left_batch, _)) = step.eqn.params["dimension_numbers"]
    side = 0 if step.inputs[0] == begin else 1
    other = step.inputs[1 - side]
    if left_batch or len(contracted[0]) != 1 or not _is_name(other) or other not in common:
        return None
    (axis,), weights = contracted[side], values[other]
    if shape[axis] != math.prod(shape) or not jnp.issubdtype(weights.dtype, jnp.floating):
        return None
    return jnp.moveaxis(weights, contracted[1 - side][0], 0).reshape(shape[axis], -1)


def _merged(segments: Sequence[Segment]) -> list[Segment]:
    """Element-wise functions that follow each other become one, and mere shifts a part of their neighbour."""
    merged: list[Segment] = []
    stages: list[list[Callable[[Array], Array]]] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if isinstance(last, Diagonal) and isinstance(segment, Diagonal):
            both = (last.is_shared and segment.is_shared, last.is_shift and segment.is_shift)
            merged[-1] = Diagonal(last.inputs, last.inputs, last.apply, *both)
        elif isinstance(last, Diagonal) and last.is_shift:
            merged[-1] = segment
        elif last is None or not (isinstance(segment, Diagonal) and segment.is_shift):
            merged.append(segment)
            stages.append([])
        stages[-1].append(segment.apply)
    return [segment._replace(apply=_one_after_another(s)) for segment, s in zip(merged, stages, strict=True)]


def _one_after_another(stages: Sequence[Callable[[Array], Array]]) -> Callable[[Array], Array]:
    def apply(v: Array) -> Array:
        for stage in stages:
            v = stage(v)
        return v

    return apply


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
