"""What a person sees: the progress of a run and its closing table.

Prints what it is given: it measures nothing and knows no files but the names of pictures.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from aejax.runner import units

_LINE_SECONDS = 5.0  # between lines, where nothing can be drawn again; more in long runs
_FOR_BARS, _FOR_COUNTS = 60, 40  # columns of a terminal that they need


class Bars:
    """Progress bars with the latest terms under them.

    A line now and then where there is no terminal, as in a log or a notebook, or one that draws nothing again.
    """

    def __init__(self, console: Console):
        self.console = console
        self.is_live = console.is_terminal and not console.is_dumb_terminal
        self.progress = _Progress(console=console)
        self.title = ""  # of the run, where it is one of several
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> "Bars":
        if self.is_live:
            self.progress.start()
        self.say("preparing")
        return self

    def __exit__(self, *_: Any) -> None:
        self.say("")
        if self.is_live:
            self.progress.stop()

    def add(self, name: str, num_steps: int, step: int = 0) -> None:
        """A bar for a run, of which `step` steps are done; `update` is about this one from now on."""
        self.progress.add_task(self.title or name, total=num_steps, completed=step)

    def update(self, step: int, terms: dict[str, float]) -> None:
        """Shows how far the run is, and its latest terms."""
        bar = self.progress.tasks[-1]
        self.progress.update(bar.id, completed=step)
        shown = describe(terms)
        left = "" if bar.time_remaining is None else f", {bar.time_remaining:.0f} s left"
        self._show(shown, f"{bar.description}: step {step} of {bar.total:.0f}{left}; {shown}")

    def say(self, text: str) -> None:
        """Shows a text under the bars."""
        self._show(text, f"{self.title}: {text}" if self.title else text)

    def _show(self, text: str, line: str) -> None:
        self.progress.text = Text(text, style="dim")
        now = time.monotonic()
        pause = max(_LINE_SECONDS, (now - self._start) / 20)
        if text and not self.is_live and now - self._last_line >= pause:
            self._last_line = now
            print(line, file=self.console.file, flush=True)


class _Progress(Progress):
    text = Text()

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        if tasks:
            self.columns = _columns(self.console.width)  # which may have changed
        return super().make_tasks_table(tasks)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.text:
            yield self.text


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Nothing that is printed ends a run: what a reader behind a pipe no longer takes is dropped, and characters that
    an output does not know are written by their numbers."""
    names = ("stdout", "stderr")
    before = {name: getattr(sys, name) for name in names}
    errors = {stream: stream.errors for stream in before.values() if hasattr(stream, "reconfigure")}
    for name, stream in before.items():
        if stream in errors:
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, _Lasting(stream) if stream is not None else io.StringIO())
    try:
        yield
        sys.stdout.flush()
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
        for stream, kind in errors.items():
            stream.reconfigure(errors=kind)


class _Lasting:
    """A stream whose reader may leave."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # for good: what is left in buffers goes there at the end too
            os.close(nowhere)


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    """What fits beside each other, numbers in full."""
    whole = Column(no_wrap=True)
    name = TextColumn("[bold]{task.description}", table_column=Column(overflow="fold", no_wrap=width >= _FOR_BARS))
    time_left = TimeRemainingColumn(elapsed_when_finished=True, table_column=whole)
    if width < _FOR_COUNTS:
        return name, TaskProgressColumn(), time_left
    counts = (MofNCompleteColumn(table_column=whole), TextColumn("steps"), time_left)
    return (name, BarColumn(), *counts) if width >= _FOR_BARS else (name, *counts)


def describe(terms: dict[str, float]) -> str:
    """The terms of each player behind its name, its loss first: `elbo: loss 24.2, kl_nats 1.9; val/elbo: loss 25`."""
    players: dict[str, list[str]] = {}
    for name, value in sorted(terms.items(), key=lambda term: not term[0].endswith("/loss")):
        player, _, term = name.rpartition("/")
        players.setdefault(player, []).append(f"{term} {value:.4g}")
    return "; ".join(f"{player}: {', '.join(shown)}" for player, shown in players.items())


def closing_table(summary: dict[str, Any], own: Mapping[str, units.Unit]) -> Table:
    """The metrics of a run, each above its published figure where there is one; `own` as in `units.find`."""
    seconds, rate = summary["wall_seconds"], summary["steps_per_second"]
    title = f"{summary['experiment']} on {summary['dataset']}, seed {summary['seed']}"
    speed = f", {rate:.0f} steps/s once compiled" if rate else ""
    table = Table(title=title, caption=f"{seconds:.1f} s in all{speed}")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    for name, value in summary["metrics"].items():
        known = units.find(name, own)
        table.add_row(name, f"{value:.5g}", "" if known is None else known.shown)
        if name in summary["reference"]:
            published, source = summary["reference"][name].values()
            table.add_row("  published", f"{published:.5g}", f"{source}; {value - published:+.3g} here", style="dim")
    return table


def list_figures(console: Console, folder: Path) -> None:
    """Names the pictures that a run left."""
    names = sorted(p.name for p in (folder / "figures").glob("*.png"))
    console.print(f"{folder}/figures: {', '.join(names)}", highlight=False, markup=False, soft_wrap=True)
