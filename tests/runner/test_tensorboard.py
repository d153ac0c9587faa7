"""Event files hold what metrics.jsonl holds, read back by the framing of TFRecord: length, data, masked CRC-32C."""

import errno
import io
import json
import os
import signal
import struct
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import test_study
from rich.console import Console
from small_run import EXPERIMENT, check_same
from tensorboardX.proto.event_pb2 import Event, SessionLog
from test_interruption import at_step, pasted, send
from test_killed import SMALL, start

import aejax
from aejax import checkpoint
from aejax.runner import launch, study
from aejax.runner.console import Bars
from aejax.runner.folder import open_folder
from experiments.studies import denoising

RUN = Path("run")


def masked_crc32c(content):
    """Castagnoli's polynomial, bits reversed, one bit at a time; rotated and shifted as the format asks."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_checksum_is_the_published_one():
    """RFC 3720, appendix B.4: the CRC-32C of 32 zeros is 0x8a9136aa, unmasked."""
    unmasked = (masked_crc32c(bytes(32)) - 0xA282EAD8) & 0xFFFFFFFF
    assert ((unmasked << 15) | (unmasked >> 17)) & 0xFFFFFFFF == 0x8A9136AA


def events(file):
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        data = content[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", content, at + 8) == (masked_crc32c(content[at : at + 8]),)
        assert struct.unpack_from("<I", content, at + 12 + length) == (masked_crc32c(data),)
        yield Event.FromString(data)
        at += 16 + length


def logged(path):
    """All scalars by tag and step, which no two events may share, and the pictures by tag."""
    scalars, pictures = {}, {}
    for file in path.glob("tensorboard/*"):
        for event in events(file):
            for value in event.summary.value:
                into = pictures if value.HasField("image") else scalars
                assert (value.tag, event.step) not in into
                into[value.tag, event.step] = value.image if into is pictures else value.simple_value
    return scalars, pictures


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def check_logged(path):
    expected = {
        (name, row["step"]): np.float32(value) for row in rows_of(path) for name, value in row.items() if name != "step"
    }
    assert logged(path)[0] == expected
    assert ("val/recon/loss", rows_of(path)[-1]["step"]) in expected


def draw(trained):
    from matplotlib.figure import Figure

    return {"blank": Figure(figsize=(3, 2), dpi=50)}


def test_a_run_logs_its_rows_and_its_pictures(call):
    outcome = call("--workdir", RUN, "--tensorboard", experiment=EXPERIMENT._replace(draw=draw))
    assert (outcome.code, outcome.err) == (0, "")
    check_logged(RUN)
    ((tag, step), picture) = next(iter(logged(RUN)[1].items()))
    assert (tag, step, picture.width, picture.height) == ("blank", 300, 150, 100)
    assert picture.encoded_image_string == (RUN / "figures" / "blank.png").read_bytes()


@pytest.mark.first(1)
@pytest.mark.parametrize("step", [2, 200])
def test_an_interrupted_run_logs_nothing_twice(call, finished, step):
    with at_step(step, lambda: send(signal.SIGINT)):
        outcome = call("--workdir", RUN, "--tensorboard", "--checkpoint-seconds", 1e9)
    assert len(rows_of(RUN)) == (step == 200)
    assert len(logged(RUN)[0]) == 7 * (step == 200)
    assert call(*pasted(outcome.err)).code == 0
    check_same(RUN, finished)
    check_logged(RUN)


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_forgotten(call, finished, monkeypatch):
    """The disk was full when the checkpoint that follows the row of step 200 was written."""
    seal = checkpoint._seal

    def full(folder, content):
        if content["step"] >= 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seal(folder, content)

    flags = ("--workdir", RUN, "--tensorboard", "--checkpoint-seconds", 0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_seal", full)
        assert call(*flags).code == 1
    (file,) = RUN.glob("tensorboard/*")
    assert ("recon/loss", 200) in logged(RUN)[0]
    assert call(*flags, "--resume").code == 0
    check_same(RUN, finished)
    check_logged(RUN)
    assert not file.exists()
    (file,) = RUN.glob("tensorboard/*")
    _, start, *_ = events(file)
    assert (start.step, start.session_log.status) == (0, SessionLog.START)  # what a TensorBoard has read is purged


def test_a_run_that_logs_from_its_second_half_on_logs_the_first_too(call):
    assert call("--workdir", RUN, "--num-epochs", 100).code == 0
    assert not (RUN / "tensorboard").exists()
    assert call("--workdir", RUN, "--num-epochs", 150, "--resume", "--tensorboard").code == 0
    assert [row["step"] for row in rows_of(RUN)] == [200, 300]
    check_logged(RUN)


@pytest.mark.slow
def test_a_killed_run_leaves_a_file_that_can_be_read(tmp_path):
    path = tmp_path / "killed"
    flags = ["--hidden-dims", "8", "--batch-size", "512", "--num-epochs", "1000", "--tensorboard", "--workdir", path]
    process = start(["-c", SMALL], *flags, "--checkpoint-seconds", "0")
    rows = path / "metrics.jsonl"
    while process.poll() is None and not (rows.is_file() and rows.read_bytes().count(b"\n") >= 2):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9, "it ended before it could be killed"
    assert len({step for _, step in logged(path)[0]}) >= len(rows_of(path)) - 1
    assert start(["-c", SMALL], *flags, "--resume").wait() == 0
    check_logged(path)


def test_a_study_passes_it_on(tmp_path):
    runs = {"a-0": (test_study.EXPERIMENT, test_study.TINY)}
    folder = open_folder("tiny", test_study.Config(), RUN, resume=False)
    launched = launch.Launch(workdir=RUN, tensorboard=True)
    study.run_all(runs, folder, launched, Bars(Console(file=io.StringIO())))
    assert logged(RUN / "a-0")[0].keys() == {(name, 6) for name in rows_of(RUN / "a-0")[0] if name != "step"}


def test_without_the_package_it_is_refused_before_anything_is_written(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    outcome = call("--tensorboard")
    assert outcome.code == 2
    assert outcome.err == (
        "error: --tensorboard needs tensorboardX, which is not installed: pip install 'aejax[runner]'\n"
    )
    assert not list(tmp_path.iterdir())
    extras = tomllib.loads((Path(aejax.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert any(line.startswith("tensorboardX") for line in extras["optional-dependencies"]["runner"])


def test_sweeps_have_no_event_files(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        launch.command_line("denoising", denoising.Config, "What it is.", denoising.body, ["--tensorboard"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: Sweeps write no event files; leave --tensorboard out.\n"
    assert not list(tmp_path.iterdir())
