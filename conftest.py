"""Strict settings for the whole suite: eight simulated devices, no silent rank promotion, warnings are errors."""

import collections
import gc
import itertools
import os
import re
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# Nearly all of the suite's time is compilation: the first flag takes a quarter from that, and the second, which later
# versions do not know, half of the rest. AEJAX_TEST_OPTIMISED=1 leaves them out.
if not os.environ.get("AEJAX_TEST_OPTIMISED"):
    flags = ["--xla_backend_optimization_level=0"]
    flags += ["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10.")
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # workers share the memory of a GPU

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.runner import launch

_BUDGET = 60  # CPU seconds, of cores that others slow down; nearly all tests take less than five

jax.config.update("jax_num_cpu_devices", 8)  # before anything touches a device
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)  # a twentieth of the time of a test goes into where code is
gc.set_threshold(100_000, 20, 50)  # and another into looking for garbage among traces


def pytest_configure(config):
    """Most of the suite's time is compilation: programs are kept for the session, for workers and subprocesses too."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="aejax-")
        config.add_cleanup(folder.cleanup)
        here = str(Path(__file__).parent)  # so that processes that tests start find the experiments
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        os.environ["AEJAX_CACHE"] = folder.name
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder.name}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    launch.use_compilation_cache()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`first(n)`: the cases of a test after its first n are slow ones. What waits for processes begins the suite."""
    items.sort(key=lambda item: item.path.name != "test_killed.py")
    seen = collections.Counter()
    for item in items:
        if first := item.get_closest_marker("first"):
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > first.args[0]:
                item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    """Under `--dist loadfile` workers take a file each, in order; of the contract a method each, of notebooks one.

    By node names, for groups (`--dist loadgroup` of pytest-xdist 3.8) are lost on pytest 9.2.
    """
    from xdist.scheduler import LoadFileScheduling

    one_by_one = ("test_contract.py", "test_notebooks.py")

    class ByFileOrMethod(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file, parameters = super()._split_scope(nodeid), nodeid.partition("[")[2]
            return f"{file}[{re.split('[^a-z0-9_]', parameters)[0]}]" if file.endswith(one_by_one) else file

    config.option.loadscopereorder = False  # it would leave the file of one long test to the end
    return ByFileOrMethod(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fails a test that takes more than its budget; what has to be longer is marked slow."""
    start = time.process_time()
    result = yield
    taken = time.process_time() - start
    if taken > _BUDGET and not item.get_closest_marker("slow"):
        pytest.fail(
            f"It took {taken:.0f} CPU seconds; {_BUDGET} are a test's budget. Make it shorter, or mark it slow."
        )
    return result


_done = itertools.count(1)


def pytest_runtest_logfinish():
    """A program takes hundreds of the 65,530 parts of memory that Linux lets a process map; past them it crashes."""
    maps = Path("/proc/self/maps")
    if next(_done) % 20 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _forgets_programs():
    """A process that keeps the programs of all files has 5 GB of them, which the garbage collector goes through."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _own_folder(request):
    """Runs leave their folders in one that is thrown away."""
    where = request.path.relative_to(Path(__file__).parent).parts
    if where[0] == "tests" and where[1] in ("runner", "experiments"):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    """The names that every doctest of the library may use."""
    import aejax

    doctest_namespace.update(jax=jax, jnp=jnp, np=np, aejax=aejax)


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """scikit-learn's digits, `[1797, 64]` float32 in [0, 1]."""
    from sklearn.datasets import load_digits

    return (load_digits().data / 16).astype(np.float32)
