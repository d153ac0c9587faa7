"""States whose leaves are known functions of their step, and how the tests of checkpoints save and look at them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax.algorithm import TrainState
from aejax.checkpoint import Checkpoints


def make_state(step: int) -> TrainState:
    """Every leaf is a known function of the step."""
    params = {"encoder": {"kernel": jnp.full((3, 4), step, jnp.float32)}, "scale": jnp.float32(step)}
    return TrainState(jnp.int32(step), params, {"recon": optax.adam(1e-3).init(params)})


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save_steps(folder: Path, metrics: dict[int, float | None]) -> None:
    with Checkpoints(folder, every_seconds=0) as checkpoints:
        for step, metric in metrics.items():
            assert checkpoints.save(make_state(step), extra={"step": step}, metric=metric)


def restored_step(folder: Path, **kwargs) -> int:
    """Restores, and checks that all parts are of one and the same step."""
    state, extra = Checkpoints(folder).restore(make_state(0), **kwargs)
    assert_same(state, make_state(extra["step"]))
    return extra["step"]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
