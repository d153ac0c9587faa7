"""Every autoencoder beside PCA, on the same images with the same network: one table, one sheet of pictures."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from aejax import evaluation, runner
from aejax.data import Dataset
from aejax.runner import Result, pictures, study
from aejax.runner.config import to_dict
from aejax.runner.study import Runs
from experiments import aae, ae, cae, dae, vae

if TYPE_CHECKING:
    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

SHOWN = ("test_sse", "probe_accuracy", "knn5_accuracy", "jacobian_norm", "test_bound_nats", "code_mmd")


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    latent_dim: int = 2
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of the encoders; the decoders mirror them."""
    num_epochs: int = 500
    """Passes over the training examples, for each method."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    seed: int = 0
    """Of the initialisation, the order of the data and the noise."""


def experiments(config: Config) -> Runs:
    """The experiment and the configuration of each method, by name."""
    shared = {**to_dict(config), "schedule": "cosine"}
    return {
        "ae": (ae.EXPERIMENT, ae.Config(**shared)),
        "dae": (dae.EXPERIMENT, dae.Config(**shared)),
        "cae": (cae.EXPERIMENT, cae.Config(**shared)),
        "vae": (vae.EXPERIMENT, vae.Config(**shared)),
        "aae": (aae.EXPERIMENT, aae.Config(**shared)),
    }


def run(config: Config) -> dict[str, Result]:
    """Trains and measures every method; prints nothing, writes nothing."""
    return {name: runner.run(*experiment) for name, experiment in experiments(config).items()}


def pca(dataset: Dataset, k: int) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """The linear method: its metrics, and codes and reconstructions of the test split."""
    from sklearn.decomposition import PCA

    start = time.perf_counter()
    fitted = PCA(min(k, *dataset.train.x.shape)).fit(dataset.train.x)
    z = fitted.transform(dataset.test.x)
    x_hat = fitted.inverse_transform(z)
    metrics = {"test_sse": float(np.square(x_hat - dataset.test.x).sum(axis=1).mean())}
    if dataset.train.y is not None and dataset.test.y is not None:
        codes = (fitted.transform(dataset.train.x), dataset.train.y, z, dataset.test.y)
        metrics |= {"probe_accuracy": evaluation.linear_probe(*codes), "knn5_accuracy": evaluation.knn(*codes)}
    metrics["jacobian_norm"] = fitted.n_components_**0.5  # of orthonormal rows
    return metrics | {"seconds": time.perf_counter() - start}, z, x_hat


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Runs the experiments in folders of their own inside one, then draws the sheet."""
    from aejax import plots
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, write_json

    folder = open_folder("compare", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        runs = experiments(config)
        trained = study.run_all(runs, folder, launch, bars)
        dataset = runner.load_data(runs["ae"][1])
        metrics, z, x_hat = pca(dataset, config.latent_dim)
        table, columns = {"pca": metrics, **trained}, {"PCA": plots.Column(z, x_hat, None, _note(metrics))}
        for name, found in trained.items():
            columns[name.upper()] = _column(folder.path / name, dataset, _note(found))
        folder.figures.mkdir(exist_ok=True)
        title = f"{dataset.name}, a code of {config.latent_dim} numbers"
        sheet = plots.compare_sheet(dataset.test.x, dataset.test.y, columns, dataset.image_shape, title=title)
        plots.save(sheet, folder.figures / "compare.png")
        summary = {"experiment": "compare", **to_dict(config), **provenance(), "metrics": table}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        summary = folder.summary
        assert summary is not None
        bars.console.print(_table(summary["metrics"], config))
        bars.console.print(f"{folder.figures}/compare.png", highlight=False, soft_wrap=True)

    return report


def _note(metrics: dict[str, float]) -> str:
    return f"squared error {metrics['test_sse']:.2f}"


def _column(folder: Path, dataset: Dataset, note: str) -> Any:
    """Codes, reconstructions and samples of a finished run."""
    from aejax import plots

    _, model, state = runner.load(folder)
    x = dataset.test.x
    samples = None
    if pictures.samples_itself(model):
        samples = np.asarray(model.apply({"params": state.params}, jax.random.key(0), 40, method="sample"))
    z, x_hat = evaluation.embed(model, state.params, x), evaluation.reconstruct(model, state.params, x)
    return plots.Column(z, x_hat, samples, note)


def _table(metrics: dict[str, dict[str, float]], config: Config) -> Any:
    from rich.table import Table

    table = Table(
        title=f"{config.dataset}, code of {config.latent_dim}, {config.num_epochs} epochs, seed {config.seed}"
    )
    table.add_column("metric")
    for name in metrics:
        table.add_column(name.upper(), justify="right")
    for row in (*SHOWN, "seconds"):
        table.add_row(row, *(f"{values[row]:.4g}" if row in values else "-" for values in metrics.values()))
    return table


if __name__ == "__main__":
    study.command_line("compare", Config, __doc__, body)
