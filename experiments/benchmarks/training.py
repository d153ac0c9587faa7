"""Steps per second against hand-written PyTorch loops and artifex on the same machine, and what importing costs.

The candidates take turns, each in a process of its own; quoted are the median milliseconds per step, and the median of
the ratios of the rounds, so that a machine whose speed drifts does not decide. It has to be quiet all the same: two
threads of PyTorch that share a core with another program wait for each other, up to a hundred times longer. The data
are random numbers in the shape of MNIST. The others are the extra `peers`; rows of what is missing are left out.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from aejax import training
from aejax.data import Batch
from aejax.methods.ae import AE, ae
from aejax.methods.vae import VAE, vae
from aejax.nets import init_params
from experiments.benchmarks import peers
from experiments.benchmarks.timing import Candidate, installed, machine, race, ratio, timed

_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
_LISTED = "import {}, sys; print(' '.join(sys.modules))"
_HEAVY = ("tensorflow", "torch", "sklearn", "matplotlib")


@dataclasses.dataclass(frozen=True)
class Config:
    rounds: int = 7
    """How often each candidate has its turn."""
    seconds: float = 1.0
    """Length of a turn, about."""
    out: Path | None = None
    """Writes the figures as JSON."""


def aejax_chunks(algo: Any, params: Any, data: Batch, batch_size: int, seconds: float) -> Candidate:
    """What users get: the compiled chunks of `train`."""
    state, key = algo.init(params), jax.random.key(0)
    for chunk in training.train(algo, state, data, key, batch_size=batch_size, num_epochs=10**6):
        n = len(next(iter(chunk.metrics.values())))
        if chunk.seconds > seconds / 3 and n > 1:  # the first chunks compile, or are too short to be timed
            yield chunk.seconds / n


def jitted_steps(algo: Any, params: Any, data: Batch, batch_size: int, seconds: float) -> Candidate:
    """The usual JAX loop: one call of a jitted, donating step for each batch."""
    step = jax.jit(lambda state, data, rows, key: algo.step(state, training.take(data, rows), key), donate_argnums=0)
    state, key = jax.tree.map(jnp.copy, algo.init(params)), jax.random.key(0)
    data = jax.device_put(data)

    def train(rows: np.ndarray) -> None:
        nonlocal state
        for row in rows:
            state, _ = step(state, data, row, key)
        jax.block_until_ready(state)

    return timed(train, len(data.x), batch_size, seconds)


CASES = {  # widths of the encoder, batch size; no widths: the convolutional net
    "dense VAE 784-500-500-20, batch 100": ((500, 500, 20), 100),
    "dense VAE 784-512-256-32, batch 128": ((512, 256, 32), 128),
    "conv AE 28x28, 32-64-64-64, batch 128": ((), 128),
}
OURS, PEERS = ("aejax train", "loop of jitted steps"), ("PyTorch eager", "PyTorch compiled")
DENSE, CONV = ("artifex staged epoch",), ("PyTorch eager, channels last",)


def start(case: str, name: str, seconds: float) -> Candidate:
    """One candidate of one case."""
    widths, batch_size = CASES[case]
    x = np.random.default_rng(0).random((10_000, 28, 28, 1), np.float32)
    x = x.reshape(len(x), -1) if widths else x
    if name.startswith("PyTorch"):
        return peers.torch_steps(widths, x, batch_size, seconds, name.removeprefix("PyTorch "))
    if name in DENSE:
        return peers.artifex_epochs(widths, x, batch_size, seconds)
    *hidden_dims, latent_dim = widths or (2,)
    model: Any = VAE.dense(784, latent_dim, hidden_dims=tuple(hidden_dims)) if widths else AE.conv((28, 28, 1), 2)
    algo = vae(model) if widths else ae(model)
    run = aejax_chunks if name == "aejax train" else jitted_steps
    return run(algo, init_params(model, jax.random.key(0), x), Batch(x), batch_size, seconds)


def import_seconds(rounds: int) -> dict[str, Any]:
    """Seconds that `import aejax` takes beyond its four bases, in fresh processes, and what it must not bring."""

    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def output(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=usual).stdout

    bases = "jax, flax.linen, optax, chex"
    output("import aejax")  # the first import writes bytecode
    pairs = [
        (float(output(_IMPORT.format(f"{bases}, aejax"))), float(output(_IMPORT.format(bases)))) for _ in range(rounds)
    ]
    brought = output(_LISTED.format("aejax")).split()
    beyond = statistics.median(ours - base for ours, base in pairs)
    return {
        "beyond_bases": beyond,
        "bases": statistics.median(b for _, b in pairs),
        "heavy": [m for m in _HEAVY if m in brought],
    }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments training", description=__doc__)
    console = Console()
    figures: dict[str, Any] = {"machine": machine(), "ms_per_step": {}, "speed": {}}
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False)
    for case, (widths, _) in CASES.items():
        known = [*OURS, *(PEERS if installed("torch") else ()), *(DENSE if widths and installed("artifex") else ())]
        known += CONV if not widths and installed("torch") else ()
        turns = race({name: partial(start, case, name, config.seconds) for name in known}, config.rounds)
        ours = turns["aejax train"]
        table = Table("ms per step", "median", "least", "most", "times the steps of it", title=case)
        for name, values in turns.items():
            figures["ms_per_step"].setdefault(case, {})[name] = [statistics.median(values), min(values), max(values)]
            figures["speed"].setdefault(case, {})[name] = ratio(values, ours)
            table.add_row(name, *(f"{v:.2f}" for v in figures["ms_per_step"][case][name]), f"{ratio(values, ours):.2f}")
        console.print(table)
    for package in ("torch", "artifex"):
        if not installed(package):
            console.print(f"{package} is not installed: pip install -e '.[peers]' adds its rows.")
    figures["import_seconds"] = import_seconds(config.rounds)
    console.print("import aejax: {beyond_bases:.2f} s beyond jax, flax.linen, optax, chex ({bases:.2f} s)".format(
        **figures["import_seconds"]), highlight=False)  # fmt: skip
    console.print(f"of {', '.join(_HEAVY)} it brings: {', '.join(figures['import_seconds']['heavy']) or 'none'}")
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
