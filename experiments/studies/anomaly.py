"""Anomalies: what an autoencoder of normal rows makes of the others, beside kNN, PCA, an isolation forest and the mean.

Every detector is fitted on normal rows alone, and judged by the area under the ROC curve of its scores on the others:
the chance that an anomaly has a higher one than a normal row. The distance from the mean of the training rows is the
floor, and kNN the bar: published rows of deep detectors are often no better than the first (docs/anomaly.md).

By default a class of the digits is normal and the other nine are not, one task for each class, as Ruff et al. (2018)
have MNIST (`--dataset mnist`): pixels as they are, all training images of the class, all test images. `--dataset
adbench` is the eight tables in `$AEJAX_DATA/adbench`, or one of them by its name, by the protocol of Livernoche et al.
(ICLR 2024, data_generator.py): the first half of the normal rows in the order of the file trains, columns are scaled by
it, and a table of less than 1,000 rows is first drawn to 1,000 with replacement, so that rows are on both sides.
`--protocol shuffled` takes a random half for each seed, and draws nothing twice. `--dataset ecg5000` is heartbeats, 140
numbers each, of which those of class 0 are normal; a random half of them trains. A path to .npz with x and y, 0 for
normal rows, is a table.

The recipe is one for all tables. The level of the DAE's noise is the best of three on the sets that scikit-learn
ships, digits, breast cancer and wine; else networks, passes and rates are the first that were tried. On tables of six
columns a code of 8 numbers is no bottleneck. Deep SVDD begins with an autoencoder of as many passes.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aejax import extras
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, Say, check_counts, check_rows, main
from experiments.studies import anomaly_tasks
from experiments.studies.anomaly_tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUTOENCODERS: dict[str, dict[str, Any]] = {  # keywords of the detector
    "ae": {},
    "ae_knn": {"criterion": "knn"},
    "dae": {"method": "dae", "latent_dim": 64, "options": {"level": 0.5}},  # a wide code: noise keeps it from copying
    "vae": {"method": "vae", "criterion": "bound"},
    "deep_svdd": {"method": "deep_svdd", "criterion": "centre"},
}
ROWS = {
    "mean": "distance from the mean",
    "pca": "PCA, squared error",
    "pca_pyod": "PCA, weighted distances (PyOD)",
    "iforest": "isolation forest",
    "knn": "kNN, k = 5",
    "ae": "AE, squared error",
    "ae_knn": "AE, kNN of codes",
    "dae": "DAE, squared error",
    "vae": "VAE, bound",
    "deep_svdd": "Deep SVDD",
}
Figures = dict[str, tuple[float, ...]]
PUBLISHED: Figures = {  # Livernoche et al. (ICLR 2024), vicliv/DTE, README.md, table 1, in the order of TABLES
    "kNN": (92.81, 99.05, 92.00, 97.44, 87.58, 93.72, 82.24, 98.68),
    "PCA": (85.19, 99.21, 96.54, 89.11, 89.93, 58.17, 66.63, 98.55),
    "isolation forest": (90.28, 99.50, 93.32, 91.21, 88.02, 81.07, 77.46, 98.96),
    "VAE": (85.44, 99.22, 96.55, 89.76, 89.58, 58.17, 74.14, 98.55),
    "Deep SVDD": (55.01, 96.96, 65.43, 97.20, 71.50, 39.45, 76.19, 88.77),
    "DAGMM": (72.23, 89.53, 77.92, 73.95, 76.03, 40.04, 72.79, 91.08),
}
PUBLISHED_MNIST: Figures = {  # Ruff et al. (2018), table 1, as a third text quotes it; we have not read the paper
    "Deep SVDD": (98.0, 99.7, 91.7, 91.9, 94.9, 88.5, 98.3, 94.6, 93.9, 96.5)
}
SHOWN = 12  # rows of a picture


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another labelled image set; adbench or one of its tables, ecg5000; or a path to .npz (x, y)."""
    protocol: Literal["file", "shuffled"] = "file"
    """Which half of the normal rows of a table trains: the first in the order of the file, or a random one."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Detectors."""
    latent_dim: int = 8
    """Size of the code, but for the DAE, whose code has 64 numbers; components of the PCA, half the columns at most."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the normal rows."""
    batch_size: int = 64
    """Rows per step."""
    num_seeds: int = 1
    """Runs of each row, on splits of their own where the split is random."""
    seed: int = 0
    """The first one."""


def scaled(task: Task) -> bool:
    """Whether columns are standardised: those of tables; pixels and beats stay as they are."""
    return task.image_shape is None and not task.is_series


def baselines(train: np.ndarray, test: np.ndarray, latent_dim: int, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    """Scores `[M]` of test rows `[M, D]`, the higher the odder, by detectors that are no autoencoders."""
    from scipy.spatial.distance import cdist
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    def pca() -> np.ndarray:
        found = PCA(min(latent_dim, len(train), train.shape[1] // 2), svd_solver="full").fit(train)
        return np.square(test - found.inverse_transform(found.transform(test))).sum(axis=1)

    def pca_pyod() -> np.ndarray:
        """Distances from the eigenvectors as points, over their shares of the variance; that is what PyOD computes."""
        scaler = StandardScaler().fit(train)
        found = PCA(svd_solver="full").fit(scaler.transform(train))
        shares = np.maximum(found.explained_variance_ratio_, 1e-30)  # that of a constant column is 0, and decides
        return (cdist(scaler.transform(test), found.components_) / shares).sum(axis=1)

    return {
        "mean": lambda: np.square(test - train.mean(axis=0)).sum(axis=1),
        "pca": pca,
        "pca_pyod": pca_pyod,
        "iforest": lambda: -IsolationForest(random_state=seed).fit(train).score_samples(test),
        "knn": lambda: NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1],
    }


def detector(config: Config, row: str, task: Task, seed: int) -> Any:
    """The estimator of a row, not fitted."""
    from aejax.estimators import AutoencoderOutlierDetector

    sizes: dict[str, Any] = {"latent_dim": config.latent_dim, "hidden_dims": config.hidden_dims}
    given = sizes | AUTOENCODERS[row]
    given["scaling"] = "standard" if scaled(task) else "none"
    if row == "vae" and task.image_shape:
        given["options"] = {"likelihood": "bernoulli"}
    if row == "deep_svdd":
        given["options"] = {"pretrain_epochs": config.num_epochs}
    return AutoencoderOutlierDetector(
        **given, num_epochs=config.num_epochs, batch_size=config.batch_size, random_state=seed
    )


def scores_of(config: Config, task: Task, row: str, seed: int) -> np.ndarray:
    """The scores `[M]` of the test rows by one detector that is fitted on the training rows, the higher the odder."""
    from sklearn.preprocessing import StandardScaler

    if row in AUTOENCODERS:
        return -detector(config, row, task, seed).fit(task.train).score_samples(task.test)
    train, test = task.train.astype(np.float64), task.test.astype(np.float64)
    if scaled(task):
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    return baselines(train, test, config.latent_dim, seed)[row]()


def measure(config: Config, name: str, row: str, seed: int, say: Say) -> dict[str, Any]:
    """What is kept of one detector on one task: its metrics, and which rows it finds the oddest and the least odd."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    task, start = anomaly_tasks.task(config.dataset, name, config.protocol, seed), time.monotonic()
    scores = scores_of(config, task, row, seed)
    order = np.argsort(scores, kind="stable")
    normal, odd = order[~task.is_outlier[order]], order[task.is_outlier[order]]
    return {
        "auroc": float(roc_auc_score(task.is_outlier, scores)),
        "average_precision": float(average_precision_score(task.is_outlier, scores)),
        "distinct": len(np.unique(scores)) / len(scores),
        "seconds": time.monotonic() - start,
        "twice": task.twice,
        "oddest_normal": normal[::-1][:SHOWN].tolist(),
        "least_odd": odd[:SHOWN].tolist(),
        "oddest": odd[::-1][:SHOWN].tolist(),
    }


def pieces(config: Config) -> Iterator[Piece]:
    """Task by task and seed by seed, a detector each; what cannot be run is refused first."""
    extras.need("the study anomaly", "sklearn", extra="sklearn")
    check_counts(config, "latent_dim", "num_epochs", "batch_size")
    check_rows(config.rows, ROWS)
    for seed in range(config.seed, config.seed + config.num_seeds):
        for name in anomaly_tasks.names(config.dataset):
            anomaly_tasks.task(config.dataset, name, config.protocol, seed)
            for row in config.rows:
                yield Piece(file_name(name, seed), row, partial(measure, config, name, row, seed))


def file_name(task: str, seed: int) -> str:
    return f"{task.replace(' ', '_')}-{seed}"


def metrics(config: Config, found: Found) -> study.Metrics:
    """By row, of every seed: AUROC and average precision of each task, and the seconds of all tasks."""
    names, seeds = anomaly_tasks.names(config.dataset), range(config.seed, config.seed + config.num_seeds)
    rows: study.Metrics = {}
    for row in config.rows:
        each = [[found[file_name(name, seed)][row] for name in names] for seed in seeds]
        rows[row] = {
            f"{name}_{metric}": [of_seed[i][metric] for of_seed in each]
            for metric in ("auroc", "average_precision", "distinct", "twice")
            for i, name in enumerate(names)
        }
        rows[row]["seconds"] = [sum(one["seconds"] for one in of_seed) for of_seed in each]
    return rows


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """AUROC by task; and of images and beats which ones the first autoencoder gets wrong, first seed."""
    from aejax import plots

    names, rows = anomaly_tasks.names(config.dataset), metrics(config, found)
    chart = {ROWS[row]: {name: rows[row][f"{name}_auroc"] for name in names} for row in config.rows}
    figures = {"auroc": plots.dots(chart, x_label="area under the ROC curve", title=f"anomalies: {config.dataset}")}
    row = next((row for row in config.rows if row in AUTOENCODERS), config.rows[-1])
    wrong = {name: found[file_name(name, config.seed)][row] for name in names}
    tasks = {name: anomaly_tasks.task(config.dataset, name, config.protocol, config.seed) for name in names}
    first = tasks[names[0]]
    if first.image_shape:
        images: dict[str, np.ndarray] = {}
        shown = min(len(each[which]) for each in wrong.values() for which in ("oddest_normal", "least_odd"))
        for name, task in tasks.items():
            images[f"{name}, the oddest"] = task.test[wrong[name]["oddest_normal"][:shown]]
            images[f"others than {name}, the least odd"] = task.test[wrong[name]["least_odd"][:shown]]
        figures["wrong"] = plots.image_rows(images, first.image_shape, title=f"{ROWS[row]}: what it gets wrong")
    elif first.is_series:
        figures["beats"] = beats(first, wrong[first.name], ROWS[row])
    return figures


def beats(task: Task, wrong: dict[str, Any], title: str) -> "Figure":
    """Heartbeats: what is trained on, mean and range, and those that a detector finds odd and not odd."""
    from aejax import plots

    time_axis = np.arange(task.train.shape[1])
    panels = {"normal, to train on: mean and range": {"": plots.Curve(time_axis, task.train)}}
    for name, which in (
        ("normal, the oddest", "oddest_normal"),
        ("anomalies, the least odd", "least_odd"),
        ("anomalies, the oddest", "oddest"),
    ):
        panels[name] = {f"{i + 1}": plots.Curve(time_axis, task.test[row], i) for i, row in enumerate(wrong[which][:4])}
    lines = {name: plots.Lines("sample", "scaled voltage", curves) for name, curves in panels.items()}
    return plots.line_panels(lines, title=f"{task.name}: {title}")


def table(summary: dict[str, Any]) -> str:
    """AUROC in % by task, mean and deviation over seeds, and the means over tasks; published rows below ours."""
    names = [name.removesuffix("_auroc") for name in next(iter(summary["metrics"].values())) if name.endswith("_auroc")]
    rows = []
    for row, found in summary["metrics"].items():
        means = [
            [100 * float(np.mean(values)) for values in zip(*(found[f"{name}_{of}"] for name in names), strict=True)]
            for of in ("auroc", "average_precision")
        ]
        cells = [study.spread(found[f"{name}_auroc"], scale=100) for name in names]
        rows.append([ROWS[row], *cells, *map(study.spread, means), study.cost(found)])
    published: Figures = {}
    if summary["dataset"] == "adbench" and summary["protocol"] == "file":
        published = PUBLISHED
    elif summary["dataset"] == "mnist":
        published = PUBLISHED_MNIST
    rows += [
        [f"{name}, published", *(f"{value:g}" for value in values), f"{np.mean(values):.4g}", "", ""]
        for name, values in published.items()
    ]
    heads = [name.rpartition(" ")[2] for name in names]
    return study.table(("AUROC, %", *heads, "mean", "average precision, mean", "seeds, seconds a run"), rows)


STUDY = PiecedStudy("anomaly", Config, pieces, metrics, table, draw, anomaly_tasks.digest)


if __name__ == "__main__":
    main(STUDY, __doc__)
