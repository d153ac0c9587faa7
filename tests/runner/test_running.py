import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import EXPERIMENT

import aejax
from aejax import data, evaluation, nets, runner, schedules, training
from aejax.checks import InputError
from aejax.runner.config import from_dict, to_dict
from experiments import aae, ae, cae, cae_h, dae, rcae, scae, vae

CONFIG = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=150)


@pytest.fixture(scope="module")
def result():
    return runner.run(EXPERIMENT, CONFIG)


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.slow
def test_parameters_of_another_model_are_refused_before_the_first_step(result, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: pytest.fail("It trained."))
    wider = dataclasses.replace(CONFIG, hidden_dims=(9,))
    said = r"parameters are those of another model: .*\['kernel'\] is \(8, 64\) there and \(9, 64\) here"
    with pytest.raises(InputError, match=said):
        runner.run(EXPERIMENT, wider, params=result.state.params)
    with pytest.raises(InputError, match=said):
        runner.run(EXPERIMENT, wider, state=result.state)
    with pytest.raises(InputError, match=r"\['other'\]\['w'\] is \(2,\) there and None here"):
        runner.run(EXPERIMENT, CONFIG, params={**result.state.params, "other": {"w": jnp.zeros(2)}})


def test_importing_an_experiment_does_nothing():
    """Flax imports rich, so that is not among the heavy ones."""
    code = """
import sys, jax
before = dict(jax.config.values)
import aejax, experiments.vae, experiments.aae, experiments.dae, experiments.cae, experiments.studies.compare
heavy = {"tyro", "matplotlib", "orbax", "sklearn", "scipy.linalg", "tensorflow_datasets", "tensorflow", "torch"}
print(sorted(heavy & set(sys.modules)), jax.config.values == before, jax._src.xla_bridge._backends)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "{}"]


@pytest.mark.slow
def test_run_is_the_library_called_by_hand(result):
    """Seeds, batches, noise, binarisation and schedule, as a reader of the library would write them."""
    config = dataclasses.replace(CONFIG, binarize="stochastic", schedule="cosine", num_epochs=3)
    ours = runner.run(EXPERIMENT, config)
    digits = data.flatten(data.load("digits"))
    init_key, train_key, _ = jax.random.split(jax.random.key(0), 3)
    model = aejax.AE.dense(64, 2, hidden_dims=(8,))
    algo = aejax.ae(model, tx=lambda lr: optax.adam(schedules.cosine(lr, num_steps=6)))
    algo = aejax.transform_batch(algo, data.binarize)
    state = algo.init(nets.init_params(model, init_key, digits.train.x))
    *_, last = training.train(algo, state, data.Batch(digits.train.x), train_key, batch_size=512, num_epochs=3)
    assert equal(ours.state, last.state)
    assert equal(ours.model, model)


def test_run_prints_nothing_and_writes_nothing(tmp_path, capfd):
    runner.run(EXPERIMENT, dataclasses.replace(CONFIG, num_epochs=1))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_rows_hold_training_and_validation(result):
    assert [(row["step"], row["epoch"]) for row in result.history] == [(200, 100), (300, 150)]
    held_out = data.Batch(data.flatten(data.load("digits")).validation.x)
    x_hat = evaluation.reconstruct(result.model, result.state.params, held_out.x).astype(np.float64)
    entropy = -(held_out.x * np.log(x_hat) + (1 - held_out.x) * np.log1p(-x_hat)).sum(axis=1).mean()
    assert result.history[-1]["val/recon/loss"] == pytest.approx(entropy, rel=1e-5)
    first, last = (row["recon/loss"] for row in result.history)
    assert last < first < 64 * np.log(2)


def test_run_goes_on_from_a_state(result):
    class Stop:
        def begin(self, ready):
            assert (ready.num_steps, ready.spec, ready.monitor) == (300, ((64,), 10), "recon/loss")

        def update(self, chunk, row, extra):
            self.state = chunk.state
            return chunk.step >= 200

        def say(self, text):
            raise AssertionError("a run that was stopped is not measured")

    observer = Stop()
    stopped = runner.run(EXPERIMENT, CONFIG, observer=observer)
    assert stopped.stopped
    assert stopped.metrics == {}
    assert int(observer.state.step) == 200
    rest = runner.run(EXPERIMENT, CONFIG, state=observer.state)
    assert equal(rest.state, result.state)


@pytest.mark.parametrize("way", ["jit", *(pytest.param(way, marks=pytest.mark.slow) for way in ("pmap", "shard_map"))])
def test_several_devices_train_the_same_model(result, way):
    """To what Adam leaves of the rounding of another order of summation."""
    ours = runner.run(EXPERIMENT, CONFIG, devices=8, parallel=way)
    assert ours.history[-1]["val/recon/loss"] == pytest.approx(result.history[-1]["val/recon/loss"], rel=1e-3)


def test_a_finished_run_opens(finished, result):
    config, model, state = runner.load(finished)
    assert config == CONFIG
    assert model == result.model
    assert equal(state, result.state)
    x = data.flatten(data.load("digits")).test.x
    x_hat = evaluation.reconstruct(model, state.params, x)
    assert np.array_equal(x_hat, evaluation.reconstruct(result.model, result.state.params, x))


def worsens(config, model, tx, axis_name):
    """Learns for 200 steps, and then overshoots at every step."""
    rate = lambda count: jnp.where(count < 200, 1e-3, 1e3)
    return aejax.ae(model, tx=lambda lr: optax.adam(rate))


@pytest.mark.slow
def test_the_best_state_is_kept_however_seldom_checkpoints_are(call):
    flags = ("--workdir", "run", "--checkpoint-seconds", "1e9")
    assert call(*flags, experiment=EXPERIMENT._replace(build_algorithm=worsens)).code == 0
    _, model, state = runner.load("run", best=True)
    assert (int(state.step), int(runner.load("run")[2].step)) == (200, 300)
    held_out = data.Batch(data.flatten(data.load("digits")).validation.x)
    loss = training.evaluate(aejax.ae(model), state, held_out, jax.random.key(0))["recon/loss"]
    with open("run/metrics.jsonl") as file:
        best, last = (json.loads(line)["val/recon/loss"] for line in file)
    assert best < last
    assert loss == pytest.approx(best, rel=1e-6)


def test_a_subset_is_the_first_examples_of_each_split():
    whole = runner.load_data(CONFIG)
    cut = runner.load_data(dataclasses.replace(CONFIG, num_train=600, num_test=7))
    for ours, theirs, count in ((cut.train, whole.train, 600), (cut.test, whole.test, 7)):
        assert equal(ours, jax.tree.map(lambda rows, count=count: rows[:count], theirs))
    assert equal(cut.validation, whole.validation)


def test_what_cannot_be_opened_is_refused(tmp_path, finished):
    with pytest.raises(InputError, match=r"nowhere holds no run: config.json is missing"):
        runner.load("nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "compare", "runs": ["ae", "vae"]}))
    with pytest.raises(InputError, match=r"holds the runs ae, vae; open one of them, as in .*/ae") as error:
        runner.load(tmp_path)
    shutil.copytree(finished, tmp_path / "ae")
    runner.load(str(error.value).rpartition("as in ")[2].rstrip("."))
    (tmp_path / "config.json").write_text((finished / "config.json").read_text())
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        runner.load(tmp_path)
    with pytest.raises(InputError, match="holds no checkpoint that was validated"):
        runner.load(tmp_path, best=True)


def test_a_run_of_a_module_that_is_elsewhere_opens_in_both_ways_that_are_named(tmp_path, finished, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved | {"module": "own_experiment"}))
    said = r"own_experiment.* Start Python where that module is, or give load\(folder, experiment=...\)"
    with pytest.raises(InputError, match=said):
        runner.load(tmp_path / "run")
    runner.load(tmp_path / "run", experiment=EXPERIMENT)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "own_experiment.py").write_text("from small_run import EXPERIMENT\n")
    monkeypatch.syspath_prepend(tmp_path / "there")  # as Python does with the folder that it starts in
    runner.load(tmp_path / "run")


@pytest.mark.parametrize("experiment", [ae, dae, cae, scae, cae_h, rcae, vae, aae], ids=lambda module: module.__name__)
def test_a_config_survives_json(experiment):
    hparams = experiment.Config().hparams._replace(lr=0.1)
    config = dataclasses.replace(experiment.Config(), hidden_dims=(), seed=7, hparams=hparams)
    assert from_dict(experiment.Config, json.loads(json.dumps(to_dict(config)))) == config
