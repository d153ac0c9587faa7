"""The squared norm of a product of Jacobians, in the cheapest order of multiplication.

With `J = J_n ... J_1` there are many ways to `|J|^2`: from the input (forward mode), from the output (reverse mode),
out from a bottleneck, or through Gram matrices, `|X Y|^2 = <X^T X, Y Y^T>`, which are as small as the place where the
chain is cut. Kernels are common to all examples, and so are their products and Gram matrices. `plan` finds the cheapest
expression by dynamic programming over the intervals of the chain, from sizes alone, before anything is compiled. In a
chain of more than `_REACH` segments, intervals that touch neither end are at most that long.

A Gram matrix squares what it is made of: where X and Y nearly cancel, the norm has a relative error of about
`eps |X|^2 |Y|^2 / |X Y|^2`, and where one is beyond the root of the largest float (1.8e19 in float32), though their
product is not, it is not finite. Reverse mode has neither fault.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from aejax.jacobian.programs import highest
from aejax.jacobian.segments import Block, Diagonal, Linear, Segment
from aejax.precision import wide

Array = jax.Array

# In multiplications of a large matrix product, as timed on two CPU cores; the order of magnitude is what counts.
_MOVE = 25.0  # to compute or to copy one number
_BATCHED = 3.0  # a multiplication in a product of two matrices that each example has for itself

# Value and gradient of a product cost three products. A Gram matrix and a quadratic form are symmetric: they cost two.
_PRODUCT, _SYMMETRIC = 3, 2

_REACH = 32  # planning takes time in proportion to the segments, and to the square of this


class Term(NamedTuple):
    """An expression in the Jacobians of a chain.

    Node 0 of a chain is its input, node k what segment k returns. A matrix at `i-j` is the Jacobian of node j with
    respect to node i, `[size of j, size of i]`.
    """

    how: str
    place: tuple[int, ...]
    parts: tuple["Term", ...]
    each: float  # cost for each example, parts included
    once: float  # cost for all examples together, parts included
    numbers: int  # that each example holds, parts included
    common: int  # numbers held for all examples together
    is_shared: bool  # whether it is the same for every example

    def __str__(self) -> str:
        texts: dict[int, str] = {}
        for term in self.in_order():
            inside = f"({', '.join(texts[id(part)] for part in term.parts)})" if term.parts else ""
            texts[id(term)] = f"{term.how} {'-'.join(map(str, term.place))}{inside}"
        return texts[id(self)]

    def in_order(self) -> list["Term"]:
        """The term and all its parts, each once, parts before what they are parts of."""
        order: dict[int, Term] = {}
        waiting = [self]
        while waiting:
            missing = [part for part in waiting[-1].parts if id(part) not in order]
            if missing:
                waiting.extend(missing[::-1])
            else:
                term = waiting.pop()
                order[id(term)] = term
        return list(order.values())


def _term(
    how: str, place: tuple[int, ...], *parts: Term, work: float = 0, numbers: int = 0, varies: bool = False
) -> Term:
    is_shared = not varies and all(part.is_shared for part in parts)
    own = work + _PRODUCT * _MOVE * numbers
    each = sum(part.each for part in parts) + (0 if is_shared else own)
    once = sum(part.once for part in parts) + (own if is_shared else 0)
    held = sum(part.numbers for part in parts) + (0 if is_shared else numbers)
    common = sum(part.common for part in parts) + (numbers if is_shared else 0)
    return Term(how, place, parts, each, once, held, common, is_shared)


def plan(segments: Sequence[Segment], batch_size: int = 1, most: float = math.inf) -> Term:
    """The cheapest expression for the squared norm of the Jacobian of a chain.

    Args:
      segments: at least one.
      batch_size: how many examples share what is common to all.
      most: numbers that it may hold for one example and for all together, if any expression that is considered does
        with so few.

    Returns:
      What `evaluate` evaluates; `str` shows it.
    """
    nodes, last = [segments[0].inputs, *(segment.outputs for segment in segments)], len(segments)

    def cost(term: Term) -> float:
        return term.each + term.once / batch_size

    def cheapest(*terms: Term) -> Term:
        return min(terms, key=cost)

    whole = {(k, k): _term("identity", (k, k)) for k in range(last + 1)}
    # Of whole: what each costs (nothing has it where it is not planned), and how fast it multiplies.
    price, is_shared = np.full((last + 1, last + 1), math.inf), np.ones((last + 1, last + 1), bool)
    np.fill_diagonal(price, 0)
    sizes = np.array(nodes, float)
    for length in range(1, last + 1):
        for i in range(last + 1 - length) if length <= _REACH else sorted({0, last - length}):
            j = i + length
            ways = []
            if (i, j - 1) in whole:
                ways.append(_apply("push", (i, j), segments[j - 1], whole[i, j - 1], nodes[i]))
            if (i + 1, j) in whole:
                ways.append(_apply("pull", (i, j), segments[i], whole[i + 1, j], nodes[j]))
            if length > 1:
                inner = np.arange(i + 1, j)
                rate = np.where(is_shared[inner, j] | is_shared[i, inner], 1.0, _BATCHED)
                work = _PRODUCT * rate * sizes[i] * sizes[inner] * sizes[j] + price[inner, j] + price[i, inner]
                k = int(inner[work.argmin()])
                if (i, k) in whole and (k, j) in whole:
                    ways.append(_product((i, j), whole[k, j], whole[i, k], nodes[j], nodes[k], nodes[i]))
            best = cheapest(*ways)
            whole[i, j], price[i, j], is_shared[i, j] = best, cost(best), best.is_shared

    def nearest(k: int, grams: dict[int, Term], place: Callable[[int], tuple[int, int]]) -> list[int]:
        """Of the nodes that have a Gram matrix, the one from which that of node k is cheapest."""
        if not grams:
            return []
        others, matrices = list(grams), tuple(np.array([place(i) for i in grams]).T)
        first = np.where(is_shared[matrices] | [gram.is_shared for gram in grams.values()], 1.0, _BATCHED)
        second = np.where(is_shared[matrices], 1.0, _BATCHED)
        inner, outer = sizes[others], sizes[k]
        work = 2 * first * outer * inner**2 + _PRODUCT * second * inner * outer**2
        best = (work + price[matrices] + [cost(gram) for gram in grams.values()]).argmin()
        return [others[best]] if (matrices[0][best], matrices[1][best]) in whole else []

    behind: dict[int, Term] = {}  # P P^T, of the Jacobian P from the input to a node
    for k in range(1, last):
        ways = [_gram(k, _turned(whole[0, k]), nodes[0], nodes[k])]
        for i in nearest(k, behind, lambda i: (i, k)):  # noqa: B023, called at once
            ways.append(_sandwich((i, k), _turned(whole[i, k]), behind[i], nodes[i], nodes[k]))
        behind[k] = cheapest(*ways)
    ahead: dict[int, Term] = {}  # P^T P, of the Jacobian P from a node to the output
    for k in reversed(range(1, last)):
        ways = [_gram(k, whole[k, last], nodes[last], nodes[k])]
        for j in nearest(k, ahead, lambda j: (k, j)):  # noqa: B023, called at once
            ways.append(_sandwich((k, j), whole[k, j], ahead[j], nodes[j], nodes[k]))
        ahead[k] = cheapest(*ways)

    ways = [_term("norm", (0, last), whole[0, last], numbers=nodes[0] * nodes[last])]
    for k in range(1, last):
        ways.append(_quadratic(k, whole[k, last], behind[k], nodes[last], nodes[k]))
        ways.append(_quadratic(k, _turned(whole[0, k]), ahead[k], nodes[0], nodes[k]))
        ways.append(_term("between", (k,), ahead[k], behind[k], numbers=nodes[k] ** 2))
    for k, segment in enumerate(segments):
        if not isinstance(segment, Diagonal):
            continue
        size, slope = nodes[k], _term("slope", (k,), varies=not segment.is_shared)
        if 0 < k < last - 1:
            both = _term("hadamard", (k,), ahead[k + 1], behind[k], numbers=size**2)
            ways.append(_quadratic(k, slope, both, 1, size))
        if k == last - 1:
            lengths = _term("row_lengths", (0, k), whole[0, k], numbers=nodes[0] * size)
            ways.append(_term("weigh", (k,), slope, lengths, numbers=size))
        if k == 0:
            lengths = _term("column_lengths", (1, last), whole[1, last], numbers=nodes[last] * size)
            ways.append(_term("weigh", (k,), slope, lengths, numbers=size))
    return cheapest(*([way for way in ways if way.numbers + way.common <= most] or ways))


def _apply(how: str, place: tuple[int, int], segment: Segment, matrix: Term, vectors: int) -> Term:
    """The columns of a matrix pushed through a segment, or its rows pulled back."""
    size = vectors * (segment.outputs if how == "push" else segment.inputs)
    if isinstance(segment, Diagonal):
        return _term(how, place, matrix, numbers=size, varies=not segment.is_shared)
    if isinstance(segment, Block):
        is_open = segment.has_vjp if how == "pull" else segment.has_jvp
        work = _PRODUCT * vectors * segment.products if is_open else math.inf
        numbers = vectors * segment.elements
        return _term(how, place, matrix, work=work, numbers=numbers, varies=not segment.is_shared)
    if matrix.how == "identity":
        return _term("kernel", place)
    work = _PRODUCT * vectors * segment.inputs * segment.outputs
    return _term(how, place, matrix, work=work, numbers=size)


def _product(place: tuple[int, ...], x: Term, y: Term, rows: int, size: int, columns: int) -> Term:
    work = _PRODUCT * _rate(x, y) * rows * size * columns
    return _term("product", place, x, y, work=work, numbers=rows * columns)


def _turned(matrix: Term) -> Term:
    return _term("turned", matrix.place, matrix)


def _gram(k: int, rows: Term, vectors: int, size: int) -> Term:
    """`M^T M`, of `[vectors, size]`."""
    work = _SYMMETRIC * _rate(rows) * vectors * size**2
    return _term("gram", (k,), rows, work=work, numbers=size**2)


def _sandwich(place: tuple[int, int], rows: Term, gram: Term, inner: int, outer: int) -> Term:
    """`M^T G M`, of `[inner, outer]` and `[inner, inner]`."""
    work = 2 * _rate(rows, gram) * outer * inner**2 + _PRODUCT * _rate(rows) * inner * outer**2
    return _term("sandwich", place, rows, gram, work=work, numbers=outer * (inner + outer))


def _quadratic(k: int, rows: Term, gram: Term, vectors: int, size: int) -> Term:
    work = _SYMMETRIC * _rate(rows, gram) * vectors * size**2
    return _term("quadratic", (k,), rows, gram, work=work, numbers=vectors * size)


def _rate(*parts: Term) -> float:
    return 1.0 if any(part.is_shared for part in parts) else _BATCHED


def evaluate(term: Term, segments: Sequence[Segment], x: Array) -> tuple[Array, Array]:
    """What a chain returns, and the squared norm of its Jacobian.

    Args:
      term: of `plan`, for these segments.
      segments: the chain.
      x: `[segments[0].inputs]` float.

    Returns:
      `[segments[-1].outputs]`; and `()`, not negative, float32 or wider.
    """
    values, slopes = [x], {}
    for k, segment in enumerate(segments):
        if isinstance(segment, Diagonal):
            y, slopes[k] = jax.jvp(segment.apply, (values[-1],), (jnp.ones_like(values[-1]),))
        else:
            y = segment.apply(values[-1])
        values.append(y)
    precision = highest(segment.precision for segment in segments if not isinstance(segment, Diagonal))
    done: dict[int, Any] = {}
    for part in term.in_order():
        matrices = [done[id(inner)] for inner in part.parts]
        done[id(part)] = _compute(part, matrices, segments, values, slopes, precision)
    return values[-1], _not_negative(done[id(term)])


@jax.custom_jvp
def _not_negative(norm: Array) -> Array:
    """`max(norm, 0)`, whose slope at zero is one, not a half: the norm is below zero by rounding only."""
    return jnp.maximum(norm, 0)


@_not_negative.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (norm,), (moved,) = primals, tangents
    clamped, one = _not_negative(norm), jnp.ones_like(norm)
    # A quotient, as in the rule of `maximum`: a plain mask is compiled to gradients that differ in their last bits.
    return clamped, moved * (jnp.where(norm == clamped, one, 0) / jnp.where(norm < 0, 2 * one, one))


def _compute(
    term: Term,
    parts: list[Any],
    segments: Sequence[Segment],
    values: Sequence[Array],
    slopes: dict[int, Array],
    precision: Any,
) -> Any:
    first, last = term.place[0], term.place[-1]
    match term.how:
        case "identity":
            return None
        case "kernel":
            return segments[first].kernel.T  # type: ignore[union-attr]
        case "slope":
            return slopes[first]
        case "push":
            return _push(segments[last - 1], values[last - 1], slopes.get(last - 1), *parts)
        case "pull":
            return _pull(segments[first], values[first], slopes.get(first), *parts)
        case "product":
            return jnp.matmul(*parts, precision=precision)
        case "gram":
            return _gram_matrix(parts[0], precision)
        case "sandwich":
            return _sandwiched(parts[0].astype(parts[1].dtype), parts[1], precision)
        case "turned":
            return parts[0].T
        case "hadamard":
            return parts[0] * parts[1]
        case "row_lengths" if parts[0] is None:
            return jnp.ones_like(slopes[last], wide(slopes[last].dtype))
        case "row_lengths" if term.parts[0].how == "kernel":
            return sum_sq(parts[0].T, axis=0)  # the kernel as it lies in memory, which is several times faster
        case "row_lengths":
            return sum_sq(parts[0], axis=1)
        case "column_lengths":
            return sum_sq(parts[0], axis=0)
        case "norm":
            return sum_sq(parts[0])
        case "between":
            return jnp.sum(parts[0] * parts[1])
        case "weigh":
            return jnp.matmul(jnp.square(parts[0].astype(parts[1].dtype)), parts[1], precision=precision)
        case "quadratic":
            return _quadratic_form(jnp.atleast_2d(parts[0]).astype(parts[1].dtype), parts[1], precision)
    raise AssertionError(term.how)


def sum_sq(x: Array, axis: int | None = None) -> Array:
    """Sum of squares, in float32 or wider."""
    return jnp.sum(jnp.square(x.astype(wide(x.dtype))), axis=axis)


def _push(segment: Segment, x: Array, slope: Array | None, matrix: Array | None) -> Array:
    """The Jacobian of a segment times the columns of a matrix; None is the identity."""
    if isinstance(segment, Linear):
        assert matrix is not None
        kernel = segment.kernel.astype(matrix.dtype)
        product = lax.dot_general(matrix, kernel, (((0,), (0,)), ((), ())), **_as_exact(segment, matrix))
        return product.T
    if slope is not None:
        return jnp.diag(slope) if matrix is None else slope[:, None].astype(matrix.dtype) * matrix
    columns = jnp.eye(len(x), dtype=x.dtype) if matrix is None else matrix.astype(x.dtype)
    return jax.vmap(lambda t: jax.jvp(segment.apply, (x,), (t,))[1], in_axes=1, out_axes=1)(columns)


def _pull(segment: Segment, x: Array, slope: Array | None, matrix: Array | None) -> Array:
    """The rows of a matrix times the Jacobian of a segment."""
    if isinstance(segment, Linear):
        assert matrix is not None
        return jnp.matmul(matrix, segment.kernel.T.astype(matrix.dtype), **_as_exact(segment, matrix))
    if slope is not None:
        return jnp.diag(slope) if matrix is None else matrix * slope[None].astype(matrix.dtype)
    y, back = jax.vjp(segment.apply, x)
    rows = jnp.eye(len(y), dtype=y.dtype) if matrix is None else matrix.astype(y.dtype)
    return jax.vmap(lambda t: back(t)[0])(rows)


def _as_exact(layer: Linear, matrix: Array) -> dict[str, Any]:
    """Of a product of a matrix with the kernel of a layer: what makes it as exact as the layer's own."""
    preferred = None if layer.preferred is None else jnp.promote_types(matrix.dtype, layer.preferred)
    return {"precision": layer.precision, "preferred_element_type": preferred}


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _gram_matrix(matrix: Array, precision: Any) -> Array:
    """`matrix.T @ matrix`."""
    return jnp.matmul(matrix.T, matrix, precision=precision, preferred_element_type=wide(matrix.dtype))


@_gram_matrix.defjvp
def _(precision: Any, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (matrix,), (moved,) = primals, tangents
    half = jnp.matmul(matrix.T, moved, precision=precision, preferred_element_type=wide(matrix.dtype))
    return _gram_matrix(matrix, precision), half + half.T  # its transpose is a single product


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _sandwiched(matrix: Array, gram: Array, precision: Any) -> Array:
    """`matrix.T @ gram @ matrix` for a symmetric matrix."""
    times = partial(jnp.matmul, precision=precision)
    return times(times(gram, matrix).T, matrix)


@_sandwiched.defjvp
def _(precision: Any, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (matrix, gram), (moved, changed) = primals, tangents
    times = partial(jnp.matmul, precision=precision)
    product = times(gram, matrix)
    half = times(product.T, moved)
    return times(product.T, matrix), half + half.T + times(matrix.T, times(changed, matrix))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _quadratic_form(rows: Array, gram: Array, precision: Any) -> Array:
    """`trace(rows @ gram @ rows.T)` for a symmetric matrix."""
    return jnp.sum(jnp.matmul(rows, gram, precision=precision) * rows)


@_quadratic_form.defjvp
def _(precision: Any, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (rows, gram), (moved, changed) = primals, tangents
    times = partial(jnp.matmul, precision=precision)
    product = times(rows, gram)  # serves the value, and the gradient of the rows
    return jnp.sum(product * rows), 2 * jnp.sum(product * moved) + jnp.sum(times(rows, changed) * rows)
