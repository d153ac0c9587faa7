"""What every experiment shares: the configuration, one run as a function, and opening a finished run.

Nothing here knows a method. `run` computes and neither prints nor writes; `experiments.launch` is the command line
around it, and alone knows about folders, progress bars and signals.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import jax
import numpy as np
import optax

from aejax import data, nets, parallel, schedules, training
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_STEPS = 200  # a row of metrics.jsonl stands for whole epochs of at least this many steps together


@dataclasses.dataclass(frozen=True)
class Config:
    """What decides the numbers of a run. Experiments add their own fields and defaults."""

    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    net: Literal["dense", "conv"] = "dense"
    """Dense networks see vectors, convolutional ones images."""
    latent_dim: int = 2
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Widths of the hidden layers of a dense encoder; the decoder mirrors them."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Bernoulli is cross-entropy, Gaussian (unit variance) is half the squared error."""
    binarize: Literal["none", "stochastic", "threshold"] = "none"
    """Stochastic draws x ~ Bernoulli(pixel) anew at every presentation."""
    num_epochs: int = 200
    """Passes over the training examples, in all."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    schedule: str = "constant"
    """How the learning rates change: constant, cosine, ..."""
    validation: float = 0.1
    """Fraction of the training split, its end, held out to choose the best checkpoint; 0 for none."""
    seed: int = 0
    """Of the initialisation, the order of the data and the noise."""


class Reference(NamedTuple):
    """A published figure, for the configuration at hand."""

    value: float
    source: str


class Trained(NamedTuple):
    """A trained model with what it was trained on: what `measure` and `draw` get."""

    config: Any
    model: nets.Autoencoder
    algorithm: Algorithm
    state: Any
    dataset: data.Dataset  # shaped for the model
    history: list[dict[str, float]]
    key: jax.Array  # for evaluation


class Experiment(NamedTuple):
    """One experiment, described."""

    name: str
    config: type[Config]
    build_model: Callable[[Any, tuple[int, ...]], nets.Autoencoder]  # (config, shape of one example)
    build_algorithm: Callable[..., Algorithm]  # (config, model, tx, axis_name)
    monitor: str  # the validation metric whose lowest value is the best checkpoint
    measure: Callable[[Trained], dict[str, float]]
    draw: Callable[[Trained], "dict[str, Figure]"]
    reference: Callable[[Any], dict[str, Reference]]  # metric -> published figure; only where the recipe is the paper's


class Result(NamedTuple):
    """What a run returns."""

    config: Any
    model: nets.Autoencoder
    state: Any
    metrics: dict[str, float]  # the names of the documentation: test_sse, test_bound_nats, ...
    reference: dict[str, Reference]
    history: list[dict[str, float]]  # the rows of metrics.jsonl
    trained: Trained
    wall_seconds: float
    steps_per_second: float
    stopped: bool  # by the observer, before the last epoch


class Progress(NamedTuple):
    """What an observer may save so that a run goes on exactly: `state`, and `extra` (JSON)."""

    state: Any
    extra: dict[str, Any]
    rows: list[dict[str, float]]


class Observer(Protocol):
    """Sees a run as it goes. All methods are called on the host, between compiled chunks."""

    def begin(self, state: Any, num_steps: int, data_shape: tuple[int, ...]) -> Progress | None:
        """Before the first step; may return where to go on from."""

    def update(self, chunk: training.Chunk, row: dict[str, float] | None, extra: dict[str, Any]) -> bool:
        """After each chunk, with the row that it completed, if any. True stops the run."""


def run(
    experiment: Experiment,
    config: Any,
    *,
    observer: Observer | None = None,
    state: Any = None,
    devices: int | None = 1,
    way: str = "jit",
) -> Result:
    """Trains and measures. Prints nothing, writes nothing.

    Args:
      experiment: what to run; the experiment modules bind it.
      config: an instance of its `Config`.
      observer: sees progress; may save it, and may stop the run.
      state: goes on from this state in place of fresh parameters.
      devices: how many; all of them where None.
      way: `jit`, `pmap` or `shard_map`.

    Raises:
      InputError: the configuration or the data cannot be used; the message says what to change.
      DivergedError: a loss became infinite or NaN.
    """
    start = time.perf_counter()
    check(config)
    dataset = load_data(config)
    shape = dataset.train.x.shape[1:]
    num_steps = config.num_epochs * training.count_steps(len(dataset.train.x), config.batch_size)
    init_key, train_key, eval_key = jax.random.split(jax.random.key(config.seed), 3)
    model = experiment.build_model(config, shape)
    algo = build_algorithm(experiment, config, model, num_steps, None if way == "jit" else parallel.AXIS)
    if state is None:
        state = algo.init(nets.init_params(model, init_key, dataset.train.x[:1]))
    history = History(num_steps, config.num_epochs)
    held_out = dataset.validation and jax.device_put(data.Batch(dataset.validation.x))
    if observer is not None and (progress := observer.begin(state, num_steps, shape)) is not None:
        state = progress.state
        history.restore(progress)

    stopped = False
    chunks = training.train(
        algo,
        state,
        data.Batch(dataset.train.x),
        train_key,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        boundary=history.boundary,
        parallel=way,
        devices=devices,
    )
    for chunk in chunks:
        state = chunk.state
        row = history.add(chunk)
        if row is not None and held_out is not None:
            values = training.evaluate(algo, state, held_out, eval_key)
            row |= {f"val/{name}": value for name, value in values.items()}
        if observer is not None and observer.update(chunk, row, history.extra()):
            stopped = True
            break
    trained = Trained(config, model, algo, state, dataset, history.rows, eval_key)
    metrics = {} if stopped else experiment.measure(trained)
    reference = {name: ref for name, ref in experiment.reference(config).items() if name in metrics}
    return Result(
        config, model, state, metrics, reference, history.rows, trained,
        history.seconds_before + time.perf_counter() - start, history.steps_per_second(), stopped,
    )  # fmt: skip


class History:
    """Sums per-step metrics into rows, one for every `boundary` steps and one for the last.

    The sums are taken one by one in float64 and can be saved in the middle, so a run that was interrupted writes the
    rows, bit for bit, of the run that was not.
    """

    def __init__(self, num_steps: int, num_epochs: int):
        self.num_steps, self.steps_per_epoch = num_steps, num_steps // num_epochs
        self.boundary = -(-_ROW_STEPS // self.steps_per_epoch) * self.steps_per_epoch
        self.rows: list[dict[str, float]] = []
        self.sums: dict[str, float] = {}
        self.count = 0
        self.seconds_before, self._start = 0.0, time.perf_counter()
        self._timed = (0, 0.0)  # steps and seconds, the chunks that compile left out

    def add(self, chunk: training.Chunk) -> dict[str, float] | None:
        """Takes the steps of a chunk; returns the row that they complete, already among `rows`."""
        n = len(next(iter(chunk.metrics.values())))
        for name, values in chunk.metrics.items():
            self.sums[name] = float(np.add.accumulate([self.sums.get(name, 0.0), *values.tolist()])[-1])
        self.count += n
        if n > 1:
            self._timed = (self._timed[0] + n, self._timed[1] + chunk.seconds)
        if chunk.step % self.boundary and chunk.step != self.num_steps:
            return None
        row = {"step": chunk.step, "epoch": chunk.step // self.steps_per_epoch}
        row |= {name: total / self.count for name, total in sorted(self.sums.items())}
        self.rows.append(row)
        self.sums, self.count = {}, 0
        return row

    def extra(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the state."""
        seconds = self.seconds_before + time.perf_counter() - self._start
        return {"sums": self.sums, "count": self.count, "seconds": seconds}

    def restore(self, progress: Progress) -> None:
        """Goes on from there."""
        self.rows = list(progress.rows)
        self.sums, self.count = dict(progress.extra["sums"]), progress.extra["count"]
        self.seconds_before = progress.extra["seconds"]

    def steps_per_second(self) -> float:
        """Over the chunks that did not compile; NaN where there was none."""
        return self._timed[0] / self._timed[1] if self._timed[1] else float("nan")


def check(config: Config) -> None:
    """Refuses sizes and rates that no run can have."""
    for name in ("latent_dim", "num_epochs", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; it has to be at least 1.")
    if any(width < 1 for width in config.hidden_dims):
        raise InputError(f"--hidden-dims are {config.hidden_dims}; each has to be at least 1.")
    if not 0 <= config.validation < 1:
        raise InputError(f"--validation is {config.validation}; it has to be at least 0 and below 1.")
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")
    schedules.get(config.schedule)


def load_data(config: Config) -> data.Dataset:
    """The data set of a configuration, checked, binarised by threshold if asked, and shaped for its network."""
    dataset = data.load(config.dataset, validation=config.validation)
    if config.net == "conv" and dataset.image_shape is None:
        raise InputError(f"--net conv needs images; {config.dataset} holds vectors of {dataset.train.x.shape[1:]}.")
    likelihood = "bernoulli" if config.binarize != "none" else config.likelihood
    for split in (dataset.train, dataset.validation, dataset.test):
        if split is not None:
            data.check(split.x, likelihood)
    if config.binarize == "threshold":
        dataset = dataset._replace(
            train=data.threshold(dataset.train),
            validation=dataset.validation and data.threshold(dataset.validation),
            test=data.threshold(dataset.test),
        )
    return data.flatten(dataset) if config.net == "dense" else dataset


def build_algorithm(
    experiment: Experiment, config: Any, model: nets.Autoencoder, num_steps: int, axis_name: str | None = None
) -> Algorithm:
    """The algorithm of a configuration: schedule and stochastic binarisation included."""
    schedule = schedules.get(config.schedule)

    def tx(lr: Any, **options: Any) -> optax.GradientTransformation:
        return optax.adam(schedule(lr, num_steps), **options)

    algo = experiment.build_algorithm(config, model, tx, axis_name)
    return transform_batch(algo, data.binarize) if config.binarize == "stochastic" else algo


def build_model(config: Config, shape: tuple[int, ...], module: type[nets.Autoencoder], **fields: Any) -> Any:
    """The module of a configuration for examples of that shape."""
    fields = {"likelihood": config.likelihood, **fields}
    if config.net == "conv":
        return module.conv(shape, config.latent_dim, **fields)
    return module.dense(shape[0], config.latent_dim, hidden_dims=config.hidden_dims, **fields)


def load(folder: str | Path, *, best: bool = False) -> tuple[Any, nets.Autoencoder, Any]:
    """Opens a run: `(config, model, state)`, ready for `model.apply({"params": state.params}, ...)`.

    Args:
      folder: a run folder.
      best: the checkpoint with the lowest validation loss in place of the last.

    Raises:
      InputError: there is no run, or no checkpoint in it.
    """
    from aejax.checkpoint import Checkpoints

    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no run: config.json is missing. python -m experiments lists what can be run.")
    saved = json.loads((folder / "config.json").read_text())
    if "runs" in saved:
        raise InputError(f"{folder} holds the runs {', '.join(saved['runs'])}; open one of them, as in {folder}/vae.")
    experiment = find(saved["experiment"])
    config = from_dict(experiment.config, saved["config"])
    shape = tuple(saved["data_shape"])
    model = experiment.build_model(config, shape)
    algo = build_algorithm(experiment, config, model, num_steps=1)
    like = jax.eval_shape(
        lambda: algo.init(nets.init_params(model, jax.random.key(0), np.zeros((1, *shape), "float32")))
    )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore(like, best=best)
    if restored is None:
        raise InputError(f"{folder} holds no checkpoint yet; go on with --resume.")
    return config, model, restored[0]


def find(name: str) -> Experiment:
    """The experiment of that name."""
    return import_module(f"experiments.{name}").EXPERIMENT


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """A Config from its JSON, tuples and nested knobs restored."""

    def value(default: Any, saved: Any) -> Any:
        if hasattr(default, "_fields"):
            return type(default)(**saved)
        return tuple(saved) if isinstance(saved, list) else saved

    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return cls(**{name: value(defaults[name], saved) for name, saved in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The JSON form of a Config."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value._asdict() if hasattr(value, "_fields") else value for name, value in values.items()}
