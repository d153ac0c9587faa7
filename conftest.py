"""Strict settings for the whole suite: eight simulated devices, no silent rank promotion, warnings are errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # before anything touches a device
jax.config.update("jax_numpy_rank_promotion", "raise")


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
