"""Sparse codes read by a linear classifier: rates, absolute values, and the k largest, beside pixels.

Every row is trained on the squared error: 196 sigmoid units as in Ng's notes (CS294A) without a penalty, with the
divergence of their rates from a target, and with the sum of absolute values, both with weight decay; and 1,000 linear
units of the k-sparse code of Makhzani & Frey (2013), whose tables we could not read. A softmax on the fixed code, its
epoch and alpha chosen on the validation images, gives the error; pixels get the same softmax. Claimed: a mean rate
within a tenth of its target, and stroke filters. The published size is `--dataset mnist --num-epochs 20
--probe.num-epochs 20`, about half an hour on one busy core.
"""

import dataclasses
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from aejax import evaluation, runner, schedules, training
from aejax.checks import InputError, check_positive
from aejax.data import Batch, Dataset
from aejax.methods.ae import AE
from aejax.runner import Experiment, Trained, study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import k_sparse, sparse_ae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"pixels": "pixels", "ae": "AE, sigmoid", "kl": "rates (KL)", "l1": "absolute values (L1)"}


class HParams(NamedTuple):
    """Real-valued knobs of the autoencoders."""

    lr: float = 1e-2
    """Learning rate of Adam, its peak, of the sigmoid units."""
    k_lr: float = 1e-3
    """The same of the k-sparse codes."""
    sparsity: float = 3.0
    """Weight of the divergence of the rates."""
    rate: float = 0.1
    """Their target."""
    weight_decay: float = 1.5e-3
    """Weight of the squared weights beside both penalties."""
    l1: float = 0.03
    """Weight of the absolute values."""


class Probe(NamedTuple):
    """How the softmax is trained: Adam, its rate falling along a cosine."""

    lr: float = 1e-3
    num_epochs: int = 30
    batch_size: int = 100


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y)."""
    latent_dim: int = 1000
    """Linear units of the k-sparse codes."""
    sigmoid_dim: int = 196
    """Sigmoid units of the others."""
    ks: tuple[int, ...] = (10, 25, 40)
    """Units that an example keeps in training, one row each."""
    alphas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)
    """The classifier sees alpha k of them, with the alpha of the lowest validation error."""
    num_epochs: int = 60
    """Passes over the training examples."""
    batch_size: int = 100
    """Examples per step, over all devices; the rates are those of a batch."""
    num_seeds: int = 1
    """Runs of every row."""
    seed: int = 0
    """The first one."""
    hparams: HParams = HParams()
    """Real-valued knobs of the autoencoders."""
    probe: Probe = Probe()
    """Of the classifier."""


def runs(config: Config) -> Runs:
    """Every row and seed; refuses counts and rates that cannot be."""
    if (
        not config.ks
        or not config.alphas
        or config.num_seeds < 1
        or min(config.probe.num_epochs, config.probe.batch_size) < 1
    ):
        raise InputError(
            "At least one of --ks and of --alphas, a seed, and an epoch and an example of --probe are needed."
        )
    check_positive(**{"probe.lr": config.probe.lr})
    if not min(config.alphas) >= 1:
        raise InputError(f"--alphas {config.alphas}: the classifier sees alpha k units, and alpha is at least 1.")
    dataset = _load(config)
    evaluation.check_splits(dataset)
    training.count_steps(dataset.train.x, config.probe.batch_size)
    knobs = config.hparams
    shared: dict[str, Any] = {
        "dataset": config.dataset, "num_epochs": config.num_epochs,
        "batch_size": config.batch_size, "schedule": "cosine", "validation": 1 / 6,
    }  # fmt: skip
    sigmoid = partial(sparse_ae.Config, **shared, latent_dim=config.sigmoid_dim)
    own = sparse_ae.method.HParams(knobs.lr, knobs.sparsity, knobs.rate, knobs.weight_decay)
    units = {
        "ae": sigmoid(hparams=own._replace(sparsity=0.0, weight_decay=0.0)),
        "kl": sigmoid(hparams=own),
        "l1": sigmoid(hparams=own._replace(sparsity=knobs.l1), penalty="l1"),
    }
    linear = k_sparse.method.HParams(knobs.k_lr)
    kept = {f"k{k}": k_sparse.Config(**shared, latent_dim=config.latent_dim, k=k, hparams=linear) for k in config.ks}
    rows: dict[str, tuple[Experiment, Any]] = {name: (sparse_ae.EXPERIMENT, row) for name, row in units.items()}
    rows |= {name: (k_sparse.EXPERIMENT, row) for name, row in kept.items()}
    for name, (each, row) in rows.items():
        own_measure = partial(measure, probe=config.probe, alphas=config.alphas if name in kept else ())
        rows[name] = each._replace(measure=own_measure, draw=lambda _: {}), row
    return study.seeded(rows, config.seed, config.num_seeds)


def measure(trained: Trained, *, probe: Probe, alphas: tuple[float, ...]) -> dict[str, float]:
    """What the code costs, what the classifier makes of it, and how sparse it is."""
    model: Any = trained.model
    params, dataset = trained.state.params, trained.dataset
    features = {alpha: dataclasses.replace(model, alpha=alpha) for alpha in alphas} or {1.0: model}
    probed = {}
    for i, (alpha, each) in enumerate(features.items()):
        trained.say(f"softmax on the code, {i + 1} of {len(features)}")
        coded = over_splits(dataset, partial(evaluation.embed, each, params))
        probed[alpha] = probe_code(coded, jax.random.clone(trained.measure_key), probe)
    alpha = min(probed, key=lambda alpha: probed[alpha].validation_error)
    metrics = {
        "test_sse": evaluation.reconstruction_sse(model, params, dataset.test.x),
        "probe_error": probed[alpha].test_error,
        "alpha": alpha,
        **sparse_ae.sparseness(trained),
    }
    if getattr(trained.config, "penalty", "") == "kl" and trained.config.hparams.sparsity > 0:
        metrics |= rates(evaluation.embed(model, params, dataset.test.x), trained.config.hparams.rate)
    return metrics


def rates(z: np.ndarray, target: float) -> dict[str, float]:
    """How far units are from the mean activation that was asked for, of codes `[N, Z]`.

    Returns:
      `rate_gap`, of the mean over all units, relative and absolute, where deviations of both signs cancel; and
      `rates_within_tenth`, the share of units that are off by a tenth of the target at most.
    """
    found = z.mean(axis=0, dtype=np.float64)
    return {
        "rate_gap": float(abs(found.mean() / target - 1)),
        "rates_within_tenth": float(np.mean(abs(found - target) <= 0.1 * target)),
    }


class Identity(nn.Module):
    """What is there already."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


def probe_code(coded: Dataset, key: jax.Array, probe: Probe) -> evaluation.FineTuned:
    """A softmax on codes, its epoch chosen on the validation split; the key is consumed.

    The codes are brought to a root mean square of 1 by one factor for all, where `evaluation.linear_probe` standardises
    unit by unit, those that seldom speak too.
    """
    scale = 1 / np.sqrt(np.square(coded.train.x).mean(dtype=np.float64))
    coded = over_splits(coded, lambda z: np.float32(scale) * z)
    model = AE(encoder=Identity(), decoder=Identity(), latent_dim=coded.train.x.shape[1])
    num_steps = probe.num_epochs * training.count_steps(coded.train.x, probe.batch_size)
    tx = adam(probe.lr, num_steps)
    return evaluation.fine_tune(
        model, {"encoder": {}}, coded, key, tx=tx, num_epochs=probe.num_epochs, batch_size=probe.batch_size
    )


@lru_cache(maxsize=4)  # the same optimiser is the same program, whatever the codes
def adam(lr: float, num_steps: int) -> optax.GradientTransformation:
    return optax.adam(schedules.cosine(lr, num_steps))


def over_splits(dataset: Dataset, function: Any) -> Dataset:
    """The data set with `function(x)` for every x, labels as they were."""
    over = lambda split: Batch(function(split.x), split.y)
    validation = dataset.validation and over(dataset.validation)
    return dataset._replace(train=over(dataset.train), validation=validation, test=over(dataset.test))


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """The classifier on pixels."""
    return {"pixels": {"probe_error": [probe_code(dataset, jax.random.key(config.seed), config.probe).test_error]}}


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    head = (
        "", "test error of a softmax, %", "alpha", "test SSE", "mean rate", "lifetime, population sparseness",
        "dead units, %", "filter sharpness", "seeds, seconds a run",
    )  # fmt: skip
    rows = []
    for name, found in summary["metrics"].items():
        error = study.spread(found["probe_error"], scale=100)
        if name == "pixels":
            rows.append((TITLES[name], error, *[""] * 7))
            continue
        rows.append((
            TITLES.get(name, f"k-sparse, k = {name[1:]}"),
            error,
            "" if name in TITLES else ", ".join(f"{alpha:g}" for alpha in found["alpha"]),
            study.spread(found["test_sse"]),
            mean_rate(found) if name in TITLES else "",  # linear codes have signs
            ", ".join(study.spread(found[f"{kind}_sparsity"]) for kind in ("lifetime", "population")),
            study.spread(found["dead_units"], scale=100),
            study.spread(found["filter_sharpness"]),
            study.cost(found),
        ))  # fmt: skip
    return study.table(head, rows)


def mean_rate(found: dict[str, list[float]]) -> str:
    """The mean rate, and where there is a target how far it and the units are from it."""
    cell = study.spread(found["mean_rate"])
    if "rate_gap" not in found:
        return cell
    gap, within = (study.spread(found[name], scale=100) for name in ("rate_gap", "rates_within_tenth"))
    return f"{cell}, off target by {gap} %; {within} % of units within a tenth of it"


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """The filters of every row, of unit length, from its first seed."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    kernels = {}
    for name in ("ae", "kl", "l1", *(f"k{k}" for k in config.ks)):
        _, _, state = runner.load(path / f"{name}-{config.seed}")
        weights = sparse_ae.kernel(state.params)
        title = TITLES.get(name, f"k-sparse, k = {name[1:]}")
        kernels[title] = weights / np.linalg.norm(weights, axis=0, keepdims=True).clip(1e-12)
    return {"filters": plots.filter_panels(kernels, dataset.image_shape, title="filters of unit length")}


def _load(config: Config) -> Dataset:
    return runner.load_data(runner.Config(dataset=config.dataset, validation=1 / 6))


STUDY = Study("sparse_codes", Config, runs, table, draw, beside, formerly=("sparse_ae",))


if __name__ == "__main__":
    study.main(STUDY, __doc__)
