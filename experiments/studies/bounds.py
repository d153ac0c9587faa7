"""VAE and IWAE with the net and the recipe of the IWAE paper, beside its tables.

Burda, Grosse & Salakhutdinov (2016): 784-200-200-50 with tanh units, batches of 20, Adam with epsilon 1e-4, images
binarised anew at every presentation, outputs that start at the log-odds of the data, and passes in stages: 3^i of them
at the rate 1e-3 10^(-i/7), for i = 0 to 7, 3,280 in all. `--rates stages` is that; it does not depend on the number of
passes, so that a longer run, `--num-epochs 1093 --resume`, goes on where a shorter one ended. By default the rate falls
evenly, in its logarithm, to a tenth. Rows are named by method and draws: `vae_5`, `iwae_5`, and `stl_5`, `dreg_5` for
the IWAE with these gradients. The VAE has its KL in closed form. Here the outputs start at the log-odds of one
binarised draw of the images. `--layers 2` is the larger model of the paper, 784-200-200-100-100-100-50: the lower code
is twice `--latent-dim`, the networks above it are as wide, the KL is estimated, and active units are of both layers.

Measured is one binarised draw of the test images: `-L_k` for several k from the same draws of the code, the published
figures being at 5,000, whatever k was trained with, and active units. `--dataset binarized_mnist` is Larochelle's file;
with `--validation 0.1` its own validation split, elsewhere the last tenth of the training images, is held out, and the
epoch that is best on it is measured too. Of the last row, first seed, the signal in the gradient of the encoder is
measured for every estimator and 1 to 50 draws, on the first batch of training images (`bounds_gradients`). Of Omniglot
the paper has a split of its own, of 24,345 and 8,070 images. `omniglot28_drawings` has as many to train, of all
characters; of `omniglot28` the test characters are new.

Measured on MNIST, 364 passes: VAE 87.39 +- 0.06, IWAE with 5 draws 86.55 +- 0.02, VAE on the fixed binarisation
89.03 +- 0.05 and on `omniglot28_drawings` 107.55 +- 0.07 (two seeds each, docs/variational.md); IWAE on the fixed
binarisation 88.24 (one). By their steps a second, 20 and 57 minutes a run on MNIST and two idle cores.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from aejax import evaluation, nets, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.methods import iwae, two_layer_vae, vae
from aejax.runner import Experiment, Trained, study
from aejax.runner.config import later
from aejax.runner.inputs import Spec, binarized
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments.studies import bounds_gradients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"vae": "VAE", "iwae": "IWAE", "stl": "IWAE, STL", "dreg": "IWAE, DReG"}
Figures = dict[str, dict[str, tuple[float, int | None]]]  # by set and row: -L_5000 and active units, at 3,280 passes
PUBLISHED: Figures = {
    "mnist": {
        "vae_1": (86.76, 19), "vae_5": (86.47, 20), "vae_50": (86.35, 20),
        "iwae_1": (86.76, 19), "iwae_5": (85.54, 22), "iwae_50": (84.78, 25),
        "dreg_1": (86.08, None), "dreg_5": (84.90, None), "dreg_50": (84.32, None),  # a reproduction, nbip/IWAE, README
    },
    "binarized_mnist": {
        "vae_1": (88.71, 19), "vae_5": (88.83, 19), "vae_50": (89.05, 20),
        "iwae_1": (88.71, 19), "iwae_5": (87.63, 22), "iwae_50": (87.10, 24),
    },
    "omniglot28": {  # on a split of the authors' own
        "vae_1": (108.11, None), "vae_5": (107.62, None), "vae_50": (107.80, None),
        "iwae_1": (108.11, None), "iwae_5": (106.12, None), "iwae_50": (104.67, None),
    },
}  # fmt: skip
PUBLISHED_TWO_LAYERS: Figures = {
    "mnist": {
        "vae_1": (85.33, 21), "vae_5": (85.01, 22), "vae_50": (84.78, 22),
        "iwae_1": (85.33, 21), "iwae_5": (83.89, 26), "iwae_50": (82.90, 33),
    },
    "binarized_mnist": {
        "vae_1": (88.08, None), "vae_5": (87.63, None), "vae_50": (87.86, None),
        "iwae_1": (88.08, None), "iwae_5": (86.17, None), "iwae_50": (85.32, None),
    },
    "omniglot28": {
        "vae_1": (107.58, None), "vae_5": (106.31, None), "vae_50": (106.30, None),
        "iwae_1": (107.56, None), "iwae_5": (104.79, None), "iwae_50": (103.38, None),
    },
}  # fmt: skip
for _figures in (PUBLISHED, PUBLISHED_TWO_LAYERS):
    _figures["omniglot28_drawings"] = _figures["omniglot28"]  # neither is the split of the authors
CURVE = (1, 5, 50, 500)


class HParams(NamedTuple):
    """Real-valued knobs."""

    lr: float = 1e-3
    """Learning rate of Adam, its peak."""


Rates = Literal["even", "stages"]


@dataclasses.dataclass(frozen=True)
class RunConfig(runner.Config):
    """One run of a row."""

    kind: Literal["vae", "iwae", "stl", "dreg"] = "iwae"
    """The method, and for the IWAE the estimator of its gradient."""
    num_samples: int = 5
    """Draws of the code for each image and step."""
    rates: Rates = "even"
    """How the learning rate falls."""
    layers: Literal[1, 2] = later(1)
    """Stochastic layers; of two the code is three times `latent_dim`, a third of it the upper one."""
    nll_samples: int = 5000
    """Importance samples per test image."""
    activation: str = "tanh"
    """Of the hidden layers."""
    hparams: HParams = HParams()
    """Real-valued knobs."""


def even(lr: float, num_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """From `lr` to a tenth of it, along an exponential."""
    return optax.exponential_decay(lr, num_steps, 0.1)


def stages(lr: float, num_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """`lr 10^(-i/7)` for 3^i passes, i = 0 to 7; the last one goes on."""
    return optax.piecewise_constant_schedule(
        lr, {steps_per_epoch * (3**i - 1) // 2: 10 ** (-1 / 7) for i in range(1, 8)}
    )


RATES: dict[str, Callable[[float, int, int], optax.Schedule]] = {"even": even, "stages": stages}


def build_model(config: RunConfig, spec: Spec) -> vae.VAE:
    if config.layers == 1:
        return runner.build_model(config, spec, vae.VAE)
    whole = dataclasses.replace(config, latent_dim=3 * config.latent_dim)
    return runner.build_model(whole, spec, two_layer_vae.TwoLayerVAE)


def build_algorithm(config: RunConfig, model: vae.VAE, tx: runner.Optimizers, axis_name: str | None) -> Any:
    def adam(lr: float) -> optax.GradientTransformation:
        return tx.optimizer(RATES[config.rates](lr, tx.num_steps, tx.steps_per_epoch))

    options: dict[str, Any] = {"num_samples": config.num_samples, "lr": config.hparams.lr, "axis_name": axis_name}
    if config.kind == "vae":
        algo = vae.vae(model, tx=adam, **options)
    else:
        algo = iwae.iwae(model, tx=adam, estimator=config.kind.replace("iwae", "plain"), **options)
    return algo._replace(start=partial(_start, model))


def _start(model: vae.VAE, params: Any, train: Any, key: jax.Array) -> Any:
    return nets.start_bias(model, params, train)


def measure(trained: Trained) -> dict[str, float]:
    test = trained.dataset.test.x
    return measured(trained.model, trained.state.params, test, trained.measure_key, trained.config.nll_samples)


def measured(model: nets.Autoencoder, params: Any, x: Any, key: jax.Array, num_samples: int) -> dict[str, float]:
    """The bounds on images `[N, D]`, and the active units."""
    found = evaluation.nll(model, params, x, key, num_samples=num_samples)
    return {
        **{f"test_l{k}_nats": found.curve[k] for k in CURVE if k in found.curve and k < num_samples},
        "test_nll_nats": found.nll_nats, "nll_std_error": found.std_error, "nll_ess": found.ess,
        "nll_samples": num_samples,
        "active_units": evaluation.active_units(evaluation.embed(model, params, x)),
    }  # fmt: skip


EXPERIMENT = Experiment(
    "bounds_run", RunConfig, build_model, build_algorithm, None, measure, lambda _: {},
    optimizer=partial(optax.adam, eps=1e-4),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, mnist, binarized_mnist, omniglot28_drawings, ..., or a path to .npy or .npz (x)."""
    rows: tuple[str, ...] = ("vae_1", "vae_5", "iwae_5")
    """METHOD_K, of vae, iwae, stl or dreg, and the number of draws in training."""
    hidden_dims: tuple[int, ...] = (200, 200)
    """Widths of the tanh layers of the encoder; the decoder mirrors them."""
    latent_dim: int = 50
    """Size of the code."""
    num_epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 20
    """Images per step, over all devices."""
    layers: Literal[1, 2] = later(1)
    """Stochastic layers."""
    rates: Rates = "even"
    """The learning rate falls evenly to a tenth, or in the stages of the paper, which take 3,280 passes."""
    validation: float = 0.0
    """Fraction of the training images held out to choose an epoch; above 0 the set's own split, if it has one."""
    nll_samples: int = 5000
    """Draws of the code of each test image."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""
    hparams: HParams = HParams()
    """Real-valued knobs."""


def runs(config: Config) -> Runs:
    """Every row with every seed; `InputError` for a row or a number that cannot be."""
    if config.nll_samples < 1:
        raise InputError(f"--nll-samples is {config.nll_samples}; it has to be at least 1.")
    if not config.rows or len(set(config.rows)) < len(config.rows):
        raise InputError(f"--rows are {config.rows}; wanted is at least one, and none twice.")
    shared: dict[str, Any] = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("rows", "num_seeds", "seed")
    }
    binarize: Any = "none" if config.dataset == "binarized_mnist" else "stochastic"
    rows = {row: (EXPERIMENT, RunConfig(**shared, **parsed(row), binarize=binarize)) for row in config.rows}
    return study.seeded(rows, config.seed, config.num_seeds)


def parsed(row: str) -> dict[str, Any]:
    kind, _, count = row.rpartition("_")
    if kind not in KINDS or not (count.isascii() and count.isdigit()) or row != f"{kind}_{int(count)}":
        raise InputError(
            f"There is no row {row!r}; rows are {', '.join(f'{kind}_K' for kind in KINDS)}, such as vae_5."
        )
    return {"kind": kind, "num_samples": int(count)}


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """The signal in the gradient of the last row, and what the epoch is worth that is best on the validation images.

    That is of another draw of the test images.
    """
    last = f"{config.rows[-1]}-{config.seed}"

    def gradients(say: Callable[[str], None]) -> dict[str, float]:
        own, model, state = runner.load(path / last)
        draw_key, key = jax.random.split(jax.random.fold_in(jax.random.key(own.seed), 2))
        images = runner.load_data(own).train.x[: config.batch_size]
        if own.binarize == "stochastic":
            images = jax.random.bernoulli(draw_key, images).astype(images.dtype)
        return bounds_gradients.measured(model, state.params, images, key, say)

    def best(name: str, say: Callable[[str], None]) -> dict[str, float]:
        own, model, state = runner.load(path / name, best=True)
        dataset = runner.load_data(own)
        draw_key, key = jax.random.split(jax.random.fold_in(jax.random.key(own.seed), 1))
        if own.binarize == "stochastic":
            dataset = binarized(dataset, draw_key)
        found = measured(model, state.params, dataset.test.x, key, config.nll_samples)
        steps = len(dataset.train.x) // config.batch_size
        kept = {f"best_{metric}": found[metric] for metric in ("test_nll_nats", "active_units")}
        return {"best_epoch": int(state.step) / steps, **kept}

    found = {name: dict(once(f"{name}-best", partial(best, name))) for name in runs(config) if config.validation}
    rows = study.by_row({name: {k: v for k, v in each.items() if k != "seconds"} for name, each in found.items()})
    ratios = {name: [value] for name, value in once("gradients", gradients).items() if name != "seconds"}
    return rows | {config.rows[-1]: rows.get(config.rows[-1], {}) | ratios}


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Of the first seed: the bounds by passes and by draws, and the signal in the gradient by draws in training."""
    from aejax import plots
    from aejax.runner.folder import read_json

    by_pass, by_draws = {}, {}
    for i, row in enumerate(config.rows):
        folder = path / f"{row}-{config.seed}"
        passes = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        term = next(name for name in passes[0] if name.endswith("/bound_nats"))
        trained = np.array([(each["epoch"], each[term]) for each in passes])
        by_pass[title(row)] = plots.Curve(trained[:, 0], trained[:, 1], i)
        metrics = read_json(folder / "summary.json")["metrics"]
        points = {k: metrics[f"test_l{k}_nats"] for k in CURVE if f"test_l{k}_nats" in metrics}
        points[config.nll_samples] = metrics["test_nll_nats"]
        by_draws[title(row)] = plots.Curve(np.log10([*points]), np.array([*points.values()]), i)
    panels = {
        "the bound that is trained": plots.Lines("passes", "nats", by_pass),
        "test images": plots.Lines("draws of the code, their logarithm to base 10", "nats", by_draws),
    }
    ratios = read_json(path / "gradients.json")["metrics"]
    return {
        "bounds": plots.line_panels(panels, title=f"{dataset.name}: negative bounds"),
        "gradients": bounds_gradients.drawn(ratios, f"{dataset.name}: encoder of {title(config.rows[-1])}"),
    }


def title(row: str) -> str:
    kind, _, count = row.rpartition("_")
    return f"{KINDS[kind]}, k = {count}"


def table(summary: dict[str, Any]) -> str:
    """Mean and deviation over seeds, in brackets what was published; the best epoch where it was looked for."""
    sizes = summary["hidden_dims"], summary["latent_dim"]
    figures = PUBLISHED if summary.get("layers", 1) == 1 else PUBLISHED_TWO_LAYERS
    published = figures.get(summary["dataset"], {}) if sizes == ([200, 200], 50) else {}
    curve = [k for k in CURVE if k < summary["nll_samples"]]
    chosen = ["best epoch", "there"] if summary["validation"] else []
    rows = []
    for row in summary["rows"]:
        found, (nats, units) = summary["metrics"][row], published.get(row, (None, None))
        best = [study.spread(found[name]) for name in ("best_epoch", "best_test_nll_nats")] if chosen else []
        rows.append([
            title(row),
            *(study.spread(found[f"test_l{k}_nats"]) for k in curve),
            study.spread(found["test_nll_nats"]) + (f" ({nats:.2f})" if nats else ""),
            study.spread(found["nll_ess"]),
            *best,
            study.spread(found["active_units"]) + (f" ({units})" if units else ""),
            study.cost(found),
        ])  # fmt: skip
    bounds = [f"-L_{k:,}" for k in (*curve, summary["nll_samples"])]
    return study.table(("", *bounds, "ESS", *chosen, "active units", "seeds, seconds a run"), rows)


STUDY = Study("bounds", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
