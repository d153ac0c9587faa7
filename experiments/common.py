"""What every experiment shares: the configuration, one run as a function, and opening a finished run.

Nothing here knows a method. `run` computes and neither prints nor writes; `experiments.launch` is the command line
around it, and alone knows about folders, progress bars and signals.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import data, nets, schedules, training
from aejax import parallel as par
from aejax.algorithm import Algorithm, transform_batch
from aejax.checks import InputError
from experiments.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_DENSE_ONLY = ("hidden_dims", "activation", "code", "tied", "use_bias")


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
    """Passes over the training examples, in all; may grow with --resume, on the schedule of the longer run."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    schedule: str = "constant"
    """How the learning rates change: constant, cosine, ..."""
    validation: float = 0.1
    """Fraction of the training split, its end, held out to choose the best checkpoint; 0 for none."""
    num_train: int | None = None
    """Only the first so many training examples, of those that are not held out; all of them by default."""
    num_test: int | None = None
    """Only the first so many test examples."""
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
    dataset: data.Dataset  # shaped for the model; one draw of it where the training binarises anew at every step
    history: list[dict[str, float]]
    measure_key: jax.Array
    draw_key: jax.Array
    say: Callable[[str], None] = lambda text: None  # shows how far a long measurement is


class Experiment(NamedTuple):
    """One experiment, described."""

    name: str
    config: type[Config]
    build_model: Callable[[Any, tuple[int, ...]], nets.Autoencoder]  # (config, shape of one example)
    build_algorithm: Callable[..., Algorithm]  # (config, model, tx, axis_name)
    monitor: str  # the validation metric whose lowest value is the best checkpoint
    measure: Callable[[Trained], dict[str, float]]
    draw: Callable[[Trained], "dict[str, Figure]"]
    # metric -> published figure; only where the recipe is the paper's
    reference: Callable[[Any], dict[str, Reference]] = lambda config: {}
    optimizer: Callable[..., optax.GradientTransformation] = optax.adam  # of a rate


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
    """What an observer may save so that a run goes on exactly."""

    state: Any
    extra: dict[str, Any]  # of JSON types


class Observer(Protocol):
    """Sees a run as it goes. All methods are called on the host, between compiled chunks."""

    def begin(self, state: Any, num_steps: int, data_shape: tuple[int, ...]) -> Progress | None:
        """Before the first step, when nothing is left to be refused; may return where to go on from."""

    def update(self, chunk: training.Chunk, row: dict[str, float] | None, extra: dict[str, Any]) -> bool:
        """After each chunk, with the row that it completed, if any, and what to save beside its state.

        True stops the run.
        """

    def say(self, text: str) -> None:
        """Shows what is done after the last step."""


def run(
    experiment: Experiment,
    config: Any,
    *,
    observer: Observer | None = None,
    state: Any = None,
    params: Any = None,
    devices: int | None = 1,
    parallel: str = "jit",
) -> Result:
    """Trains and measures. Prints nothing, writes nothing.

    Args:
      experiment: what to run; the experiment modules bind it.
      config: an instance of its `Config`.
      observer: sees progress; may save it, and may stop the run.
      state: goes on from this state in place of fresh parameters.
      params: begins with these parameters in place of fresh ones.
      devices: how many; all of them where None.
      parallel: `jit`, `pmap` or `shard_map`.

    Raises:
      InputError: the configuration or the data cannot be used; the message says what to change.
      DivergedError: a loss became infinite or NaN.
    """
    ready = prepare(experiment, config, devices=devices, parallel=parallel)
    model, algo, dataset = ready.model, ready.algorithm, ready.dataset
    if state is None:
        state = ready.state if params is None else algo.init(params)
    train, held_out = data.Batch(dataset.train.x), None
    if dataset.validation is not None:
        held_out = jax.device_put(data.Batch(dataset.validation.x))
    train_key, eval_key = ready.keys
    held_out_key, once_key, measure_key, draw_key = jax.random.split(eval_key, 4)
    history = History(ready.num_steps, config.num_epochs)
    if observer is not None:
        progress = observer.begin(state, ready.num_steps, dataset.train.x.shape[1:])
        if progress is not None:
            state = progress.state
            history.restore(progress.extra)

    stopped = False
    chunks = training.train(
        algo,
        state,
        train,
        train_key,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        boundary=history.boundary,
        parallel=parallel,
        devices=devices,
    )
    for chunk in chunks:
        state = chunk.state
        row = history.add(chunk)
        if row is not None and held_out is not None:
            values = training.evaluate(algo, state, held_out, held_out_key)
            row |= {f"val/{name}": value for name, value in values.items()}
        if observer is not None and observer.update(chunk, row, history.extra()):
            stopped = True
            break
    if config.binarize == "stochastic":
        dataset = binarized(dataset, once_key)
    trained = Trained(config, model, algo, state, dataset, history.rows, measure_key, draw_key)
    if observer is not None:
        trained = trained._replace(say=observer.say)
    metrics = {} if stopped else experiment.measure(trained)
    reference = {name: ref for name, ref in experiment.reference(config).items() if name in metrics}
    return Result(
        config, model, state, metrics, reference, history.rows, trained,
        history.seconds(), history.steps_per_second(), stopped,
    )  # fmt: skip


class Ready(NamedTuple):
    """A run before its first step."""

    model: nets.Autoencoder
    algorithm: Algorithm
    state: Any  # fresh
    dataset: data.Dataset  # shaped for the model
    num_steps: int
    keys: tuple[jax.Array, jax.Array]  # of training and of evaluation


def prepare(
    experiment: Experiment, config: Any, *, devices: int | None = 1, parallel: str = "jit", shapes_only: bool = False
) -> Ready:
    """Checks whatever can be refused, down to a trace of the step, and builds what a run needs.

    Args:
      experiment, config, devices, parallel: as in `run`.
      shapes_only: gives a state of shapes, which compiles nothing.

    Raises:
      InputError: as in `run`.
    """
    check(config)
    par.check_batch(config.batch_size, par.make_mesh(devices).size)
    dataset = load_data(config)
    x = dataset.train.x
    num_steps = config.num_epochs * training.count_steps(x, config.batch_size)
    init_key, *keys = jax.random.split(jax.random.key(config.seed), 3)
    model = experiment.build_model(config, x.shape[1:])
    algo = build_algorithm(experiment, config, model, num_steps)
    # Compiled as one program: a program for each array would take longer than the first step.
    init = jax.jit(lambda key, x: algo.init(nets.init_params(model, key, x)))
    state = jax.eval_shape(init, init_key, x[:1]) if shapes_only else init(init_key, x[:1])
    jax.eval_shape(jax.jit(algo.step), state, data.Batch(x[: config.batch_size]), keys[0])
    if parallel != "jit":
        algo = build_algorithm(experiment, config, model, num_steps, par.AXIS)
    return Ready(model, algo, state, dataset, num_steps, (keys[0], keys[1]))


def check(config: Config) -> None:
    """Refuses sizes and rates that no run can have."""
    for name in ("latent_dim", "num_epochs", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; it has to be at least 1.")
    if any(width < 1 for width in config.hidden_dims):
        raise InputError(f"--hidden-dims are {config.hidden_dims}; each has to be at least 1.")
    if not 0 <= config.validation < 1:
        raise InputError(f"--validation is {config.validation}; it has to be at least 0 and below 1.")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"--seed is {config.seed}; it has to be at least 0 and below 2^32.")
    schedules.get(config.schedule)


def load_data(config: Config) -> data.Dataset:
    """The data set of a configuration, cut, checked, binarised by threshold if asked, and shaped for its network."""
    dataset = data.load(config.dataset, validation=config.validation)
    dataset = dataset._replace(
        train=_first(dataset.train, config.num_train, f"--num-train is {config.num_train}; {dataset.name}"),
        test=_first(dataset.test, config.num_test, f"--num-test is {config.num_test}; {dataset.name}"),
    )
    if config.net == "conv" and dataset.image_shape is None:
        raise InputError(f"--net conv needs images; {config.dataset} holds vectors of {dataset.train.x.shape[1:]}.")
    likelihood = "bernoulli" if config.binarize != "none" else config.likelihood
    for split in (dataset.train, dataset.validation, dataset.test):
        if split is not None:
            data.check(split.x, likelihood, name=config.dataset)
    if config.binarize == "threshold":
        dataset = dataset._replace(
            train=data.threshold(dataset.train),
            validation=dataset.validation and data.threshold(dataset.validation),
            test=data.threshold(dataset.test),
        )
    return data.flatten(dataset) if config.net == "dense" else dataset


def _first(batch: data.Batch, count: int | None, what: str) -> data.Batch:
    if count is None:
        return batch
    if not 1 <= count <= len(batch.x):
        raise InputError(f"{what} has {len(batch.x)} of them, and at least 1 is needed.")
    return data.Batch(batch.x[:count], None if batch.y is None else batch.y[:count])


def is_recipe(config: Config, recipe: Config) -> bool:
    """Whether two configurations train in the same way: all is equal but the seed and what is measured afterwards."""
    ours, theirs = to_dict(config), to_dict(recipe)
    return all(ours[name] == theirs[name] for name in theirs if name not in ("seed", "nll_samples"))


def binarized(dataset: data.Dataset, key: jax.Array) -> data.Dataset:
    """One stochastic binarisation of every split, to measure on; the key is consumed."""

    def draw(batch: Any, key: jax.Array) -> Any:
        return batch and data.Batch(np.asarray(data.binarize(key, data.Batch(batch.x)).x), batch.y)

    keys = jax.random.split(key, 3)
    train, validation, test = map(draw, (dataset.train, dataset.validation, dataset.test), keys)
    return dataset._replace(train=train, validation=validation, test=test)


def build_algorithm(
    experiment: Experiment, config: Any, model: nets.Autoencoder, num_steps: int, axis_name: str | None = None
) -> Algorithm:
    """The algorithm of a configuration: schedule and stochastic binarisation included; one object for all seeds."""
    made = experiment.build_algorithm, experiment.optimizer
    return _build_algorithm(*made, dataclasses.replace(config, seed=0), model, num_steps, axis_name)


@lru_cache(maxsize=32)  # an algorithm is a static argument of the compiled loop: the same one is not traced again
def _build_algorithm(
    build: Any, optimizer: Any, config: Any, model: nets.Autoencoder, num_steps: int, axis_name: str | None
) -> Algorithm:
    schedule = schedules.get(config.schedule)

    def tx(lr: Any, **options: Any) -> optax.GradientTransformation:
        return optimizer(schedule(lr, num_steps), **options)

    algo = build(config, model, tx, axis_name)
    return transform_batch(algo, data.binarize) if config.binarize == "stochastic" else algo


def build_model(config: Config, shape: Any, module: type[nets.Autoencoder], **fields: Any) -> Any:
    """The module of a configuration for examples of that shape."""
    fields = {"likelihood": config.likelihood, **fields}
    if config.net == "conv":
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        for name in _DENSE_ONLY:
            if name in defaults and getattr(config, name) != defaults[name]:
                raise InputError(f"--{name.replace('_', '-')} is for dense networks; leave it out with --net conv.")
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
    from experiments.folder import read_json

    folder = Path(folder)
    saved = read_json(folder / "config.json")
    if saved is None:
        raise InputError(f"{folder} holds no run: config.json is missing or damaged.")
    if "runs" in saved:
        raise InputError(f"{folder} holds the runs {', '.join(saved['runs'])}; open one of them, as in {folder}/vae.")
    experiment = find(saved["experiment"])
    config = from_dict(experiment.config, saved["config"])
    shape = tuple(saved["data_shape"])
    model = experiment.build_model(config, shape)
    algo = build_algorithm(experiment, config, model, num_steps=1)
    x = jnp.zeros((1, *shape))
    like = jax.eval_shape(lambda: algo.init(nets.init_params(model, jax.random.key(0), x)))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore(like, best=best)
    if restored is None:
        raise InputError(f"{folder} holds no checkpoint {'that was validated' if best else 'yet'}.")
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
