"""Denoising autoencoder, by the level of its noise: what it learns, and what its code is worth.

Vincent et al. (2010), sections 5.2 and 6: noise turns the filters of one tied sigmoid layer from specks into strokes,
and makes the code better for a classifier, until there is too much of it. Every level of masking and of Gaussian noise
is trained with every seed, all runs of one kind of noise as one program (`aejax.sweep`); the error is that of logistic
regression on the codes. On MNIST it is
`--dataset mnist --num-train 10000 --latent-dim 500 --num-epochs 10 --num-seeds 5`, 20 minutes on one busy core.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optax
from jax import nn

from aejax import evaluation, runner, schedules, training
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods import dae as method
from aejax.methods.ae import AE
from aejax.nets import init_params
from aejax.runner import study
from aejax.runner.config import to_dict
from aejax.sweep import sweep

if TYPE_CHECKING:
    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

METRICS = ("probe_error", "test_sse", "filter_sharpness")


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y)."""
    num_train: int | None = None
    """Only the first so many training examples."""
    latent_dim: int = 100
    """Tied sigmoid units."""
    masking: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
    """Shares of the pixels that are lost."""
    gaussian: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
    """Standard deviations of the noise, in data units."""
    num_epochs: int = 50
    """Passes over the training examples."""
    batch_size: int = 100
    """Examples per step."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    num_seeds: int = 2
    """Runs at each level."""
    seed: int = 0
    """The first one."""


@lru_cache(maxsize=4)  # the same functions are the same program, whatever the number of seeds
def functions(shape: tuple[int, ...], config: Config, corruption: str, num_steps: int) -> tuple[AE, Callable, Callable]:
    """The model, hyper-parameters -> algorithm, and key -> parameters."""
    model = AE.dense(shape[0], config.latent_dim, hidden_dims=(), code_activation=nn.sigmoid, tied=True)
    tx = lambda lr: optax.adam(schedules.cosine(lr, num_steps))
    example = np.zeros((1, *shape), np.float32)
    build = partial(method.dae, model, tx=tx, corruption=corruption)  # of hparams
    return model, build, lambda key: init_params(model, key, example)


def train(config: Config, dataset: Dataset, corruption: str, seed: int) -> dict[str, Any]:
    """All levels of one noise with one seed: the metrics by level, and the filters `[H, D, Z]`."""
    levels = getattr(config, corruption)
    x = dataset.train.x
    num_steps = config.num_epochs * training.count_steps(x, config.batch_size)
    model, build, init = functions(x.shape[1:], config, corruption, num_steps)
    hparams = [method.HParams(config.lr, level) for level in levels]
    result = sweep(
        build, init, Batch(x), hparams=hparams, seeds=[seed], batch_size=config.batch_size, num_epochs=config.num_epochs
    )
    states = [result.state(i, 0) for i in range(len(levels))]
    metrics = [measure(model, state.params, dataset) for state in states]
    found = {name: [each[name] for each in metrics] for name in METRICS}
    return {**found, "filters": np.stack([state.params["encoder"]["dense_0"]["kernel"] for state in states])}


def measure(model: AE, params: Any, dataset: Dataset) -> dict[str, float]:
    train, test = dataset.train, dataset.test
    codes = (evaluation.embed(model, params, train.x), train.y, evaluation.embed(model, params, test.x), test.y)
    return {
        "probe_error": 1 - evaluation.linear_probe(*codes),
        "test_sse": evaluation.reconstruction_sse(model, params, test.x),
        "filter_sharpness": evaluation.filter_sharpness(params["encoder"]["dense_0"]["kernel"]),
    }


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Trains noise by noise and seed by seed; what is done is kept, and not repeated with `--resume`."""
    from aejax.runner.console import list_figures
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, read_json, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    folder = open_folder("denoising", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        dataset = load(config)
        check(config, dataset)
        folder.start()
        pieces = [(c, config.seed + i) for i in range(config.num_seeds) for c in ("masking", "gaussian")]
        bars.add("sweeps", len(pieces))
        found: dict[str, dict[str, list[list[float]]]] = {c: {name: [] for name in METRICS} for c, _ in pieces}
        for done, (corruption, seed) in enumerate(pieces):
            file = folder.path / f"{corruption}-{seed}.json"
            piece = read_json(file)
            if piece is None or piece.get("num_epochs") != config.num_epochs:
                bars.say(f"{corruption} noise, seed {seed}, all levels")
                piece = train(config, dataset, corruption, seed)
                filters = piece.pop("filters")
                if seed == config.seed:
                    np.save(folder.path / f"{corruption}.npy", filters)
                write_json(file, piece | {"num_epochs": config.num_epochs})
            for name in METRICS:
                found[corruption][name].append(piece[name])
            bars.update(done + 1, {f"{corruption}/lowest_probe_error": min(piece["probe_error"])})
        metrics = {
            c: {name: np.transpose(values).tolist() for name, values in each.items()} for c, each in found.items()
        }
        draw(config, folder.path, metrics, dataset)
        raw = 1 - evaluation.linear_probe(dataset.train.x, dataset.train.y, dataset.test.x, dataset.test.y)
        summary = {"experiment": "denoising", **to_dict(config), **provenance(), "raw": raw, "metrics": metrics}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


def load(config: Config) -> Dataset:
    own = runner.Config(
        dataset=config.dataset, num_train=config.num_train, validation=0.0, latent_dim=config.latent_dim,
        num_epochs=config.num_epochs, batch_size=config.batch_size, seed=config.seed,
    )  # fmt: skip
    runner.check(own)
    return runner.load_data(own)


def check(config: Config, dataset: Dataset) -> None:
    """Refuses what cannot be trained or measured."""
    if dataset.train.y is None or dataset.test.y is None:
        raise InputError(f"{dataset.name} has no labels, by which the codes are judged.")
    if config.num_seeds < 1 or not config.masking or not config.gaussian:
        raise InputError("--num-seeds has to be at least 1, and --masking and --gaussian need at least one level each.")
    training.count_steps(dataset.train.x, config.batch_size)
    for corruption in ("masking", "gaussian"):
        for level in getattr(config, corruption):
            method.dae(AE.dense(2, 1), method.HParams(config.lr, level), corruption=corruption)


def draw(config: Config, path: Path, metrics: dict[str, Any], dataset: Dataset) -> None:
    """The two curves, and filters by level."""
    from aejax import plots

    (path / "figures").mkdir(exist_ok=True)
    labels = {"masking": "share of pixels lost", "gaussian": "standard deviation of the noise, data units"}
    for corruption, label in labels.items():
        levels, percent = getattr(config, corruption), 100 * np.array(metrics[corruption]["probe_error"])
        figure = plots.level_errors(
            {f"{corruption} noise, {config.num_seeds} seeds": percent}, levels, x_label=label, logarithmic=False,
            title=f"{dataset.name}, {config.latent_dim} units", y_label="test error of logistic regression on codes, %",
        )  # fmt: skip
        plots.save(figure, path / "figures" / f"{corruption}_error.png")
        if dataset.image_shape is not None:
            kernels = dict(zip((f"{level:g}" for level in levels), np.load(path / f"{corruption}.npy"), strict=True))
            sheet = plots.filter_panels(kernels, dataset.image_shape, title=f"filters by level of {corruption} noise")
            plots.save(sheet, path / "figures" / f"{corruption}_filters.png")


def table(summary: dict[str, Any]) -> str:
    """By noise and level: mean and deviation over seeds; the lowest error of each noise is marked."""
    rows = []
    for corruption, found in summary["metrics"].items():
        best = int(np.mean(found["probe_error"], axis=1).argmin())
        for i, level in enumerate(summary[corruption]):
            error = study.spread(found["probe_error"][i], scale=100) + (" (lowest)" if i == best else "")
            others = [study.spread(found[name][i]) for name in METRICS[1:]]
            rows.append([f"{corruption}, {level:g}", error, *others, str(len(found["probe_error"][i]))])
    rows.append(["raw pixels", f"{100 * summary['raw']:.2f}", "", "", ""])
    return study.table(("noise", "logistic regression, test error, %", "test SSE", "filter sharpness", "seeds"), rows)


if __name__ == "__main__":
    study.command_line("denoising", Config, __doc__, body)
