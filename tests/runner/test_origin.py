"""Runs that begin with the last parameters of another run: `--from FOLDER`."""

import dataclasses
import os
import shlex
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import test_study
from small_run import EXPERIMENT, check_same, contents, read
from test_interruption import at_step, damage, flip, pasted, saved_steps, send

from aejax import runner
from aejax.runner import study
from aejax.runner.folder import default_path
from experiments import ae, dec, vae

RUN = Path("run")
CONFIG = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=20, hparams=ae.method.HParams(lr=1e-4))
FLAGS = ("--num-epochs", 20, "--hparams.lr", 1e-4)


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.slow
def test_it_is_the_run_with_these_parameters(call, finished):
    assert call("--workdir", RUN, "--from", finished, *FLAGS).code == 0
    old = runner.load(finished)[2].params
    assert equal(runner.load(RUN)[2], runner.run(EXPERIMENT, CONFIG, params=old).state)
    begun = read(RUN / "config.json")["from"]
    assert (begun["folder"], begun["step"], len(begun["digest"])) == (str(finished), 300, 16)
    assert read(RUN / "environment.json")["from"] == str(finished)


def test_it_has_a_default_folder_of_its_own(call, finished):
    assert call("--from", finished, *FLAGS).code == 0
    assert default_path("ae", CONFIG, finished) != default_path("ae", CONFIG)
    assert (default_path("ae", CONFIG, finished) / "summary.json").exists()
    assert not default_path("ae", CONFIG).exists()
    assert "is finished already" in call("--from", finished, *FLAGS).out


@pytest.mark.parametrize(
    ("experiment", "flags", "differs"),
    [
        (
            EXPERIMENT,
            ["--latent-dim", 3],
            "encoder.features is (8, 2) there and (8, 3) here; latent_dim is 2 there and",
        ),
        (EXPERIMENT, ["--hidden-dims", 9], "encoder.features is (8, 2) there and (9, 2) here; decoder.features is"),
        (EXPERIMENT, ["--activation", "tanh"], "encoder.activation is relu there and tanh here; decoder.activation is"),
        (EXPERIMENT, ["--likelihood", "gaussian"], "likelihood is bernoulli there and gaussian here. Give"),
        (vae.EXPERIMENT, [], "the model is AE there and VAE here. Give"),
    ],
    ids=["code", "widths", "activation", "likelihood", "method"],
)
def test_another_model_is_refused_with_what_differs(call, finished, tmp_path, experiment, flags, differs):
    outcome = call("--from", finished, *flags, experiment=experiment)
    assert outcome.code == 2
    assert f"error: --from {finished}: that run is of another model: {differs}" in outcome.err
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_refused(call, finished, tmp_path):
    outcome = call("--from", "nowhere")
    assert outcome.code == 2
    assert outcome.err == "error: --from: nowhere holds no run: config.json is missing or damaged.\n"
    shutil.copytree(finished, "begun", ignore=lambda *_: ["checkpoints"])
    outcome = call("--from", "begun")
    assert (outcome.code, outcome.err) == (2, "error: --from: begun holds no checkpoint yet.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


@pytest.mark.first(1)
@pytest.mark.parametrize("gone", ["still there", "trained further", "gone"])
def test_an_interrupted_one_goes_on_to_the_same_bits(call, finished, gone):
    shutil.copytree(finished, "old")
    flags = ("--from", "old", *FLAGS)
    assert call("--workdir", "whole", *flags).code == 0
    with at_step(20, lambda: send(signal.SIGTERM)):
        outcome = call("--workdir", RUN, *flags)
    assert outcome.code == 143
    if gone == "trained further":
        assert call("--workdir", "old", "--num-epochs", 151, "--resume").code == 0
    if gone == "gone":
        shutil.rmtree("old")
    assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, Path("whole"))
    assert read(RUN / "config.json")["from"] == read(Path("whole/config.json"))["from"]


def test_in_its_default_folder_it_goes_on_too(call, finished):
    shutil.copytree(finished, "old")
    with at_step(20, lambda: send(signal.SIGTERM)):
        outcome = call("--from", "old", *FLAGS)
    shutil.rmtree("old")
    assert call(*pasted(outcome.err)).code == 0
    assert (default_path("ae", CONFIG, "old") / "summary.json").exists()


@pytest.mark.filterwarnings("default::aejax.checkpoint.CheckpointWarning")
def test_where_both_its_checkpoints_and_its_origin_are_lost_it_does_not_begin_afresh(call, finished):
    shutil.copytree(finished, "old")
    with at_step(20, lambda: send(signal.SIGTERM)):
        assert call("--workdir", RUN, "--from", "old", *FLAGS).code == 143
    for step in saved_steps(RUN):
        damage(step, flip)
    shutil.move("old", "moved")
    before = contents(RUN)
    outcome = call("--workdir", RUN, "--from", "old", *FLAGS, "--resume")
    assert (outcome.code, contents(RUN)) == (2, before)
    assert outcome.err.endswith(
        "error: run has no intact checkpoint, and old no longer has the parameters that it began with. Bring those"
        " back, or give another --workdir and --from, without --resume.\n"
    )
    assert call("--workdir", "another", "--from", finished, *FLAGS).code == 0
    shutil.move("moved", "old")
    assert call("--workdir", RUN, "--from", "old", *FLAGS, "--resume").code == 0


def test_a_folder_of_a_run_that_began_otherwise_is_refused(call, finished):
    shutil.copytree(finished, "old")
    assert call("--workdir", "fresh", *FLAGS).code == 0
    assert call("--workdir", RUN, "--from", "old", *FLAGS).code == 0
    outcome = call("--workdir", "fresh", "--from", "old", *FLAGS)
    assert outcome.code == 2
    assert "fresh holds a run that began with fresh parameters, not with those of step 300 of old." in outcome.err
    assert "Leave --from out, or give another --workdir." in outcome.err
    assert "is finished already" in call("--workdir", "fresh", *FLAGS).out
    outcome = call("--workdir", RUN, *FLAGS)
    assert outcome.code == 2
    assert "run holds a run that began with the parameters of step 300 of old, not with fresh ones." in outcome.err
    assert "Add --from old, or give another --workdir." in outcome.err
    assert "is finished already" in call("--workdir", RUN, "--from", "old", *FLAGS).out
    assert call("--workdir", "old", "--num-epochs", 151, "--resume").code == 0
    outcome = call("--workdir", RUN, "--from", "old", *FLAGS)
    assert outcome.code == 2
    assert (
        "began with the parameters of step 300 of old, not with those of step 302 of old. Give another" in outcome.err
    )


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--workdir rate", "--workdir=rate"])
def test_another_rate_on_resume_is_told_how_to_go_on(call, form):
    """Five epochs, then five more at a tenth of the rate: what the message says is pasted."""
    assert call("--num-epochs", 5, "--workdir", "rate").code == 0
    before = contents(Path("rate"))
    outcome = call("--num-epochs", 10, *form.split(), "--resume", "--hparams.lr", "1e-4")
    assert (outcome.code, contents(Path("rate"))) == (2, before)
    said, line = outcome.err.splitlines()
    assert said.startswith("error: rate holds another run: hparams {'lr': 0.001} there and {'lr': 0.0001} here, ")
    assert said.endswith(" Or begin a new run with its last parameters, for the 5 epochs that are left:")
    words = shlex.split(line)
    assert words[1:3] == ["-m", "experiments.ae"]
    assert not {"--workdir", "--workdir=rate", "--resume", "10"} & {*words}
    assert call(*words[3:]).code == 0
    (path,) = Path("runs").iterdir()
    saved = read(path / "config.json")
    assert (saved["config"]["num_epochs"], saved["config"]["hparams"]) == (5, {"lr": 1e-4})
    assert (saved["from"]["folder"], saved["from"]["step"]) == ("rate", 10)
    assert contents(Path("rate")) == before
    config = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=5, hparams=ae.method.HParams(lr=1e-4))
    begun = runner.run(EXPERIMENT, config, params=runner.load("rate")[2].params)
    assert equal(runner.load(path)[2], begun.state)


def test_it_is_not_told_where_it_would_be_refused(call, finished):
    outcome = call("--workdir", finished, "--latent-dim", 3, "--resume")
    assert outcome.err.splitlines() == [
        f"error: {finished} holds another run: latent_dim 2 there and 3 here. Give another --workdir, without --resume."
    ]
    os.mkdir("begun")
    shutil.copy(finished / "config.json", "begun")
    assert len(call("--workdir", "begun", "--hparams.lr", 1, "--resume").err.splitlines()) == 1


def test_a_study_has_no_single_origin(capsys, finished, tmp_path, monkeypatch):
    tiny = study.Study("tiny", test_study.Config, lambda config: {}, str, lambda *_: {})
    monkeypatch.setattr("sys.argv", ["tiny", "--from", str(finished)])
    with pytest.raises(SystemExit) as end:
        study.main(tiny, "What it is.")
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --from is for a single run; leave it out here.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_method_of_more_groups_begins_with_the_networks_of_another_and_starts_the_rest(call, finished):
    """Clusters from a plain autoencoder: its parameters as they were, and centres that are k-means of its codes."""
    old = runner.load(finished)[2].params
    config = dec.Config(hidden_dims=(8,), latent_dim=2, likelihood="bernoulli", batch_size=512, num_clusters=3)
    ready = runner.prepare(dec.EXPERIMENT, config, shapes_only=True)
    begun = ready.begun(old).params
    assert equal({group: begun[group] for group in old}, old)
    assert set(begun) == {*old, "centres", "snapshot"}
    z = np.asarray(ready.model.apply({"params": begun}, ready.feed.train.x, method="embed"))
    chosen = np.square(z[:, None] - np.asarray(begun["centres"])[None]).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(begun["centres"], [z[chosen == k].mean(axis=0) for k in range(3)], atol=1e-3)
    flags = ("--latent-dim", 2, "--likelihood", "bernoulli", "--num-clusters", 3, "--num-epochs", 1)
    assert call("--workdir", RUN, "--from", finished, *flags, experiment=dec.EXPERIMENT).code == 0
    run = runner.run(dec.EXPERIMENT, dataclasses.replace(config, num_epochs=1), params=old)
    assert equal(runner.load(RUN)[2], run.state)
    assert {"cluster_accuracy", "nmi", "ari"} < run.metrics.keys()
    outcome = call("--workdir", "other", "--from", finished, *flags, "--latent-dim", 3, experiment=dec.EXPERIMENT)
    assert outcome.code == 2
    assert "the model is AE there and DEC here" in outcome.err
