"""The study of the AAE with few labels and none: its rows, the rule by hand, its table, and one from end to end."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import contents

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae_cluster import ClusterAAE
from aejax.methods.aae_semi import SemiAAE
from aejax.methods.m2 import SemiBatch
from aejax.nets import init_params
from aejax.runner import Trained, launch, study, units
from experiments import aae_cluster
from experiments.studies import few_labels_aae
from experiments.studies.few_labels_aae import Config, HParams
from experiments.studies.units import METRICS


def test_rows_have_their_labels_or_their_clusters():
    config = dataclasses.replace(Config(), num_labels=(20, 300), num_clusters=(12,), num_seeds=2, seed=5, num_epochs=3)
    runs = few_labels_aae.runs(config)
    assert [*runs] == [f"{row}-{seed}" for seed in (5, 6) for row in ("labels_20", "labels_300", "clusters_12")]
    few = runner.prepare(few_labels_aae.EXPERIMENT, runs["labels_20-5"][1], shapes_only=True)
    assert isinstance(few.model, SemiAAE)
    assert isinstance(few.feed.train, SemiBatch)
    assert np.bincount(few.feed.train.labelled.y).tolist() == [2] * 10
    assert few.feed.batch_size == SemiBatch(20, 128)
    other = runner.prepare(few_labels_aae.EXPERIMENT, runs["labels_20-6"][1], shapes_only=True)
    assert not np.array_equal(few.feed.train.labelled.x, other.feed.train.labelled.x)  # a draw by the seed
    none = runner.prepare(few_labels_aae.EXPERIMENT, runs["clusters_12-5"][1], shapes_only=True)
    assert isinstance(none.model, ClusterAAE)
    assert none.model.num_clusters == 12
    assert isinstance(none.feed.train, Batch)
    assert none.feed.train.y is None
    assert runs["labels_300-5"][1].label_batch_size == 100


def test_the_rule_goes_by_held_out_images_and_their_logits_by_hand():
    """A linear encoder whose logits are the pixels: cluster 1 is named by the held-out image that is most of it."""
    model = ClusterAAE.dense(4, 1, num_clusters=3, hidden_dims=())
    params = init_params(model, jax.random.key(0), jnp.zeros((1, 4)))
    params = params | {"encoder": {"dense_0": {"kernel": 40 * jnp.eye(4), "bias": jnp.zeros(4)}}}
    held_out = np.array(
        [[1.0, 0, 0, 0], [0, 0.7, 0, 0], [0, 0.9, 0, 0], [0, 0, 1.0, 0]], np.float32
    )  # shares round to 1
    test = np.array([[0, 1.0, 0, 0], [0, 0.2, 0.1, 0], [1.0, 0, 0, 0], [0, 0, 0.5, 0.9]], np.float32)
    parts = Batch(held_out, np.array([4, 7, 8, 4])), Batch(test, np.array([8, 8, 4, 2]))
    dataset = data.Dataset("x", Batch(held_out), parts[0], parts[1], None)
    state = type("State", (), {"params": params})
    trained = Trained(None, model, None, state, dataset, [], jax.random.key(0), jax.random.key(1), {})
    assert aae_cluster.typical_error(trained) == 0.25  # 2 is taken for 4; in float32 8 for 7, too


def test_the_table_has_published_errors_for_mnist_and_their_numbers_alone():
    found = {"typical_error": [0.2, 0.3], "nmi": [0.7, 0.7], "seconds": [10.0, 20.0]}
    metrics = {"labels_1000": {"test_error": [0.021], "seconds": [9.0]}, "clusters_16": found, "clusters_20": found}
    metrics |= {"pixels_16": found, "pixels_20": found}
    summary = {"dataset": "mnist", "num_labels": [1000], "num_clusters": [16, 20], "metrics": metrics}
    head, _, *lines = few_labels_aae.table(summary).splitlines()
    assert head == "| | test error, % | NMI, % | seeds, seconds a run |"
    assert lines == [
        "| 1,000 labels | 2.1 | | 1, 9 |",
        "| 16 clusters | 25.0 ± 7.1 (9.55) | 70 ± 0 | 2, 15 |",
        "| 20 clusters | 25.0 ± 7.1 | 70 ± 0 | 2, 15 |",
        "| 16 clusters, k-means on pixels | 25.0 ± 7.1 | 70 ± 0 | 2, 15 |",
        "| 20 clusters, k-means on pixels | 25.0 ± 7.1 | 70 ± 0 | 2, 15 |",
    ]
    assert "(" not in few_labels_aae.table(summary | {"dataset": "digits"})


def test_clusters_of_pixels_are_named_by_the_image_nearest_to_their_centre():
    """Two heaps about 0 and 10; near the second the closest held-out image is of label 3, a larger one of label 5."""
    train = np.array([[0.0], [0.2], [9.8], [10.2]])
    held_out = Batch(np.array([[0.5], [10.1], [14.0]]), np.array([1, 3, 5]))
    test = Batch(np.array([[1.0], [8.0], [11.0], [30.0]]), np.array([1, 3, 3, 5]))
    found = few_labels_aae.of_pixels(train, held_out, test, 2, 0)
    assert found["typical_error"] == 0.25


def test_typical_images_of_a_cluster_are_those_of_largest_share():
    shares, x = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]]), np.arange(3)[:, None]
    assert few_labels_aae.members(shares, x, 2)[..., 0].tolist() == [[1, 2], [0, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_labels": (6, 6)}, r"--num-labels are \(6, 6\); none may be there twice"),
        ({"num_clusters": (0,)}, "--num-clusters, number 0=0"),
        ({"num_labels": (), "num_clusters": ()}, "There is no row"),
        ({"dataset": "none.npz"}, "has no labels"),
        ({"num_seeds": 0}, "--num-seeds is 0"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    np.savez("none.npz", x=np.random.default_rng(0).random((40, 16)))
    with pytest.raises(InputError, match=message):
        few_labels_aae.runs(dataclasses.replace(Config(), **changes))


@pytest.mark.slow
def test_a_study_ends_with_a_table_its_losses_and_its_clusters(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    means = np.where(rng.random((3, 4, 4)) < 0.5, 0.1, 0.9)
    x = np.clip(means[y] + 0.1 * rng.normal(size=(240, 4, 4)), 0, 1).astype(np.float32)
    np.savez(tmp_path / "three.npz", x=x[:180], y=y[:180], x_test=x[180:], y_test=y[180:])
    flags = ["--dataset", str(tmp_path / "three.npz"), "--num-labels", "6", "--num-clusters", "5", "--style-dim", "1"]
    flags += ["--hidden-dims", "16", "--disc-dims", "16", "--num-epochs", "150", "--batch-size", "40"]
    flags += ["--hparams.gen-lr", "0.002", "--workdir", str(tmp_path / "run")]
    launch.command_line("few_labels_aae", Config, "", study.body(few_labels_aae.STUDY), flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert [name for row in metrics.values() for name in row if units.find(name, METRICS) is None] == []
    assert metrics["labels_6"]["test_error"][0] < 0.2  # guessing is wrong in two of three
    own, model, _ = runner.load(tmp_path / "run" / "clusters_5-0")
    assert own.hparams == HParams(gen_lr=0.002)
    assert model.discriminator.features == (16, 1)
    figures = {"recon_loss", "disc_loss", "gen_loss", "clusters_5"}
    assert {f"figures/{name}.png" for name in figures} <= {*contents(tmp_path / "run")}
