"""Pictures to files of `aejax.compress`, and such files to PNG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aejax import extras
from aejax.checks import InputError, expanded
from aejax.compress.codec import compress, decompress
from aejax.methods.compressive_ae import CompressiveAE
from aejax.nets.transforms import Synthesis

_MODES = {1: "L", 3: "RGB"}
_OF_BYTES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")  # what `convert` may take


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
    _whole(expanded(target), lambda part: part.write_bytes(data))
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
    _whole(target, Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save)


def _whole(target: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside the target and puts it there when it is whole."""
    part = target.with_name(f".part-{target.name}")
    try:
        write(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def as_bytes(x: np.ndarray) -> np.ndarray:
    """Values, of which 0 is black and 1 white, as uint8."""
    return np.round(255 * np.asarray(x, np.float64).clip(0, 1)).astype(np.uint8)


def _mode(model: CompressiveAE) -> str:
    extras.need("A picture", "PIL", extra="compress")
    if not isinstance(getattr(model, "decoder", None), Synthesis) or model.decoder.channels not in _MODES:
        raise InputError("Pictures of any size are for models of CompressiveAE.images with one or three channels.")
    return _MODES[model.decoder.channels]


def _picture(path: Path, mode: str) -> np.ndarray:
    """`[H, W, C]` float32 in [0, 1], turned as its orientation says."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path.open("rb").close()  # a file that is missing is an OSError of its own
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            pixels = np.asarray(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no picture that Pillow can read.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is damaged, or too large for Pillow: {error}") from error
    if image.mode != mode:
        advice = (
            f"save Image.open(...).convert({mode!r}) and give that." if image.mode in _OF_BYTES
            else "bring its values to 8 bits first, which `convert` does not."
        )  # fmt: skip
        raise InputError(f"{path} is a picture of mode {image.mode}; this model takes {mode}: {advice}")
    return (pixels.reshape(*pixels.shape[:2], -1) / 255).astype(np.float32)
