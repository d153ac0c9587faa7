"""The study of clusters: which run goes on from which, what is clustered, its table, and one small study."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_run import contents

from aejax import evaluation, runner
from aejax.runner import launch, study
from experiments.studies import clustering

FLAGS = ("--rows", "dec", "vade", "--hidden-dims", "12", "--latent-dim", "3", "--num-epochs", "2",
         "--pretrain-epochs", "2", "--batch-size", "500", "--refresh-every", "2", "--num-seeds", "1")  # fmt: skip


def call(*flags):
    launch.command_line("clustering", clustering.Config, "", study.body(clustering.STUDY), [*FLAGS, *flags])


def test_a_method_goes_on_from_the_autoencoder_of_its_seed():
    runs = clustering.runs(dataclasses.replace(clustering.Config(), num_seeds=2, seed=5, pretrain_epochs=7))
    assert list(runs)[:6] == ["ae-5", "vade_ae-5", "dec-5", "idec-5", "dcn-5", "vade-5"]
    before = {name: clustering.after(name) for name in list(runs)[6:]}
    assert before == {"ae-6": None, "vade_ae-6": None, "dec-6": "ae-6", "idec-6": "ae-6", "dcn-6": "ae-6",
                      "vade-6": "vade_ae-6"}  # fmt: skip
    assert [own.num_epochs for _, own in runs.values()] == [7, 7, 60, 60, 60, 60] * 2
    assert {own.num_clusters for _, own in runs.values()} == {10}
    likelihoods = {name[:-2]: own.likelihood for name, (_, own) in clustering.runs(
        dataclasses.replace(clustering.Config(), likelihood="gaussian", num_seeds=1)).items()}  # fmt: skip
    assert likelihoods == {"ae": "gaussian", "dec": "gaussian", "idec": "gaussian", "dcn": "gaussian",
                           "vade_ae": "bernoulli", "vade": "bernoulli"}  # fmt: skip


def test_all_images_are_clustered_and_the_labels_are_not_shown():
    config = clustering.RunConfig(validation=0.0)
    dataset = runner.load_data(config)
    x, y = clustering.everything(dataset)
    fed = clustering.feed(config, dataset)
    assert len(x) == len(y) == 1797
    assert fed.train.y is None
    np.testing.assert_array_equal(fed.train.x, x)


def test_images_of_clusters_stand_in_the_order_of_the_labels():
    images = np.arange(4.0)[:, None] + 1
    y, clusters = np.array([0, 0, 1, 1, 2, 2]), np.array([3, 3, 0, 0, 2, 2])
    np.testing.assert_array_equal(clustering.in_order(images, clusters, y).ravel(), [4, 1, 3])
    fewer = np.array([3, 3, 0, 0, 0, 3])
    np.testing.assert_array_equal(clustering.in_order(images, fewer, y).ravel(), [4, 1, 0])


def test_the_table_has_published_figures_of_mnist_alone():
    row = {"cluster_accuracy": [0.8, 0.9], "nmi": [0.7, 0.7], "ari": [0.5, 0.6], "seconds": [3.0, 5.0]}
    summary = {
        "dataset": "mnist",
        "rows": ["dec", "dcn"],
        "metrics": dict.fromkeys(("pixels", "ae", "dec", "dcn"), row),
    }
    _, _, *lines = clustering.table(summary).splitlines()
    assert lines == [
        "| k-means on pixels | 85.0 ± 7.1 | 70 ± 0 | 55.0 ± 7.1 | 2, 4 |",
        "| AE + k-means | 85.0 ± 7.1 (87.93) | 70 ± 0 (80.71) | 55.0 ± 7.1 (78.35) | 2, 4 |",
        "| DEC | 85.0 ± 7.1 (91.2) | 70 ± 0 (86.92) | 55.0 ± 7.1 (85.57) | 2, 4 |",
        "| DCN | 85.0 ± 7.1 | 70 ± 0 | 55.0 ± 7.1 | 2, 4 |",
    ]
    assert "(87.93)" not in clustering.table(summary | {"dataset": "digits"})


@pytest.mark.slow
def test_a_small_study_from_end_to_end(tmp_path, capsys):
    path = tmp_path / "clustering"
    call("--workdir", str(path))
    metrics = json.loads((path / "summary.json").read_text())["metrics"]
    assert list(metrics) == ["pixels", "ae", "vade_ae", "dec", "vade"]
    assert metrics["pixels"]["cluster_accuracy"][0] > 0.7  # of ours, on real digits
    config, model, state = runner.load(path / "dec-0")
    x, y = clustering.everything(runner.load_data(config))
    q = np.asarray(model.apply({"params": state.params}, x, method="log_assignments"))
    found = evaluation.cluster_scores(y, q.argmax(axis=1))
    assert metrics["dec"]["cluster_accuracy"] == [pytest.approx(found.cluster_accuracy, abs=2e-3)]
    before = runner.load(path / "ae-0")[2].params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params["encoder"], before["encoder"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.1  # eight steps on from there
    assert {"figures/codes.png", "figures/centres.png"} <= contents(path).keys()
    assert "| AE + k-means |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "dec", "dec"], "none twice"),
        (["--rows", "ae"], "wanted are some of dec, idec, dcn, vade"),
        (["--num-seeds", "0"], "--num-seeds"),
        (["--dataset", "plain.npy"], "plain.npy has no labels"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "plain.npy", np.random.default_rng(0).random((40, 4, 4)))
    with pytest.raises(SystemExit) as end:
        call("--workdir", "run", *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
