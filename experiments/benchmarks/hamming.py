"""Nearest codes by Hamming distance: queries a second over 10^6 codes of 64 bits, beside NumPy and faiss.

`aejax.hamming.HammingIndex`, all queries in one call, and others that do the same: NumPy, a query at a time, which
counts bits, counts codes by distance, and sorts those that are near enough; and, where it is installed,
`IndexBinaryFlat` of faiss-cpu (extra `peers`), all queries in one call, as it comes, with a heap and all threads, and
with counting in one thread, which may be faster where others use the cores. They take turns in one process; quoted are
medians, and beside them the processor time of all threads, which others that use the cores do not change as much. All
are exact, and their distances are compared before. Codes are random.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from aejax.checks import InputError, check_count
from aejax.hamming import HammingIndex, pack
from experiments.benchmarks.timing import installed, interleave, machine, ratio

OURS, NUMPY, FAISS, COUNTING = "aejax.hamming", "numpy, a query at a time", "faiss", "faiss, counting, one thread"


@dataclasses.dataclass(frozen=True)
class Config:
    num_codes: int = 1_000_000
    """In the index."""
    num_queries: int = 256
    """Of a call; of NumPy an eighth."""
    num_bits: int = 64
    """Of a code, a multiple of 64."""
    k: int = 100
    """Nearest codes that are found."""
    rounds: int = 5
    """How often each candidate has its turn."""
    seconds: float = 1.0
    """Of a turn, about."""
    out: Path | None = None
    """Writes the figures as JSON."""


def by_numpy(codes: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices, `[Q, k]`: `[N, W], [Q, W]` of uint64; by distance, then by index."""
    found = []
    for query in queries:
        distance = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.int16)
        radius = np.searchsorted(np.bincount(distance).cumsum(), k)
        near = np.flatnonzero(distance <= radius)
        near = near[np.argsort(distance[near], kind="stable")[:k]]
        found.append((distance[near], near))
    distances, indices = zip(*found, strict=True)
    return np.stack(distances), np.stack(indices)


def candidates(config: Config) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """What takes turns, each returns distances first, and the queries of each."""
    rng = np.random.default_rng(0)
    codes, queries = (pack(rng.integers(2, size=(n, config.num_bits))) for n in (config.num_codes, config.num_queries))
    index, few = HammingIndex(codes), queries[: max(1, config.num_queries // 8)]
    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: index.search(queries, config.k),
        NUMPY: lambda: by_numpy(codes.view(np.uint64), few.view(np.uint64), config.k),
    }
    if installed("faiss"):
        import faiss

        flat, threads = faiss.IndexBinaryFlat(config.num_bits), faiss.omp_get_max_threads()
        flat.add(codes.view(np.uint8))

        def search(use_heap: bool, threads: int) -> Any:
            flat.use_heap = use_heap
            faiss.omp_set_num_threads(threads)
            return flat.search(queries.view(np.uint8), config.k)

        calls |= {FAISS: lambda: search(True, threads), COUNTING: lambda: search(False, 1)}
    return calls, {name: len(few if name == NUMPY else queries) for name in calls}


def processor_ms(call: Callable[[], Any], rounds: int) -> float:
    """Milliseconds of all threads for a call, the median."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


def measure(config: Config) -> dict[str, Any]:
    """Queries a second: median, least and most; processor time of one; and how many times our time the others take."""
    sizes = {"num_codes": config.num_codes, "num_queries": config.num_queries, "k": config.k, "rounds": config.rounds}
    check_count(**{f"--{name.replace('_', '-')}": size for name, size in sizes.items()})
    if config.num_bits < 64 or config.num_bits % 64 or config.k > config.num_codes:
        raise InputError(f"--num-bits is {config.num_bits}, a multiple of 64; --k {config.k} is at most --num-codes.")
    calls, queries = candidates(config)
    distances = {name: np.asarray(call()[0]) for name, call in calls.items()}
    for name, found in distances.items():
        if (found != distances[OURS][: len(found)]).any():
            raise AssertionError(f"{name} finds other distances.")
    turns = interleave(calls, config.rounds, config.seconds)
    each = {name: [ms / queries[name] for ms in values] for name, values in turns.items()}
    speeds = {name: [1e3 / ms for ms in values] for name, values in each.items()}
    return {
        "machine": machine(),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "out"},
        "queries_per_second": {name: [statistics.median(v), min(v), max(v)] for name, v in speeds.items()},
        "processor_ms": {name: processor_ms(call, config.rounds) / queries[name] for name, call in calls.items()},
        "speed": {name: ratio(values, each[OURS]) for name, values in each.items()},
    }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments hamming", description=__doc__)
    console = Console()
    figures = measure(config)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False)
    title = f"{config.k} nearest of {config.num_codes:,} codes of {config.num_bits} bits"
    table = Table("candidate", "queries a second", "least", "most", "time, ours = 1", "processor, ms", title=title)
    for name, values in figures["queries_per_second"].items():
        others = figures["speed"][name], figures["processor_ms"][name]
        table.add_row(name, *(f"{value:,.0f}" for value in values), *(f"{value:.2f}" for value in others))
    console.print(table)
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
