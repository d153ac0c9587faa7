"""PixelVAE between its two ends: a VAE, whose pixels know the code alone, and a PixelCNN, which has no code.

All rows see the same images, as often and in batches of the same size. The encoder, and its mirror image from the code
to the pixels, are the same in `vae` and `pixel_vae`; the gated layers are the same in `pixel_vae` and `pixel_cnn`.
`pixel_vae_2` has the first two of these layers alone: the fewer they are, the less pixels tell of those far away, and
the more is left to the code. The rate, its KL, says how much that is; at 0 the decoder ignores the code.

What is measured is the pass that is best on held-out images, or the last where none are held out: the bound from one
code an image, and the likelihood, by importance samples, of PixelCNN exact. Images are drawn anew as binary ones at
every presentation, and once, the same for all rows, to be measured or held out. `--dataset binarized_mnist` is the
file of Larochelle, which is binary, and brings the images that are held out. On it table 1 of PixelVAE has, with
networks of its own, 87.41 nats at most for a convolutional VAE and 80.08 for a gated PixelVAE; PixelCNN has 81.30,
with gates 80.10.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from aejax import evaluation, likelihoods, nets, runner, training
from aejax.checks import check_count
from aejax.data import Batch, Dataset
from aejax.methods import pixel_cnn, pixel_vae, vae
from aejax.runner import Experiment, Trained, study
from aejax.runner.inputs import Feed, Spec, binarize, binarized
from aejax.runner.pieces import check_rows
from aejax.runner.study import Metrics, Once, Runs, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"vae": "VAE", "pixel_vae": "PixelVAE", "pixel_cnn": "PixelCNN"}
METHODS: dict[str, Callable[..., Any]] = {
    "vae": vae.vae, "pixel_vae": pixel_vae.pixel_vae, "pixel_cnn": pixel_cnn.pixel_cnn
}  # fmt: skip
# Gulrajani et al. (2017), table 1: nats at most, of a convolutional VAE and of their gated PixelVAE and PixelCNN.
PUBLISHED = {"binarized_mnist": {"vae": 87.41, "pixel_vae": 80.08, "pixel_cnn": 80.10}}
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class RunConfig(runner.Config):
    """One run of a row."""

    net: Literal["dense", "conv"] = "conv"
    """Images by convolutions."""
    kind: Literal["vae", "pixel_vae", "pixel_cnn"] = "pixel_vae"
    """The method."""
    features: tuple[int, ...] = (16, 32)
    """Channels behind each convolution of the encoder, of which every second halves the image."""
    pixel_features: tuple[int, ...] = (16, 16, 16, 16)
    """Features of both stacks behind each gated layer."""
    kernel_size: int = 3
    """Of the gated layers; odd."""
    hparams: pixel_cnn.HParams = pixel_cnn.HParams()
    """Real-valued knobs."""


def build_model(config: RunConfig, spec: Spec) -> Any:
    strides = tuple(1 + i % 2 for i in range(len(config.features)))
    encoder = {"features": config.features, "strides": strides}
    if config.kind == "vae":
        return runner.build_model(config, spec, vae.VAE, **encoder)
    gated: dict[str, Any] = {"kernel_size": config.kernel_size}
    if config.kind == "pixel_vae":
        gated["pixel_features"] = config.pixel_features
        return runner.build_model(config, spec, pixel_vae.PixelVAE, **encoder, **gated)
    gated["features"] = config.pixel_features
    of_a_place = dataclasses.replace(config, latent_dim=config.pixel_features[-1])
    return runner.build_model(of_a_place, spec, pixel_cnn.PixelCNN, **gated)


def build_algorithm(config: RunConfig, model: Any, tx: runner.Optimizers, axis_name: str | None) -> Any:
    return METHODS[config.kind](model, lr=config.hparams.lr, tx=tx, axis_name=axis_name)


def feed(config: RunConfig, dataset: Dataset) -> Feed:
    """The images held out as they were drawn once: drawn anew at every pass, the draw would choose the pass."""
    held_out = dataset.validation
    if held_out is not None and config.binarize == "stochastic":
        key = jax.random.fold_in(jax.random.key(config.seed), 2)
        held_out = binarize(key, Batch(held_out.x))  # which changes nothing when it is done again
    return Feed(Batch(dataset.train.x), held_out and Batch(held_out.x), config.batch_size)


def measure(trained: Trained) -> dict[str, float]:
    return {"num_params": float(sum(leaf.size for leaf in jax.tree.leaves(trained.state.params)))}


EXPERIMENT = Experiment(
    "pixel_decoders_run", RunConfig, build_model, build_algorithm, None, measure, lambda _: {}, feed=feed
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, binarized_mnist, mnist, ..., or a path to .npy or .npz (x)."""
    rows: tuple[str, ...] = ("vae", "pixel_vae_1", "pixel_vae_2", "pixel_vae", "pixel_cnn")
    """vae, pixel_vae, pixel_cnn, or pixel_vae_L, of the first L gated layers."""
    features: tuple[int, ...] = (16, 32)
    """Channels behind each convolution of the encoder, of which every second halves the image."""
    pixel_features: tuple[int, ...] = (16, 16, 16, 16)
    """Features of both stacks behind each gated layer."""
    kernel_size: int = 3
    """Of the gated layers; odd."""
    latent_dim: int = 8
    """Size of the code."""
    num_epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 32
    """Images per step, over all devices."""
    lr: float = 2e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    validation: float = 0.1
    """Fraction of the training images held out to choose a pass, or the set's own split, if it has one; 0 for none."""
    nll_samples: int = 100
    """Importance samples of each test image."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Every row with every seed; `InputError` for a row or a number that cannot be."""
    few = {f"pixel_vae_{count}" for count in range(1, len(config.pixel_features))}
    check_rows(config.rows, {*TITLES, *few})
    check_count(**{"--nll-samples": config.nll_samples})
    shared: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("dataset", "features", "kernel_size", "latent_dim", "num_epochs", "batch_size", "validation")
    }
    shared |= {"schedule": "cosine", "hparams": pixel_cnn.HParams(config.lr)}
    shared["binarize"] = "none" if config.dataset == "binarized_mnist" else "stochastic"
    own = {row: RunConfig(**shared, **of_row(row, config.pixel_features)) for row in config.rows}
    return study.seeded({row: (EXPERIMENT, each) for row, each in own.items()}, config.seed, config.num_seeds)


def of_row(row: str, pixel_features: tuple[int, ...]) -> dict[str, Any]:
    kind, _, count = row.rpartition("_")
    if count.isdigit():
        return {"kind": kind, "pixel_features": pixel_features[: int(count)]}
    return {"kind": row, "pixel_features": pixel_features}


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """What the chosen pass of every run is worth."""
    found = {}
    for name in runs(config):
        metrics = once(f"measured-{name}", partial(measured, path / name, config))
        found[name] = {key: value for key, value in metrics.items() if key != "seconds"}
    return study.by_row(found)


def measured(folder: Path, config: Config, say: Callable[[str], None]) -> dict[str, float]:
    """The bound, the rate and the likelihood of the test images, and where the run stood; draws are kept beside it."""
    own, model, state = chosen(folder, config)
    draw_key, bound_key, nll_key, sample_key = jax.random.split(jax.random.fold_in(jax.random.key(own.seed), 1), 4)
    test = tested(own, draw_key)
    say("test images")
    terms = training.evaluate(METHODS[own.kind](model), state, Batch(test), bound_key)
    if own.kind == "pixel_cnn":
        metrics = {"test_nll_nats": terms["recon/nll_nats"]}
    else:
        metrics = {"test_bound_nats": terms["elbo/bound_nats"], "test_rate_nats": terms["elbo/kl_nats"]}
        say(f"{config.nll_samples} importance samples of each test image")
        nll = evaluation.nll(model, state.params, test, nll_key, num_samples=config.nll_samples)
        metrics |= {"test_nll_nats": nll.nll_nats, "nll_std_error": nll.std_error, "nll_ess": nll.ess}
    if config.validation:
        rows = history(folder)
        best = next(row for row in rows if row["step"] == int(state.step))
        metrics |= {"best_epoch": best["epoch"], "best_val_nats": best[term(best, "val/")]}
    say("drawing images")
    np.save(folder / "drawn.npy", drawn(model, state.params, sample_key, say))
    return metrics


def tested(config: RunConfig, key: jax.Array) -> Any:
    """Test images `[N, H, W, C]`, where they are grey drawn once, the same for all rows of a seed."""
    dataset = runner.load_data(config)
    return (binarized(dataset, key) if config.binarize == "stochastic" else dataset).test.x


def chosen(folder: Path, config: Config) -> tuple[RunConfig, Any, Any]:
    return runner.load(folder, best=config.validation > 0)


def history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run, some passes each."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def term(row: dict[str, float], prefix: str) -> str:
    """The name of what is the bound, or of PixelCNN the likelihood itself: the loss of all rows."""
    return next(name for name in row if name.startswith(prefix) and name.endswith("/loss"))


def drawn(model: nets.Autoencoder, params: Any, key: jax.Array, say: Callable[[str], None]) -> np.ndarray:
    """Images with their pixels drawn, `[_SHOWN, ...]`; the key is consumed."""
    if isinstance(model, pixel_cnn.PixelCNN):
        return pixel_cnn.rows_drawn(model, params, key, _SHOWN, say)
    code_key, key = jax.random.split(key)
    bound = model.bind({"params": params})
    if isinstance(model, pixel_vae.PixelVAE):
        return np.asarray(jax.jit(lambda key: bound.sample(key, _SHOWN))(key))
    output = bound.decode(bound.sample_prior(code_key, _SHOWN))
    return np.asarray(likelihoods.get(model.likelihood).sample(key, output))


def table(summary: dict[str, Any]) -> str:
    """Mean and deviation over seeds; in brackets what was published, with networks of theirs."""
    published = PUBLISHED.get(summary["dataset"], {})
    stops = ["best pass", "held out, there"] if summary["validation"] else []
    rows = []
    for row in summary["rows"]:
        found = summary["metrics"][row]
        cell = lambda name, found=found: study.spread(found[name]) if name in found else ""
        bound, nll = cell("test_bound_nats"), cell("test_nll_nats")
        if row in published and row == "pixel_cnn":
            nll += f" ({published[row]:.2f})"
        elif row in published:
            bound += f" (≤ {published[row]:.2f})"
        best = [cell("best_epoch"), cell("best_val_nats")] if stops else []
        rows.append([title(row), bound, cell("test_rate_nats"), nll, *best, str(summary["num_epochs"]),
                     f"{found['num_params'][0]:,.0f}", study.cost(found)])  # fmt: skip
    nll = f"likelihood, k = {summary['nll_samples']:,}, or exact"
    head = ("", "bound, nats an image", "rate", nll, *stops, "passes", "parameters", "seeds, seconds a run")
    return study.table(head, rows)


def title(row: str) -> str:
    kind, _, count = row.rpartition("_")
    if count.isdigit():
        return f"{TITLES[kind]}, {count} layer{'s' if count != '1' else ''}"
    return TITLES[row]


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Of the first seed: the bound by passes, and images that each row draws."""
    from aejax import plots

    panels: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(config.rows):
        passes = history(path / f"{row}-{config.seed}")
        kinds = {"training images": ""} | ({"images held out": "val/"} if config.validation else {})
        for name, prefix in kinds.items():
            points = np.array([(each["epoch"], each[term(each, prefix)]) for each in passes])
            panels.setdefault(name, {})[title(row)] = plots.Curve(points[:, 0], points[:, 1], i)
    lines = {name: plots.Lines("passes", "nats an image", curves) for name, curves in panels.items()}
    figures = {"curves": plots.line_panels(lines, title=f"{dataset.name}: negative bounds, of PixelCNN exact")}
    if dataset.image_shape is not None and dataset.image_shape[2] in (1, 3):
        images = {title(row): np.load(path / f"{row}-{config.seed}" / "drawn.npy") for row in config.rows}
        figures["samples"] = plots.image_rows(images, dataset.image_shape, title=f"{dataset.name}: pixels drawn")
    return figures


STUDY = Study("pixel_decoders", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
