"""The deep and the convolutional autoencoder as studies: their networks by hand, PCA beside them, and a small run."""

import dataclasses
import json
from functools import partial
from itertools import pairwise

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA
from small_run import contents

from aejax import data, nets, runner
from aejax.methods.ae import AE
from aejax.nets import TiedMLP
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments.studies import conv_ae, deep_ae


def num_params(experiment, config, shape):
    model = experiment.build_model(config, Spec(shape))
    params = jax.eval_shape(lambda key: nets.init_params(model, key, np.zeros((1, *shape), np.float32)), KEY)
    return model, sum(leaf.size for leaf in jax.tree.leaves(params))


KEY = jax.random.key(0)
PUBLISHED = dataclasses.replace(deep_ae.Config(), dataset="mnist", hidden_dims=(1000, 500, 250), latent_dim=30)


def test_the_deep_network_is_tied_and_smooth():
    runs = deep_ae.runs(dataclasses.replace(PUBLISHED, num_seeds=3, seed=4))
    assert list(runs) == ["deep-4", "deep-5", "deep-6"]
    experiment, own = runs["deep-5"]
    assert (own.seed, own.validation, own.schedule, own.likelihood) == (5, 0.0, "cosine", "bernoulli")
    model, count = num_params(experiment, own, (784,))
    kernels, biases = 784 * 1000 + 1000 * 500 + 500 * 250 + 250 * 30, (1000 + 500 + 250 + 30) + (250 + 500 + 1000 + 784)
    assert count == kernels + biases == 1_420_814
    assert isinstance(model.decoder, TiedMLP)
    np.testing.assert_allclose(model.encoder.activation(np.float32(-1)), -0.15865525, rtol=2e-3)  # x Phi(x), by tanh
    _, count = num_params(experiment, dataclasses.replace(own, tied=False), (784,))
    assert count == 2 * kernels + biases


def test_the_convolutional_network_is_that_of_the_textbook():
    """28 x 28 pixels, 7 x 7 behind the strides: Foster (2019) counts 98,946 parameters down and 102,017 back."""
    runs = conv_ae.runs(conv_ae.Config())
    assert list(runs) == ["conv-0", "dense-0", "deep-0"]
    down = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64 + 2 * (9 * 64 + 1) * 64 + (7 * 7 * 64 + 1) * 2
    back = (2 + 1) * 7 * 7 * 64 + 2 * (9 * 64 + 1) * 64 + (9 * 64 + 1) * 32 + (9 * 32 + 1) * 1
    assert (down, back) == (98_946, 102_017)
    model, count = num_params(*runs["conv-0"], (28, 28, 1))
    assert count == down + back
    assert (model.encoder.features, model.encoder.strides) == ((32, 64, 64, 64), (1, 2, 2, 1))
    ways = lambda *widths: sum((a + 1) * b for a, b in pairwise(widths))
    for name, hidden in (("dense", (128, 64)), ("deep", (1000, 500, 250))):
        _, count = num_params(*runs[f"{name}-0"], (784,))
        assert count == ways(784, *hidden, 2) + ways(2, *hidden[::-1], 784)
    shared = {(own.latent_dim, own.num_epochs, own.batch_size, own.hparams) for _, own in runs.values()}
    assert len(shared) == 1


def test_pca_is_that_of_scikit_learn():
    dataset = data.flatten(data.load("digits", validation=0.0))
    train, test = (split.x.astype(np.float64) for split in (dataset.train, dataset.test))
    pca = PCA(10, svd_solver="full").fit(train)
    error = lambda x: np.square(pca.inverse_transform(pca.transform(x)) - x).sum(axis=1).mean()
    found = deep_ae.beside(deep_ae.Config(), dataset, None)["pca"]
    assert found["train_sse"] == pytest.approx([error(train)], rel=1e-6)
    assert found["test_sse"] == pytest.approx([error(test)], rel=1e-6)
    images = data.load("digits", validation=0.0)
    assert conv_ae.beside(conv_ae.Config(latent_dim=10), images, None)["pca"]["test_sse"] == found["test_sse"]


def test_published_errors_stand_beside_their_own_size_alone():
    deep = {"train_sse": [2.0, 2.2], "test_sse": [3.1, 3.3], "probe_accuracy": [0.95, 0.97], "seconds": [90.0, 110.0]}
    pca = {"train_sse": [13.8], "test_sse": [13.866]}
    summary = {"dataset": "mnist", "hidden_dims": [1000, 500, 250], "latent_dim": 30}
    summary["metrics"] = {"pca": pca, "deep": deep}
    _, _, *lines = deep_ae.table(summary).splitlines()
    assert lines == [
        "| deep AE 1000-500-250-30 | 2.10 ± 0.14 | 3.20 ± 0.14 (3.00) | 96.0 ± 1.4 | 2, 100 |",
        "| PCA | 13.8 | 13.866 (13.87) | | |",
    ]
    for change in ({"dataset": "digits"}, {"latent_dim": 10}, {"hidden_dims": [1000, 500]}):
        assert "(" not in deep_ae.table(summary | change)


def test_the_table_of_networks_counts_parameters():
    row = {"num_params": [200_963.0], "train_sse": [30.0], "test_sse": [31.0], "probe_accuracy": [0.75]}
    metrics = {"pca": {"test_sse": [39.0]}, "conv": row | {"knn5_accuracy": [0.5], "seconds": [9.0]}, "deep": row}
    _, _, *lines = conv_ae.table({"latent_dim": 2, "metrics": metrics}).splitlines()
    assert lines == [
        "| PCA, 2 components | | | 39 | | | |",
        "| convolutional, 32-64-64-64 | 200,963 | 30 | 31 | 75 | 50 | 1, 9 |",
        "| dense, 1000-500-250 | 200,963 | 30 | 31 | 75 | | |",
    ]


@pytest.fixture
def faces(tmp_path):
    """Of ten test images, which are fewer than a sheet has room for."""
    rng, y = np.random.default_rng(0), np.arange(40) % 2
    np.savez(tmp_path / "faces.npz", x=rng.random((40, 4, 4)), y=y, x_test=rng.random((10, 4, 4)), y_test=y[:10])
    return "faces.npz"


def call(module, *flags):
    command = [*flags, "--workdir", "run"]
    launch.command_line(module.STUDY.name, module.Config, "", study.body(module.STUDY), command)


@pytest.mark.slow
def test_a_deep_run_ends_beside_pca_even_with_a_code_of_all_directions(tmp_path, faces, capsys):
    flags = ("--dataset", faces, "--hidden-dims", "8", "--latent-dim", "17", "--num-epochs", "1", "--batch-size", "20")
    call(deep_ae, *flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(metrics) == ["pca", "deep"]
    assert metrics["pca"]["test_sse"][0] == pytest.approx(0, abs=1e-6)
    assert "| deep AE 8-17 |" in capsys.readouterr().out
    config, model, state = runner.load(tmp_path / "run" / "deep-0")
    x = runner.load_data(config).train.x.astype(np.float64)
    x_hat = np.asarray(model.apply({"params": state.params}, x.astype(np.float32), method="reconstruct"), np.float64)
    assert metrics["deep"]["train_sse"][0] == pytest.approx(np.square(x_hat - x).sum(axis=1).mean(), rel=1e-5)
    before = contents(tmp_path / "run")
    assert "figures/reconstructions.png" in before
    call(deep_ae, *flags)
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_a_run_of_three_networks_draws_each_of_them(tmp_path, faces, capsys, monkeypatch):
    """With networks that compile quickly."""
    monkeypatch.setattr(AE, "conv", partial(AE.conv, features=(3,), strides=(2,)))
    monkeypatch.setattr(conv_ae, "_DENSE", {"dense": (), "deep": ()})
    call(conv_ae, "--dataset", faces, "--num-epochs", "1", "--batch-size", "20")
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(metrics) == ["pca", "conv", "dense", "deep"]
    assert metrics["conv"]["num_params"] == [(9 + 1) * 3 + (12 + 1) * 2 + (2 + 1) * 12 + (9 * 3 + 1)]
    assert metrics["dense"]["num_params"] == [(16 + 1) * 2 + (2 + 1) * 16]
    assert metrics["dense"]["test_sse"] == metrics["deep"]["test_sse"]  # the same network, here
    assert "| convolutional, 32-64-64-64 | 120 |" in capsys.readouterr().out
    drawn = {f"{what}_{name}.png" for what in ("codes", "decodes") for name in conv_ae.ROWS}
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"reconstructions.png", *drawn}


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (deep_ae, ["--num-seeds", "0"], "--num-seeds is 0"),
        (deep_ae, ["--lr", "0"], "lr is 0.0"),
        (conv_ae, ["--num-seeds", "0"], "--num-seeds is 0"),
        (conv_ae, ["--dataset", "vectors.npy"], "--net conv needs images"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, module, flags, message):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).random((700, 16)))
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call(module, *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
