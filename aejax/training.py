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
from aejax.algorithm import Algorithm, Metrics
from aejax.checks import DivergedError, InputError, nearest
from aejax.nets import has_convolution

_CHUNK_SECONDS = 1.0
_MAX_CHUNK = 2048  # steps, about a second of the fastest seen; and
_MAX_ROWS = 2**22  # indices: they bound the buffers of a chunk


class Chunk(NamedTuple):
    """A stretch of training, finished and checked to be finite."""

    state: Any  # after the last step; yours to keep, nothing overwrites it
    step: int  # steps done since the start of the run
    metrics: dict[str, np.ndarray]  # each [n] float32, one value a step
    seconds: float  # wall clock, compilation included


def train(
    algo: Algorithm,
    state: Any,
    data: Any,
    key: jax.Array,
    *,
    batch_size: int,
    num_epochs: int,
    boundary: int | None = None,
    parallel: str = "jit",
    devices: int | None = 1,
) -> Iterator[Chunk]:
    """Trains in compiled chunks of about a second; between them the caller logs, validates, saves, or stops.

    With `data_key, step_key = jax.random.split(key)`, epoch `e` visits the data in the permutation drawn from
    `fold_in(data_key, e)`, without the last partial batch, and `step_key` is the key of every step.
    A state whose `step` is not zero goes on where it stood, in the order and with the noise of the run that was not
    interrupted.

    Args:
      algo: from a method's factory; for `pmap` and `shard_map` built with `axis_name=parallel.AXIS`.
      state: from `algo.init`, or a checkpoint. It stays usable.
      data: a pytree of arrays `[N, ...]`, such as `Batch(x, y)`; goes to the devices once, whole.
      key: of the run, consumed; the same at every call.
      batch_size: over all devices.
      num_epochs: in all, those done before included.
      boundary: no chunk runs past a multiple of this many steps, so that whatever happens there happens at the same
        steps in every run.
      parallel: `jit`, `pmap` or `shard_map`.
      devices: how many; all of them where None.

    Returns:
      An iterator of `Chunk`s, until the last step of the last epoch. The first one is a single step: it compiles, and
      shows life.

    Raises:
      InputError: the batch exceeds the data or is not divided by the devices, or the algorithm lacks an axis name.
      DivergedError: from the iterator: a loss or a parameter is not finite; the chunks yielded before it are.
    """
    size = num_examples(data)
    steps_per_epoch = count_steps(size, batch_size)
    if num_epochs < 1:
        raise InputError(f"num_epochs={num_epochs}; at least 1 is needed.")
    if boundary is not None and boundary < 1:
        raise InputError(f"boundary={boundary}; at least 1 step is needed, or None.")
    mesh = _check_parallel(algo, batch_size, parallel, devices)
    data_key, step_key = jax.random.split(key)
    order, last = _Order(data_key, size, batch_size), num_epochs * steps_per_epoch
    # Steps in the longest chunk; not bounded by `last`, so that more epochs compile nothing new.
    capacity = max(1, min(boundary or _MAX_CHUNK, _MAX_CHUNK, _MAX_ROWS // batch_size))

    def chunks(state: Any, data: Any) -> Iterator[Chunk]:
        start = time.perf_counter()
        state, data = par.place((state, data), par.replicated(mesh))
        run = _choose_loop(algo, state, data, np.zeros(batch_size, np.int32), step_key, mesh, parallel)
        step, n, compiled = int(state.step), 1, False
        while step < last:
            n = min(n, capacity, last - step, boundary - step % boundary if boundary else n)
            rows = np.zeros((capacity, batch_size), np.int32)
            rows[:n] = [order.rows(i) for i in range(step, step + n)]
            state, log = run(algo, state, data, rows, n, step_key, mesh)
            metrics = {name: np.asarray(values)[:n] for name, values in log.items()}
            seconds = time.perf_counter() - start
            _check_finite(state, metrics, step)
            step += n
            yield Chunk(state, step, metrics, seconds)
            start = time.perf_counter()
            n = max(1, min(16 * n, int(n * _CHUNK_SECONDS / par.agree(seconds)))) if compiled else 1
            compiled = True

    return chunks(state, data)


def fit(
    algo: Algorithm, state: Any, data: Any, key: jax.Array, *, batch_size: int, num_epochs: int
) -> tuple[Any, Metrics]:
    """A whole run as one pure function: `jit` it, or `vmap` it over seeds and hyper-parameters.

    Args:
      algo, state, data, key, batch_size, num_epochs: as in `train`; the state starts at step zero.

    Returns:
      The final state, and every metric of every step, `[num_epochs, steps_per_epoch]`. Losses that are not finite
      are not refused here; look at the metrics.
    """
    size = num_examples(data)
    count_steps(size, batch_size)
    data_key, step_key = jax.random.split(key)

    def one_step(state: Any, rows: jax.Array) -> tuple[Any, Metrics]:
        return algo.step(state, take(data, rows), step_key)

    def one_epoch(state: Any, epoch: jax.Array) -> tuple[Any, Metrics]:
        return jax.lax.scan(one_step, state, epoch_order(data_key, epoch, size=size, batch_size=batch_size))

    return jax.lax.scan(one_epoch, state, jnp.arange(num_epochs))


def evaluate(algo: Algorithm, state: Any, data: Any, key: jax.Array, *, batch_size: int = 256) -> dict[str, float]:
    """The mean of every metric over all examples, each visited once, at fixed parameters.

    Example `i` draws its noise from `fold_in(key, i)`, so the result does not depend on the batch size. The last batch
    is padded and masked. Losses are evaluated on one example at a time (in parallel): terms that couple examples,
    such as an MMD, belong to `aejax.evaluation`.

    Args:
      algo: any algorithm.
      state: not changed.
      data: a pytree of arrays `[N, ...]`.
      key: consumed.
      batch_size: examples at once.

    Returns:
      `{"player/term": mean}`.
    """
    size, data = num_examples(data), jax.tree.map(jnp.asarray, data)
    sums: dict[str, float] = {}
    for start in range(0, size, batch_size):
        rows = np.arange(start, start + batch_size)
        part = _evaluate_rows(algo, state, data, np.minimum(rows, size - 1), rows < size, key)
        for name, value in jax.device_get(part).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: total / size for name, total in sums.items()}


def num_examples(data: Any) -> int:
    """The common length of the arrays of a pytree; `InputError` where they disagree or are empty."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise InputError(f"The arrays of the data have shapes {shapes}; they need one length in common.")
    if (0,) in sizes:
        raise InputError(f"The data hold no examples: their shapes are {shapes}.")
    return shapes[0][0]


def count_steps(size: int, batch_size: int) -> int:
    """Whole batches in an epoch; `InputError` where there is none."""
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}; at least 1 is needed.")
    if batch_size > size:
        raise InputError(f"batch_size={batch_size} exceeds the {size} examples of the training data.")
    return size // batch_size


@partial(jax.jit, static_argnames=("size", "batch_size"))
def epoch_order(data_key: jax.Array, epoch: int | jax.Array, *, size: int, batch_size: int) -> jax.Array:
    """The batches of one epoch: `[steps, batch_size]` int32 row numbers, without the last partial batch."""
    order = jax.random.permutation(jax.random.fold_in(data_key, epoch), size)
    return order[: size // batch_size * batch_size].reshape(-1, batch_size)


def take(data: Any, rows: jax.Array | np.ndarray) -> Any:
    """The examples of those rows."""
    return jax.tree.map(lambda v: jnp.asarray(v)[rows], data)


class _Order:
    """Which examples each step of a run sees; the order of the current epoch is kept."""

    def __init__(self, data_key: jax.Array, size: int, batch_size: int):
        self.data_key, self.size, self.batch_size = data_key, size, batch_size
        self.epoch, self.order = -1, np.zeros((0, batch_size), np.int32)

    def rows(self, step: int) -> np.ndarray:
        """`[batch_size]` int32."""
        epoch, i = divmod(step, self.size // self.batch_size)
        if epoch != self.epoch:
            order = epoch_order(self.data_key, epoch, size=self.size, batch_size=self.batch_size)
            self.epoch, self.order = epoch, np.asarray(order)
        return self.order[i]


def _check_parallel(algo: Algorithm, batch_size: int, parallel: str, devices: int | None) -> Mesh:
    if parallel not in par.WAYS:
        raise InputError(f"Unknown parallel={parallel!r}. {nearest(parallel, par.WAYS, what='ways')}")
    mesh = par.make_mesh(devices)
    par.check_batch(batch_size, mesh.size)
    if parallel == "pmap" and jax.process_count() > 1:
        raise InputError("parallel='pmap' runs in one process; use 'jit' or 'shard_map' with several.")
    mapped = parallel != "jit"
    if mapped != (algo.axis_name is not None):
        wanted = f"axis_name={par.AXIS!r}" if mapped else "no axis_name"
        raise InputError(f"parallel={parallel!r} needs an algorithm built with {wanted}; it has {algo.axis_name!r}.")
    return mesh


def _choose_loop(
    algo: Algorithm, state: Any, data: Any, rows: np.ndarray, key: jax.Array, mesh: Mesh, parallel: str
) -> Callable[..., Any]:
    if parallel == "pmap":
        return _pmap_chunk
    if parallel == "shard_map":
        return _shard_map_chunk
    # On CPU a lax convolution inside a compiled loop leaves the fast path, at ten times the cost and more.
    if jax.default_backend() == "cpu" and has_convolution(partial(_step, algo, mesh=mesh), state, data, rows, key):
        return _step_by_step
    return _jit_chunk


def _step(algo: Algorithm, state: Any, data: Any, rows: jax.Array, key: jax.Array, mesh: Mesh | None = None):
    batch = take(data, rows)
    if mesh is not None and mesh.size > 1:
        batch = jax.lax.with_sharding_constraint(batch, par.split(mesh))
    return jax.jit(algo.step)(state, batch, key)  # jit, so that one trace serves the search above and all that follows


def _loop(algo: Algorithm, state: Any, data: Any, rows: jax.Array, n: Any, key: jax.Array, mesh: Mesh | None = None):
    """`n` steps, `n` traced: one compilation serves chunks of every length up to the rows given."""

    def body(i: jax.Array, carry: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
        state, log = carry
        state, metrics = _step(algo, state, data, rows[i], key, mesh)
        return state, {name: log[name].at[i].set(value) for name, value in metrics.items()}

    _, shapes = jax.eval_shape(lambda: _step(algo, state, data, rows[0], key, mesh))
    log = {name: jnp.zeros(rows.shape[:1], shape.dtype) for name, shape in shapes.items()}
    return jax.lax.fori_loop(0, n, body, (state, log))


_jit_chunk = jax.jit(_loop, static_argnames=("algo", "mesh"))
_jit_step = jax.jit(_step, static_argnames=("algo", "mesh"))


@partial(jax.jit, static_argnames=("algo", "mesh"))
def _shard_map_chunk(algo: Algorithm, state: Any, data: Any, rows: jax.Array, n: Any, key: jax.Array, mesh: Mesh):
    whole, parts = PartitionSpec(), PartitionSpec(None, par.AXIS)
    body = partial(_loop, algo)
    return jax.shard_map(body, mesh=mesh, in_specs=(whole, whole, parts, whole, whole), out_specs=(whole, whole))(
        state, data, rows, n, key
    )


@lru_cache(maxsize=8)
def _pmapped(algo: Algorithm, devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    return jax.pmap(partial(_loop, algo), par.AXIS, in_axes=(None, None, 0, None, None), out_axes=None, devices=devices)


def _pmap_chunk(algo: Algorithm, state: Any, data: Any, rows: np.ndarray, n: int, key: jax.Array, mesh: Mesh):
    parts = rows.reshape(rows.shape[0], mesh.size, -1).swapaxes(0, 1)
    return _pmapped(algo, tuple(mesh.devices.flat))(state, data, parts, n, key)


def _step_by_step(algo: Algorithm, state: Any, data: Any, rows: np.ndarray, n: int, key: jax.Array, mesh: Mesh):
    log = []
    for row in rows[:n]:
        state, metrics = _jit_step(algo, state, data, row, key, mesh)
        log.append(metrics)
    return state, {name: np.stack([m[name] for m in log]) for name in log[0]}


@partial(jax.jit, static_argnames="algo")
def _evaluate_rows(algo: Algorithm, state: Any, data: Any, rows: jax.Array, mask: jax.Array, key: jax.Array) -> Metrics:
    def one(row: jax.Array) -> Metrics:
        return algo.evaluate(state, take(data, row[None]), jax.random.fold_in(key, row))

    # Where the algorithm averages over a mapped axis, that axis is here one device long.
    alone = jax.vmap(one, axis_name=algo.axis_name or par.AXIS)
    values = jax.vmap(lambda row: jax.tree.map(lambda v: v[0], alone(row[None])))(rows)
    return {name: jnp.sum(jnp.where(mask, value, 0.0)) for name, value in values.items()}


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _check_finite(state: Any, metrics: dict[str, np.ndarray], step: int) -> None:
    """Raises at the first step whose loss is not finite, or whose update left parameters that are not."""
    bad = {name: np.flatnonzero(~np.isfinite(v)) for name, v in metrics.items() if name.endswith("/loss")}
    bad = {name: indices[0] for name, indices in bad.items() if indices.size}
    if bad:
        first = min(bad.values())
        raise DivergedError(step + int(first) + 1, ", ".join(name for name, index in bad.items() if index == first))
    if not _all_finite(state.params):
        raise DivergedError(step + len(next(iter(metrics.values()))) + 1, "params")
