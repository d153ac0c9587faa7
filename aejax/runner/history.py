"""What a run said of itself: the per-step metrics, summed into rows, and its speed.

No file is written here, and nothing is evaluated.
"""

import time
from typing import Any

import numpy as np

from aejax.training import Chunk

_ROW_STEPS = 200  # a row stands for whole epochs of at least this many steps together


class History:
    """Sums per-step metrics into rows, one for every `boundary` steps and one for the last.

    The sums are taken one by one in float64 and can be saved in the middle, so a run that was interrupted writes the
    rows, bit for bit, of the run that was not.
    """

    def __init__(self, num_steps: int, num_epochs: int):
        self.num_steps, self.steps_per_epoch = num_steps, num_steps // num_epochs
        self.boundary = -(-_ROW_STEPS // self.steps_per_epoch) * self.steps_per_epoch
        self.rows: list[dict[str, float]] = []  # those of metrics.jsonl
        self.sums: dict[str, float] = {}
        self.count = 0
        self.seconds_before, self._start = 0.0, time.perf_counter()
        self._compiled, self._timed = False, (0, 0.0)  # steps and seconds, the first chunk, which compiles, left out

    def add(self, chunk: Chunk) -> dict[str, float] | None:
        """Takes the steps of a chunk; returns the row that they complete, already among `rows`."""
        n = len(next(iter(chunk.metrics.values())))
        for name, values in chunk.metrics.items():
            self.sums[name] = float(np.add.accumulate([self.sums.get(name, 0.0), *values.tolist()])[-1])
        self.count += n
        if self._compiled:
            self._timed = (self._timed[0] + n, self._timed[1] + chunk.seconds)
        self._compiled = True
        if chunk.step % self.boundary and chunk.step != self.num_steps:
            return None
        row: dict[str, float] = {"step": chunk.step, "epoch": chunk.step // self.steps_per_epoch}
        row |= {name: total / self.count for name, total in sorted(self.sums.items())}
        self.rows.append(row)
        self.sums, self.count = {}, 0
        return row

    def extra(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the state, in JSON types; nothing changes it afterwards."""
        return {"rows": [*self.rows], "sums": {**self.sums}, "count": self.count, "seconds": self.seconds()}

    def restore(self, extra: dict[str, Any]) -> None:
        """Goes on from there."""
        self.rows, self.sums, self.count = [*extra["rows"]], {**extra["sums"]}, extra["count"]
        self.seconds_before = extra["seconds"]

    def seconds(self) -> float:
        """Spent on the run so far, by all the processes that had a part in it."""
        return self.seconds_before + time.perf_counter() - self._start

    def steps_per_second(self) -> float:
        """Over all chunks but the first; NaN where there was none."""
        return self._timed[0] / self._timed[1] if self._timed[1] else float("nan")
