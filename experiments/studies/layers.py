"""Layers in closed form beside gradient steps: what they cost, and what they lose.

One dense autoencoder with tanh units and a linear code is trained on the squared error by Adam, and by
`aejax.layers.fit_layers`, in which every layer is a regression and nothing has a learning rate. Both begin with the
same parameters and are timed without compilation; errors are those of the test images. Sweep 0 is components through
the inverse activations and one regression: the layer-by-layer method proper, without an iteration. PCA has the same
size of code.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import data, evaluation, extras, training
from aejax.checks import InputError, check_positive
from aejax.data import Batch, Dataset
from aejax.layers import fit_layers
from aejax.methods.ae import AE, HParams, ae
from aejax.nets import init_params
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, Say, check_counts, check_rows, main

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {"pca": "PCA", "adam": "Adam", "layers": "closed form"}
Watch = Callable[[int, Any], None]


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Ways of training, and PCA."""
    hidden_dims: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    latent_dim: int = 10
    """Size of the code; principal components."""
    num_epochs: int = 300
    """Passes of Adam over the training images."""
    batch_size: int = 128
    """Images a step of Adam."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    sweeps: tuple[int, ...] = (0, 5, 20)
    """Of the closed form: a row of the table each, in rising order."""
    num_rows: int = 5000
    """Images that a sweep sees, drawn anew each time; all of them where there are fewer."""
    num_seeds: int = 3
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def pieces(config: Config) -> Iterator[Piece]:
    """Seed by seed and row by row."""
    extras.need("the study layers", "sklearn", extra="sklearn")
    check_counts(config, "latent_dim", "num_epochs", "batch_size", "num_rows")
    check_positive(**{"--lr": config.lr})
    check_rows(config.rows, ROWS)
    if not config.sweeps or min(config.sweeps) < 0 or list(config.sweeps) != sorted(set(config.sweeps)):
        raise InputError(f"--sweeps are {config.sweeps}; wanted are numbers from 0 up, in rising order.")
    dataset = load(config)
    if config.batch_size > len(dataset.train.x):
        raise InputError(f"--batch-size {config.batch_size}, and there are {len(dataset.train.x):,} training images.")
    for seed in range(config.seed, config.seed + config.num_seeds):
        for row in config.rows:
            yield Piece(f"seed-{seed}", row, partial(measure, config, row, seed))


def load(config: Config) -> Dataset:
    return data.flatten(data.load(config.dataset, validation=0.0))


def measure(config: Config, row: str, seed: int, say: Say) -> dict[str, Any]:
    """By passes or sweeps done: test error, training error, and seconds of training."""
    dataset = load(config)
    if row == "pca":
        return components(dataset, config.latent_dim)
    model = AE.dense(
        dataset.train.x.shape[1], config.latent_dim, hidden_dims=config.hidden_dims, activation=jnp.tanh,
        likelihood="gaussian",
    )  # fmt: skip
    train = adam if row == "adam" else closed_form
    errors: dict[str, list[float]] = {"done": [], "test_sse": [], "train_sse": [], "seconds": []}
    looked_at = [0.0, 0.0]  # when it began, and how long errors were measured since

    def watch(done: int, params: Any) -> None:
        jax.block_until_ready(params)
        before = time.monotonic()
        errors["done"].append(done)
        errors["seconds"].append(before - looked_at[0] - looked_at[1])
        for split in ("test", "train"):
            found = evaluation.reconstruction_sse(model, params, getattr(dataset, split).x)
            errors[f"{split}_sse"].append(float(found))
        say(f"{done} done, test SSE {errors['test_sse'][-1]:.3f}")
        looked_at[1] += time.monotonic() - before

    say("compiling")
    key, init_key = jax.random.split(jax.random.key(seed))
    params = init_params(model, init_key, dataset.train.x[:2])
    short = dataclasses.replace(config, num_epochs=1, sweeps=(1,))
    train(short, model, params, dataset.train.x, key, lambda done, params: None)
    looked_at[0] = time.monotonic()
    train(config, model, params, dataset.train.x, key, watch)
    return errors


def adam(config: Config, model: AE, params: Any, x: np.ndarray, key: jax.Array, watch: Watch) -> None:
    algo = ae(model, HParams(config.lr), optax.adam)
    steps = training.count_steps(x, config.batch_size)
    chunks = training.train(
        algo, algo.init(params), Batch(x), key, batch_size=config.batch_size, num_epochs=config.num_epochs,
        boundary=steps,
    )  # fmt: skip
    for chunk in chunks:
        watch(chunk.step // steps, chunk.state.params)


def closed_form(config: Config, model: AE, params: Any, x: np.ndarray, key: jax.Array, watch: Watch) -> None:
    fit_layers(model, params, x, key, sweeps=config.sweeps[-1], rows=config.num_rows, say=watch)


def components(dataset: Dataset, k: int) -> dict[str, Any]:
    from sklearn.decomposition import PCA

    start = time.monotonic()
    pca = PCA(min(k, *dataset.train.x.shape), svd_solver="full").fit(dataset.train.x)
    seconds = time.monotonic() - start
    sse = {
        f"{name}_sse": [float(np.square(x - pca.inverse_transform(pca.transform(x))).sum(axis=1).mean())]
        for name, x in (("test", dataset.test.x), ("train", dataset.train.x))
    }
    return {"done": [0], **sse, "seconds": [seconds]}


def places(config: Config) -> dict[str, tuple[str, int]]:
    """Of the rows of the table: the piece, and how many passes or sweeps it had."""
    rows: dict[str, tuple[str, int]] = {}
    for row in config.rows:
        ends = {"pca": (0,), "adam": (config.num_epochs,), "layers": config.sweeps}[row]
        rows |= {row if len(ends) == 1 else f"{row}_{end}": (row, end) for end in ends}
    return rows


def metrics(config: Config, found: Found) -> study.Metrics:
    """By row of the table, of every seed: both errors, and seconds of training."""
    seeds, names = range(config.seed, config.seed + config.num_seeds), ("test_sse", "train_sse", "seconds")
    rows: dict[str, Any] = {}
    for name, (row, end) in places(config).items():
        each = [found[f"seed-{seed}"][row] for seed in seeds]
        rows[name] = {metric: [one[metric][one["done"].index(end)] for one in each] for metric in names}
    return rows


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """Test errors against seconds of training, of the first seed."""
    from aejax import plots

    rows = found[f"seed-{config.seed}"]
    curves = {}
    for i, row in enumerate(row for row in config.rows if row != "pca"):
        seconds = np.maximum(rows[row]["seconds"], 1e-3)
        curves[ROWS[row]] = plots.Curve(np.log10(seconds), np.array(rows[row]["test_sse"])[None], i)
    if not curves:
        return {}
    panel = plots.Lines("seconds of training, their logarithm to base 10", "test SSE", curves, log=True)
    return {"errors": plots.line_panels({"layers": panel}, title=f"{config.dataset}: error against time")}


def table(summary: dict[str, Any]) -> str:
    """Squared errors per image, and seconds; in brackets the ratio to Adam's."""
    rows, found = [], summary["metrics"]
    for name, each in found.items():
        row, _, end = name.partition("_")
        title = ROWS[row] + {"adam": f", {summary['num_epochs']} passes"}.get(row, f", {end} sweeps" if end else "")
        beside = {
            metric: f" ({np.mean(each[metric]) / np.mean(found['adam'][metric]):.2g})" if "adam" in found else ""
            for metric in ("test_sse", "seconds")
        }
        cells = [study.spread(each["test_sse"]) + beside["test_sse"], study.spread(each["train_sse"])]
        rows.append([title, *cells, study.spread(each["seconds"]) + beside["seconds"], str(len(each["seconds"]))])
    return study.table(("", "test SSE (to Adam's)", "training SSE", "seconds (to Adam's)", "seeds"), rows)


STUDY = PiecedStudy("layers", Config, pieces, metrics, table, draw)


if __name__ == "__main__":
    main(STUDY, __doc__)
