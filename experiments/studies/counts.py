"""Counts of genes in cells: a VAE with a negative binomial likelihood beside Poisson, a Gaussian VAE and PCA.

The two likelihoods of counts give probabilities, so their bounds may be compared. The Gaussian VAE and PCA see
`log(1 + 10^4 x / library)`, as is usual for single cells; what the Gaussian has is a density of other numbers, and has
no place in those columns. Codes are scored alike: k-means with as many clusters as there are labels, on the training
cells, and the vote of the 5 nearest training cells on the others. All rows have as many code units and passes.

Of the `cells` the true dispersions are known, and the learned ones are compared with them: the logarithms are off by
0.177 +- 0.005, with a correlation of 0.973. There -log p(x given library) is 370.2 +- 0.1 nats against 560.0 +- 0.2 of
Poisson. The kinds differ along lines in the logarithms, and PCA finds them best: NMI 0.66 and 5-NN 87 %, against 0.55
+- 0.04 and 79 % of the codes of the negative binomial (2 seeds, 2026-11-26, a minute a run on two busy cores).

On worm neurons, `--dataset worm_neurons --num-epochs 60 --nll-samples 100`, it is 623 +- 7 nats against 700 +- 3, and
there the codes of both are worth more than the others: 5-NN 92.6 +- 1.7 % (Poisson 92.7 +- 0.8 %) against 89.5 % of the
Gaussian VAE and 84.0 % of PCA; NMI 0.66, 0.70, 0.66 and 0.56 (2 seeds, 2026-11-26, 4 to 10 minutes a run, likewise).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import aejax
from aejax import evaluation, extras, likelihoods, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.data.cells import cells
from aejax.evaluation import call
from aejax.likelihoods import NegativeBinomial
from aejax.methods.vae import HParams
from aejax.runner import Trained, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import count_vae, vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "pca": "PCA of logarithms",
    "gaussian": "Gaussian VAE of logarithms",
    "poisson": "Poisson",
    "negative_binomial": "negative binomial",
}

COLUMNS = {
    "test_bound_nats": "bound, nats", "test_nll_nats": "-log p(x given library)", "active_units": "active units",
    "cluster_nmi": "NMI", "cluster_ari": "ARI", "knn5_accuracy": "5-NN accuracy",
    "dispersion_error": "dispersions: error of logarithms", "dispersion_correlation": "their correlation",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "cells"
    """cells, made up with known dispersions; worm_neurons in AEJAX_DATA; or a path to .npz of counts (x, y)."""
    latent_dim: int = 10
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (128,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the training cells."""
    batch_size: int = 128
    """Cells per step, over all devices."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    nll_samples: int = 500
    """Importance samples per test cell for test_nll_nats."""
    num_seeds: int = 2
    """Runs of each row, but for PCA."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Both likelihoods of counts with every seed; `InputError` where PCA has not as many components as the code."""
    if config.nll_samples < 1:
        raise InputError(f"--nll-samples is {config.nll_samples}; it has to be at least 1.")
    extras.need("The study of counts", "sklearn", extra="sklearn")
    names = {field.name for field in dataclasses.fields(config)} - {"lr", "num_seeds", "seed"}
    shared: dict[str, Any] = {name: getattr(config, name) for name in names}
    shared |= {"validation": 0.0, "hparams": HParams(config.lr)}
    experiment = count_vae.EXPERIMENT._replace(measure=measure, draw=lambda _: {})
    rows = {
        name: (experiment, count_vae.Config(**shared, likelihood=name)) for name in ("poisson", "negative_binomial")
    }
    shape = runner.load_data(rows["poisson"][1]).train.x.shape
    if config.latent_dim > min(shape):
        raise InputError(
            f"--latent-dim is {config.latent_dim}; PCA of {shape[0]} x {shape[1]} counts has fewer numbers."
        )
    return study.seeded(rows, config.seed, config.num_seeds)


def measure(trained: Trained) -> dict[str, float]:
    """The bounds, what the codes are worth, and the dispersions beside the true ones where these are known."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    found = vae.of_posterior(trained) | scores(partial(evaluation.embed, model, params), dataset, trained.config.seed)
    if dataset.name == "cells" and isinstance(likelihood := likelihoods.get(model.likelihood), NegativeBinomial):
        output = call(model, params, "decode", np.zeros((1, model.latent_dim), np.float32))
        found |= against_truth(np.asarray(likelihood.dispersion(output))[0], cells().dispersion)
    return found


def against_truth(dispersion: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How far the logarithms of dispersions are from the true ones, root mean square, and their correlation."""
    learned, wanted = np.log(np.float64(dispersion)), np.log(true)
    return {
        "dispersion_error": float(np.sqrt(np.square(learned - wanted).mean())),
        "dispersion_correlation": float(np.corrcoef(learned, wanted)[0, 1]),
    }


def scores(embed: Callable[[Any], np.ndarray], dataset: Dataset, seed: int) -> dict[str, float]:
    """What codes say of the labels, where there are any."""
    train, test = dataset.train, dataset.test
    if train.y is None or test.y is None:
        return {}
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from threadpoolctl import threadpool_limits

    z, kinds = embed(train.x), len(np.unique(train.y))
    with threadpool_limits(1):
        found = KMeans(kinds, n_init=10, random_state=seed).fit_predict(z)
    return {
        "cluster_nmi": float(normalized_mutual_info_score(train.y, found)),
        "cluster_ari": float(adjusted_rand_score(train.y, found)),
        "knn5_accuracy": evaluation.knn(z, train.y, embed(test.x), test.y),
    }


def log_normalised(x: np.ndarray) -> np.ndarray:
    """`log(1 + 10^4 x / library)` of counts `[N, D]`; of an empty cell zeros."""
    return np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def pca(x: np.ndarray, k: int) -> Callable[[np.ndarray], np.ndarray]:
    """A map to the first k principal components of the logarithms of counts."""
    from sklearn.decomposition import PCA

    fitted = PCA(k, random_state=0).fit(log_normalised(x))
    return lambda x: fitted.transform(log_normalised(x))


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """The rows of log-normalised counts: PCA, and a Gaussian VAE with every seed."""

    def of_pca(say: Any) -> dict[str, float]:
        return scores(pca(dataset.train.x, config.latent_dim), dataset, config.seed)

    def gaussian(seed: int, say: Any) -> dict[str, float]:
        fitted = aejax.learn(
            "vae", log_normalised(dataset.train.x), likelihood="gaussian_learned", seed=seed, lr=config.lr,
            latent_dim=config.latent_dim, hidden_dims=config.hidden_dims, num_epochs=config.num_epochs,
            batch_size=config.batch_size,
        )  # fmt: skip
        embed = lambda x: fitted.embed(log_normalised(x))
        active = {"active_units": float(evaluation.active_units(embed(dataset.test.x)))}
        return active | scores(embed, dataset, seed)

    seeds = range(config.seed, config.seed + config.num_seeds)
    found = {f"pca-{config.seed}": once("pca", of_pca)}
    return study.by_row(
        found | {f"gaussian-{seed}": once(f"gaussian-{seed}", partial(gaussian, seed)) for seed in seeds}
    )


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    metrics = summary["metrics"]
    heads = {name: head for name, head in COLUMNS.items() if any(name in row for row in metrics.values())}
    rows = [
        [TITLES[row], *(study.spread(found[name]) if name in found else "" for name in heads), study.cost(found)]
        for row, found in metrics.items()
    ]
    return study.table(("", *heads.values(), "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """The codes of the test cells by kind, of the first seed."""
    from aejax import plots

    test = dataset.test
    panels = {TITLES["pca"]: plots.Embedding(pca(dataset.train.x, config.latent_dim)(test.x))}
    for row in ("poisson", "negative_binomial"):
        _, model, state = runner.load(path / f"{row}-{config.seed}")
        panels[TITLES[row]] = plots.Embedding(evaluation.embed(model, state.params, test.x))
    return {"codes": plots.embeddings(panels, test.y, title=f"{dataset.name}: codes of the test cells", columns=3)}


STUDY = Study("counts", Config, runs, table, draw, beside=beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
