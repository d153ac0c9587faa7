"""Few labels: which are drawn, that all rows have the same ones, and that no row sees another label."""

import json

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.runner import launch
from aejax.runner.pieces import body
from experiments.studies import classification as study

Y = np.random.default_rng(0).choice(4, size=200, p=[0.1, 0.2, 0.3, 0.4])


def test_as_many_of_each_class_as_can_be():
    found = study.drawn(Y, 80, 3)
    assert len(set(found.tolist())) == 80
    sizes, there = np.bincount(Y[found]), np.bincount(Y)
    share = sizes[sizes < there].min()
    assert all(size == there[i] or abs(size - share) <= 1 for i, size in enumerate(sizes))
    assert np.bincount(Y[study.drawn(Y, 4, 0)]).tolist() == [1, 1, 1, 1]
    assert not np.array_equal(found, study.drawn(Y, 80, 4))
    assert study.drawn(Y, 200, 0).tolist() == list(range(200))
    for count in (3, 201):
        with pytest.raises(InputError, match="from 4, one of each class, to all 200"):
            study.drawn(Y, count, 0)


@pytest.mark.slow
def test_rows_see_no_label_but_those_drawn(tmp_path, monkeypatch):
    """Two classes that a pixel tells; where all labels that were not drawn are false, nothing changes."""
    rng = np.random.default_rng(0)
    x = rng.random((240, 6)).astype(np.float32)
    y = (x[:, 0] > 0.5).astype(np.int32)
    found = []
    for false in (False, True):
        labels = y.copy()
        if false:
            kept = study.drawn(y[:200], 20, 0)
            labels[:200] = 1 - y[:200]
            labels[kept] = y[kept]
            monkeypatch.setattr(study, "drawn", lambda y, count, seed, kept=kept: kept)
        train, test = Batch(x[:200], labels[:200]), Batch(x[200:], y[200:])
        dataset = Dataset("made", train, None, test, None)
        monkeypatch.setattr(study, "load", lambda name, dataset=dataset: dataset)
        flags = ["--num-labels", "20", "--num-epochs", "2", "--finetune-steps", "20", "--latent-dim", "2"]
        flags += ["--hidden-dims", "4", "--num-seeds", "1", "--workdir", str(tmp_path / str(false))]
        launch.command_line("classification", study.Config, "", body(study.STUDY), flags)
        metrics = json.loads((tmp_path / str(false) / "summary.json").read_text())["metrics"]
        found.append({row: each["error_20"] for row, each in metrics.items()})
    assert found[0] == found[1]
    assert set(found[0]) == set(study.ROWS)
    assert found[0]["pixels"][0] < 0.2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ("pixel",)}, "There is no row 'pixel'.*pixels"),
        ({"num_labels": (5,)}, "from 10, one of each class"),
        ({"finetune_steps": 0}, "--finetune-steps=0; at least 1"),
        ({"dataset": "cells"}, "cells"),
    ],
)
def test_refused_before_it_begins(fields, message):
    with pytest.raises(InputError, match=message):
        list(study.pieces(study.Config(**fields)))
