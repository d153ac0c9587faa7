"""Anomalies: which rows train by each protocol, baselines by hand, published figures, what an interruption leaves."""

import dataclasses
import itertools
import json
import os
import signal

import numpy as np
import pytest
from sklearn.datasets import load_digits

from aejax import data
from aejax.checks import InputError
from aejax.runner import launch
from aejax.runner.pieces import body
from experiments.studies import anomaly as study
from experiments.studies import anomaly_tasks as tasks
from experiments.studies.publish import DOCS

QUICK = ["--num-epochs", "2", "--latent-dim", "2", "--hidden-dims", "8"]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """A table of 1,200 rows and one of 40, the number of a row in its first column; every fourth is an anomaly."""
    (tmp_path / "adbench").mkdir()
    for name, count in (("cardio", 1200), ("breastw", 40)):
        x = np.stack([np.arange(count), np.arange(count) % 7], axis=1).astype(np.float64)
        np.savez(tmp_path / "adbench" / f"{name}.npz", x=x, y=(np.arange(count) % 4 == 0).astype(np.uint8))
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    tasks.task.cache_clear()


def rows_of(part):
    return part[:, 0].astype(int).tolist()


def test_the_first_half_of_the_normal_rows_trains(tables):
    found = tasks.task("adbench", "cardio", "file", 3)
    normal = [i for i in range(1200) if i % 4]
    assert rows_of(found.train) == normal[:450]
    assert rows_of(found.test) == normal[450:] + list(range(0, 1200, 4))
    np.testing.assert_array_equal(found.is_outlier, np.arange(750) >= 450)
    assert found.twice == 0


def test_a_small_table_is_drawn_to_a_thousand_rows_and_copies_are_counted(tables):
    found, other = (tasks.task("breastw", "breastw", "file", seed) for seed in (0, 1))
    assert len(found.train) + len(found.test) == 1000
    known = set(rows_of(found.train))
    assert found.twice == sum(row in known for row in rows_of(found.test)) > 100
    assert rows_of(found.train) != rows_of(other.train)


def test_a_shuffled_half_is_of_its_seed_and_has_each_row_once(tables):
    found, again, other = (tasks.task("breastw", "breastw", "shuffled", seed) for seed in (0, 0, 1))
    assert sorted(rows_of(found.train) + rows_of(found.test)) == list(range(40))
    assert all(row % 4 for row in rows_of(found.train))
    assert len(found.train) == 15
    assert rows_of(found.train) == rows_of(again.train) != rows_of(other.train)


def test_the_digest_of_a_set_is_that_of_all_its_files(tables, tmp_path):
    of_one, cardio = (tasks.digest(name) for name in ("breastw", "cardio"))
    assert of_one != cardio
    with pytest.raises(InputError, match=r"Put adbench/annthyroid\.npz there"):
        tasks.digest("adbench")
    np.savez(tmp_path / "adbench" / "breastw.npz", x=np.zeros((3, 2)), y=np.zeros(3))
    assert tasks.digest("breastw") != of_one
    assert tasks.digest("digits") == data.digest("digits")


def test_one_class_trains_and_the_whole_test_split_is_judged():
    assert tasks.names("digits") == tuple(f"digits {i}" for i in range(10))
    found = tasks.task("digits", "digits 3", "file", 0)
    x, y = load_digits(return_X_y=True)
    threes = {row.astype(np.float32).tobytes() for row in x[y == 3] / 16}
    assert all(row.tobytes() in threes for row in found.train)
    assert len(found.test) == 180
    assert [row.tobytes() not in threes for row in found.test] == found.is_outlier.tolist()
    assert len(found.train) + (~found.is_outlier).sum() == len(threes)


def test_baselines_are_what_they_are_called():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 4)) * [1, 2, 3, 0], rng.normal(size=(9, 4))
    train[:, 3] = test[:, 3] = 5.0  # a constant column
    found = {name: score() for name, score in study.baselines(train, test, 2, 0).items()}
    centred = test - train.mean(axis=0)
    np.testing.assert_allclose(found["mean"], (centred**2).sum(axis=1))
    first = np.linalg.svd(train - train.mean(axis=0))[2][:2]
    np.testing.assert_allclose(found["pca"], ((centred - centred @ first.T @ first) ** 2).sum(axis=1))
    distances = np.sort(np.linalg.norm(test[:, None] - train, axis=2), axis=1)
    np.testing.assert_allclose(found["knn"], distances[:, 4])
    train, test = train[:, :3], test[:, :3]
    scaled = (test - train.mean(axis=0)) / train.std(axis=0)
    # A share of nothing outweighs all others: what is left is the distance from the mean.
    np.testing.assert_array_equal(np.argsort(found["pca_pyod"]), np.argsort(np.linalg.norm(scaled, axis=1)))
    variances, vectors = np.linalg.eigh(np.corrcoef(train.T))
    weights = variances.sum() / variances
    score = study.baselines(train, test, 2, 0)["pca_pyod"]()
    for signs in itertools.product([-1, 1], repeat=3):  # an eigenvector has no sign
        if np.allclose(np.linalg.norm(scaled[:, None] - (vectors * signs).T, axis=2) @ weights, score):
            return
    raise AssertionError("no choice of signs gives the scores of pca_pyod")


@pytest.fixture
def planted(tmp_path):
    """A table whose normal rows lie near a line, in columns of very unequal units, and whose anomalies do not."""
    rng = np.random.default_rng(0)
    scale = np.array([1e-3, 1.0, 1e3, 1.0])
    normal = rng.normal(size=(400, 1)) * [1.0, -1.0, 1.0, 1.0] + 0.05 * rng.normal(size=(400, 4))
    odd = 2 * rng.normal(size=(60, 4))
    x = np.concatenate([normal, odd]) * scale
    np.savez(tmp_path / "planted.npz", x=x.astype(np.float32), y=np.arange(460) >= 400)
    return study.Config(str(tmp_path / "planted.npz"), num_epochs=60, latent_dim=1, hidden_dims=(16,))


@pytest.mark.slow
@pytest.mark.parametrize("row", list(study.ROWS))
def test_every_detector_finds_planted_anomalies_whatever_the_units_and_knows_no_test_row(planted, row):
    found = study.measure(planted, "planted", row, 0, print)
    assert found["auroc"] > {"ae_knn": 0.6, "deep_svdd": 0.7, "pca_pyod": 0.6, "mean": 0.6}.get(row, 0.9)
    task = tasks.task(planted.dataset, "planted", "file", 0)
    scores = study.scores_of(planted, task, row, 0)
    order = np.argsort(scores, kind="stable")
    assert found["least_odd"] == [i for i in order if task.is_outlier[i]][: study.SHOWN]
    assert found["oddest_normal"] == [i for i in order[::-1] if not task.is_outlier[i]][: study.SHOWN]
    others = task._replace(test=np.concatenate([task.test[:9], 1e6 * task.test[9:]]))
    np.testing.assert_allclose(study.scores_of(planted, others, row, 0)[:9], scores[:9], rtol=1e-3)


def test_average_precision_is_the_mean_precision_at_the_anomalies(monkeypatch):
    task = tasks.Task("six", np.zeros((2, 1)), np.zeros((6, 1)), np.array([1, 0, 1, 0, 0, 1]).astype(bool))
    monkeypatch.setattr(tasks, "task", lambda *_: task)
    monkeypatch.setattr(study, "scores_of", lambda *_: np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    found = study.measure(study.Config(), "six", "ae", 0, print)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)
    assert found["auroc"] == pytest.approx((3 + 2 + 0) / 9)
    assert (found["oddest_normal"], found["least_odd"], found["oddest"]) == ([1, 3, 4], [5, 2, 0], [0, 2, 5])


def test_published_figures_are_met_by_the_published_protocol():
    """Those of kNN and PCA on the six tables that need no drawing, in docs/anomaly_adbench.json, but for one.

    Of PCA on mammography 89.93 is published, and 89.69 is what we have.
    """
    found = json.loads((DOCS / "anomaly_adbench.json").read_text())["metrics"]
    for i, name in enumerate(tasks.TABLES):
        for row, published in (("knn", "kNN"), ("pca_pyod", "PCA")):
            if name not in ("breastw", "ionosphere") and (row, name) != ("pca_pyod", "mammography"):
                assert 100 * found[row][f"{name}_auroc"][0] == pytest.approx(study.PUBLISHED[published][i], abs=0.1)


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_interrupted_and_has_more_seeds_and_rows(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 1)) * [1.0, -2.0, 3.0], 9 * rng.normal(size=(20, 3))])
    np.savez(tmp_path / "rows.npz", x=x, y=np.arange(80) >= 60)
    flags = [*QUICK, "--dataset", str(tmp_path / "rows.npz"), "--protocol", "shuffled"]
    runs = []

    def measure(config, name, row, seed, say):
        runs.append((row, seed))
        if len(runs) == 2:  # within the fit, a while after it began
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            config = dataclasses.replace(config, num_epochs=10**6)
        return own(config, name, row, seed, say)

    own = study.measure
    monkeypatch.setattr(study, "measure", measure)
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))

    def run(*more):
        launch.command_line(
            "anomaly", study.Config, "", body(study.STUDY), [*flags, "--workdir", str(tmp_path / "run"), *more]
        )
        return json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]

    with pytest.raises(SystemExit):
        run("--rows", "mean", "ae", "--num-seeds", "1")
    signal.signal(signal.SIGALRM, before)
    found = run("--rows", "mean", "ae", "--num-seeds", "1", "--resume")
    assert runs == [("mean", 0), ("ae", 0), ("ae", 0)]
    more = run("--rows", "mean", "ae", "knn", "--num-seeds", "2", "--resume")
    assert runs[3:] == [("knn", 0), ("mean", 1), ("ae", 1), ("knn", 1)]
    assert more["ae"]["rows_auroc"][:1] == found["ae"]["rows_auroc"]
    assert more["mean"]["rows_auroc"][0] != more["mean"]["rows_auroc"][1]  # another half
    assert min(more["ae"]["rows_distinct"]) > 0.9
    assert "distance from the mean" in capsys.readouterr().out
    assert (tmp_path / "run" / "figures" / "auroc.png").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ("knnn",)}, "There is no row 'knnn'.*knn"),
        ({"rows": ()}, "wanted is at least one, and none twice"),
        ({"rows": ("ae", "ae")}, "wanted is at least one, and none twice"),
        ({"num_epochs": 0}, "--num-epochs=0; at least 1"),
        ({"dataset": "adbench"}, "looked for in the folder AEJAX_DATA, which is not set"),
        ({"dataset": "binarized_mnist"}, "binarized_mnist"),
    ],
)
def test_refused_before_it_begins(fields, message, monkeypatch):
    monkeypatch.delenv("AEJAX_DATA", raising=False)
    with pytest.raises(InputError, match=message):
        list(study.pieces(study.Config(**fields)))
