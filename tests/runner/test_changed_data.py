"""The same name with other content is another run: of files that change between two commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_run import contents, read

from aejax import data
from aejax.runner import launch, study
from experiments.studies import deep_ae

SMALL = ("--workdir", "run", "--dataset", "sensor.npz", "--num-epochs", 1)


def arrays(**changed):
    rng = np.random.default_rng(0)
    x = rng.random((600, 16), np.float32)
    return {"x": x, "y": np.arange(600) % 3, "x_test": x[:40], "y_test": np.arange(40) % 3, **changed}


@pytest.fixture(autouse=True)
def sensor(tmp_path):
    np.savez(tmp_path / "sensor.npz", **arrays())


X = arrays()["x"]
CHANGES = {
    "one value": {"x": np.where(np.arange(9600).reshape(600, 16) == 5, 0.5, X).astype(np.float32)},
    "one label": {"y": np.where(np.arange(600) == 7, 2, np.arange(600) % 3)},
    "the test set": {"x_test": X[40:80]},
    "fewer rows": {"x": X[:599], "y": np.arange(599) % 3},
    "the dtype": {"x": X.astype(np.float64), "x_test": X[:40].astype(np.float64)},
    "order": {"x": X[::-1], "y": np.arange(600)[::-1] % 3},
    "shape": {"x": X.reshape(600, 4, 4), "x_test": X[:40].reshape(40, 4, 4)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_has_another_digest(change):
    before = data.digest("sensor.npz")
    np.savez("sensor.npz", **arrays())  # written again, and the same
    assert data.digest("sensor.npz") == before
    np.savez("sensor.npz", **arrays(**CHANGES[change]))
    assert data.digest("sensor.npz") != before


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [("--resume",), *(pytest.param(flags, marks=pytest.mark.slow) for flags in ((), ("--num-epochs", 2, "--resume")))],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_a_folder_of_other_data_is_refused_and_the_advice_is_good(call, flags):
    assert call(*SMALL).code == 0
    before = contents(Path("run"))
    np.savez("sensor.npz", **arrays(**CHANGES["one value"]))
    outcome = call(*SMALL, *flags)
    assert (outcome.code, outcome.out, contents(Path("run"))) == (2, "", before)
    assert "run holds a run on other data: sensor.npz has changed since it began. Put the old data back" in outcome.err
    assert outcome.err.endswith(f"or give another --workdir{', without --resume' * ('--resume' in flags)}.\n")
    assert call(*SMALL, "--workdir", "other").code == 0
    np.savez("sensor.npz", **arrays())  # put back
    assert call(*SMALL, *flags).code == 0


@pytest.mark.slow
def test_an_unfinished_run_does_not_go_on_with_other_data(call):
    assert call(*SMALL).code == 0
    Path("run/summary.json").unlink()
    np.savez("sensor.npz", **arrays(**CHANGES["the test set"]))
    assert "other data" in call(*SMALL, "--resume").err


def test_a_finished_run_outlives_its_data(call):
    assert call(*SMALL).code == 0
    Path("sensor.npz").rename("elsewhere.npz")
    outcome = call(*SMALL)
    assert outcome.code == 0
    assert "test_sse" in outcome.out
    assert "warning: Whether the data are still those of run cannot be told. There is no file sensor.npz" in outcome.err
    assert call(*SMALL, "--num-epochs", 2, "--resume").code == 2


@pytest.mark.slow
def test_an_older_folder_says_that_it_holds_no_digest(call):
    assert call(*SMALL).code == 0
    config = read(Path("run/config.json"))
    del config["data_digest"]
    Path("run/config.json").write_text(json.dumps(config))
    assert call(*SMALL).err == ""  # nothing is computed from the data
    outcome = call(*SMALL, "--num-epochs", 2, "--resume")
    assert outcome.code == 0
    assert "warning: run is of an older version and holds no digest of its data" in outcome.err
    assert read(Path("run/config.json"))["data_digest"] == data.digest("sensor.npz")


@pytest.mark.slow
def test_a_study_keeps_a_digest_too(capsys):
    flags = ["--dataset", "sensor.npz", "--workdir", "study", "--num-epochs", "1", "--hidden-dims", "6"]
    flags += ["--latent-dim", "2"]
    run = lambda: launch.command_line("deep_ae", deep_ae.Config, "", study.body(deep_ae.STUDY), flags)
    run()
    np.savez("sensor.npz", **arrays(**CHANGES["one label"]))
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    assert "study holds a run on other data" in capsys.readouterr().err
