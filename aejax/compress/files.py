"""Pictures to files of `aejax.compress`, and such files to PNG."""

from pathlib import Path
from typing import Any

import numpy as np

from aejax import extras
from aejax.checks import InputError, expanded
from aejax.compress.codec import compress, decompress
from aejax.methods.compressive_ae import CompressiveAE
from aejax.nets.transforms import Synthesis

_MODES = {1: "L", 3: "RGB"}


def encode_file(model: CompressiveAE, params: Any, source: str | Path, target: str | Path) -> int:
    """Writes a picture of any size that Pillow reads as a file of `aejax.compress`.

    Args:
      model: of `CompressiveAE.images`, for one or three channels.
      params: by group.
      source: the picture, grey or RGB with 8 bits for each, as the model takes it.
      target: the file, which is replaced.

    Returns:
      The bytes that it has.

    Raises:
      InputError: another model, no picture, or one of another kind; as in `compress`.
      OSError: a file cannot be read or written.
    """
    x = _picture(expanded(source), _mode(model))
    data = compress(model, params, x[None])
    expanded(target).write_bytes(data)
    return len(data)


def decode_file(model: CompressiveAE, params: Any, source: str | Path, target: str | Path) -> None:
    """Writes the picture that a file of `aejax.compress` holds as PNG, rounded to 8 bits for each channel.

    Args:
      model, params: those that it was written with.
      source: the file.
      target: ends in .png, which loses nothing; replaced.

    Raises:
      InputError: as in `decompress`; another ending; several pictures in one file.
      OSError: a file cannot be read or written.
    """
    mode, target = _mode(model), expanded(target)
    if target.suffix.lower() != ".png":
        raise InputError(f"{target}: give a file with the ending .png, which adds no loss of its own.")
    x_hat = decompress(model, params, expanded(source).read_bytes())
    if len(x_hat) != 1:
        raise InputError(f"{source} holds {len(x_hat)} pictures; decompress returns them all.")
    from PIL import Image

    pixels = as_bytes(x_hat[0])
    Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save(target)


def as_bytes(x: np.ndarray) -> np.ndarray:
    """Values, of which 0 is black and 1 white, as uint8."""
    return np.round(255 * np.asarray(x, np.float64).clip(0, 1)).astype(np.uint8)


def _mode(model: CompressiveAE) -> str:
    extras.need("A picture", "PIL", extra="compress")
    if not isinstance(getattr(model, "decoder", None), Synthesis) or model.decoder.channels not in _MODES:
        raise InputError("Pictures of any size are for models of CompressiveAE.images with one or three channels.")
    return _MODES[model.decoder.channels]


def _picture(path: Path, mode: str) -> np.ndarray:
    """`[H, W, C]` float32 in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode != mode:
                raise InputError(
                    f"{path} is a picture of mode {image.mode}; this model takes {mode}: save"
                    f" Image.open(...).convert({mode!r}) and give that."
                )
            pixels = np.asarray(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no picture that Pillow can read.") from error
    return (pixels.reshape(*pixels.shape[:2], -1) / 255).astype(np.float32)
