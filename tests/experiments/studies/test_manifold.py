"""Embeddings beside each other: the runs, the scores on sets that are known, and the study on small images."""

import dataclasses
import json

import numpy as np
import pytest
from small_run import contents

from aejax import data
from aejax.checks import InputError
from aejax.runner import launch, study
from experiments.studies import manifold

CONFIG = manifold.Config()


@pytest.fixture
def faces(tmp_path):
    """Three kinds of image, 90 in all; the test split is the first 30 of them again."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = np.clip(0.15 * rng.normal(size=(90, 4, 4)) + np.eye(3).repeat(6, axis=1)[y, :16].reshape(90, 4, 4), 0, 1)
    np.savez(tmp_path / "faces.npz", x=x, y=y, x_test=x[:30], y_test=y[:30])
    return str(tmp_path / "faces.npz")


def test_all_runs_see_the_same_examples():
    runs = manifold.runs(dataclasses.replace(CONFIG, num_seeds=2, seed=3, num_test=100))
    assert list(runs) == ["ae-3", "deep-3", "conv-3", "ae-4", "deep-4", "conv-4"]
    for _, own in runs.values():
        assert (own.num_train, own.num_test, own.validation, own.latent_dim) == (1617, 100, 0.0, 2)
    assert (runs["ae-4"][1].hidden_dims, runs["ae-4"][1].code, runs["ae-4"][1].seed) == ((), "sigmoid", 4)
    assert (runs["conv-3"][1].net, runs["conv-3"][1].num_epochs) == ("conv", CONFIG.conv_epochs)
    assert runs["deep-3"][1].hidden_dims == CONFIG.hidden_dims


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_seeds": 0}, "--num-seeds is 0"),
        ({"k": 90}, "--k is 90, .*below half of {'num_train': 1617, 'num_test': 180}"),
        ({"num_train": 10}, "--k is 10"),
        ({"graph_k": 0}, "--graph-k 0"),
    ],
)
def test_sizes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        manifold.runs(dataclasses.replace(CONFIG, **change))


def test_data_are_refused():
    x = np.random.default_rng(0).random((90, 4, 4))
    np.savez("plain.npz", x=x)
    np.savez("vectors.npz", x=x.reshape(90, 16), y=np.arange(90) % 3)
    np.savez("pairs.npz", x=x, y=np.arange(90) % 2)
    for name, message in (("plain", "lacks labels"), ("vectors", "image shape"), ("pairs", "fewer than three")):
        with pytest.raises(InputError, match=message):
            manifold.runs(dataclasses.replace(CONFIG, dataset=f"{name}.npz", k=3))


def test_nobody_votes_on_himself():
    z = np.arange(6.0)[:, None]
    assert manifold.leave_one_out(z, np.array([0, 0, 0, 1, 1, 1])) == 0  # two of one's own kind among five
    assert manifold.leave_one_out(z, np.array([0, 0, 0, 0, 1, 1])) == pytest.approx(4 / 6)


def test_a_graph_of_two_islands_takes_a_neighbour_beyond_the_own_island():
    x = np.concatenate([np.arange(5.0), 100 + np.arange(4.0)])[:, None]
    assert manifold.connected_k(x, 1) == 4  # the smaller island has three neighbours to give
    assert manifold.connected_k(x, 6) == 6


def test_scores_of_perfect_codes_and_of_none():
    x = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
    batch = data.Batch(x, np.zeros(40, int) + (x[:, 0] > 0))
    found = manifold.scores(batch, 2 * x, data.Batch(x[:20], batch.y[:20]), x[:20] * [1, 0], k=5)
    assert found["train_trustworthiness"] == found["train_continuity"] == 1
    assert found["test_trustworthiness"] < 1
    assert found["test_continuity"] < 1
    alone = manifold.scores(batch, 2 * x, batch, None, k=5)
    assert alone == {name: value for name, value in found.items() if name.startswith("train_")}


def test_the_table_has_both_splits_in_per_cent_and_marks_what_is_missing():
    tsne = {f"train_{score}": [0.98765] for score in manifold.SCORES} | {"seconds": [8.0]}
    deep = {f"{split}_{score}": [0.81, 0.83] for split in ("train", "test") for score in manifold.SCORES}
    summary = {"metrics": {"tsne": tsne, "deep": deep | {"seconds": [3.0, 5.0]}}}
    *_, first, second = manifold.table(summary).splitlines()
    assert first == f"| t-SNE (no map for test data) |{4 * ' 98.765 / none |'} 1, 8 |"
    assert second == f"| deep AE |{4 * ' 82.0 ± 1.4 / 82.0 ± 1.4 |'} 2, 4 |"


def without_convolution(config):
    """The runs, those of the convolutional network dense: compiling it takes longer than all the rest."""
    change = {"net": "dense", "hidden_dims": (8,)}
    runs = manifold.runs(config)
    return {
        name: (experiment, dataclasses.replace(own, **change) if name.startswith("conv") else own)
        for name, (experiment, own) in runs.items()
    }


@pytest.mark.slow
def test_the_study_scores_and_draws_every_method(tmp_path, faces, capsys):
    flags = (
        "--dataset", faces, "--num-train", "80", "--k", "4", "--graph-k", "3", "--hidden-dims", "8",
        "--num-epochs", "2", "--conv-epochs", "1", "--batch-size", "40", "--workdir", "run",
    )  # fmt: skip
    own = manifold.STUDY._replace(runs=without_convolution)
    launch.command_line("manifold", manifold.Config, "", study.body(own), flags)
    assert "| convolutional AE |" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(metrics) == list(manifold.TITLES)
    assert "test_knn5_accuracy" not in metrics["tsne"]
    assert metrics["isomap"]["graph_neighbors"][0] >= 3
    # Three kinds of image that differ by a mean along two directions: linear maps tell them apart, new ones as well.
    for name in ("pca", "lda"):
        assert metrics[name]["test_knn5_accuracy"][0] == 1
        assert metrics[name]["train_knn5_accuracy"][0] == 1
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"embeddings.png"}
    before = contents(tmp_path / "run")
    launch.command_line("manifold", manifold.Config, "", study.body(own), flags)
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_maps_put_known_examples_where_they_were(faces):
    """The test examples are training examples: of a map, their codes have the neighbours that they had."""
    config = dataclasses.replace(CONFIG, dataset=faces, k=4)
    dataset = data.flatten(data.load(faces, validation=0.0))
    found = manifold.baselines(config, dataset)
    train, _, test = dataset[1:4]
    rows = np.linalg.norm(test.x[:, None] - train.x, axis=-1).argmin(axis=1)  # files are shuffled
    np.testing.assert_array_equal(train.x[rows], test.x)
    for name in ("pca", "lda"):
        again = manifold.scores(train, found[name].train_z, test, found[name].train_z[rows], k=4)
        assert found[name].metrics["test_continuity"] == pytest.approx(again["test_continuity"], abs=1e-3)
        assert found[name].metrics["test_knn5_accuracy"] == again["test_knn5_accuracy"]
    again = data.flatten(data.load(faces, validation=0.0))
    assert manifold.baselines(config, again) is found
    other = again._replace(train=again.train._replace(x=again.train.x[::-1]))
    assert not np.array_equal(manifold.baselines(config, other)["pca"].train_z, found["pca"].train_z)
    assert found["tsne"].train_z.shape == (90, 2)
    assert found["tsne"].metrics["train_neighborhood_hit"] > 0.9
