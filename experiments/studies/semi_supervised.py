"""Few labels and many images: logistic regression, the codes of a VAE (M1), a VAE with a class (M2), and M1+M2.

Kingma, Rezende, Mohamed & Welling (2014). M1 is a VAE of all training images, without labels; logistic regression of
the labelled ones, on their pixels and on the means of their codes, stands where the paper has a transductive SVM. M2
has the class beside the code, seen or summed over. M1+M2 is an M2 of the codes of M1, each drawn from its posterior
anew at every step, and judged at its mean; dimensions of M1 whose means deviate by less than 0.1 over the training
images are left out. Labels are drawn by the seed, as many of each class as can be, the same for every row.

What alpha multiplies: with L the bound of a labelled image, U that of one whose class is summed over, and n images, all
of them in the second sum, the loss is `(sum L + sum U) / n + alpha mean(-log q(y|x))`. That is the objective of the
authors' code (dpkingma/nips14-ssl) over n, with its alpha, 0.1. The multiplier of Pyro's example (ss_vae_M2.py) stands
before each of N labelled images, so it is alpha n / N: its 46 is an alpha of 0.092 for 100 of its 50,000, of 0.92 for
1,000.

Published, MNIST: M2 of Pyro's tutorial (ss-vae.ipynb, 5 draws), errors of 6.81, 5.63, 5.13 and 4.18 % with 100, 600,
1,000 and 3,000 labels; M1+M2 of the paper, 3.33 and 2.40 % with 100 and 1,000. Softplus units are those of both; the
Gaussian of M1+M2, mean and variance of each number by the decoder, and M1 of 500-500-50 units are those of the authors'
code, where M2 of the codes has 500-50, but 300-50 with 100 labels. Departures from it: labelled images are among those
without labels too; no prior over weights; a floor of the variance; no image is held out, and the last epoch is
measured. On MNIST, with alpha 10 and 200 passes, M2 has 11.0 and 3.7 % with 100 and 1,000 labels, M1+M2 3.8 and 3.6 %
(one draw, 2026-11-27; docs/variational.md says what less of either does).

On the digits (2026-11-26, 3 draws, errors in %) M2 has 14.6, 7.6 and 3.9 with 20, 100 and 1,000 labels, where logistic
regression on pixels has 33.9, 12.6 and 2.6. M1+M2 has 22.0, 16.1 and 15.4: M1 keeps 2.8 nats of a digit, so that draws
of a code rarely tell the class; logistic regression on draws with all labels puts 13.9 % of the test means wrong.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np

from aejax import evaluation, runner, training
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.evaluation.apply import call, over_batches
from aejax.methods import m2 as method
from aejax.methods import vae
from aejax.methods.m2 import SemiBatch
from aejax.posteriors import DiagonalGaussian
from aejax.runner import Experiment, Trained, study
from aejax.runner.folder import read_json
from aejax.runner.inputs import Feed, Spec
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import m2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "pixels": "logistic regression on pixels",
    "codes": "logistic regression on M1",
    "m2": "M2",
    "m1_m2": "M1+M2",
}
LINEAR = {"m2": "pixels", "m1_m2": "codes"}  # logistic regression on what an M2 is trained on
PUBLISHED = {  # MNIST, test error in %, by the number of labels
    "m2": {100: 6.81, 600: 5.63, 1000: 5.13, 3000: 4.18},
    "m1_m2": {100: 3.33, 1000: 2.40},
}
ON_CODES: dict[str, Any] = {"kind": "m1_m2", "likelihood": "gaussian_per_pixel"}
LEAST = 0.1  # deviation of the means of a dimension of M1 that is kept
SHOWN = 8  # images of the picture of styles


class M1(NamedTuple):
    """The VAE whose codes are used."""

    latent_dim: int = 20
    hidden_dims: tuple[int, ...] = (200,)
    num_epochs: int = 100
    batch_size: int = 100
    lr: float = 1e-3


@dataclasses.dataclass(frozen=True)
class RunConfig(m2.Config):
    """One run: M1, or an M2 of pixels or of codes."""

    kind: Literal["m1", "m2", "m1_m2"] = "m2"
    """The model."""
    activation: Literal["relu", "tanh", "sigmoid", "softplus", "gelu"] = "softplus"
    """Of the hidden layers."""
    labels: Literal["first", "drawn"] = "drawn"
    """Which examples keep theirs: a draw by the seed."""


class Codes(NamedTuple):
    """Codes of M1, and labels `[N]` or None."""

    posterior: DiagonalGaussian  # of means and log-variances `[N, Z]`
    y: Any


def drawn(key: jax.Array, codes: SemiBatch) -> SemiBatch:
    """A draw of every code, as M2 takes it: of `SemiBatch(Codes, Codes)` one of `Batch`."""
    keys = jax.random.split(key)
    return SemiBatch(*(Batch(each.posterior.sample(own), each.y) for own, each in zip(keys, codes, strict=True)))


def build_model(config: RunConfig, spec: Spec) -> Any:
    return runner.build_model(config, spec, vae.VAE if config.kind == "m1" else method.M2)


def build_algorithm(config: RunConfig, model: Any, tx: Any, axis_name: str | None) -> Algorithm:
    if config.kind == "m1":
        return vae.vae(model, tx=tx, lr=config.hparams.lr, axis_name=axis_name)
    algo = method.m2(model, config.hparams, tx, axis_name=axis_name)
    return transform_batch(algo, drawn) if config.kind == "m1_m2" else algo


def feed(config: RunConfig, dataset: Dataset) -> Feed:
    """Images for M1; for M2 those with labels, and all without; codes likewise."""
    if config.kind == "m1":
        return Feed(Batch(dataset.train.x), None, config.batch_size)
    dataset = in_order(config, dataset)
    images = m2.feed(config, dataset)
    if config.kind == "m2":
        return images
    with np.load(config.dataset) as file:
        posterior = DiagonalGaussian(dataset.train.x, file["logvar"])
    rows = m2.labelled(config, dataset)
    labelled = Codes(jax.tree.map(lambda v: v[rows], posterior), dataset.train.y[rows])
    return images._replace(train=SemiBatch(labelled, Codes(posterior, None)))


def in_order(config: RunConfig, dataset: Dataset) -> Dataset:
    """Codes in the order of their images, which loading a file does not keep: so that the same ones have labels."""
    if config.kind != "m1_m2":
        return dataset
    with np.load(config.dataset) as file:
        return dataset._replace(train=Batch(file["x"], file["y"]))


def measure(trained: Trained) -> dict[str, float]:
    if trained.config.kind != "m1":
        return {"test_error": m2.misclassified(trained)}
    test = Batch(trained.dataset.test.x)
    terms = training.evaluate(trained.algorithm, trained.state, test, trained.measure_key)
    return {"test_bound_nats": terms["elbo/bound_nats"]}


EXPERIMENT = Experiment(
    "semi_supervised_run", RunConfig, build_model, build_algorithm, "elbo/loss", measure, lambda _: {}, feed=feed
)


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y)."""
    num_labels: tuple[int, ...] = (20, 100, 1000)
    """How many training images keep their labels: a column each."""
    m1: M1 = M1()
    """The VAE whose codes are used; one for each seed."""
    latent_dim: int = 10
    """Size of the code of M2."""
    hidden_dims: tuple[int, ...] = (100,)
    """Widths of the layers of its encoder and its classifier; the decoder mirrors them."""
    alpha: float = 1.0
    """Weight of the classifier's mean cross-entropy, against the sum of the bounds over the number of all images."""
    lr: float = 1e-3
    """Learning rate of Adam for M2."""
    num_epochs: int = 100
    """Passes of M2 over the training images; may grow with --resume."""
    batch_size: int = 100
    """Images without labels per step."""
    label_batch_size: int = 100
    """Images with labels per step, or all of them if they are fewer."""
    num_seeds: int = 1
    """Runs of each row, and draws of the labels."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """M1, and an M2 of pixels for each number of labels: `m1-0`, `m2_100-0`, ..."""
    counts = config.num_labels
    if not counts or len(set(counts)) < len(counts):
        raise InputError(f"--num-labels are {counts}; wanted is at least one number, and none twice.")
    m1 = config.m1
    first = RunConfig(
        dataset=config.dataset, kind="m1", latent_dim=m1.latent_dim, hidden_dims=m1.hidden_dims, validation=0.0,
        num_epochs=m1.num_epochs, batch_size=m1.batch_size, hparams=method.HParams(lr=m1.lr),
    )  # fmt: skip
    size = len(runner.load_data(first).train.x)
    rows = {"m1": (EXPERIMENT, first)}
    rows |= {f"m2_{count}": (EXPERIMENT, one_m2(config, count, size)) for count in counts}
    return study.seeded(rows, config.seed, config.num_seeds)


def one_m2(config: Config, count: int, size: int) -> RunConfig:
    """An M2 with so many labels; in its loss each of all the images counts once."""
    return RunConfig(
        dataset=config.dataset, kind="m2", latent_dim=config.latent_dim, hidden_dims=config.hidden_dims,
        num_epochs=config.num_epochs, batch_size=config.batch_size, validation=0.0,
        num_labels=count, label_batch_size=config.label_batch_size,
        hparams=method.HParams(lr=config.lr, alpha=config.alpha, labelled=count / size),
    )  # fmt: skip


def then(config: Config, path: Path) -> Runs:
    """An M2 of the codes of M1, which are written, for each number of labels: `m1_m2_100-0`, ..."""
    for seed in range(config.seed, config.seed + config.num_seeds):
        write_codes(path, seed)
    return runs_of_codes(config, path)


def runs_of_codes(config: Config, path: Path) -> Runs:
    """The runs of pixels again, on codes."""
    return {
        f"m1_{name}": (EXPERIMENT, dataclasses.replace(own, dataset=str(codes_file(path, own.seed)), **ON_CODES))
        for name, (_, own) in runs(config).items()
        if own.kind == "m2"
    }


def codes_file(path: Path, seed: int) -> Path:
    return path.absolute() / f"codes-{seed}.npz"


def write_codes(path: Path, seed: int) -> None:
    """The codes of M1 as a data set, without its dead dimensions: means in `x` and `x_test`, log-variances of x beside.

    A file of codes of the same parameters is left as it is: another machine rounds otherwise, and then runs on the
    codes that were there could not go on.

    Raises:
      InputError: all dimensions are dead.
    """
    own, model, state = runner.load(path / f"m1-{seed}")
    file, made_of = codes_file(path, seed), digest(state.params)
    if file.exists():
        with np.load(file) as kept:
            if kept.get("made_of") == made_of:
                return
    dataset = runner.load_data(own)
    encode = partial(over_batches, partial(call, model, state.params, "encode"))
    train, test = encode(dataset.train.x), encode(dataset.test.x)
    kept = train.mean.std(axis=0) > LEAST
    if not kept.any():
        raise InputError(
            f"All {kept.size} dimensions of M1, seed {seed}, are dead: their means deviate by less than {LEAST} over"
            " the training images. Give it more --m1.num-epochs, in another --workdir."
        )
    half = file.with_name(f".{file.name}")
    means = {"x": train.mean[:, kept], "x_test": test.mean[:, kept]}
    labels = {"y": dataset.train.y, "y_test": dataset.test.y}
    np.savez(half, logvar=train.logvar[:, kept], made_of=made_of, **means, **labels)
    half.replace(file)


def digest(params: Any) -> str:
    """SHA-256 of parameters, in hexadecimal digits."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} ".encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Logistic regression on the labelled images and on their codes, and how many dimensions of M1 these have."""
    found: dict[str, dict[str, float]] = {}
    for name, (_, own) in (runs(config) | runs_of_codes(config, path)).items():
        row, _, rest = name.rpartition("_")
        if row:
            name = f"{LINEAR[row]}_{rest}"
            found[name] = once(name, partial(probe, own))
    return study.by_row(found)


def probe(config: RunConfig, say: Callable[[str], None]) -> dict[str, float]:
    """The error of logistic regression on the examples that have labels in a run, and how many numbers each has."""
    dataset = in_order(config, runner.load_data(config))
    rows = m2.labelled(config, dataset)
    (x, y), test = (part[rows] for part in dataset.train), dataset.test
    return {"probe_error": 1 - evaluation.linear_probe(x, y, test.x, test.y), "dimensions": x.shape[1]}


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Errors by the number of labels; and what M2 with most of them decodes test codes as, in every class."""
    from aejax import plots

    seeds = range(config.seed, config.seed + config.num_seeds)
    counts = sorted(config.num_labels)
    errors = {
        title: [[100 * error(path, f"{row}_{count}-{seed}") for count in counts] for seed in seeds]
        for row, title in ROWS.items()
    }
    curves = {title: plots.Curve(np.log10(counts), np.array(each), i) for i, (title, each) in enumerate(errors.items())}
    panel = plots.Lines("labels, their logarithm to base 10", "test error, %", curves, log=True)
    figures = {"errors": plots.line_panels({"few labels": panel}, title=f"{dataset.name}: test errors")}
    if dataset.image_shape is not None:
        _, model, state = runner.load(path / f"m2_{counts[-1]}-{config.seed}")
        few = Batch(*(part[:SHOWN] for part in dataset.test))
        z = evaluation.embed(model, state.params, few)
        generate = partial(call, model, state.params, "generate")
        classes = np.arange(model.num_classes, dtype=np.int32)
        figures["styles"] = plots.styles(generate, z, classes, dataset.image_shape)
    return figures


def error(path: Path, name: str) -> float:
    """The test error of a run, or of what was measured once."""
    kept = read_json(path / f"{name}.json") or read_json(path / name / "summary.json")
    metrics = kept["metrics"]
    return metrics.get("test_error", metrics.get("probe_error"))


def table(summary: dict[str, Any]) -> str:
    """Test errors in %, mean and deviation over seeds, in brackets what was published for the sizes at hand."""
    metrics, counts = summary["metrics"], summary["num_labels"]
    sizes = summary["dataset"], summary["latent_dim"], summary["hidden_dims"]
    of_m1 = summary["m1"]["latent_dim"], summary["m1"]["hidden_dims"]
    rows = []
    for row, title in ROWS.items():
        alike = sizes == ("mnist", 50, [500]) and (row != "m1_m2" or of_m1 == (50, [500, 500]))
        published = PUBLISHED.get(row, {}) if alike else {}
        cells = []
        for count in counts:
            found = metrics[f"{row}_{count}"]
            errors = found.get("test_error", found.get("probe_error"))
            cells.append(study.spread(errors, scale=100) + (f" ({published[count]:.2f})" if count in published else ""))
        if row == "codes":
            title += f", {study.spread(found['dimensions'])} dimensions"
        rows.append([title, *cells, study.cost(metrics[f"{row}_{counts[-1]}"])])
    return study.table(("test error, %", *(f"{count:,} labels" for count in counts), "seeds, seconds a run"), rows)


STUDY = Study("semi_supervised", Config, runs, table, draw, of_folders=of_folders, then=then)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
