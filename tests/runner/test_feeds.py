"""What runs are fed with: labels for models that take them, streams, and starts from the whole data."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import check_same, contents

from aejax import data, evaluation, nets, runner
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods import vae as method
from aejax.runner import inputs, loading
from aejax.runner.inputs import Feed
from experiments import ae, vae


class Joined(nn.Module):
    """A network of x and the label, one-hot."""

    net: nn.Module
    num_classes: int

    def __call__(self, x, y):
        return self.net(jnp.concatenate([x, jax.nn.one_hot(y, self.num_classes)], axis=-1))


class Conditioned(method.VAE):
    num_classes: int = 0
    takes_labels = True

    @classmethod
    def dense(cls, data_dim, latent_dim, *, hidden_dims=(8,), num_classes, **fields):
        nets_of = lambda *widths: Joined(nets.MLP((*hidden_dims, *widths)), num_classes)
        sizes = {"encoder": nets_of(2 * latent_dim), "decoder": nets_of(data_dim)}
        return cls(**sizes, latent_dim=latent_dim, num_classes=num_classes, **fields)


CONDITIONED = runner.of_method(
    "vae", vae.Config, build_model=lambda config, spec: runner.build_model(config, spec, Conditioned),
    measure=vae.measure,
)  # fmt: skip
CONFIG = vae.Config(hidden_dims=(8,), batch_size=512, num_epochs=2, nll_samples=2)


@pytest.fixture
def conditioned(monkeypatch):
    """A conditioned VAE in place of the one that is opened by its name."""
    monkeypatch.setattr(loading, "find", lambda saved: CONDITIONED)
    return CONDITIONED


@pytest.mark.slow
def test_a_conditioned_model_gets_the_labels_everywhere(call, conditioned):
    """Training, validation, measurements, pictures and opening; the number of classes is that of the data."""
    assert call("--workdir", "run", "--num-epochs", 2, "--nll-samples", 2, experiment=conditioned).code == 0
    with open("run/config.json") as file:
        assert json.load(file)["num_classes"] == 10
    config, model, state = runner.load("run")
    assert model.num_classes == 10
    dataset = runner.load_data(config)
    with open("run/summary.json") as file:
        metrics = json.load(file)["metrics"]
    assert metrics["test_sse"] == pytest.approx(evaluation.reconstruction_sse(model, state.params, dataset.test))
    shuffled = Batch(dataset.test.x, np.roll(dataset.test.y, 1))
    assert metrics["test_sse"] != pytest.approx(evaluation.reconstruction_sse(model, state.params, shuffled), rel=1e-4)
    assert {p.name for p in Path("run/figures").iterdir()} >= {"styles.png", "reconstructions.png"}


@pytest.mark.slow
def test_models_without_labels_are_not_given_them():
    ready = runner.prepare(ae.EXPERIMENT, ae.Config(hidden_dims=(8,)), shapes_only=True)
    assert (ready.feed.train.y, ready.feed.held_out.y) == (None, None)
    assert ready.feed.train.x is ready.dataset.train.x
    ready = runner.prepare(CONDITIONED, CONFIG, shapes_only=True)
    assert np.array_equal(ready.feed.held_out.y, ready.dataset.validation.y)


X, Y = np.random.default_rng(0).random((600, 16), np.float32), np.arange(600) % 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "The training split of faces has no labels, and Conditioned needs them."),
        ({"x": X, "y": Y, "x_test": X}, "The test split of faces has no labels"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1},
         "The test labels of faces go from 1 to 3; Conditioned knows those of the training split, numbered from 0 to"),
        ({"x": X, "y": Y - 1}, "The training labels of faces go from -1 to 1"),
    ],
)  # fmt: skip
def test_labels_that_are_missing_or_unknown_are_refused_before_the_first_step(call, tmp_path, arrays, message):
    np.savez("faces.npz", **arrays)
    before = contents(tmp_path)
    outcome = call("--dataset", "faces.npz", "--batch-size", 100, experiment=CONDITIONED)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert contents(tmp_path) == before
    config = ae.Config(dataset="faces.npz", hidden_dims=(8,), batch_size=100)
    assert runner.prepare(ae.EXPERIMENT, config, shapes_only=True).num_steps > 0  # others do not mind


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("arrays", "says", "mended"),
    [
        ({"x": X}, "Bring a .npz file with x and y", {"x": X, "y": Y}),
        ({"x": X, "y": Y, "x_test": X}, r"\(and y_test beside x_test\)", {"x": X, "y": Y, "x_test": X, "y_test": Y}),
        ({"x": X}, "or use a labelled set such as digits", None),
        (
            {"x": X, "y": Y, "x_test": X, "y_test": Y + 1},
            "keep only examples of classes that are trained on",
            {"x": X, "y": Y, "x_test": X[Y < 2], "y_test": (Y + 1)[Y < 2]},
        ),
        ({"x": X, "y": Y - 1}, "Number the classes from 0", {"x": X, "y": Y}),
        (
            {"x": X, "y": 9999 * Y},
            r"go up to 19998, and are of 3 kinds; .*: np.unique\(y, return_inverse=True\)\[1\]\.$",
            {"x": X, "y": np.unique(9999 * Y, return_inverse=True)[1]},
        ),
    ],
)
def test_labels_that_are_mended_as_the_refusal_says_are_taken(arrays, says, mended):
    config = dataclasses.replace(CONFIG, dataset="faces.npz", batch_size=100)
    np.savez("faces.npz", **arrays)
    with pytest.raises(InputError, match=says):
        runner.prepare(CONDITIONED, config, shapes_only=True)
    if mended is None:
        config = dataclasses.replace(config, dataset="digits")
    else:
        np.savez("faces.npz", **mended)
    assert runner.prepare(CONDITIONED, config, shapes_only=True).num_steps > 0


def test_a_folder_from_before_the_number_of_classes_opens(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    saved = json.loads(file.read_text())
    del saved["num_classes"]
    file.write_text(json.dumps(saved))
    check_same(tmp_path / "old", finished)


class Streams(NamedTuple):
    few: Any
    many: Any


def few_and_many(config, dataset):
    train, held_out = dataset.train, dataset.validation
    few = Batch(train.x[:40], train.y[:40])
    held_out = Streams(held_out, Batch(held_out.x))
    return Feed(Streams(few, Batch(train.x)), held_out, Streams(16, config.batch_size))


def build_of_streams(config, model, tx, axis_name):
    """Reconstructs both streams; tells whether it saw grey pixels, and how many labels."""

    def loss(params, batch, key):
        bound = model.bind({"params": params})
        errors = [jnp.square(bound.reconstruct(x) - x).mean() for x in (batch.few.x, batch.many.x)]
        grey = sum(jnp.abs(x * (1 - x)).max() for x in (batch.few.x, batch.many.x))
        return sum(errors), {"grey": grey, "labels": jnp.sum(batch.few.y >= 0, dtype=jnp.float32)}

    return play({"both": Player(loss, model.groups, tx(1e-3))}, [["both"]], axis_name=axis_name)


TWO = runner.of_method(
    "ae", ae.Config, build_algorithm=build_of_streams, feed=few_and_many, measure=lambda trained: {},
    draw=lambda trained: {},
)  # fmt: skip
SMALL = ae.Config(hidden_dims=(8,), batch_size=485, num_epochs=2)  # 3 steps of the unlabelled stream


@pytest.mark.slow
@pytest.mark.parametrize("binarize", [pytest.param("none", marks=pytest.mark.slow), "stochastic"])
def test_a_feed_of_two_streams_is_trained_on(binarize):
    result = runner.run(TWO, dataclasses.replace(SMALL, binarize=binarize))
    (row,) = result.history
    assert (row["step"], row["both/labels"], row["val/both/labels"]) == (6, 16, 162)
    assert (row["both/grey"] > 0) == (binarize == "none")
    assert (row["val/both/grey"] > 0) == (binarize == "none")


def test_each_stream_is_binarised_with_a_draw_of_its_own():
    grey = Batch(jnp.full((4, 64), 0.5))
    few, many = inputs.binarize(jax.random.key(0), Streams(grey, grey))
    assert 0.3 < np.mean(few.x == many.x) < 0.7  # 256 fair coins: five deviations
    alone = inputs.binarize(jax.random.key(0), grey)
    assert np.array_equal(alone.x, data.binarize(jax.random.key(0), grey).x)
    with pytest.raises(InputError, match="draws the x of a Batch; the feed holds a ndarray"):
        inputs.binarize(jax.random.key(0), Streams(grey, np.zeros((4, 64))))


def test_a_feed_that_cannot_be_is_refused_before_the_first_step(call):
    broken = TWO._replace(feed=lambda config, dataset: few_and_many(config, dataset)._replace(held_out=dataset.test))
    outcome = call(experiment=broken)
    assert outcome.code == 2
    assert "is not made as the data are" in outcome.err
    outcome = call("--batch-size", 100, "--devices", 4, experiment=TWO._replace(feed=lambda c, d: Feed(
        *few_and_many(c, d)[:2], Streams(6, 100))))  # fmt: skip
    assert "batch_size=6 is not divided by 4 devices; 4 and 8 would be." in outcome.err


def started(config, model, tx, axis_name):
    """The bias of the output starts at the mean of the data, in a group that only a rule moves."""

    def start(params, batch, key):
        noise = jax.random.uniform(key, (), minval=1.0, maxval=2.0)
        bias = {**params["decoder"]["dense_1"], "bias": batch.x.mean(axis=0) + noise}
        return {**params, "decoder": {**params["decoder"], "dense_1": bias}}

    recon = ae.method.ae(model, tx=tx)
    return recon._replace(start=start)


@pytest.mark.slow
def test_a_start_sees_the_whole_data_once_and_with_the_key_of_sweeps(call):
    experiment = TWO._replace(build_algorithm=started, feed=None, monitor="recon/loss")
    ready = runner.prepare(experiment, SMALL)
    key = jax.random.fold_in(jax.random.split(jax.random.key(0), 3)[0], 1)
    wanted = ready.dataset.train.x.mean(axis=0) + jax.random.uniform(key, (), minval=1.0, maxval=2.0)
    np.testing.assert_allclose(ready.state.params["decoder"]["dense_1"]["bias"], wanted, rtol=1e-6)
    # Neither a state nor parameters that are given are started anew.
    state = ready.state._replace(params=jax.tree.map(jnp.zeros_like, ready.state.params))

    class First:
        def begin(self, ready):
            return None

        def update(self, chunk, row, extra):
            self.bias = chunk.state.params["decoder"]["dense_1"]["bias"]
            return True

        def say(self, text):
            raise AssertionError("a run that was stopped is not measured")

    for given in ({"state": state}, {"params": state.params}):
        first = First()
        runner.run(experiment, SMALL, observer=first, **given)
        assert np.abs(first.bias).max() < 2e-3  # one step of Adam
