"""Lengths and volumes that a decoder gives its codes: the metric it pulls back, and paths that are short in it.

A step dz of the code moves the output by `|J dz|`, so lengths in code space are measured by `g = J^T J`, volumes by the
root of its determinant. Everything is about one example or one path; batches are the business of `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax.checks import InputError
from aejax.jacobian.functions import Function, checked, frozen
from aejax.jacobian.spectrum import jacobian

Array = jax.Array


class Path(NamedTuple):
    """A path in code space, as a polygon of T points."""

    points: Array
    """`[T, ...]`, both ends included."""
    length: Array
    """`()`, the sum of the distances between consecutive outputs."""
    energy: Array
    """`()`, `T - 1` times the sum of their squares; at least `length^2`, and equal where they are all the same."""


def log_volume(f: Function, x: Array, *own: Any) -> Array:
    """Logarithm of the factor by which f scales volumes at one example: the sum of the logs of the singular values.

    That is `log det(J^T J) / 2` where there are no more inputs than outputs, and `log det(J J^T) / 2` where there are
    more (the change of volume across the fibres of f). Neither product is formed: it would square the condition number.

    Args:
      f: `(x, *own) -> [...]`, of any shape.
      x: float, one example.
      own: further arguments of f, which are held.

    Returns:
      `()`; `-inf`, without a gradient, where J has not full rank.

    Example:
      >>> round(float(log_volume(lambda x: x * jnp.array([2.0, 3.0]), jnp.ones(2))), 4)  # log 6
      1.7918
    """
    matrix = jacobian(f, x, *own)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(jnp.linalg.qr(tall)[1]))))


def pullback_metric(decode: Function, z: Array, *own: Any) -> Array:
    """`J^T J` at one code: the inner products of the output's derivatives by each coordinate.

    Args:
      decode: `(z, *own) -> [...]`, one code of Z numbers to one output.
      z: float, one code.
      own: further arguments of decode, which are held.

    Returns:
      `[Z, Z]`, symmetric, positive semi-definite.

    Example:
      >>> polar = lambda z: z[0] * jnp.array([jnp.cos(z[1]), jnp.sin(z[1])])
      >>> pullback_metric(polar, jnp.array([2.0, 0.0])).tolist()  # dr^2 + r^2 dphi^2
      [[1.0, 0.0], [0.0, 4.0]]

    Reference: Shao, Kumar & Fletcher (2018). Arvanitidis, Hansen & Hauberg (2018) add the metric of the decoder's
    standard deviations; a decode that returns them beside the means does the same.
    """
    tangents = jacobian(decode, z, *own)
    return tangents.T @ tangents


def magnification(decode: Function, z: Array, *own: Any) -> Array:
    """Magnification factor `sqrt(det(J^T J))` at one code: area of output over area of code.

    For many coordinates it leaves the range of floats; `log_volume` does not.

    Args:
      decode: `(z, *own) -> [...]`, one code of Z numbers to one output of Z or more.
      z: float, one code.
      own: further arguments of decode, which are held.

    Returns:
      `()`, not negative.

    Raises:
      InputError: the output has fewer than Z numbers, so that this is zero everywhere.

    Example:
      >>> polar = lambda z: z[0] * jnp.array([jnp.cos(z[1]), jnp.sin(z[1])])
      >>> round(float(magnification(polar, jnp.array([2.0, 0.0]))), 4)  # r
      2.0

    Reference: Bishop, Svensen & Williams, Magnification factors for the GTM algorithm (1997).
    """
    num_outputs = jax.eval_shape(checked(decode, z), z, *own).size
    if num_outputs < z.size:
        raise InputError(
            f"{z.size} coordinates decode to {num_outputs} numbers: the factor is zero everywhere."
            " log_volume measures volume across the fibres instead."
        )
    return jnp.exp(log_volume(decode, z, *own))


def path_length(decode: Callable[[Array], Array], points: Array) -> Array:
    """Length of the decoded polygon: the sum of the distances between the outputs of consecutive points.

    Args:
      decode: one code to one output.
      points: `[T, ...]`, codes.

    Returns:
      `()`, in units of the output. It approaches the length of the curve from below, as `1 / T^2`.

    Example:
      >>> float(path_length(lambda z: 2 * z, jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])))
      12.0
    """
    steps = _steps(checked(decode, points), points)
    return jnp.sum(jax.vmap(lambda step: optax.safe_norm(step, 0.0))(steps))


def shortest_path(
    decode: Callable[[Array], Array], z_a: Array, z_b: Array, *, num_points: int = 32, num_steps: int = 50
) -> Path:
    """The path between two codes whose decoded polygon has the least energy: a discrete geodesic.

    Least energy means least length, gone through at constant speed of the output. L-BFGS, from the straight line, finds
    a local minimum: with several ways round an obstacle, the one that the straight line leans to. Its variables are the
    steps between the points, less their mean, rather than the points: the energy of a linear decoder then has the same
    curvature along short and long waves, whatever the number of points.

    Under differentiation the optimum is held fixed, which gives the derivatives of its energy exactly (it does not
    change with the path to first order), those of its length up to the discretisation, and none of its shape: by the
    ends the points move as those of a straight line, by the parameters of the decoder not at all.

    Under `shard_map` it takes `check_vma=False`: the line search of optax does not declare over which devices its
    values vary.

    Args:
      decode: one code to one output.
      z_a: float, one code; the first point.
      z_b: of the same shape; the last.
      num_points: T, at least 3.
      num_steps: of L-BFGS.

    Returns:
      `Path(points [T, ...], length (), energy ())`. Where `energy` is well above `length^2` the speed is not constant:
      more steps are needed, or more points.

    Raises:
      InputError: a code, or what it decodes to, is not one array of real floating numbers; the codes differ in shape;
        there are fewer than 3 points, or `num_steps` is negative.

    Example:
      >>> polar = lambda z: z[0] * jnp.array([jnp.cos(z[1]), jnp.sin(z[1])])
      >>> path = shortest_path(polar, jnp.array([1.0, 0.0]), jnp.array([1.0, jnp.pi / 2]))
      >>> round(float(path.length), 4), round(float(path.points[:, 0].min()), 2)  # the chord, not the arc
      (1.4142, 0.71)

    Reference: Shao, Kumar & Fletcher (2018), Algorithm 1, the same energy (up to its constant) by gradient descent.
    """
    decode = checked(checked(decode, z_a), z_b)
    if z_a.shape != z_b.shape:
        raise InputError(f"The ends have the shapes {list(z_a.shape)} and {list(z_b.shape)}; they are two codes.")
    if num_points < 3 or num_steps < 0:
        raise InputError(
            f"num_points is {num_points} and num_steps {num_steps}; it takes 3 points, and no negative number of steps."
        )
    fixed, ends = frozen(decode, z_a), jax.lax.stop_gradient((z_a, z_b))
    energy = lambda bends: _energy(fixed, _between(*ends, bends))
    bends = _minimise(energy, jnp.zeros((num_points - 1, *z_a.shape), z_a.dtype), num_steps)
    points = _between(z_a, z_b, jax.lax.stop_gradient(bends))
    return Path(points, path_length(decode, points), _energy(decode, points))


def _between(z_a: Array, z_b: Array, bends: Array) -> Array:
    """`[T, ...]` points from z_a to z_b, whose steps differ from their mean by `bends` `[T - 1, ...]`, less theirs."""
    steps = bends - bends.mean(axis=0, keepdims=True) + ((z_b - z_a) / len(bends))[None]
    return jnp.concatenate([z_a[None], z_a[None] + jnp.cumsum(steps, axis=0)[:-1], z_b[None]])


def _steps(decode: Callable[[Array], Array], points: Array) -> Array:
    """`[T - 1, M]`, of the output."""
    outputs = jax.vmap(decode)(points)
    return jnp.diff(outputs.reshape(len(points), -1), axis=0)


def _energy(decode: Callable[[Array], Array], points: Array) -> Array:
    return (len(points) - 1) * jnp.sum(jnp.square(_steps(decode, points)))


def _minimise(loss: Callable[[Array], Array], start: Array, num_steps: int) -> Array:
    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(_: Array, carry: tuple[Array, optax.OptState]) -> tuple[Array, optax.OptState]:
        point, state = carry
        value, grad = value_and_grad(point, state=state)
        updates, state = tx.update(grad, state, point, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(point, updates), state

    return jax.lax.fori_loop(0, num_steps, step, (start, tx.init(start)))[0]
