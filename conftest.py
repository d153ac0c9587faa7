"""Strict settings for the whole suite: eight simulated devices, no silent rank promotion, warnings are errors."""

import os
import tempfile

# Nearly all of the suite's time is compilation, which this takes a quarter from; AEJAX_TEST_OPTIMISED=1 leaves it out.
if not os.environ.get("AEJAX_TEST_OPTIMISED"):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import launch

jax.config.update("jax_num_cpu_devices", 8)  # before anything touches a device
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Most of the suite's time is compilation: programs are kept for the session, for workers and subprocesses too."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="aejax-")
        config.add_cleanup(folder.cleanup)
        os.environ["AEJAX_CACHE"] = folder.name
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder.name}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    launch.use_compilation_cache()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Workers take a file each, and of the contract, which is long, a method each (`--dist loadgroup`)."""
    for item in items:
        parameters = item.callspec.params if item.path.stem == "test_contract" and hasattr(item, "callspec") else {}
        item.add_marker(pytest.mark.xdist_group(f"{item.path} {parameters.get('name')}"))


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
