"""Clusters of images without their labels: k-means on pixels and on codes, DEC, IDEC, DCN and VaDE.

All images are clustered, training and test split together, as is usual, into as many clusters as there are labels, and
then held against these: accuracy by the best one-to-one pairing, NMI and ARI. Per seed one autoencoder is trained by
Adam, and DEC, IDEC and DCN go on from its parameters; VaDE has one of its own, with the encoder of a VAE. Every k-means
is the best of 20 starts. By default networks are 256-256-10 on the digits, with the cross-entropy, which VaDE always
has. The networks, the loss, the batch and the refresh of DEC-keras, with 60 passes of Adam for its 300 of SGD:
`--dataset mnist --hidden-dims 500 500 2000 --likelihood gaussian --batch-size 256 --refresh-every 140 --hparams.gamma
39.2 --num-seeds 5`.

On the digits, 3 seeds (2026-11-26, 5 minutes in all on two shared CPU cores), DEC takes the accuracy of k-means on
codes from 77.3 +- 1.5 to 81.4 +- 2.1 % and the NMI from 75.0 +- 2.2 to 82.7 +- 2.9 %; IDEC has 80.5 +- 1.9 and 80.3 +-
3.0 %, VaDE 77.1 +- 3.5 and 80.3 +- 1.4 %. DCN stays at 77.3 +- 2.0 %, and k-means on pixels has 79.2 +- 0.2 %, more
than on codes. On MNIST, 2 seeds of 20 passes (docs/clustering.md), IDEC takes 80.4 +- 4.4 to 84.5 +- 4.6 %, DEC to
80.9 +- 5.2 %, behind what is published.

The figures in brackets: of k-means on codes and of DEC means of 10 runs of DEC-keras (its results/exp1/results.csv), of
IDEC the paper's as the README of IDEC-toy has it, of VaDE what its authors' program claims, from weights that they
trained. Of DCN there is none that we could read.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from aejax import evaluation, priors, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.evaluation.apply import over_batches
from aejax.methods import ae, dcn, dec, idec, vade, vae
from aejax.runner import Experiment, Trained, study
from aejax.runner.inputs import Feed, Spec
from aejax.runner.study import Metrics, Once, Runs, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "pixels": "k-means on pixels",
    "ae": "AE + k-means",
    "dec": "DEC",
    "idec": "IDEC",
    "dcn": "DCN",
    "vade": "VaDE",
}
FIRST = {"dec": "ae", "idec": "ae", "dcn": "ae", "vade": "vade_ae"}  # the autoencoder that a method goes on from
SCORES = {"cluster_accuracy": "accuracy, %", "nmi": "NMI, %", "ari": "ARI, %"}
PUBLISHED = {  # MNIST, all 70,000 images; accuracy, NMI, ARI
    "ae": (87.93, 80.71, 78.35),
    "dec": (91.20, 86.92, 85.57),
    "idec": (88.1, None, None),
    "vade": (94.46, None, None),
}
_SHOWN = 2000  # codes in the picture


class HParams(NamedTuple):
    """Real-valued knobs."""

    lr: float = 1e-3
    """Learning rate of Adam, of everything."""
    gamma: float = 3.2
    """Of IDEC: weight of the divergence from the targets; the authors' 0.1 of a mean over pixels is 0.05 a pixel."""
    clustering: float = 1.0
    """Of DCN: weight of half the squared distance from the centre."""


@dataclasses.dataclass(frozen=True)
class RunConfig(runner.Config):
    """One run: an autoencoder, or a method that goes on from it."""

    kind: Literal["ae", "dec", "idec", "dcn", "vade_ae", "vade"] = "ae"
    """The method."""
    num_clusters: int = 10
    """As many as there are labels."""
    refresh_every: int = 14
    """Of DEC and IDEC: steps between two refreshes of the targets."""
    hparams: HParams = HParams()
    """Real-valued knobs."""


def build_model(config: RunConfig, spec: Spec) -> Any:
    modules: dict[str, Any] = {"ae": ae.AE, "vade_ae": vae.VAE, "dcn": dcn.DCN}
    if config.kind == "vade":
        return runner.build_model(config, spec, vade.VaDE, prior=priors.LearnedMixture(config.num_clusters))
    return runner.build_model(config, spec, modules.get(config.kind, dec.DEC))


def build_algorithm(config: RunConfig, model: Any, tx: Any, axis_name: str | None) -> Any:
    knobs = config.hparams
    own: dict[str, Any] = {"lr": knobs.lr, "tx": tx, "axis_name": axis_name}
    every = {"refresh_every": config.refresh_every}
    builds: dict[str, Callable[..., Any]] = {
        "ae": ae.ae,
        "dec": partial(dec.dec, **every),
        "idec": partial(idec.idec, gamma=knobs.gamma, **every),
        "dcn": partial(dcn.dcn, clustering=knobs.clustering),
        "vade_ae": vade.vade_ae,
        "vade": vade.vade,
    }
    return builds[config.kind](model, **own)


def everything(dataset: Dataset) -> Batch:
    """Training and test images, with their labels."""
    x, y = (np.concatenate(parts) for parts in zip(dataset.train, dataset.test, strict=True))
    return Batch(x, y)


def feed(config: RunConfig, dataset: Dataset) -> Feed:
    return Feed(Batch(everything(dataset).x), None, config.batch_size)


def clustered(model: Any, params: Any, x: np.ndarray, config: RunConfig) -> evaluation.KMeans:
    """The clusters of images, and their centres in code space."""
    if config.kind in ("ae", "vade_ae"):
        return evaluation.k_means(evaluation.embed(model, params, x), config.num_clusters, seed=config.seed)
    chosen = over_batches(partial(evaluation.call, model, params, "clusters"), x)
    return evaluation.KMeans(
        chosen, np.asarray(params["prior"]["means"] if config.kind == "vade" else params["centres"])
    )


def measure(trained: Trained) -> dict[str, float]:
    x, y = everything(trained.dataset)
    chosen = clustered(trained.model, trained.state.params, x, trained.config).clusters
    return evaluation.cluster_scores(y, chosen)._asdict()


EXPERIMENT = Experiment(
    "clustering_run", RunConfig, build_model, build_algorithm, None, measure, lambda _: {}, feed=feed
)


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y)."""
    rows: tuple[str, ...] = ("dec", "idec", "dcn", "vade")
    """Methods beside k-means on pixels and on codes, in this order."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    latent_dim: int = 10
    """Size of the code."""
    likelihood: str = "bernoulli"
    """bernoulli is cross-entropy, gaussian (unit variance) half the squared error; VaDE always has the former."""
    pretrain_epochs: int = 60
    """Passes over all images, of the autoencoder."""
    num_epochs: int = 60
    """Passes of the methods that go on from it."""
    batch_size: int = 128
    """Images per step, over all devices."""
    refresh_every: int = 14
    """Of DEC and IDEC: steps between two refreshes of the targets; 14 are a pass over the digits."""
    num_seeds: int = 3
    """Runs of each row."""
    seed: int = 0
    """The first one."""
    hparams: HParams = HParams()
    """Real-valued knobs."""


def runs(config: Config) -> Runs:
    """Autoencoders, and each method behind its own; `InputError` for an unknown row, and for data without labels."""
    unknown = [row for row in config.rows if row not in FIRST]
    if unknown or len(set(config.rows)) < len(config.rows):
        raise InputError(f"--rows are {config.rows}; wanted are some of {', '.join(FIRST)}, none twice.")
    shared: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("rows", "num_seeds", "seed", "num_epochs", "pretrain_epochs")
    }
    dataset = runner.load_data(RunConfig(**shared, validation=0.0))
    if dataset.train.y is None or dataset.test.y is None:
        raise InputError(f"{config.dataset} has no labels to hold clusters against; bring an .npz with x and y.")
    shared |= {"num_clusters": len(np.unique(everything(dataset).y)), "validation": 0.0}
    passes = dict.fromkeys(("ae", *(FIRST[row] for row in config.rows)), config.pretrain_epochs)
    passes |= dict.fromkeys(config.rows, config.num_epochs)
    rows = {}
    for kind, count in passes.items():
        own = {"kind": kind, "num_epochs": count} | ({"likelihood": "bernoulli"} if "vade" in kind else {})
        rows[kind] = EXPERIMENT, RunConfig(**shared | own)
    return study.seeded(rows, config.seed, config.num_seeds)


def after(name: str) -> str | None:
    """The autoencoder from whose parameters a method goes on."""
    row, _, seed = name.rpartition("-")
    return f"{FIRST[row]}-{seed}" if row in FIRST else None


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """k-means on pixels."""
    x, y = everything(dataset)

    def pixels(seed: int, say: Callable[[str], None]) -> dict[str, float]:
        found = evaluation.k_means(x, len(np.unique(y)), seed=seed)
        return evaluation.cluster_scores(y, found.clusters)._asdict()

    seeds = range(config.seed, config.seed + config.num_seeds)
    return study.by_row({f"pixels-{seed}": dict(once(f"pixels-{seed}", partial(pixels, seed))) for seed in seeds})


def in_order(images: np.ndarray, clusters: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The images `[K, ...]` of clusters in the order of the labels that they stand for, black where none does."""
    stands_for = evaluation.matched(y, clusters)
    ordered = np.zeros((len(np.unique(y)), *images.shape[1:]), images.dtype)
    for place, label in enumerate(np.unique(y)):
        if (stands_for == label).any():
            ordered[place] = images[clusters[stands_for == label][0]]
    return ordered


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Of the first seed: what the centres are decoded to, by the digit that they stand for, and the codes."""
    from aejax import plots

    x, y = everything(dataset)
    on_pixels = evaluation.k_means(x, len(np.unique(y)), seed=config.seed)
    centres = {TITLES["pixels"]: in_order(on_pixels.centres, on_pixels.clusters, y)}
    shown = np.random.default_rng(config.seed).permutation(len(x))[:_SHOWN]
    panels = {TITLES["pixels"]: plots.Embedding(x[shown].reshape(len(shown), -1), note(y, on_pixels.clusters))}
    for kind in ("ae", *config.rows):
        own, model, state = runner.load(path / f"{kind}-{config.seed}")
        found = clustered(model, state.params, x, own)
        decoded = np.asarray(model.apply({"params": state.params}, found.centres, method="generate"))
        centres[TITLES[kind]] = in_order(decoded, found.clusters, y)
        panels[TITLES[kind]] = plots.Embedding(evaluation.embed(model, state.params, x[shown]), note(y, found.clusters))
    figures = {"codes": plots.embeddings(panels, y[shown], title=f"{dataset.name}: codes, by label", columns=3)}
    if dataset.image_shape is not None:
        title = f"{dataset.name}: centres of the clusters, decoded"
        figures["centres"] = plots.image_rows(centres, dataset.image_shape, title=title)
    return figures


def note(y: np.ndarray, clusters: np.ndarray) -> str:
    accuracy, nmi, _ = evaluation.cluster_scores(y, clusters)
    return f"accuracy {100 * accuracy:.1f} %, NMI {100 * nmi:.1f} %"


def table(summary: dict[str, Any]) -> str:
    """Mean and deviation over seeds, in brackets what was published; seconds of a method are those behind its start."""
    rows = []
    for row in ("pixels", "ae", *summary["rows"]):
        found = summary["metrics"][row]
        published = PUBLISHED.get(row, (None,) * 3) if summary["dataset"] == "mnist" else (None,) * 3
        beside = ("" if value is None else f" ({value:.4g})" for value in published)
        cells = [study.spread(found[name], scale=100) + more for name, more in zip(SCORES, beside, strict=True)]
        rows.append([TITLES[row], *cells, study.cost(found)])
    return study.table(("", *SCORES.values(), "seeds, seconds a run"), rows)


STUDY = Study("clustering", Config, runs, table, draw, beside, after)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
