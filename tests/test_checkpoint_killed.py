"""What a full disk and a kill leave behind: a state that was saved, whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from saved_states import make_state, restored_step, save_steps

from aejax.checkpoint import Checkpoints, CheckpointWarning

SMALL_DISK = """
import resource, sys
from aejax.checkpoint import Checkpoints
assert not any(name.split(".")[0] in ("orbax", "tensorstore") for name in sys.modules)
import logging, jax, jax.numpy as jnp
from aejax.algorithm import TrainState
handlers, level = list(logging.root.handlers), logging.root.level
def state(step):
    return TrainState(jnp.int32(step), {str(i): jax.random.normal(jax.random.key(i), (9999,)) for i in range(8)}, {})
with Checkpoints(sys.argv[1], every_seconds=0) as checkpoints:
    checkpoints.save(state(1), extra={}, metric=1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for _ in range(5):
        try:
            checkpoints.save(state(2), extra={}, metric=0.0)
        except OSError as error:
            print(error.errno, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(checkpoints.steps(), int(checkpoints.restore(state(0))[0].step))
    checkpoints.save(state(2), extra={}, metric=0.0)
    print(checkpoints.steps(), int(checkpoints.restore(state(0))[0].step))
    (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").unlink()
    checkpoints.restore(state(0))
assert (handlers, level) == (logging.root.handlers, logging.root.level)
"""


@pytest.mark.slow
def test_the_console_of_a_full_disk(tmp_path):
    done = subprocess.run([sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = f"27 [Errno 27] The checkpoint of step 2 could not be saved (File too large): '{tmp_path}'"
    assert done.stdout.splitlines() == [*[line] * 5, "[1] 1", "[1, 2] 2"]
    (warning,) = done.stderr.splitlines()  # one line, nothing of Orbax
    assert warning.startswith(f"{tmp_path}/2:")
    assert warning.endswith(
        "Step 2 is damaged: _CHECKPOINT_METADATA cannot be read (No such file or directory); step 1 is used instead."
    )


class _Snapshots:
    """Copies a folder whenever Python is about to change something in it: what a kill at that moment would leave."""

    def __init__(self):
        self.source: Path | None = None
        self.target: Path | None = None
        self.count = 0
        sys.addaudithook(self._hook)  # for good, hence the switch

    def _hook(self, event, args):
        if self.source is None or event not in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "open"):
            return
        if event == "open" and args[1] is not None and args[1][0] not in "wax":  # None: to flush it
            return
        source, self.source = self.source, None  # the copying is not looked at
        try:
            shutil.copytree(source, self.target / str(self.count), copy_function=self._copy, dirs_exist_ok=True)
            self.count += 1
        except (shutil.Error, FileNotFoundError):
            pass  # another thread removed a folder under our hands; the next moment will do
        finally:
            self.source = source

    @staticmethod
    def _copy(source, target):
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return  # in the hands of another thread


@pytest.fixture(scope="module")
def snapshots():
    return _Snapshots()


@pytest.mark.slow
@pytest.mark.parametrize(
    "again",
    [pytest.param(False, id="new step"), pytest.param(True, id="the same step", marks=pytest.mark.slow)],
)
def test_a_kill_at_any_moment_of_a_save_leaves_a_state_that_was_saved(snapshots, tmp_path, again):
    save_steps(tmp_path / "run", {1: 1.0, 2: 5.0, 3: 4.0, 4: 3.0})
    with Checkpoints(tmp_path / "run", every_seconds=0) as checkpoints:
        checkpoints.save(make_state(5), extra={"step": 5}, metric=None)
        snapshots.source, snapshots.target, snapshots.count = tmp_path / "run", tmp_path / "at", 0
        step = 5 if again else 6
        checkpoints.save(make_state(step), extra={"step": step}, metric=0.0)  # makes others go
        snapshots.source = None
    assert snapshots.count > 20
    seen = set()
    for i in range(snapshots.count):
        folder = tmp_path / "at" / str(i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)  # a step that was not finished
            seen.add(restored_step(folder))
            assert restored_step(folder, best=True) in ((1, 5) if again else (1, 6))
        if i % 5 == 0:
            save_steps(folder, {step: 0.0})
            assert restored_step(folder) == step
            assert not list(folder.glob("*tmp*"))
    assert seen == ({4, 5} if again else {5, 6})


SAVE_ON_AND_ON = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from aejax.checkpoint import Checkpoints
from saved_states import make_state
with Checkpoints(sys.argv[1], every_seconds=0) as checkpoints:
    found = checkpoints.restore(make_state(0))
    step = int(found[0].step) if found else 0
    print("ready", flush=True)
    while True:
        step += 1
        checkpoints.save(make_state(step), extra={"step": step}, metric=abs(step % 7 - 3))
        print(step, flush=True)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_of_saving(tmp_path):
    draws, last = random.Random(0), 0
    for _ in range(3):
        command = [sys.executable, "-W", "ignore", "-c", SAVE_ON_AND_ON, tmp_path / "run", Path(__file__).parent]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            saved = [int(process.stdout.readline())]
            time.sleep(draws.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            saved += [int(line) for line in process.stdout.read().splitlines()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            step = restored_step(tmp_path / "run")
        assert step in (saved[-1], saved[-1] + 1)  # whatever `save` returned from is there
        assert step > last
        last = step
