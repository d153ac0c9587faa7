"""The study of layers in closed form: what is compared, at which times, and which rows the table has."""

import json

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.runner import launch
from aejax.runner.pieces import body
from experiments.studies import layers as study

X = np.random.default_rng(0).random((120, 6)).astype(np.float32)


def of_arrays(monkeypatch):
    dataset = Dataset("made", Batch(X[:100]), None, Batch(X[100:]), None)
    monkeypatch.setattr(study, "load", lambda config: dataset)
    return dataset


@pytest.mark.slow
def test_a_study_ends_with_errors_at_the_sweeps_that_were_asked_for(tmp_path, monkeypatch):
    dataset = of_arrays(monkeypatch)
    flags = ["--num-epochs", "3", "--sweeps", "0", "2", "3", "--hidden-dims", "8", "--latent-dim", "2", "--num-rows"]
    flags += ["100", "--batch-size", "50", "--num-seeds", "1", "--workdir", str(tmp_path)]
    launch.command_line("layers", study.Config, "", body(study.STUDY), flags)
    summary = json.loads((tmp_path / "summary.json").read_text())
    found = summary["metrics"]
    assert set(found) == {"pca", "adam", "layers_0", "layers_2", "layers_3"}
    kept = json.loads((tmp_path / "seed-0.json").read_text())
    assert kept["adam"]["done"] == [0, 1, 2, 3]
    assert kept["layers"]["done"] == [0, 1, 2, 3]
    for name in ("test_sse", "seconds"):
        assert found["layers_2"][name] == [kept["layers"][name][2]]
        assert found["adam"][name] == [kept["adam"][name][3]]
    assert (np.diff(kept["layers"]["train_sse"]) < 0).all()
    assert (np.diff(kept["layers"]["seconds"]) > 0).all()
    centred = dataset.train.x - dataset.train.x.mean(axis=0)
    left = np.square(np.linalg.svd(centred)[1][2:]).sum() / 100
    assert found["pca"]["train_sse"][0] == pytest.approx(left, rel=1e-5)
    assert "closed form, 3 sweeps" in study.table(summary)


def test_ratios_are_of_means_and_to_adam():
    each = {"test_sse": [1.0, 3.0], "train_sse": [1.0, 1.0], "seconds": [2.0, 2.0]}
    mine = {"test_sse": [3.0, 3.0], "train_sse": [1.0, 1.0], "seconds": [0.5, 0.5]}
    table = study.table({"num_epochs": 7, "metrics": {"adam": each, "layers_20": mine}})
    row = next(line for line in table.splitlines() if "20 sweeps" in line)
    assert "(1.5)" in row
    assert "(0.25)" in row
    assert "Adam, 7 passes" in table


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ("adma",)}, "There is no row 'adma'.*adam"),
        ({"sweeps": (5, 0)}, "in rising order"),
        ({"sweeps": ()}, "in rising order"),
        ({"lr": 0.0}, "--lr"),
        ({"batch_size": 5000}, "--batch-size 5000, and there are 1,617"),
    ],
)
def test_refused_before_it_begins(fields, message):
    with pytest.raises(InputError, match=message):
        list(study.pieces(study.Config(**fields)))
