"""Outlier detectors: fitting and scoring, against pyod's AutoEncoder of the same network, epochs and optimiser.

10,000 rows of 30 columns, 30-64-32-64-30 with ReLU, Adam at 1e-3, no dropout and no batch normalisation, standardised.
The candidates take turns, each in a process of its own, and the first turn does not count: the first fit of a shape
compiles, and its seconds stand apart. pyod is the extra `peers`; without it its rows are left out.
"""

import dataclasses
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.benchmarks.timing import Candidate, installed, machine, race, ratio

ROWS, COLUMNS, HIDDEN, CODE = 10_000, 30, 64, 32


@dataclasses.dataclass(frozen=True)
class Config:
    batch_sizes: tuple[int, ...] = (32, 128)
    """Rows a step; 32 is pyod's default, 128 ours."""
    num_epochs: int = 10
    """Passes over the rows; 10 is pyod's default."""
    rounds: int = 5
    """How often each candidate has its turn."""
    out: Path | None = None
    """Writes the figures as JSON."""


def table() -> np.ndarray:
    """Rows near a plane of ten dimensions, `[10000, 30]`, float32."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(ROWS, 10)) @ rng.normal(size=(10, COLUMNS))
    return (plane + 0.1 * rng.normal(size=(ROWS, COLUMNS))).astype(np.float32)


def ours(batch_size: int, num_epochs: int) -> Any:
    from aejax.estimators import AutoencoderOutlierDetector

    sizes: dict[str, Any] = {"hidden_dims": (HIDDEN,), "latent_dim": CODE}
    return AutoencoderOutlierDetector("ae", batch_size=batch_size, num_epochs=num_epochs, random_state=0, **sizes)


def pyod(batch_size: int, num_epochs: int) -> Any:
    from pyod.models.auto_encoder import AutoEncoder

    same = {"hidden_neuron_list": [HIDDEN, CODE], "batch_norm": False, "dropout_rate": 0.0, "optimizer_params": {}}
    return AutoEncoder(batch_size=batch_size, epoch_num=num_epochs, lr=1e-3, verbose=0, random_state=0, **same)


DETECTORS = {"aejax": (ours, "score_samples"), "pyod": (pyod, "decision_function")}


def fits(name: str, batch_size: int, num_epochs: int) -> Candidate:
    """Seconds of a fit."""
    x, make = table(), DETECTORS[name][0]
    while True:
        start = time.perf_counter()
        make(batch_size, num_epochs).fit(x)
        yield time.perf_counter() - start


def scores(name: str, batch_size: int) -> Candidate:
    """Seconds of scoring all rows."""
    x, (make, method) = table(), DETECTORS[name]
    found = make(batch_size, 1).fit(x)
    while True:
        start = time.perf_counter()
        getattr(found, method)(x)
        yield time.perf_counter() - start


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments detector", description=__doc__)
    console = Console()
    names = [name for name in DETECTORS if name == "aejax" or installed(name)]
    figures: dict[str, Any] = {"machine": machine(), "num_epochs": config.num_epochs, "seconds": {}, "times_ours": {}}
    starts: dict[str, Any] = {}
    for size in config.batch_sizes:
        starts[f"fit, batches of {size}"] = partial(fits, batch_size=size, num_epochs=config.num_epochs)
    starts["score 10,000 rows"] = partial(scores, batch_size=config.batch_sizes[-1])
    for size in config.batch_sizes:
        start = time.perf_counter()
        ours(size, config.num_epochs).fit(table())
        figures["seconds"][f"first fit, batches of {size}"] = {"aejax": [time.perf_counter() - start]}
    shown = Table("seconds", "median", "least", "most", "times ours", "rows a second")
    for what, begin in starts.items():
        turns = race({name: partial(begin, name) for name in names}, config.rounds)
        passes = config.num_epochs if what.startswith("fit") else 1
        for name, values in turns.items():
            seconds = [value / 1e3 for value in (statistics.median(values), min(values), max(values))]
            times = ratio(values, turns["aejax"])
            figures["seconds"].setdefault(what, {})[name] = seconds
            figures["times_ours"].setdefault(what, {})[name] = times
            rate = f"{passes * ROWS / seconds[0]:,.0f}"
            shown.add_row(f"{name}: {what}", *(f"{value:.3f}" for value in seconds), f"{times:.2f}", rate)
    console.print(shown)
    for what, values in figures["seconds"].items():
        if what.startswith("first"):
            console.print(f"{what}: {values['aejax'][0]:.1f} s, compilation and what is imported included")
    if len(names) == 1:
        console.print("pyod is not installed: pip install -e '.[peers]' adds its rows.")
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
