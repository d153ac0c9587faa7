"""What goes wrong behind the last step: the run is kept, not taken for finished, and measured again when resumed."""

import io
from pathlib import Path

import flax.linen as nn
import pytest
from rich.console import Console
from small_run import EXPERIMENT, check_same, read

from aejax import nets, runner
from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.runner import launch, study
from aejax.runner.console import Bars
from aejax.runner.folder import open_folder
from experiments import ae


def broken(trained):
    raise KeyError("a name that is not there")


def refused(trained):
    raise InputError("The data do not allow it.")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["measure", "draw"])
def test_a_failure_keeps_the_run_and_is_repeated_by_resume(call, finished, part):
    name = {"measure": "metrics", "draw": "figures"}[part]
    outcome = call("--workdir", "run", experiment=EXPERIMENT._replace(**{part: broken}))
    assert outcome.code == 1
    assert f"{name}: failed: KeyError: 'a name that is not there'" in outcome.out
    assert f"{name} failed, and what was trained is saved in run. With --resume the run measures" in outcome.err
    summary = read(Path("run/summary.json"))
    assert summary["failed"] == [name]
    assert ("test_sse" in summary["metrics"]) == (part == "draw")
    assert "unfinished run" in call("--workdir", "run").err
    rows = Path("run/metrics.jsonl").read_bytes()
    assert call("--workdir", "run", "--resume").code == 0  # as advised, with what was broken mended
    assert Path("run/metrics.jsonl").read_bytes() == rows
    assert "failed" not in read(Path("run/summary.json"))
    check_same("run", finished)


def test_what_the_data_do_not_allow_is_left_out_of_a_finished_run(call):
    outcome = call("--workdir", "run", experiment=EXPERIMENT._replace(draw=refused))
    assert outcome.code == 0
    assert "figures: left out: The data do not allow it." in outcome.out
    assert "is finished already" in call("--workdir", "run").out


def test_a_study_names_what_its_runs_left_out_and_stops_where_one_failed():
    config = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=1)
    shown = io.StringIO()

    def run_all(experiment, path):
        folder = open_folder("some", config, path, resume=path.exists())
        bars = Bars(Console(file=shown, width=200))
        return study.run_all({"row-0": (experiment, config)}, folder, launch.Launch(workdir=path), bars)

    with pytest.raises(InputError, match=r"metrics of row-0 failed. With --resume it is measured again"):
        run_all(EXPERIMENT._replace(measure=broken), Path("first"))
    assert "test_sse" in run_all(EXPERIMENT, Path("first"))["row-0"]  # with what was broken mended
    assert run_all(EXPERIMENT._replace(draw=refused), Path("second"))["row-0"].keys() == {"test_sse", "seconds"}
    assert "row-0, figures: left out: The data do not allow it." in shown.getvalue()


class Centred(nn.Module):
    """An encoder that goes by the mean of the batch."""

    @nn.compact
    def __call__(self, x):
        z = nn.Dense(2)(x)
        return z - z.mean(axis=0, keepdims=True)


def test_a_network_that_couples_examples_is_refused_before_the_run_begins(call):
    build = lambda config, spec: AE(Centred(), nets.MLP(spec.shape), 2)
    coupled = EXPERIMENT._replace(build_model=build)
    outcome = call("--workdir", "run", experiment=coupled)
    assert (outcome.code, Path("run").exists()) == (2, False)
    assert "The encoder of AE couples examples" in outcome.err
    with pytest.raises(InputError, match="couples examples"):
        runner.run(coupled, ae.Config(num_epochs=1))
