"""Run folders of commit 80f4499, one per experiment of that time: they open, and go on, under the names of today."""

import json
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from small_run import read

from aejax import evaluation, runner
from aejax.runner import launch, study
from aejax.runner.config import from_dict
from aejax.runner.console import Bars
from aejax.runner.loading import find

ARCHIVES = Path(__file__).parent / "old_runs"
RUNS = sorted(path.name.partition(".")[0] for path in ARCHIVES.glob("*") if "_study" not in path.name)
STUDIES = {
    "compare": "compare", "contraction": "spectra", "contractive": "contractive", "deep_ae": "deep_ae",
    "linear_ae": "linear_ae", "sparse_ae": "sparse_codes", "stacked": "pretraining",
}  # fmt: skip


@pytest.fixture
def unpacked(tmp_path):
    def unpack(name):
        with tarfile.open(ARCHIVES / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name

    return unpack


def test_there_is_one_for_every_experiment_of_that_time():
    assert {*RUNS} == {
        *[
            "aae",
            "ae",
            "cae",
            "cae_h",
            "dae",
            "geometry",
            "k_sparse",
            "linear_ae",
            "rcae",
            "scae",
            "sparse",
            "stacked",
            "vae",
        ]
    }


@pytest.mark.first(6)
@pytest.mark.parametrize("name", RUNS)
def test_it_opens_with_the_numbers_that_it_reported(name, unpacked):
    folder = unpacked(name)
    config, model, state = runner.load(folder)
    summary = read(folder / "summary.json")
    assert int(state.step) == json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    if name in ("aae", "stacked"):  # its discriminator was made constant afterwards; a stage that is measured later
        assert jax.tree.all(jax.tree.map(lambda v: bool(np.isfinite(v).all()), state.params))
        return
    test = runner.load_data(config).test
    sse = evaluation.reconstruction_sse(model, state.params, test.x)
    np.testing.assert_allclose(sse, summary["metrics"]["test_sse"], rtol=1e-4)


TRAINED = [name for name in RUNS if name not in ("aae", "linear_ae", "stacked")]  # what is whole, and begins afresh
SOONER = ("ae", "vae", "sparse")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name in SOONER else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.optimised])
        for name in TRAINED
    ],
)
def test_the_code_of_today_trains_to_the_same_parameters(name, unpacked):
    """To the rounding of another compiler, which the first steps of Adam enlarge."""
    folder = unpacked(name)
    config, model, state = runner.load(folder)
    experiment = find(read(folder / "config.json"))
    again = runner.run(experiment._replace(measure=lambda trained: {}), config)
    assert again.model == model
    for there, here in zip(*map(jax.tree.leaves, (state.params, again.state.params)), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [{name: value for name, value in row.items() if not name.startswith("val/")} for row in again.history]
    for old, new in zip(rows, trained, strict=True):  # validation of noisy losses has another draw today
        assert {name: old[name] for name in new} == pytest.approx(new, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ae", "sparse", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vae", "aae"))])
def test_it_goes_on_for_more_epochs(name, unpacked, monkeypatch):
    folder = unpacked(name)
    saved = read(folder / "config.json")
    experiment = find(saved)._replace(draw=lambda trained: {}, measure=lambda trained: {})
    flags = []
    for key, value in saved["config"].items():
        if key in ("hidden_dims", "latent_dim", "num_train", "num_test", "batch_size"):
            flags += [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    launch.main(experiment, None, [*flags, "--workdir", str(folder), "--num-epochs", "2", "--resume"])
    assert read(folder / "summary.json")["num_epochs"] == 2
    assert read(folder / "config.json")["module"] == experiment.config.__module__
    assert int(runner.load(folder)[2].step) == 4


@pytest.mark.parametrize("name", STUDIES)
def test_a_finished_study_shows_its_table(name, unpacked, capsys):
    folder = unpacked(f"{name}_study")
    module = import_module(f"experiments.studies.{STUDIES[name]}")
    config = from_dict(module.Config, read(folder / "config.json")["config"])
    before = shutil.copytree(folder, folder.with_name("before"))
    body = study.body(module.STUDY) if hasattr(module, "STUDY") else module.body
    bars = Bars(Console(width=200))
    body(config, launch.Launch(workdir=folder), bars)()
    assert read(folder / "summary.json") == read(before / "summary.json")
    assert len(capsys.readouterr().out.splitlines()) > 3
