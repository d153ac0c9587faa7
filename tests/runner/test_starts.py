"""Where others start: without a home, a GPU, a reader, a character or locks; from another thread."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import EXPERIMENT, arguments, check_same

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import prepared
from aejax.runner import launch
from aejax.runner.console import lasting_output


def test_output_whose_reader_left_is_dropped_and_the_run_ends_well(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting_output():
            print("one line")
            assert os.read(reading, 100) == b"one line\n"
            os.close(reading)
            for _ in range(3):
                print("nobody reads this", flush=True)
            launch.main(EXPERIMENT, None, arguments("--workdir", "run"))
        assert sys.stdout is stream
    assert Path("run/summary.json").exists()


def test_characters_that_an_output_does_not_know_are_written_by_their_numbers(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stream)
    rows = np.random.default_rng(0).random((700, 16), np.float32)
    np.save("cellules_été.npy", rows)
    launch.main(EXPERIMENT, None, arguments("--dataset", "cellules_été.npy", "--workdir", "run", "--num-epochs", "1"))
    assert "cellules_\\xe9t\\xe9.npy" in stream.buffer.getvalue().decode("ascii")
    assert stream.errors == "strict"  # as it was


def test_closed_outputs_are_no_reason_to_stop(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    launch.main(EXPERIMENT, None, arguments("--workdir", "run", "--num-epochs", "1"))
    assert Path("run/summary.json").exists()


def test_a_run_in_a_thread_and_a_second_one_in_the_process(finished):
    errors = []

    def main(path):
        try:
            launch.main(EXPERIMENT, None, arguments("--workdir", path))
        except BaseException as error:
            errors.append(error)

    for path in ("first", "second"):
        thread = threading.Thread(target=main, args=(path,))
        thread.start()
        thread.join()
        check_same(path, finished)
    assert not errors


def test_a_system_without_locks_is_refused_by_name(call, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    outcome = call("--workdir", "run")
    assert (outcome.code, Path("run").exists()) == (2, False)
    assert outcome.err == "error: Runs need Linux or macOS, for they lock their folders; on Windows use WSL.\n"


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda': no driver\nx")])
def test_a_platform_that_is_not_there_is_one_line(call, monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    outcome = call("--workdir", "run")
    assert (outcome.code, Path("run").exists()) == (2, False)
    reason = ": Unable to initialize backend 'cuda': no driver" * isinstance(error, RuntimeError)
    assert outcome.err == (
        f"error: JAX cannot start with JAX_PLATFORMS=cuda on this machine{reason}. JAX_PLATFORMS=cpu in front of the"
        " command leaves out what is not there.\n"
    )


def test_without_a_home_there_is_a_cache_and_no_guess_at_a_path(monkeypatch):
    def nobody(path):
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", nobody)
    for name in ("AEJAX_CACHE", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert prepared.cache_dir().name == f"aejax-{os.getuid()}"
    for act in (lambda: data.load("~/faces.npy"), lambda: data.load("mnist"), lambda: runner.load("~/run")):
        with pytest.raises(InputError, match=r"begins with ~, and this user has no home folder; give the whole path"):
            act()


def test_a_home_is_found_in_every_path(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    np.save(tmp_path / "home" / "rows.npy", np.random.default_rng(0).random((700, 16), np.float32))
    flags = ("--workdir=~/run", "--dataset=~/rows.npy", "--num-epochs", 1)
    assert call(*flags).code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"home"}
    assert "is finished already" in call(*flags).out
    assert int(runner.load("~/run")[2].step) == 1


SHELL = """
set -o pipefail
P="{python} -m experiments.ae --num-epochs 1 --hidden-dims 4"
$P --workdir cut | head -1 > /dev/null; echo $? $(ls cut | grep -c summary)
$P --help | head -1 > /dev/null; echo $?
{python} -m experiments | head -1 > /dev/null; echo $?
JAX_PLATFORMS=cuda $P --workdir node 2> err; echo $? $(grep -c '^error: JAX cannot start' err) $(grep -c . err)
export JAX_PLATFORMS=cuda
JAX_PLATFORMS=cpu $P --workdir node > /dev/null; echo $?
"""


@pytest.mark.slow
def test_in_a_shell():
    command = ["bash", "-c", SHELL.format(python=sys.executable)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0 1", "0", "0", "2 1 1", "0"]
    assert done.stderr == ""
