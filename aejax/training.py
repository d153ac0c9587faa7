"""Compiled loops over steps and epochs. They know no method: anything with `step` and `evaluate` can be trained.

`train` is a generator of compiled chunks of about a second, for runs that a person watches. `fit` is a whole run as
one pure function, for `vmap`. Both draw the same batches and the same noise, and end with the same parameters.
"""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from aejax import parallel as par
from aejax.algorithm import Algorithm, Metrics, refresh
from aejax.checks import DivergedError, InputError, check_count, nearest
from aejax.data.streams import Order, count_steps, epoch_order, streams, take
from aejax.nets import has_convolution

_CHUNK_SECONDS = 1.0
_MAX_CHUNK = 2048  # steps, about a second of the fastest seen; and
_MAX_ROWS = 2**22  # indices: they bound the buffers of a chunk


class Chunk(NamedTuple):
    """A stretch of training, finished and checked to be finite."""

    state: Any  # after the last step; yours to keep, nothing overwrites it
    step: int  # steps done since the start of the run
    metrics: dict[str, np.ndarray]  # each [n], one value a step; float32 unless the loss is wider
    seconds: float  # wall clock, compilation included


def train(
    algo: Algorithm,
    state: Any,
    data: Any,
    key: jax.Array,
    *,
    batch_size: Any,
    num_epochs: int,
    boundary: int | None = None,
    parallel: str = "jit",
    devices: int | None = 1,
) -> Iterator[Chunk]:
    """Trains in compiled chunks of about a second; between them the caller logs, validates, saves, or stops.

    With `data_key, step_key = jax.random.split(key)`, epoch `e` visits the data in the permutation drawn from
    `fold_in(data_key, e)`, without the last partial batch, and `step_key` is the key of every step.
    A state whose `step` is not zero goes on where it stood, in the order and with the noise of the run that was not
    interrupted. Data sets of different lengths are streams (`aejax.data.streams`): an epoch is a pass over the one of
    most steps, and the others begin again, in a new order.

    Args:
      algo: from a method's factory; for `pmap` and `shard_map` built with `axis_name=parallel.AXIS`.
      state: from `algo.init`, or a checkpoint. It stays usable.
      data: a pytree of arrays `[N, ...]`, such as `Batch(x, y)`; goes to the devices once, whole.
      key: of the run, consumed; the same at every call.
      batch_size: over all devices; an integer, or for streams a tree of them that is a prefix of `data`.
      num_epochs: in all, those done before included.
      boundary: no chunk runs past a multiple of this many steps, so that whatever happens there happens at the same
        steps in every run.
      parallel: `jit`, `pmap` or `shard_map`.
      devices: how many; all of them where None.

    Returns:
      An iterator of `Chunk`s, until the last step of the last epoch. The first one is a single step: it compiles, and
      shows life.

    Raises:
      InputError: the batch exceeds the data or is not divided by the devices, the algorithm lacks an axis name, or
        refuses the data.
      DivergedError: from the iterator: a loss or the state is not finite, or a metric is NaN; the chunks yielded before
        it are.
    """
    steps_per_epoch, found = count_steps(data, batch_size), streams(data, batch_size)
    check_count(num_epochs=num_epochs, boundary=1 if boundary is None else boundary)
    mesh = _check_parallel(algo, found.batch_sizes, parallel, devices)
    if not (hasattr(state, "step") and hasattr(state, "params")):
        raise InputError(f"The state is a {type(state).__name__} without step and params; use algo.init(params).")
    algo.check(data)
    data_key, step_key = jax.random.split(key)
    order, last = Order(data_key, found), num_epochs * steps_per_epoch
    stops = [each.every for each in algo.refreshes] + ([boundary] if boundary else [])
    # Steps in the longest chunk; not bounded by `last`, so that more epochs compile nothing new.
    capacity = max(1, min(*stops, _MAX_CHUNK, _MAX_ROWS // sum(found.batch_sizes)))

    def chunks(state: Any, data: Any) -> Iterator[Chunk]:
        start = time.perf_counter()
        state, data = par.place((state, data), par.replicated(mesh))
        run = _choose_loop(algo, state, data, order.rows(0), step_key, mesh, parallel)
        step, n, compiled = int(state.step), 1, False
        while step < last:
            for i, each in enumerate(algo.refreshes):
                if step % each.every == 0:
                    state = _refresh(algo, i, state, data, step_key)
            n = min(n, capacity, last - step, *(stop - step % stop for stop in stops))
            rows = _padded([order.rows(i) for i in range(step, step + n)], capacity)
            before, (state, log) = state, run(algo, state, data, rows, n, step_key, mesh)
            metrics = {name: np.asarray(values)[:n] for name, values in log.items()}
            seconds = time.perf_counter() - start
            replay = partial(run, algo, before, data, rows, key=step_key, mesh=mesh)
            first = partial(_evaluate_rows, algo, before, data, order.rows(0), step_key)
            _check_finite(before, state, metrics, step, data, replay, first)
            step += n
            yield Chunk(state, step, metrics, seconds)
            start = time.perf_counter()
            n = max(1, min(16 * n, int(n * _CHUNK_SECONDS / par.agree(seconds)))) if compiled else 1
            compiled = True

    return chunks(state, data)


def fit(
    algo: Algorithm, state: Any, data: Any, key: jax.Array, *, batch_size: Any, num_epochs: int
) -> tuple[Any, Metrics]:
    """A whole run as one pure function: `jit` it, or `vmap` it over seeds and hyper-parameters.

    Args:
      algo, state, data, key, batch_size, num_epochs: as in `train`; the state starts at step zero.

    Returns:
      The final state, and every metric of every step, `[num_epochs, steps_per_epoch]`. Losses that are not finite
      are not refused here; look at the metrics. Data are checked where they are no traced values.
    """
    check_count(num_epochs=num_epochs)
    with jax.ensure_compile_time_eval():  # concrete data may be looked at within a trace too
        algo.check(data)
    steps, found = count_steps(data, batch_size), streams(data, batch_size)
    data_key, step_key = jax.random.split(key)

    def one_step(state: Any, xs: Any) -> tuple[Any, Metrics]:
        rows, step = xs
        for i, each in enumerate(algo.refreshes):  # the step is counted by the loop, so that vmap leaves a branch
            fresh = lambda state, i=i: refresh(algo, i, state, data, step_key)
            state = jax.lax.cond(step % each.every == 0, fresh, lambda state: state, state)
        return algo.step(state, take(data, rows), step_key)

    def one_epoch(state: Any, epoch: jax.Array) -> tuple[Any, Metrics]:
        return jax.lax.scan(one_step, state, (epoch_order(data_key, epoch, found), epoch * steps + jnp.arange(steps)))

    return jax.lax.scan(one_epoch, state, jnp.arange(num_epochs))


def evaluate(algo: Algorithm, state: Any, data: Any, key: jax.Array, *, batch_size: Any = 256) -> dict[str, float]:
    """Every metric at fixed parameters, over all examples, each visited once.

    The data are cut into batches in their order, the last one as short as it comes, and the results weighted by the
    sizes. Batch `i..j` draws its noise from `fold_in(key, i)`. Where a loss is a mean over examples (`algo.coupled` is
    False) and draws no noise, the result does not depend on `batch_size`; where it draws, different sizes agree to
    within the Monte Carlo error; where it couples examples, such as an MMD, it is the mean over batches of that size,
    and a last example on its own joins the batch before.

    Args:
      algo: any algorithm.
      state: not changed.
      data: a pytree of arrays `[N, ...]`, or streams of them.
      key: consumed.
      batch_size: as in `train`; of streams, each example of the longest is visited once, the others over and over.

    Returns:
      `{"player/term": mean}`.

    Raises:
      InputError: the algorithm refuses the data, or they are empty.
    """
    found = streams(data, batch_size)
    algo.check(data)
    size, data = 0, jax.tree.map(jnp.asarray, data)
    sums: dict[str, float] = {}
    for count, rows in found.parts(least=2 if algo.coupled else 1):
        part = _evaluate_rows(algo, state, data, rows, jax.random.fold_in(key, size))
        size += count
        for name, value in jax.device_get(part).items():
            sums[name] = sums.get(name, 0.0) + count * float(value)
    return {name: total / size for name, total in sums.items()}


def metric_names(algo: Algorithm, state: Any, batch: Any, key: jax.Array) -> list[str]:
    """What `evaluate` measures, in the order of the players, from a trace alone; what leaves a trace is sorted.

    Args:
      algo, state, key: as of `evaluate`.
      batch: of data, or their shapes.
    """
    evaluation, names = _traced_evaluation(algo)
    jax.eval_shape(evaluation, state, batch, key)
    return list(names)


@lru_cache(maxsize=32)
def _traced_evaluation(algo: Algorithm) -> tuple[Callable[..., Any], list[str]]:
    names: list[str] = []

    def evaluation(*args: Any) -> Any:
        metrics = algo.evaluate(*args)
        names[:] = metrics
        return metrics

    return jax.jit(evaluation), names


def _padded(rows: list[Any], capacity: int) -> Any:
    """Rows of some steps as `[capacity, batch_size]`, in the tree of the batch size."""

    def pad(*rows: np.ndarray) -> np.ndarray:
        padded = np.zeros((capacity, *rows[0].shape), np.int32)
        padded[: len(rows)] = rows
        return padded

    return jax.tree.map(pad, *rows)


_refresh = jax.jit(refresh, static_argnums=(0, 1))


def _check_parallel(algo: Algorithm, batch_sizes: tuple[int, ...], parallel: str, devices: int | None) -> Mesh:
    if parallel not in par.WAYS:
        raise InputError(f"Unknown parallel={parallel!r}. {nearest(parallel, par.WAYS, what='ways')}")
    mesh = par.make_mesh(devices)
    for batch_size in batch_sizes:
        par.check_batch(batch_size, mesh.size)
    if parallel == "pmap" and jax.process_count() > 1:
        raise InputError("parallel='pmap' runs in one process; use 'jit' or 'shard_map' with several.")
    mapped = parallel != "jit"
    if mapped != (algo.axis_name is not None):
        wanted = f"axis_name={par.AXIS!r}" if mapped else "no axis_name"
        raise InputError(f"parallel={parallel!r} needs an algorithm built with {wanted}; it has {algo.axis_name!r}.")
    return mesh


def _choose_loop(
    algo: Algorithm, state: Any, data: Any, rows: Any, key: jax.Array, mesh: Mesh, parallel: str
) -> Callable[..., Any]:
    if parallel == "pmap":
        return _pmap_chunk
    if parallel == "shard_map":
        return _shard_map_chunk
    # On CPU a lax convolution inside a compiled loop leaves the fast path, at ten times the cost and more.
    if jax.default_backend() == "cpu" and has_convolution(partial(_step, algo, mesh=mesh), state, data, rows, key):
        return _step_by_step
    return _jit_chunk


def _step(algo: Algorithm, state: Any, data: Any, rows: Any, key: jax.Array, mesh: Mesh | None = None):
    batch = take(data, rows)
    if mesh is not None and mesh.size > 1:
        batch = jax.lax.with_sharding_constraint(batch, par.split(mesh))
    return jax.jit(algo.step)(state, batch, key)  # jit, so that one trace serves the search above and all that follows


def _loop(algo: Algorithm, state: Any, data: Any, rows: Any, n: Any, key: jax.Array, mesh: Mesh | None = None):
    """`n` steps, `n` traced: one compilation serves chunks of every length up to the rows given."""
    at = lambda i: jax.tree.map(lambda r: r[i], rows)

    def body(i: jax.Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        state, log = carry
        state, metrics = _step(algo, state, data, at(i), key, mesh)
        return state, {name: log[name].at[i].set(value) for name, value in metrics.items()}

    _, shapes = jax.eval_shape(lambda: _step(algo, state, data, at(0), key, mesh))
    capacity = jax.tree.leaves(rows)[0].shape[:1]
    log = {name: jnp.zeros(capacity, shape.dtype) for name, shape in shapes.items()}
    return jax.lax.fori_loop(0, n, body, (state, log))


_jit_chunk = jax.jit(_loop, static_argnames=("algo", "mesh"))
_jit_step = jax.jit(_step, static_argnames=("algo", "mesh"))


@partial(jax.jit, static_argnames=("algo", "mesh"))
def _shard_map_chunk(algo: Algorithm, state: Any, data: Any, rows: Any, n: Any, key: jax.Array, mesh: Mesh):
    whole, parts = PartitionSpec(), PartitionSpec(None, par.AXIS)
    body = partial(_loop, algo)
    return jax.shard_map(body, mesh=mesh, in_specs=(whole, whole, parts, whole, whole), out_specs=(whole, whole))(
        state, data, rows, n, key
    )


@lru_cache(maxsize=8)
def _pmapped(algo: Algorithm, devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    return jax.pmap(partial(_loop, algo), par.AXIS, in_axes=(None, None, 0, None, None), out_axes=None, devices=devices)


def _pmap_chunk(algo: Algorithm, state: Any, data: Any, rows: Any, n: int, key: jax.Array, mesh: Mesh):
    parts = jax.tree.map(lambda r: r.reshape(r.shape[0], mesh.size, -1).swapaxes(0, 1), rows)
    return _pmapped(algo, tuple(mesh.devices.flat))(state, data, parts, n, key)


def _step_by_step(algo: Algorithm, state: Any, data: Any, rows: Any, n: int, key: jax.Array, mesh: Mesh):
    log = []
    for i in range(n):
        state, metrics = _jit_step(algo, state, data, jax.tree.map(lambda r, i=i: r[i], rows), key, mesh)
        log.append(metrics)
    return state, {name: np.stack([m[name] for m in log]) for name in log[0]}


@partial(jax.jit, static_argnames="algo")
def _evaluate_rows(algo: Algorithm, state: Any, data: Any, rows: Any, key: jax.Array) -> Metrics:
    batch = take(data, rows)
    if algo.axis_name is None:
        return algo.evaluate(state, batch, key)
    # The mapped axis, over which the algorithm averages, is here one device long.
    alone = jax.vmap(lambda batch: algo.evaluate(state, batch, key), axis_name=algo.axis_name)
    return jax.tree.map(lambda v: v[0], alone(jax.tree.map(lambda v: v[None], batch)))


@jax.jit
def _finite_leaves(state: Any) -> tuple[jax.Array, jax.Array]:
    """Whether each leaf of params is finite, and each of the whole state."""
    flags = lambda tree: jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)], bool)
    return flags(state.params), flags(state)


def _check_finite(
    before: Any,
    state: Any,
    metrics: dict[str, np.ndarray],
    step: int,
    data: Any,
    replay: Callable[[int], Any],
    at_start: Callable[[], Metrics],
) -> None:
    """Raises at the first step whose loss is not finite, with a metric that is NaN, or that left a state not finite.

    An optimiser may start with infinities of its own; what counts is what was finite and no longer is.
    """
    bad = {n: np.isnan(v) | (~np.isfinite(v) & n.endswith("/loss")) for n, v in metrics.items()}
    found = {name: int(flags.argmax()) for name, flags in bad.items() if flags.any()}
    if found:
        first = min(found.values())
        names = [n for n, i in found.items() if i == first]
        untrained = step + first == 0 and not all(np.isfinite(at_start()[name]) for name in names)
        raise DivergedError(step + first + 1, ", ".join(names), _ranges(data), untrained)
    if all(flags.all() for flags in _finite_leaves(state)):
        return
    params, whole = _finite_leaves(before)

    def lost(after: Any) -> str | None:
        params_now, whole_now = _finite_leaves(after)
        if (params & ~params_now).any():
            return "params"
        return "the optimiser's state" if (whole & ~whole_now).any() else None

    if lost(state) is None:
        return
    low, high = 0, len(next(iter(metrics.values())))  # what is not finite stays so: halve the chunk, running it again
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lost(replay(middle)[0]) else (middle, high)
    raise DivergedError(step + high, str(lost(replay(high)[0])), _ranges(data))


def _ranges(data: Any) -> str:
    """The least and the greatest number of each array of the data."""
    leaves = jax.tree_util.tree_leaves_with_path(data)
    named = [(jax.tree_util.keystr(path, simple=True, separator=".") or "the data", leaf) for path, leaf in leaves]
    return ", ".join(f"{name} from {float(leaf.min()):g} to {float(leaf.max()):g}" for name, leaf in named)
