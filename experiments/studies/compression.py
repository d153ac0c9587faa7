"""Compression: rate against distortion of files, by a compressive autoencoder, JPEG and WebP, beside PNG.

Every point of ours is files that were written and read again: all integers came back, and the picture is the decoder's.
Bits are those of the bytes, headers included; PSNR is that of 8-bit pixels. On `digits` all test images are one file of
ours and one sheet of the others, since on an image of 64 pixels a header is nearly all; a file for each is beside.

`--dataset kodak` trains on the photographs that come with scikit-learn, and with scikit-image where that is installed
(2 or 7 of them), and tests on Kodak's 24, which lie in AEJAX_DATA. That is far too little to learn from, and some
minutes on a CPU are too short: the figures of CompressAI's model of the same kind are beside, as published.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import data
from aejax.checks import InputError, check_count, check_positive, nearest
from aejax.data import photographs
from aejax.methods.compressive_ae import CompressiveAE
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, Say, main
from experiments.studies import compression_codecs as codecs
from experiments.studies import compression_tasks as tasks
from experiments.studies.compression_tasks import Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "jpeg": "JPEG", "webp": "WebP", "png": "PNG, without loss", "webp_lossless": "WebP, without loss",
    "jpeg_each": "JPEG, a file for each digit", "webp_each": "WebP, a file for each digit",
    "png_each": "PNG, a file for each digit",
}  # fmt: skip
# Mean squared error, factorised prior, Kodak: bits per pixel -> dB. InterDigitalInc/CompressAI, results/image/kodak.
COMPRESSAI = {0.123: 26.91, 0.189: 28.22, 0.288: 29.62, 0.440: 31.28, 0.648: 32.96, 0.967: 35.38}
COMPRESSAI_SOURCE = "factorised prior, CompressAI, published"
METRICS = (
    "bits_per_pixel", "net_bits_per_pixel", "estimated_bits_per_pixel", "psnr_db", "jpeg_bits_per_pixel",
    "webp_bits_per_pixel", "smaller_than_jpeg", "smaller_than_webp",
)  # fmt: skip
_SHOWN = {"jpeg": ("5", "12", "20", "30", "50", "70", "90"), "webp": ("2", "10", "30", "50", "70", "90")}


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, or kodak in AEJAX_DATA."""
    digits: Options = Options((10.0, 30.0, 100.0, 300.0, 1000.0), 24, 100, 300, 64, 2e-3)
    """Networks of digits, dense."""
    hidden_dims: tuple[int, ...] = (128,)
    """Their hidden layers."""
    kodak: Options = Options((25.0, 100.0, 400.0), 96, 8, 4, 8, 1e-3)
    """Networks of photographs, convolutions of stride 4 and 2."""
    features: int = 64
    """Channels between these."""
    num_crops: int = 800
    """Squares of the training photographs."""
    crop_side: int = 64
    """Their edge in pixels; a multiple of 8."""
    num_seeds: int = 2
    """Networks, each with crops of its own."""
    seed: int = 0
    """The first one."""


def options_of(config: Config) -> Options:
    return config.kodak if config.dataset == "kodak" else config.digits


def check(config: Config) -> None:
    """Refuses what cannot be trained."""
    if config.dataset not in ("digits", "kodak"):
        raise InputError(f"--dataset {config.dataset}. {nearest(config.dataset, ['digits', 'kodak'], what='sets')}")
    options, name = options_of(config), config.dataset
    check_count(**{f"--{name}.{n}": getattr(options, n) for n in options._fields if n not in ("distortions", "lr")})
    check_count(**{f"--{n.replace('_', '-')}": getattr(config, n) for n in ("features", "num_crops", "num_seeds")})
    check_count(**{f"--hidden-dims, layer {i}": width for i, width in enumerate(config.hidden_dims)})
    check_count(**{f"number of --{name}.distortions": len(options.distortions)})
    check_positive(**{f"--{name}.lr": options.lr})
    for weight in options.distortions:
        check_positive(**{f"--{name}.distortions": weight})
    if list(options.distortions) != sorted(set(options.distortions)):
        raise InputError(f"--{name}.distortions are {options.distortions}; wanted are rising numbers, none twice.")
    if config.crop_side < 8 or config.crop_side % 8:
        raise InputError(f"--crop-side is {config.crop_side}; a multiple of 8 is needed.")
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")


def of_dataset(config: Config, seed: int) -> tuple[np.ndarray, tasks.Files]:
    if config.dataset == "kodak":
        return tasks.photos(config.num_crops, config.crop_side, seed)
    return tasks.digits()


def build_model(config: Config) -> CompressiveAE:
    options = options_of(config)
    if config.dataset == "kodak":
        own = {"features": (config.features,), "strides": (4, 2), "kernels": (9, 5)}
        return CompressiveAE.images(3, options.latent_dim, **own)
    return CompressiveAE.dense(64, options.latent_dim, hidden_dims=config.hidden_dims)


def pieces(config: Config) -> Iterator[Piece]:
    """The codecs, then each seed; what cannot be run is refused first."""
    check(config)
    x, files = of_dataset(config, config.seed)
    if (size := options_of(config).batch_size) > len(x):
        raise InputError(f"--{config.dataset}.batch-size {size}, and there are {len(x):,} examples to train on.")
    yield Piece("codecs", "codecs", partial(of_codecs, config, files))
    for seed in range(config.seed, config.seed + config.num_seeds):
        yield Piece(f"compressive_ae-{seed}", "compressive_ae", partial(of_seed, config, seed))


def of_codecs(config: Config, files: tasks.Files, say: Say) -> dict[str, Any]:
    found = tasks.of_codecs(files, say)
    return {"points": found | (tasks.one_by_one(files.pictures[0]) if config.dataset == "digits" else {})}


def of_seed(config: Config, seed: int, say: Say) -> dict[str, Any]:
    """Every point of one seed, and of photographs a part of one at the weight in the middle."""
    model, (x, files) = build_model(config), of_dataset(config, seed)
    params = tasks.trained(model, x, options_of(config), seed, say)
    points = {}
    for weight, own in params.items():
        say(f"files at the weight {weight:g}")
        points[f"{weight:g}"] = tasks.of_model(model, own, files)
    found: dict[str, Any] = {"points": points}
    if config.dataset == "kodak":
        middle = sorted(params)[len(params) // 2]
        which = [*photographs.kodak()].index(tasks.CROP_OF)
        bits = points[f"{middle:g}"]["bits_per_pixel"][which]
        found["shown"] = tasks.shown(model, params[middle], files.pictures[which], bits)
    return found


def metrics_of(config: Config, found: Found) -> dict[str, Any]:
    """Of the codecs by setting, and of ours by weight: the mean over files, of ours for each seed.

    Beside it what JPEG and WebP need at the same PSNR, each file by itself: bits, None unless their settings reach it
    on all files, and on how many of the files ours is smaller, of those where they reach it.
    """
    of_codecs = found["codecs"]["codecs"]["points"]
    metrics: dict[str, Any] = {
        codec: {s: {n: float(np.mean(v)) for n, v in point.items() if v} for s, point in points.items()}
        for codec, points in of_codecs.items()
    }
    ours: dict[str, dict[str, list[float | None]]] = {}
    for seed in range(config.seed, config.seed + config.num_seeds):
        for weight, point in found[f"compressive_ae-{seed}"]["compressive_ae"]["points"].items():
            row = ours.setdefault(weight, {})
            values: dict[str, float | None] = {name: float(np.mean(v)) for name, v in point.items()}
            for codec in ("jpeg", "webp"):
                values |= _against(codec, of_codecs[codec], point)
            for name, value in values.items():
                row.setdefault(name, []).append(value)
    return metrics | {"compressive_ae": ours}


def _against(codec: str, points: tasks.Points, own: dict[str, list[float]]) -> dict[str, float | None]:
    bits = []
    for i, wanted in enumerate(own["psnr_db"]):
        curve = [(point["psnr_db"][i], point["bits_per_pixel"][i]) for point in points.values()]
        bits.append(codecs.bits_at(wanted, *zip(*curve, strict=True)))
    smaller = [ours < theirs for ours, theirs in zip(own["bits_per_pixel"], bits, strict=True)]
    mean = float(np.mean(bits)) if np.isfinite(bits).all() else None
    return {f"{codec}_bits_per_pixel": mean, f"smaller_than_{codec}": float(sum(smaller))}


def table(summary: dict[str, Any]) -> str:
    """Ours by weight, with what JPEG and WebP need at the same PSNR; then these by quality, and what is published."""
    metrics, rows = summary["metrics"], []
    for weight, row in metrics["compressive_ae"].items():
        over = [a / b - 1 for a, b in zip(row["net_bits_per_pixel"], row["estimated_bits_per_pixel"], strict=True)]
        cells = [study.spread(row["bits_per_pixel"]), study.spread(over, scale=100), study.spread(row["psnr_db"])]
        for codec in ("jpeg", "webp"):
            bits = row[f"{codec}_bits_per_pixel"]
            cells.append("beyond it" if None in bits else study.spread(bits))
        wins = "" if summary["dataset"] == "digits" else study.spread(row["smaller_than_jpeg"])
        rows.append([weight, *cells, wins, str(len(over))])
    head = (
        "weight of the squared error", "bits per pixel, file", "without header over the estimate, %", "PSNR, dB",
        "JPEG at that PSNR", "WebP at that PSNR", "files smaller than JPEG's", "seeds",
    )  # fmt: skip
    others = []
    for codec, title in TITLES.items():
        for setting, point in metrics.get(codec, {}).items():
            if setting in _SHOWN.get(codec, (setting,)):
                name = title if setting == "None" else f"{title}, quality {setting}"
                others.append([name, f"{point['bits_per_pixel']:.4g}", f"{point.get('psnr_db', np.inf):.2f}"])
    if summary["dataset"] == "kodak":
        others += [[COMPRESSAI_SOURCE, f"{bits:.3f}", f"{psnr:.2f}"] for bits, psnr in COMPRESSAI.items()]
    return study.table(head, rows) + "\n" + study.table(("", "bits per pixel", "PSNR, dB"), others)


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """PSNR by bits per pixel; of photographs a part of one, itself, ours and JPEG's at about the same rate."""
    from aejax import plots

    metrics = metrics_of(config, found)
    ours = list(metrics["compressive_ae"].values())
    x = np.mean([row["bits_per_pixel"] for row in ours], axis=1)
    curves = {"compressive autoencoder": plots.Curve(x, np.array([row["psnr_db"] for row in ours]).T, 0)}
    for i, codec in enumerate(("jpeg", "webp")):
        points = [p for p in metrics[codec].values() if p["bits_per_pixel"] < 2 * x.max()]
        bits, psnrs = (np.array([p[name] for p in points]) for name in ("bits_per_pixel", "psnr_db"))
        curves[TITLES[codec]] = plots.Curve(bits, psnrs, i + 1)
    if config.dataset == "kodak":
        bits, psnrs = np.array([*COMPRESSAI.items()]).T
        curves[COMPRESSAI_SOURCE] = plots.Curve(bits, psnrs, 3, dashed=True)
    panels = {config.dataset: plots.Lines("bits per pixel", "PSNR, dB", curves)}
    figures = {"curves": plots.line_panels(panels, title=f"{config.dataset}: rate and distortion of files")}
    if config.dataset == "kodak":
        shown = found[f"compressive_ae-{config.seed}"]["compressive_ae"]["shown"]
        names = {
            "original": "original", "ours": f"ours, {shown['bits_per_pixel']:.2f} bits",
            "jpeg": f"JPEG, {shown['jpeg_bits_per_pixel']:.2f} bits",
        }  # fmt: skip
        rows = {name: tasks.opened(shown[key])[None] / 255 for key, name in names.items()}
        side = tasks.CROP_SIDE
        figures["crop"] = plots.image_rows(rows, (side, side, 3), title=f"{tasks.CROP_OF}, a part")
    return figures


def digest(name: str) -> str:
    return photographs.digest() if name == "kodak" else data.digest(name)


STUDY = PiecedStudy("compression", Config, pieces, metrics_of, table, draw, digest)


if __name__ == "__main__":
    main(STUDY, __doc__)
