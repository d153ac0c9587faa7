"""Sweeps: every lane is the run that one would make alone, by either strategy."""

import statistics
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import training
from aejax.algorithm import Player, play
from aejax.checks import InputError, check_positive
from aejax.data import Batch
from aejax.methods.ae import AE, ae
from aejax.methods.ae import HParams as AEHParams
from aejax.methods.vae import VAE, HParams, vae
from aejax.nets import init_params
from aejax.sweep import sweep

SIZES = {"batch_size": 8, "num_epochs": 2}
VAE_MODEL = VAE.dense(64, 2, hidden_dims=(8,))
by_both = pytest.mark.parametrize("strategy", ["vmap", "sequential"])


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def build_vae(hparams):
    return vae(VAE_MODEL, hparams, optax.sgd)


def init_vae(key):
    return init_params(VAE_MODEL, key, jnp.zeros((1, 64)))


def assert_close(actual, expected):
    """To 1e-5 of the largest entry of each array."""

    def check(a, b):
        assert np.shape(a) == np.shape(b)
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-5 * np.abs(b).max()

    jax.tree.map(check, actual, expected)


@pytest.mark.slow
@by_both
def test_a_lane_is_the_single_run(strategy, digits):
    data = Batch(digits[:20])  # two steps in an epoch, and some left over
    seeds = [3, 2**31 + 5]
    hparams = HParams(lr=jnp.array([1e-3, 1e-2]), beta=jnp.array([1.0, 4.0]))
    result = sweep(build_vae, init_vae, data, hparams=hparams, seeds=seeds, strategy=strategy, **SIZES)
    assert result.strategy == strategy
    for h, setting in enumerate([HParams(1e-3, 1.0), HParams(1e-2, 4.0)]):
        algo = build_vae(setting)
        for s, seed in enumerate(seeds):
            init_key, train_key, _ = jax.random.split(jax.random.key(seed), 3)
            chunks = list(training.train(algo, algo.init(init_vae(init_key)), data, train_key, **SIZES))
            assert_close(result.state(h, s), chunks[-1].state)
            for name, values in result.metrics.items():
                assert_close(values[h, s].ravel(), np.concatenate([chunk.metrics[name] for chunk in chunks]))


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Conv(2, (3, 3))(x).reshape(x.shape[0], -1))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.ConvTranspose(1, (3, 3))(nn.Dense(16)(z).reshape(-1, 4, 4, 1))


@pytest.mark.slow
def test_strategies_agree_on_a_module_with_lax_convolutions(digits):
    data = Batch(digits[:20].reshape(-1, 8, 8, 1)[:, ::2, ::2])
    model = AE(encoder=Encoder(), decoder=Decoder(), latent_dim=2)

    def run(strategy):
        def init(key):
            return init_params(model, key, jnp.zeros((1, 4, 4, 1)))

        settings = [AEHParams(1e-3), AEHParams(1e-2)]
        build = lambda hparams: ae(model, hparams, optax.sgd)
        return sweep(build, init, data, hparams=settings, seeds=[0, 1], strategy=strategy, **SIZES)

    one, other = run("sequential"), run("vmap")
    assert_close(one.metrics, other.metrics)
    assert_close(one.states, other.states)


# --- a game on paper: w starts at a number drawn from the seed and goes to zero, by the factor 1 - lr a step ----------


class Rate(NamedTuple):
    lr: float = 0.5
    weight: float = 1.0


def start(key):
    return {"w": jax.random.uniform(key, (), minval=1.0, maxval=2.0)}


def pull_to_zero(hparams):
    check_positive(lr=hparams.lr)

    def loss(params, batch, key):
        return hparams.weight * 0.5 * params["w"] ** 2, {"w": params["w"]}

    return play({"p": Player(loss, ("w",), optax.sgd(hparams.lr))}, [["p"]])


def pulled(hparams=Rate(), seeds=(0,), **options):
    options = {"batch_size": 2, "num_epochs": 3} | options
    return sweep(pull_to_zero, start, np.zeros(4, np.float32), hparams=hparams, seeds=seeds, **options)


def first(seed):
    return float(start(jax.random.split(jax.random.key(seed), 3)[0])["w"])


@by_both
def test_numbers_mean_and_spread(strategy):
    result = pulled(Rate(lr=jnp.array([0.5, 0.25])), seeds=(4, 5, 6), strategy=strategy)
    assert result.metrics["p/w"].shape == (2, 3, 3, 2)  # settings, seeds, epochs, steps
    starts = [first(seed) for seed in (4, 5, 6)]
    for h, factor in enumerate([0.5, 0.75]):
        for step in range(6):
            values = [w * factor**step for w in starts]
            at = (h, *divmod(step, 2))
            assert result.mean["p/w"][at] == pytest.approx(statistics.mean(values), rel=1e-6)
            assert result.std["p/w"][at] == pytest.approx(statistics.stdev(values), rel=1e-4)
        assert float(result.state(h, 1).params["w"]) == pytest.approx(starts[1] * factor**6, rel=1e-6)


def test_the_spread_of_one_seed_is_not_known():
    assert np.isnan(pulled().std["p/w"]).all()


@pytest.mark.first(1)
@by_both
def test_streams_are_named_as_the_data_are(strategy):
    loss = lambda params, data, key: (jnp.mean((params["w"] - data["few"].mean() - data["many"].mean()) ** 2), {})
    result = sweep(
        lambda hparams: play({"p": Player(loss, ("w",), optax.sgd(hparams.lr))}, [["p"]]),
        lambda key: {"w": jnp.zeros(())}, {"few": np.ones(2, np.float32), "many": np.full(8, 2.0, np.float32)},
        hparams=Rate(lr=np.array([0.25, 0.5])), seeds=[0], num_epochs=1, strategy=strategy,
        batch_size={"few": 1, "many": 4},
    )  # fmt: skip
    assert result.states.params["w"].tolist() == [[2.25], [3.0]]  # two steps towards 3, by half, and all of the way


def test_settings_as_a_list_as_arrays_and_as_numbers():
    listed = pulled([Rate(0.5, 1.0), Rate(0.25, 1.0)])
    arrays = pulled(Rate(lr=jnp.array([0.5, 0.25])))  # the weight is shared
    np.testing.assert_array_equal(listed.metrics["p/w"], arrays.metrics["p/w"])
    np.testing.assert_array_equal(pulled(Rate(0.5)).metrics["p/w"], arrays.metrics["p/w"][:1])


@by_both
def test_a_diverging_run_reports_it_and_the_others_go_on(strategy):
    metrics = pulled(Rate(lr=np.array([0.5, 1e30])), strategy=strategy).metrics["p/loss"]
    assert np.isfinite(metrics[0]).all()
    assert not np.isfinite(metrics[1, 0, -1, -1])


@by_both
def test_one_trace_serves_all_runs(strategy):
    traces = []

    def build(hparams):
        def loss(params, batch, key):
            traces.append(1)
            return hparams.weight * params["w"], {}

        return play({"p": Player(loss, ("w",), optax.sgd(hparams.lr))}, [["p"]])

    def run(num_settings, num_seeds):
        traces.clear()
        rates = Rate(lr=np.linspace(0.1, 0.2, num_settings))
        data = np.zeros(num_settings + 10, np.float32)  # of another length: nothing is left from the run before
        sweep(build, start, data, hparams=rates, seeds=range(num_seeds), batch_size=2, num_epochs=1, strategy=strategy)
        return len(traces)

    assert run(1, 1) == run(3, 4)


def test_auto_is_the_faster_one():
    assert pulled().strategy == ("sequential" if jax.default_backend() == "cpu" else "vmap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hparams": Rate(np.array([0.1, 0.2]), np.array([1.0, 2.0, 3.0]))}, r"shapes \[\(2,\), \(3,\)\]"),
        ({"hparams": Rate(np.ones((2, 2)))}, r"shapes \[\(2, 2\), \(\)\]"),
        ({"hparams": []}, "list of settings is empty"),
        ({"hparams": [Rate(), AEHParams()]}, "mixes different kinds"),
        ({"hparams": Rate(lr=np.array([0.1, -0.1]))}, "lr is -0.1"),
        ({"seeds": ()}, "at least one"),
        ({"strategy": "sequentialy"}, "Unknown strategy='sequentialy'.*'sequential'"),
        ({"batch_size": 5}, "batch_size=5 exceeds the 4 examples"),
        ({"num_epochs": 0.5}, "num_epochs=0.5; at least 1 is needed, a whole number"),
    ],
)
def test_what_cannot_be_swept_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        pulled(**options)
