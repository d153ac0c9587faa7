"""What changes while a game is played: knobs, optimisers that want the value, starts, refreshes; and refusals."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import KEY, last, pull, still

from aejax import parallel, schedules, training
from aejax.algorithm import Phase, Player, Refresh, play, transform_batch
from aejax.checks import InputError
from aejax.data import Batch, binarize
from aejax.methods.vae import VAE, vae
from aejax.sweep import sweep


def noisy_game(rate=0.5):
    algo = play({"p": Player(pull, ("w",), optax.sgd(rate))}, [["p"]])
    return transform_batch(algo, lambda key, x: x + jax.random.normal(key, x.shape))


START = {"w": jnp.ones(()), "ema": jnp.float32(8.0)}


# --- knobs ------------------------------------------------------------------------------------------------------------


def knobbed(weight):
    return play({"p": Player(pull, ("w",), optax.sgd(0.5), knobs={"weight": weight})}, [["p"]])


def test_a_knob_has_the_value_of_its_step_and_evaluation_the_final_one():
    algo = knobbed(schedules.Ramp(0.0, 2.0, 4))
    chunks = list(training.train(algo, algo.init(START), np.zeros(8, np.float32), KEY, batch_size=8, num_epochs=6))
    weights = np.concatenate([chunk.metrics["p/weight"] for chunk in chunks])
    np.testing.assert_array_equal(weights, [0.0, 0.5, 1.0, 1.5, 2.0, 2.0])
    w = np.prod([1 - 0.5 * weight for weight in weights])
    assert float(chunks[-1].state.params["w"]) == pytest.approx(w)
    assert training.evaluate(algo, algo.init(START), np.zeros(8, np.float32), KEY)["p/weight"] == 2.0


def test_a_longer_run_begins_as_the_shorter_one():
    algo, data = knobbed(schedules.Ramp(0.0, 2.0, 4)), np.zeros(8, np.float32)
    longer = list(training.train(algo, algo.init(START), data, KEY, batch_size=8, num_epochs=5, boundary=3))
    assert float(next(c for c in longer if c.step == 3).state.params["w"]) == float(
        last(algo, START, data, num_epochs=3).params["w"]
    )


@pytest.mark.parametrize("kind", schedules.WEIGHTS)
def test_a_schedule_goes_on_where_a_run_stopped(kind):
    """Of the seven weights of the whole run, those from the third on, as bits."""
    pace = 0.3 if kind is schedules.Decay else 4.0
    algo, data = knobbed(kind(2.0, 0.5, pace)), np.zeros(8, np.float32)
    chunks = list(training.train(algo, algo.init(START), data, KEY, batch_size=8, num_epochs=7, boundary=3))
    whole = np.concatenate([chunk.metrics["p/weight"] for chunk in chunks])
    saved = jax.tree.map(np.asarray, next(chunk.state for chunk in chunks if chunk.step == 3))
    rest = list(training.train(algo, saved, data, KEY, batch_size=8, num_epochs=7))
    np.testing.assert_array_equal(np.concatenate([chunk.metrics["p/weight"] for chunk in rest]), whole[3:])
    assert len(set(whole.tolist())) > 2


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", schedules.WEIGHTS)
def test_schedules_of_weights_are_swept(kind):
    class Knobs(NamedTuple):
        weight: Any

    settings = [Knobs(kind()), Knobs(kind()._replace(stop=0.25))]
    data = np.zeros(8, np.float32)
    result = sweep(
        lambda h: knobbed(h.weight), lambda key: START, data,
        hparams=settings, seeds=[0], batch_size=4, num_epochs=2, strategy="vmap",
    )  # fmt: skip
    for i, setting in enumerate(settings):
        w = np.prod([1 - 0.5 * float(setting.weight(step)) for step in range(4)])  # all data are zero
        np.testing.assert_allclose(result.state(i, 0).params["w"], w, rtol=1e-5)


# --- optimisers that want the value -----------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("way", ["jit", "shard_map", "pmap"])
def test_lbfgs_gets_value_gradient_and_function(way):
    """A quadratic of one number: the line search ends at its minimum, the mean of the data, within a few steps."""
    axis = None if way == "jit" else parallel.AXIS
    algo = play({"p": Player(pull, ("w",), optax.lbfgs())}, [["p"]], axis_name=axis)
    data = np.arange(8.0, dtype=np.float32)
    state = last(algo, {"w": jnp.zeros(())}, data, num_epochs=4, parallel=way, devices=1 if way == "jit" else 2)
    assert float(state.params["w"]) == pytest.approx(3.5, rel=1e-3)


def test_reduce_on_plateau_gets_the_value():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=1)
    flat = lambda params, x, key: (0.0 * params["w"] + 1.0, {})
    algo = play({"p": Player(flat, ("w",), optax.chain(optax.sgd(1.0), plateau))}, [["p"]])
    state = last(algo, {"w": jnp.ones(())}, np.zeros(8, np.float32), num_epochs=6)
    assert float(state.opt_states["p"][1].scale) < 0.5


# --- starts and refreshes ---------------------------------------------------------------------------------------------


def refreshed(every=3):
    """w goes half of the way to a target, which every few steps becomes the mean of all data plus w, and a draw."""
    loss = lambda params, x, key: (0.5 * (params["w"] - jax.lax.stop_gradient(params["target"])) ** 2, {})

    def update(params, data, key):
        return {"target": data.mean() + params["w"] + jax.random.normal(key)}

    def start(params, data, key):
        return {**params, "w": data.max()}

    return play(
        {"p": Player(loss, ("w",), optax.sgd(0.5))},
        [["p"]],
        start=start,
        refreshes=[Refresh(update, ("target",), every)],
    )


DATA = np.array([1.0, 2.0, 3.0, 6.0], np.float32)
TARGET = {"w": jnp.zeros(()), "target": jnp.zeros(())}


def by_hand(num_steps, step_key, every=3):
    w, target = 6.0, 0.0
    for step in range(num_steps):
        if step % every == 0:
            key = jax.random.fold_in(jax.random.fold_in(step_key, step), 2**30 + 2**29)
            target = 3.0 + w + float(jax.random.normal(key))
        w = (w + target) / 2
    return w


def test_a_start_and_refreshes_by_hand_in_train_fit_and_sweep_and_resumed():
    algo, step_key = refreshed(), jax.random.split(KEY)[1]
    params = algo.start(TARGET, DATA, KEY)
    assert float(params["w"]) == 6.0
    whole = last(algo, params, DATA, batch_size=2, num_epochs=5)  # 10 steps
    assert float(whole.params["w"]) == pytest.approx(by_hand(10, step_key), rel=1e-5)

    fitted, _ = jax.jit(partial(training.fit, algo, batch_size=2, num_epochs=5))(
        algo.init(params), jnp.asarray(DATA), KEY
    )
    np.testing.assert_allclose(fitted.params["w"], whole.params["w"], rtol=1e-6)

    for stop in (1, 2, 3, 4, 6):  # before, at and behind a refresh
        chunks = training.train(algo, algo.init(params), DATA, KEY, batch_size=2, num_epochs=5, boundary=stop)
        half = jax.tree.map(np.asarray, next(chunk.state for chunk in chunks if chunk.step == stop))
        resumed = list(training.train(algo, half, DATA, KEY, batch_size=2, num_epochs=5))[-1].state
        np.testing.assert_array_equal(resumed.params["w"], whole.params["w"])

    class Nothing(NamedTuple):
        lr: float = 0.5

    for strategy in ("vmap", "sequential"):
        result = sweep(
            lambda h: refreshed(), lambda key: TARGET, DATA,
            hparams=Nothing(), seeds=[0, 1], batch_size=2, num_epochs=5, strategy=strategy,
        )  # fmt: skip
        for i in range(2):
            train_key = jax.random.split(jax.random.key(i), 3)[1]
            expected = by_hand(10, jax.random.split(train_key)[1])
            assert float(result.state(0, i).params["w"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("way", ["jit", "shard_map", "pmap"])
def test_refreshes_on_several_devices(way):
    params, one = {"w": jnp.float32(6.0), "target": jnp.zeros(())}, refreshed()
    algo = one if way == "jit" else one._replace(axis_name=parallel.AXIS)
    expected = last(one, params, DATA, batch_size=2, num_epochs=3)
    found = last(algo, params, DATA, batch_size=2, num_epochs=3, parallel=way, devices=2)
    np.testing.assert_allclose(found.params["w"], expected.params["w"], rtol=1e-6)


def test_starts_and_refreshes_see_transformed_data():
    algo = transform_batch(refreshed(), lambda key, x: 10 * x)
    assert float(algo.start(TARGET, DATA, KEY)["w"]) == 60.0
    new = algo.refreshes[0].update(TARGET, DATA, KEY)["target"]
    assert float(new) == pytest.approx(30.0 + float(jax.random.normal(KEY)), rel=1e-6)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_a_loss_returns_is_checked():
    def step(loss, groups=("w",), tx=None):
        algo = play({"p": Player(loss, groups, tx or optax.sgd(1.0))}, [["p"]])
        return algo.step(algo.init({"w": jnp.ones(2)}), jnp.zeros(8), KEY)

    with pytest.raises(InputError, match=r"p/each has shape \(8,\); metrics are scalars: take its mean"):
        step(lambda p, b, k: (p["w"].sum(), {"each": b}))
    with pytest.raises(InputError, match=r"p/loss has shape \(2,\)"):
        step(lambda p, b, k: (p["w"], {}))
    with pytest.raises(InputError, match=r"The loss of 'p' returns a .*; wanted is \(scalar, metrics\)"):
        step(lambda p, b, k: p["w"].sum())
    with pytest.raises(InputError, match="moves no group"):
        step(still, groups=())
    with pytest.raises(InputError, match=r"has tx='adam'; an optimiser is wanted, such as optax.adam\(1e-3\)"):
        step(still, tx=optax.adam)
    algo = noisy_game()
    with pytest.raises(InputError, match="came inside"):
        algo.init({"params": {"w": jnp.ones(())}})
    with pytest.raises(InputError, match=r"params have \[\]"):
        algo.init({})
    with pytest.raises(InputError, match=r"The state is a dict without step and params; use algo.init\(params\)"):
        training.train(algo, {"w": jnp.ones(())}, np.zeros(8, np.float32), KEY, batch_size=2, num_epochs=1)
    begin = lambda algo, **options: training.train(
        algo, algo.init({"w": jnp.ones(())}), np.zeros(8, np.float32), KEY, batch_size=2, num_epochs=1, **options
    )
    begin(algo)
    players, mapped = {"p": Player(still, ("w",), optax.sgd(1.0))}, {"axis_name": "devices"}
    for way, wrong, right in (("jit", mapped, {}), ("pmap", {}, mapped), ("shard_map", {}, mapped)):
        with pytest.raises(InputError, match=r"built with no axis_name|built with axis_name='devices'"):
            begin(play(players, [["p"]], **wrong), parallel=way)
        begin(play(players, [["p"]], **right), parallel=way)


def test_train_evaluate_and_sweep_ask_the_algorithm_about_the_data():
    def check(data):
        if data.max() > 1:
            raise InputError("too large")

    algo = play({"p": Player(pull, ("w",), optax.sgd(0.5))}, [["p"]], check=check)
    state, bad = algo.init(START), np.full(8, 2.0, np.float32)
    with pytest.raises(InputError, match="too large"):
        training.train(algo, state, bad, KEY, batch_size=2, num_epochs=1)
    with pytest.raises(InputError, match="too large"):
        training.evaluate(algo, state, bad, KEY)
    with pytest.raises(InputError, match="too large"):
        sweep(lambda h: algo, lambda key: START, bad, hparams=schedules.Ramp(), seeds=[0], batch_size=2, num_epochs=1)
    halved = transform_batch(algo, lambda key, x: x / 2)
    training.evaluate(halved, state, bad, KEY)  # what the method sees is in range


def test_a_transform_does_not_hide_the_data_from_the_check():
    """A number in the last of 5,001 rows is found behind it, and what is right passes."""
    algo = transform_batch(vae(VAE.dense(2, 1, hidden_dims=())), binarize)
    x = np.full((5001, 2), 0.5, np.float32)
    algo.check(Batch(x))
    for wrong in (255.0, np.nan):
        x[-1, 0] = wrong
        with pytest.raises(InputError, match="x holds"):
            algo.check(Batch(x))

    def few(data):
        if data.max() > 9:
            raise InputError("a label above 9")

    checked = play({"p": Player(still, ("w",), optax.sgd(1.0))}, [["p"]], check=few)
    labels = np.zeros(5001, np.float32)
    labels[-1] = 77
    with pytest.raises(InputError, match="a label above 9"):
        transform_batch(checked, lambda key, y: y).check(labels)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (schedules.Ramp(0.0, 1.0, 0), "beta.num_steps is 0"),
        (schedules.Cycle(period=-1), "beta.period is -1"),
        (schedules.Cycle(share=3), "beta.share is 3"),
        (schedules.Decay(rate=-1), "beta.rate is -1"),
        (schedules.Ramp(-1.0, 1.0), "beta is -1"),
    ],
)
def test_schedules_of_impossible_lengths_are_refused(weight, message):
    with pytest.raises(InputError, match=re.escape(message)):
        vae(VAE.dense(2, 1), beta=weight)


def test_games_that_cannot_be_are_refused():
    players = {"p": Player(still, ("w",), optax.sgd(1.0), knobs={"weight": optax.linear_schedule(0, 1, 2)})}
    with pytest.raises(InputError, match=r"The knobs \['weight'\] of 'p' are functions"):
        play(players, [["p"]])
    players = {"p": Player(still, ("w",), optax.sgd(1.0))}
    for every in (0, -1, 1.5):
        with pytest.raises(InputError, match="every="):
            play(players, [["p"]], refreshes=[Refresh(lambda p, d, k: {}, ("w",), every)])
    with pytest.raises(InputError, match="Phase 'p' is a string"):
        play(players, [Phase("p", 2)])


def test_a_transform_draws_apart_from_the_start_and_the_refreshes_that_see_it():
    """Each reports the draw of the transform and its own, from what would be one key."""
    both = lambda params, data, key: {**params, "target": data.sum() - jax.random.normal(key)}
    algo = play(
        {"p": Player(still, ("w",), optax.sgd(1.0))}, [["p"]], start=both,
        refreshes=[Refresh(lambda p, d, k: {"target": both(p, d, k)["target"]}, ("target",), 1)],
    )  # fmt: skip
    noisy = transform_batch(algo, lambda key, x: x + jax.random.normal(key))
    params, zero = {"w": jnp.ones(()), "target": jnp.zeros(())}, jnp.zeros(1)
    assert float(noisy.start(params, zero, KEY)["target"]) != 0.0
    assert float(noisy.refreshes[0].update(params, zero, KEY)["target"]) != 0.0


def test_two_refreshes_of_one_step_draw_apart():
    draw = lambda name: Refresh(lambda params, data, key: {name: jax.random.normal(key)}, (name,), 1)
    algo = play({"p": Player(still, ("w",), optax.sgd(0.0))}, [["p"]], refreshes=[draw("a"), draw("b")])
    state = last(algo, {"w": jnp.ones(()), "a": jnp.zeros(()), "b": jnp.zeros(())}, np.zeros(8, np.float32))
    assert float(state.params["a"]) != float(state.params["b"])
