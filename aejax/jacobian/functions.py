"""What a function of one example has to be to have a Jacobian, and the forms that the measures take of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.jacobian.programs import has_jvp

Array = jax.Array
Function = Callable[..., Array]


def checked(f: Function, x: Any) -> Function:
    """f, refused where it has no derivatives at x: there, and when it returns what has none.

    Args:
      f: `(x, *own) -> y`.
      x: one example, or a batch.

    Raises:
      InputError: x is not one floating array; f, when it is called, returns anything else.
    """
    if not hasattr(x, "dtype"):
        raise InputError(
            f"x is a {type(x).__name__}; derivatives are taken at one array of floating numbers. Join several"
            " (jax.flatten_util.ravel_pytree), and give what is not differentiated behind x."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"x has the dtype {x.dtype}; derivatives are taken at floating numbers: x.astype(float).")

    def only_real(*arguments: Any) -> Array:
        y = f(*arguments)
        _check_result(y)
        return y

    return only_real


def _check_result(y: Any) -> None:
    wanted = "derivatives are those of one array of real floating numbers."
    if not jax.tree_util.all_leaves([y]):
        raise InputError(
            f"f returns a {type(y).__name__} of {len(jax.tree.leaves(y))} arrays; {wanted} Join them:"
            " jax.flatten_util.ravel_pytree(f(x))[0] has the norm of all."
        )
    dtype = jnp.result_type(y)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise InputError(f"f returns {dtype}; {wanted} jnp.stack([y.real, y.imag]) has the same norm.")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"f returns {dtype}; {wanted} Leave out what rounds or compares, or cast it, y.astype(float), which makes"
            " it a constant."
        )


def flat(f: Function, x: Array, *own: Any) -> tuple[Callable[[Array], Array], Array]:
    """f as a function of vectors to vectors, with its further arguments held, and x as a vector; as `checked`."""
    real = checked(f, x)
    return lambda v: jnp.reshape(real(v.reshape(x.shape), *own), -1), x.reshape(-1)


def frozen(f: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    """f without derivatives by what it closes over, parameters above all: loops of it are not recorded."""
    pure, consts = jax.closure_convert(f, x)
    consts = jax.lax.stop_gradient(consts)
    return lambda x: pure(x, *consts)


def push(f: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    """Multiplication by the Jacobian of f at x, also where f has a rule for the backward pass alone."""
    if has_jvp(jax.make_jaxpr(f)(x).eqns):
        return lambda v: jax.jvp(f, (x,), (v,))[1]
    y, back = jax.vjp(f, x)
    forth = jax.linear_transpose(lambda u: back(u)[0], y)
    return lambda v: forth(v)[0]
