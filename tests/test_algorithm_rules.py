"""Games beyond players and phases, followed by hand: nested transforms, rules, and phases on parts of the batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import KEY, last, pull, still

from aejax import parallel, training
from aejax.algorithm import Phase, Player, Rule, play, transform_batch
from aejax.checks import InputError
from aejax.data import Batch, binarize
from aejax.schedules import Ramp
from aejax.sweep import sweep

DEVICES = min(8, jax.device_count())


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile()


# --- transforms -------------------------------------------------------------------------------------------------------


def add_noise(key, x):
    return x + jax.random.normal(key, x.shape)


def seeing(measure):
    return play({"p": Player(lambda w, b, k: (still(w, b, k)[0], measure(b)), ("w",), optax.sgd(1.0))}, [["p"]])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_nested_transforms_draw_noise_of_their_own(layers):
    algo, x = seeing(lambda x: {"std": x.std(), "mean": x.mean()}), jnp.zeros(100_000)
    for _ in range(layers):
        algo = transform_batch(algo, add_noise)
    state = algo.init({"w": jnp.ones(())})
    for terms in (jax.jit(algo.step)(state, x, KEY)[1], algo.evaluate(state, x, KEY)):
        # The deviation of n draws is off by its own root / (2 n), here 0.0022 of it.
        assert float(terms["p/std"]) == pytest.approx(layers**0.5, rel=5 * 0.0023)


def test_binarising_and_then_hiding_half_leaves_a_quarter():
    hide = lambda key, b: b._replace(x=jnp.where(jax.random.uniform(key, b.x.shape) < 0.5, 0.0, b.x))
    algo = transform_batch(transform_batch(seeing(lambda b: {"on": b.x.mean()}), hide), binarize)
    terms = algo.step(algo.init({"w": jnp.ones(())}), Batch(jnp.full((1000, 100), 0.5)), KEY)[1]
    assert float(terms["p/on"]) == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 1e5) ** 0.5)


def test_the_innermost_layer_draws_what_it_draws_alone():
    algo = seeing(lambda x: {"x": x[0]})
    once, state = transform_batch(algo, add_noise), algo.init({"w": jnp.ones(())})
    under = transform_batch(once, lambda key, x: x)
    assert float(under.step(state, jnp.zeros(1), KEY)[1]["p/x"]) == float(once.step(state, jnp.zeros(1), KEY)[1]["p/x"])
    over = transform_batch(transform_batch(algo, lambda key, x: x), add_noise)
    assert float(over.step(state, jnp.zeros(1), KEY)[1]["p/x"]) != float(once.step(state, jnp.zeros(1), KEY)[1]["p/x"])


def noisy_game(rate=0.5):
    algo = play({"p": Player(pull, ("w",), optax.sgd(rate))}, [["p"]])
    return transform_batch(transform_batch(algo, add_noise), add_noise)


@pytest.mark.slow
def test_nested_transforms_are_the_same_resumed_swept_and_on_eight_devices():
    algo, data, params = noisy_game(), np.arange(32.0, dtype=np.float32), {"w": jnp.ones(())}
    whole = last(algo, params, data)
    half = jax.tree.map(np.asarray, last(algo, params, data, num_epochs=1))
    resumed = list(training.train(algo, half, data, KEY, batch_size=8, num_epochs=3))[-1].state
    np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])
    many = last(algo, params, data, devices=DEVICES)
    np.testing.assert_allclose(many.params["w"], whole.params["w"], rtol=1e-5)

    class Rate(NamedTuple):
        rate: Any = 0.5

    for strategy in ("vmap", "sequential"):
        result = sweep(
            lambda h: noisy_game(h.rate), lambda key: params, data,
            hparams=Rate(np.array([0.1, 0.5])), seeds=[3], batch_size=8, num_epochs=2, strategy=strategy,
        )  # fmt: skip
        key = jax.random.split(jax.random.key(3), 3)[1]
        alone = list(training.train(algo, algo.init(params), data, key, batch_size=8, num_epochs=2))[-1].state
        np.testing.assert_allclose(result.state(1, 0).params["w"], alone.params["w"], rtol=1e-5)


# --- rules ------------------------------------------------------------------------------------------------------------


def running_mean(decay=0.75):
    """An exponential moving average of the batch's mean, a ratio of sums, that reports what it sees."""

    def measure(params, batch, key):
        return (batch.sum(), jnp.float32(batch.shape[0])), {"mean": batch.mean()}

    def update(params, sums, key):
        return {"ema": decay * params["ema"] + (1 - decay) * sums[0] / sums[1]}

    return Rule(measure, update, ("ema",), coupled=False)


def averaged(axis_name=None):
    players = {"p": Player(pull, ("w",), optax.sgd(0.5)), "ema": running_mean()}
    return play(players, [["p", "ema"]], axis_name=axis_name)


START = {"w": jnp.ones(()), "ema": jnp.float32(8.0)}


def test_a_rule_moves_its_groups_by_hand():
    algo = averaged()
    state, terms = algo.step(algo.init(START), jnp.array([2.0, 4.0]), KEY)
    assert float(state.params["ema"]) == 0.75 * 8 + 0.25 * 3
    assert float(terms["ema/mean"]) == 3.0
    assert set(state.opt_states) == {"p"}
    found = training.evaluate(algo, state, np.array([2.0, 4.0, 9.0], np.float32), KEY, batch_size=2)
    assert found["ema/mean"] == pytest.approx(5.0)
    assert not algo.coupled


@pytest.mark.first(2)
@pytest.mark.parametrize("way", ["jit", "pmap", "shard_map"])
@pytest.mark.parametrize("devices", [2, 8])
def test_a_ratio_of_sums_is_the_same_on_several_devices(way, devices):
    if devices > jax.device_count():
        pytest.skip("fewer devices")
    data = np.arange(48.0, dtype=np.float32) ** 2
    one = last(averaged(), START, data)
    algo = averaged(None if way == "jit" else parallel.AXIS)
    several = last(algo, START, data, parallel=way, devices=devices)
    np.testing.assert_allclose(several.params["ema"], one.params["ema"], rtol=1e-6)


def test_the_key_of_an_update_is_the_same_on_every_device_and_new_at_every_step():
    def update(params, sums, key):
        return {"ema": jax.random.normal(key)}

    def game(axis_name):
        players = {
            "p": Player(pull, ("w",), optax.sgd(0.5)),
            "r": Rule(lambda p, b, k: (jax.random.normal(k), {"noise": jax.random.normal(k)}), update, ("ema",)),
        }
        return play(players, [["p", "r"]], axis_name=axis_name)

    data = np.zeros(8, np.float32)
    one = [float(last(game(None), START, data, num_epochs=n).params["ema"]) for n in (1, 2)]
    shards = [
        float(last(game(parallel.AXIS), START, data, num_epochs=n, parallel="shard_map", devices=DEVICES).params["ema"])
        for n in (1, 2)
    ]
    assert one == shards
    assert one[0] != one[1]


def test_rules_of_two_phases_have_keys_of_their_own():
    draw = lambda group: Rule(lambda p, b, k: ((), {}), lambda p, sums, k: {group: jax.random.normal(k)}, (group,))
    algo = play({"a": draw("w"), "b": draw("ema")}, [["a"], ["b"]])
    state, _ = algo.step(algo.init(START), jnp.zeros(2), KEY)
    assert float(state.params["w"]) != float(state.params["ema"])


def test_the_knobs_of_a_rule_have_their_value_in_a_step_and_their_final_one_in_an_evaluation():
    measure = lambda params, batch, key, *, share: ((), {"share": share})
    update = lambda params, sums, key, *, share: {"ema": share}
    algo = play({"r": Rule(measure, update, ("ema",), knobs={"share": Ramp(0.0, 1.0, 4)})}, [["r"]])
    state = algo.init(START)
    for step in range(3):
        state, terms = algo.step(state, jnp.zeros(2), KEY)
        assert float(terms["r/share"]) == float(state.params["ema"]) == step / 4
    assert float(algo.evaluate(state, jnp.zeros(2), KEY)["r/share"]) == 1.0


def test_a_rule_sees_the_parameters_of_before_the_phase_and_shares_its_forward_pass():
    kernels = {"w": jnp.full((64, 64), 0.1), "ema": jnp.zeros((64,))}
    forward = lambda params, x: jnp.tanh(jnp.tanh(x @ params["w"]) @ params["w"])
    loss = lambda params, x, key: (jnp.mean(forward(params, x) ** 2), {})
    rule = Rule(
        lambda params, x, key: (forward(params, x).sum(axis=0), {}), lambda p, sums, key: {"ema": sums}, ("ema",)
    )
    players = {"p": Player(loss, ("w",), optax.sgd(0.5)), "ema": rule}
    alone, both = play({"p": players["p"]}, [["p"]]), play(players, [["p", "ema"]])
    after = play(players, [["p"], ["ema"]])
    x = jnp.tile(jnp.linspace(-1, 1, 64), (32, 1))
    flops = {
        name: compiled(algo.step, algo.init(kernels), x, KEY).cost_analysis()["flops"]
        for name, algo in {"alone": alone, "both": both, "after": after}.items()
    }
    forward_flops = 2 * 2 * 32 * 64 * 64
    assert flops["both"] - flops["alone"] < 0.1 * forward_flops
    assert flops["after"] - flops["alone"] > 0.9 * forward_flops
    state, _ = both.step(both.init(kernels), x, KEY)
    np.testing.assert_allclose(state.params["ema"], forward(kernels, x).sum(axis=0), rtol=1e-5)


def test_a_rule_that_returns_other_groups_is_refused():
    rule = Rule(lambda p, b, k: ((), {}), lambda p, s, k: {"wema": jnp.zeros(())}, ("ema",))
    algo = play({"r": rule}, [["r"]])
    with pytest.raises(InputError, match=r"A rule returns \['wema'\]; its groups are \['ema'\]"):
        algo.step(algo.init(START), jnp.zeros(2), KEY)


# --- phases in parts --------------------------------------------------------------------------------------------------


def critic_game(times, loss=pull, tx=None, axis_name=None):
    players = {
        "critic": Player(loss, ("w",), tx or optax.sgd(0.5)),
        "gen": Player(lambda params, x, key: (params["v"] * x.sum(), {"x0": x[0]}), ("v",), optax.sgd(0.0)),
    }
    return play(players, [Phase(("critic",), times), ["gen"]], axis_name=axis_name)


BOTH = {"w": jnp.zeros(()), "v": jnp.ones(())}


def test_five_critic_steps_see_five_parts_and_the_rest_sees_the_last():
    algo, x = critic_game(5), jnp.arange(10.0)
    state, terms = jax.jit(algo.step)(algo.init(BOTH), x, KEY)
    w = 0.0
    for j in range(5):  # part j is rows j and j + 5; at rate 1/2 w goes half of the way to their mean
        w, before = (w + (j + 2.5)) / 2, w
    assert float(state.params["w"]) == w
    assert float(terms["critic/loss"]) == pytest.approx(0.5 * ((before - 4) ** 2 + (before - 9) ** 2) / 2)
    assert float(terms["gen/x0"]) == 4.0
    assert int(state.step) == 1


def test_each_part_has_noise_of_its_own():
    noise = lambda params, x, key: (params["w"] * jax.random.normal(key), {})
    algo = critic_game(3, noise, optax.sgd(1.0))
    state, _ = jax.jit(algo.step)(algo.init(BOTH), jnp.zeros(3), KEY)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0)
    draws = [float(jax.random.normal(jax.random.fold_in(key, j))) for j in range(3)]
    assert float(state.params["w"]) == pytest.approx(-sum(draws), rel=1e-6)
    assert len(set(draws)) == 3


def test_parts_are_one_trace_where_phases_written_out_are_five():
    traces = []

    def loss(params, x, key):
        traces.append(1)
        return pull(params, x, key)

    players = {"critic": Player(loss, ("w",), optax.sgd(0.5))}
    counts = []
    for phases in ([Phase(("critic",), 5)], [["critic"]] * 5):
        algo = play(players, phases)
        traces.clear()
        counts.append((compiled(algo.step, algo.init({"w": jnp.zeros(())}), jnp.arange(10.0), KEY), len(traces))[1])
    assert counts[1] == 5
    assert counts[0] <= 2  # one search for convolutions, one program


def test_a_convolution_of_lax_is_not_scanned_on_cpu():
    def loss(params, x, key):
        y = jax.lax.conv_general_dilated(x[:, None, None], params["w"] * jnp.ones((1, 1, 3)), (1,), "SAME")
        return jnp.mean(y), {}

    algo = critic_game(2, loss)
    text = str(jax.make_jaxpr(algo.step)(algo.init(BOTH), jnp.ones(4), KEY))
    assert ("scan[" in text) == (jax.default_backend() != "cpu")


def test_learning_rates_count_steps_of_the_game_and_adam_its_moves():
    tx = optax.chain(
        optax.scale_by_adam(), optax.scale_by_learning_rate(optax.piecewise_constant_schedule(1.0, {1: 0.0}))
    )
    algo = critic_game(2, lambda params, x, key: (params["w"], {}), tx)
    state, _ = algo.step(algo.init(BOTH), jnp.zeros(4), KEY)
    assert float(state.params["w"]) == pytest.approx(-2.0, rel=1e-5)  # both moves at the rate of step 0
    assert int(state.opt_states["critic"][0].count) == 2
    again, _ = algo.step(state, jnp.zeros(4), KEY)
    assert float(again.params["w"]) == float(state.params["w"])  # and both at that of step 1, zero


@pytest.mark.parametrize("way", ["jit", "shard_map", "pmap"])
def test_parts_lie_over_all_devices(way):
    """At rate 1/2 on means, with another order of rows within a part: each part is the same set of rows."""
    data = np.arange(64.0, dtype=np.float32) ** 1.5
    one = last(critic_game(4), BOTH, data, batch_size=32, num_epochs=2)
    algo = critic_game(4, axis_name=None if way == "jit" else parallel.AXIS)
    many = last(algo, BOTH, data, batch_size=32, num_epochs=2, parallel=way, devices=DEVICES)
    np.testing.assert_allclose(many.params["w"], one.params["w"], rtol=1e-5)


def test_phases_that_cannot_be_played_are_refused():
    algo = critic_game(5)
    with pytest.raises(InputError, match=r"batch of 7 \(on each device\) is not divided by 5.*5 or 10 would be"):
        algo.step(algo.init(BOTH), jnp.zeros(7), KEY)
    players = {"p": Player(pull, ("w",), optax.sgd(0.5))}
    with pytest.raises(InputError, match=r"played \[2, 3\] times"):
        play(players, [Phase(("p",), 2), Phase(("p",), 3)])
    with pytest.raises(InputError, match=r"played \[0\] times"):
        play(players, [Phase(("p",), 0)])
