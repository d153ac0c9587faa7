"""Levels of noise: each is a run of its own, pieces are kept, and the table marks the best."""

import json
from functools import partial

import jax
import numpy as np
import optax
import pytest
from jax import nn
from small_run import contents

from aejax import evaluation, schedules, training
from aejax.data import Batch
from aejax.methods.ae import AE
from aejax.methods.dae import HParams, dae
from aejax.nets import init_params
from aejax.runner import launch
from experiments.studies import denoising

CONFIG = denoising.Config(
    num_train=300, latent_dim=6, masking=(0.0, 0.5), gaussian=(0.3,), num_epochs=2, batch_size=100, lr=0.01, seed=3
)
FLAGS = (
    "--num-train", "300", "--latent-dim", "6", "--masking", "0", "0.5", "--gaussian", "0.3", "--batch-size", "100",
    "--lr", "0.01", "--seed", "3", "--num-epochs", "2", "--workdir", "run",
)  # fmt: skip


def call(*flags):
    launch.command_line("denoising", denoising.Config, "", denoising.body, [*FLAGS, *flags])


@pytest.mark.slow
def test_what_is_done_is_kept_and_each_level_is_a_run_of_its_own(tmp_path, monkeypatch, capsys):
    call()
    path = tmp_path / "run"
    whole = json.loads((path / "summary.json").read_text())
    assert np.shape(whole["metrics"]["masking"]["test_sse"]) == (2, 2)
    assert np.shape(whole["metrics"]["gaussian"]["test_sse"]) == (1, 2)
    filters = np.load(path / "masking.npy")
    drawn = {f"{noise}_{what}.png" for noise in ("masking", "gaussian") for what in ("error", "filters")}
    assert {file.name for file in (path / "figures").iterdir()} == drawn
    assert "| masking, 0.5 |" in capsys.readouterr().out
    before = contents(path)
    call()
    assert contents(path) == before
    path.rename(tmp_path / "whole")

    # Ended by a full disk in the third of the four pieces.
    train, calls = denoising.train, []

    def broken(config, dataset, corruption, seed):
        calls.append((corruption, seed))
        if len(calls) == 3:
            raise OSError("the disk is full")
        return train(config, dataset, corruption, seed)

    monkeypatch.setattr(denoising, "train", broken)
    monkeypatch.setattr(denoising, "draw", lambda *args: None)
    with pytest.raises(SystemExit):
        call()
    assert calls == [("masking", 3), ("gaussian", 3), ("masking", 4)]
    before = contents(path)
    call("--resume")
    assert calls[3:] == [("masking", 4), ("gaussian", 4)]
    after = contents(path)
    assert {name: after[name] for name in before if name.endswith((".npy", "3.json"))} == {
        name: before[name] for name in before if name.endswith((".npy", "3.json"))
    }
    assert json.loads((path / "summary.json").read_text())["metrics"] == whole["metrics"]

    # The second level with the first seed, by itself.
    dataset = denoising.load(CONFIG)
    x = dataset.train.x
    model = AE.dense(64, 6, hidden_dims=(), code_activation=nn.sigmoid, tied=True)
    algo = dae(model, HParams(0.01, 0.5), lambda lr: optax.adam(schedules.cosine(lr, 6)), corruption="masking")
    init_key, train_key, _ = jax.random.split(jax.random.key(3), 3)
    fit = jax.jit(partial(training.fit, algo, batch_size=100, num_epochs=2))
    params = fit(algo.init(init_params(model, init_key, x)), Batch(x), train_key)[0].params
    np.testing.assert_allclose(filters[1], params["encoder"]["dense_0"]["kernel"], rtol=1e-4, atol=1e-5)
    found = {name: values[1][0] for name, values in whole["metrics"]["masking"].items()}
    x_hat = np.asarray(evaluation.reconstruct(model, params, dataset.test.x), np.float64)
    assert found["test_sse"] == pytest.approx(np.square(x_hat - dataset.test.x).sum(axis=1).mean(), rel=1e-4)
    codes = [evaluation.embed(model, params, split.x) for split in (dataset.train, dataset.test)]
    wrong = 1 - evaluation.linear_probe(codes[0], dataset.train.y, codes[1], dataset.test.y)
    assert found["probe_error"] == pytest.approx(wrong, abs=1.5 / len(codes[1]))  # a label on the border, at most


def test_more_epochs_make_every_piece_anew(tmp_path, monkeypatch):
    calls = []

    def train(config, dataset, corruption, seed):
        calls.append((config.num_epochs, corruption, seed))
        values = {name: [0.1 * config.num_epochs] * len(getattr(config, corruption)) for name in denoising.METRICS}
        return {**values, "filters": np.ones((len(getattr(config, corruption)), 64, 6))}

    monkeypatch.setattr(denoising, "train", train)
    monkeypatch.setattr(denoising, "draw", lambda *args: None)
    call("--num-seeds", "1")
    call("--num-seeds", "1", "--num-epochs", "5", "--resume")
    assert calls == [(epochs, noise, 3) for epochs in (2, 5) for noise in ("masking", "gaussian")]
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert metrics["masking"]["test_sse"] == [[0.5], [0.5]]


def test_the_table_marks_the_lowest_mean_error_of_each_noise():
    found = lambda errors: {
        "probe_error": errors, "test_sse": [[2.0, 2.0]] * len(errors), "filter_sharpness": [[0.25, 0.25]] * len(errors),
    }  # fmt: skip
    metrics = {"masking": found([[0.10, 0.12], [0.05, 0.15], [0.02, 0.2]]), "gaussian": found([[0.3, 0.3]])}
    summary = {"masking": [0, 0.25, 0.5], "gaussian": [1.0], "raw": 0.0875, "metrics": metrics}
    _, _, *lines = denoising.table(summary).splitlines()
    assert lines == [
        "| masking, 0 | 11.0 ± 1.4 | 2 ± 0 | 0.25 ± 0 | 2 |",
        "| masking, 0.25 | 10.0 ± 7.1 (lowest) | 2 ± 0 | 0.25 ± 0 | 2 |",
        "| masking, 0.5 | 11 ± 13 | 2 ± 0 | 0.25 ± 0 | 2 |",
        "| gaussian, 1 | 30 ± 0 (lowest) | 2 ± 0 | 0.25 ± 0 | 2 |",
        "| raw pixels | 8.75 | | | |",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds has to be at least 1"),
        (["--masking"], "--masking and --gaussian need at least one level"),
        (["--masking", "0.5", "1.5"], "1.5"),
        (["--gaussian", "-1"], "-1"),
        (["--lr", "0"], "lr is 0.0"),
        (["--batch-size", "301"], "batch_size=301 exceeds the 300 examples"),
        (["--num-train", "5000"], "--num-train is 5000"),
        (["--devices", "2"], "one device"),
        (["--seed", "-1"], "--seed is -1"),
        (["--dataset", "faces.npy"], "faces has no labels"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, flags, message):
    np.save(tmp_path / "faces.npy", np.random.default_rng(0).random((700, 4, 4)))
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
