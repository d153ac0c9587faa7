"""One run as a function: what can be refused is refused, then it trains and measures.

Prints nothing, writes nothing, and knows no method, no folder and no terminal.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax

from aejax import data, extras, nets, training
from aejax import parallel as par
from aejax.algorithm import Algorithm, begin
from aejax.checks import InputError
from aejax.data.streams import streams
from aejax.runner.config import check
from aejax.runner.differing import differences, shapes
from aejax.runner.experiment import Experiment, Result, Trained, build_algorithm
from aejax.runner.history import History
from aejax.runner.inputs import (
    EVALUATION_BATCH,
    Feed,
    Spec,
    binarized,
    check_labels,
    load_data,
    plain_feed,
    seen,
    spec_of,
)
from aejax.runner.measures import note_collapse


class Progress(NamedTuple):
    """What an observer may save so that a run goes on exactly."""

    state: Any
    extra: dict[str, Any]  # of JSON types


class Observer(Protocol):
    """Sees a run as it goes. All methods are called on the host, between compiled chunks."""

    def begin(self, ready: "Ready") -> Progress | None:
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
      experiment: what to run, such as `experiments.vae.EXPERIMENT`.
      config: an instance of its `Config`.
      observer: sees progress; may save it, and may stop the run.
      state: goes on from this state in place of fresh parameters.
      params: begins with these parameters in place of fresh ones; groups of the model that they lack are fresh, and
        started on the data.
      devices: how many; all of them where None.
      parallel: `jit`, `pmap` or `shard_map`.

    Raises:
      InputError: the configuration or the data cannot be used; the message says what to change.
      DivergedError: a loss became infinite or NaN.
    """
    extras.need("A run", "sklearn", extra="runner")  # its measurements, which come last
    ready = prepare(experiment, config, devices=devices, parallel=parallel, shapes_only=True)
    model, algo, dataset, feed = ready.model, ready.algorithm, ready.dataset, ready.feed
    train_key, eval_key = ready.keys
    held_out_key, once_key, measure_key, draw_key = jax.random.split(eval_key, 4)
    history = History(ready.num_steps, config.num_epochs)
    progress = None if observer is None else observer.begin(ready)
    if progress is not None:
        state = progress.state
        history.restore(progress.extra)
    elif state is None and params is None:
        state = ready.fresh()
    else:
        _check_fits(params if state is None else state.params, ready, partly=state is None)
        state = ready.begun(params) if state is None else state
    held_out = jax.device_put(feed.held_out)

    stopped = False
    chunks = training.train(
        algo,
        state,
        feed.train,
        train_key,
        batch_size=feed.batch_size,
        num_epochs=config.num_epochs,
        boundary=history.boundary,
        parallel=parallel,
        devices=devices,
    )
    for chunk in chunks:
        state = chunk.state
        row = history.add(chunk)
        if row is not None and held_out is not None:
            values = training.evaluate(algo, state, held_out, held_out_key, batch_size=evaluation_batch(feed))
            row |= {f"val/{name}": value for name, value in values.items()}
        if observer is not None and observer.update(chunk, row, history.extra()):
            stopped = True
            break
    if config.binarize == "stochastic":
        dataset = binarized(dataset, once_key)
    trained = Trained(config, model, algo, state, dataset, history.rows, measure_key, draw_key, notes={})
    if observer is not None:
        trained = trained._replace(say=observer.say)
    metrics = {} if stopped else trained.each({"metrics": lambda: experiment.measure(trained)}).get("metrics", {})
    if not stopped:
        note_collapse(trained, lambda: ready.fresh().params, jax.random.fold_in(jax.random.clone(eval_key), 4))
    reference = {name: ref for name, ref in experiment.reference(config).items() if name in metrics}
    return Result(
        config, model, state, metrics, reference, history.rows, trained,
        history.seconds(), history.steps_per_second(), stopped,
    )  # fmt: skip


def _check_fits(params: Any, ready: "Ready", *, partly: bool) -> None:
    wanted = {group: own for group, own in ready.state.params.items() if group in params or not partly}
    differ = [*differences(shapes(params), shapes(wanted))]
    if differ:
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise InputError(f"The parameters are those of another model: {'; '.join(differ[:3])}{more}.")


class Ready(NamedTuple):
    """A run before its first step."""

    model: nets.Autoencoder
    algorithm: Algorithm
    state: Any  # fresh
    dataset: data.Dataset  # shaped for the model
    num_steps: int
    keys: tuple[jax.Array, jax.Array]  # of training and of evaluation
    spec: Spec
    feed: Feed
    monitor: str
    fresh: Callable[[], Any]  # a fresh state, started on the data
    begun: Callable[[Any], Any]  # one of these parameters, groups that they lack as in a fresh state


def prepare(
    experiment: Experiment, config: Any, *, devices: int | None = 1, parallel: str = "jit", shapes_only: bool = False
) -> Ready:
    """Checks whatever can be refused, down to a trace of the step, and builds what a run needs.

    Args:
      experiment, config, devices, parallel: as in `run`.
      shapes_only: gives a state of shapes, which compiles nothing where all networks are of this library.

    Raises:
      InputError: as in `run`.
    """
    check(config)
    mesh = par.make_mesh(devices)
    dataset = load_data(config)
    spec = spec_of(dataset)
    model = experiment.build_model(config, spec)
    check_labels(dataset, model, spec)
    feed = Feed(*(experiment.feed(config, dataset) if experiment.feed else plain_feed(config, dataset, model)))
    for size in jax.tree.leaves(feed.batch_size):
        par.check_batch(size, mesh.size)
    num_steps = config.num_epochs * training.count_steps(feed.train, feed.batch_size)
    init_key, *keys = jax.random.split(jax.random.key(config.seed), 3)
    algo = build_algorithm(experiment, config, model, num_steps)
    algo.check(feed.train)
    # Compiled as one program: a program for each array would take longer than the first step.
    init = jax.jit(partial(_init, algo, model))
    example = jax.tree.map(lambda v: v[:1], seen(model, dataset.train))
    fresh = partial(init, init_key, example, feed.train)
    state = jax.eval_shape(init, init_key, example, feed.train)
    groups = set(state.params)
    begun = lambda params: fresh(params) if set(params) < groups else algo.init(params)
    jax.eval_shape(jax.jit(algo.step), state, _first_batch(feed.train, feed.batch_size), keys[0])
    monitor = _check_evaluation(experiment, algo, state, feed, keys[1])
    jax.eval_shape(partial(_maps, model), state.params, seen(model, jax.tree.map(lambda v: v[:2], dataset.train)))
    if parallel != "jit":
        algo = build_algorithm(experiment, config, model, num_steps, par.AXIS)
    foreign = not nets.is_ours(model)
    if foreign or not shapes_only:
        concrete = fresh()
        state = state if shapes_only else concrete
        if foreign:
            nets.check_rows(model, concrete.params, seen(model, dataset.train))
    return Ready(model, algo, state, dataset, num_steps, (keys[0], keys[1]), spec, feed, monitor, fresh, begun)


def _init(
    algo: Algorithm, model: nets.Autoencoder, key: jax.Array, example: Any, train: Any, brought: Any = None
) -> Any:
    """A fresh state, but for the groups that are brought, which the start sees and does not change."""
    brought = brought or {}
    start = lambda params, data, key: algo.start(params, data, key) | brought
    init = lambda key: nets.init_params(model, key, example) | brought
    return begin(algo._replace(start=start), init, train, key)


def _maps(model: nets.Autoencoder, params: Any, example: Any) -> tuple[Any, Any]:
    """What measurements and pictures are made of, traced before the first step."""
    bound, (x, *condition) = model.bind({"params": params}), nets.inputs(model, example)
    z, x_hat = bound.embed(x, *condition), bound.reconstruct(x, *condition)
    if (z.ndim != 2 and not model.takes_places) or x_hat.shape != x.shape:
        raise InputError(
            f"Of examples {x.shape} {type(model).__name__}.embed makes {z.shape} and reconstruct {x_hat.shape};"
            " wanted are a vector for each example, and the shape of x."
        )
    return z, x_hat


def _check_evaluation(experiment: Experiment, algo: Algorithm, state: Any, feed: Feed, key: jax.Array) -> str:
    """The metric to monitor, from a trace of the evaluation on what is held out, or else on what is trained on."""
    part, sizes = (feed.train, feed.batch_size) if feed.held_out is None else (feed.held_out, evaluation_batch(feed))
    algo.check(part)
    names = training.metric_names(algo, state, _first_batch(part, sizes), key)
    monitor = experiment.monitor or next(name for name in names if name.endswith("/loss"))
    if monitor not in names:
        raise InputError(f"{experiment.name} monitors {monitor!r}; its metrics are {names}.")
    return monitor


def evaluation_batch(feed: Feed) -> Any:
    """The batch size that runs evaluate at, for each stream."""
    return jax.tree.map(lambda size: EVALUATION_BATCH, feed.batch_size)


def _first_batch(part: Any, batch_size: Any) -> Any:
    streams(part, batch_size)
    return jax.tree.map(lambda size, stream: jax.tree.map(lambda v: v[:size], stream), batch_size, part)
