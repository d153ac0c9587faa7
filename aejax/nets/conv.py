"""Convolutional networks for images of any size, with the same parameters and the same numbers on every backend.

The convolutions of XLA:CPU fall off their fast path inside a compiled loop (jax issue 12868). So on CPU a convolution
is shifted slices and one matrix product (im2col), and a network takes a few examples at a time, whose slices stay in
the cache. Elsewhere it is the convolution of `lax`, and also where the batch is of any size (`aejax.export`): such a
program is for other platforms too, and is no loop. That choice is made here and nowhere else.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from aejax.checks import InputError, nearest

IMPLEMENTATIONS = ("auto", "slices", "lax")

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_CHUNK_PIXELS = 8 * 28 * 28  # of images at a time; with 32 to 64 channels their slices fill about 2 MB
_NAME = "conv"  # of the arrays that a network on slices keeps for its gradient


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, implementation: str = "auto") -> jax.Array:
    """2-D convolution (cross-correlation, as everywhere in deep learning) with padding `SAME`.

    Args:
      x: `[B, H, W, C]` float.
      kernel: `[KH, KW, C, F]` float.
      stride: along both axes.
      implementation: `slices` (shifted slices and a matrix product), `lax`, or `auto`: `slices` on CPU, for a batch of
        known size.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), F]`.

    Raises:
      InputError: an unknown implementation.

    Example:
      >>> conv(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
      Array([[4., 6., 4.],
             [6., 9., 6.],
             [4., 6., 4.]], dtype=float32)
    """
    size, window = (x.shape[1], x.shape[2]), kernel.shape[:2]
    if _use_lax(implementation, x.shape[0]):
        padding = _padding(size, window, stride)
        return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)
    if _goes_both_ways(window, stride) and kernel.shape[2] > kernel.shape[3]:
        return _scatter(x, kernel, size, stride)
    return _gather(x, kernel, stride)


def conv_transpose(
    x: jax.Array, kernel: jax.Array, size: tuple[int, int], stride: int = 1, implementation: str = "auto"
) -> jax.Array:
    """Transposed convolution to an image of exactly the size asked for.

    With the kernel turned by 180 degrees it is the adjoint, in x, of the `conv` of that stride from `size` to the size
    of x. Where stride divides `size` it equals `lax.conv_transpose(..., "SAME")`.

    Args:
      x: `[B, h, w, C]` float, with `h = ceil(H / stride)` and `w = ceil(W / stride)`.
      kernel: `[KH, KW, C, F]` float.
      size: `(H, W)` of the result.
      stride: along both axes.
      implementation: as in `conv`.

    Returns:
      `[B, H, W, F]`.

    Raises:
      InputError: x does not have the size of a convolution of `size`, or an unknown implementation.

    Example:
      >>> conv_transpose(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1)), (3, 3), stride=2)[0, :, :, 0]
      Array([[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]], dtype=float32)
    """
    window, small = kernel.shape[:2], _strided(size, stride)
    if x.shape[1:3] != small:
        raise InputError(f"A transposed convolution by {stride} to {size} starts at {small}, not at {x.shape[1:3]}.")
    if _use_lax(implementation, x.shape[0]):
        padding = [
            (k - 1 - low, n - (m - 1) * stride - 1 + low)
            for k, (low, _), n, m in zip(window, _padding(size, window, stride), size, small, strict=True)
        ]
        return lax.conv_general_dilated(
            x, kernel, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
        )
    if _goes_both_ways(window, stride) and kernel.shape[2] <= kernel.shape[3]:
        return _gather(x, kernel, stride)
    return _scatter(x, kernel, size, stride)


def has_convolution(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a `lax` convolution appears anywhere in the program of `function(*args)`."""

    def search(jaxpr: Any) -> bool:
        return any(
            eqn.primitive.name == "conv_general_dilated"
            or any(search(inner) for inner in jex.jaxprs_in_params(eqn.params))
            for eqn in jaxpr.eqns
        )

    return search(jax.make_jaxpr(function)(*args).jaxpr)


def _use_lax(implementation: str, examples: Any) -> bool:
    if implementation not in IMPLEMENTATIONS:
        known = nearest(implementation, IMPLEMENTATIONS, what="implementations")
        raise InputError(f"Unknown implementation {implementation!r}. {known}")
    symbolic = not isinstance(examples, int)
    return implementation == "lax" or (implementation == "auto" and (symbolic or jax.default_backend() != "cpu"))


def _strided(size: tuple[int, ...], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _padding(size: tuple[int, ...], window: tuple[int, ...], stride: int) -> list[tuple[int, int]]:
    """Rows and columns of zeros before and behind, as `SAME` has it."""
    return lax.padtype_to_pads(size, window, (stride, stride), "SAME")


def _goes_both_ways(window: tuple[int, ...], stride: int) -> bool:
    """Whether convolution and transposed convolution are one: the form with fewer numbers to copy is taken."""
    return stride == 1 and all(k % 2 for k in window)


def _gather(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The convolution: slices, then one product."""
    channels, features = kernel.shape[2:]
    slices = _slices(x, kernel.shape[:2], stride)
    return checkpoint_name(_product(slices, kernel.reshape(-1, channels, features)), _NAME)


def _scatter(x: jax.Array, kernel: jax.Array, size: tuple[int, int], stride: int) -> jax.Array:
    """The transposed convolution: one product, then the adjoint of the slices, which adds them where they overlap."""
    channels, features = kernel.shape[2:]
    turned = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(1, channels, -1)
    slices = _product(x, turned)
    image = jax.ShapeDtypeStruct((x.shape[0], *size, features), slices.dtype)
    (y,) = jax.linear_transpose(lambda image: _slices(image, kernel.shape[:2], stride), image)(slices)
    return checkpoint_name(y, _NAME)


def _slices(x: jax.Array, window: tuple[int, ...], stride: int) -> jax.Array:
    """What the kernel sees at each place: `[B, H, W, C] -> [B, h, w, KH * KW * C]`."""
    (height, width), low = _strided(x.shape[1:3], stride), [low for low, _ in _padding(x.shape[1:3], window, stride)]
    # Split by the remainder of row and column first, each slice is a mere shift. Strided slices of a padded image are
    # the same numbers, but their adjoint takes four times as long.
    parts = [[x[:, i::stride, j::stride] for j in range(stride)] for i in range(stride)]

    def seen(row: int, column: int) -> jax.Array:
        (i, up), (j, left) = ((n % stride, n // stride) for n in (row - low[0], column - low[1]))
        part = parts[i][j]
        shift = [(0, 0, 0), (-up, height + up - part.shape[1], 0), (-left, width + left - part.shape[2], 0), (0, 0, 0)]
        return lax.pad(part, jnp.zeros((), x.dtype), shift)

    return jnp.concatenate([seen(row, column) for row in range(window[0]) for column in range(window[1])], axis=-1)


@jax.custom_jvp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[..., T * C]` times `[T, C, F]`."""
    return x @ kernel.reshape(-1, kernel.shape[-1])


@_product.defjvp
def _(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    # The transpose of `moved` is the gradient of the kernel, where XLA:CPU takes its fast product only if the summed
    # axis comes last in one factor. So the narrower factor is laid out anew; a reshape keeps XLA from undoing that.
    columns, features = x.shape[-1], kernel.shape[-1]
    if columns <= features:
        rows = jnp.moveaxis(x, -1, 0).reshape(columns, -1)
        moved = lax.dot_general(rows, dkernel.reshape(columns, features), (((0,), (0,)), ((), ())))
        moved = moved.reshape(*x.shape[:-1], features)
    else:
        turned = dkernel.transpose(2, 0, 1).reshape(features, columns)
        moved = lax.dot_general(turned, x.reshape(-1, columns), (((1,), (1,)), ((), ())))
        moved = jnp.moveaxis(moved.reshape(features, *x.shape[:-1]), 0, -1)
    return _product(x, kernel), _product(dx, kernel) + moved


def in_chunks(layers: Callable[..., jax.Array], module: nn.Module, x: jax.Array, pixels: int, implementation: str):
    """`layers(module, x)`; on slices, for a few examples at a time, so that what they fill stays in the cache.

    For the gradient only the results of the convolutions are kept; slices and activations are computed again.
    """
    examples = x.shape[0]
    if _use_lax(implementation, examples) or not isinstance(examples, int):
        return layers(module, x)
    layers = nn.remat(layers, policy=jax.checkpoint_policies.save_only_these_names(_NAME))
    count = -(-examples // max(1, _CHUNK_PIXELS // pixels))
    if count <= 1:
        return layers(module, x)
    size = -(-examples // count)
    # A chunk takes every count-th example, so that devices which share the batch share each chunk.
    x = jnp.pad(x, [(0, count * size - examples)] + [(0, 0)] * (x.ndim - 1)).reshape(size, count, *x.shape[1:])
    scan = nn.scan(
        lambda m, _, x: (None, layers(m, x)),
        variable_broadcast="params",
        split_rngs={"params": False},
        in_axes=1,
        out_axes=1,
    )
    _, y = scan(module, None, x)
    return y.reshape(-1, *y.shape[2:])[:examples]


class Conv(nn.Module):
    """A convolution, padding `SAME`, with the parameters of `nn.Conv`.

    Attributes:
      features: F, the number of channels that it returns.
      stride: along both axes.
      kernel_size: height and width of the kernel.
      implementation: as in the function `conv`.
      use_bias: whether it has a bias.

    Call: `[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), F]`.
    """

    features: int
    stride: int = 1
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        y = conv(x, kernel, self.stride, self.implementation)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)


class ConvTranspose(nn.Module):
    """A transposed convolution to an image of a given size, with the parameters of `nn.ConvTranspose`.

    Attributes:
      features: F, the number of channels that it returns.
      size: `(H, W)` of the image that it returns.
      stride: along both axes.
      kernel_size: height and width of the kernel.
      implementation: as in the function `conv`.

    Call: `[B, ceil(H / stride), ceil(W / stride), C] -> [B, H, W, F]`.
    """

    features: int
    size: tuple[int, int]
    stride: int = 1
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv_transpose(x, kernel, self.size, self.stride, self.implementation) + bias.reshape(1, 1, 1, -1)


class ConvEncoder(nn.Module):
    """Convolutions with an activation after each, then one dense layer to the code.

    Attributes:
      code_dim: how many numbers it returns.
      features: channels after each convolution.
      strides: of each convolution.
      activation: after each convolution; a module-level function.
      kernel_size: of each convolution.
      implementation: as in the function `conv`.
      use_bias: whether the layers have biases.
      place_dim: where the code is a grid, how many of its numbers each place of the last convolution has: the dense
        layer is then the same at every place. The code is the grid row by row, and `code_dim` its size.

    Call: `[B, H, W, C] -> [B, code_dim]`, for any H, W and C. Layers are named `conv_0`, `conv_1`, ..., `dense`.
    """

    code_dim: int
    features: tuple[int, ...] = (32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"
    use_bias: bool = True
    place_dim: int | None = None

    def setup(self):
        _check_layers(self.features, self.strides)
        self.conv = [
            Conv(width, stride, self.kernel_size, self.implementation, self.use_bias)
            for width, stride in zip(self.features, self.strides, strict=True)
        ]
        self.dense = nn.Dense(self.place_dim or self.code_dim, self.use_bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim != 4:
            raise InputError(f"A convolutional encoder takes images `[B, H, W, C]`; what came has the shape {x.shape}.")
        x = in_chunks(ConvEncoder._convolve, self, x, x.shape[1] * x.shape[2], self.implementation)
        return self._code(x)

    def layers(self, x: jax.Array) -> list[jax.Array]:
        """Each convolution behind its activation, and last the output: `[B, H, W, C] -> [B, h, w, F], ..., [B, Z]`."""
        found = [x]
        for layer in self.conv:
            found.append(self.activation(layer(found[-1])))
        return [*found[1:], self._code(found[-1])]

    def _code(self, x: jax.Array) -> jax.Array:
        return self.dense(x if self.place_dim else x.reshape(x.shape[0], -1)).reshape(x.shape[0], -1)

    def _convolve(self, x: jax.Array) -> jax.Array:
        for layer in self.conv:
            x = self.activation(layer(x))
        return x


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: one dense layer, then transposed convolutions, which end in `data_shape`.

    Layer i leads back from the size behind the encoder's convolution i to the size before it, whether or not the
    stride divides that size, so the image has exactly the height and width asked for.

    Attributes:
      data_shape: `(H, W, C)` of the image.
      features: channels after each convolution of the *encoder*, first layer first.
      strides: likewise.
      activation: after each layer but the last.
      kernel_size: of each transposed convolution.
      implementation: as in the function `conv`.
      is_grid: whether the code is a grid, row by row: the dense layer is then the same at every place.

    Call: `[B, Z] -> [B, H, W, C]`. Layers are named `dense`, `conv_0`, `conv_1`, ... in the order of computation.
    """

    data_shape: tuple[int, int, int]
    features: tuple[int, ...] = (32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"
    is_grid: bool = False

    def setup(self):
        _check_layers(self.features, self.strides)
        *size, channels = self.data_shape
        sizes = strided_sizes(size, self.strides)
        self.shape = (*sizes[-1], self.features[-1])
        self.dense = nn.Dense(self.features[-1] if self.is_grid else math.prod(self.shape))
        layers = list(zip((channels, *self.features[:-1]), sizes[:-1], self.strides, strict=True))
        self.conv = [
            ConvTranspose(width, size, stride, self.kernel_size, self.implementation)
            for width, size, stride in reversed(layers)
        ]

    def __call__(self, z: jax.Array) -> jax.Array:
        places = (*self.shape[:2], -1) if self.is_grid else (-1,)
        x = self.dense(z.reshape(z.shape[0], *places)).reshape(z.shape[0], *self.shape)
        return in_chunks(ConvDecoder._convolve, self, x, self.data_shape[0] * self.data_shape[1], self.implementation)

    def _convolve(self, x: jax.Array) -> jax.Array:
        for layer in self.conv:
            x = layer(self.activation(x))
        return x


def strided_sizes(size: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width before the first convolution of these strides and behind each.

    Example:
      >>> strided_sizes((28, 28), (1, 2, 2, 1))
      [(28, 28), (28, 28), (14, 14), (7, 7), (7, 7)]
    """
    sizes = [(size[0], size[1])]
    for stride in strides:
        sizes.append(_strided(sizes[-1], stride))
    return sizes


def _check_layers(features: tuple[int, ...], strides: tuple[int, ...]) -> None:
    if not features or len(features) != len(strides) or min(*features, *strides) < 1:
        raise InputError(
            f"features={features} and strides={strides}; each layer needs one of both, and they are positive integers."
        )
