"""Convolutional networks for images of any size, with the same parameters and the same numbers on every backend.

On CPU a convolution is computed as shifted slices and one matrix product (im2col), because the convolutions of
XLA:CPU fall off their fast path inside a compiled loop (jax issue 12868). Elsewhere it is the convolution of `lax`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from aejax.checks import InputError, nearest

IMPLEMENTATIONS = ("auto", "slices", "lax")


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, implementation: str = "auto") -> jax.Array:
    """2-D convolution (cross-correlation, as everywhere in deep learning) with padding `SAME`.

    Args:
      x: `[B, H, W, C]` float.
      kernel: `[KH, KW, C, F]` float.
      stride: along both axes.
      implementation: `slices` (shifted slices and a matrix product), `lax`, or `auto`: `slices` on CPU.

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
    padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    if _use_lax(implementation):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    patches = _patches(x, kernel.shape[:2], stride, padding)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def conv_transpose(
    x: jax.Array, kernel: jax.Array, size: tuple[int, int], stride: int = 1, implementation: str = "auto"
) -> jax.Array:
    """Transposed convolution to an image of exactly the size asked for.

    It is the adjoint, in x, of the `conv` with this stride from `size` to the size of x. Where stride divides `size`
    it equals `lax.conv_transpose(..., "SAME")`; elsewhere that, less the rows and columns beyond `size`.

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
    small = tuple(-(-n // stride) for n in size)
    if x.shape[1:3] != small:
        raise InputError(
            f"A transposed convolution to {size} with stride {stride} starts at {small}, not at {x.shape[1:3]}."
        )
    forward = lax.padtype_to_pads(size, kernel.shape[:2], (stride, stride), "SAME")
    padding = [
        (k - 1 - low, n - (m - 1) * stride - 1 + low)
        for k, (low, _), n, m in zip(kernel.shape[:2], forward, size, small, strict=True)
    ]
    if _use_lax(implementation):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    dilated = lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, stride - 1) for low, high in padding), (0, 0, 0)]
    )
    return _patches(dilated, kernel.shape[:2], 1, [(0, 0), (0, 0)]) @ kernel.reshape(-1, kernel.shape[-1])


def _use_lax(implementation: str) -> bool:
    if implementation not in IMPLEMENTATIONS:
        known = nearest(implementation, IMPLEMENTATIONS, what="implementations")
        raise InputError(f"Unknown implementation {implementation!r}. {known}")
    return implementation == "lax" or (implementation == "auto" and jax.default_backend() != "cpu")


def _patches(x: jax.Array, window: tuple[int, ...], stride: int, padding: list[tuple[int, int]]) -> jax.Array:
    """What the kernel sees at each place, `[B, H, W, KH * KW * C]`."""
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], window, strict=True))
    return jnp.concatenate(
        [
            x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            for i in range(window[0])
            for j in range(window[1])
        ],
        axis=-1,
    )


class Conv(nn.Module):
    """A convolution, padding `SAME`, with the parameters of `nn.Conv`.

    Attributes:
      features: F, the number of channels that it returns.
      stride: along both axes.
      kernel_size: height and width of the kernel.
      implementation: as in the function `conv`.

    Call: `[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), F]`.
    """

    features: int
    stride: int = 1
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv(x, kernel, self.stride, self.implementation) + bias.reshape(1, 1, 1, -1)


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

    Call: `[B, H, W, C] -> [B, code_dim]`, for any H, W and C. Layers are named `conv_0`, `conv_1`, ..., `dense`.
    """

    code_dim: int
    features: tuple[int, ...] = (32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"

    def setup(self):
        _check_layers(self.features, self.strides)
        self.conv = [
            Conv(width, stride, self.kernel_size, self.implementation)
            for width, stride in zip(self.features, self.strides, strict=True)
        ]
        self.dense = nn.Dense(self.code_dim)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.conv:
            x = self.activation(layer(x))
        return self.dense(x.reshape(x.shape[0], -1))


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

    Call: `[B, Z] -> [B, H, W, C]`. Layers are named `dense`, `conv_0`, `conv_1`, ... in the order of computation.
    """

    data_shape: tuple[int, int, int]
    features: tuple[int, ...] = (32, 64, 64, 64)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    activation: Callable[[jax.Array], jax.Array] = nn.leaky_relu
    kernel_size: tuple[int, int] = (3, 3)
    implementation: str = "auto"

    def setup(self):
        _check_layers(self.features, self.strides)
        height, width, channels = self.data_shape
        sizes = [(height, width)]
        for stride in self.strides:
            sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
        self.shape = (*sizes[-1], self.features[-1])
        self.dense = nn.Dense(self.shape[0] * self.shape[1] * self.shape[2])
        layers = list(zip((channels, *self.features[:-1]), sizes[:-1], self.strides, strict=True))
        self.conv = [
            ConvTranspose(width, size, stride, self.kernel_size, self.implementation)
            for width, size, stride in reversed(layers)
        ]

    def __call__(self, z: jax.Array) -> jax.Array:
        x = self.dense(z).reshape(z.shape[0], *self.shape)
        for layer in self.conv:
            x = layer(self.activation(x))
        return x


def _check_layers(features: tuple[int, ...], strides: tuple[int, ...]) -> None:
    if not features or len(features) != len(strides) or min(*features, *strides) < 1:
        raise InputError(
            f"features={features} and strides={strides}; each layer needs one of both, and they are positive integers."
        )
