"""Arrays to bytes and back: a header, then the integers of a code, channel by channel, by a range coder."""

import math
import struct
import zlib
from functools import partial
from typing import Any

import flax.errors
import jax
import numpy as np
from jax.typing import ArrayLike

from aejax import extras, fingerprint
from aejax.checks import InputError
from aejax.compress import tables
from aejax.evaluation import call, over_batches
from aejax.evaluation.apply import examples
from aejax.methods.compressive_ae import CompressiveAE, cropped

_MAGIC, _VERSION = b"AXC", 1
_HEADER = struct.Struct("<3sBI8sB")  # magic, version, CRC-32 of the rest, fingerprint, axes of x; then their sizes
_SIZE = struct.Struct("<I")
_ESCAPED = 2**31  # escaped integers are nearer to zero than this, and take 32 bits beside the escape
_MOST = 2**31  # numbers in an array that a header may ask for


def compress(model: CompressiveAE, params: Any, x: ArrayLike) -> bytes:
    """Writes examples as one file; `decompress` with the same model reads them.

    Args:
      model: a `CompressiveAE` whose entropy model is `LogisticMixtures`.
      params: by group.
      x: `[N, ...]` float, at least one example, in the range of the likelihood.

    Returns:
      A header of 17 bytes and 4 for each axis of x, then the rounded codes in words of 32 bits: as many bits as
      `estimated_bits` says, but for what frequencies of 2^-20 cannot tell, for the last word, and for integers outside
      of the tables, `tables.Table`, which take 32 bits beside an escape.

    Raises:
      InputError: another kind of model or of x; codes that are not finite, or beyond 2^31; constriction is not
        installed.

    Example:
      >>> model = aejax.CompressiveAE.dense(6, 2, hidden_dims=(4,))
      >>> x = np.linspace(0, 1, 12, dtype=np.float32).reshape(2, 6)
      >>> params = aejax.init_params(model, jax.random.key(0), x)
      >>> data = compress(model, params, x)
      >>> x_hat = decompress(model, params, data)
      >>> bool((x_hat == aejax.evaluation.reconstruct(model, params, x)).all()), len(data)
      (True, 29)
    """
    known = _tables(model, params)
    code = integers(model, params, x)
    shape = b"".join(map(_SIZE.pack, np.shape(x)))
    body = _fingerprint(model, params, known) + bytes([np.ndim(x)]) + shape + _written(code, known)
    return struct.pack("<3sBI", _MAGIC, _VERSION, zlib.crc32(body)) + body


def decompress(model: CompressiveAE, params: Any, data: bytes) -> np.ndarray:
    """Reads what `compress` wrote: what the decoder makes of the code.

    Args:
      model, params: those that it was written with.
      data: of `compress`.

    Returns:
      `[N, ...]` float32, in the order and the shape of the examples: `model.reconstruct` of them.

    Raises:
      InputError: no such file, another version of it, or a damaged one; other parameters, or tables that come out
        otherwise here; another model.
    """
    code, shape = codes_of(model, params, data)
    x_hat = over_batches(partial(call, model, params, "generate"), code.astype(np.float32))
    return np.asarray(cropped(x_hat, shape))


def codes_of(model: CompressiveAE, params: Any, data: bytes) -> tuple[np.ndarray, tuple[int, ...]]:
    """The integers in a file, `[N, ..., Z]` int32, and the shape of the examples; arguments and errors as above."""
    known = _tables(model, params)
    if len(data) < _HEADER.size or data[:3] != _MAGIC:
        raise InputError(f"{len(data)} bytes that are no file of aejax.compress.")
    _, version, crc, digest, axes = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise InputError(f"The file has version {version} of the format; this program reads version {_VERSION}.")
    if zlib.crc32(data[8:]) != crc:
        raise InputError("The file is damaged or cut off: its checksum is wrong.")
    if digest != _fingerprint(model, params, known):
        raise InputError(
            "The file was written with other parameters or another model, or on a machine whose tables of frequencies"
            " differ. Open it with the model that wrote it."
        )
    start = header_bytes(axes)
    shape = tuple(size for (size,) in _SIZE.iter_unpack(data[_HEADER.size : start]))
    return _read(data[start:], known, _code_shape(model, params, shape, "The file holds")), shape


def estimated_bits(model: CompressiveAE, params: Any, x: ArrayLike) -> float:
    """The information of the rounded codes of x under the entropy model, in bits, of all examples together."""
    code = integers(model, params, x).astype(np.float32)
    rate = over_batches(partial(call, model, params, "rate"), code)
    return float(rate.sum(dtype=np.float64)) / math.log(2)


def header_bytes(axes: int) -> int:
    """What stands before the codes of examples `[N, ...]` with so many axes.

    Example:
      >>> header_bytes(4)
      33
    """
    return _HEADER.size + _SIZE.size * axes


def integers(model: CompressiveAE, params: Any, x: ArrayLike) -> np.ndarray:
    """The rounded codes of x, `[N, ..., Z]` int32.

    Raises:
      InputError: x does not go with the model, or a code is not finite, or beyond 2^31.
    """
    (x,) = examples(model, x, likelihood=model.likelihood)
    _code_shape(model, params, np.shape(x), "These are")
    code = over_batches(partial(call, model, params, "embed"), x).astype(np.float64)
    if not (np.abs(code) < _ESCAPED).all():
        raise InputError("The encoder returns numbers that are not finite, or beyond 2^31; the coder takes none such.")
    return code.astype(np.int32)


def _tables(model: Any, params: Any) -> list[tables.Table]:
    extras.need("Compression", "constriction", extra="compress")
    if not isinstance(model, CompressiveAE):
        raise InputError(f"This is a {type(model).__name__}; a CompressiveAE is needed, which has an entropy model.")
    if lacking := [group for group in model.groups if group not in params]:
        raise InputError(f"The parameters lack {', '.join(lacking)}; all of a CompressiveAE are needed.")
    return tables.of_model(model.entropy, params["entropy"])


def _fingerprint(model: CompressiveAE, params: Any, known: list[tables.Table]) -> bytes:
    lows = np.array([table.low for table in known], np.int64)
    return fingerprint.of_params(params, [lows, *(table.frequencies for table in known)], model=model)


def _code_shape(model: CompressiveAE, params: Any, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Of the codes of examples of that shape."""
    try:
        if len(shape) < 2 or 0 in shape or math.prod(shape) > _MOST:
            raise InputError("it is empty, or too large, or no [N, ...]")
        x = jax.ShapeDtypeStruct(shape, np.float32)
        return jax.eval_shape(lambda params, x: call(model, params, "embed", x), params, x).shape
    except (InputError, TypeError, ValueError, flax.errors.FlaxError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where} examples of shape {shape}, which this model does not take: {reason}") from error


def _written(code: np.ndarray, known: list[tables.Table]) -> bytes:
    import constriction

    coder = constriction.stream.queue.RangeEncoder()
    for channel, table in enumerate(known):
        values = code[..., channel].ravel().astype(np.int64)
        escape = len(table.frequencies) - 1
        places = values - table.low
        is_beyond = (places < 0) | (places >= escape)
        coder.encode(np.where(is_beyond, escape, places).astype(np.int32), _frequencies(table))
        if is_beyond.any():
            halves = np.stack(np.divmod(values[is_beyond] + _ESCAPED, 2**16), axis=1).ravel()
            coder.encode(halves.astype(np.int32), _half())
    return coder.get_compressed().astype("<u4").tobytes()


def _read(data: bytes, known: list[tables.Table], shape: tuple[int, ...]) -> np.ndarray:
    import constriction

    if len(data) % 4:
        raise InputError("The file is damaged: its words are not of four bytes.")
    coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    code = np.empty((math.prod(shape[:-1]), shape[-1]), np.int32)
    for channel, table in enumerate(known):
        escape = len(table.frequencies) - 1
        places = coder.decode(_frequencies(table), len(code)).astype(np.int64)
        values, is_beyond = places + table.low, places == escape
        if count := int(is_beyond.sum()):
            high, low = coder.decode(_half(), 2 * count).astype(np.int64).reshape(count, 2).T
            values[is_beyond] = high * 2**16 + low - _ESCAPED
        code[:, channel] = values
    return code.reshape(shape)


def _frequencies(table: tables.Table) -> Any:
    import constriction

    return constriction.stream.model.Categorical(table.frequencies / tables.TOTAL, perfect=False)


def _half() -> Any:
    """Of 16 of the 32 bits of an escaped integer."""
    import constriction

    return constriction.stream.model.Uniform(2**16)
