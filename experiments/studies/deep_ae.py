"""Deep autoencoder, 784-1000-500-250-30 on MNIST, beside PCA of the same code size.

Hinton & Salakhutdinov (2006), figure 2: squared error per test image, 3.00 with layers pre-trained as Boltzmann
machines, 13.87 for PCA. Here nothing is pre-trained. The decoder has the transposed weights of the encoder, which
halves the parameters, and the units are smooth (GELU): both are against over-fitting, which is what is left. Trained by
cross-entropy with Adam on all training images. The published size is
`--dataset mnist --hidden-dims 1000 500 250 --latent-dim 30 --num-epochs 60 --lr 1e-3 --num-seeds 3`. It gave 2.837 ±
0.009 (2026-11-21; half an hour a seed on one busy core).
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aejax import evaluation, runner
from aejax.data import Dataset
from aejax.runner import Trained, measures, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import ae

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    hidden_dims: tuple[int, ...] = (200, 100)
    """Widths of the hidden layers of the encoder."""
    latent_dim: int = 10
    """Size of the code."""
    activation: ae.Activation = "gelu"
    """Of the hidden layers."""
    tied: bool = True
    """Whether the decoder has the transposed weights of the encoder."""
    likelihood: str = "bernoulli"
    """A name of aejax.likelihoods; bernoulli is cross-entropy, gaussian (unit variance) half the squared error."""
    num_epochs: int = 200
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 2e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    num_seeds: int = 1
    """Runs."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    own = ae.Config(
        dataset=config.dataset, hidden_dims=config.hidden_dims, latent_dim=config.latent_dim,
        activation=config.activation, tied=config.tied, likelihood=config.likelihood, num_epochs=config.num_epochs,
        batch_size=config.batch_size, schedule="cosine", validation=0.0, hparams=ae.method.HParams(config.lr),
    )  # fmt: skip
    experiment = ae.EXPERIMENT._replace(measure=measure, draw=lambda _: {})
    return study.seeded({"deep": (experiment, own)}, config.seed, config.num_seeds)


def measure(trained: Trained) -> dict[str, float]:
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    sse = {
        name: evaluation.reconstruction_sse(model, params, split.x)
        for name, split in (("train_sse", dataset.train), ("test_sse", dataset.test))
    }
    return sse | measures.probes(trained)


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    train, test = dataset.train.x, dataset.test.x
    sse = {
        name: [measures.pca_sse(train, x, config.latent_dim)] for name, x in (("train_sse", train), ("test_sse", test))
    }
    return {"pca": sse}


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Test images beside both reconstructions."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    _, model, state = runner.load(path / f"deep-{config.seed}")
    x = dataset.test.x[:16]
    rows = {
        "original": x,
        "deep autoencoder": evaluation.reconstruct(model, state.params, x),
        "PCA": measures.pca_reconstruct(dataset.train.x, x, config.latent_dim),
    }
    title = f"{dataset.name}, a code of {config.latent_dim} numbers"
    return {"reconstructions": plots.image_rows(rows, dataset.image_shape, title=title)}


def table(summary: dict[str, Any]) -> str:
    sizes = "-".join(map(str, (*summary["hidden_dims"], summary["latent_dim"])))
    own = summary["dataset"] == "mnist" and sizes == "1000-500-250-30"
    published = (" (3.00)", " (13.87)") if own else ("", "")
    rows = []
    for name, title, beside in zip(("deep", "pca"), (f"deep AE {sizes}", "PCA"), published, strict=True):
        found = summary["metrics"][name]
        probe = study.spread(found["probe_accuracy"], scale=100) if "probe_accuracy" in found else ""
        errors = study.spread(found["train_sse"]), study.spread(found["test_sse"]) + beside
        rows.append([title, *errors, probe, study.cost(found)])
    return study.table(("", "training SSE", "test SSE", "logistic regression, %", "seeds, seconds a run"), rows)


STUDY = Study("deep_ae", Config, runs, table, draw, beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
