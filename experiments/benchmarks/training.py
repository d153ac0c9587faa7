"""Steps per second against a hand-written PyTorch loop on the same machine, and what importing costs.

The candidates take turns, each in a process of its own; quoted are the median milliseconds per step, and the median of
the ratios of the rounds, so that a machine whose speed drifts does not decide. It has to be quiet all the same: two
threads of PyTorch that share a core with another program wait for each other, up to a hundred times longer. The data
are random numbers in the shape of MNIST. PyTorch is the extra `peers`; without it its rows are left out.
"""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
from experiments.benchmarks.timing import Candidate, has_torch, machine, race, ratio

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


def timed(train: Callable[[np.ndarray], None], size: int, batch_size: int, seconds: float) -> Candidate:
    """Runs `train(rows [n, batch_size])` for about `seconds`, again and again, after a warm-up."""
    rng = np.random.default_rng(0)
    train(rng.integers(size, size=(3, batch_size)))
    n = 3
    while True:
        rows = rng.integers(size, size=(n, batch_size))
        start = time.perf_counter()
        train(rows)
        taken = time.perf_counter() - start
        if taken > seconds / 3:
            yield taken / n
        n = max(1, round(n * seconds / taken))


def torch_steps(kind: str, x: np.ndarray, batch_size: int, seconds: float, way: str) -> Candidate:
    """A hand-written PyTorch loop over a tensor, eager or compiled: the same network, loss and optimiser."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    bce = nn.functional.binary_cross_entropy_with_logits
    if kind == "dense":
        encoder = nn.Sequential(
            nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 40),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(20, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 784),
        )  # fmt: skip

        def loss_of(x: Any) -> Any:
            mean, logvar = encoder(x).chunk(2, dim=1)
            logits = decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
            kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum()
            return (bce(logits, x, reduction="sum") + kl) / len(x)
    else:
        x = x.transpose(0, 3, 1, 2)
        encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, 1, 1), nn.LeakyReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.LeakyReLU(),
            nn.Conv2d(64, 64, 3, 2, 1), nn.LeakyReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.LeakyReLU(),
            nn.Flatten(), nn.Linear(64 * 49, 2),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(2, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.LeakyReLU(),
            nn.ConvTranspose2d(64, 64, 3, 1, 1), nn.LeakyReLU(), nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.LeakyReLU(),
            nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.LeakyReLU(), nn.ConvTranspose2d(32, 1, 3, 1, 1),
        )  # fmt: skip

        def loss_of(x: Any) -> Any:
            return bce(decoder(encoder(x)), x, reduction="sum") / len(x)

    encoder, decoder = encoder.to(device), decoder.to(device)
    data = torch.tensor(np.ascontiguousarray(x), device=device)
    if way == "eager, channels last":
        both: Any = nn.ModuleList([encoder, decoder])
        both.to(memory_format=torch.channels_last)
        data = data.contiguous(memory_format=torch.channels_last)
    if way == "compiled":
        loss_of = torch.compile(loss_of)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def train(rows: np.ndarray) -> None:
        for row in torch.tensor(rows, device=device):
            loss = loss_of(data[row])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        loss.item()

    return timed(train, len(x), batch_size, seconds)


CASES = {"dense VAE 784-500-500-20, batch 100": ("dense", 100), "conv AE 28x28, 32-64-64-64, batch 128": ("conv", 128)}
CANDIDATES = (
    "aejax train", "loop of jitted steps", "PyTorch eager", "PyTorch compiled", "PyTorch eager, channels last"
)  # fmt: skip


def start(case: str, name: str, seconds: float) -> Candidate:
    """One candidate of one case."""
    kind, batch_size = CASES[case]
    x = np.random.default_rng(0).random((10_000, 28, 28, 1), np.float32)
    x = x if kind == "conv" else x.reshape(len(x), -1)
    if name.startswith("PyTorch"):
        return torch_steps(kind, x, batch_size, seconds, name.removeprefix("PyTorch "))
    model: Any = VAE.dense(784, 20, hidden_dims=(500, 500)) if kind == "dense" else AE.conv((28, 28, 1), 2)
    algo = vae(model) if kind == "dense" else ae(model)
    run = aejax_chunks if name == "aejax train" else jitted_steps
    return run(algo, init_params(model, jax.random.key(0), x), Batch(x), batch_size, seconds)


def import_seconds(rounds: int) -> dict[str, Any]:
    """Seconds that `import aejax` takes beyond its four bases, in fresh processes, and what it must not bring."""

    def output(code: str) -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    bases = "jax, flax.linen, optax, chex"
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
    for case, (kind, _) in CASES.items():
        names = CANDIDATES if kind == "conv" else CANDIDATES[:4]
        known = [name for name in names if has_torch() or not name.startswith("PyTorch")]
        turns = race({name: partial(start, case, name, config.seconds) for name in known}, config.rounds)
        ours = turns["aejax train"]
        table = Table("ms per step", "median", "least", "most", "times the steps of it", title=case)
        for name, values in turns.items():
            figures["ms_per_step"].setdefault(case, {})[name] = [statistics.median(values), min(values), max(values)]
            figures["speed"].setdefault(case, {})[name] = ratio(values, ours)
            table.add_row(name, *(f"{v:.2f}" for v in figures["ms_per_step"][case][name]), f"{ratio(values, ours):.2f}")
        console.print(table)
    if not has_torch():
        console.print("PyTorch is not installed: pip install -e '.[peers]' adds its rows.")
    figures["import_seconds"] = import_seconds(config.rounds)
    console.print("import aejax: {beyond_bases:.2f} s beyond jax, flax.linen, optax, chex ({bases:.2f} s)".format(
        **figures["import_seconds"]), highlight=False)  # fmt: skip
    console.print(f"of {', '.join(_HEAVY)} it brings: {', '.join(figures['import_seconds']['heavy']) or 'none'}")
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
