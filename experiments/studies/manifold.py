"""2-D embeddings: autoencoders beside PCA, LDA, Isomap, LLE and t-SNE, scored alike.

Every method gets the same examples, the first of each split, and the same number of neighbours in every score. On the
training codes: trustworthiness, continuity, neighbourhood hit and the vote of 5 neighbours, nobody his own. On the test
codes: the same, and the vote of the 5 nearest training codes. t-SNE gives no map, so it has no test codes; LDA is the
one that sees the labels. The graphs of Isomap and LLE have as many neighbours as it takes to connect them.

The autoencoder with one hidden layer is its code, two sigmoid units, as in Wang, Yao & Zhao (2016). For MNIST:
`--dataset mnist --hidden-dims 1000 500 250 --num-epochs 100 --conv-epochs 25 --hparams.lr 1e-3
--num-seeds 2`, half an hour on a busy core.
"""

import dataclasses
import hashlib
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aejax import data, evaluation, runner
from aejax.checks import InputError
from aejax.runner import Trained, study
from experiments import ae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "pca": "PCA",
    "lda": "LDA (sees the labels)",
    "isomap": "Isomap",
    "lle": "LLE",
    "tsne": "t-SNE (no map for test data)",
    "ae": "AE, one hidden layer",
    "deep": "deep AE",
    "conv": "convolutional AE",
}
SCORES = {  # name of the metric behind train_ and test_ -> name in the picture, and at the head of the table
    "trustworthiness": ("trust", "trustworthiness"),
    "continuity": ("continuity", "continuity"),
    "neighborhood_hit": ("hit", "neighbourhood hit"),
    "knn5_accuracy": ("5-NN", "5-NN accuracy"),
}


class HParams(NamedTuple):
    """Learning rates of Adam, the peak of a cosine."""

    lr: float = 3e-3
    """Of the deep autoencoder."""
    conv_lr: float = 3e-3
    """Of the convolutional one."""
    sigmoid_lr: float = 3e-2
    """Of the one with one hidden layer."""


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y) of images."""
    num_train: int = 5000
    """The first so many training examples, where there are more."""
    num_test: int = 1000
    """The first so many test examples, where there are more."""
    k: int = 10
    """Neighbours in trustworthiness, continuity and neighbourhood hit."""
    graph_k: int = 12
    """Neighbours in the graphs of Isomap and LLE; more where the graph is not connected."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of the deep encoder."""
    num_epochs: int = 150
    """Passes over the training examples, of the dense autoencoders."""
    conv_epochs: int = 40
    """The same of the convolutional one."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    num_seeds: int = 1
    """Runs of each autoencoder; the others have one."""
    seed: int = 0
    """The first one."""
    hparams: HParams = HParams()
    """Learning rates."""


class Baseline(NamedTuple):
    """What a method of scikit-learn made of the data."""

    train_z: np.ndarray
    """`[N, 2]`."""
    metrics: dict[str, float]
    """`scores`, the number of neighbours in the graph, and the seconds of fitting, mapping and scoring."""


def runs(config: Config) -> study.Runs:
    """The three autoencoders, after refusing what the scores and LDA cannot use."""
    if config.num_seeds < 1:
        raise InputError(f"--num-seeds is {config.num_seeds}; it has to be at least 1.")
    dataset = data.load(config.dataset, validation=0.0)
    if dataset.train.y is None or dataset.test.y is None or dataset.image_shape is None:
        raise InputError(f"{config.dataset} lacks labels or image shape; images with labels are compared here.")
    sizes = {name: min(getattr(config, name), len(split.x)) for name, split in
             (("num_train", dataset.train), ("num_test", dataset.test))}  # fmt: skip
    if not (1 <= config.k < min(sizes.values()) / 2 and 1 <= config.graph_k < sizes["num_train"]):
        raise InputError(f"--k is {config.k}, --graph-k {config.graph_k}; at least 1, --k below half of {sizes}.")
    if len(np.unique(dataset.train.y[: sizes["num_train"]])) < 3:
        raise InputError(f"{config.dataset} has fewer than three kinds of label; LDA has two dimensions with three.")
    shared: dict[str, Any] = {
        "dataset": config.dataset, **sizes, "validation": 0.0, "batch_size": config.batch_size, "schedule": "cosine",
    }  # fmt: skip
    dense = shared | {"num_epochs": config.num_epochs}
    lr, conv_lr, sigmoid_lr = map(ae.method.HParams, config.hparams)
    rows = {
        "ae": ae.Config(**dense, hidden_dims=(), code="sigmoid", hparams=sigmoid_lr),
        "deep": ae.Config(**dense, hidden_dims=config.hidden_dims, hparams=lr),
        "conv": ae.Config(**shared, net="conv", num_epochs=config.conv_epochs, hparams=conv_lr),
    }
    experiment = ae.EXPERIMENT._replace(measure=partial(measure, k=config.k), draw=lambda trained: {})
    return study.seeded({name: (experiment, row) for name, row in rows.items()}, config.seed, config.num_seeds)


def measure(trained: Trained, *, k: int) -> dict[str, float]:
    embed = partial(evaluation.embed, trained.model, trained.state.params)
    train, test = trained.dataset.train, trained.dataset.test
    sse = evaluation.reconstruction_sse(trained.model, trained.state.params, test.x)
    return {"test_sse": sse, **scores(train, embed(train.x), test, embed(test.x), k=k)}


def scores(
    train: data.Batch, train_z: np.ndarray, test: data.Batch, test_z: np.ndarray | None, *, k: int
) -> dict[str, float]:
    """`train_` and, where there are test codes, `test_` of every one of `SCORES`."""

    def found(split: str, batch: data.Batch, z: np.ndarray) -> dict[str, float]:
        return {
            f"{split}_trustworthiness": evaluation.trustworthiness(batch.x, z, k=k),
            f"{split}_continuity": evaluation.continuity(batch.x, z, k=k),
            f"{split}_neighborhood_hit": evaluation.neighborhood_hit(z, batch.y, k=k),
        }

    on_train = found("train", train, train_z) | {"train_knn5_accuracy": leave_one_out(train_z, train.y)}
    if test_z is None:
        return on_train
    accuracy = evaluation.knn(train_z, train.y, test_z, test.y)
    return on_train | found("test", test, test_z) | {"test_knn5_accuracy": accuracy}


def leave_one_out(z: np.ndarray, y: np.ndarray) -> float:
    """Accuracy of the vote of the 5 nearest other codes."""
    from sklearn.neighbors import KNeighborsClassifier

    return float((KNeighborsClassifier(5).fit(z, y).predict(None) == y).mean())


@dataclasses.dataclass(frozen=True)
class Hashed:
    """A data set that is compared by its content."""

    digest: str
    dataset: data.Dataset = dataclasses.field(compare=False)


def hashed(dataset: data.Dataset) -> Hashed:
    """Of flat data with labels."""
    splits = (dataset.train, dataset.test)
    content = b"".join(np.ascontiguousarray(array).tobytes() for split in splits for array in split)
    return Hashed(hashlib.sha256(content).hexdigest(), dataset)


def baselines(config: Config, dataset: data.Dataset) -> dict[str, Baseline]:
    """The methods of scikit-learn, fitted to flat data with labels."""
    return _baselines(config, hashed(dataset))


@lru_cache(maxsize=1)  # scored and drawn
def _baselines(config: Config, hashed: Hashed) -> dict[str, Baseline]:
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.manifold import TSNE, Isomap, LocallyLinearEmbedding
    from threadpoolctl import threadpool_limits

    train, test = hashed.dataset.train, hashed.dataset.test
    graph_k = connected_k(train.x, config.graph_k)
    n, d = train.x.shape
    methods = {
        "pca": PCA(2, svd_solver="covariance_eigh" if d <= n else "full"),
        "lda": LinearDiscriminantAnalysis(n_components=2),
        "isomap": Isomap(n_neighbors=graph_k),
        "lle": LocallyLinearEmbedding(n_neighbors=graph_k, random_state=config.seed),
        "tsne": TSNE(random_state=config.seed),
    }
    found = {}
    # Threads of these methods wait for each other by spinning, which is slow on cores that others use.
    with threadpool_limits(1):
        for name, method in methods.items():
            start = time.perf_counter()
            train_z = method.fit_transform(train.x, train.y)
            test_z = method.transform(test.x) if hasattr(method, "transform") else None
            metrics = scores(train, train_z, test, test_z, k=config.k)
            if name in ("isomap", "lle"):
                metrics["graph_neighbors"] = graph_k
            found[name] = Baseline(train_z, metrics | {"seconds": time.perf_counter() - start})
    return found


def connected_k(x: np.ndarray, k: int) -> int:
    """The least number of neighbours, `k` at least, with which their graph hangs together."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import kneighbors_graph

    while connected_components(kneighbors_graph(x, k), directed=False)[0] > 1:
        k += 1
    return k


def beside(config: Config, dataset: data.Dataset, once: study.Once) -> study.Metrics:
    found = baselines(config, dataset)
    return {name: {metric: [value] for metric, value in each.metrics.items()} for name, each in found.items()}


def draw(config: Config, path: Path, dataset: data.Dataset) -> "dict[str, Figure]":
    from aejax import plots
    from aejax.runner.folder import read_json

    found = baselines(config, dataset).items()
    panels = {TITLES[name]: plots.Embedding(each.train_z, note(each.metrics)) for name, each in found}
    for name in ("ae", "deep", "conv"):
        folder = path / f"{name}-{config.seed}"
        own, model, state = runner.load(folder)
        z = evaluation.embed(model, state.params, runner.load_data(own).train.x)
        panels[TITLES[name]] = plots.Embedding(z, note(read_json(folder / "summary.json")["metrics"]))
    count = f"{len(dataset.train.x):,} training images"
    title = f"2-D codes of {count} of {dataset.name}, and their scores (k = {config.k})"
    return {"embeddings": plots.embeddings(panels, dataset.train.y, title=title)}


def note(metrics: dict[str, float]) -> str:
    """The scores of training codes, on one line."""
    return "   ".join(f"{short} {metrics[f'train_{name}']:.3f}" for name, (short, _) in SCORES.items())


def table(summary: dict[str, Any]) -> str:
    head = ["training / test codes, %", *(title for _, title in SCORES.values()), "seeds, seconds a run"]
    lines = []
    for name, row in summary["metrics"].items():
        lines.append([TITLES[name], *(both(row, score) for score in SCORES), study.cost(row)])
    return study.table(head, lines)


def both(row: dict[str, list[float]], score: str) -> str:
    """A score of training codes, and behind the stroke that of test codes, where there are any."""
    splits = [row.get(f"{split}_{score}") for split in ("train", "test")]
    return " / ".join("none" if split is None else study.spread(split, scale=100) for split in splits)


STUDY = study.Study("manifold", Config, runs, table, draw, beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
