"""Convolutions for images of any size, whose code is a small image too: analysis and synthesis, with GDN in between.

Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017. GDN normalises each place
by its own channels, so neither examples nor places are coupled.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.nets.conv import Conv, ConvTranspose

_FLOOR = 1e-6  # of beta
_BETA, _GAMMA, _OTHERS = 1.0, 0.1, 1e-3  # at the start; a gamma of 0, the root of which is learned, would stay there


class GDN(nn.Module):
    """Generalised divisive normalisation: `x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)`, or times that root.

    beta and gamma are squares of what is learned, so they are never negative.

    Attributes:
      inverse: whether it multiplies, which is the approximate inverse of a synthesis.

    Call: `[..., C] -> [..., C]`.

    Example:
      >>> x = jnp.array([[2.0]])
      >>> params = GDN().init(jax.random.key(0), x)
      >>> round(float(GDN().apply(params, x)[0, 0]), 4)  # 2 / sqrt(1 + 0.1 * 4)
      1.6903

    Reference: Ballé, Laparra & Simoncelli (2017); the inverse is one step in place of an iteration.
    """

    inverse: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        beta = self.param("beta_root", nn.initializers.constant(math.sqrt(_BETA)), (channels,))
        gamma = self.param("gamma_root", _first_gamma, (channels, channels))
        offset = (jnp.square(beta) + _FLOOR).reshape(*(1,) * (x.ndim - 1), -1)
        size = jnp.sqrt(offset + jnp.square(x) @ jnp.square(gamma))
        return x * size if self.inverse else x / size


def _first_gamma(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    return jnp.sqrt(_OTHERS + (_GAMMA - _OTHERS) * jnp.eye(shape[0], dtype=dtype))


class Analysis(nn.Module):
    """Convolutions with GDN between them, on images of any size, padded at their ends to a multiple of the stride.

    Attributes:
      code_dim: M, channels of the code.
      features: channels after each convolution but the last.
      strides: of each convolution, one more than `features`; the code has an edge for their product of pixels.
      kernels: edge of the kernel of each convolution.

    Call: `[B, H, W, C] -> [B, ceil(H / S), ceil(W / S), M]` with S the product of the strides.
    """

    code_dim: int
    features: tuple[int, ...] = (64, 64)
    strides: tuple[int, ...] = (4, 2, 2)
    kernels: tuple[int, ...] = (9, 5, 5)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _check_layers(self.features, self.strides, self.kernels)
        if x.ndim != 4:
            raise InputError(f"An analysis takes images `[B, H, W, C]`; what came has the shape {x.shape}.")
        x = padded(x, math.prod(self.strides)) - 0.5
        for i, width in enumerate((*self.features, self.code_dim)):
            x = Conv(width, self.strides[i], (self.kernels[i],) * 2, name=f"conv_{i}")(x)
            if i < len(self.features):
                x = GDN(name=f"gdn_{i}")(x)
        return x


class Synthesis(nn.Module):
    """The mirror image of `Analysis`: transposed convolutions with inverse GDN between them.

    Attributes:
      channels: C of the image.
      features: channels after each convolution but the last of the *analysis*.
      strides: likewise.
      kernels: likewise.

    Call: `[B, h, w, M] -> [B, S h, S w, C]`.
    """

    channels: int
    features: tuple[int, ...] = (64, 64)
    strides: tuple[int, ...] = (4, 2, 2)
    kernels: tuple[int, ...] = (9, 5, 5)

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        _check_layers(self.features, self.strides, self.kernels)
        if z.ndim != 4:
            raise InputError(f"A synthesis takes codes `[B, h, w, M]`; what came has the shape {z.shape}.")
        for i, width in enumerate((*self.features[::-1], self.channels)):
            stride, kernel = self.strides[-1 - i], self.kernels[-1 - i]
            size = (stride * z.shape[1], stride * z.shape[2])
            z = ConvTranspose(width, size, stride, (kernel, kernel), name=f"conv_{i}")(z)
            if i < len(self.features):
                z = GDN(inverse=True, name=f"gdn_{i}")(z)
        return z + 0.5


def padded(x: jax.Array, stride: int) -> jax.Array:
    """Images with their last rows and columns repeated until the stride divides both edges.

    Example:
      >>> padded(jnp.arange(3.0).reshape(1, 1, 3, 1), 2)[0, :, :, 0].tolist()
      [[0.0, 1.0, 2.0, 2.0], [0.0, 1.0, 2.0, 2.0]]
    """
    ends = [(0, -size % stride) for size in x.shape[1:3]]
    return jnp.pad(x, [(0, 0), *ends, (0, 0)], mode="edge")


def _check_layers(features: tuple[int, ...], strides: tuple[int, ...], kernels: tuple[int, ...]) -> None:
    if not len(features) + 1 == len(strides) == len(kernels) or min(*features, *strides, *kernels) < 1:
        raise InputError(
            f"features={features}, strides={strides} and kernels={kernels}: there are as many strides as kernels, one"
            " more than features, and all are positive integers."
        )
