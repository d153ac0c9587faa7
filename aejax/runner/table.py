"""Runs side by side: found in folders, finished or not, with what differs between them and what came of it.

Reads what runs wrote; trains, measures and changes nothing.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from aejax.checkpoint import Checkpoints
from aejax.checks import InputError, nearest
from aejax.runner.folder import read_json

_UNLIMITED = 1_000_000  # columns of a terminal
_NO_RUNS_IN = {"checkpoints", "figures", "tensorboard"}


class Run(NamedTuple):
    """A run, as its folder tells it."""

    name: str
    config: dict[str, Any]  # flat: `hparams.lr`; the experiment and where it began are parts of it
    state: str  # finished, or how far it is
    is_finished: bool
    metrics: dict[str, float]  # of the summary
    history: list[dict[str, float]]  # the rows of metrics.jsonl
    seconds: float | None  # of an unfinished one, up to its last checkpoint

    def value(self, column: str) -> Any:
        """What stands in a column; None for nothing."""
        own = {"run": self.name, **self.config, **self.metrics, "seconds": self.seconds, "state": self.state}
        return own[column] if column in own else self.last.get(column)

    @property
    def last(self) -> dict[str, float]:
        """The terms of the last row."""
        return {name: value for name, value in (self.history or [{}])[-1].items() if "/" in name}


class Found(NamedTuple):
    """The runs below some folders, and a line about each folder that could not be read."""

    runs: list[Run]
    skipped: list[str]


def find(folders: Sequence[Path]) -> Found:
    """The runs in and below folders, those of studies too, sorted by name.

    Args:
      folders: where to look. A run is named by where it lies below its folder, or by its whole path where there are
        several folders.

    Raises:
      InputError: a folder is not there, or none holds a run.
    """
    runs: dict[Path, Run] = {}
    skipped = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; wanted is one with runs in it, such as runs.")
        for path in _with_config(folder):
            name = str(path) if len(folders) > 1 or path == folder else str(path.relative_to(folder))
            try:
                saved = _saved(path)
                if "data_shape" in saved:  # which a study has not
                    runs[path.resolve()] = _read(path, name, saved)
                elif "runs" not in saved:
                    skipped.append(f"{path} is left out: {saved['experiment']} is a study that keeps no runs.")
            except (InputError, OSError) as error:
                skipped.append(f"{path} is left out: {error}")
    if not runs:
        reasons = "".join(f"\n{line}" for line in skipped)
        raise InputError(f"There are no runs in {' or '.join(map(str, folders))}.{reasons}")
    return Found(sorted(runs.values(), key=_by_name), skipped)


def _by_name(run: Run) -> list[str]:
    """`ae-2` before `ae-10`."""
    return [part.zfill(20) if part.isdecimal() else part for part in re.split("([0-9]+)", run.name)]


def _with_config(folder: Path) -> Iterable[Path]:
    for path, below, files in os.walk(folder):
        below[:] = sorted(set(below) - _NO_RUNS_IN)
        if "config.json" in files:
            yield Path(path)


def _saved(path: Path) -> dict[str, Any]:
    saved = read_json(path / "config.json")
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict) or "experiment" not in saved:
        raise InputError("config.json is damaged, or of something else.")
    return saved


def _read(path: Path, name: str, saved: dict[str, Any]) -> Run:
    config = {"experiment": saved["experiment"], **_flat(saved["config"]), "data_digest": saved.get("data_digest")}
    if "from" in saved:
        config["from"] = f"{saved['from']['folder']}, step {saved['from']['step']}"
    history, summary = _history(path / "metrics.jsonl"), read_json(path / "summary.json")
    num_epochs = saved["config"].get("num_epochs", 0)
    if summary is None and (path / "summary.json").exists():
        raise InputError("summary.json is damaged.")
    if summary is not None and summary.get("num_epochs", 0) >= num_epochs:
        state = f"{', '.join(summary['failed'])} failed" if summary.get("failed") else "finished"
        return Run(name, config, state, True, summary["metrics"], history, summary["wall_seconds"])
    checkpoints = Checkpoints(path / "checkpoints")
    saved_steps = checkpoints.steps()
    step = max([0, *saved_steps[-1:], *[row["step"] for row in history[-1:]]])
    num_steps = saved.get("num_steps")
    if num_steps is None and history:  # of an older version
        num_steps = round(history[-1]["step"] / history[-1]["epoch"]) * num_epochs
    where = f"at step {step}" + (f" of {num_steps}" if num_steps else "")
    state, seconds = f"running, {where}" if _is_claimed(path) else where, checkpoints.latest_extra().get("seconds")
    return Run(name, config, state, False, {}, history, seconds)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _history(file: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a last one without its end is still being written."""
    try:
        lines = file.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]
    except FileNotFoundError:
        return []
    except ValueError:
        raise InputError("metrics.jsonl is damaged.") from None


def _is_claimed(path: Path) -> bool:
    """Whether a process trains in the folder, as in `RunFolder.claim`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # some network file systems have no locks
        return False
    finally:
        os.close(descriptor)
    return False


def differing(runs: Sequence[Run]) -> list[str]:
    """The parts of the configuration in which runs differ.

    What only some experiments have is one where its values differ. The digest of the data is one where data sets of one
    name differ.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.config))
    differ = [name for name in names if name != "data_digest" and _differs(runs, name)]
    digests = {(run.config.get("dataset"), run.config["data_digest"]) for run in runs if run.config["data_digest"]}
    return differ + ["data_digest"] * (len(digests) > len({dataset for dataset, _ in digests}))


def _differs(runs: Sequence[Run], name: str) -> bool:
    having = {run.config["experiment"] for run in runs if name in run.config}
    of_those = [run.config for run in runs if run.config["experiment"] in having]
    values = {json.dumps(config[name]) for config in of_those if name in config}
    return len(values) > 1 or not all(name in config for config in of_those)  # a default, in a folder that lacks it


def columns(runs: Sequence[Run], sort: str | None = None) -> list[str]:
    """What a table of runs shows: what differs, metrics, seconds, state.

    Where some have not finished, the losses of the last rows stand between them; the losses of all, so that they can
    be compared.

    Raises:
      InputError: no run has what they are to be sorted by.
    """
    metrics = [name for run in runs for name in run.metrics]
    losses = [name for run in runs if not run.is_finished for name in run.last if name.endswith("/loss")]
    shown = [*dict.fromkeys(["run", *differing(runs), *metrics, *losses, "seconds", "state"])]
    if sort is None or sort in shown:
        return shown
    known = {name for run in runs for name in (*run.config, *run.last)}
    if sort not in known:
        raise InputError(f"No run has {sort!r}. {nearest(sort, {*known, *shown}, what='columns')}")
    return [*shown[:-2], sort, *shown[-2:]]


def ordered(runs: Sequence[Run], sort: str) -> list[Run]:
    """Runs by a column, ascending; those that have nothing there come last."""

    def key(run: Run) -> tuple[bool, bool, Any]:
        value = run.value(sort)
        is_number = isinstance(value, int | float) and value == value
        return value is None, not is_number, value if is_number else str(value)

    return sorted(runs, key=key)


def text(value: Any) -> str:
    """A cell, in full: nothing for None."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else text(value)


def render(runs: Sequence[Run], shown: Sequence[str], console: Console) -> RenderableType:
    """A table with a run in each line, or else in each column, or a block for each run: the first that fits in whole.

    Off a terminal there is no width to fit.
    """
    cells = [shown, *([_short(run.value(column)) for column in shown] for run in runs)]
    numbers = [any(isinstance(run.value(column), int | float) for run in runs) for column in shown]
    by_line = _grid(cells, numbers)
    wide = console.options.update(width=_UNLIMITED)
    for table in (by_line, _grid(list(zip(*cells, strict=True)), [False, *[True] * len(runs)])):
        if not console.is_terminal or Measurement.get(console, wide, table).maximum <= console.width:
            return table
    return Group(*(_block(run, shown) for run in runs))


def _grid(cells: Sequence[Sequence[str]], right: Sequence[bool]) -> Table:
    table = Table()
    for title, is_right in zip(cells[0], right, strict=True):
        table.add_column(Text(title), justify="right" if is_right else "left", no_wrap=True)
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    return table


def _block(run: Run, shown: Sequence[str]) -> RenderableType:
    lines = Table.grid(padding=(0, 1))
    for _ in range(2):
        lines.add_column(overflow="fold")
    for column in shown[1:]:
        if run.value(column) is not None:
            lines.add_row(Text(column, style="dim"), Text(_short(run.value(column))))
    return Group(Text(run.name, style="bold", overflow="fold"), lines, Text())


def label(run: Run, differ: Sequence[str]) -> str:
    """What tells a run from the others: `hparams.lr 0.1, seed 1`; its name where nothing does."""
    told = [f"{name} {_short(run.config[name])}" for name in differ if run.config.get(name) is not None]
    return ", ".join(told) or run.name
