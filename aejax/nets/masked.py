"""Autoregressive networks by masks: what stands for one component sees only those that come before it.

Every unit has a degree, and sees units of degrees up to its own, or below it where the layer is strict. Outputs of a
stack with one strict layer, the last, then depend on inputs of lower degrees alone.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax.precision import widen


def mask(in_degrees: Sequence[int], out_degrees: Sequence[int], *, strict: bool = False) -> np.ndarray:
    """Which units of a layer see which of the layer before: `[in, out]` bool.

    Args:
      in_degrees: of the units that are seen.
      out_degrees: of those that see.
      strict: whether units of the same degree are hidden from each other.

    Example:
      >>> mask((0, 1, 2), (0, 1, 2), strict=True).astype(int).tolist()
      [[0, 1, 1], [0, 0, 1], [0, 0, 0]]

    Reference: Germain, Gregor, Murray & Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015,
    equations 8 and 9.
    """
    seen, seeing = np.asarray(in_degrees)[:, None], np.asarray(out_degrees)[None]
    return seen < seeing if strict else seen <= seeing


def hidden_degrees(size: int, width: int) -> tuple[int, ...]:
    """Degrees of `width` hidden units between `size` inputs of degrees 0 to `size - 1`: evenly from 0 to `size - 2`.

    No output sees the last input, so no hidden unit needs to. Units between fewer than two inputs see none: -1.

    Example:
      >>> hidden_degrees(4, 6), hidden_degrees(1, 2)
      ((0, 0, 1, 1, 2, 2), (-1, -1))
    """
    return tuple(((k + 1) * (size - 1) - 1) // width for k in range(width))


class MaskedDense(nn.Module):
    """A dense layer whose units see those of lower degree.

    Attributes:
      in_degrees: of the inputs.
      out_degrees: of the outputs, as many as there shall be.
      strict: as in `mask`.
      kernel_init: of all weights, those that the mask takes away too.
      bias_init: of the biases.

    Call: `[..., in] -> [..., out]`.
    """

    in_degrees: tuple[int, ...]
    out_degrees: tuple[int, ...]
    strict: bool = False
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (len(self.in_degrees), len(self.out_degrees))
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, shape[1:])
        kept = jnp.asarray(mask(self.in_degrees, self.out_degrees, strict=self.strict), kernel.dtype)
        y = x @ (kernel * kept)
        return y + jnp.broadcast_to(bias, y.shape)


class MaskedMLP(nn.Module):
    """Dense layers that return some numbers for each component of x, which depend on the components before it alone.

    What is told beside x goes into every layer by a linear map, without a mask: all outputs see all of it. Of the
    paper there are neither orders nor degrees drawn at random: components come in their order, hidden units are spread
    evenly. Whoever wants another order permutes x.

    Attributes:
      hidden_dims: widths of the hidden layers; with at least one unit for each component but the last, each sees all
        before it.
      num_outputs: how many numbers for each component.
      activation: between layers.
      zero_output: whether the last layer starts at zero, so that the output does.
      levels: K, where x is `k / (K - 1)` and k is a name and no size, such as a token: seen as K one-hot numbers.
      output_bias: where the biases of the last layer start, the only numbers of the first component.

    Call: `[..., D]` and contexts `[..., C]` `-> [..., D, num_outputs]`. Layers are named `dense_0`, `dense_1`, ..., the
    maps of the first context `context_0`, ...

    Reference: Germain et al. (2015).
    """

    hidden_dims: tuple[int, ...]
    num_outputs: int = 1
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    zero_output: bool = False
    levels: int | None = None
    output_bias: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *context: jax.Array) -> jax.Array:
        size, y = x.shape[-1], as_names(x, self.levels)
        first, last = (each(size, times) for times in (self.levels or 1, self.num_outputs))
        degrees = [first, *(hidden_degrees(size, width) for width in self.hidden_dims), last]
        for i, (seen, seeing) in enumerate(pairwise(degrees)):
            is_last = i == len(self.hidden_dims)
            init = nn.initializers.zeros if is_last and self.zero_output else nn.initializers.lecun_normal()
            bias_init = nn.initializers.constant(self.output_bias if is_last else 0.0)
            y = MaskedDense(seen, seeing, is_last, init, bias_init, name=f"dense_{i}")(y)
            if context:
                told = jnp.concatenate(context, axis=-1)
                y = y + nn.Dense(len(seeing), use_bias=False, kernel_init=init, name=f"context_{i}")(told)
            y = y if is_last else self.activation(y)
        return y.reshape(*x.shape, self.num_outputs)


def as_names(x: jax.Array, levels: int | None) -> jax.Array:
    """Names k of `levels`, given as `k / (levels - 1)`, as one-hot numbers: `[..., D] -> [..., D levels]`.

    Without levels x is what it is.
    """
    if levels is None:
        return x
    names = jnp.round(widen(x) * (levels - 1)).astype(jnp.int32)
    return jax.nn.one_hot(names, levels, dtype=x.dtype).reshape(*x.shape[:-1], -1)


def each(size: int, times: int) -> tuple[int, ...]:
    """The degrees of so many components, each so many times."""
    return tuple(i for i in range(size) for _ in range(times))
