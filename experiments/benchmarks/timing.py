"""What the benchmarks share: candidates that take turns, in one process or each in its own, and the machine's name."""

import datetime
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the memory of a GPU

Candidate = Iterator[float]  # each `next` works for a while and returns seconds per step


def race(starts: Mapping[str, Callable[[], Candidate]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per step of each candidate in each round.

    Each candidate has a process of its own, since the thread pools of JAX and PyTorch starve each other in one, and
    they take turns, so that a machine whose speed drifts does not decide. The first turn is not counted.

    Args:
      starts: what makes each candidate; picklable.
      rounds: how often each has its turn.
    """
    context, turns = multiprocessing.get_context("spawn"), {}
    for name, start in starts.items():
        turns[name], theirs = context.Pipe()
        context.Process(target=_work, args=(theirs, start), daemon=True).start()
    taken: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(rounds + 1):
        for name, pipe in turns.items():
            pipe.send(True)
            taken[name].append(pipe.recv())
    for pipe in turns.values():
        pipe.send(False)
    return {name: values[1:] for name, values in taken.items()}


def _work(turns: Connection, start: Callable[[], Candidate]) -> None:
    candidate = start()
    while turns.recv():
        turns.send(1e3 * next(candidate))


def timed(train: Callable[[np.ndarray], None], size: int, batch_size: int, seconds: float, whole: int = 1) -> Candidate:
    """Runs `train(rows [n, batch_size])` for about `seconds`, again and again, after a warm-up.

    n is a multiple of `whole`, for those who train by the epoch.
    """
    rng = np.random.default_rng(0)
    n = 3 if whole == 1 else whole
    train(rng.integers(size, size=(n, batch_size)))
    while True:
        rows = rng.integers(size, size=(n, batch_size))
        start = time.perf_counter()
        train(rows)
        taken = time.perf_counter() - start
        if taken > seconds / 3:
            yield taken / n
        n = whole * max(1, round(n * seconds / taken / whole))


def repeat(call: Callable[[], Any], seconds: float) -> Candidate:
    """Calls, which have to wait for their result, for about `seconds` a turn, after a warm-up."""
    call()
    n = 1
    while True:
        start = time.perf_counter()
        for _ in range(n):
            call()
        taken = time.perf_counter() - start
        yield taken / n
        n = max(1, round(n * seconds / taken))


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """`race` for candidates that may share a process."""
    candidates = {name: repeat(call, seconds) for name, call in calls.items()}
    turns = [{name: 1e3 * next(candidate) for name, candidate in candidates.items()} for _ in range(rounds + 1)][1:]
    return {name: [turn[name] for turn in turns] for name in calls}


@contextmanager
def uncached() -> Iterator[None]:
    """Nothing is read from JAX's cache of compiled programs on the disk, nor written to it."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(before)


def _use_cache(use: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", use)
    compilation_cache.reset_cache()  # whether there is one is asked at the first compilation after that


def ratio(others: list[float], ours: list[float]) -> float:
    """How many times our time the other takes: the median over rounds."""
    return statistics.median(other / own for other, own in zip(others, ours, strict=True))


def installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def machine() -> dict[str, str]:
    """Where and with what this was measured."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    found = {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{len(names)} x {names[0]}" if names else platform.processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    packages = {
        "torch": "torch",
        "artifex": "avitai-artifex",
        "pyod": "pyod",
        "faiss": "faiss-cpu",
        "recbole": "recbole",
    }
    for package, distribution in packages.items():
        if installed(package):
            found[package] = version(distribution)
    return found


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
