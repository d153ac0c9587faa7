"""Bits back: a test set as a file of the length of the negative bound, read again to the bit, beside PNG, bz2 and WebP.

Townsend, Bird & Barber (2019) code the test images of binarised MNIST with a VAE, 784-100-40, and a stack of bits, as
`aejax.evaluation.bits_back` does. Here x > 0.5 makes the images binary, which leaves binary ones as they are. Claimed
is: all images come back bit for bit, and the message is within 1 % of the negative bound of the same model on the same
images. The parameters are not in the message, and the first bits of the stack count in the row of the whole file only.

On Larochelle's fixed binarised MNIST, 10,000 test images, 3 seeds: 0.1935 +- 0.0004 bits per pixel, 0.044 +- 0.045 %
over the bound; bz2 0.249, lossless WebP 0.321 as one sheet (2026-11-26, docs/bits_back.md; 4 to 8 minutes a seed on 2
busy cores).
"""

import bz2
import dataclasses
import io
import lzma
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import evaluation
from aejax.data import Dataset
from aejax.evaluation import bits_back
from aejax.runner import Trained, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BITS = 10  # of each latent dimension
_OTHER_BITS = (8, 12, 14)
_SAMPLES = 16  # codes of each image in the bound


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    hidden_dims: tuple[int, ...] = (100,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    latent_dim: int = 40
    """Size of the code."""
    num_epochs: int = 40
    """Passes over the training examples."""
    batch_size: int = 100
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    num_seeds: int = 2
    """Runs, each with a network and a message of its own."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    own = vae.Config(
        dataset=config.dataset, hidden_dims=config.hidden_dims, latent_dim=config.latent_dim, binarize="threshold",
        num_epochs=config.num_epochs, batch_size=config.batch_size, schedule="cosine", validation=0.0, nll_samples=0,
        hparams=vae.method.HParams(config.lr),
    )  # fmt: skip
    experiment = vae.EXPERIMENT._replace(measure=measure, draw=lambda _: {})
    return study.seeded({"bits_back": (experiment, own)}, config.seed, config.num_seeds)


def measure(trained: Trained) -> dict[str, float]:
    """The message of the test images, read again, at several numbers of bits, against one bound."""
    model, params, x = trained.model, trained.state.params, trained.dataset.test.x
    bound = evaluation.nll(model, params, x, trained.measure_key, num_samples=_SAMPLES).curve[1]
    found = {"test_bound_nats": bound}
    for bits in (*_OTHER_BITS, _BITS):
        trained.say(f"{bits} bits for each latent dimension")
        write = partial(bits_back.encode, model, params, x, seed=trained.config.seed, latent_bits=bits)
        message, seconds = _timed(write)
        images, read_seconds = _timed(partial(bits_back.decode, model, params, message.data))
        if not np.array_equal(images, x):
            raise RuntimeError("Other images were read than were written.")
        found[f"overhead_{bits}"] = message.nats_per_image / bound - 1
    return found | {
        "message_nats": message.nats_per_image,
        "bits_per_pixel": message.bits_per_image / x[0].size,
        "bound_bits_per_pixel": bound / math.log(2) / x[0].size,
        "file_bits_per_pixel": 8 * len(message.data) / x.size,
        "initial_bits": float(message.initial_bits),
        "write_seconds": seconds,
        "read_seconds": read_seconds,
    }


def _timed(function: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    shape = dataset.image_shape if dataset.image_shape is not None and dataset.image_shape[2] == 1 else None
    images = dataset.test.x.astype(bool).reshape(-1, *(shape[:2] if shape else dataset.test.x.shape[1:]))
    sizes = packed(images) | (pictures(images) if shape else {})
    return {name: {"bits_per_pixel": [8 * size / images.size]} for name, size in sizes.items()}


def packed(images: np.ndarray) -> dict[str, int]:
    """Bytes of all images together, eight pixels to a byte, as Townsend et al. count them."""
    data = np.packbits(images).tobytes()
    return {"bz2": len(bz2.compress(data)), "lzma": len(lzma.compress(data))}


def pictures(images: np.ndarray) -> dict[str, int]:
    """Bytes as pictures, `[N, H, W]` bool: a file for each, as Townsend et al. count them, and one of all in rows."""
    png, webp = partial(_saved, format="PNG", optimize=True), partial(_saved, format="WebP", lossless=True, quality=100)
    return {
        "png": sum(map(png, images)),
        "webp": sum(map(webp, images)),
        "png_sheet": png(sheet(images)),
        "webp_sheet": webp(sheet(images)),
    }


def sheet(images: np.ndarray) -> np.ndarray:
    """As many rows of images as there are columns, the last ones empty where there are not enough."""
    count, height, width = images.shape
    side = math.ceil(count**0.5)
    full = np.zeros((side * side, height, width), bool)
    full[:count] = images
    return full.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, side * width)


def _saved(image: np.ndarray, **options: Any) -> int:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return len(file.getvalue())


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    return {}


def table(summary: dict[str, Any]) -> str:
    """Two tables in Markdown: bits per pixel of every way, and what few bits for each latent dimension cost."""
    metrics = summary["metrics"]
    own = metrics["bits_back"]
    sizes = "-".join(map(str, (*summary["hidden_dims"], summary["latent_dim"])))
    titles = {
        "bz2": "bz2, all images, 8 pixels a byte",
        "lzma": "lzma, all images, 8 pixels a byte",
        "png": "PNG, a file for each image",
        "png_sheet": "PNG, all images in one",
        "webp": "WebP, lossless, a file for each image",
        "webp_sheet": "WebP, lossless, all images in one",
    }
    rows = [
        [f"negative bound, VAE {sizes}", study.spread(own["bound_bits_per_pixel"]),
         study.spread(own["test_bound_nats"]), "", ""],
        ["bits back", study.spread(own["bits_per_pixel"]), study.spread(own["message_nats"]),
         study.spread(own[f"overhead_{_BITS}"], scale=100), study.cost(own)],
        ["bits back, the whole file", study.spread(own["file_bits_per_pixel"]), "", "", ""],
    ]  # fmt: skip
    rows += [[titles[n], study.spread(metrics[n]["bits_per_pixel"]), "", "", ""] for n in titles if n in metrics]
    bits = sorted((*_OTHER_BITS, _BITS))
    overheads = [[str(each), study.spread(own[f"overhead_{each}"], scale=100)] for each in bits]
    head = ("", "bits per pixel", "nats per image", "over the bound, %", "seeds, seconds a run")
    return (
        study.table(head, rows) + "\n" + study.table(("bits for each latent dimension", "over the bound, %"), overheads)
    )


STUDY = Study("bits_back", Config, runs, table, draw, beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
