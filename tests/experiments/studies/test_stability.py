"""The study of stability: defaults as they stand, figures that are measured, bounds by hand, and a whole run."""

import json
import types

import jax
import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.runner import launch, study
from experiments.studies import stability
from experiments.studies.stability import ROWS, Config, Row

KEY = jax.random.key(0)


def test_every_row_is_its_experiment_with_all_defaults():
    runs = stability.runs(Config(rows=tuple(ROWS), num_seeds=2, seed=3))
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ROWS]
    for name, (experiment, config) in runs.items():
        row, seed = name.rsplit("-", 1)
        found = ROWS[row].module
        assert experiment.name == row
        assert config == found.Config(seed=int(seed))
        assert experiment.build_algorithm is found.EXPERIMENT.build_algorithm
    with pytest.raises(InputError, match="no row 'vae'"):
        stability.runs(Config(rows=("vae",)))


def test_what_reaches_a_bound_by_hand():
    assert Row(None, "error", 2.0).reached([1.0, 2.0, 2.1, float("nan")]) == 2
    assert Row(None, "share", 0.5, least=True).reached([0.4, 0.5, 0.9, float("nan")]) == 2


def test_the_table_by_hand():
    gan = {"test_sse": [2.0, 3.0, 4.0], "samples_apart": [0.9, 0.9, 0.9], "seconds": [8.0, 9.0, 20.0]}
    ali = {"knn5_accuracy": [0.9, 0.8], "samples_apart": [1.0, 0.5], "seconds": [1.0, 3.0]}
    lines = stability.table({"rows": ["gan", "ali"], "metrics": {"gan": gan, "ali": ali}}).splitlines()
    assert lines[2] == "| gan | `test_sse` | at most 3.33 | 3.0 ± 1.0 | 4 | 2 of 3 | 0.9 ± 0 | 3, 9 |"
    assert lines[3] == "| ali | `knn5_accuracy` | at least 0.83 | 0.850 ± 0.071 | 0.8 | 1 of 2 | 0.75 ± 0.35 | 2, 2 |"


def test_samples_half_as_far_apart_as_test_images(monkeypatch):
    x = np.array([[0.0, 0.0], [6.0, 8.0]])
    dataset = types.SimpleNamespace(test=types.SimpleNamespace(x=x))
    trained = types.SimpleNamespace(model=None, state=types.SimpleNamespace(params=None), draw_key=KEY, dataset=dataset)
    monkeypatch.setattr(stability, "drawn", lambda *args: x / 2)
    assert stability.measure(lambda trained: {}, "samples_apart", trained) == {"samples_apart": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].metric not in ("test_sse", "knn5_accuracy")])
def test_the_figure_of_a_row_is_one_that_its_experiment_measures(name):
    experiment, config = stability.runs(Config(rows=(name,), num_seeds=1, seed=0))[f"{name}-0"]
    ready = runner.prepare(experiment, config)
    of_players = {"disc": ["loss"], "gen": ["fake_sse", "pulling_away"], "control": ["convergence", "balance"]}
    terms = [f"{player}/{term}" for player, own in of_players.items() for term in own]
    history = [{"step": 1, **dict.fromkeys(terms, 1.0)}]
    trained = runner.Trained(config, ready.model, ready.algorithm, ready.state, ready.dataset, history, KEY, KEY, {})
    found = experiment.measure(trained)
    assert {*found} == {ROWS[name].metric, "samples_apart"}
    assert np.isfinite(list(found.values())).all()


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_picture(tmp_path):
    flags = ["--rows", "gan", "--num-seeds", "2", "--workdir", str(tmp_path / "run")]
    launch.command_line("stability", Config, "", study.body(stability.STUDY), flags)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["gan"]
    x = data.load("digits").test.x
    assert ROWS["gan"].reached(found["test_sse"]) == 2
    assert max(found["test_sse"]) < np.square(x - x.mean(axis=0)).sum(axis=(1, 2, 3)).mean()
    assert 0.5 < min(found["samples_apart"]) <= max(found["samples_apart"]) < 1.2  # no run is a single image
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"samples.png"}
