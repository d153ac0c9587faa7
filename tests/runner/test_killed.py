"""Fresh processes: killed with SIGKILL and resumed to the same bits, and compiled programs found again."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import check_same

SMALL = "from small_run import EXPERIMENT; from aejax.runner import launch; launch.main(EXPERIMENT, None)"
LONG = ["--hidden-dims", "8", "--batch-size", "512", "--num-epochs", "2000", "--checkpoint-seconds", "0"]  # 4000 steps


def start(program, *flags):
    """A fresh process with one device."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)]),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    return subprocess.Popen([sys.executable, *program, *map(str, flags)], env=env, stdout=subprocess.DEVNULL)


def kill(process, path, rng):
    """Kills a run at a random moment, every other time in the middle of a save."""
    before, in_save = set(path.glob("checkpoints/*/manifest.json")), rng.random() < 0.5
    while process.poll() is None and set(path.glob("checkpoints/*/manifest.json")) <= before:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    while in_save and process.poll() is None and not any(path.glob("checkpoints/*orbax-checkpoint-tmp*")):
        pass
    process.kill()
    return process.wait()


def kill_and_compare(program, flags, num_kills, tmp_path):
    rng, path, reference = random.Random(num_kills), tmp_path / "killed", tmp_path / "reference"
    uninterrupted = start(program, *flags, "--workdir", reference)
    resume = []
    for _ in range(num_kills):
        code = kill(start(program, *flags, "--workdir", path, *resume), path, rng)
        assert code == -9, "it ended before it could be killed"
        resume = ["--resume"]
    assert start(program, *flags, "--workdir", path, *resume).wait() == 0
    assert uninterrupted.wait() == 0
    check_same(path, reference)


def test_a_run_killed_twice_ends_with_the_bits_of_one_that_was_not(tmp_path):
    kill_and_compare(["-c", SMALL], LONG, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    ["ae", "aae --schedule cosine", "vae --binarize stochastic --net conv --num-epochs 60 --batch-size 128"],
)
def test_a_run_killed_ten_times(tmp_path, flags):
    name, *own = flags.split()
    long = [] if "--num-epochs" in own else LONG[:-2]
    kill_and_compare(["-m", f"experiments.{name}"], [*long, *own, "--checkpoint-seconds", "0"], 10, tmp_path)


COUNT = """
import atexit, collections, jax, sys
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
atexit.register(lambda: print(*(events[name] for name in ("compile_requests_use_cache", "cache_hits", "cache_misses"))))
import importlib
from aejax.runner import launch
launch.main(importlib.import_module("experiments." + sys.argv.pop(1)).EXPERIMENT, None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cae", "vae"])
def test_a_second_run_finds_every_compiled_program(tmp_path, monkeypatch, name):
    """Measurements and pictures included; in another folder."""
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / "cache"))
    counts = []
    for i in range(2):
        flags = [name, "--workdir", str(tmp_path / f"run{i}"), "--num-epochs", "2", "--hidden-dims", "8"]
        done = subprocess.run([sys.executable, "-c", COUNT, *flags], capture_output=True, text=True, check=True)
        counts.append([int(n) for n in done.stdout.splitlines()[-1].split()])
    (first, _, _), (requests, hits, misses) = counts
    assert requests == first > 10
    assert (hits, misses) == (requests, 0)
