"""The loop on games that can be followed by hand: which examples, in which order, and whose arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import KEY, one_player

from aejax import parallel, training
from aejax.algorithm import Player, Refresh, Rule, play
from aejax.checks import DivergedError, InputError
from aejax.data import Batch
from aejax.data.streams import epoch_order, streams
from aejax.methods.ae import AE, ae
from aejax.nets import has_convolution, init_params

DATA_KEY, STEP_KEY = jax.random.split(KEY)


def report(params, batch, key):
    """A loss that moves nothing and reports the three examples of its batch, and its noise."""
    seen = {f"x{i}": batch[i] for i in range(batch.shape[0])}
    return 0.0 * params["w"], {**seen, "noise": jax.random.normal(key)}


def fit_mean(params, batch, key):
    return 0.5 * jnp.mean((params["w"] - batch) ** 2), {}


def run(algo, state, data, **options):
    return list(training.train(algo, state, data, KEY, **{"batch_size": 3, "num_epochs": 2} | options))


def joined(chunks):
    return jax.tree.map(lambda *parts: np.concatenate(parts), *(chunk.metrics for chunk in chunks))


@pytest.fixture(scope="module")
def dense(digits):
    """A small autoencoder, its parameters and data."""
    model, data = AE.dense(64, 2, hidden_dims=(8,)), Batch(digits[:40])
    return ae(model), init_params(model, KEY, data.x), data


# --- which examples ---------------------------------------------------------------------------------------------------


def test_epochs_visit_the_permutation_that_is_documented_and_drop_the_rest():
    algo, state = one_player(report)
    metrics = joined(run(algo, state, np.arange(10.0, dtype=np.float32)))
    seen = np.stack([metrics[f"p/x{i}"] for i in range(3)], axis=1)
    for epoch, batches in enumerate(np.split(seen, 2)):
        order = jax.random.permutation(jax.random.fold_in(DATA_KEY, epoch), 10)
        np.testing.assert_array_equal(batches, np.reshape(order[:9], (3, 3)))
    assert not np.array_equal(seen[:3], seen[3:])


def test_noise_is_that_of_the_run_and_the_step():
    algo, state = one_player(report)
    metrics = joined(run(algo, state, np.zeros(10, np.float32)))
    expected = [jax.random.normal(jax.random.fold_in(jax.random.fold_in(STEP_KEY, step), 0)) for step in range(6)]
    np.testing.assert_allclose(metrics["p/noise"], expected, rtol=1e-6)


def test_the_loop_uses_no_key_twice_and_consumes_the_one_that_it_is_given():
    refresh = Refresh(lambda params, data, key: {"w": params["w"] + jax.random.normal(key)}, ("w",), 2)
    algo, state = one_player(report, refreshes=[refresh])
    with jax.debug_key_reuse(True):
        for loop in (run, lambda *args: training.evaluate(*args, jax.random.key(4), batch_size=3)):
            loop(algo, state, np.zeros(9, np.float32))
        key = jax.random.key(3)
        sizes = {"batch_size": 3, "num_epochs": 1}
        training.train(algo, state, np.zeros(9, np.float32), key, **sizes)
        with pytest.raises(jax.errors.KeyReuseError):
            training.train(algo, state, np.zeros(9, np.float32), key, **sizes)


def test_a_run_by_hand():
    """Batches of the whole data, rate 1/2: w halves its distance to the mean, 4, at every step."""
    algo, state = one_player(fit_mean, lr=0.5)
    data = np.array([3.0, 4.0, 5.0], np.float32)
    chunks = run(algo, state, data, num_epochs=3)
    assert float(chunks[-1].state.params["w"]) == 4 - 3 / 8
    variance = 2 / 3
    np.testing.assert_allclose(joined(chunks)["p/loss"], [(d**2 + variance) / 2 for d in (3, 1.5, 0.75)], rtol=1e-6)
    state, metrics = training.fit(algo, state, data, KEY, batch_size=3, num_epochs=3)  # the same, as one function
    assert float(state.params["w"]) == 4 - 3 / 8
    np.testing.assert_allclose(metrics["p/loss"][:, 0], joined(chunks)["p/loss"], rtol=1e-6)


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_chunk_runs_past_the_boundary_and_no_number_depends_on_it(dense):
    algo, params, data = dense
    free = run(algo, algo.init(params), data, batch_size=4, num_epochs=3)
    assert free[-1].step == 30
    for boundary in (1, 7, 10):
        chunks = run(algo, algo.init(params), data, batch_size=4, num_epochs=3, boundary=boundary)
        assert {*range(boundary, 30, boundary), 30} <= {chunk.step for chunk in chunks}
        assert [len(chunk.metrics["recon/loss"]) for chunk in chunks] == np.diff(
            [0, *(c.step for c in chunks)]
        ).tolist()
        jax.tree.map(np.testing.assert_array_equal, joined(chunks), joined(free))
        jax.tree.map(np.testing.assert_array_equal, chunks[-1].state, free[-1].state)


def test_more_epochs_and_a_resumed_run_trace_nothing_new():
    traces = []

    def loss(params, batch, key):
        traces.append(1)
        return fit_mean(params, batch, key)

    algo, state = one_player(loss, lr=0.1)
    data = np.arange(10.0, dtype=np.float32)
    middle = run(algo, state, data, num_epochs=2)[-1]
    assert run(algo, middle.state, data, num_epochs=5)[-1].step == 15
    assert len(traces) == 1


def test_a_finished_run_yields_nothing_more():
    algo, state = one_player(fit_mean)
    data = np.arange(10.0, dtype=np.float32)
    done = run(algo, state, data)[-1].state
    assert run(algo, done, data) == []


# --- whose arrays -----------------------------------------------------------------------------------------------------


class LaxConv(nn.Module):
    """What a user brings: a convolution of `lax`."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Conv(2, (3, 3))(x)).reshape(x.shape[0], -1))


class ToImage(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.ConvTranspose(1, (3, 3))(nn.Dense(64)(z).reshape(-1, 8, 8, 1))


@pytest.fixture(scope="module")
def lax_conv(digits):
    model, data = AE(encoder=LaxConv(), decoder=ToImage(), latent_dim=2), Batch(digits[:40].reshape(-1, 8, 8, 1))
    return ae(model), init_params(model, KEY, data.x), data


@pytest.mark.first(1)
@pytest.mark.parametrize("which", ["dense", "lax_conv"])
def test_the_user_keeps_what_is_theirs(which, request):
    """Parameters, every yielded state, and the first stage of a warm start, read after all is done."""
    algo, params, data = request.getfixturevalue(which)
    copies = [jax.tree.map(np.array, params)]
    states, held = [params], algo.init(params)
    for chunk in training.train(algo, held, data, KEY, batch_size=4, num_epochs=1):
        states.append(chunk.state)
        copies.append(jax.tree.map(np.array, chunk.state))
    stage = algo.init(states[-1].params)
    run(algo, stage, data, batch_size=4)
    jax.tree.map(np.testing.assert_array_equal, states, copies)
    jax.tree.map(np.testing.assert_array_equal, held.params, copies[0])
    jax.tree.map(np.testing.assert_array_equal, stage.params, copies[-1].params)


@pytest.mark.parametrize("parallel_way", ["pmap", "shard_map"])
def test_the_user_keeps_what_is_theirs_on_several_devices(parallel_way):
    algo, state = one_player(fit_mean, lr=0.5, axis_name=parallel.AXIS)
    chunks = run(algo, state, np.arange(8.0, dtype=np.float32), batch_size=8, parallel=parallel_way, devices=8)
    assert [float(chunk.state.params["w"]) for chunk in chunks] == [2.25, 2.875]
    assert float(state.params["w"]) == 1.0


def test_whoever_writes_to_their_numpy_array_does_not_touch_the_run():
    algo, state = one_player(fit_mean, lr=0.5)
    memory = np.empty(100_016, np.float32)
    data = memory[-memory.ctypes.data % 64 // 4 :][:100_000]  # on a boundary of 64 bytes, where JAX would share it
    data[:] = 4.0
    chunks = training.train(algo, state, data, KEY, batch_size=100_000, num_epochs=2)
    next(chunks)
    data[:] = np.nan
    assert float(next(chunks).state.params["w"]) == 4 - 3 / 4


# --- convolutions -----------------------------------------------------------------------------------------------------


def conv(x):
    return jax.lax.conv_general_dilated(x, jnp.ones((1, 1, 3)), (1,), "SAME")


@jax.custom_vjp
def custom(x):
    return conv(x)


custom.defvjp(lambda x: (conv(x), None), lambda _, g: (g,))


def scanned(function):
    return lambda x: jax.lax.scan(lambda carry, _: (function(carry), None), x, length=2)[0]


def on_a_branch(function):
    return lambda x: jax.lax.cond(x.sum() > 0, lambda x: x, function, x)


HIDDEN = {
    "plain": conv,
    "linen": lambda x: nn.Conv(1, (3,)).init_with_output(KEY, x)[0],
    "jit": jax.jit(conv),
    "grad": jax.grad(lambda x: conv(x).sum()),
    "scan": scanned(conv),
    "remat": jax.checkpoint(conv),
    "custom_vjp": custom,
    "while": lambda x: jax.lax.while_loop(lambda x: x.sum() < 0, conv, x),
    "cond": on_a_branch(conv),
    "jit in remat in scan in cond": on_a_branch(scanned(jax.checkpoint(jax.jit(conv)))),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_a_convolution_is_found_wherever_it_hides(where):
    assert has_convolution(HIDDEN[where], jnp.ones((1, 1, 8)))


def test_a_dense_program_has_no_convolution():
    assert not has_convolution(jax.jit(lambda x: jnp.tanh(x @ x)), jnp.ones((3, 3)))


@pytest.mark.slow
def test_a_lax_convolution_runs_outside_the_compiled_loop_on_cpu(lax_conv, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("elsewhere convolutions are scanned")
    algo, params, data = lax_conv
    monkeypatch.setattr(training, "_jit_chunk", None)
    chunks = run(algo, algo.init(params), data, batch_size=4, num_epochs=1)
    state, step, losses = algo.init(params), jax.jit(algo.step), []
    for rows in epoch_order(DATA_KEY, 0, streams(data, 4)):
        state, metrics = step(state, Batch(data.x[rows]), STEP_KEY)
        losses.append(metrics["recon/loss"])
    np.testing.assert_allclose(joined(chunks)["recon/loss"], losses, rtol=1e-6)


# --- divergence -------------------------------------------------------------------------------------------------------


def explode(params, batch, key):
    """With SGD at rate 1 w grows 2^16-fold a step from 1; w^2 passes 2^128, the end of float32, at the fifth."""
    return -0.5 * 65535.0 * params["w"] ** 2, {}


@pytest.mark.parametrize(("boundary", "last"), [(None, 2), (1, 4), (4, 4)])
def test_divergence_names_the_first_bad_step(boundary, last):
    algo, state = one_player(explode)
    seen = []
    data = np.zeros(9, np.float32)
    chunks = training.train(algo, state, data, KEY, batch_size=3, num_epochs=4, boundary=boundary)
    with pytest.raises(DivergedError, match="p/loss is not finite at step 5: lower the learning rate") as error:
        seen.extend(chunks)
    assert (error.value.step, error.value.term) == (5, "p/loss")
    assert seen[-1].step == last
    assert all(np.isfinite(chunk.metrics["p/loss"]).all() for chunk in seen)
    assert [float(chunk.state.params["w"]) for chunk in seen] == [2.0 ** (16 * chunk.step) for chunk in seen]


def test_divergence_names_the_losses_that_said_so():
    def fine(params, batch, key):
        return 0.5 * params["v"] ** 2, {}

    players = {
        "bad": Player(explode, ("w",), optax.sgd(1.0)),
        "fine": Player(fine, ("v",), optax.sgd(0.1)),
        "worse": Player(lambda params, x, key: (explode(params, x, key)[0] * 2.0**64, {}), ("v",), optax.sgd(0.0)),
    }
    algo = play(players, [["bad", "fine"]])
    with pytest.raises(DivergedError, match="bad/loss"):
        run(algo, algo.init({"w": jnp.array(1.0), "v": jnp.array(1.0)}), np.zeros(9, np.float32), num_epochs=4)
    algo = play(players, [["bad"], ["fine"], ["worse"]])
    with pytest.raises(DivergedError) as error:  # at step 2, w is 2^32 when the last phase multiplies its square
        run(algo, algo.init({"w": jnp.array(1.0), "v": jnp.array(1.0)}), np.zeros(9, np.float32), num_epochs=4)
    assert (error.value.step, error.value.term) == (2, "worse/loss")


def test_parameters_that_are_not_finite_are_never_yielded():
    """The loss is finite, its step is not: the loss of the next one would say so."""
    algo, state = one_player(lambda params, x, key: (100.0 * jax.nn.sigmoid(params["w"]), {}), lr=1e38)
    with pytest.raises(DivergedError, match="params is not finite after step 1: lower the learning rate") as error:
        run(algo, state, np.zeros(9, np.float32))
    assert (error.value.step, error.value.term) == (1, "params")


def lost_at(step):
    """A rule that counts steps, and once there makes its counter NaN; no loss sees it."""

    def update(params, sums, key):
        return {"count": jnp.where(params["count"] + 1 == step, jnp.nan, params["count"] + 1)}

    players = {
        "p": Player(fit_mean, ("w",), optax.sgd(0.1)),
        "rule": Rule(lambda params, batch, key: ((), {}), update, ("count",)),
    }
    algo = play(players, [["p", "rule"]])
    return algo, algo.init({"w": jnp.ones(()), "count": jnp.zeros(())})


@pytest.mark.parametrize("step", [1, 2, 3, 9, 17, 20])
def test_the_step_that_lost_the_state_is_found_within_its_chunk(step):
    algo, state = lost_at(step)
    with pytest.raises(DivergedError, match=f"params is not finite after step {step}:") as error:
        run(algo, state, np.zeros(3, np.float32), num_epochs=40)
    assert (error.value.step, error.value.term) == (step, "params")


def test_an_optimiser_that_lost_its_state_is_told():
    """One gradient of 1e25 puts the second moment at infinity, and nothing would move any more."""
    spike = lambda params, x, key: (jnp.where(x.max() > 8, 1e25, 1.0) * params["w"], {})
    algo = play({"p": Player(spike, ("w",), optax.adam(1e-3))}, [["p"]])
    data = np.arange(9.0, dtype=np.float32) + 0.5
    first = next(i for i, rows in enumerate(epoch_order(DATA_KEY, 0, streams(data, 3))) if 8 in rows)
    with pytest.raises(DivergedError, match="the optimiser's state is not finite after step") as error:
        run(algo, algo.init({"w": jnp.ones(())}), data)
    assert error.value.step == first + 1


def test_infinities_that_an_optimiser_begins_with_are_its_own():
    tx = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())  # the best value so far is infinite
    algo = play({"p": Player(fit_mean, ("w",), tx)}, [["p"]])
    assert run(algo, algo.init({"w": jnp.ones(())}), np.zeros(9, np.float32))[-1].step == 6


def test_a_metric_that_is_not_a_number_is_told_and_an_infinite_one_is_not():
    def loss(params, x, key):
        return fit_mean(params, x, key)[0], {
            "inf": 1 / (0 * x.sum()),
            "nan": jnp.where(params["w"] < 0.5, jnp.nan, 0.0),
        }

    algo, state = one_player(loss, lr=0.5)  # w is 1, then 0.5, then 0.25
    with pytest.raises(DivergedError, match="p/nan is not finite at step 3") as error:
        run(algo, state, np.zeros(9, np.float32))
    assert (error.value.step, error.value.term) == (3, "p/nan")


def test_a_rate_that_breaks_the_first_step_is_told_though_the_loss_of_that_step_says_so():
    players = {
        "a": Player(fit_mean, ("w",), optax.sgd(1e38)),
        "b": Player(lambda params, batch, key: (params["w"] ** 2, {}), ("v",), optax.sgd(0.0)),
    }
    algo = play(players, [["a"], ["b"]])
    with pytest.raises(DivergedError, match="b/loss is not finite at step 1: lower the learning rate"):
        run(algo, algo.init({"w": jnp.ones(()), "v": jnp.ones(())}), np.zeros(9, np.float32))


def test_at_the_first_step_the_data_are_named_and_not_the_rate():
    data = Batch(np.array([[0.0, 255.0], [3.0, np.inf]], np.float32))
    algo, state = one_player(lambda params, batch, key: (params["w"] * batch.x.mean(), {}))
    with pytest.raises(DivergedError) as error:
        run(algo, state, data, batch_size=2)
    assert "before anything was learned" in str(error.value)
    assert "x from 0 to inf" in str(error.value)
    assert "lower" not in str(error.value)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, "batch_size=11 exceeds the 10 examples of the training data"),
        ({"batch_size": 0}, "batch_size=0; at least 1"),
        ({"num_epochs": 0}, "num_epochs=0; at least 1"),
        ({"num_epochs": 2.5}, "num_epochs=2.5; at least 1 is needed, a whole number"),
        ({"boundary": 0}, "boundary=0; at least 1"),
        ({"batch_size": 6, "devices": 4}, "batch_size=6 is not divided by 4 devices; 4 and 8 would be"),
        ({"batch_size": 3, "devices": 8}, "batch_size=3 is not divided by 8 devices; 8 would be"),
        ({"devices": 9}, "9 devices were asked for and 8"),
        ({"parallel": "shardmap"}, "Unknown parallel='shardmap'.*'shard_map'"),
        ({"parallel": "pmap"}, "parallel='pmap' needs an algorithm built with axis_name='devices'; it has None"),
    ],
)
def test_what_cannot_run_is_refused_at_the_call(options, message):
    algo, state = one_player(fit_mean)
    options = {"batch_size": 2, "num_epochs": 1} | options
    with pytest.raises(InputError, match=message):
        training.train(algo, state, np.zeros(10, np.float32), KEY, **options)
    if "num_epochs" in message:
        with pytest.raises(InputError, match=message):
            training.fit(algo, state, np.zeros(10, np.float32), KEY, **options)


def test_a_mapped_algorithm_is_refused_under_jit():
    algo, state = one_player(fit_mean, axis_name=parallel.AXIS)
    with pytest.raises(InputError, match="parallel='jit' needs an algorithm built with no axis_name; it has 'devices'"):
        training.train(algo, state, np.zeros(10, np.float32), KEY, batch_size=2, num_epochs=1)
