"""Many runs, seeds x hyper-parameters, as one program: compiled once, whatever the number of runs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import training
from aejax.algorithm import Algorithm, Metrics, begin, refresh
from aejax.checks import InputError, check_count, nearest
from aejax.data.streams import Order, Streams, streams, take
from aejax.nets import has_convolution

STRATEGIES = ("auto", "vmap", "sequential")


class SweepResult(NamedTuple):
    """H settings times S seeds."""

    states: Any  # final; every leaf [H, S, ...]
    metrics: dict[str, np.ndarray]  # each [H, S, num_epochs, steps_per_epoch]
    strategy: str  # that was used: `vmap` or `sequential`

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """Of every metric over the seeds, `[H, num_epochs, steps_per_epoch]`."""
        return {name: values.mean(axis=1) for name, values in self.metrics.items()}

    @property
    def std(self) -> dict[str, np.ndarray]:
        """Spread of every metric over the seeds: the sample standard deviation, NaN for a single seed."""
        seeds = next(iter(self.metrics.values())).shape[1]
        correction = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else np.nan
        return {name: values.std(axis=1) * correction for name, values in self.metrics.items()}

    def state(self, setting: int, seed: int) -> Any:
        """The final state of one run, both counted from zero."""
        return jax.tree.map(lambda leaf: leaf[setting, seed], self.states)


def sweep(
    build: Callable[[Any], Algorithm],
    init: Callable[[jax.Array], Any],
    data: Any,
    *,
    hparams: Any,
    seeds: Sequence[int],
    batch_size: Any,
    num_epochs: int,
    strategy: str = "auto",
) -> SweepResult:
    """Trains every setting with every seed.

    The run of a seed is the run that `train` makes with `init_key, train_key, eval_key = jax.random.split(
    jax.random.key(seed), 3)`: parameters from `init_key`, the start of the algorithm, if it has one, from
    `fold_in(init_key, 1)`, order and noise from `train_key`. The third key is left for evaluation. Both strategies give
    its numbers, to rounding, where keys are of the kind `threefry2x32`; keys of the kind `rbg` draw other noise under
    `vmap`. Losses that are not finite are not refused: that run reports them, and the others go on.

    Args:
      build: hyper-parameters -> algorithm, such as `lambda hparams: vae(model, hparams)`; it is given traced ones.
      init: key -> params, such as `lambda key: init_params(model, key, x)`; the key is consumed.
      data: a pytree of arrays `[N, ...]`, shared by all runs.
      hparams: one NamedTuple whose entries are numbers or arrays `[H]`, or a list of H NamedTuples of numbers.
      seeds: S integers.
      batch_size: of each run; an integer, or as in `train` a tuple of them for streams.
      num_epochs: of each run.
      strategy: `vmap`, all at once; `sequential`, one after the other; `auto`: `sequential` on CPU, where the batched
        products of `vmap` cost 1.2 to 1.5 times as much (but for networks of a few units), and `vmap` elsewhere.

    Returns:
      The final states, every metric of every step, and their mean and spread over the seeds.

    Raises:
      InputError: settings of different lengths, no seeds or settings, an unknown strategy; or what `build` and `fit`
        refuse.

    Example:
      >>> from aejax.methods.ae import AE, HParams, ae
      >>> from aejax.nets import init_params
      >>> model, x = AE.dense(4, 2, hidden_dims=()), jnp.eye(4)
      >>> result = sweep(
      ...     lambda hparams: ae(model, hparams), lambda key: init_params(model, key, x), aejax.data.Batch(x),
      ...     hparams=HParams(lr=jnp.array([1e-3, 1e-2])), seeds=range(3), batch_size=2, num_epochs=5)
      >>> result.metrics["recon/loss"].shape, result.mean["recon/loss"].shape
      ((2, 3, 5, 2), (2, 5, 2))
    """
    if strategy not in STRATEGIES:
        raise InputError(f"Unknown strategy={strategy!r}. {nearest(strategy, STRATEGIES, what='strategies')}")
    settings, count = _stack(hparams)
    for i in range(count):  # while they have values: `build` cannot refuse what is traced
        algo = build(jax.tree.map(lambda leaf, i=i: leaf[i].item(), settings))
    if not len(seeds):
        raise InputError("No seeds were given; a sweep needs at least one.")
    training.count_steps(data, batch_size)
    check_count(num_epochs=num_epochs)
    algo.check(data)
    data = jax.tree.map(jnp.asarray, data)
    keys = jnp.stack([jax.random.split(jax.random.key(seed), 3) for seed in seeds])[:, :2]
    found = streams(data, batch_size)
    sizes: dict[str, Any] = {"found": found, "num_epochs": num_epochs}
    on_cpu = jax.default_backend() == "cpu"
    if strategy == "auto":
        strategy = "sequential" if on_cpu else "vmap"
    if strategy == "vmap":
        states, metrics = _run_all(build, init, settings, keys, data, **sizes)
    else:
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], settings) for i in range(count)]
        scans = not (on_cpu and has_convolution(partial(_first_step, build, init, found), each[0], keys[0], data))
        run = _run_one if scans else _run_by_steps
        runs = [run(build, init, setting, key, data, **sizes) for setting in each for key in keys]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs)
        states, metrics = jax.tree.map(lambda leaf: leaf.reshape(count, len(keys), *leaf.shape[1:]), stacked)
    return SweepResult(states, jax.tree.map(np.asarray, metrics), strategy)


def _stack(hparams: Any) -> tuple[Any, int]:
    """The settings as one pytree of arrays `[H]`, and H."""
    if isinstance(hparams, list):
        if len({jax.tree.structure(each) for each in hparams}) != 1:
            raise InputError("The list of settings is empty, or mixes different kinds of them.")
        hparams = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *hparams)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(hparams)]
    lengths = {len(leaf) for leaf in leaves if leaf.ndim}
    if len(lengths) > 1 or any(leaf.ndim > 1 for leaf in leaves):
        raise InputError(f"Settings have shapes {[leaf.shape for leaf in leaves]}; each is a number, or all are [H].")
    count = lengths.pop() if lengths else 1
    return jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (count,)), hparams), count


def _run(
    build: Callable[[Any], Algorithm],
    init: Callable[[jax.Array], Any],
    hparams: Any,
    keys: jax.Array,
    data: Any,
    *,
    found: Streams,
    num_epochs: int,
) -> tuple[Any, Metrics]:
    state = _init(build, init, hparams, keys[0], data)
    return training.fit(build(hparams), state, data, keys[1], batch_size=found.batch_size, num_epochs=num_epochs)


_STATIC = ("build", "init", "found", "num_epochs")
_run_one = jax.jit(_run, static_argnames=_STATIC)


@partial(jax.jit, static_argnames=_STATIC)
def _run_all(build: Any, init: Any, settings: Any, keys: jax.Array, data: Any, **sizes: Any) -> tuple[Any, Metrics]:
    def run(hparams: Any, key: jax.Array) -> tuple[Any, Metrics]:
        return _run(build, init, hparams, key, data, **sizes)

    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(settings, keys)


def _run_by_steps(
    build: Any, init: Any, hparams: Any, keys: jax.Array, data: Any, *, found: Streams, num_epochs: int
) -> tuple[Any, Metrics]:
    """`_run` without a compiled loop, which `lax` convolutions on CPU do not bear."""
    state = _jit_init(build, init, hparams, keys[0], data)
    data_key, step_key = jax.random.split(keys[1])
    refreshes = build(hparams).refreshes
    log: list[Metrics] = []
    order = Order(data_key, found)
    for step in range(num_epochs * found.steps_per_epoch):
        for i, each in enumerate(refreshes):
            if step % each.every == 0:
                state = _jit_refresh(build, hparams, i, state, data, step_key)
        state, metrics = _jit_step(build, hparams, state, data, order.rows(step), step_key)
        log.append(metrics)
    stacked = jax.tree.map(lambda *values: jnp.stack(values), *log)
    return state, jax.tree.map(lambda values: values.reshape(num_epochs, -1), stacked)


def _init(build: Any, init: Any, hparams: Any, key: jax.Array, data: Any) -> Any:
    return begin(build(hparams), init, data, key)


def _step(build: Any, hparams: Any, state: Any, data: Any, rows: Any, key: jax.Array) -> tuple[Any, Metrics]:
    return build(hparams).step(state, take(data, rows), key)


def _refresh(build: Any, hparams: Any, index: int, state: Any, data: Any, key: jax.Array) -> Any:
    return refresh(build(hparams), index, state, data, key)


def _first_step(build: Any, init: Any, found: Streams, hparams: Any, keys: jax.Array, data: Any):
    rows = jax.tree.map(lambda size: jnp.zeros(size, jnp.int32), found.batch_size)
    return _step(build, hparams, _init(build, init, hparams, keys[0], data), data, rows, keys[1])


_jit_init = jax.jit(_init, static_argnames=("build", "init"))
_jit_step = jax.jit(_step, static_argnames=("build",))
_jit_refresh = jax.jit(_refresh, static_argnames=("build", "index"))
