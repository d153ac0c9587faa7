import dataclasses
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import contents

import aejax
from aejax.checks import InputError
from aejax.runner import environment, folder
from aejax.runner.config import from_dict, to_dict
from aejax.runner.folder import RunFolder, default_path, open_folder
from experiments import aae, ae, m2, vae
from experiments.studies import geometry

CONFIG = ae.Config()


def begin(path, config=CONFIG, name="ae"):
    """An unfinished run in a folder."""
    run = open_folder(name, config, path, resume=False)
    run.start()
    return run


def finish(run):
    folder.write_json(run.path / "summary.json", {"num_epochs": run.config["num_epochs"]})


def test_the_default_folder_is_named_after_everything_that_decides_the_numbers():
    path = default_path("ae", CONFIG)
    assert str(path).startswith("runs/ae-digits-")
    assert len(path.name.rpartition("-")[2]) == 8
    assert path == default_path("ae", ae.Config())
    others = [dataclasses.replace(CONFIG, seed=1), dataclasses.replace(CONFIG, hparams=ae.method.HParams(lr=0.5))]
    assert len({path, default_path("dae", CONFIG), *(default_path("ae", other) for other in others)}) == 4
    assert default_path("ae", ae.Config(dataset="~/my/faces.npy")).name.startswith("ae-faces-")


def test_fields_that_came_later_leave_folders_the_same_runs(tmp_path):
    """The names are those that the first version gave."""
    for experiment, name in ((ae, "ae-digits-1cf07276"), (vae, "vae-digits-7e65f7f9"), (aae, "aae-digits-469e43cd")):
        assert default_path(name.partition("-")[0], experiment.Config()).name == name
    assert default_path("m2", m2.Config()).name == "m2-digits-13db110b"  # whose knobs were one less
    assert default_path("geometry", geometry.Config()).name == "geometry-digits-d3ec382f"
    run = begin(tmp_path, vae.Config(), "vae")
    saved = json.loads((run.path / "config.json").read_text())["config"]
    assert not {"clip", "warmup_epochs"} & saved.keys()
    clipped = vae.Config(clip=1.0, warmup_epochs=3)
    with pytest.raises(InputError, match=r"clip None there and 1.0 here, warmup_epochs None there and 3 here"):
        open_folder("vae", clipped, tmp_path, resume=True)
    assert default_path("vae", clipped) != default_path("vae", vae.Config())
    assert from_dict(vae.Config, json.loads(json.dumps(to_dict(clipped)))) == clipped
    half = m2.Config(hparams=m2.method.HParams(labelled=0.5))
    assert default_path("m2", half) != default_path("m2", m2.Config())
    assert from_dict(m2.Config, json.loads(json.dumps(to_dict(half)))) == half


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_folder_is_not_made_by_opening_it(tmp_path, resume):
    if resume:
        with pytest.raises(InputError, match=r"nothing to resume: .*new does not exist"):
            open_folder("ae", CONFIG, tmp_path / "new", resume=True)
    else:
        assert open_folder("ae", CONFIG, tmp_path / "new", resume=False).summary is None
    assert not (tmp_path / "new").exists()


def test_resuming_what_never_was_names_the_runs_beside_it(tmp_path):
    begin(tmp_path / "vae-beta4")
    with pytest.raises(InputError, match=r"Did you mean '.*vae-beta4'") as error:
        open_folder("ae", CONFIG, tmp_path / "vae-beta5", resume=True)
    meant = str(error.value).rpartition("Did you mean '")[2].removesuffix("'?")
    assert open_folder("ae", CONFIG, Path(meant), resume=True).summary is None


def test_an_unfinished_run_needs_resume(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match=r"unfinished run of this configuration. Add --resume"):
        open_folder("ae", CONFIG, tmp_path, resume=False)
    assert open_folder("ae", CONFIG, tmp_path, resume=True).summary is None


@pytest.mark.parametrize("resume", [False, True])
def test_another_run_is_always_refused(tmp_path, resume):
    finish(begin(tmp_path))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"holds another run: latent_dim 2 there and 3 here, seed 0 there and 1 here."):
        open_folder("ae", ae.Config(latent_dim=3, seed=1), tmp_path, resume=resume)
    with pytest.raises(InputError, match="holds a run of ae, not of dae"):
        open_folder("dae", CONFIG, tmp_path, resume=resume)
    assert contents(tmp_path) == before


def test_epochs_may_grow_and_only_with_resume(tmp_path):
    finish(begin(tmp_path))
    longer = dataclasses.replace(CONFIG, num_epochs=CONFIG.num_epochs + 1)
    assert open_folder("ae", longer, tmp_path, resume=True).config["num_epochs"] == 201
    with pytest.raises(InputError, match=r"num_epochs 200 there and 201 here. It may grow with --resume"):
        open_folder("ae", longer, tmp_path, resume=False)
    with pytest.raises(InputError, match="num_epochs 200 there and 199 here"):
        open_folder("ae", dataclasses.replace(CONFIG, num_epochs=199), tmp_path, resume=True)
    with pytest.raises(InputError, match="num_epochs 200 there and 201 here, seed 0 there and 1 here"):
        open_folder("ae", dataclasses.replace(longer, seed=1), tmp_path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "holds", ["another run", "fewer epochs", "another experiment", "a thesis", "damage", "an origin"]
)
def test_where_a_folder_is_taken_another_one_is_begun(tmp_path, holds, resume):
    """Without --resume, for there is nothing to resume in it."""
    path = tmp_path / "taken"
    if holds == "a thesis":
        path.mkdir()
        (path / "thesis.tex").write_text("Chapter 1")
    else:
        changed = {"another run": {"seed": 1}, "fewer epochs": {"num_epochs": 201}}.get(holds, {})
        finish(begin(path, dataclasses.replace(CONFIG, **changed), "dae" if holds == "another experiment" else "ae"))
    if holds == "damage":
        (path / "config.json").write_text("{")
    origin = {"folder": "old", "step": 3, "digest": "d"} if holds == "an origin" else None
    with pytest.raises(InputError, match=f"another --workdir{', without --resume' * resume}\\.$") as error:
        open_folder("ae", CONFIG, path, resume=resume, origin=origin)
    assert "may grow" not in str(error.value)  # which fewer epochs would not
    assert open_folder("ae", CONFIG, tmp_path / "another", resume=False, origin=origin).summary is None


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("Chapter 1")
    with pytest.raises(InputError, match=r"not empty and holds no run \(thesis.tex\)"):
        open_folder("ae", CONFIG, tmp_path, resume=False)
    for text in ('{"model_type": "bert"}', "[]", "{", ""):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config.json is damaged, or of something else"):
            open_folder("ae", CONFIG, tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is not a folder"):
        open_folder("ae", CONFIG, tmp_path / "file", resume=False)
    with pytest.raises(InputError, match="file is not a folder"):
        open_folder("ae", CONFIG, tmp_path / "file" / "below" / "it", resume=False)
    monkeypatch.setattr(folder.os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(InputError, match="run cannot be written"):
        open_folder("ae", CONFIG, tmp_path / "run", resume=False)
    (tmp_path / "file").unlink()
    run = RunFolder(tmp_path, "ae", to_dict(CONFIG))
    run.start()
    with pytest.raises(InputError, match="cannot be written"):
        open_folder("ae", CONFIG, tmp_path, resume=True)
    finish(run)
    assert open_folder("ae", CONFIG, tmp_path, resume=False).is_finished  # and may be looked at


def test_an_empty_folder_and_one_killed_while_its_first_file_was_written_are_new(tmp_path):
    (tmp_path / ".config.json.partial").write_text('{"exper')
    assert open_folder("ae", CONFIG, tmp_path, resume=False).summary is None
    assert open_folder("ae", CONFIG, tmp_path, resume=True).summary is None


def test_starting_a_longer_run_removes_the_summary_first(tmp_path, monkeypatch):
    """Whenever it is killed, the folder never looks finished for a configuration that it has not finished."""
    finish(begin(tmp_path))
    longer = open_folder("ae", dataclasses.replace(CONFIG, num_epochs=300), tmp_path, resume=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        longer.start()
    assert open_folder("ae", CONFIG, tmp_path, resume=True).summary is None


def test_one_process_at_a_time(tmp_path):
    first, second = RunFolder(tmp_path, "ae", {}), RunFolder(tmp_path, "ae", {})
    first.claim()
    with pytest.raises(InputError, match=f"Another process is training in {tmp_path}"):
        second.claim()
    first.release()
    second.claim()
    second.release()


@pytest.mark.slow
def test_a_claim_ends_with_its_process(tmp_path):
    code = (
        "import pathlib, sys; from aejax.runner.folder import *; RunFolder(pathlib.Path(sys.argv[1]), '', {}).claim()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    RunFolder(tmp_path, "ae", {}).claim()


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "summary.json"
    folder.write_json(file, {"a": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}


def test_the_environment_is_known_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = environment.environment()
    assert found["commit"] is None
    assert found["versions"]["jax"]
    assert found["versions"]["aejax"] == aejax.__version__
    assert len(found["devices"]) == 8


def test_packages_that_are_not_installed_have_no_version(monkeypatch):
    def version(name):
        if name == "tensorflow-datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    versions = environment.environment()["versions"]
    assert "tensorflow-datasets" not in versions
    assert versions["jax"] == "1.0"


def test_the_commit_is_that_of_the_own_checkout_only(tmp_path):
    def git(where, *words):
        own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *own, *words], cwd=where, check=True, capture_output=True, text=True).stdout

    def package(where, name="aejax"):
        (where / "aejax").mkdir(parents=True)
        (where / "aejax" / "__init__.py").touch()
        (where / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
        return where

    thesis = package(tmp_path / "thesis", name="thesis")
    git(thesis, "init", "-q")
    assert environment.commit_of(package(thesis / "env")) is None  # installed inside it
    git(thesis, "add", "-A")
    git(thesis, "commit", "-qm", "with what was installed")
    assert environment.commit_of(thesis / "env") is None
    assert environment.commit_of(thesis) is None  # a copy of the package at its top
    own = package(tmp_path / "own")
    assert environment.commit_of(own) is None  # no repository
    git(own, "init", "-q")
    assert environment.commit_of(own) is None  # not in it yet
    git(own, "add", "-A")
    git(own, "commit", "-qm", "aejax")
    commit = git(own, "rev-parse", "HEAD").strip()
    assert commit.startswith(environment.commit_of(own))
    (own / "pyproject.toml").write_text('[project]\nname = "aejax"\nversion = "0.2"\n')
    assert environment.commit_of(own).endswith("-dirty")
