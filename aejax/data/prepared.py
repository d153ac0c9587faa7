"""Prepared TFDS image sets, and the cache of their decoded arrays. Needs neither a network nor TensorFlow."""

import hashlib
import io
import json
import os
import re
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from aejax.checks import InputError, nearest
from aejax.data.arrays import Arrays, check_memory

_NAME = re.compile(r"(?P<set>[a-z0-9_]+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHUNK = 2000  # examples decoded at a time


def read(name: str) -> Arrays:
    """The arrays of a prepared set, from the cache where they are there.

    Raises:
      InputError: the set is unknown, not prepared, not of images, or too large.
    """
    folder = find(name)
    if folder is None:
        raise not_prepared(name)
    info = (folder / "dataset_info.json").read_bytes()
    splits = [split["name"] for split in json.loads(info)["splits"]]
    if "train" not in splits:
        raise InputError(f"{name} has no train split; it has {', '.join(splits)}.")
    key = "-".join([*folder.relative_to(data_dir()).parts, hashlib.sha256(info).hexdigest()[:8]])
    x, y = _cached(name, folder, "train", cache_dir() / key)
    x_test, y_test = _cached(name, folder, "test", cache_dir() / key) if "test" in splits else (None, None)
    return Arrays(x, y, x_test, y_test)


def data_dir() -> Path:
    """Where TFDS keeps prepared sets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def cache_dir() -> Path:
    """Where decoded arrays are kept: `$AEJAX_CACHE`, or `aejax` in the user's cache folder."""
    if os.environ.get("AEJAX_CACHE"):
        return Path(os.environ["AEJAX_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aejax"


def find(name: str) -> Path | None:
    """The folder of a prepared set, of its newest version where none is named."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    folder = data_dir() / match["set"]
    if match["config"]:
        folder = folder / match["config"]
    elif (metadata := folder / ".config" / "metadata.json").is_file():
        folder = folder / json.loads(metadata.read_text())["default_config_name"]
    versions = [p.parent for p in folder.glob("*/dataset_info.json") if _VERSION.fullmatch(p.parent.name)]
    if match["version"]:
        versions = [p for p in versions if p.name == match["version"]]
    return max(versions, key=lambda p: tuple(map(int, p.name.split("."))), default=None)


def known() -> list[str]:
    """Every name that `aejax.data.load` understands, prepared or not."""
    import tensorflow_datasets as tfds

    return ["digits", *tfds.list_builders(with_community_datasets=False)]


def check_known(name: str) -> None:
    """Refuses a name that neither we nor TFDS know."""
    names = known()
    if re.split("[/:]", name)[0] not in names:
        raise InputError(f"There is no data set {name!r}. {nearest(name.lower(), names, what='sets')}")


def not_prepared(name: str) -> InputError:
    """The error for a set that is not there: unknown, or known and not prepared."""
    check_known(name)
    return InputError(
        f"The data set {name!r} is not prepared in {data_dir()}. Prepare it once, with a network:"
        f" python -m aejax.data prepare {name}"
    )


def _cached(name: str, folder: Path, split: str, cache: Path) -> tuple[np.ndarray, np.ndarray | None]:
    path = cache / f"{split}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["x"], arrays.get("y")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # damaged: decode again
    x, y = _decode(name, folder, split)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as stream:
            np.savez(stream, **{"x": x} if y is None else {"x": x, "y": y})  # type: ignore[arg-type]
        os.replace(stream.name, path)
    except OSError as e:
        warnings.warn(f"The decoded {name} could not be cached in {cache} ({e}).", stacklevel=2)
    return x, y


def _decode(name: str, folder: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    import tensorflow_datasets as tfds
    from PIL import Image

    builder = tfds.builder_from_directory(str(folder))
    features: Any = builder.info.features
    if "image" not in features or not isinstance(features["image"], tfds.features.Image):
        raise InputError(f"{name} has no image feature; it has {', '.join(features)}. Use a set of images.")
    shape = features["image"].shape
    if None in shape or features["image"].np_dtype != np.uint8:
        raise InputError(
            f"The images of {name} are {shape} {features['image'].np_dtype}; one size and uint8 are needed."
        )
    label = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    check_memory(4 * len(source) * int(np.prod(shape)), name)

    x = np.empty((len(source), *shape), np.uint8)
    y = np.empty(len(source), np.int32)

    def decode(start: int) -> None:
        rows = range(start, min(start + _CHUNK, len(source)))
        for row, example in zip(rows, source.__getitems__(rows), strict=True):
            image = Image.open(io.BytesIO(example["image"])).convert(_MODES[shape[-1]])
            x[row] = np.asarray(image).reshape(shape)
            if label:
                y[row] = example["label"]

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(0, len(source), _CHUNK)))
    return x, y if label else None
