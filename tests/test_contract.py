"""The contract: every registered method through every transform. A new method enters by its line in the registry.

Equalities are to 1e-5 of the largest entry of each array, under SGD (Adam would blow rounding up to whole steps), with
products in full float32, so that the same file passes on an accelerator.
"""

import sys
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import parallel, schedules, training
from aejax.algorithm import play
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.nets import init_params

# Whose losses ignore the key; a method that is not listed has to use it.
NOISE_FREE = {"ae", "ae_l2", "cae", "mdae", "rcae", "sparse_ae", "k_sparse"}
COUPLED = {"sparse_ae"}  # whose losses are no means over examples: the rates of the units are those of a batch
FIELDS = {"k_sparse": {"k": 3}}  # of models whose defaults are for more than eight units
INERT = {("dae", "intact")}  # Gaussian noise, the default, leaves no component intact
KEY = jax.random.key(0)
SIZE, BATCH = 64, 16  # four steps in an epoch
DEVICES = min(8, jax.device_count())  # eight on CPU, where they are simulated


def _sooner(values, first):
    """Those that are first in every run of the suite, the others in the slow one."""
    return [value if value in first else pytest.param(value, marks=pytest.mark.slow) for value in values]


every_method = pytest.mark.parametrize("name", METHODS)
every_kind = pytest.mark.parametrize("kind", ["dense", "conv"])
# Where a test takes several compilations: without noise, with noise, with a latent variable, and a game of phases.
ae_dae_vae_aae_first = pytest.mark.parametrize("name", _sooner(METHODS, ("ae", "dae", "vae", "aae")))
dense_first = pytest.mark.parametrize("kind", _sooner(["dense", "conv"], ("dense",)))


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@cache
def make_model(name, kind="dense"):
    if kind == "conv":
        return METHODS[name].model.conv((8, 8, 1), 8, features=(4,), strides=(2,), **FIELDS.get(name, {}))
    return METHODS[name].model.dense(64, 8, **FIELDS.get(name, {}))


@cache
def make_params(name, kind="dense"):
    shape = (1, 8, 8, 1) if kind == "conv" else (1, 64)
    return init_params(make_model(name, kind), KEY, jnp.zeros(shape))


def make_batch(digits, kind="dense", size=BATCH):
    x = jnp.asarray(digits[:size])
    return Batch(x.reshape(-1, 8, 8, 1) if kind == "conv" else x)


@cache
def knobs(name):
    """The default HParams, with rates large enough for SGD to move by more than rounding."""
    default = METHODS[name].hparams()
    return default._replace(**{field: 1e-2 for field in default._fields if field.endswith("lr")})


@cache
def make_algo(name, kind="dense", axis_name=None):
    return METHODS[name].build(make_model(name, kind), knobs(name), optax.sgd, axis_name=axis_name)


TRACES = []


@cache
def jitted_step(name, kind="dense"):
    def step(state, batch, key):
        TRACES.append((name, kind))
        return make_algo(name, kind).step(state, batch, key)

    return jax.jit(step)


def initial(name, kind="dense"):
    return make_algo(name, kind).init(make_params(name, kind))


def the_game(name):
    """The players and phases that the method's factory handed to `play`."""
    seen = {}

    def spy(players, phases, **kwargs):
        seen.update(players=players, phases=phases)
        return play(players, phases, **kwargs)

    module = sys.modules[METHODS[name].build.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "play", spy)
        METHODS[name].build(make_model(name), knobs(name), optax.sgd)
    return seen["players"], seen["phases"]


def assert_close(actual, expected, rtol=1e-5):
    def check(path, a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error, scale = np.abs(a - b).max(), np.abs(b).max()
        assert error <= rtol * scale, (
            f"{jax.tree_util.keystr(path)}: off by {error:.2e} where the largest is {scale:.2e}"
        )

    jax.tree_util.tree_map_with_path(check, actual, expected)


def assert_same_bits(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def run(name, hparams, key, params, x, *, num_steps=3):
    """A short run as a pure function of everything that can be swept."""
    algo = METHODS[name].build(make_model(name), hparams, optax.sgd)
    state, metrics = jax.lax.scan(lambda s, _: algo.step(s, Batch(x), key), algo.init(params), length=num_steps)
    return state.params, metrics


@cache
def single_run(name):
    return jax.jit(partial(run, name))


# --- one step --------------------------------------------------------------------------------------------------------


@every_kind
@every_method
def test_a_step_returns_the_state_that_it_was_given(name, kind, digits):
    algo, batch = make_algo(name, kind), make_batch(digits, kind)
    state = jax.eval_shape(lambda: algo.init(init_params(make_model(name, kind), KEY, batch.x)))
    after, metrics = jax.eval_shape(algo.step, state, batch, KEY)
    assert jax.tree.map(lambda v: (v.shape, v.dtype), after) == jax.tree.map(lambda v: (v.shape, v.dtype), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())
    assert {f"{player}/loss" for player in state.opt_states} <= set(metrics)


@every_method
def test_three_calls_trace_once(name, digits):
    state = initial(name)
    for _ in range(3):
        state, _ = jitted_step(name)(state, make_batch(digits), KEY)
    assert TRACES.count((name, "dense")) == 1


@pytest.mark.parametrize(("name", "kind"), [*((name, "dense") for name in METHODS), ("ae", "conv")])
def test_jit_equals_eager(name, kind, digits):
    state, batch = initial(name, kind), make_batch(digits, kind)
    assert_close(jitted_step(name, kind)(state, batch, KEY), make_algo(name, kind).step(state, batch, KEY))


@dense_first
@every_method
def test_noise_comes_from_the_key_and_from_nowhere_else(name, kind, digits):
    step, state, batch = jitted_step(name, kind), initial(name, kind), make_batch(digits, kind)
    first = step(state, batch, KEY)
    assert_same_bits(step(state, batch, KEY), first)
    assert differs(step(state, batch, jax.random.key(1)), first) == (name not in NOISE_FREE)


@every_method
def test_no_key_is_used_twice(name, digits):
    algo, data = make_algo(name), make_batch(digits, size=BATCH)
    with jax.debug_key_reuse(True):  # these two hold the step and the evaluation
        list(training.train(algo, initial(name), data, jax.random.key(5), batch_size=BATCH, num_epochs=2))
        training.evaluate(algo, initial(name), data, jax.random.key(6), batch_size=BATCH)


@pytest.mark.parametrize("name", sorted(NOISE_FREE - COUPLED))
def test_the_loss_of_a_batch_is_the_mean_over_its_examples(name, digits):
    algo, batch = make_algo(name), make_batch(digits, size=SIZE)
    whole = jax.jit(algo.evaluate)(initial(name), batch, KEY)
    assert_close(training.evaluate(algo, initial(name), batch, KEY, batch_size=16), whole)


# --- players ---------------------------------------------------------------------------------------------------------


@every_method
def test_each_player_alone_moves_its_groups_and_nothing_else(name, digits):
    players, _ = the_game(name)
    params, batch = make_params(name), make_batch(digits)
    for player in players:
        algo = play(players, [[player]])
        state, _ = jax.jit(algo.step)(algo.init(params), batch, KEY)
        moved = {group for group in params if differs(state.params[group], params[group])}
        assert moved == set(players[player].groups)


@every_method
def test_order_matters_between_phases_and_not_within_one(name, digits):
    players, phases = the_game(name)
    state, batch = initial(name), make_batch(digits)

    def played(phases):
        return jax.jit(play(players, phases).step)(state, batch, KEY)

    if any(len(phase) > 1 for phase in phases):
        assert_close(played([tuple(reversed(phase)) for phase in phases]), played(phases))
    order = [player for phase in phases for player in phase]
    apart = [(a, b) for a, b in pairwise(order) if not set(players[a].groups) & set(players[b].groups)]
    for a, b in apart[-1:]:  # the last two in turn that move different groups, such as disc and gen
        together = played([[a, b]])
        assert_close(played([[b, a]]), together)
        assert differs(played([[a], [b]])[0].params, together[0].params)


# --- many runs at once -----------------------------------------------------------------------------------------------


@every_method
def test_a_lane_of_seeds_and_hyper_parameters_is_the_single_run(name, digits):
    """Lanes for two further seeds, and one for each knob, traced; each knob has an effect, but for those in INERT."""
    default, x = knobs(name), jnp.asarray(digits[:BATCH])
    assert all(value > 0 for value in default)
    settings = [default] * 3 + [default._replace(**{field: 0.5 * v}) for field, v in default._asdict().items()]
    keys = [KEY, *jax.random.split(KEY)] + [KEY] * len(default)
    stacked = jax.tree.map(lambda *values: jnp.array(values), *settings)
    swept = jax.jit(jax.vmap(partial(run, name), (0, 0, None, None)))(stacked, jnp.stack(keys), make_params(name), x)
    lanes = [jax.tree.map(lambda v, i=i: v[i], swept) for i in range(len(keys))]
    for lane, hparams, key in zip(lanes, settings, keys, strict=True):
        assert_close(lane, single_run(name)(hparams, key, make_params(name), x))
    for field, lane in zip(default._fields, lanes[3:], strict=True):
        assert differs(lane, lanes[0]) == ((name, field) not in INERT), field


@ae_dae_vae_aae_first
def test_every_schedule_sweeps(name, digits):
    peaks, batch, params = jnp.array([1e-2, 3e-2]), make_batch(digits), make_params(name)  # made outside of any trace

    def trained(schedule, peak):
        hparams = knobs(name)._replace(lr=peak)
        algo = METHODS[name].build(make_model(name), hparams, lambda lr: optax.sgd(schedule(lr, 4)))
        state, _ = jax.lax.scan(lambda s, _: algo.step(s, batch, KEY), algo.init(params), length=2)
        return state.params

    @jax.jit
    def sweep(peaks):
        return {key: jax.vmap(partial(trained, schedule))(peaks) for key, schedule in schedules.SCHEDULES.items()}

    swept = sweep(peaks)
    lanes = {key: jax.tree.map(lambda v: v[1], params) for key, params in swept.items()}
    constant, _ = single_run(name)(knobs(name)._replace(lr=3e-2), KEY, params, batch.x)  # three steps of it
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(swept))
    assert differs(lanes["constant"], constant)
    for key in set(schedules.SCHEDULES) - {"constant"}:
        assert differs(lanes[key], lanes["constant"]), key


# --- the loop --------------------------------------------------------------------------------------------------------


@cache
def trained_algo(name, kind="dense"):
    return METHODS[name].build(make_model(name, kind), knobs(name))  # Adam


def trained(algo, state, data, num_epochs, **options):
    """The last state, and the metrics of every step, `[steps]`."""
    chunks = list(training.train(algo, state, data, KEY, batch_size=BATCH, num_epochs=num_epochs, **options))
    return chunks[-1].state, jax.tree.map(lambda *parts: np.concatenate(parts), *(c.metrics for c in chunks))


@ae_dae_vae_aae_first
def test_chunks_and_scan_and_a_loop_of_jitted_steps_are_the_same_bit_for_bit(name, digits):
    algo, data = trained_algo(name), make_batch(digits, size=SIZE)
    state = algo.init(make_params(name))
    by_chunks, chunk_metrics = trained(algo, state, data, 3)

    fit = jax.jit(partial(training.fit, algo, batch_size=BATCH, num_epochs=3))
    by_scan, scan_metrics = fit(state, data, KEY)
    assert_same_bits(by_scan, by_chunks)
    assert_same_bits(jax.tree.map(lambda v: v.reshape(-1), scan_metrics), chunk_metrics)

    data_key, step_key = jax.random.split(KEY)
    step, metrics = jax.jit(algo.step), []
    for epoch in range(3):
        order = jax.random.permutation(jax.random.fold_in(data_key, epoch), SIZE)
        for rows in order.reshape(-1, BATCH):
            state, values = step(state, Batch(data.x[rows]), step_key)
            metrics.append(values)
    assert_same_bits(state, by_chunks)
    assert_same_bits(jax.tree.map(lambda *values: np.stack(values), *metrics), chunk_metrics)


@every_method
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, digits):
    algo, data = trained_algo(name), make_batch(digits, size=SIZE)
    whole, metrics = trained(algo, algo.init(make_params(name)), data, 3)
    chunks = training.train(algo, algo.init(make_params(name)), data, KEY, batch_size=BATCH, num_epochs=3)
    half = next(chunk.state for chunk in chunks if chunk.step == 2)  # the second chunk ends in the middle of an epoch
    saved = jax.tree.map(np.asarray, half)  # what a checkpoint holds
    resumed, rest = trained(algo, saved, data, 3)
    assert_same_bits(resumed, whole)
    assert_same_bits(rest, jax.tree.map(lambda v: v[2:], metrics))


@dense_first
@every_method
def test_it_learns_more_than_the_mean_image(name, kind, digits):
    algo, data = trained_algo(name, kind), make_batch(digits, kind, SIZE)
    state, metrics = trained(algo, algo.init(make_params(name, kind)), data, 100)
    assert all(np.isfinite(values).all() for values in metrics.values())
    x_hat = make_model(name, kind).apply({"params": state.params}, data.x, method="reconstruct")
    of_the_mean_image = jnp.sum((data.x - data.x.mean(0, keepdims=True)) ** 2)
    assert jnp.sum((x_hat - data.x) ** 2) < 0.9 * of_the_mean_image


# --- several devices -------------------------------------------------------------------------------------------------


@ae_dae_vae_aae_first
def test_eight_devices_under_jit_are_one_device_noise_included(name, digits):
    state, data = initial(name), make_batch(digits, size=SIZE)
    one = trained(make_algo(name), state, data, 1)
    assert_close(trained(make_algo(name), state, data, 1, devices=DEVICES), one)


def averaged_over_shards(name):
    """The game on one device whose losses are the means over as many shards, each with noise of its own."""
    players, phases = the_game(name)

    def over_shards(loss):
        def mean_loss(params, batch, key):
            shards = jax.tree.map(lambda v: v.reshape(DEVICES, -1, *v.shape[1:]), batch)
            one = lambda shard, i: loss(params, shard, jax.random.fold_in(key, i))
            return jax.tree.map(jnp.mean, jax.vmap(one)(shards, jnp.arange(DEVICES)))

        return mean_loss

    return play({n: p._replace(loss=over_shards(p.loss)) for n, p in players.items()}, phases)


@ae_dae_vae_aae_first
def test_pmap_and_shard_map_loops_are_one_device(name, digits):
    """Noise-free methods against the method itself; the others against the mean over shards, played on one device."""
    state, data = initial(name), make_batch(digits, size=SIZE)
    expected = trained(make_algo(name) if name in NOISE_FREE else averaged_over_shards(name), state, data, 1)
    mapped = make_algo(name, axis_name=parallel.AXIS)
    for way in ("pmap", "shard_map"):
        assert_close(trained(mapped, state, data, 1, parallel=way, devices=DEVICES), expected)
