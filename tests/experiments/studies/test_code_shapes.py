"""The study of shapes: who is told what, places along a part, refusals before training, the table, and a whole run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_run import contents

from aejax import priors, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods import aae, aae_label
from aejax.methods.m2 import SemiBatch
from aejax.runner import launch, study, units
from experiments.studies import code_shapes
from experiments.studies.code_shapes import ROWS, SHAPES, Config
from experiments.studies.units import METRICS


@pytest.mark.parametrize("shape", ["mixture", "swiss_roll", "ring"])
def test_places_along_a_part_lie_in_it_where_its_draws_do(shape):
    prior, z = code_shapes.prior_of(shape, 6), code_shapes.along(shape, 6, 9)
    parts = np.asarray(prior.part_of(z.reshape(-1, 2).astype(np.float32), 6)).reshape(6, 9)
    inner = 2 if shape == "mixture" else 0  # where petals meet
    np.testing.assert_array_equal(parts[:, inner:], np.repeat(np.arange(6)[:, None], 9 - inner, axis=1))
    draws = np.asarray(prior.sample(jax.random.key(0), 3000))
    gaps = np.linalg.norm(draws[:, None] - code_shapes.along(shape, 6, 60).reshape(-1, 2), axis=2).min(axis=1)
    width = 0.1  # of each, across
    assert np.mean(gaps < 3 * width) > 0.95
    assert not np.allclose(z[:, 0], z[:, -1])  # they go somewhere


def test_the_ring_is_a_circle_with_its_thickness():
    """log density: |z| is nearly normal about 2; and each class has an arc of the same length, in order of angle."""
    prior = code_shapes.prior_of("ring", 5)
    z = np.asarray(prior.sample_parts(jax.random.key(0), np.repeat(np.arange(5), 400), 5), np.float64)
    radii = np.linalg.norm(z, axis=1)
    assert abs(radii.mean() - 2) < 0.02
    assert abs(radii.std() - 0.1) < 0.01
    turns = np.mod(np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi), 1).reshape(5, -1)
    for k in range(1, 4):  # the first and the last one lie across the angle 0
        assert abs(turns[k].mean() - (k + 0.5) / 5) < 0.015
        assert abs(turns[k].std() - 0.2 / np.sqrt(12)) < 0.006


def test_rows_are_of_the_plain_method_or_told_labels():
    config = dataclasses.replace(Config(), num_seeds=2, seed=3, num_epochs=7)
    runs = code_shapes.runs(config)
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ROWS]
    for name, (_, own) in runs.items():
        assert (own.shape in SHAPES, own.labels, own.num_epochs) == (True, "_labels" in name, 7)
        if name.removesuffix("-3") not in ("normal", "ring", "mixture_labels"):
            continue
        ready = runner.prepare(code_shapes.EXPERIMENT, own, shapes_only=True)
        assert type(ready.model) is (aae_label.LabelAAE if own.labels else aae.AAE)
        assert ready.model.prior == code_shapes.prior_of(own.shape, 10)
        train = ready.feed.train
        if own.labels:
            assert isinstance(train, SemiBatch)
            np.testing.assert_array_equal(train.labelled.y, ready.dataset.train.y)
            train = train.unlabelled
        assert isinstance(train, Batch)
        assert train.y is None


def test_what_cannot_be_measured_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((40, 16))
    for name, arrays in {
        "none": {"x": x}, "one": {"x": x, "y": np.zeros(40, int)},
        "test": {"x": x, "y": np.arange(40) % 2, "x_test": x},
    }.items():  # fmt: skip
        np.savez(f"{name}.npz", **arrays)
        with pytest.raises(InputError, match="labels"):
            code_shapes.runs(Config(dataset=f"{name}.npz"))
    with pytest.raises(InputError, match="Did you mean 'ring'"):
        code_shapes.runs(Config(rows=("rng",)))


def test_the_table_has_shares_where_labels_were_told():
    plain = {"code_mmd": [0.001], "code_mmd_p": [0.25], "train_code_mmd_p": [0.5], "test_sse": [9.0], "seconds": [30.0]}
    told = plain | {"own_part": [0.95], "train_own_part": [1.0], "drawn_own_part": [0.97]}
    lines = code_shapes.table({"rows": ["ring", "ring_labels"], "metrics": {"ring": plain, "ring_labels": told}})
    assert lines.splitlines()[2:] == [
        "| ring of points | 0.001 | 0.25 | 0.5 | | | | 9 | 1, 30 |",
        "| ring of points, labels | 0.001 | 0.25 | 0.5 | 95 | 100 | 97 | 9 | 1, 30 |",
    ]
    worst = {"ring_labels": told | {"worst_part": [0.9], "train_worst_part": [0.875]}}
    assert code_shapes.table({"rows": [*worst], "metrics": worst}).endswith("| 97 | 90 | 87.5 | 9 | 1, 30 |\n")


def test_the_worst_part_is_by_the_codes_that_lie_there():
    """Of 10 codes 7 are in their part: part 0 has 4 of its own of 5, part 1 2 of 3, part 2 1 of 2, part 3 none."""
    part = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    y = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 0])
    assert code_shapes.purity(part, y, 3) == (0.7, 0.5)
    assert code_shapes.purity(part, y, 4) == (0.7, 0.0)


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    """Two kinds of images, as many as the parts: what is measured is what the model and its prior say."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = np.clip(0.2 + 0.6 * y[:, None, None] + 0.1 * rng.normal(size=(200, 4, 4)), 0, 1).astype(np.float32)
    np.savez(tmp_path / "two.npz", x=x[:150], y=y[:150], x_test=x[150:], y_test=y[150:])
    flags = ["--dataset", str(tmp_path / "two.npz"), "--num-epochs", "60", "--batch-size", "50", "--hidden-dims", "16"]
    flags += ["--rows", "normal", "ring_labels", "--workdir", str(tmp_path / "run")]
    launch.command_line("code_shapes", Config, "", study.body(code_shapes.STUDY), flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert [name for row in metrics.values() for name in row if units.find(name, METRICS) is None] == []
    _, model, state = runner.load(tmp_path / "run" / "ring_labels-0")
    assert isinstance(model.prior, priors.PointCloud)
    z = np.asarray(model.apply({"params": state.params}, x[150:].reshape(50, 16), method="embed"), np.float64)
    upper = np.arctan2(z[:, 1], z[:, 0]) > 0  # class 0 has the first half of the turn
    assert metrics["ring_labels"]["own_part"] == [pytest.approx(np.mean(upper == (y[150:] == 0)))]
    assert metrics["ring_labels"]["own_part"][0] > 0.9
    shares = [np.mean(y[150:][upper == (k == 0)] == k) for k in (0, 1)]
    assert metrics["ring_labels"]["worst_part"] == [pytest.approx(min(shares))]
    # Two halves of a ring of 2 with noise 0.1: 2 ends of each, where 0.1 E|n| / 2 = 0.04 of its length 6.28 cross
    assert abs(metrics["ring_labels"]["drawn_own_part"][0] - (1 - 2 * 0.04 / 6.28)) < 0.005
    assert "own_part" not in metrics["normal"]
    assert {"figures/codes.png", "figures/styles_ring.png"} <= {*contents(tmp_path / "run")}
