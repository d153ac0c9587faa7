"""The run that these tests share, and how they look at run folders."""

import json
from pathlib import Path

import jax
import numpy as np

from aejax import runner
from experiments import ae

# The plain autoencoder on digits, with one measurement and no pictures, which cost more than its training.
EXPERIMENT = ae.EXPERIMENT._replace(
    measure=lambda trained: {"test_sse": float(trained.state.params["decoder"]["dense_1"]["bias"].sum())},
    draw=lambda trained: {},
)
FLAGS = {"--hidden-dims": "8", "--batch-size": "512", "--num-epochs": "150"}  # 2 steps an epoch: rows at 200 and 300


def arguments(*flags) -> list[str]:
    """A command line of those flags, which come before the run's own."""
    own = [word for name, value in FLAGS.items() if name not in flags for word in (name, value)]
    return [*own, *map(str, flags)]


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def check_same(path: str | Path, reference: Path) -> None:
    """Asserts that two runs ended with the same bits: parameters and optimisers, metrics, and metrics.jsonl."""
    (_, _, ours), (_, _, theirs) = runner.load(path), runner.load(reference)
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    summaries = read(Path(path) / "summary.json"), read(reference / "summary.json")
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    assert (Path(path) / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
