"""Prepared TFDS image sets, and the cache of their decoded arrays. Needs neither a network nor TensorFlow.

The prepared folder is found and identified without importing TFDS, which is needed only to decode.
"""

import contextlib
import difflib
import hashlib
import io
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aejax import extras
from aejax.checks import InputError, expanded, nearest
from aejax.data.arrays import Arrays, check_memory

_NAME = re.compile(r"(?P<set>\w+)(/(?P<config>[\w.+-]*\w))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels
_CHUNK = 1000  # examples decoded at a time


def read(name: str) -> Arrays:
    """The arrays of a prepared set, from the cache where they are there.

    Args:
      name: `mnist`, or with a configuration, `emnist/letters`.

    Raises:
      InputError: the set is unknown, not prepared, damaged, not of images of one size, or too large.
    """
    folder = find(name)
    if folder is None:
        raise _not_prepared(name)
    splits, fingerprint = identify(name, folder)
    if "train" not in splits:
        raise InputError(f"{name} has no train split; it has {', '.join(splits)}. Use another set.")
    cache = cache_dir() / "-".join([*folder.relative_to(data_dir()).parts, fingerprint])

    def part(split: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        return _cached(cache, split, lambda: _decode(name, folder, split)) if split in splits else (None, None)

    return Arrays(*part("train"), *part("test"), *part("validation"))  # type: ignore[arg-type]


def data_dir() -> Path:
    """Where TFDS keeps prepared sets: `$TFDS_DATA_DIR`, or its default."""
    return expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def cache_dir() -> Path:
    """Where decoded arrays are kept: `$AEJAX_CACHE`, or `aejax` in the user's cache folder, or the one for all."""
    if os.environ.get("AEJAX_CACHE"):
        return expanded(os.environ["AEJAX_CACHE"])
    try:
        return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "aejax"
    except InputError:  # a bare user id, as in containers
        return Path(tempfile.gettempdir()) / f"aejax-{os.getuid()}"


def find(name: str) -> Path | None:
    """The folder of a prepared set, `SET/VERSION` or `SET/CONFIG/VERSION`, of its newest version."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    folder = data_dir() / match["set"]
    config = match["config"] or _default_config(folder)
    folder = folder / config if config else folder
    versions = [p.parent for p in folder.glob("*/dataset_info.json") if _VERSION.fullmatch(p.parent.name)]
    return max(versions, key=lambda p: tuple(map(int, p.name.split("."))), default=None)


def identify(name: str, folder: Path) -> tuple[list[str], str]:
    """The names of the splits of a prepared set, and a fingerprint of its description.

    Raises:
      InputError: the description is damaged, or the set is in a form that needs TensorFlow.
    """
    try:
        text = (folder / "dataset_info.json").read_bytes()
        info = json.loads(text)
        splits = [split["name"] for split in info["splits"]]
        features = (folder / "features.json").read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise _damaged(name, folder, e) from e
    forms = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if "array_record" not in forms:
        raise InputError(
            f"{folder} holds {name} as {forms[0]}, which cannot be read without TensorFlow; array_record is needed."
            f" {_again(name)}"
        )
    return splits, hashlib.sha256(text + features).hexdigest()[:8]


def check_known(name: str) -> None:
    """Refuses a name, or a configuration of it, that neither we nor TFDS know."""
    extras.need(f"The data set {name!r}", "tensorflow_datasets", "importlib_resources", extra="data")
    import tensorflow_datasets as tfds

    builders = tfds.list_builders(with_community_datasets=False)
    match = _NAME.fullmatch(name)
    if match is None or match["set"] not in builders:
        close = difflib.get_close_matches(name.lower(), ["cells", "digits", "sprites", *builders], cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
        raise InputError(
            f"There is no data set {name!r}. {hint}Wanted: digits, a TFDS image set such as mnist or fashion_mnist,"
            " or a path to .npy or .npz."
        )
    if match["config"] and match["config"] not in (configs := tfds.builder_cls(match["set"]).builder_configs):
        hint = nearest(match["config"], configs, what="configurations") if configs else f"Use {match['set']}."
        raise InputError(f"{match['set']} has no configuration {match['config']!r}. {hint}")


def _not_prepared(name: str) -> InputError:
    """The error for a set that is not there: unknown, or known and not prepared."""
    check_known(name)
    root = data_dir() / name
    others = sorted(f"{name}/{path.parent.parent.name}" for path in root.glob("*/*/dataset_info.json"))
    there = f" (there is {', '.join(others)})" if others else ""
    return InputError(
        f"The data set {name!r} is not prepared in {data_dir()}{there}."
        f" Prepare it once, with a network: {_command(name)}"
    )


def _damaged(name: str, folder: Path, error: Exception) -> InputError:
    reason = str(error).strip().partition("\n")[0]
    return InputError(f"{name} in {folder} is damaged ({type(error).__name__}: {reason}). {_again(name)}")


def _again(name: str) -> str:
    """How a set that cannot be read is made again, without losing what there is."""
    try:
        check_known(name)
    except InputError:  # a set of one's own, which nobody else could bring back
        return (
            "Build it again where its code is, tfds build --file_format=array_record, or save its examples as .npz"
            " (x, y) and give that file."
        )
    return f"Move that folder away, then: {_command(name)}"


def _command(name: str) -> str:
    return f"python -m aejax.data prepare {name}"


def _default_config(folder: Path) -> str | None:
    """TFDS writes it beside the configurations, where a set has any."""
    try:
        return json.loads((folder / ".config" / "metadata.json").read_text())["default_config_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


Decoded = tuple[np.ndarray, np.ndarray | None]


def _cached(folder: Path, split: str, decode: Callable[[], Decoded]) -> Decoded:
    """What `decode` returns, kept in one file with checksums; a damaged file is written anew."""
    path = folder / f"{split}.npz"
    damaged = contextlib.suppress(OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with damaged, path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return arrays["x"], arrays.get("y")
    x, y = decode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # renamed when whole: nobody reads half a file
            whole = Path(scratch, path.name)
            np.savez(whole, **{"x": x} if y is None else {"x": x, "y": y})  # type: ignore[arg-type]
            whole.replace(path)
    except OSError as e:
        warnings.warn(
            f"Decoded images could not be cached, and are decoded at every run: {e}", stacklevel=6
        )  # load's caller
    return x, y


def _decode(name: str, folder: Path, split: str) -> Decoded:
    what = f"The data set {name!r}"
    extras.need(what, "tensorflow_datasets", "importlib_resources", "array_record", "PIL", extra="data")
    import tensorflow_datasets as tfds
    from PIL import Image

    try:
        builder = tfds.builder_from_directory(str(folder))
        features = dict(builder.info.features)
    except (RuntimeError, ValueError, OSError) as e:
        raise _damaged(name, folder, e) from e
    check_images(name, features)
    shape, dtype = features["image"].shape, np.dtype(features["image"].np_dtype)
    if None in shape or dtype != np.uint8:
        sizes = "x".join("?" if n is None else str(n) for n in shape)
        raise InputError(
            f"The images of {name} are {sizes} {dtype}; uint8 images of one size are needed. Bring them as a .npz file."
        )
    labelled = isinstance(features.get("label"), tfds.features.ClassLabel)
    # Pillow decodes below, in threads, which is faster than through TFDS and does not ask for OpenCV.
    skip = {k: tfds.decode.SkipDecoding() for k, f in features.items() if isinstance(f, tfds.features.Image)}

    try:
        source = builder.as_data_source(split, decoders=skip)
        check_memory(4 * len(source) * int(np.prod(shape)), name)
        x = np.empty((len(source), *shape), np.uint8)
        y = np.empty(len(source), np.int32)

        def decode(start: int) -> None:
            rows = range(start, min(start + _CHUNK, len(source)))
            for row, example in zip(rows, source.__getitems__(rows), strict=True):
                with Image.open(io.BytesIO(example["image"])) as image:
                    x[row] = np.asarray(image.convert(_MODES[shape[-1]])).reshape(shape)
                if labelled:
                    y[row] = example["label"]

        with ThreadPoolExecutor() as pool:
            list(pool.map(decode, range(0, len(source), _CHUNK)))
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError) as e:
        raise _damaged(name, folder, e) from e
    return x, y if labelled else None


def check_images(name: str, features: dict) -> None:
    """Refuses a set whose examples have no `image`."""
    import tensorflow_datasets as tfds

    if not isinstance(features.get("image"), tfds.features.Image):
        raise InputError(f"{name} has no image feature; it has {', '.join(features)}. Use a set of images.")
