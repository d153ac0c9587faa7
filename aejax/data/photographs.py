"""Photographs: the 24 of Kodak, to test on, and those that come with other packages, to train on.

Kodak's lie in `$AEJAX_DATA/kodak`, `kodim01.png` to `kodim24.png`, 768x512 or 512x768 (Kodak Photo CD PCD0992, released
for unrestricted use). scikit-learn has two, `china` and `flower`, which were JPEG files. Where scikit-image is
installed its wheel has five more in colour.
"""

import hashlib
import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from aejax import extras
from aejax.checks import InputError, expanded
from aejax.data.gathered import absent, damaged

NUM_KODAK = 24
_SKLEARN = {name: f"sklearn/datasets/images/{name}.jpg" for name in ("china", "flower")}
_SKIMAGE = {
    name.partition(".")[0]: f"skimage/data/{name}"
    for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
}


def kodak() -> dict[str, np.ndarray]:
    """The 24 test photographs by name, `[H, W, 3]` uint8.

    Raises:
      InputError: they are not there, or one is damaged; Pillow is not installed.
    """
    root = os.environ.get("AEJAX_DATA")
    names = [f"kodim{i:02}" for i in range(1, NUM_KODAK + 1)]
    paths = [expanded(root) / "kodak" / f"{name}.png" for name in names] if root else []
    if not paths or not all(path.is_file() for path in paths):
        raise absent("kodak", "kodim01.png to kodim24.png", "the photographs of the Photo CD PCD0992, losslessly")
    return {name: _opened(path) for name, path in zip(names, paths, strict=True)}


def of_packages() -> dict[str, np.ndarray]:
    """The photographs of scikit-learn, and of scikit-image where that is installed, by name, `[H, W, 3]` uint8.

    Raises:
      InputError: scikit-learn or Pillow is not installed.
    """
    extras.need("The photographs", "sklearn", "PIL", extra="data")
    found = {name: _opened(_file("scikit-learn", file)) for name, file in _SKLEARN.items()}
    try:
        return found | {name: _opened(_file("scikit-image", file)) for name, file in _SKIMAGE.items()}
    except (PackageNotFoundError, InputError):  # not installed, or a version that leaves them out
        return found


def digest() -> str:
    """SHA-256 of all of them, names, shapes and pixels, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, pixels in (kodak() | of_packages()).items():
        found.update(f"{name} {pixels.shape} ".encode() + pixels.tobytes())
    return found.hexdigest()


def _file(package: str, file: str) -> Path:
    return Path(str(distribution(package).locate_file(file)))


def _opened(path: Path) -> np.ndarray:
    extras.need("A photograph", "PIL", extra="data")
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:  # also of what is no picture
        raise damaged(path, error) from error
