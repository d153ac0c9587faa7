"""The MS-SSIM VAE: a reconstruction is held against its image by their structural similarity at several scales.

Snell, Ridgeway, Liao, Roads, Mozer & Zemel, "Learning to generate images with perceptual similarity metrics", ICIP 2017
(arXiv:1511.06409), train deterministic and stochastic autoencoders by it. The similarity is that of Wang, Simoncelli &
Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003, of the index of Wang, Bovik,
Sheikh & Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import likelihoods
from aejax.algorithm import Algorithm, Metrics, Params, Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.factory import Method, NonNegative, Positive, Term, Tx, check_data, factory, optimisers
from aejax.methods.gan import refuse_densities, refuse_others
from aejax.methods.vae import VAE
from aejax.nets import ConvDecoder
from aejax.posteriors import refuse_uniform, sample_and_kl
from aejax.precision import widen

__all__ = ["MSSSIMVAE", "ms_ssim", "ms_ssim_vae", "ms_ssim_vae_loss", "ssim"]

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
_SIGMA, _C1, _C2 = 1.5, 0.01**2, 0.03**2  # the constants for values in [0, 1]
_FLOOR = 1e-4  # of what is raised to a power below 1, whose slope at 0 is infinite


def _blur(size: int, window: int) -> np.ndarray:
    """Gaussian means over all places of a window along a side: `[size - window + 1, size]`, rows that sum to 1."""
    weights = np.exp(-0.5 * np.square((np.arange(window) - (window - 1) / 2) / _SIGMA))
    rows = np.zeros((size - window + 1, size))
    for i, row in enumerate(rows):
        row[i : i + window] = weights / weights.sum()
    return rows


def _parts(x: jax.Array, y: jax.Array, window: int) -> tuple[jax.Array, jax.Array]:
    """SSIM, and its contrast times its structure, `[B, C]` each: means over all places of the window."""
    check_window(x.shape[1:], window)
    down, across = (_blur(size, window).astype(x.dtype) for size in x.shape[1:3])
    # `highest`: variances are differences, of which fewer digits leave nothing
    local = lambda v: jnp.einsum("ih,jw,bhwc->bijc", down, across, v, precision="highest")
    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(jnp.square(x)) - jnp.square(mean_x), local(jnp.square(y)) - jnp.square(mean_y)
    cov = local(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (jnp.square(mean_x) + jnp.square(mean_y) + _C1)
    contrast = (2 * cov + _C2) / (var_x + var_y + _C2)
    return (luminance * contrast).mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


@partial(jax.jit, static_argnames=("window",))
def ssim(x: jax.Array, y: jax.Array, window: int = 11) -> jax.Array:
    """Structural similarity of images in [0, 1], mean over the places of the window and over channels.

    Args:
      x, y: `[B, H, W, C]` float.
      window: places along a side of the Gaussian window, whose deviation is 1.5.

    Returns:
      `[B]`, at most 1, which equal images have.

    Raises:
      InputError: the images are smaller than the window.

    Example:
      >>> grey = jnp.full((1, 11, 11, 1), 0.5)
      >>> round(float(ssim(grey, 0.5 * grey)[0]), 4)  # (2 a b + c) / (a^2 + b^2 + c)
      0.8001

    Reference: Wang et al. (2004), equation 13, with K of 0.01 and 0.03; places where the window reaches beyond the
    image are left out.
    """
    return _parts(widen(x), widen(y), window)[0].mean(axis=1)


@partial(jax.jit, static_argnames=("window",))
def ms_ssim(x: jax.Array, y: jax.Array, window: int = 11) -> jax.Array:
    """Multi-scale structural similarity of images in [0, 1], mean over channels.

    Args:
      x, y: `[B, H, W, C]` float.
      window: as in `ssim`; there are as many scales, five at most, as leave an image that holds it, each half as large
        as the one before.

    Returns:
      `[B]` in [0, 1]; equal images have 1.

    Raises:
      InputError: the images are smaller than the window.

    Reference: Wang et al. (2003), equation 7: contrast and structure at all scales, luminance at the coarsest.
    Departures: exponents of fewer scales are divided by their sum; a scale is the mean of 2 x 2 pixels, a last odd row
    or column left out; each mean counts as 1e-4 at least, for an anticorrelated one has no such power, and an image
    with such a mean at every scale has no gradient until another term moves it.
    """
    x, y, scales = widen(x), widen(y), num_scales(x.shape[1:], window)
    exponents, found = np.array(EXPONENTS[:scales]) / sum(EXPONENTS[:scales]), jnp.ones(())
    for i, exponent in enumerate(exponents):
        whole, contrast = _parts(x, y, window)
        found *= jnp.maximum(whole if i == scales - 1 else contrast, _FLOOR) ** float(exponent)
        x, y = _halved(x), _halved(y)
    return found.mean(axis=1)


def _halved(x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def num_scales(shape: tuple[int, ...], window: int) -> int:
    """How many scales an image `(H, W, C)` has, five at most, of which the coarsest holds the window."""
    check_window(shape, window)
    return next(n for n in range(len(EXPONENTS), 0, -1) if min(shape[:2]) >> (n - 1) >= window)


def check_window(shape: tuple[int, ...], window: int) -> None:
    """Refuses an image `(H, W, C)` that does not hold the window, and a window of a single pixel or less."""
    if len(shape) != 3 or not 2 <= window <= min(shape[:2]):
        raise InputError(f"A window of {window} pixels, at least 2, has to fit into an image (H, W, C) of {shape}.")


def usual_window(shape: tuple[int, ...]) -> int:
    """11, or for images that do not hold it at two scales the largest odd window that they do, from 3 up."""
    half = min(shape[:2]) // 2
    return min(11, max(3, half - 1 + half % 2))


class MSSSIMVAE(VAE):
    """A VAE that compares images.

    Attributes:
      image_shape: `(H, W, C)` of what stands in a vector; by default it is a grey square if it can be, and else has to
        be given.
      window: places along a side of the window; by default 11, or less for an image that would have a single scale.
    """

    image_shape: tuple[int, int, int] | None = None
    window: int | None = None

    @classmethod
    def completed(cls, model: Any) -> Any:
        """With the shape and the window of its images."""
        net = model.decoder
        shape = net.data_shape if isinstance(net, ConvDecoder) else model.image_shape or _square(net.features[-1])
        if not isinstance(net, ConvDecoder) and math.prod(shape) != net.features[-1]:
            raise InputError(f"image_shape={shape} has {math.prod(shape)} numbers, and x {net.features[-1]}.")
        window = usual_window(shape) if model.window is None else model.window
        check_window(shape, window)
        return model.clone(image_shape=tuple(shape), window=window)

    def similarity(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """`ms_ssim` of examples: `[B, ...], [B, ...] -> [B]`.

        Raises:
          InputError: the model was made without `dense` and `conv`, and lacks the shape or the window.
        """
        if self.image_shape is None or self.window is None:
            raise InputError("Images are compared: give image_shape=(H, W, C) and window.")
        shape = (len(x), *self.image_shape)
        return ms_ssim(x.reshape(shape), y.reshape(shape), self.window)


def _square(size: int) -> tuple[int, int, int]:
    side = math.isqrt(size)
    if side * side != size:
        raise InputError(f"Images are compared, and {size} numbers are no grey square: give image_shape=(H, W, C).")
    return side, side, 1


class HParams(NamedTuple):
    """Real-valued knobs; each may be traced, so that `vmap` sweeps it, or a schedule."""

    lr: Positive = 1e-3
    """Learning rate."""
    beta: NonNegative = 1.0
    """Weight of the KL."""
    similarity: NonNegative = 100.0
    """Weight of what the similarity lacks to 1."""


@partial(jax.jit, static_argnames=("model",))
def ms_ssim_vae_loss(
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    model: MSSSIMVAE,
    beta: float | jax.Array = 1.0,
    similarity: float | jax.Array = 100.0,
) -> tuple[jax.Array, Metrics]:
    """`beta` times the KL in nats per example, plus `similarity` times what a reconstruction lacks to the similarity 1.

    Args:
      params: `{"encoder", "decoder"}`, and `prior` where that is learned.
      batch: `x` `[B, ...]` in [0, 1].
      key: consumed.
      model: static.
      beta: weight of the KL.
      similarity: weight of `ms_ssim_gap`; a similarity is no likelihood, so the scale is a choice.

    Returns:
      The mean over the batch; `kl_nats`; `ms_ssim_gap`, 1 - `ms_ssim` of an example and its reconstruction from a draw;
      and `sse`, of pixels, which nothing lowers as such.
    """
    bound, x = model.bind({"params": params}), batch.x
    z, kl = sample_and_kl(bound.encode(x), key, bound)
    x_hat = bound.generate(z)
    gap, kl = 1 - bound.similarity(x, x_hat).mean(), kl.mean()
    metrics = {"kl_nats": kl, "ms_ssim_gap": gap, "sse": likelihoods.sse(x_hat, x).mean()}
    return beta * kl + similarity * gap, metrics


@factory(learns_prior=True)
def ms_ssim_vae(
    model: MSSSIMVAE, hparams: HParams = HParams(), tx: Tx = optax.adam, *, axis_name: str | None = None
) -> Algorithm:
    """One player, as in `vae`.

    Departures: networks, rate and weights are ours, and small images have fewer scales than five.

    Returns:
      `elbo` moves `model.groups`.

    Raises:
      InputError: a likelihood of values outside [0, 1] or with more to learn than a mean, the uniform prior, or a model
        that is no `MSSSIMVAE`.
    """
    refuse_others(model, MSSSIMVAE)
    refuse_densities(model)
    refuse_uniform(model)
    if likelihoods.get(model.likelihood).support[:2] != (0, 1):
        raise InputError(f"Images in [0, 1] are compared, and {model.likelihood} has others; use bernoulli.")
    loss, knobs = partial(ms_ssim_vae_loss, model=model), {"beta": hparams.beta, "similarity": hparams.similarity}
    elbo = Player(loss, model.groups, optimisers(tx, {"elbo": hparams.lr})["elbo"], knobs=knobs)
    return play({"elbo": elbo}, [["elbo"]], axis_name=axis_name, check=partial(check_data, model))


TERMS = {"ms_ssim_gap": Term("none", "1 - MS-SSIM of an example and its reconstruction")}
METHOD = Method(
    MSSSIMVAE, HParams, ms_ssim_vae, "variational, by structural similarity (MS-SSIM)", "Snell et al. 2017", terms=TERMS
)
