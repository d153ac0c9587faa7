"""The Jacobian as a matrix: its entries, its singular values and vectors, and its largest singular value alone.

Everything is about one example; batches are the business of `vmap`. Inputs and outputs of any shape are flattened in
the order of `reshape`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax.checks import InputError
from aejax.jacobian.functions import Function, checked, flat, frozen, push
from aejax.jacobian.programs import has_jvp, has_vjp

Array = jax.Array


class SVD(NamedTuple):
    """`J = u @ diag(s) @ vh`, or its K leading terms."""

    u: Array
    """`[M, K]`, directions of the output."""
    s: Array
    """`[K]`, descending, not negative."""
    vh: Array
    """`[K, N]`, directions of the input, as rows."""


def jacobian(f: Function, x: Array, *own: Any) -> Array:
    """The Jacobian of f at one example as a matrix, by the cheaper of forward and reverse mode.

    Args:
      f: `(x, *own) -> [...]`, from N numbers to M, in any two shapes.
      x: float, one example.
      own: further arguments of f, which are held.

    Returns:
      `[M, N]`.

    Raises:
      InputError: x, or what f returns, is not one array of real floating numbers.

    Example:
      >>> jacobian(lambda x: jnp.stack([x[0] * x[1], x[0] ** 2, 3 * x[1]]), jnp.array([2.0, 5.0])).tolist()
      [[5.0, 2.0], [4.0, 0.0], [0.0, 3.0]]
    """
    f, x = flat(f, x, *own)
    program = jax.make_jaxpr(f)(x)
    is_reverse = program.out_avals[0].size <= x.size or not has_jvp(program.eqns)
    return jax.jacrev(f)(x) if is_reverse and has_vjp(program.eqns) else jax.jacfwd(f)(x)


def svd(f: Function, x: Array, *own: Any, k: int | None = None) -> SVD:
    """Singular value decomposition of the Jacobian of f at one example.

    Differentiable in the vectors only where the singular values differ; in the values alone, use `singular_values`.

    Args:
      f, x, own: as in `jacobian`.
      k: how many leading terms to return; all `min(M, N)` by default.

    Raises:
      InputError: as in `jacobian`, or k is not between 1 and `min(M, N)`.
    """
    u, s, vh = jnp.linalg.svd(jacobian(f, x, *own), full_matrices=False)
    if k is not None and not 1 <= k <= s.size:
        raise InputError(f"k is {k}; this Jacobian has {s.size} singular values, so k has to be from 1 to {s.size}.")
    return SVD(u[:, :k], s[:k], vh[:k])


def singular_values(f: Function, x: Array, *own: Any) -> Array:
    """Singular values of the Jacobian of f at one example, `[min(M, N)]`, descending; as `jacobian` otherwise.

    Example:
      >>> singular_values(lambda x: x * jnp.array([3.0, -4.0]), jnp.ones(2)).tolist()
      [4.0, 3.0]
    """
    return jnp.linalg.svd(jacobian(f, x, *own), compute_uv=False)


def spectral_norm(f: Function, x: Array, v: Array, *own: Any, num_iters: int = 1) -> tuple[Array, Array]:
    """The largest singular value of the Jacobian of f at one example, by power iteration on `J^T J`.

    J is never formed: an iteration is one product with it (`jvp`) and one with its transpose (`vjp`). Each moves v
    closer to the leading right singular vector by the factor `(s_2 / s_1)^2` in the tangent of the angle. Give back the
    v of the last call to go on from there, at the same f or at one that has changed a little.

    Under differentiation v is held fixed: the gradient is that of `|J v|`, which is that of the norm itself once v has
    converged and the norm is simple (`s_1 > s_2`), since there the norm does not change with v to first order.

    Args:
      f: `(x, *own) -> [...]`, of any shape.
      x: float, one example.
      v: of the shape of x, not zero: noise to begin with, later what the last call returned.
      own: further arguments of f, which are held.
      num_iters: not negative; zero measures `|J v|`.

    Returns:
      sigma: `()`, not negative, never above the norm.
      v: of the shape of x, of length one.

    Raises:
      InputError: as in `jacobian`, v has not the shape of x, or `num_iters` is negative.

    Example:
      >>> scale = lambda x: x * jnp.array([3.0, -4.0])
      >>> sigma, v = spectral_norm(scale, jnp.zeros(2), jnp.ones(2), num_iters=20)
      >>> round(float(sigma), 4)
      4.0

    Reference: Yoshida & Miyato (2017), the same iteration on matrices of weights.
    """
    real = checked(f, x)
    if v.shape != x.shape:
        raise InputError(f"v has the shape {list(v.shape)} and x {list(x.shape)}; v is a direction of x.")
    if num_iters < 0:
        raise InputError(f"num_iters is {num_iters}; it cannot be negative.")
    held = lambda x: real(x, *own)
    fixed, at = frozen(held, x), jax.lax.stop_gradient(x)
    forth, (_, back) = push(fixed, at), jax.vjp(fixed, at)

    def iterate(_: Array, v: Array) -> Array:
        (step,) = back(forth(v))
        return _unit(step, otherwise=v)

    # Under shard_map, a v that all devices share has to vary as x does.
    start = jnp.zeros_like(at) + jax.lax.stop_gradient(v)
    v = jax.lax.fori_loop(0, num_iters, iterate, _unit(start, otherwise=start))
    return length(push(held, x)(v)), v


def length(x: Array) -> Array:
    """Euclidean length of all numbers of x, `()`; its derivative at zero is zero, not NaN."""
    return optax.safe_norm(x.reshape(-1), 0.0)


def _unit(v: Array, *, otherwise: Array) -> Array:
    norm = length(v)
    return jnp.where(norm > 0, v / jnp.where(norm > 0, norm, 1), otherwise)
