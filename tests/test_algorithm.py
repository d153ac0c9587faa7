"""The rules of a game, on games small enough to be played on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import parallel
from aejax.algorithm import Player, play, transform_batch
from aejax.checks import InputError

KEY = jax.random.key(0)
AXIS = parallel.AXIS


def pull(a, b):
    """The loss whose gradient pulls group a to group b: with SGD at rate 1/2, a goes half the way."""

    def loss(params, batch, key):
        return 0.5 * (params[a] - params[b]) ** 2, {"gap": params[b] - params[a]}

    return loss


def tug(phases, tx=None):
    """`a` and `b` start at 0 and 8 and pull at each other."""
    players = {
        "a": Player(pull("a", "b"), ("a",), tx or optax.sgd(0.5)),
        "b": Player(pull("b", "a"), ("b",), optax.sgd(0.5)),
    }
    algo = play(players, phases)
    return algo, algo.init({"a": jnp.array(0.0), "b": jnp.array(8.0)})


def noisy(params, batch, key):
    """Reports the number that the key gives."""
    return 0.0 * params["a"], {"noise": jax.random.normal(key)}


def numbers(tree):
    return jax.tree.map(float, tree)


def on_devices(n, function):
    return jax.jit(jax.shard_map(function, mesh=parallel.make_mesh(n), in_specs=(), out_specs=jax.P()))()


def fit_mean(params, batch, key):
    """Gradient `w - mean(batch)`."""
    return 0.5 * jnp.mean((params["w"] - batch) ** 2), {}


# --- order of play ---------------------------------------------------------------------------------------------------


def test_one_step_of_one_player():
    algo = play({"fit": Player(fit_mean, ("w",), optax.sgd(0.5))}, [["fit"]])
    state, metrics = algo.step(algo.init({"w": jnp.array(3.0)}), jnp.array([0.0, 2.0]), KEY)
    assert numbers(metrics) == {"fit/loss": 2.5}  # (9 + 1) / 2 / 2, before the move
    assert float(state.params["w"]) == 2.0  # 3 - 0.5 (3 - 1)
    assert int(state.step) == 1


@pytest.mark.parametrize(
    ("phases", "a", "b"),
    [
        ([["a", "b"]], 4, 4),  # together: both see (0, 8)
        ([["b", "a"]], 4, 4),
        ([["a"], ["b"]], 4, 6),  # b sees a at 4
        ([["b"], ["a"]], 2, 4),  # a sees b at 4
        ([["a"], ["a"], ["b"]], 6, 7),  # a moves twice
    ],
)
def test_phases_run_in_order_and_players_of_a_phase_together(phases, a, b):
    algo, state = tug(phases)
    state, _ = algo.step(state, None, KEY)
    assert numbers(state.params) == {"a": a, "b": b}


def test_metrics_carry_the_name_of_the_player_and_what_it_saw():
    algo, state = tug([["a"], ["b"]])
    _, metrics = algo.step(state, None, KEY)
    assert numbers(metrics) == {"a/loss": 32, "a/gap": 8, "b/loss": 8, "b/gap": -4}


def test_a_term_named_loss_does_not_hide_the_loss():
    algo = play(
        {"p": Player(lambda params, x, key: (params["w"] * 1.0, {"loss": jnp.array(7.0)}), ("w",), optax.sgd(1.0))},
        [["p"]],
    )
    state = algo.init({"w": jnp.array(3.0)})
    assert float(algo.step(state, None, KEY)[1]["p/loss"]) == 3.0
    assert float(algo.evaluate(state, None, KEY)["p/loss"]) == 3.0


def test_two_optimisers_on_one_group_keep_their_own_momentum():
    def up(params, batch, key):
        return -params["a"], {}

    def down(params, batch, key):
        return 2.0 * params["a"], {}

    players = {"up": Player(up, ("a",), optax.sgd(1.0, momentum=0.5)), "down": Player(down, ("a",), optax.sgd(1.0))}
    algo = play(players, [["up"], ["down"]])
    state = algo.init({"a": jnp.array(0.0)})
    # up moves by 1, then 1 + 1/2, then 1 + 1/2 + 1/4; down by 2 each time, which the momentum of up never sees.
    for expected in (-1.0, -1.5, -1.75):
        state, _ = algo.step(state, None, KEY)
        assert float(state.params["a"]) == expected


def test_the_optimiser_sees_the_parameters():
    tx = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1.0))
    algo = play({"still": Player(lambda params, x, key: (0.0 * params["w"], {}), ("w",), tx)}, [["still"]])
    state, _ = algo.step(algo.init({"w": jnp.array(4.0)}), None, KEY)
    assert float(state.params["w"]) == 2.0


def test_a_player_leaves_the_groups_of_others_alone():
    def both(params, batch, key):
        return params["a"] + params["b"], {}

    algo = play({"p": Player(both, ("a",), optax.sgd(1.0))}, [["p"]])
    state, _ = algo.step(algo.init({"a": jnp.array(0.0), "b": jnp.array(5.0)}), None, KEY)
    assert numbers(state.params) == {"a": -1, "b": 5}


# --- noise -----------------------------------------------------------------------------------------------------------


def noise_game(axis_name=None):
    players = {name: Player(noisy, (group,), optax.sgd(1.0)) for name, group in [("p", "a"), ("q", "b"), ("r", "c")]}
    algo = play(players, [["p", "q"], ["r"]], axis_name=axis_name)
    return algo, algo.init({group: jnp.array(0.0) for group in "abc"})


def expected_noise(step, phase):
    return float(jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, step), phase)))


def test_noise_is_that_of_the_run_the_step_and_the_phase():
    algo, state = noise_game()
    for step in range(3):
        state, metrics = algo.step(state, None, KEY)
        assert float(metrics["p/noise"]) == float(metrics["q/noise"]) == expected_noise(step, 0)
        assert float(metrics["r/noise"]) == expected_noise(step, 1)


def test_evaluate_is_every_loss_at_fixed_parameters_with_the_noise_of_the_step():
    algo, state = noise_game()
    assert numbers(algo.evaluate(state, None, KEY)) == numbers(algo.step(state, None, KEY)[1])
    algo, state = tug([["a"], ["b"]])
    metrics = algo.evaluate(state, None, KEY)
    assert numbers(metrics) == {"a/loss": 32, "a/gap": 8, "b/loss": 32, "b/gap": -8}  # b sees a where it was


def test_a_player_outside_all_phases_is_evaluated_and_never_moves():
    players = {"a": Player(pull("a", "b"), ("a",), optax.sgd(0.5)), "b": Player(pull("b", "a"), ("b",), optax.sgd(0.5))}
    algo = play(players, [["a"]])
    state = algo.init({"a": jnp.array(0.0), "b": jnp.array(8.0)})
    assert float(algo.evaluate(state, None, KEY)["b/gap"]) == -8
    assert float(algo.step(state, None, KEY)[0].params["b"]) == 8


def test_shards_of_a_mapped_axis_draw_noise_of_their_own_and_report_the_mean():
    algo, state = noise_game(AXIS)
    metrics = on_devices(4, lambda: algo.step(state, None, KEY)[1])
    phase_key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 1)
    expected = np.mean([jax.random.normal(jax.random.fold_in(phase_key, shard)) for shard in range(4)])
    np.testing.assert_allclose(metrics["r/noise"], expected, rtol=1e-6)


def test_deliberate_sharing_of_noise_passes_the_key_checker():
    algo, state = noise_game()
    algo = transform_batch(algo, lambda key, batch: jax.random.normal(key))
    with jax.debug_key_reuse(True):
        jax.jit(algo.step)(state, None, KEY)
        jax.jit(algo.evaluate)(state, None, KEY)


# --- transform_batch -------------------------------------------------------------------------------------------------


def draw_game(axis_name=None):
    """Two phases whose players report the batch that they were given; the batch is drawn."""

    def report(params, batch, key):
        return 0.0 * params["a"], {"batch": batch, "noise": jax.random.normal(key)}

    players = {name: Player(report, ("a",), optax.sgd(1.0)) for name in "pq"}
    algo = transform_batch(
        play(players, [["p"], ["q"]], axis_name=axis_name), lambda key, x: x + jax.random.normal(key)
    )
    return algo, algo.init({"a": jnp.array(0.0)})


def test_a_transformed_batch_is_drawn_once_a_step_for_all_phases():
    algo, state = draw_game()
    assert algo.axis_name is None
    draws = []
    for _ in range(3):
        np.testing.assert_array_equal(
            algo.evaluate(state, 10.0, KEY)["q/batch"], algo.step(state, 10.0, KEY)[1]["q/batch"]
        )
        state, metrics = algo.step(state, 10.0, KEY)
        assert float(metrics["p/batch"]) == float(metrics["q/batch"])
        draws += [float(metrics["p/batch"]) - 10, float(metrics["p/noise"]), float(metrics["q/noise"])]
    assert len(set(np.round(draws, 4))) == 9  # anew at every step, and apart from the noise of every phase


def test_shards_of_a_mapped_axis_transform_their_parts_with_noise_of_their_own():
    algo, state = draw_game(AXIS)
    assert algo.axis_name == AXIS
    alone, shared = (on_devices(n, lambda: algo.step(state, jnp.zeros(()), KEY)[1]["p/batch"]) for n in (1, 4))
    assert abs(float(alone) - float(shared)) > 1e-3  # the mean of one draw against that of four


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_names_the_groups_that_params_lack():
    algo, _ = tug([["a"], ["b"]])
    with pytest.raises(InputError, match=r"players move \['b'\], which params lack; params have \['a', 'c'\]"):
        algo.init({"a": jnp.zeros(()), "c": jnp.zeros(())})


def test_warm_start_keeps_parameters_and_forgets_the_rest():
    algo, state = tug([["a"], ["b"]], tx=optax.sgd(0.5, momentum=0.9))
    old, _ = algo.step(state, None, KEY)
    tune = play({"tune": Player(pull("b", "a"), ("b",), optax.sgd(1.0))}, [["tune"]])
    new = tune.init(old.params)
    assert numbers(new.params) == {"a": 4, "b": 6}
    assert int(new.step) == 0
    assert set(new.opt_states) == {"tune"}
    assert float(tune.step(new, None, KEY)[0].params["b"]) == 4.0
    assert numbers(old.params) == {"a": 4, "b": 6}


def test_the_state_holds_arrays_only():
    algo, state = tug([["a"], ["b"]], tx=optax.adam(1e-3))
    state, _ = algo.step(state, None, KEY)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert not any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([["a"], ["c"]], r"Phase \['c'\] names unknown players \['c'\]; known: \['a', 'b', 'rival'\]"),
        ([["a", "rival"]], r"Phase \['a', 'rival'\] moves \['a'\] twice"),
        ([["a", "a"]], r"moves \['a'\] twice"),
        ([], "at least one player"),
        ([["a"], []], "a player in every phase"),
        (["a"], r"Phase 'a' is a string; write \['a'\]"),
    ],
)
def test_a_game_that_makes_no_sense_is_refused(phases, message):
    players = {
        "a": Player(pull("a", "b"), ("a",), optax.sgd(1.0)),
        "b": Player(pull("b", "a"), ("b",), optax.sgd(1.0)),
        "rival": Player(pull("a", "b"), ("a",), optax.sgd(1.0)),
    }
    with pytest.raises(InputError, match=message):
        play(players, phases)


def test_groups_given_as_one_string_are_refused():
    with pytest.raises(InputError, match=r"Player 'p' moves 'encoder', a string; write \('encoder',\)"):
        play({"p": Player(noisy, "encoder", optax.sgd(1.0))}, [["p"]])


# --- who compiles, and what it costs ---------------------------------------------------------------------------------


def test_the_step_is_not_jitted_inside():
    calls = []

    def loss(params, batch, key):
        calls.append(1)
        return params["w"] * 1.0, {}

    algo = play({"p": Player(loss, ("w",), optax.sgd(1.0))}, [["p"]])
    state = algo.init({"w": jnp.array(0.0)})
    for _ in range(3):
        state, _ = algo.step(state, None, KEY)
    assert len(calls) == 3


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_under_shard_map_are_those_of_one_device(check_vma):
    algo = play({"fit": Player(fit_mean, ("w",), optax.sgd(0.5))}, [["fit"]], axis_name=AXIS)
    specs = {"in_specs": (jax.P(), jax.P(AXIS), jax.P()), "out_specs": jax.P(), "check_vma": check_vma}
    step = jax.jit(jax.shard_map(algo.step, mesh=parallel.make_mesh(8), **specs))
    state, metrics = step(algo.init({"w": jnp.array(3.5)}), jnp.arange(8.0), KEY)
    assert float(state.params["w"]) == 3.5  # the mean of 0..7, where the gradient is zero
    assert float(metrics["fit/loss"]) == 2.625  # half their variance, 63 / 12 / 2
    state, _ = step(algo.init({"w": jnp.array(5.5)}), jnp.arange(8.0), KEY)
    assert float(state.params["w"]) == 4.5  # 5.5 - 0.5 (5.5 - 3.5), not eight times as far


def test_gradients_under_pmap_are_those_of_one_device():
    algo = play({"fit": Player(fit_mean, ("w",), optax.sgd(0.5))}, [["fit"]], axis_name=AXIS)
    step = jax.pmap(algo.step, AXIS, in_axes=(None, 0, None), out_axes=None)
    state, metrics = step(algo.init({"w": jnp.array(5.5)}), jnp.arange(8.0)[:, None], KEY)
    assert float(state.params["w"]) == 4.5
    assert float(metrics["fit/loss"]) == 4.625  # half of 63 / 12 + 2^2


def test_one_phase_costs_no_more_than_its_hand_fused_twin():
    """Two players that share a forward pass, against a step with one pass and two pullbacks."""
    sizes = {"gen": (32, 64), "disc": (64, 48)}
    params = {name: jnp.full(shape, 0.01) for name, shape in sizes.items()}
    x, lr = jnp.ones((16, 32)), 0.1

    def score(params, x):
        return jnp.tanh(jnp.tanh(x @ params["gen"]) @ params["disc"]).mean()

    players = {
        "gen": Player(lambda params, x, key: (score(params, x), {}), ("gen",), optax.sgd(lr)),
        "disc": Player(lambda params, x, key: (-score(params, x), {}), ("disc",), optax.sgd(lr)),
    }
    algo = play(players, [["gen", "disc"]])

    def fused(params, x):
        value, pull = jax.vjp(lambda params: score(params, x), params)
        (grads,) = pull(jnp.ones(()))
        return {"gen": params["gen"] - lr * grads["gen"], "disc": params["disc"] + lr * grads["disc"]}, value

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]

    played, by_hand = flops(algo.step, algo.init(params), x, KEY), flops(fused, params, x)
    forward = 2 * 16 * (32 * 64 + 64 * 48)
    assert by_hand > 2 * forward  # the forward pass and at least as much backward: the count is meaningful
    assert played <= by_hand * 1.01
