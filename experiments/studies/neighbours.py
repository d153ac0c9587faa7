"""What the nearest neighbour says of a label, by pixels and by codes: the protocol of BiGAN on a data set.

Every test image takes the label of the nearest training image (Euclidean), by its pixels, by its code, or by the last
hidden layer of the encoder that made the code. Nobody is trained on a label. Encoders, decoders and discriminators have
equal hidden layers, and all players one rate, which falls as a cosine, and Adam with b1 = 0.5.

Published are the accuracies of Donahue, Krahenbuhl & Darrell, "Adversarial feature learning", ICLR 2017, table 1, on
MNIST. Their code (github.com/jeffdonahue/bigan) measures both places, and says that the hidden layer is mostly ahead;
of BiGAN after 400 passes it has 97.35 % there and 92.10 % by the code. The sizes are theirs with

    python -m experiments neighbours --dataset mnist --hidden-dims 1024 1024 --lr 2e-4 --num-epochs 400

Departures: no batch normalisation, ReLU in place of leaky ReLU, no weight decay, codes are not normalised, the rate
falls from the first pass and not from the half, and the decoder of the AE, whose error is theirs, is linear at its
end, where theirs has a sigmoid. A VAE, ALICE and an AE with a sigmoid and the cross-entropy are no rows of theirs.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optax

from aejax import data, evaluation, extras, runner
from aejax.checks import InputError, check_positive
from aejax.data import Dataset
from aejax.evaluation import over_batches, samples
from aejax.nets import Autoencoder
from aejax.runner import Experiment, Trained, registered, study
from aejax.runner.pieces import check_counts, check_rows
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import ae, ali, alice, gan, vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = "pixels"
TITLES = {
    "ae": "AE, squared error",
    "ae_bernoulli": "AE, cross-entropy",
    "vae": "VAE",
    "gan": "GAN, latent regressor",
    "ali": "ALI, BiGAN",
    "alice": "ALICE",
}
PUBLISHED = {"ae": 97.58, "gan": 97.44, "ali": 97.39}  # on MNIST, in %
GAMES = ("gan", "ali", "alice")
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another labelled image set, or a path to .npz (x, y) with x in [0, 1]."""
    rows: tuple[str, ...] = tuple(TITLES)
    """Methods beside the pixels."""
    latent_dim: int = 50
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the encoder; the decoder mirrors them, and a discriminator has them too."""
    lr: float = 1e-3
    """Learning rate of all players, at the beginning."""
    num_epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, over all devices."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Every method with every seed.

    Raises:
      InputError: a row, a size or a rate that cannot be, no hidden layer, or a data set without labels.
    """
    extras.need("the study neighbours", "sklearn", extra="sklearn")
    check_counts(config, "latent_dim", "num_epochs", "batch_size")
    check_positive(**{"--lr": config.lr})
    check_rows(config.rows, TITLES)
    if not config.hidden_dims:
        raise InputError("--hidden-dims names no layer, and the last hidden layer is looked at; give it a width.")
    dataset = data.load(config.dataset, validation=0.0)
    if dataset.train.y is None or dataset.test.y is None:
        raise InputError(f"{config.dataset} has no labels, and neighbours are asked for theirs.")
    names = ("dataset", "latent_dim", "hidden_dims", "num_epochs", "batch_size")
    shared = {name: getattr(config, name) for name in names} | {"validation": 0.0, "schedule": "cosine"}
    rows = {row: described(row, config.lr, shared) for row in config.rows}
    return study.seeded(rows, config.seed, config.num_seeds)


def described(row: str, lr: float, shared: dict[str, Any]) -> tuple[Experiment, Any]:
    """The experiment of a row, measured as here, and its configuration; games have the uniform prior of the paper."""
    module: Any = {"ae": ae, "ae_bernoulli": ae, "vae": vae, "gan": gan, "ali": ali, "alice": alice}[row]
    own = {"measure": measure, "draw": lambda _: {}, "optimizer": partial(optax.adam, b1=0.5)}
    if row in GAMES:
        kind = module.method.METHOD.model
        own["build_model"] = partial(registered.build_model, module=kind, prior="uniform")
    hparams = module.Config.hparams
    rates = {field: lr for field in hparams._fields if field.endswith("lr")}
    config = module.Config(**shared, hparams=hparams._replace(**rates))
    config = dataclasses.replace(config, likelihood="gaussian") if row == "ae" else config
    return module.EXPERIMENT._replace(**own), config


def hidden(model: Autoencoder, params: Any, x: np.ndarray) -> np.ndarray:
    """The last hidden layer of a dense encoder behind its activation: `[N, D] -> [N, hidden_dims[-1]]`."""
    layers: Any = model.encoder
    return over_batches(lambda part: layers.apply({"params": params["encoder"]}, part, method="layers")[-2], x)


def measure(trained: Trained) -> dict[str, float]:
    """The accuracy of the nearest neighbour by codes and by the last hidden layer, and the error of reconstructions."""
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    found = {"test_sse": evaluation.reconstruction_sse(model, params, dataset.test)}
    for name, features in (("knn1_accuracy", evaluation.embed), ("hidden_knn1_accuracy", hidden)):
        trained.say("neighbours")
        found[name] = accuracy(dataset, *(features(model, params, part.x) for part in (dataset.train, dataset.test)))
    return found


def accuracy(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> float:
    """The share of test images whose nearest training image, by features `[N, F]` of either, has their label."""
    assert dataset.train.y is not None
    assert dataset.test.y is not None
    return evaluation.knn(train, dataset.train.y, test, dataset.test.y, k=1)


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """The row of pixels."""
    flat = data.flatten(dataset)
    found = once(PIXELS, lambda say: {"knn1_accuracy": accuracy(flat, flat.train.x, flat.test.x)})
    return {PIXELS: {name: [value] for name, value in found.items()}}


def table(summary: dict[str, Any]) -> str:
    """Accuracies in %, mean and deviation over the seeds, beside those published for MNIST on that set."""
    rows, on_mnist = [], summary["dataset"] == "mnist"
    for row in (PIXELS, *summary["rows"]):
        found = summary["metrics"][row]
        cells = [
            study.spread(found[key], scale=100) if key in found else ""
            for key in ("knn1_accuracy", "hidden_knn1_accuracy")
        ]
        published = [f"{PUBLISHED[row]}" if row in PUBLISHED else ""] if on_mnist else []
        error = study.spread(found["test_sse"]) if "test_sse" in found else ""
        rows.append([TITLES.get(row, row), *cells, *published, error, study.cost(found)])
    head = ["right by the nearest neighbour, %", "by the code", "by the last hidden layer"]
    head += ["published"] if on_mnist else []
    return study.table((*head, "test SSE", "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Test images, and of each the nearest training image by pixels and by the codes of the first seed."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    flat = data.flatten(dataset)
    train, few = flat.train.x, flat.test.x[:_SHOWN]
    rows = {"test images": few, "by pixels": train[samples.nearest(few, train)[0]]}
    for row in config.rows:
        _, model, state = runner.load(path / f"{row}-{config.seed}")
        z, known = (evaluation.embed(model, state.params, x) for x in (few, train))
        rows[TITLES[row]] = train[samples.nearest(z, known)[0]]
    title = f"{dataset.name}, the nearest training image"
    return {"nearest": plots.image_rows(rows, dataset.image_shape, title=title)}


STUDY = Study("neighbours", Config, runs, table, draw, beside)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
