"""The contract of run folders, and what a person sees, through the command line in process."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from small_run import check_same, contents, read

import experiments.__main__
from aejax.runner import launch, units
from aejax.runner.console import Bars, closing_table
from aejax.runner.folder import default_path
from experiments import ae


def test_a_new_run_leaves_its_folder_and_a_table(call):
    outcome = call("--seed", "7")
    assert outcome.code == 0
    path = default_path("ae", ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=150, seed=7))
    names = {"config.json", "environment.json", "metrics.jsonl", "summary.json", "figures", "checkpoints"}
    assert {p.name for p in path.iterdir()} == names
    assert "ae on digits, seed 7" in outcome.out
    assert f"{path}/figures" in outcome.out
    summary = read(path / "summary.json")
    known = {"experiment": "ae", "dataset": "digits", "seed": 7, "num_epochs": 150, "reference": {}}
    assert {name: summary[name] for name in known} == known
    assert summary.keys() - {"notes"} == {*known, "metrics", "wall_seconds", "steps_per_second"}
    assert summary["metrics"].keys() == {"test_sse"}
    assert summary["wall_seconds"] > 0
    assert summary["steps_per_second"] > 0
    assert read(path / "config.json")["config"]["hparams"] == {"lr": 1e-3}
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [200, 300]
    terms = {f"{split}recon/{term}" for split in ("", "val/") for term in ("loss", "recon_nats", "sse")}
    assert rows[0].keys() == {"step", "epoch", *terms}


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_finished_run_shows_its_table_and_is_left_alone(call, finished, flags):
    before = contents(finished)
    outcome = call("--workdir", finished, *flags)
    assert outcome.code == 0
    assert "is finished already" in outcome.out
    assert f"{read(finished / 'summary.json')['metrics']['test_sse']:.5g}" in outcome.out
    assert contents(finished) == before


def test_a_run_killed_before_its_first_checkpoint_starts_over(call, finished):
    path = Path("run")
    path.mkdir()
    (path / "config.json").write_bytes((finished / "config.json").read_bytes())
    (path / "metrics.jsonl").write_text('{"step": 200, "epoch": 100}\n{"st')
    before = contents(path)
    outcome = call("--workdir", "run")
    assert (outcome.code, contents(path)) == (2, before)
    assert "unfinished run of this configuration. Add --resume" in outcome.err
    assert call("--workdir", "run", "--resume").code == 0
    check_same(path, finished)


def test_more_epochs_go_on_where_the_run_ended(call, finished):
    path = Path("run")
    assert call("--workdir", path, "--num-epochs", 100).code == 0
    before = contents(path)
    outcome = call("--workdir", path, "--num-epochs", 150)
    assert (outcome.code, contents(path)) == (2, before)
    assert "num_epochs 100 there and 150 here. It may grow with --resume" in outcome.err
    assert call("--workdir", path, "--num-epochs", 150, "--resume").code == 0
    check_same(path, finished)
    assert read(path / "summary.json")["num_epochs"] == 150


def test_there_is_nothing_to_resume(call, tmp_path):
    outcome = call("--resume")
    assert outcome.code == 2
    assert "There is nothing to resume: runs/ae-digits-" in outcome.err
    assert not list(tmp_path.iterdir())


def test_help_explains_itself_at_80_columns(call):
    outcome = call("--help")
    assert outcome.code == 0
    assert "What it is." in outcome.out
    assert "Learning rate. (default: 0.001)" in outcome.out
    assert "Size of the code. (default: 2)" in outcome.out
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 75


def test_the_experiments_are_listed(capsys):
    experiments.__main__.main([])
    listed = capsys.readouterr().out
    for name in ("ae", "dae", "cae", "scae", "cae_h", "rcae", "vae", "aae", "compare", "contractive"):
        assert f"\n  {name} " in listed
    assert "Variational autoencoder" in listed
    for name in ("units", "finetuning", "contractive_sheets", "timing"):
        assert f"\n  {name} " not in listed
    assert [line for line in listed.splitlines() if line.istitle()] == ["Methods", "Studies", "Benchmarks"]
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["vae", "compare"])
def test_a_name_is_run_wherever_it_stands(name):
    command = [sys.executable, "-m", "experiments", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"python -m experiments.{'studies.' * (name == 'compare')}{name} " in done.stdout.replace("\n", " ")


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        experiments.__main__.main(["vea"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: There is no 'vea'. Did you mean 'vae' or ")


TERMS = {"recon/loss": 21.5, "recon/sse": 2.25, "disc/loss": 1.386, "disc/accuracy": 0.5, "val/recon/loss": 22.0}


def test_progress_on_a_terminal_fits_80_columns():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with Bars(console) as bars:
        bars.add("aae", 4000, 1000)
        for step in (2000, 3000):
            bars.update(step, TERMS)
        bars.progress.refresh()
        shown = console.file.getvalue()
    assert "3000/4000 steps 0:0" in shown  # time left
    assert "recon: loss 21.5, sse 2.25; disc: loss 1.386, accuracy 0.5; val/recon: loss 22" in shown


@pytest.mark.parametrize("width", [20, 30, 40, 59, 60, 80])
def test_progress_shows_its_numbers_in_full_on_any_terminal(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with Bars(console) as bars:
        bars.title = "cae_with_a_name-12"
        bars.add("cae", 400000, 100000)
        for step in (200000, 300000):
            bars.update(step, TERMS)
        console.file = io.StringIO()
        bars.progress.refresh()
        shown = re.sub("\x1b[^A-Za-z]*[A-Za-z]", "", console.file.getvalue()).strip()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert ("300000/400000 steps" if width >= 40 else "75%") in shown
    assert "0:00:0" in shown
    assert ("━" in shown) == (width >= 60)
    joined = "".join(shown.split())
    assert "recon:loss21.5,sse2.25;disc:loss1.386,accuracy0.5;val/recon:loss22" in joined
    assert width < 40 or "cae_with" in joined


@pytest.mark.parametrize("where", ["log", "dumb terminal"])
def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch, where):
    now = 0.0
    monkeypatch.setattr("aejax.runner.console.time.monotonic", lambda: now)
    is_dumb = where == "dumb terminal"
    console = Console(file=io.StringIO(), width=80, force_terminal=is_dumb, _environ={"TERM": "dumb"})
    with Bars(console) as bars:
        bars.add("aae", 1000)
        for step in range(1, 1001):
            now = float(step)
            bars.update(step, TERMS)
    lines = console.file.getvalue().splitlines()
    steps = [int(line.split()[2]) for line in lines]
    assert steps[:3] == [5, 10, 15]
    assert steps[-1] - steps[-2] == 50  # a twentieth of the time since the start, and the next step
    assert len(lines) < 100
    assert lines[0].startswith("aae: step 5 of 1000, ")
    assert lines[0].endswith(" s left; recon: loss 21.5, sse 2.25; disc: loss 1.386, accuracy 0.5; val/recon: loss 22")


def test_the_closing_table_holds_results_against_published_figures():
    summary = {
        "experiment": "vae", "dataset": "mnist", "seed": 3, "wall_seconds": 12.34, "steps_per_second": 456.7,
        "metrics": {"test_sse": 30.123456, "test_bound_nats": 103.5, "length_ratio": 0.94, "own": 2.0},
        "reference": {"test_bound_nats": {"value": 104.0, "source": "somebody (2014), table 1"}},
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    console.print(closing_table(summary, {"own": units.Unit("furlongs", "ours")}))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert ["test_sse", "30.123", "squared error per image, summed over pixels"] in cells
    assert ["own", "2", "furlongs"] in cells
    assert ["length_ratio", "0.94", ""] in cells  # of a study
    assert ["published", "104", "somebody (2014), table 1; -0.5 here"] in cells
    assert "12.3 s in all, 457 steps/s once compiled" in lines[-1]


@pytest.mark.parametrize("width", [20, 30, 40])
def test_the_closing_table_is_whole_on_a_narrow_terminal(width):
    summary = {
        "experiment": "vae", "dataset": "mnist", "seed": 3, "wall_seconds": 12.34, "steps_per_second": 456.7,
        "metrics": {"test_sse": 30.123456, "test_bound_nats": 103.5}, "reference": {},
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=width)
    console.print(closing_table(summary, {}))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert "30.123" in shown
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines() if line[0] == "│"]
    assert "".join(row[0] for row in rows) == "test_ssetest_bound_nats"


def test_warnings_are_lines(capsys):
    with launch.plain_warnings():
        import warnings

        warnings.simplefilter("always")
        warnings.warn("Step 3 is damaged.", stacklevel=1)
    assert capsys.readouterr().err == "warning: Step 3 is damaged.\n"
