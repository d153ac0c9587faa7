"""Exact norms of Jacobians: the penalty of contractive autoencoders, and a measure of any code.

`jax.jacfwd` is the definition. The other modes are the same number at another price: `reverse` pays for each output
instead of each input, and `closed` is the formula for one dense layer, at the price of the layer itself. All are
differentiable, and `auto` picks the cheapest.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import InputError, nearest
from aejax.nets import MLP, Autoencoder

Array = jax.Array

MODES = ("forward", "reverse", "closed", "auto")

# What `auto` knows to act on each unit by itself. `closed` takes other functions at their word.
_ELEMENTWISE = frozenset(
    {
        None, nn.celu, nn.elu, nn.gelu, nn.hard_sigmoid, nn.hard_tanh, nn.leaky_relu, nn.log_sigmoid, nn.relu, nn.relu6,
        nn.selu, nn.sigmoid, nn.silu, nn.soft_sign, nn.softplus, nn.tanh, jnp.tanh, jnp.sin,
    }
)  # fmt: skip


def check_mode(mode: str) -> None:
    """Refuses an unknown mode; `InputError` names the known ones."""
    if mode not in MODES:
        raise InputError(f"Unknown Jacobian mode {mode!r}. {nearest(mode, MODES, what='modes')}")


def frobenius_sq(f: Callable[[Array], Array], x: Array, *, mode: str = "auto") -> Array:
    """Squared Frobenius norm of the Jacobian of f at one example: the sum of its squared entries.

    Batches are the business of `vmap`, or of `encoder_sq`.

    Args:
      f: `[...] -> [...]`, any two shapes.
      x: float, one example.
      mode: `forward` (`jax.jacfwd`, the definition), `reverse`, or `auto`.

    Returns:
      `()`, not negative.

    Raises:
      InputError: the mode is unknown, or `closed`, which takes a layer and not a function.

    Example:
      >>> float(frobenius_sq(lambda x: x**2, jnp.array([1.0, 2.0])))  # the Jacobian is diag(2 x)
      20.0
    """
    check_mode(mode)
    if mode == "closed":
        raise InputError(
            "mode='closed' needs the layers of a module, and got a function; use forward, reverse or auto."
        )
    if mode == "auto":
        mode = _cheaper(x.size, jax.eval_shape(f, x).size)
    jacobian = jax.jacfwd(f) if mode == "forward" else jax.jacrev(f)
    return jnp.sum(jnp.square(jacobian(x)))


def dense_frobenius_sq(activation: Callable[[Array], Array] | None, kernel: Array, pre: Array) -> Array:
    """Squared Frobenius norm of the Jacobian of `activation(x @ kernel + bias)`, in closed form.

    The Jacobian is `diag(a'(pre)) kernel.T`, hence its norm `sum_j a'(pre_j)^2 |kernel_:j|^2`: the squared lengths
    of the columns, the diagonal of the Gram matrix of the weights, serve the whole batch.

    Args:
      activation: element-wise; None is the identity.
      kernel: `[D, Z]` float.
      pre: `[..., Z]` float, what the activation is given.

    Returns:
      `[...]`, not negative.

    Example:
      >>> float(dense_frobenius_sq(jnp.tanh, jnp.ones((3, 2)), jnp.zeros(2)))  # tanh'(0) = 1
      6.0

    Reference: Rifai et al. (2011), section 5.3 there for the sigmoid.
    """
    lengths = jnp.sum(jnp.square(kernel), axis=0)
    slope = jnp.ones_like(pre)
    if activation is not None:
        _, slope = jax.jvp(activation, (pre,), (slope,))
    return jnp.square(slope) @ lengths


def encoder_sq(encoder: nn.Module, params: Any, x: Array, *, mode: str = "auto") -> Array:
    """Squared Frobenius norm of the Jacobian of an encoder, at each example of a batch.

    Args:
      encoder: any module `[B, ...] -> [B, Z]` that treats each example by itself.
      params: its own, `params["encoder"]`.
      x: `[B, ...]` float.
      mode: one of `MODES`. `closed` is for an `MLP` of one layer with an element-wise activation, on vectors;
        `auto` takes it where the activation is one of Flax.

    Returns:
      `[B]`, not negative.

    Raises:
      InputError: the mode is unknown, or the encoder has no closed form.
    """
    return _encode_and_sq(encoder, params, x, mode)[1]


def embedding_sq(model: Autoencoder, params: Any, x: Array, *, mode: str = "auto") -> Array:
    """Squared Frobenius norm of the Jacobian of `model.embed`, the code without its noise, at each example.

    Its mean over examples is the metric `jacobian_sq`, the mean of its root `jacobian_norm`. Arguments, result and
    errors are those of `embed_and_sq`.
    """
    return embed_and_sq(model, params, x, mode=mode)[1]


def embed_and_sq(model: Autoencoder, params: Any, x: Array, *, mode: str = "auto") -> tuple[Array, Array]:
    """The code and the squared Frobenius norm of its Jacobian, at each example.

    A loss that needs both gets them from one pass, and one matrix product less in its gradient.

    Args:
      model: any autoencoder. Where `embed` is nothing but the encoder, all that `encoder_sq` knows applies.
      params: by group.
      x: `[B, ...]` float.
      mode: as in `encoder_sq`.

    Returns:
      `[B, Z]`, what `model.embed` returns; and `[B]`, not negative.

    Raises:
      InputError: the mode is unknown, or there is no closed form.
    """

    if (type(model).embed, type(model).encode) == (Autoencoder.embed, Autoencoder.encode):
        return _encode_and_sq(model.encoder, params["encoder"], x, mode)
    check_mode(mode)
    if mode == "closed":
        raise InputError(
            f"mode='closed' is for codes that the encoder returns as they are; {type(model).__name__}.embed does more."
            " Use forward, reverse or auto."
        )
    return _value_and_sq(lambda x: model.bind({"params": params}).embed(x), x, mode)


def _encode_and_sq(encoder: nn.Module, params: Any, x: Array, mode: str) -> tuple[Array, Array]:
    check_mode(mode)
    one_layer = type(encoder) is MLP and len(encoder.features) == 1 and x.ndim == 2
    if mode == "closed" and not (one_layer and _may_be_elementwise(encoder.final_activation)):
        raise InputError(
            "mode='closed' is for an MLP of one layer with an element-wise activation, on vectors [B, D]; this is"
            f" {_describe(encoder)} on {list(x.shape)}. Use forward, reverse or auto."
        )
    if mode == "closed" or (mode == "auto" and one_layer and encoder.final_activation in _ELEMENTWISE):
        activation = encoder.final_activation
        affine = encoder.clone(final_activation=None).bind({"params": params})
        pre = affine(x)
        return pre if activation is None else activation(pre), dense_frobenius_sq(activation, affine.kernels()[0], pre)
    return _value_and_sq(encoder.bind({"params": params}), x, mode)


def _value_and_sq(f: Callable[[Array], Array], x: Array, mode: str) -> tuple[Array, Array]:
    """A function of batches, and `frobenius_sq` at each example."""
    return f(x), jax.vmap(lambda row: frobenius_sq(lambda v: f(v[None])[0], row, mode=mode))(x)


def _cheaper(input_size: int, output_size: int) -> str:
    """The cheaper of `forward` and `reverse`, which cost about as much for each input as for each output.

    Measured for value and gradient of the penalty, dense sigmoid encoders of two and three layers on 2 CPU cores,
    output over input size against the time of reverse over that of forward: 0.08: 0.08, 0.16: 0.15, 0.33: 0.38,
    0.5: 0.5, 0.77: 0.83, 1: 0.7 to 1, 2: 2.2.
    """
    return "reverse" if output_size <= input_size else "forward"


@functools.cache
def _may_be_elementwise(activation: Callable[[Array], Array] | None) -> bool:
    """Refuses softmax and the like: the Jacobian of an element-wise function is diagonal, here tried at some points."""
    if activation is None or activation in _ELEMENTWISE:
        return True
    with jax.ensure_compile_time_eval():
        jacobian = jax.jit(jax.vmap(jax.jacfwd(activation)))
        blocks = [jacobian(scale * jnp.sin(jnp.arange(1.0, 17.0).reshape(2, 8))) for scale in (0.1, 1.0, 10.0)]
    return not any((np.asarray(block) * (1 - np.eye(8))).any() for block in blocks)


def _describe(module: nn.Module) -> str:
    if type(module) is not MLP:
        return f"a {type(module).__name__}"
    activation = getattr(module.final_activation, "__name__", "no activation")
    return f"an MLP of {len(module.features)} layers with {activation} at its end"
