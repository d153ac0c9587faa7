"""Runs side by side: what the table says is what their folders hold."""

import csv
import dataclasses
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import test_study
from rich.console import Console
from small_run import read
from test_interruption import at_step, send

import aejax.runner.__main__ as commands
from aejax import plots
from aejax.algorithm import TrainState
from aejax.checkpoint import Checkpoints
from aejax.checks import InputError
from aejax.runner import launch, study, table
from aejax.runner.console import Bars
from aejax.runner.folder import RunFolder, open_folder

OLD = Path(__file__).parent / "old_runs"
ROWS = [
    {"step": 200, "epoch": 10, "recon/loss": 3.0, "recon/sse": 9.0, "val/recon/loss": 4.0},
    {"step": 300, "epoch": 15, "recon/loss": 1.0, "recon/sse": 8.0, "val/recon/loss": 2.0},
]
CONFIG = {"dataset": "digits", "hidden_dims": [8, 4], "num_epochs": 15, "hparams": {"lr": 0.1, "beta": 1.0}}


def make(path, *, finished=True, rows=ROWS, metrics=None, experiment="ae", **changes):
    """A run folder by hand."""
    path = Path(path)
    path.mkdir(parents=True)
    config = {**CONFIG, **changes}
    content = {"experiment": experiment, "config": config, "data_shape": [64], "data_digest": "d1", "num_steps": 300}
    (path / "config.json").write_text(json.dumps(content))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        summary = {"num_epochs": 15, "metrics": metrics or {"test_sse": 7.5}, "wall_seconds": 12.25}
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def change(path, **content):
    (path / "config.json").write_text(json.dumps(read(path / "config.json") | content))


@pytest.fixture
def show(capsys):
    """`show(*arguments)` is `python -m aejax.runner table *arguments`: the exit code, and what was printed."""

    def show(*arguments, code=0):
        ended = 0
        try:
            commands.main(["table", *map(str, arguments)])
        except SystemExit as end:
            ended = end.code
        assert ended == code
        return capsys.readouterr()

    return show


def as_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_there_is_a_column_for_what_differs_and_for_what_came_of_it(show):
    make("runs/a", hparams={"lr": 0.1, "beta": 1.0}, metrics={"test_sse": 7.123456789, "knn5_accuracy": 0.5})
    make("runs/b", hparams={"lr": 0.01, "beta": 1.0}, clip=1.0)
    make("runs/deep/c", finished=False, rows=ROWS[:1], hidden_dims=[])
    a, b, c = as_csv(show("runs", "--csv", "-").out)
    assert list(a) == [
        "run", "hidden_dims", "hparams.lr", "clip", "test_sse", "knn5_accuracy", "recon/loss", "val/recon/loss",
        "seconds", "state",
    ]  # fmt: skip
    assert list(a.values()) == ["a", "8 4", "0.1", "", "7.123456789", "0.5", "1.0", "2.0", "12.25", "finished"]
    assert list(b.values()) == ["b", "8 4", "0.01", "1.0", "7.5", "", "1.0", "2.0", "12.25", "finished"]
    assert list(c.values()) == ["deep/c", "", "0.1", "", "", "", "3.0", "4.0", "", "at step 200 of 300"]
    out = show("runs").out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in out if line.startswith("│")]
    assert cells[0] == ["a", "8 4", "0.1", "", "7.1235", "0.5", "1", "2", "12.25", "finished"]
    assert len(cells) == 3


def test_an_unfinished_run_has_taken_the_seconds_of_its_last_checkpoint(show):
    with Checkpoints(make("runs/a", finished=False) / "checkpoints", every_seconds=0) as checkpoints:
        for step, seconds in ((100, 2.5), (300, 7.5)):
            state = TrainState(jnp.int32(step), {"w": jnp.zeros(2)}, {})
            checkpoints.save(state, extra={"seconds": seconds})
    assert [row["seconds"] for row in as_csv(show("runs", "--csv", "-").out)] == ["7.5"]
    (checkpoints.folder / "300" / "manifest.json").write_text("{")
    assert [row["seconds"] for row in as_csv(show("runs", "--csv", "-").out)] == ["2.5"]


def test_what_only_one_experiment_has_is_no_difference(show):
    make("runs/a")
    make("runs/b", experiment="vae", nll_samples=100)
    assert list(as_csv(show("runs", "--csv", "-").out)[0]) == ["run", "experiment", "test_sse", "seconds", "state"]
    make("runs/c", experiment="vae", nll_samples=50)
    assert "nll_samples" in as_csv(show("runs", "--csv", "-").out)[0]


def test_other_data_of_one_name_and_where_a_run_began_are_differences(show):
    make("runs/a")
    change(make("runs/b"), data_digest="d2")
    change(make("runs/c"), **{"from": {"folder": "a", "step": 300, "digest": "x"}})
    rows = as_csv(show("runs", "--csv", "-").out)
    assert [row["data_digest"] for row in rows] == ["d1", "d2", "d1"]
    assert [row["from"] for row in rows] == ["", "", "a, step 300"]
    make("others/a")
    change(make("others/b", dataset="mnist"), data_digest="d2")
    assert "data_digest" not in as_csv(show("others", "--csv", "-").out)[0]


def test_runs_are_sorted_by_name_or_by_what_is_asked_for(show):
    make("runs/a", metrics={"test_sse": 3.0})
    make("runs/b", metrics={"test_sse": float("nan")})
    make("runs/c", finished=False)
    make("runs/d", metrics={"test_sse": 1.0})
    for seed in (10, 9):
        make(f"seeds/{seed}")
    assert [row["run"] for row in as_csv(show("seeds", "--csv", "-").out)] == ["9", "10"]
    names = lambda *flags: "".join(row["run"] for row in as_csv(show("runs", "--csv", "-", *flags).out))
    assert names() == "abcd"
    assert names("--sort", "test_sse") == "dabc"
    assert names("--sort", "state") == "cabd"
    assert "recon/sse" in show("runs", "--csv", "-", "--sort", "recon/sse").out
    message = show("runs", "--sort", "test_see", code=2).err
    assert message == "error: No run has 'test_see'. Did you mean 'test_sse'?\n"


def test_states_are_told(show):
    make("runs/a", num_epochs=30)  # a summary of fewer epochs
    make("runs/b", finished=False, rows=[])
    change(make("runs/c", finished=False, rows=ROWS[:1]), num_steps=None)  # of an older version
    holder = RunFolder(make("runs/d", finished=False), "ae", {})
    holder.claim()
    states = [row["state"] for row in as_csv(show("runs", "--csv", "-").out)]
    assert states == ["at step 300 of 300", "at step 0 of 300", "at step 200 of 300", "running, at step 300 of 300"]
    holder.release()
    assert as_csv(show("runs", "--csv", "-").out)[3]["state"] == "at step 300 of 300"


def test_who_looks_is_in_nobodys_way(tmp_path):
    """The lock that a look takes for a moment is waited for."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.05, os.close, [descriptor]).start()
    run = RunFolder(tmp_path, "ae", {})
    run.claim()
    run.release()


@pytest.mark.slow
def test_a_real_run_is_told_as_it_is(call, show):
    with at_step(200, lambda: send(signal.SIGTERM)):
        assert call("--workdir", "runs/a").code == 143
    (row,) = as_csv(show("runs", "--csv", "-").out)
    assert row["state"] == "at step 200 of 300"
    (last,) = (json.loads(line) for line in Path("runs/a/metrics.jsonl").read_text().splitlines())
    assert float(row["val/recon/loss"]) == last["val/recon/loss"]
    assert call("--workdir", "runs/a", "--resume").code == 0
    (row,) = as_csv(show("runs/a", "--csv", "-").out)
    assert (row["run"], row["state"]) == ("runs/a", "finished")
    assert float(row["test_sse"]) == read(Path("runs/a/summary.json"))["metrics"]["test_sse"]


@pytest.mark.slow
def test_the_runs_of_a_study_are_found_and_a_folder_twice_is_there_once(show):
    runs = {f"a-{seed}": (test_study.EXPERIMENT, dataclasses.replace(test_study.TINY, seed=seed)) for seed in (0, 1)}
    folder = open_folder("tiny", test_study.Config(), Path("runs/tiny"), resume=False)
    study.run_all(runs, folder, launch.Launch(workdir=folder.path), Bars(Console(file=io.StringIO())))
    for folders in (["runs"], ["runs/tiny"], ["runs", "runs/tiny/a-0"]):
        rows = as_csv(show(*folders, "--csv", "-").out)
        assert [(Path(row["run"]).name, row["seed"], row["state"]) for row in rows] == [
            ("a-0", "0", "finished"), ("a-1", "1", "finished"),
        ]  # fmt: skip


def test_old_folders_are_read(show, tmp_path):
    for archive in OLD.glob("*.tar.xz"):
        with tarfile.open(archive) as content:
            content.extractall(tmp_path / "old", filter="data")
    found = show("old", "--csv", "-")
    rows = as_csv(found.out)
    assert found.err == ""
    assert {row["run"] for row in rows} == {p.name.split(".")[0] for p in OLD.iterdir() if "_study" not in p.name}
    for row in rows:
        assert row["state"] == "finished"
        for name, value in read(tmp_path / "old" / row["run"] / "summary.json")["metrics"].items():
            assert float(row[name]) == value


def test_damaged_folders_are_named_and_left_out(show):
    make("runs/a")
    (make("runs/b") / "config.json").write_text('{"experiment": "a')
    (make("runs/c") / "config.json").write_text('{"model_type": "bert"}')
    (make("runs/d") / "metrics.jsonl").write_text('{"st\n{"step": 1}\n')
    (make("runs/e") / "summary.json").write_text("")
    with (make("runs/f", finished=False) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40')  # is being written
    saved = read(make("runs/g") / "config.json")
    del saved["data_shape"]
    Path("runs/g/config.json").write_text(json.dumps(saved))
    found = show("runs", "--csv", "-")
    assert [row["run"] for row in as_csv(found.out)] == ["a", "f"]
    assert found.err.splitlines() == [
        "runs/b is left out: config.json is damaged, or of something else.",
        "runs/c is left out: config.json is damaged, or of something else.",
        "runs/d is left out: metrics.jsonl is damaged.",
        "runs/e is left out: summary.json is damaged.",
        "runs/g is left out: ae is a study that keeps no runs.",
    ]
    shutil.rmtree("runs/a")
    shutil.rmtree("runs/f")
    message = show("runs", code=2).err
    assert message.startswith("error: There are no runs in runs.\nruns/b is left out: config.json is damaged")


def test_what_is_no_folder_is_refused(show):
    assert show("nowhere", code=2).err == (
        "error: nowhere is not a folder; wanted is one with runs in it, such as runs.\n"
    )


def printed(runs, width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)
    console.print(table.render(runs, table.columns(runs), console))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 30, 40, 80, 200])
def test_it_fits_any_terminal_and_drops_nothing(width):
    metrics = {"test_sse": 7.25, "a_metric_with_quite_a_long_name_of_its_own": 0.5}
    for name in ("first", "a_name_of_more_than_20_letters"):
        make(f"runs/{name}", metrics=metrics, seed=len(name))
    shown = printed(table.find([Path("runs")]).runs, width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    joined = "".join(shown.split()) if width < 40 else shown
    for word in ("first", "7.25", "12.25", "finished", "test_sse", "seed"):
        assert word in joined
    assert shown.startswith("┏") == (width > 80)


def test_the_table_can_be_written_too(show):
    make("runs/a")
    found = show("runs", "--csv", "table.csv")
    assert "test_sse" in found.out
    assert as_csv(Path("table.csv").read_text()) == [
        {"run": "a", "test_sse": "7.5", "seconds": "12.25", "state": "finished"}
    ]
    assert show("runs", "--csv", "nowhere/table.csv", code=1).err.startswith("error: No such file or directory: ")


def test_curves_are_the_rows(show, monkeypatch):
    make("runs/a", hparams={"lr": 0.1, "beta": 1.0})
    make("runs/b", hparams={"lr": 0.01, "beta": 1.0}, rows=[{**row, "val/recon/loss": row["step"]} for row in ROWS])
    make("runs/c", hparams={"lr": 0.01, "beta": 1.0})
    make("runs/d", hparams={"lr": 0.3, "beta": 1.0}, rows=[])
    figures, save = [], plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
    assert show("runs", "--curves", "c.png").err == "Without val/recon/loss, and so not in c.png: d\n"
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {
        "hparams.lr 0.1": [[10, 4.0], [15, 2.0]],
        "b: hparams.lr 0.01": [[10, 200], [15, 300]],
        "c: hparams.lr 0.01": [[10, 4.0], [15, 2.0]],
    }
    assert axes.get_yscale() == "log"
    assert show("runs", "--curves", "c.pdf", "--term", "recon/sse").out
    assert figures[1].axes[0].lines[0].get_ydata().tolist() == [9.0, 8.0]


@pytest.mark.parametrize(
    ("flags", "message", "advised"),
    [
        ("--curves c", "--curves c: give a file with the ending .png, .pdf or .svg.", "--curves c.svg"),
        (
            "--curves c.png --term val/recon/los",
            "No run has a row with 'val/recon/los'. Did you mean 'val/recon/loss'",
            "--curves c.png --term val/recon/loss",
        ),
        (
            "--term recon/loss",
            "--term says what --curves FILE.png draws; give both, or leave it out.",
            "--term recon/loss --curves FILE.png",
        ),
        ("--sort test_see", "No run has 'test_see'. Did you mean 'test_sse'?", "--sort test_sse"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_the_advice_is_good(show, flags, message, advised):
    make("runs/a")
    assert message in show("runs", *flags.split(), code=2).err
    found = show("runs", *advised.split())
    assert (found.err, "test_sse" in found.out) == ("", True)
    assert all(Path(word).exists() for word in advised.split() if "." in word)


def test_the_legend_of_many_runs_is_inside_the_picture():
    runs = {f"hparams.contraction {i / 7:.5g}, seed {i}": ROWS for i in range(30)}
    figure = plots.histories(runs, "val/recon/loss")
    figure.canvas.draw()
    (axes,) = figure.axes
    box, whole = axes.get_legend().get_window_extent(), figure.bbox
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0
    with pytest.raises(InputError, match="None of 30 runs has 'val/recon/los'"):
        plots.histories(runs, "val/recon/los")


def test_numbers_of_few_digits_are_those_of_the_rows():
    run = table.find([make("runs/a", metrics={"test_sse": np.pi})]).runs[0]
    assert "3.1416" in printed([run], 80)


def test_without_arguments_it_explains_itself(capsys):
    commands.main([])
    out = capsys.readouterr().out
    assert "python -m aejax.runner table FOLDER..." in out
    commands.main(["--help"])
    assert capsys.readouterr().out == out
    with pytest.raises(SystemExit) as end:
        commands.main(["tabel"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: There is no command 'tabel'. Did you mean 'table'?\n"


def test_an_interruption_ends_without_a_word(monkeypatch, show):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "find", interrupted)
    assert show("runs", code=130) == ("", "")


@pytest.mark.slow
def test_a_closed_pipe_ends_without_a_word():
    for i in range(300):
        make(f"runs/{i}")
    command = f"{sys.executable} -m aejax.runner table runs | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    top, code = done.stdout.splitlines()
    assert top.startswith("┏")
    assert code == "0"
    assert done.stderr == ""
