"""Estimates of the squared norm of a Jacobian, for functions whose Jacobian is too dear to form.

`|J|_F^2` is the trace of `A = J J^T`, or of `J^T J`, and `v^T A v` has this trace as its mean over random v whose
covariance is the identity (Hutchinson, 1990). It costs one product, since it is `|J^T v|^2`, or `|J v|^2`.
Everything is about one example; batches are the business of `vmap`, with one key an example.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from aejax.checks import InputError, nearest
from aejax.jacobian.chain import sum_sq, wide
from aejax.jacobian.functions import Function, flat, push

Array = jax.Array

PROBES = ("gaussian", "rademacher", "sphere", "orthogonal")


class Estimate(NamedTuple):
    """An unbiased estimate and how far it may be off."""

    value: Array
    """`()`, not negative."""
    standard_error: Array
    """`()`, its square an unbiased estimate of the variance of `value`; NaN where one probe cannot tell. A measure:
    it has no derivative."""


def hutchinson_sq(
    f: Function,
    x: Array,
    key: Array,
    *own: Any,
    num_probes: int = 1,
    probe: str = "rademacher",
    mode: str = "reverse",
) -> Estimate:
    """Squared Frobenius norm of the Jacobian of f at one example, estimated from a few products with it.

    The mean of `v^T A v` over the probes v, unbiased from one probe on; so is its gradient, for the probes do not
    depend on f. With C the size of A, that is of the output (`reverse`) or of the input (`forward`), the variance of
    one probe is

      gaussian    `2 tr(A^2)`
      rademacher  `2 (tr(A^2) - sum_i A_ii^2)`
      sphere      `2 C / (C + 2) tr(A^2) - 2 / (C + 2) tr(A)^2`

    and that of the mean is an m-th of it. Orthogonal probes, the first m columns of a random orthogonal matrix, are
    each a probe on the sphere, but their mean has `(C - m) / (C - 1)` times the variance: the sum over all columns is
    the trace, so they sample without replacement, and m = C is exact. The factor `(C - m) / C` of a finite population
    (with its variance estimated with m - 1) makes their standard error right.

    Args:
      f: `(x, *own) -> [...]`, of any shape.
      x: float, one example.
      key: consumed.
      own: further arguments of f, which are held.
      num_probes: m; all are multiplied at once, so memory grows with it.
      probe: `gaussian`, `rademacher` (signs), `sphere` (uniform, of length `sqrt(C)`) or `orthogonal`.
      mode: `reverse`, probes of the output through `vjp`; or `forward`, probes of the input through `jvp`.

    Raises:
      InputError: x, or what f returns, is not one array of real floating numbers; unknown probe or mode, fewer than one
        probe, or more orthogonal probes than C.

    Example:
      >>> hutchinson_sq(lambda x: x**2, jnp.array([1.0, 2.0]), jax.random.key(0)).value  # signs: exact on diagonals
      Array(20., dtype=float32)

    Reference: Hutchinson (1990); Hoffman, Roberts & Yaida (2019), Algorithm 1, is `sphere` with `reverse` (there for
    classifiers); orthogonal frames as in Choromanski, Rowland & Weller (2017).
    """
    if probe not in PROBES:
        raise InputError(f"Unknown probe {probe!r}. {nearest(probe, PROBES, what='probes')}")
    if num_probes < 1:
        raise InputError(f"num_probes is {num_probes}; it takes at least one.")
    f, x = flat(f, x, *own)
    product, side = _one_sided(f, x, mode)
    if probe == "orthogonal" and num_probes > side.size:
        raise InputError(
            f"{num_probes} orthogonal probes do not fit into {side.size} dimensions, where {side.size} are exact."
            " Take fewer, or frobenius_sq."
        )
    samples = _squares(product, _draw(key, probe, num_probes, side))
    is_frame = probe == "orthogonal"
    return Estimate(jnp.mean(samples), _standard_error(samples, population=side.size if is_frame else None))


def hutchpp_sq(f: Function, x: Array, key: Array, *own: Any, num_probes: int, mode: str = "reverse") -> Estimate:
    """Squared Frobenius norm of the Jacobian of f at one example: exact on its leading directions, sampled elsewhere.

    With S Gaussian, G of random signs and Q an orthonormal basis of the columns of `A S`, the estimate is

      tr(Q^T A Q) + mean_i |(I - Q Q^T) g_i|_A^2,   |v|_A^2 = v^T A v.

    It is exact where the rank of J is no more than the columns of S. For every Q that does not depend on G it is
    unbiased, hence so is its gradient with Q held fixed, and this is the gradient it has.

    Products are counted as in `hutchinson_sq`, with J or its transpose. A quarter of the products, rounded down, is the
    number of columns of S, each of which takes two, and a third on its column of Q; the rest are for G. (Algorithm 1
    counts products with A, and gives a third to each of `A S`, `A Q` and `A G`; with J at hand the last two cost half.
    S has random signs there. In few dimensions its columns would often be the same.)

    Args:
      f: `(x, *own) -> [...]`, of any shape.
      x: float, one example.
      key: consumed.
      own: further arguments of f, which are held.
      num_probes: products with J or its transpose, at least 4; from 5 on there is a standard error, since it comes
        from the columns of G.
      mode: `reverse`, where A is `J J^T`, or `forward`, where it is `J^T J`; each takes `jvp` and `vjp` both.

    Raises:
      InputError: x, or what f returns, is not one array of real floating numbers; unknown mode, fewer than 4 products,
        or so many that Q would be larger than J.

    Example:
      >>> f = lambda x: jnp.full(5, x.sum())  # a Jacobian of rank one: 5 x 3 ones
      >>> round(float(hutchpp_sq(f, jnp.zeros(3), jax.random.key(0), num_probes=4).value), 4)
      15.0

    Reference: Meyer, Musco, Musco & Woodruff (2021), Hutch++, Algorithm 1.
    """
    f, x = flat(f, x, *own)
    product, side = _one_sided(f, x, mode)
    back, _ = _one_sided(f, x, "forward" if mode == "reverse" else "reverse")
    most = min(x.size, jax.eval_shape(f, x).size)
    num_sketch = num_probes // 4
    if not 1 <= num_sketch <= most:
        raise InputError(
            f"num_probes is {num_probes}; it has to be from 4 to {4 * most + 3}, with a quarter of them for a basis of"
            f" at most {most} vectors. The exact norm costs {most}: frobenius_sq."
        )
    sketch_key, rest_key = jax.random.split(key)
    sketch = jax.vmap(lambda v: back(product(v)))(_draw(sketch_key, "gaussian", num_sketch, side))
    sketch = jax.lax.stop_gradient(sketch)
    basis = jnp.linalg.qr(sketch.T.astype(wide(sketch.dtype)))[0].astype(sketch.dtype)  # [C, num_sketch]
    rest = _draw(rest_key, "rademacher", num_probes - 3 * num_sketch, side)
    samples = _squares(product, rest - (rest @ basis) @ basis.T)
    value = jnp.sum(_squares(product, basis.T)) + jnp.mean(samples)
    return Estimate(value, _standard_error(samples))


def _one_sided(
    f: Callable[[Array], Array], x: Array, mode: str
) -> tuple[Callable[[Array], Array], jax.ShapeDtypeStruct]:
    """Multiplication by J^T or J, and what it multiplies."""
    if mode == "reverse":
        out, pullback = jax.vjp(f, x)
        return lambda v: pullback(v)[0], jax.ShapeDtypeStruct(out.shape, out.dtype)
    if mode == "forward":
        return push(f, x), jax.ShapeDtypeStruct(x.shape, x.dtype)
    raise InputError(f"Unknown mode {mode!r}. {nearest(mode, ('forward', 'reverse'), what='modes')}")


def _draw(key: Array, probe: str, num: int, side: jax.ShapeDtypeStruct) -> Array:
    """`[num, C]`, each row with the identity as its second moments."""
    if probe == "rademacher":
        return jax.random.rademacher(key, (num, side.size), side.dtype)
    v = jax.random.normal(key, (num, side.size), wide(side.dtype))
    if probe == "gaussian":
        return v.astype(side.dtype)
    if probe == "sphere":
        return (v * jnp.sqrt(side.size / jnp.sum(jnp.square(v), axis=1, keepdims=True))).astype(side.dtype)
    # Haar but for the signs of the columns, which no quadratic form sees.
    return (jnp.sqrt(side.size).astype(v.dtype) * jnp.linalg.qr(v.T)[0].T).astype(side.dtype)


def _squares(product: Callable[[Array], Array], vectors: Array) -> Array:
    return jax.vmap(lambda v: sum_sq(product(v)))(vectors)


def _standard_error(samples: Array, population: int | None = None) -> Array:
    """Of the mean of `[m]` samples; drawn without replacement if there is a population."""
    samples, m = jax.lax.stop_gradient(samples), samples.size
    if m == population:
        return jnp.zeros_like(samples[0])
    if m == 1:
        return jnp.full_like(samples[0], jnp.nan)
    rest = 1.0 if population is None else (population - m) / population
    return jnp.sqrt(jnp.var(samples, ddof=1) * (rest / m))
