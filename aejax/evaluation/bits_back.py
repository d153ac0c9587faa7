"""Bits-back coding: a latent-variable model as a lossless compressor, whose message is as long as its negative bound.

Townsend, Bird & Barber, "Practical lossless compression with latent variables using bits back coding", ICLR 2019
(BB-ANS). An image is put on a stack of bits in three moves: its code is *taken* from the stack by the posterior, then
the image is put on it by the likelihood at that code, then the code by the prior. That adds `-log p(x|z) - log p(z) +
log q(z|x)`, whose mean is the negative bound. Reading goes the same way back: code, image, and the bits that the code
was taken from. The stack is an ANS coder of the package constriction (`pip install "aejax[compress]"`).

A departure: there the next code is drawn from the bins of the last one, as these lie on the stack, so codes hang on
each other wherever codes do not follow the prior. Here bins are masked first, by bits that writer and reader draw from
the seed. That takes no room, and every code is a draw from its posterior. Without it an untrained network with
posteriors wider than the prior paid 17 % over its bound (2026-11-26, tests).

**What the bits depend on.** Reading has to repeat every probability to the last of 24 bits. So both networks see one
example at a time when writing and when reading: the same compiled program on the same shape. That is enough in one
process, and in two of the same machine and versions. Another kind of processor, another number of threads or another
version may round differently. Means are therefore rounded to multiples of 2^-10, log-variances and logits to multiples
of 2^-6: then an error in the seventh digit moves about one logit in 30,000, instead of every other one. But one is
enough, and an image has hundreds: **a message is a file for the program and the kind of machine that wrote it**. Where
the bits differ that is found, and never taken for images: the reader ends at the random bits that the writer began
with, or refuses.
"""

import math
import struct
import zlib
from bisect import bisect_right
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from aejax import extras, fingerprint, likelihoods
from aejax.checks import InputError
from aejax.evaluation.apply import call, examples
from aejax.evaluation.likelihood import nll
from aejax.nets import Autoencoder
from aejax.posteriors import DiagonalGaussian

_MAGIC = b"AXB1"
_HEADER = struct.Struct("<4sIBIQ8s")  # magic, CRC-32 of the rest, latent bits, images, seed, digest of the parameters
_NORMAL = NormalDist()
_MEAN_STEP, _LOG_STEP = 2.0**-10, 2.0**-6
_MAX_LOGVAR = 32.0  # either way: deviations from 1e-7 to 1e7


class Message(NamedTuple):
    """Images as bytes, and how many bits they took. The parameters of the model are not in it."""

    data: bytes  # a header of 29 bytes, then the stack in words of 32 bits, little endian
    num_images: int
    net_bits: int  # what they added to the stack
    initial_bits: int  # random ones that were on it before, and are on it again when all is read

    @property
    def bits_per_image(self) -> float:
        """Without the initial bits and the header."""
        return self.net_bits / self.num_images

    @property
    def nats_per_image(self) -> float:
        """The same in nats, to be held against the negative bound."""
        return self.bits_per_image * math.log(2)


class Measured(NamedTuple):
    """What `measure` returns: a message that was read again bit for bit, beside the bound of its model."""

    message: Message
    bound_nats: float  # the negative bound per image
    overhead: float  # nats_per_image / bound_nats - 1


def encode(model: Autoencoder, params: Any, x: ArrayLike, *, seed: int = 0, latent_bits: int = 10) -> Message:
    """Writes binary images; `decode` with the same model reads them again, bit for bit.

    Each latent dimension is cut into `2^latent_bits` bins of equal prior mass; a code is the median of its bins, and
    the posterior is that of the bins, to 24 bits, none of them impossible. To take the first code from, the stack
    begins with 32 bits for each latent dimension and 64 more, which is always enough.

    Args:
      model: a diagonal Gaussian posterior, the prior N(0, I), a Bernoulli likelihood; no labels.
      params: by group.
      x: `[N, ...]` float, of zeros and ones; at least one image.
      seed: of the initial bits, from 0 to 2^64 - 1.
      latent_bits: from 1 to 16. With too few, bins are wider than posteriors. With too many, a share of
        `2^(latent_bits - 24)` of each posterior is in bins that it hardly reaches. Either makes the message longer.

    Returns:
      The message.

    Raises:
      InputError: another kind of model, x of other values or another shape, no images; the networks return what is not
        a number; constriction is not installed.

    Example:
      >>> model = aejax.VAE.dense(6, 2, hidden_dims=(4,))
      >>> x = np.float32([[0, 1, 1, 0, 0, 1], [1, 1, 1, 0, 0, 0]])
      >>> params = aejax.init_params(model, jax.random.key(0), x)
      >>> message = encode(model, params, x)
      >>> bool((decode(model, params, message) == x).all()), message.initial_bits
      (True, 128)
    """
    codec = _Codec(model, params, latent_bits)
    x = np.asarray(*examples(model, x, likelihood=model.likelihood))
    if x.shape[1:] != codec.shape:
        raise InputError(f"Images of shape {x.shape[1:]}; this model decodes to {codec.shape}.")
    if not np.isin(x, (0, 1)).all():
        raise InputError(
            "x has values between 0 and 1; the coder takes zeros and ones: data.threshold or data.binarize."
        )
    initial, masks = _random(seed, len(x), model.latent_dim, latent_bits)
    coder = _coder(initial)
    for image, mask in zip(x.astype(np.float32), masks, strict=True):
        codec.append(coder, image, mask)
    words = coder.get_compressed().astype("<u4").tobytes()
    body = struct.pack("<BIQ8s", latent_bits, len(x), seed, fingerprint.of_params(params, model=model)) + words
    bits = 32 * len(initial)
    return Message(struct.pack("<4sI", _MAGIC, zlib.crc32(body)) + body, len(x), coder.num_valid_bits() - bits, bits)


def decode(model: Autoencoder, params: Any, message: Message | bytes) -> np.ndarray:
    """Reads what `encode` wrote.

    Args:
      model, params: those that it was written with.
      message: of `encode`, or its `data`.

    Returns:
      The images, `[N, ...]` float32, in their order.

    Raises:
      InputError: no message, or a damaged one; other parameters; or the networks gave other numbers than when it was
        written, as another model, version, device or number of threads does.
    """
    data = message.data if isinstance(message, Message) else message
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % 4 or data[:4] != _MAGIC:
        raise InputError(f"{len(data)} bytes that are no message of bits_back.encode.")
    _, crc, latent_bits, count, seed, digest = _HEADER.unpack_from(data)
    if zlib.crc32(data[8:]) != crc:
        raise InputError("The message is damaged: its checksum is wrong.")
    if digest != fingerprint.of_params(params, model=model):
        raise InputError("The message was written with other parameters, or by another model.")
    codec = _Codec(model, params, latent_bits)
    coder = _coder(np.frombuffer(data, "<u4", offset=_HEADER.size).astype(np.uint32), sealed=True)
    initial, masks = _random(seed, count, model.latent_dim, latent_bits)
    images = [codec.pop(coder, mask) for mask in masks[::-1]]
    if not np.array_equal(coder.get_compressed(), _coder(initial).get_compressed()):
        raise InputError(
            "The message was written by a model that gives other numbers: another model, version, device or number of"
            " threads. Read it with the program and on the machine that wrote it."
        )
    return np.stack(images[::-1])


def measure(
    model: Autoencoder,
    params: Any,
    x: ArrayLike,
    key: jax.Array,
    *,
    seed: int = 0,
    latent_bits: int = 10,
    num_samples: int = 16,
) -> Measured:
    """Writes images, reads them again, and holds the length of the message against the negative bound.

    Args:
      model, params, x, seed, latent_bits: as in `encode`.
      key: consumed, by the bound.
      num_samples: codes of each image over which the bound is averaged; the message has one code of each.

    Raises:
      InputError: as `encode` and `decode` do.
      RuntimeError: other images were read than were written.
    """
    message = encode(model, params, x, seed=seed, latent_bits=latent_bits)
    if not np.array_equal(decode(model, params, message), np.asarray(x)):
        raise RuntimeError("Other images were read than were written.")
    bound = nll(model, params, x, key, num_samples=num_samples).curve[1]
    return Measured(message, bound, message.nats_per_image / bound - 1)


class _Codec:
    """The distributions of one model for an ANS coder. An image goes on the stack by `append`, and off by `pop`."""

    def __init__(self, model: Autoencoder, params: Any, latent_bits: int):
        extras.need("Bits-back coding", "constriction", extra="compress")
        import constriction

        _check_model(model)
        if not 1 <= latent_bits <= 16:
            raise InputError(f"latent_bits={latent_bits}; from 1 to 16 are possible.")
        self.model, self.params, self.num_bins = model, params, 2**latent_bits
        inner = [_NORMAL.inv_cdf(i / self.num_bins) for i in range(1, self.num_bins)]
        self.edges = [-math.inf, *inner, math.inf]
        medians = [_NORMAL.inv_cdf((i + 0.5) / self.num_bins) for i in range(self.num_bins)]
        self.medians = np.array(medians, np.float32)
        entropy = constriction.stream.model
        self.prior = entropy.Uniform(self.num_bins)
        self.likelihood = entropy.Bernoulli(perfect=False)
        self.posterior = entropy.CustomModel(self._cdf, self._quantile, 0, self.num_bins - 1)
        code = jax.ShapeDtypeStruct((1, model.latent_dim), np.float32)
        self.shape = jax.eval_shape(lambda params, z: call(model, params, "decode", z), params, code).shape[1:]

    def append(self, coder: Any, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Puts an image on the stack; returns the bins of its code, `[Z]`."""
        bins = coder.decode(self.posterior, *self._posterior(x))
        coder.encode_reverse(x.astype(np.int32).ravel(), self.likelihood, self._probabilities(bins))
        coder.encode_reverse(bins ^ mask, self.prior)
        return bins

    def pop(self, coder: Any, mask: np.ndarray) -> np.ndarray:
        """Takes the image from the stack that was put there last."""
        bins = coder.decode(self.prior, self.model.latent_dim) ^ mask
        x = coder.decode(self.likelihood, self._probabilities(bins)).astype(np.float32).reshape(self.shape)
        coder.encode_reverse(bins, self.posterior, *self._posterior(x))
        return x

    def _posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and deviations, `[Z]` float64, of one image."""
        posterior = call(self.model, self.params, "encode", x[None])
        if not isinstance(posterior, DiagonalGaussian):
            raise InputError(f"{type(self.model).__name__}.encode returns no DiagonalGaussian, which the coder takes.")
        mean, logvar = _rounded(posterior.mean, _MEAN_STEP), _rounded(posterior.logvar, _LOG_STEP)
        return mean, np.exp(0.5 * logvar.clip(-_MAX_LOGVAR, _MAX_LOGVAR))

    def _probabilities(self, bins: np.ndarray) -> np.ndarray:
        """Of each pixel to be one, `[D]` float64, given the bins of a code."""
        logits = _rounded(call(self.model, self.params, "decode", self.medians[bins][None]), _LOG_STEP)
        return 0.5 + 0.5 * np.tanh(0.5 * logits)

    def _cdf(self, edge: float, mean: float, deviation: float) -> float:
        """Posterior mass below `edge`, half-way between a bin and the next."""
        return 0.5 * math.erfc((mean - self.edges[int(edge + 0.5)]) / (deviation * math.sqrt(2)))

    def _quantile(self, mass: float, mean: float, deviation: float) -> float:
        """The bin at which that mass is reached, about: the coder begins its search there."""
        z = mean + deviation * _NORMAL.inv_cdf(min(max(mass, 1e-12), 1 - 1e-12))
        return float(min(bisect_right(self.edges, z), self.num_bins) - 1)


def _check_model(model: Autoencoder) -> None:
    what = f"This {type(model).__name__}"
    if model.takes_labels:
        raise InputError(f"{what} is conditioned on labels; the coder takes none.")
    if not isinstance(likelihoods.get(model.likelihood), likelihoods.Bernoulli):
        raise InputError(f"{what} has the likelihood {model.likelihood}; the coder takes bernoulli.")
    if not model.has_normal_prior:
        raise InputError(f"{what} has the prior {model.prior}; the coder takes N(0, I).")


def _coder(words: np.ndarray, *, sealed: bool = False) -> Any:
    """A stack of these words, as uint32; a one is put on top of those that are not yet sealed."""
    import constriction

    return constriction.stream.stack.AnsCoder(words, not sealed)


def _random(seed: int, count: int, latent_dim: int, latent_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The words that the stack begins with, and a mask for the bins of each image, `[N, Z]`."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed={seed}; it has to be at least 0 and below 2^64.")
    source = np.random.PCG64(seed)
    words = source.random_raw(latent_dim + 2) >> np.uint64(32)
    masks = source.random_raw(count * latent_dim).reshape(count, latent_dim) >> np.uint64(64 - latent_bits)
    return words.astype(np.uint32), masks.astype(np.int32)


def _rounded(values: Any, step: float) -> np.ndarray:
    found = np.asarray(values, np.float64).ravel()
    if not np.isfinite(found).all():
        raise InputError("The network returns what is not a number, or not finite.")
    return np.round(found / step) * step
