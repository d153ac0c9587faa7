"""Exact squared norms of Jacobians: the penalty of contractive autoencoders, and a measure of any code.

`jax.jacfwd` is the definition. The modes are the same number at different prices: `forward` pays for each input,
`reverse` for each output, and `auto` finds the structure of the function (`aejax.jacobian.segments`) and takes the
cheapest order of multiplication (`aejax.jacobian.chain`), to which both belong. For one dense layer that is the closed
form, `sum_j a'(u_j)^2 |kernel_:j|^2` (Rifai et al. 2011, section 5.3 there for the sigmoid); for a deep encoder it ends
in the Gram matrix of the first kernel; for a reconstruction it meets at the code. All are differentiable.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.checks import InputError, nearest
from aejax.jacobian import chain
from aejax.jacobian.functions import Function, checked
from aejax.jacobian.programs import count_vector
from aejax.jacobian.segments import Block, Diagonal, Linear, Segment, Trace, trace
from aejax.nets import Autoencoder, has_convolution, inputs

Array = jax.Array

MODES = ("forward", "reverse", "auto")

_COPIES = 3  # value, cotangent and a temporary of each number, as value and gradient need them
_LARGE = 2**24  # bytes: on CPU, examples that take more come one at a time, which keeps them in the cache


def check_mode(mode: str, *, modes: tuple[str, ...] = MODES) -> None:
    """Refuses a mode that is not among `modes`; `InputError` names those."""
    if mode not in modes:
        raise InputError(f"Unknown Jacobian mode {mode!r}. {nearest(mode, modes, what='modes')}")


def frobenius_sq(
    f: Function, x: Array, *own: Any, mode: str = "auto", batch_size: int = 1, memory_limit: int | None = None
) -> Array:
    """Squared Frobenius norm of the Jacobian of f at one example: the sum of its squared entries.

    Args:
      f: `(x, *own) -> [...]`, of any shape; what f closes over is taken to be common to all examples.
      x: float, one example; batches are the business of `vmap`, or of `encoder_sq`.
      own: arrays of any type that belong to the example: its label, its noise, its mask. The Jacobian is that by x
        alone, and `auto` does not share work that depends on them between examples.
      mode: `forward` (`jax.jacfwd`, the definition), `reverse`, or `auto`.
      batch_size: over how many examples the caller maps. `auto` weighs work that they share by it.
      memory_limit: bytes that value and gradient may take beyond arguments and results. Where it binds, rows
        (`reverse`) or columns (`forward`) come a few at a time, and the gradient computes them again.

    Returns:
      `()`; float32 where x is narrower. Not negative but for rounding: `auto` may go through Gram matrices, which
      lose digits where large parts of the Jacobian cancel (`aejax.jacobian.chain`); `reverse` does not.

    Raises:
      InputError: x, or what f returns, is not one array of real floating numbers; the mode is unknown; or the limit
        is too small for a single row or column.

    Example:
      >>> float(frobenius_sq(lambda x: x**2, jnp.array([1.0, 2.0])))  # the Jacobian is diag(2 x)
      20.0
      >>> scaled = lambda x, scale: scale * x
      >>> jax.vmap(lambda x, scale: frobenius_sq(scaled, x, scale, batch_size=2))(jnp.ones((2, 3)), jnp.arange(2.0))
      Array([0., 3.], dtype=float32)
    """
    return value_and_frobenius_sq(f, x, *own, mode=mode, batch_size=batch_size, memory_limit=memory_limit)[1]


def value_and_frobenius_sq(
    f: Function, x: Array, *own: Any, mode: str = "auto", batch_size: int = 1, memory_limit: int | None = None
) -> tuple[Array, Array]:
    """`f(x, *own)` and `frobenius_sq`; arguments and errors are those of `frobenius_sq`."""
    f = checked(f, x)
    return _take(_fit(f, (x, *own), mode, batch_size, 1, memory_limit)[0], f, (x, *own))


def explain(f: Function, x: Array, *own: Any, batch_size: int = 1) -> str:
    """What `auto` would do: an expression in the Jacobians between the nodes of the chain, 0 the input.

    `push` and `pull` lead a matrix forward and back through the outermost segment; `gram` is `M^T M`, `sandwich`
    `M^T G M`, `quadratic` the trace of `M G M^T`; `slope` is that of an element-wise segment.

    Example:
      >>> kernels = jnp.ones((9, 5)), jnp.ones((5, 2))
      >>> explain(lambda x: jnp.tanh(x @ kernels[0]) @ kernels[1], jnp.ones(9), batch_size=100)
      'quadratic 1(slope 1, hadamard 1(gram 2(kernel 2-3), gram 1(turned 0-1(kernel 0-1))))'
    """
    traced = trace(checked(f, x), x, *own)
    return str(chain.plan(traced.segments, batch_size)) if traced.segments else "nothing to multiply"


def encoder_sq(
    encoder: nn.Module, params: Any, x: Array, *, mode: str = "auto", memory_limit: int | None = None
) -> Array:
    """Squared Frobenius norm of the Jacobian of an encoder, at each example of a batch.

    Args:
      encoder: any module `[B, ...] -> [B, ...]` that treats each example by itself.
      params: its own, `params["encoder"]`.
      x: `[B, ...]` float.
      mode: one of `MODES`.
      memory_limit: bytes that value and gradient may take beyond arguments and results; examples come a few at a time
        where it binds, and the gradient computes them again.

    Returns:
      `[B]`.

    Raises:
      InputError: x, or what the module returns, is not one floating array; the mode is unknown; or the limit is too
        small.
    """
    return _over_batch(encoder.bind({"params": params}), x, mode=mode, memory_limit=memory_limit)[1]


def embedding_sq(
    model: Autoencoder, params: Any, x: Any, *, mode: str = "auto", memory_limit: int | None = None
) -> Array:
    """Squared Frobenius norm of the Jacobian of `model.embed`, the code without its noise, at each example.

    Its mean over examples is the metric `jacobian_sq`, the mean of its root `jacobian_norm`. Arguments, result and
    errors are those of `encoder_sq`, with the parameters by group; x may be a `Batch`, whose labels a conditioned
    model takes, and the Jacobian is that by x alone.
    """
    return embed_and_sq(model, params, x, mode=mode, memory_limit=memory_limit)[1]


def embed_and_sq(
    model: Autoencoder, params: Any, x: Any, *, mode: str = "auto", memory_limit: int | None = None
) -> tuple[Array, Array]:
    """The code, `[B, Z]`, and the squared Frobenius norm of its Jacobian, `[B]`, at each example, from one pass."""
    bound = model.bind({"params": params})
    return _over_batch(bound.embed, *inputs(model, x), mode=mode, memory_limit=memory_limit)


def reconstruction_sq(
    model: Autoencoder, params: Any, x: Any, *, mode: str = "auto", memory_limit: int | None = None
) -> Array:
    """Squared Frobenius norm of the Jacobian of `model.reconstruct`, `[B]`: of the whole loop, in data space."""
    bound = model.bind({"params": params})
    return _over_batch(bound.reconstruct, *inputs(model, x), mode=mode, memory_limit=memory_limit)[1]


def generated_sq(
    model: Autoencoder, params: Any, z: Array, *condition: Array, mode: str = "auto", memory_limit: int | None = None
) -> Array:
    """Squared Frobenius norm of the Jacobian of `model.generate` by the code, `[B]`, at codes `[B, Z]`.

    Of the mean in data space, not of what the likelihood takes. Errors are those of `encoder_sq`.
    """
    bound = model.bind({"params": params})
    return _over_batch(bound.generate, z, *condition, mode=mode, memory_limit=memory_limit)[1]


def embedding_difference_sq(model: Autoencoder, params: Any, x: Any, y: Any) -> Array:
    """Squared Frobenius distance between the Jacobians of `model.embed` at the examples of two batches.

    Args:
      model: any autoencoder.
      params: by group.
      x, y: `[B, ...]` float, or a `Batch` each, with labels of its own.

    Returns:
      `[B]`.
    """
    bound = model.bind({"params": params})
    return jax.vmap(partial(_difference, _single(bound.embed)))(inputs(model, x), inputs(model, y))


def difference_sq(f: Function, x: Array, y: Array, *own: Any) -> Array:
    """Squared Frobenius distance between the Jacobians of f at two points: the curvature term of the CAE+H.

    For one dense layer in closed form, `sum_j (a'(u_j) - a'(v_j))^2 |kernel_:j|^2`, else from both matrices.

    Args:
      f: `(x, *own) -> [...]`, of any shape.
      x, y: float, of the same shape.
      own: of the example, as in `frobenius_sq`, the same at both points.

    Returns:
      `()`.

    Raises:
      InputError: x, y, or what f returns, is not one array of real floating numbers.

    Example:
      >>> float(difference_sq(lambda x: x**2, jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])))  # diag(2 x)
      36.0
    """
    return _difference(f, (x, *own), (y, *own))


def _difference(f: Function, one: tuple[Array, ...], other: tuple[Array, ...]) -> Array:
    """`difference_sq` between two lists of arguments."""
    (x, *own), (y, *others) = one, other
    f = checked(checked(f, x), y)
    traced = trace(f, x, *own)
    if not traced.segments:
        return jnp.zeros((), chain.wide(x.dtype))
    layer, activation = traced.segments if len(traced.segments) == 2 else (None, None)
    if isinstance(layer, Linear) and isinstance(activation, Diagonal):
        change = _slope(traced, x) - _slope(trace(f, y, *others) if others else traced, y)
        lengths = chain.sum_sq(layer.kernel, axis=0)
        return jnp.matmul(jnp.square(change.astype(lengths.dtype)), lengths, precision=layer.precision)
    jacobian = jax.jacfwd(f) if _cheaper(traced) == "forward" else jax.jacrev(f)
    return chain.sum_sq(jacobian(*one) - jacobian(*other))


def _slope(traced: Trace, x: Array) -> Array:
    """Of the activation of a single layer."""
    layer, activation = traced.segments
    u = layer.apply(x.reshape(-1))
    return jax.jvp(activation.apply, (u,), (jnp.ones_like(u),))[1]


def _single(f: Function) -> Function:
    """A function of batches as one of a single example."""

    def one(*arguments: Any) -> Array:
        return f(*jax.tree.map(lambda v: v[None], arguments))[0]

    return one


def _over_batch(
    f: Function, x: Array, *own: Any, mode: str = "auto", memory_limit: int | None = None
) -> tuple[Array, Array]:
    """A function of batches that treats each example by itself, and the squared norm of its Jacobian at each.

    Args:
      f: `(x, *own) -> [B, ...]`.
      x: `[B, ...]` float.
      own: `[B, ...]` each.
      mode: one of `MODES`.
      memory_limit: as in `encoder_sq`.

    Returns:
      `f(x, *own)`, and `[B]`.

    Raises:
      InputError: as in `encoder_sq`.
    """
    f = checked(f, x)
    one, batch, size = _single(f), (x, *own), len(x)
    if not size:
        return f(*batch), jnp.zeros(0, chain.wide(x.dtype))
    first = jax.tree.map(lambda v: v[0], batch)
    way, at_once = _fit(one, first, mode, size, size, memory_limit)
    if way.each >= _LARGE and jax.default_backend() == "cpu" and not has_convolution(one, *first):
        at_once = 1

    def each(example: tuple[Any, ...]) -> tuple[Array, Array]:
        at = way._replace(traced=trace(one, *example)) if own and way.traced is not None else way
        return _take(at, one, example)

    return jax.vmap(each)(batch) if at_once == size else jax.lax.map(jax.checkpoint(each), batch, batch_size=at_once)


class _Way(NamedTuple):
    """How a norm is computed, and what value and gradient hold meanwhile, rather more than less."""

    mode: str
    traced: Trace | None = None
    term: chain.Term | None = None
    at_once: int | None = None  # rows or columns; all where None
    each: int = 0  # bytes for one example
    common: int = 0  # bytes for all examples together


def _fit(
    f: Function, example: Sequence[Any], mode: str, batch_size: int, count: int, memory_limit: int | None
) -> tuple[_Way, int]:
    """The cheapest way that a limit on the bytes of `count` examples allows, and how many of them go at a time."""
    check_mode(mode)
    if mode != "auto" and memory_limit is None:
        return _Way(mode), count
    traced = trace(f, *example)
    if not traced.segments:
        return _Way("auto", traced), count
    if memory_limit is None:
        return _choose(traced, mode, batch_size, math.inf), count
    traced = traced._replace(segments=_weighed(traced.segments, example[0]))
    way = _choose(traced, mode, batch_size, math.inf)
    if way.common + count * way.each <= memory_limit:
        return way, count
    # A loop keeps the results of all, and adds up the gradient of what they share.
    results = 2 * traced.itemsize * (traced.segments[0].inputs + traced.segments[-1].outputs)
    left = memory_limit - 2 * traced.fixed - count * results
    way = _choose(traced, mode, batch_size, left)
    return way, max(1, min(count, (left - way.common) // way.each))


def _choose(traced: Trace, mode: str, batch_size: int, limit: float) -> _Way:
    """The cheapest way within a limit on the bytes of one example and of what is common to all."""
    segments, unit, own = traced.segments, _COPIES * traced.itemsize, _COPIES * traced.own
    most = limit - own
    numbers = sum(s.elements if isinstance(s, Block) else s.inputs + s.outputs for s in segments)
    if mode == "auto":
        term = chain.plan(segments, batch_size, most / unit - 2 * numbers)
        each, common = unit * (2 * numbers + term.numbers), unit * term.common
        if each + common <= most:
            return _Way("auto", traced, term, each=each + own, common=common)
        mode = _cheaper(traced)
    vectors = segments[0].inputs if mode == "forward" else segments[-1].outputs
    if unit * numbers * (1 + vectors) <= most:
        return _Way(mode, traced, each=unit * numbers * (1 + vectors) + own)
    at_once = int(most // (unit * numbers)) - 1
    if at_once < 1:
        what = "row" if mode == "reverse" else "column"
        raise InputError(
            f"memory_limit leaves {max(0, int(most))} bytes for one example; a single {what} of its Jacobian needs"
            f" {2 * unit * numbers}. Allow at least {2 * unit * numbers - int(most)} bytes more."
        )
    at_once = -(-vectors // -(-vectors // at_once))  # in chunks of about one size
    return _Way(mode, traced, at_once=at_once, each=unit * numbers * (1 + at_once) + own)


def _weighed(segments: Sequence[Segment], x: Array) -> tuple[Segment, ...]:
    """The segments, with the numbers that blocks compute for a vector where those are more than for the value."""
    weighed, at = [], jax.ShapeDtypeStruct((x.size,), x.dtype)
    for segment in segments:
        if isinstance(segment, Block):
            numbers = count_vector(segment.apply, at, backward=segment.has_vjp)
            segment = segment._replace(elements=max(segment.elements, numbers))
        weighed.append(segment)
        at = jax.eval_shape(segment.apply, at)
    return tuple(weighed)


def _cheaper(traced: Trace) -> str:
    """Of forward and reverse mode, which cost about as much for each input as for each output, one that is open."""
    blocks = [segment for segment in traced.segments if isinstance(segment, Block)]
    if not all(block.has_vjp for block in blocks):
        return "forward"
    is_reverse = traced.segments[-1].outputs <= traced.segments[0].inputs
    return "reverse" if is_reverse or not all(block.has_jvp for block in blocks) else "forward"


def _take(way: _Way, f: Function, example: Sequence[Any]) -> tuple[Array, Array]:
    """`f(x, *own)` and the squared norm."""
    traced, (x, *own) = way.traced, example
    if way.term is not None:
        assert traced is not None
        y, norm = chain.evaluate(way.term, traced.segments, x.reshape(-1))
        return traced.finish(y), norm
    if way.mode == "auto":
        assert traced is not None
        return f(*example), jnp.full((), 0 if traced.is_constant else x.size, chain.wide(x.dtype))
    if way.at_once is not None:
        return f(*example), _by_chunks(lambda v: f(v, *own), x, way.mode, way.at_once)
    twice = lambda v: (f(v, *own),) * 2
    jacobian, y = (jax.jacfwd if way.mode == "forward" else jax.jacrev)(twice, has_aux=True)(x)
    return y, chain.sum_sq(jacobian)


def _by_chunks(f: Function, x: Array, mode: str, at_once: int) -> Array:
    """The sum over rows or columns, a few at a time; the gradient computes each chunk again."""
    size = x.size if mode == "forward" else jax.eval_shape(f, x).size

    @jax.checkpoint
    def chunk(start: Array) -> Array:
        basis = jax.nn.one_hot(start + jnp.arange(at_once), size, dtype=x.dtype)  # zero beyond the last
        if mode == "forward":
            along = lambda v: jax.jvp(f, (x,), (v.reshape(x.shape),))[1]
        else:
            y, back = jax.vjp(f, x)
            along = lambda v: back(v.reshape(y.shape).astype(y.dtype))[0]
        return chain.sum_sq(jax.vmap(along)(basis))

    return jax.lax.map(chunk, jnp.arange(0, size, at_once)).sum()
