"""Runs through the command line, in process, with caches and run folders of their own."""

from typing import NamedTuple

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from small_run import EXPERIMENT, arguments

from experiments import launch


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Compiled programs are kept for the session; JAX's settings are as before afterwards."""
    names = [f"jax_{name}" for name in (
        "compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes"
    )]  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        launch.use_compilation_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(capsys):
    """`call(*flags)` is `python -m experiments.ae *flags`, small."""

    def call(*flags, experiment=EXPERIMENT):
        code = 0
        try:
            launch.main(experiment, "What it is.", arguments(*flags))
        except SystemExit as end:
            code = end.code
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory, _own_cache):
    """The folder of an uninterrupted run; look, do not touch."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    launch.main(EXPERIMENT, None, arguments("--workdir", path))
    return path
