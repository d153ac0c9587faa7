"""The rate-distortion curve of a VAE over beta and seeds, all runs in one program.

The KL is the rate of the code and -log p(x|z) its distortion, both in nats per image: their sum is the negative bound,
and `distortion + beta rate` is what is minimised (Alemi et al., "Fixing a broken ELBO", ICML 2018). So each beta asks
for another point of one curve, whose slope there is -beta, and the sum is least at beta = 1.

Beside the images stands a set whose curve is known: Gaussian data, a linear VAE and a Gaussian likelihood of fixed
variance s2. With beta it is probabilistic PCA of the variance `beta s2`. A direction of the variance v above that has
the rate `log(v / (beta s2)) / 2` and the squared error `beta s2`, the others have no rate and the error v, which is
"reverse water-filling", the rate-distortion function of a Gaussian source.

On the digits, 4 seeds (2026-11-26, two shared CPU cores):

| beta | rate (KL) | distortion | their sum, the bound | active units of 8 |
| --- | --- | --- | --- | --- |
| 0.1 | 15.510 ± 0.044 | 14.43 ± 0.16 | 29.94 ± 0.13 | 8 ± 0 |
| 0.3 | 10.340 ± 0.096 | 15.44 ± 0.15 | 25.784 ± 0.091 | 8 ± 0 |
| 1 | 4.112 ± 0.082 | 19.551 ± 0.079 | 23.663 ± 0.061 | 8 ± 0 |
| 1.7 | 1.836 ± 0.073 | 22.78 ± 0.18 | 24.61 ± 0.11 | 6.50 ± 0.58 |
| 3 | 0.032 ± 0.040 | 27.22 ± 0.15 | 27.26 ± 0.11 | 0.8 ± 1.5 |

The bounds on Gaussian data are within 0.9 % of the exact ones, the rates within 1.0 %; both are farthest at beta = 0.1.
A run of 10 passes took 0.85 times as long in the sweep as alone, by `train`, and 0.08 times with compilation, which one
program of 20 runs shares: medians of 3 rounds that take turns, on busy cores (docs/speed.md).
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax

from aejax import data, evaluation, schedules, training
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import InputError, check_count
from aejax.factory import check_knobs
from aejax.likelihoods import Gaussian
from aejax.methods.vae import VAE, HParams, vae
from aejax.nets import init_params
from aejax.runner import study
from aejax.sweep import SweepResult, sweep
from experiments.benchmarks import timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = ("test_kl_nats", "test_recon_nats", "test_bound_nats", "active_units")
EXACT = ("exact_rate_nats", "exact_distortion_nats")
VARIANCES = tuple(4.0 * 0.5**i for i in range(8))  # of the Gaussian data
NOISE = 0.25  # variance of its likelihood
_GAUSSIANS, _BATCH, _GAUSSIAN_EPOCHS, _GAUSSIAN_LR = 2048, 128, 300, 1e-2
_DRAWS = 16  # codes of each test image
_SHOWN = 12  # test images


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x) with values in [0, 1]."""
    betas: tuple[float, ...] = (0.1, 0.3, 1.0, 1.7, 3.0)
    """Weights of the KL term."""
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 200
    """Passes over the training images, which are binarised anew in each."""
    batch_size: int = 128
    """Examples per step."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    cost_rounds: int = 3
    """How often the cost of a run, alone and in the sweep, is measured; 0 leaves it out."""
    cost_epochs: int = 10
    """Passes of these runs."""
    num_seeds: int = 4
    """Runs of each beta."""
    seed: int = 0
    """The first one."""


class Functions(NamedTuple):
    """What a sweep takes, and what its runs are measured with."""

    model: VAE
    build: Callable[[HParams], Algorithm]
    init: Callable[[jax.Array], Any]
    judge: Algorithm


@lru_cache(maxsize=8)  # the same functions are the same program
def functions(model: VAE, data_dim: int, num_steps: int, *, binarize: bool) -> Functions:
    """Of that model on vectors: the learning rate falls along a cosine of `num_steps`."""

    def build(hparams: HParams) -> Algorithm:
        algo = vae(model, hparams, lambda lr: optax.adam(schedules.cosine(lr, num_steps)))
        return transform_batch(algo, data.binarize) if binarize else algo

    def init(key: jax.Array) -> Any:
        return init_params(model, key, np.zeros((1, data_dim), np.float32))

    return Functions(model, build, init, vae(model, num_samples=_DRAWS))


def check(config: Config) -> None:
    """Refuses what cannot be run, before anything is written."""
    for name in ("latent_dim", "num_epochs", "batch_size", "num_seeds", "cost_epochs"):
        check_count(**{f"--{name.replace('_', '-')}": getattr(config, name)})
    if any(width < 1 for width in config.hidden_dims):
        raise InputError(f"--hidden-dims are {config.hidden_dims}; each has to be at least 1.")
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")
    if config.cost_rounds < 0:
        raise InputError(f"--cost-rounds is {config.cost_rounds}; it has to be 0 or more.")
    if not config.betas or len(set(config.betas)) != len(config.betas):
        raise InputError(f"--betas are {config.betas}; wanted is at least one, and none twice.")
    for hparams in settings(config):
        check_knobs(hparams)


def settings(config: Config) -> list[HParams]:
    return [HParams(config.lr, beta) for beta in config.betas]


def images(config: Config) -> tuple[Functions, data.Dataset]:
    """The images as vectors, and what a sweep over them takes."""
    dataset = data.flatten(data.load(config.dataset, validation=0.0))
    for split in (dataset.train, dataset.test):
        data.check(split.x, "bernoulli", name=config.dataset)
    data_dim = dataset.train.x.shape[1]
    model = VAE.dense(data_dim, config.latent_dim, hidden_dims=config.hidden_dims)
    num_steps = config.num_epochs * training.count_steps(data.Batch(dataset.train.x), config.batch_size)
    return functions(model, data_dim, num_steps, binarize=True), dataset


def train(config: Config, own: Functions, x: np.ndarray, num_epochs: int, lr: float) -> SweepResult:
    """Every beta with every seed."""
    seeds = range(config.seed, config.seed + config.num_seeds)
    hparams = [each._replace(lr=lr) for each in settings(config)]
    sizes: dict[str, Any] = {"batch_size": config.batch_size, "num_epochs": num_epochs}
    return sweep(own.build, own.init, data.Batch(x), hparams=hparams, seeds=seeds, **sizes)


def measure(own: Functions, result: SweepResult, x: np.ndarray, key: jax.Array) -> dict[str, list[list[float]]]:
    """Each metric of each beta and seed, `[H, S]`, all on the same images with the same noise."""
    found: dict[str, list[list[float]]] = {}
    count, seeds = next(iter(result.metrics.values())).shape[:2]
    for i in range(count):
        for j in range(seeds):
            state = result.state(i, j)
            terms = training.evaluate(own.judge, state, data.Batch(x), jax.random.clone(key))
            active = evaluation.active_units(evaluation.embed(own.model, state.params, x))
            values = *(terms[f"elbo/{name.removeprefix('test_')}"] for name in MEASURED[:-1]), active
            for name, value in zip(MEASURED, values, strict=True):
                found.setdefault(name, [[] for _ in range(count)])[i].append(value)
    return found


def gaussian(variances: tuple[float, ...], count: int, seed: int) -> np.ndarray:
    """Vectors `[count, D]` whose mean is 0 and whose covariance is that diagonal, both to rounding."""
    x = np.random.default_rng(seed).normal(size=(count, len(variances)))
    x -= x.mean(axis=0)
    return (x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / count)).T * np.sqrt(variances)).astype(np.float32)


def exact(variances: Any, noise: float, beta: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rate and distortion of the best linear VAE, in nats, for each beta, which has any shape.

    The data are Gaussian with those variances along their principal directions, the code has as many numbers, and the
    likelihood is Gaussian with the variance `noise`.
    """
    variances, level = np.asarray(variances, np.float64), noise * np.asarray(beta, np.float64)[..., None]
    rate = 0.5 * np.log(np.maximum(variances / level, 1.0)).sum(axis=-1)
    error = np.minimum(variances, level).sum(axis=-1)
    return rate, 0.5 * (error / noise + len(variances) * math.log(2 * math.pi * noise))


def known(config: Config) -> dict[str, Any]:
    """The same sweep on Gaussian data: what was measured, and what is exact."""
    x, dim = gaussian(VARIANCES, _GAUSSIANS, config.seed), len(VARIANCES)
    num_steps = _GAUSSIAN_EPOCHS * (_GAUSSIANS // _BATCH)
    model = VAE.dense(dim, dim, hidden_dims=(), likelihood=Gaussian(NOISE))
    own = functions(model, dim, num_steps, binarize=False)
    result = train(dataclasses.replace(config, batch_size=_BATCH), own, x, _GAUSSIAN_EPOCHS, _GAUSSIAN_LR)
    found = measure(own, result, x, jax.random.key(config.seed))
    exactly = (values.tolist() for values in exact(VARIANCES, NOISE, config.betas))
    return found | dict(zip(EXACT, exactly, strict=True))


def cost(config: Config, own: Functions, x: np.ndarray, say: Callable[[str], None]) -> dict[str, float]:
    """Seconds of a run alone, by `training.train`, and of one in the sweep: they take turns, medians over the rounds.

    With compilation nothing compiled before is used, and a run alone compiles for itself.
    """
    algo, runs = own.build(settings(config)[0]), len(config.betas) * config.num_seeds
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    state = algo.init(own.init(init_key))
    sizes: dict[str, Any] = {"batch_size": config.batch_size, "num_epochs": config.cost_epochs}

    def alone(times: int = 1) -> None:
        for _ in range(times):
            for _ in training.train(algo, state, data.Batch(x), train_key, **sizes):
                pass

    swept = lambda: train(config, own, x, config.cost_epochs, config.lr)
    calls: dict[str, Callable[[], Any]] = {"single": alone, "sweep": swept}
    cold: dict[str, list[float]] = {name: [] for name in calls}
    with timing.uncached():
        for i in range(config.cost_rounds):
            for name, call in calls.items():
                say(f"cost, with compilation: round {i + 1} of {config.cost_rounds}")
                jax.clear_caches()
                start = time.perf_counter()
                call()
                cold[name].append(1e3 * (time.perf_counter() - start))
    say("cost, without compilation")
    as_many: dict[str, Callable[[], Any]] = {"single": partial(alone, runs), "sweep": swept}
    warm = timing.interleave(as_many, config.cost_rounds, 0.0)
    found = {"runs": float(runs)}
    for suffix, taken, alone_runs in (("cold_", cold, 1), ("", warm, runs)):
        each = {"single": [ms / alone_runs for ms in taken["single"]], "sweep": [ms / runs for ms in taken["sweep"]]}
        found |= {f"{suffix}{name}_seconds": statistics.median(values) / 1e3 for name, values in each.items()}
        found[f"{suffix}ratio"] = timing.ratio(each["sweep"], each["single"])
    return found


def draw(config: Config, own: Functions, result: SweepResult, summary: dict[str, Any], dataset: data.Dataset,
         x: np.ndarray) -> "dict[str, Figure]":  # fmt: skip
    """The curves, and what the first seed of each beta makes of test images and of draws of the prior."""
    from aejax import plots

    curve = lambda found, exact=None: plots.RateDistortion(
        np.array(config.betas), found["test_kl_nats"], found["test_recon_nats"], exact
    )
    low, high = min(config.betas), max(config.betas)
    line = exact(VARIANCES, NOISE, np.geomspace(low / 1.5, high * 1.5, 200)) if low > 0 else None
    panels = {f"{dataset.name}, test images": curve(summary["images"]),
              "Gaussian data, a linear VAE": curve(summary["gaussian"], line)}  # fmt: skip
    figures = {"rate_distortion": plots.rate_distortion(panels, title="rate and distortion, by the weight of the KL")}
    if dataset.image_shape is None:
        return figures
    params = {f"beta = {beta:g}": result.state(i, 0).params for i, beta in enumerate(config.betas)}
    rows = {name: evaluation.reconstruct(own.model, each, x[:_SHOWN]) for name, each in params.items()}
    title = "test images as they are encoded, and the means of what comes back"
    figures["reconstructions"] = plots.image_rows({"binarised": x[:_SHOWN], **rows}, dataset.image_shape, title=title)
    sample = partial(own.model.apply, method="sample")
    rows = {name: np.asarray(sample({"params": each}, jax.random.key(config.seed), _SHOWN))
            for name, each in params.items()}  # fmt: skip
    figures["samples"] = plots.image_rows(rows, dataset.image_shape, title="the same draws of the prior, decoded")
    return figures


def make(config: Config, say: Callable[[str], None]) -> "tuple[dict[str, Any], dict[str, Figure]]":
    """Trains, measures and draws."""
    own, dataset = images(config)
    say(f"training {len(config.betas) * config.num_seeds} runs")
    result = train(config, own, dataset.train.x, config.num_epochs, config.lr)
    draw_key, key = jax.random.split(jax.random.key(config.seed))
    x = np.asarray(data.binarize(draw_key, data.Batch(dataset.test.x)).x)
    found: dict[str, Any] = {"images": measure(own, result, x, key)}
    say("training on Gaussian data")
    found["gaussian"] = known(config)
    if config.cost_rounds:
        found["cost"] = cost(config, own, dataset.train.x, say)
    say("drawing")
    return found, draw(config, own, result, found, dataset, x)


def table(summary: dict[str, Any]) -> str:
    """Both curves, mean and deviation over the seeds, and the cost."""
    rows, known_rows = [], []
    for i, beta in enumerate(summary["betas"]):
        rows.append([f"{beta:g}", *(study.spread(summary["images"][name][i]) for name in MEASURED)])
        found = summary["gaussian"]
        rate, distortion, bound, units = (study.spread(found[name][i]) for name in MEASURED)
        exactly = tuple(found[name][i] for name in EXACT)
        known_rows.append([f"{beta:g}", f"{rate} ({exactly[0]:.3f})", f"{distortion} ({exactly[1]:.3f})",
                           f"{bound} ({sum(exactly):.3f})", units])  # fmt: skip
    head = ["rate (KL)", "distortion", "their sum, the bound", "active units"]
    text = study.table(["beta", *head], rows)
    text += "\n" + study.table(["beta, Gaussian data (exact)", *head], known_rows)
    if "cost" not in summary:
        return text
    alike = "{:.2f} s alone, {:.2f} s in the sweep, {:.2f} of it"
    own = summary["cost"]
    warm, cold = (
        alike.format(*(own[f"{p}{n}"] for n in ("single_seconds", "sweep_seconds", "ratio"))) for p in ("", "cold_")
    )
    return text + (
        f"\nA run of {summary['cost_epochs']} passes: {warm}; with compilation {cold}. The sweep has {own['runs']:.0f}"
        f" runs; medians of {summary['cost_rounds']} rounds that take turns.\n"
    )


def check_all(config: Config) -> None:
    """Refuses what cannot be run, and images that are not there."""
    check(config)
    images(config)


body = study.at_once("beta_vae", check_all, make, table)


if __name__ == "__main__":
    study.command_line("beta_vae", Config, __doc__, body)
