"""Evaluation by real batches: each example once, and losses that couple examples as training sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import KEY, one_player, pull

from aejax import parallel, training
from aejax.algorithm import Player, play
from aejax.checks import InputError

DEVICES = min(8, jax.device_count())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_evaluation_covers_every_example_once(batch_size):
    algo, state = one_player(lambda params, x, key: (jnp.mean((params["w"] - x) ** 2), {"x": x.mean()}))
    values = training.evaluate(algo, state, np.arange(7.0, dtype=np.float32), KEY, batch_size=batch_size)
    assert values == pytest.approx({"p/loss": (1 + 0 + 1 + 4 + 9 + 16 + 25) / 7, "p/x": 3.0}, rel=1e-6)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_evaluation_draws_the_noise_of_a_batch_from_its_first_row(batch_size):
    algo, state = one_player(lambda params, batch, key: (0.0 * params["w"], {"noise": jax.random.normal(key)}))
    state = state._replace(step=jnp.array(4))
    values = training.evaluate(algo, state, np.zeros(5, np.float32), KEY, batch_size=batch_size)
    starts = range(0, 5, batch_size)
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, i), 4), 0) for i in starts]
    sizes = [min(batch_size, 5 - i) for i in starts]
    noise = np.average([jax.random.normal(key) for key in keys], weights=sizes)
    assert values["p/noise"] == pytest.approx(noise, rel=1e-5)


def test_evaluation_of_a_mapped_algorithm_and_of_a_state_on_eight_devices():
    mean = lambda params, batch, key: (pull(params, batch, key)[0], {})
    algo, state = one_player(mean, lr=0.5, axis_name=parallel.AXIS)
    data = np.arange(16.0, dtype=np.float32)
    options = {"batch_size": 16, "num_epochs": 1, "parallel": "shard_map", "devices": DEVICES}
    state = list(training.train(algo, state, data, KEY, **options))[-1].state
    values = training.evaluate(algo, state, data, KEY)
    w = 1 + 0.5 * (7.5 - 1)
    assert values == pytest.approx({"p/loss": np.mean((w - data) ** 2) / 2}, rel=1e-6)


def off_diagonal(params, x, key):
    """The penalty of DIP-VAE: squared covariances of the dimensions of a linear code."""
    z = x @ params["w"]
    covariance = jnp.cov(z.T, bias=True)
    return jnp.sum(jnp.square(covariance - jnp.diag(jnp.diag(covariance)))), {}


def test_a_covariance_of_the_whole_split_is_that_which_training_sees():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(22, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    algo = play({"p": Player(off_diagonal, ("w",), optax.sgd(0.1), coupled=True)}, [["p"]])
    state = algo.init({"w": jnp.asarray(w)})
    exact = lambda rows: 2 * np.cov(np.float64(rows) @ w, rowvar=False, bias=True)[0, 1] ** 2
    seen = next(training.train(algo, state, x, KEY, batch_size=22, num_epochs=1)).metrics["p/loss"][0]
    found = training.evaluate(algo, state, x, KEY, batch_size=22)["p/loss"]
    assert found == pytest.approx(exact(x), rel=1e-5) == pytest.approx(seen, rel=1e-5)
    # Of batches of 7 it is the mean, where the last example joins the batch before.
    parts = np.average([exact(x[:7]), exact(x[7:14]), exact(x[14:])], weights=[7, 7, 8])
    assert training.evaluate(algo, state, x, KEY, batch_size=7)["p/loss"] == pytest.approx(parts, rel=1e-5)
    assert abs(parts - exact(x)) > 0.01 * exact(x)


def test_an_evaluation_of_nothing_is_refused():
    algo, state = one_player(pull)
    with pytest.raises(InputError, match="no examples"):
        training.evaluate(algo, state, np.zeros(0, np.float32), KEY)
