"""Nothing is lost: signals, damaged checkpoints, a full disk, divergence. `kill -9` is in test_killed.py."""

import contextlib
import errno
import gc
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import EXPERIMENT, arguments, check_same, contents

from aejax import checkpoint, runner
from aejax.runner import launch, observer
from aejax.runner.console import Bars
from aejax.runner.folder import RunFolder
from experiments import ae

RUN = Path("run")


@contextlib.contextmanager
def at_step(n, action):
    """Does something when the chunk that reaches step n is done and not yet saved."""
    update = Bars.update

    def patched(self, step, terms):
        update(self, step, terms)
        if step >= n:
            action()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bars, "update", patched)
        yield


def send(signum):
    os.kill(os.getpid(), signum)


def pasted(err):
    """The flags of the command that a message ends with."""
    words = shlex.split(err.splitlines()[-1].rpartition("To go on:")[2])
    assert shutil.which(words[0])
    assert words[1:3] == ["-m", "experiments.ae"]
    return words[3:]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 200, 300])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(call, finished, signum, code, step):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with at_step(step, lambda: send(signum)):
        outcome = call("--workdir", RUN, "--checkpoint-seconds", 1e9)
    assert outcome.code == code
    assert re.fullmatch(
        r"Stopped; what was trained is saved. To go on:\n  .*python.* -m experiments.ae .* --resume\n", outcome.err
    )
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert int(runner.load(RUN)[2].step) >= step
    before = contents(RUN)
    assert call("--workdir", RUN).code == 2
    assert contents(RUN) == before
    assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, finished)


@pytest.mark.first(1)
@pytest.mark.parametrize("where", ["measure", "draw"])
def test_a_signal_after_training_loses_nothing(call, finished, where):
    interrupted = EXPERIMENT._replace(**{where: lambda trained: send(signal.SIGTERM)})
    outcome = call("--workdir", RUN, experiment=interrupted)
    assert outcome.code == 143
    assert not (RUN / "summary.json").exists()
    with at_step(0, lambda: pytest.fail("trained again")):
        assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, finished)


def test_a_signal_before_the_folder_is_there_leaves_none(call, finished, tmp_path):
    def stopped(config, shape):
        send(signal.SIGINT)

    outcome = call("--workdir", RUN, experiment=EXPERIMENT._replace(build_model=stopped))
    assert outcome.code == 130
    assert not list(tmp_path.iterdir())
    assert "--resume" not in pasted(outcome.err)
    assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, finished)


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.first(2)
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("training", [True, False])
def test_a_second_signal_ends_it_at_once(call, monkeypatch, second, training):
    def end(code):
        raise Ended(code)

    def twice(*_):
        try:
            send(signal.SIGINT)
        finally:
            send(second)

    monkeypatch.setattr(observer.os, "_exit", end)
    experiment = EXPERIMENT if training else EXPERIMENT._replace(measure=twice)
    with at_step(2, twice) if training else contextlib.nullcontext(), pytest.raises(Ended) as ended:
        call("--workdir", RUN, experiment=experiment)
    assert ended.value.args == (128 + second,)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was stopped after 200 steps with checkpoints of several."""
    path = tmp_path_factory.mktemp("runs") / "interrupted"
    with at_step(200, lambda: send(signal.SIGTERM)), pytest.raises(SystemExit):
        launch.main(EXPERIMENT, None, arguments("--workdir", path, "--checkpoint-seconds", 0))
    return path


def saved_steps(path):
    return checkpoint.Checkpoints(path / "checkpoints").steps()


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def damage(step, how):
    """Damages the largest file of a checkpoint; its name."""
    folder = RUN / "checkpoints" / str(step)
    file = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p))
    how(file)
    return file.relative_to(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::aejax.checkpoint.CheckpointWarning")
@pytest.mark.parametrize("how", [truncate, flip, Path.unlink])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(call, interrupted, finished, how):
    shutil.copytree(interrupted, RUN)
    *_, before, last = saved_steps(RUN)
    file = damage(last, how)
    outcome = call("--workdir", RUN, "--resume")
    assert outcome.code == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"warning: Step {last} is damaged: {file} ")
    assert line.endswith(f"; step {before} is used instead.")
    check_same(RUN, finished)


@pytest.mark.filterwarnings("default::aejax.checkpoint.CheckpointWarning")
def test_a_run_whose_checkpoints_are_all_damaged_starts_over(call, interrupted, finished):
    shutil.copytree(interrupted, RUN)
    for step in saved_steps(RUN):
        damage(step, flip)
    outcome = call("--workdir", RUN, "--resume")
    assert outcome.code == 0
    assert "there is no other to use instead" in outcome.err
    check_same(RUN, finished)


def test_rows_that_were_lost_come_back(call, interrupted, finished):
    shutil.copytree(interrupted, RUN)
    (RUN / "metrics.jsonl").unlink()
    assert call("--workdir", RUN, "--resume").code == 0
    check_same(RUN, finished)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["checkpoint", "row", "summary"])
def test_a_full_disk_ends_with_one_line_and_the_last_checkpoint_intact(call, finished, where):
    writers = {"checkpoint": (checkpoint, "_seal"), "row": (RunFolder, "append_row"), "summary": (launch, "finish")}
    owner, name = writers[where]
    write, calls = getattr(owner, name), []

    def full(*args, **known):
        calls.append(args)
        if len(calls) > 2 or where != "checkpoint":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(RUN / "there"))
        return write(*args, **known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, full)
        outcome = call("--workdir", RUN, "--checkpoint-seconds", 0)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "No space left on device" in line
    assert "Checkpoints saved before are intact. To go on: " in line
    assert saved_steps(RUN)
    assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, finished)


def jumps(config, model, tx, axis_name):
    """Learns for 36 steps; then a step of 1e30 leaves parameters for which the loss of step 38 is not a number."""
    rate = lambda count: jnp.where(count < 36, 1e-3, 1e30)
    return ae.method.ae(model, tx=lambda lr: optax.adam(rate))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("experiment", "flags", "first"),
    [
        (EXPERIMENT, ["--likelihood", "gaussian", "--hparams.lr", 1e6], 2),  # after the first step weights are 1e6
        (EXPERIMENT._replace(build_algorithm=jumps), [], 38),
    ],
)
def test_a_diverging_run_says_so_and_keeps_the_last_finite_state(call, experiment, flags, first):
    outcome = call("--workdir", RUN, *flags, experiment=experiment)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    said = rf"error: recon/loss(, recon/\w+)* is not finite at step {first}: "
    assert re.match(said + "lower the learning rate", line)
    state = runner.load(RUN)[2]
    assert 0 < int(state.step) < first
    assert line.endswith(f"The state of step {int(state.step)} is kept, in run.")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (RUN / "summary.json").exists()
    again = call("--workdir", RUN, *flags, "--resume", experiment=experiment)
    assert again.code == 1
    assert re.match(said, again.err)
    state = runner.load(RUN)[2]
    assert 0 < int(state.step) < first


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_where_python_ignores_exceptions(signum):
    """In a callback of the garbage collector, of which jax has one: there an exception ends nothing."""
    came = []

    def callback(phase, info):
        if not came:
            came.append(phase)
            signal.raise_signal(signum)

    @observer.interruptible()
    def waits():
        gc.collect()
        for _ in range(500):  # five seconds
            time.sleep(0.01)

    gc.callbacks.append(callback)
    try:
        with pytest.raises(observer.Interrupted) as stopped:
            waits()
    finally:
        gc.callbacks.remove(callback)
    assert came
    assert stopped.value.signum == signum
