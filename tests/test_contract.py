"""The contract: every registered method through every transform. A new method enters by the entry in its file.

Equalities are to 1e-5 of the largest entry of each group of parameters, under SGD (Adam would blow rounding up to whole
steps), with products in full float32, so that the same file passes on an accelerator. What takes many compilations is
asked here of methods that have all traits between them; where a method's own code decides, in the slow suite of all.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract import (
    KEY,
    SIZE,
    TRACES,
    assert_close,
    assert_same_bits,
    batch_size,
    differs,
    digits,
    fresh,
    initial,
    jitted_step,
    knobs,
    make_algo,
    make_batch,
    make_data,
    make_model,
    make_params,
    reduces,
    representatives,
    run,
    single_run,
    the_game,
)
from coupling import is_coupled, second_differences

from aejax import algorithm, parallel, schedules, training
from aejax.algorithm import Phase, Player, Rule, play
from aejax.data.streams import epoch_order, streams, take
from aejax.methods import METHODS
from aejax.nets import inputs

DEVICES = min(8, jax.device_count())  # eight on CPU, where they are simulated


def _sooner(values, first):
    """Those that are first in every run of the suite, the others in the slow one."""
    return [value if value in first else pytest.param(value, marks=pytest.mark.slow) for value in values]


FIRST = representatives()
every_method = pytest.mark.parametrize("name", METHODS)
every_kind = pytest.mark.parametrize("kind", ["dense", "conv"])
representative = pytest.mark.parametrize("name", FIRST)  # of what jax or the heart sees to, whatever the method
every_trait = pytest.mark.parametrize("name", _sooner(METHODS, FIRST))
every_trait_of_conv = pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(pytest.param(name, "dense", marks=[] if name in FIRST else pytest.mark.slow) for name in METHODS),
        *(pytest.param(name, "conv", marks=pytest.mark.slow) for name in FIRST),
    ],
)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


# --- one step --------------------------------------------------------------------------------------------------------


@every_kind
@every_method
def test_a_step_returns_the_state_that_it_was_given(name, kind):
    algo, batch = make_algo(name, kind), make_batch(name, kind)
    state = jax.eval_shape(lambda: algo.init(fresh(name, kind)))
    after, metrics = jax.eval_shape(algo.step, state, batch, KEY)
    kinds = lambda tree: jax.tree.map(lambda v: (v.shape, v.dtype, v.weak_type), tree)  # what a trace is for
    assert kinds(after) == kinds(state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())
    assert {f"{player}/loss" for player in state.opt_states} <= set(metrics)


@every_trait
def test_three_calls_trace_once(name):
    state, before = initial(name), TRACES.count((name, "dense"))
    for _ in range(3):
        state, _ = jitted_step(name)(state, make_batch(name), KEY)
    assert TRACES.count((name, "dense")) - before <= 1  # 0 where another test has called it


@representative
def test_jit_equals_eager(name):
    state, batch = initial(name), make_batch(name)
    assert_close(jitted_step(name)(state, batch, KEY), make_algo(name).step(state, batch, KEY))


@every_trait_of_conv
def test_noise_comes_from_the_key_and_from_nowhere_else(name, kind):
    step, state, batch = jitted_step(name, kind), initial(name, kind), make_batch(name, kind)
    first = step(state, batch, KEY)
    assert_same_bits(step(state, batch, KEY), first)
    assert differs(step(state, batch, jax.random.key(1)), first) == (not METHODS[name].noise_free)


@every_method
def test_no_key_is_used_twice(name):
    """Found by tracing alone; the keys of the loop are looked at in `test_training`."""
    algo, whole = make_algo(name), make_data(name)
    state = jax.eval_shape(algo.init, make_params(name))
    rows = jax.tree.map(jnp.arange, batch_size(name))
    with jax.debug_key_reuse(True):
        jax.eval_shape(jax.jit(lambda *args: algo.step(*args)), state, make_batch(name), KEY)
        jax.eval_shape(partial(training._evaluate_rows, algo), state, whole, rows, KEY)


def test_a_key_that_is_used_twice_is_found():
    def loss(params, batch, key):
        return params["w"] * jax.random.normal(key) + jax.random.uniform(key), {}

    algo = play({"p": Player(jax.jit(loss), ("w",), optax.sgd(0.1))}, [["p"]])
    state, rows = jax.eval_shape(algo.init, {"w": jnp.zeros(())}), jnp.arange(2)
    with jax.debug_key_reuse(True):
        with pytest.raises(jax.errors.KeyReuseError):
            jax.eval_shape(jax.jit(lambda *args: algo.step(*args)), state, rows, KEY)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.eval_shape(partial(training._evaluate_rows, algo), state, rows, rows, KEY)


def test_what_is_close_is_so_by_its_own_size_and_a_difference_by_that_of_its_player():
    expected = ({}, {"elbo/bound_nats": 50.0, "elbo/kl_nats": 5e-3, "elbo/total_correlation_nats": 5e-3})
    moved = lambda name, by: (expected[0], {**expected[1], name: expected[1][name] + by})
    assert_close(moved("elbo/total_correlation_nats", 4e-6), expected)
    for name, by in (("elbo/total_correlation_nats", 1e-5), ("elbo/kl_nats", 4e-6), ("elbo/bound_nats", 1e-3)):
        with pytest.raises(AssertionError, match=name):
            assert_close(moved(name, by), expected)


# --- batches ---------------------------------------------------------------------------------------------------------


@every_method
def test_a_method_says_which_of_its_losses_couple_examples(name):
    """In float64, at one noise; among the examples that replace are some that are black, and some white."""
    (players, _), algo, params, (x, y) = the_game(name), make_algo(name), make_params(name), digits(name, first=SIZE)
    examples = [digits(name), (x, y), (jnp.zeros_like(x), y), (jnp.ones_like(x), y)]
    batches = [make_batch(name, examples=each) for each in examples]
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda v: v.astype(float) if v.dtype.kind == "f" else v, tree)
        state, (batch, *others) = algo.init(wide(params)), map(wide, batches)
        evaluate = jax.jit(lambda batch: algo.evaluate(state, batch, KEY))
        found, one, other = second_differences(evaluate, batch, others), evaluate(batch), evaluate(others[-1])
    for player, entry in players.items():
        own = {term: value for term, value in found.items() if term.startswith(f"{player}/")}
        if all(one[term] == other[term] for term in own):
            continue  # of generated examples alone, whatever the batch
        # Of a rule only metrics are at stake; the absolute value of a mean couples only where that changes sign.
        assert entry.coupled or not is_coupled(own), (player, own)
        assert is_coupled(own) or not entry.coupled or isinstance(entry, Rule), (player, own)


@every_trait
def test_an_evaluation_does_not_depend_on_its_batches(name):
    """Exactly, or where the key is used within the error of Monte Carlo; between two kinds of keys for `FIRST`."""
    algo, state, whole = make_algo(name), initial(name), make_data(name)
    if algo.coupled:
        return  # its results are those of batches of that size

    def evaluations(size, impl):
        draws = 1 if METHODS[name].noise_free else 30
        keys = (jax.random.key(seed, impl=impl) for seed in range(size, size + draws))
        runs = [training.evaluate(algo, state, whole, key, batch_size=batch_size(name, size)) for key in keys]
        return {term: np.array([run[term] for run in runs]) for term in runs[0]}

    small = evaluations(16, "rbg" if name in FIRST else "threefry2x32")
    large = evaluations(48, "threefry2x32")  # its last batch has 16
    for term in small:
        gap, spread = small[term].mean() - large[term].mean(), small[term].var() + large[term].var()
        assert abs(gap) <= 4 * np.sqrt(spread / len(small[term])) + 1e-5 * abs(large[term].mean()), term


# --- players ---------------------------------------------------------------------------------------------------------


@every_method
def test_each_player_alone_moves_its_groups_and_nothing_else(name):
    players, _ = the_game(name)
    params, batch = make_params(name), make_batch(name)
    for player in players:
        algo = play(players, [[player]])
        state, _ = jax.jit(algo.step)(algo.init(params), batch, KEY)
        moved = {group for group in params if differs(state.params[group], params[group])}
        assert moved == set(players[player].groups)


@every_method
def test_order_matters_between_phases_and_not_within_one(name):
    players, phases = the_game(name)
    state, batch = initial(name), make_batch(name)

    def played(phases):
        return jax.jit(play(players, phases).step)(state, batch, KEY)

    if any(len(phase.players) > 1 for phase in phases):
        turned = [phase._replace(players=phase.players[::-1]) for phase in phases]
        assert_close(played(turned), played(phases))
    for a, b in zip(phases[-2:-1], phases[-1:], strict=False):  # the last two phases, such as disc and gen
        groups = [{group for player in phase.players for group in players[player].groups} for phase in (a, b)]
        if groups[0] & groups[1] or a.times > 1 or b.times > 1:
            continue
        together = played([Phase(a.players + b.players)])
        assert_close(played([Phase(b.players + a.players)]), together)
        assert differs(played([a, b])[0].params, together[0].params)


# --- many runs at once -----------------------------------------------------------------------------------------------


@representative
def test_a_lane_of_seeds_and_hyper_parameters_is_the_single_run(name):
    """Lanes for two further seeds, and one for each knob, traced; each knob has an effect, but for the inert."""
    stacked, keys, settings = lanes_of(name)
    swept = jax.jit(jax.vmap(partial(run, name), (0, 0, None, None)))(
        stacked, keys, make_params(name), make_batch(name)
    )
    lanes = [jax.tree.map(lambda v, i=i: v[i], swept) for i in range(len(keys))]
    for lane, hparams, key in zip(lanes, settings, keys, strict=True):
        assert_close(lane, single_run(name)(hparams, key, make_params(name), make_batch(name)))
    for field, lane in zip(knobs(name)._fields, lanes[3:], strict=True):
        assert differs(lane, lanes[0]) == (field not in METHODS[name].inert), field


@every_trait
def test_every_knob_is_swept(name):
    stacked, keys, _ = lanes_of(name)
    lanes = jax.vmap(partial(run, name), (0, 0, None, None))
    params, _ = jax.eval_shape(lanes, stacked, keys, make_params(name), make_batch(name))
    assert jax.tree.map(lambda v: v.shape[1:], params) == jax.tree.map(jnp.shape, make_params(name))


def lanes_of(name):
    """The default three times, and once with each knob halved, stacked; as many keys; and the settings."""
    default = knobs(name)
    assert all(value > 0 for value in default)
    settings = [default] * 3 + [default._replace(**{field: 0.5 * v}) for field, v in default._asdict().items()]
    keys = jnp.stack([KEY, *jax.random.split(KEY)] + [KEY] * len(default))
    return jax.tree.map(lambda *values: jnp.array(values), *settings), keys, settings


@representative
def test_every_schedule_of_the_rate_sweeps(name):
    peaks, batch, params = jnp.array([1e-2, 3e-2]), make_batch(name), make_params(name)  # made outside of any trace

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
    constant, _ = single_run(name)(knobs(name)._replace(lr=3e-2), KEY, params, batch)  # three steps of it
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(swept))
    assert differs(lanes["constant"], constant)
    for key in set(schedules.SCHEDULES) - {"constant"}:
        assert differs(lanes[key], lanes["constant"]), key


@representative
def test_every_schedule_of_a_weight_sweeps(name):
    """Two lanes of each kind, against steps whose knobs are numbers, those that the schedules have at that step."""
    default, batch, params = knobs(name), make_batch(name), make_params(name)
    fields = [f for f in default._fields if not f.endswith("lr") and f not in METHODS[name].inert]
    if not fields:
        return

    def scheduled(kind, scale):  # every knob falls from a share of its default to half of that
        ends = {field: scale * getattr(default, field) for field in fields}
        return default._replace(**{field: kind(end, 0.5 * end, 2.0) for field, end in ends.items()})

    @jax.jit
    def sweep(scales):
        lane = lambda kind, scale: run(name, scheduled(kind, scale), KEY, params, batch)[0]
        return [jax.vmap(partial(lane, kind))(scales) for kind in schedules.WEIGHTS]

    @jax.jit
    def step(hparams, state):
        return METHODS[name].build(make_model(name), hparams, optax.sgd).step(state, batch, KEY)

    scales = jnp.array([0.5, 1.0])
    for kind, swept in zip(schedules.WEIGHTS, sweep(scales), strict=True):
        for i, scale in enumerate(scales):
            state, hparams = initial(name), scheduled(kind, scale)
            for k in range(3):
                state, _ = step(hparams._replace(**{f: getattr(hparams, f)(k) for f in fields}), state)
            assert_close(jax.tree.map(lambda v, i=i: v[i], swept), state.params)


# --- the loop --------------------------------------------------------------------------------------------------------


def trained_algo(name, kind="dense"):
    return METHODS[name].build(make_model(name, kind), knobs(name))  # Adam


def trained(algo, name, state, num_epochs, kind="dense", **options):
    """The last state, and the metrics of every step, `[steps]`."""
    sizes = {"batch_size": batch_size(name), "num_epochs": num_epochs}
    chunks = list(training.train(algo, state, make_data(name, kind), KEY, **sizes, **options))
    return chunks[-1].state, jax.tree.map(lambda *parts: np.concatenate(parts), *(c.metrics for c in chunks))


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.skipif(not os.environ.get("AEJAX_TEST_OPTIMISED"), reason="AEJAX_TEST_OPTIMISED=1: else a bit may differ")
@representative
def test_chunks_and_scan_and_a_loop_of_jitted_steps_are_the_same_bit_for_bit(name):
    algo, whole, size = trained_algo(name), make_data(name), batch_size(name)
    state = algo.init(make_params(name))
    by_chunks, chunk_metrics = trained(algo, name, state, 3)

    fit = jax.jit(partial(training.fit, algo, batch_size=size, num_epochs=3))
    by_scan, scan_metrics = fit(state, whole, KEY)
    assert_same_bits(by_scan, by_chunks)
    assert_same_bits(jax.tree.map(lambda v: v.reshape(-1), scan_metrics), chunk_metrics)

    data_key, step_key = jax.random.split(KEY)
    step, metrics = jax.jit(algo.step), []
    refresh = jax.jit(partial(algorithm.refresh, algo), static_argnums=0)
    for epoch in range(3):
        order = epoch_order(data_key, epoch, streams(whole, size))
        for i in range(streams(whole, size).steps_per_epoch):
            for j, each in enumerate(algo.refreshes):
                state = refresh(j, state, whole, step_key) if len(metrics) % each.every == 0 else state
            batch = take(whole, jax.tree.map(lambda rows, i=i: rows[i], order))
            state, values = step(state, batch, step_key)
            metrics.append(values)
    assert_same_bits(state, by_chunks)
    assert_same_bits(jax.tree.map(lambda *values: np.stack(values), *metrics), chunk_metrics)


@every_trait
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name):
    algo = trained_algo(name)
    whole, metrics = trained(algo, name, algo.init(make_params(name)), 3)
    sizes = {"batch_size": batch_size(name), "num_epochs": 3}
    chunks = training.train(algo, algo.init(make_params(name)), make_data(name), KEY, **sizes)
    half = next(chunk.state for chunk in chunks if chunk.step == 2)  # the second chunk ends in the middle of an epoch
    saved = jax.tree.map(np.asarray, half)  # what a checkpoint holds
    resumed, rest = trained(algo, name, saved, 3)
    assert_same_bits(resumed, whole)
    assert_same_bits(rest, jax.tree.map(lambda v: v[2:], metrics))


@every_trait_of_conv
def test_it_learns_more_than_the_mean_image(name, kind):
    algo, model, examples = trained_algo(name, kind), make_model(name, kind), digits(name, kind)
    state, metrics = trained(algo, name, algo.init(make_params(name, kind)), 100, kind)
    assert all(np.isfinite(values).all() for values in metrics.values())
    x_hat = model.apply({"params": state.params}, *inputs(model, examples), method="reconstruct")
    of_the_mean_image = jnp.sum((examples.x - examples.x.mean(0, keepdims=True)) ** 2)
    coding = [player for player, entry in the_game(name)[0].items() if set(entry.groups) & {"encoder", "encoder_0"}]
    if coding == ["gen"]:  # codes come of a game alone, in which no loss has to fall
        return
    looked_at = {term.partition("/")[0] for term in metrics if term.endswith("sse")}
    if looked_at and not looked_at & set(coding):  # the decoder has no say, and codes are made for something else
        losses = metrics[f"{coding[0]}/loss"]
        assert losses[-1] < losses[0]
        return
    assert jnp.sum((x_hat - examples.x) ** 2) < 0.9 * of_the_mean_image


# --- several devices -------------------------------------------------------------------------------------------------


@representative
def test_eight_devices_under_jit_are_one_device_noise_included(name):
    algo, state = make_algo(name), initial(name)
    assert_close(trained(algo, name, state, 1, devices=DEVICES), trained(algo, name, state, 1))


def averaged_over_shards(name):
    """The game on one device whose losses are the means over as many shards, each with noise of its own."""
    players, phases = the_game(name, axis_name=parallel.AXIS)

    def over_shards(function):
        def mapped(params, batch, key, **knobs):
            shards = jax.tree.map(lambda v: v.reshape(DEVICES, -1, *v.shape[1:]), batch)
            one = lambda shard, i: function(params, shard, jax.random.fold_in(key, i), **knobs)
            return jax.vmap(one, axis_name=parallel.AXIS)(shards, jnp.arange(DEVICES))

        return mapped

    def mean(function):
        return lambda *args, **knobs: jax.tree.map(lambda v: v.mean(axis=0), over_shards(function)(*args, **knobs))

    def sums(measure):
        def of(*args, **knobs):
            added, terms = over_shards(measure)(*args, **knobs)
            return jax.tree.map(lambda v: v.sum(axis=0), added), jax.tree.map(lambda v: v.mean(axis=0), terms)

        return of

    def whole(entry):
        if isinstance(entry, Rule):
            return entry._replace(measure=sums(entry.measure))
        return entry._replace(loss=mean(entry.loss))

    return play({player: whole(entry) for player, entry in players.items()}, phases)


@pytest.mark.parametrize("name", _sooner([name for name in METHODS if name in FIRST or reduces(name)], FIRST))
def test_pmap_and_shard_map_loops_are_one_device(name):
    """Noise-free methods against the method itself; noisy ones, and metrics of rules, against the mean over shards.

    Both ways map one step; by the second those methods go that stand for the others. What reduces over devices itself
    is asked of each method that does it; the gradients of the others are averaged by `play`, whatever the method.
    """
    state, itself = initial(name), METHODS[name].noise_free
    rules = [player for player, entry in the_game(name)[0].items() if isinstance(entry, Rule)]
    after, metrics = trained(make_algo(name) if itself else averaged_over_shards(name), name, state, 1)
    if itself and rules:
        of_shards = trained(averaged_over_shards(name), name, state, 1)[1]
        metrics |= {term: value for term, value in of_shards.items() if term.partition("/")[0] in rules}
    mapped = make_algo(name, axis_name=parallel.AXIS)
    for way in ("pmap", "shard_map") if name in FIRST else ("pmap",):
        assert_close(trained(mapped, name, state, 1, parallel=way, devices=DEVICES), (after, metrics))
