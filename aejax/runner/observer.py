"""What happens between the chunks of a run in a folder: rows, checkpoints, progress, and signals.

Nothing is computed here that a run without a folder would lack.
"""

import _thread
import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from aejax import training
from aejax.checkpoint import Checkpoints
from aejax.checks import InputError
from aejax.runner.console import Bars
from aejax.runner.folder import RunFolder
from aejax.runner.options import Launch
from aejax.runner.origin import Origin, check_model
from aejax.runner.running import Progress, Ready
from aejax.runner.tensorboard import EventFile

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came; whatever was trained is saved."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum


class _Save(NamedTuple):
    """The arguments of `Checkpoints.save`."""

    state: Any
    extra: dict[str, Any]
    metric: float | None


class FolderObserver:
    """Shows progress, appends rows to metrics.jsonl, saves checkpoints, and stops the run on a signal.

    With `--tensorboard` it writes an event file too.

    While it trains a signal is noted and read between chunks; a second one ends the process at once. Of the states
    since the last checkpoint it keeps the one of the lowest validation loss too, so that the best is saved, however
    seldom checkpoints are.
    """

    def __init__(self, folder: RunFolder, launch: Launch, bars: Bars, origin: Origin | None = None):
        self.folder, self.launch, self.bars, self.origin = folder, launch, bars, origin
        self.checkpoints = Checkpoints(folder.checkpoints, every_seconds=launch.checkpoint_seconds)
        self.caught: int | None = None
        self.monitor = ""
        self.step, self.num_steps, self.lowest = 0, 0, math.inf
        self._best: _Save | None = None
        self._latest: _Save | None = None
        self._events: EventFile | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "FolderObserver":
        return self

    def __exit__(self, *_: Any) -> None:
        self._let_signals_through()
        self.checkpoints.close()
        if self._events is not None:
            self._events.close()
        self.folder.release()

    def begin(self, ready: Ready) -> Progress | None:
        num_steps, self.monitor = ready.num_steps, f"val/{ready.monitor}"
        if self.origin is not None and self.origin.model is not None:
            check_model(self.origin, ready)
        self.folder.claim()
        restored = self.checkpoints.restore(ready.state) if self.launch.resume else None
        progress = None if restored is None else Progress(*restored)
        if progress is None and self.origin is not None and self.origin.model is None:
            raise InputError(
                f"{self.folder.path} has no intact checkpoint, and {self.origin.folder} no longer has the parameters"
                " that it began with. Bring those back, or give another --workdir and --from, without --resume."
            )
        rows = [] if progress is None else progress.extra["rows"]
        self.folder.start(data_shape=ready.spec.shape, num_classes=ready.spec.num_classes, num_steps=num_steps)
        self.folder.write_rows(rows)
        if self.launch.tensorboard:
            self._events = EventFile(self.folder.path / "tensorboard", rows)
        self.num_steps = num_steps
        self.step = 0 if progress is None else int(progress.state.step)
        self.lowest = min((row.get(self.monitor, math.inf) for row in rows), default=math.inf)
        self.bars.add(self.folder.experiment, num_steps, self.step)
        self.bars.say("compiling")
        if self.step < num_steps and in_main_thread():
            self._handlers = {signum: signal.signal(signum, self._note) for signum in _SIGNALS}
        return progress

    def update(self, chunk: training.Chunk, row: dict[str, float] | None, extra: dict[str, Any]) -> bool:
        self.step = chunk.step
        terms = {name: float(values[-1]) for name, values in chunk.metrics.items()}
        self._latest = _Save(chunk.state, extra, None)
        if row is not None:
            self.folder.append_row(row)
            if self._events is not None:
                self._events.add_row(row)
            held_out = row.get(self.monitor, math.inf)
            if held_out < math.inf:
                terms[self.monitor] = held_out
            if held_out < self.lowest:
                self.lowest, self._latest = held_out, _Save(chunk.state, extra, held_out)
                self._best = self._latest
        self.bars.update(chunk.step, terms)
        last = chunk.step == self.num_steps
        if last:
            self.bars.say("measuring and drawing")
        self.save(force=last or self.caught is not None)
        if last and self.caught is None:
            self._let_signals_through()
        return self.caught is not None

    def say(self, text: str) -> None:
        self.bars.say(text)

    def log_pictures(self) -> None:
        """Adds the pictures that the folder has by now to the event file, if there is one."""
        if self._events is not None:
            self._events.add_pictures(sorted(self.folder.figures.glob("*.png")), self.num_steps)

    def save(self, *, force: bool = False) -> None:
        """Saves the latest state, and before it the best since the last save; unless it is too early for that."""
        before = None if self._best is self._latest else self._best
        for save in (before, self._latest):
            if save is not None:
                if not self.checkpoints.save(save.state, extra=save.extra, metric=save.metric, force=force):
                    return
                force = True
        self._best = self._latest = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            end_process(signum)
        self.caught = signum

    def _let_signals_through(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raises `Interrupted` at a signal; a second one ends the process at once. Signals come to the main thread only.

    Where the signal comes in a finaliser or a callback of the garbage collector, whose exceptions Python ignores, it is
    raised once more, a moment later.
    """
    if not in_main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, lambda signum, frame: end_process(signum))
        raise Interrupted(signum)

    def ignored(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            hook(unraisable)
            return
        for each in _SIGNALS:
            signal.signal(each, interrupt)
        threading.Timer(0.01, _thread.interrupt_main, (unraisable.exc_value.signum,)).start()

    before, hook = {signum: signal.signal(signum, interrupt) for signum in _SIGNALS}, sys.unraisablehook
    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for signum, handler in before.items():
            signal.signal(signum, handler)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def end_process(signum: int) -> None:
    """Exits without another word, as a shell expects it of a signal."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the progress bars hide the cursor
    os._exit(128 + signum)
