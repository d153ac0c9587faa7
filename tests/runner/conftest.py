"""Runs through the command line, in process, with run folders of their own."""

from typing import NamedTuple

import pytest
from small_run import EXPERIMENT, arguments

from aejax.runner import launch


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys):
    """`call(*flags)` is `python -m experiments ae *flags`, small."""

    def call(*flags, experiment=EXPERIMENT):
        code = 0
        try:
            launch.main(experiment, "What it is.", arguments(*flags))
        except SystemExit as end:
            code = end.code
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of an uninterrupted run; look, do not touch."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    launch.main(EXPERIMENT, None, arguments("--workdir", path))
    return path
