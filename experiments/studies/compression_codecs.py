"""JPEG, WebP and PNG of Pillow on 8-bit pictures: bytes and squared error, and what one needs at another's error."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

JPEG_QUALITIES = (1, 2, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95)
WEBP_QUALITIES = (0, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"format": "JPEG", "optimize": True},
    "webp": {"format": "WebP", "method": 4},
    "png": {"format": "PNG", "optimize": True},
    "webp_lossless": {"format": "WebP", "lossless": True, "quality": 100},
}


class Saved(NamedTuple):
    """One picture as a file."""

    num_bytes: int
    pixels: np.ndarray  # read again, in the shape that was saved


def settings() -> Iterator[tuple[str, int | None]]:
    """Each codec with each quality, those without loss once."""
    yield from (("jpeg", quality) for quality in JPEG_QUALITIES)
    yield from (("webp", quality) for quality in WEBP_QUALITIES)
    yield from (("png", None), ("webp_lossless", None))


def saved(pixels: np.ndarray, codec: str, quality: int | None = None) -> Saved:
    """A picture, `[H, W]` or `[H, W, 3]` uint8, as a file of the codec; WebP knows no grey, and has it in colour."""
    from PIL import Image

    file = io.BytesIO()
    own = {} if quality is None else {"quality": quality}
    Image.fromarray(pixels).save(file, **OPTIONS[codec] | own)
    with Image.open(file) as image:
        read = np.asarray(image.convert("L" if pixels.ndim == 2 else "RGB"))
    return Saved(len(file.getvalue()), read)


def psnr(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Peak signal to noise of 8-bit pictures, `10 log10(255^2 / MSE)` in dB, over all pixels and channels."""
    mse = np.square(x.astype(np.float64) - x_hat).mean()
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def bits_at(wanted: float, psnrs: Sequence[float], bits: Sequence[float]) -> float:
    """Bits of a codec at a PSNR that is between those of its settings, along straight lines of log bits; else NaN."""
    order = np.argsort(psnrs, kind="stable")
    x, y = np.asarray(psnrs, float)[order], np.log(np.asarray(bits, float)[order])
    return float(np.exp(np.interp(wanted, x, y))) if x[0] <= wanted <= x[-1] else float("nan")


def sheet(images: np.ndarray) -> np.ndarray:
    """Images `[N, H, W]` side by side in a square, as one picture; black where there are not enough."""
    count, height, width = images.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    full = np.zeros((down * across, height, width), images.dtype)
    full[:count] = images
    return full.reshape(down, across, height, width).swapaxes(1, 2).reshape(down * height, across * width)


def unsheet(picture: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The images `[N, H, W]` of a sheet."""
    count, height, width = shape
    rows = picture.reshape(picture.shape[0] // height, height, -1, width).swapaxes(1, 2)
    return rows.reshape(-1, height, width)[:count]
