"""The command line around an experiment: flags, run folder, progress, interruption, exit codes.

0 done; 1 diverged, or an I/O error such as a full disk; 2 something in the input; 130 and 143 interrupted and saved.
"""

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import TaskID

from aejax import training
from aejax.checkpoint import Checkpoints
from aejax.checks import DivergedError, InputError
from experiments import common
from experiments.common import Experiment, Progress, Result
from experiments.console import Bars, closing_table, list_figures
from experiments.folder import RunFolder, open_folder, write_json


@dataclasses.dataclass(frozen=True)
class Launch:
    """How to run it; decides no numbers."""

    workdir: Path | None = None
    """Run folder; runs/NAME-DATASET-HASH by default."""
    resume: bool = False
    """Go on with an unfinished run, or with a finished one for more epochs."""
    devices: int | None = 1
    """How many devices share a batch; None for all."""
    parallel: Literal["jit", "pmap", "shard_map"] = "jit"
    """How; jit gives the numbers of one device."""
    checkpoint_seconds: float = 15.0
    """Save at most this often; the end and an interruption are always saved."""


class Interrupted(Exception):
    """A signal came, and the run was saved."""

    def __init__(self, signum: int, step: int):
        self.signum, self.step = signum, step


class Signals:
    """Turns SIGINT and SIGTERM into a flag that is read between chunks; a second one ends the process at once."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()

    def release(self) -> None:
        """Gives the signals back: nothing is left to save."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            os._exit(128 + signum)
        self.caught = signum


class FolderObserver:
    """Shows progress, appends rows to metrics.jsonl, saves checkpoints, stops on a signal."""

    def __init__(self, folder: RunFolder, monitor: str, launch: Launch, bars: Bars, signals: Signals):
        self.folder, self.monitor, self.launch = folder, monitor, launch
        self.bars, self.signals = bars, signals
        self.checkpoints = Checkpoints(folder.checkpoints, every_seconds=launch.checkpoint_seconds)
        self.task: TaskID | None = None
        self.num_steps, self.step = 0, 0
        self.last: tuple[Any, dict[str, Any], float | None] | None = None  # a finite state that is not saved yet

    def begin(self, state: Any, num_steps: int, data_shape: tuple[int, ...]) -> Progress | None:
        restored = self.checkpoints.restore(state) if self.launch.resume else None
        self.folder.start(data_shape=data_shape)
        self.num_steps = num_steps
        self.task = self.bars.add(self.folder.experiment, num_steps)
        self.step = 0 if restored is None else int(restored[0].step)
        rows = self.folder.rows(self.step)
        if restored is None:
            return None
        self.bars.update(self.task, self.step, {})
        return Progress(*restored, rows)

    def update(self, chunk: training.Chunk, row: dict[str, float] | None, extra: dict[str, Any]) -> bool:
        assert self.task is not None
        self.step = chunk.step
        if row is not None:
            self.folder.append(row)
        terms = {name: float(values[-1]) for name, values in chunk.metrics.items()}
        if row is not None and (held_out := row.get(f"val/{self.monitor}")) is not None:
            terms[f"val/{self.monitor}"] = held_out
        self.bars.update(self.task, chunk.step, terms)
        stop = self.signals.caught is not None
        force = stop or chunk.step == self.num_steps
        metric = None if row is None else row.get(f"val/{self.monitor}")
        saved = self.checkpoints.save(chunk.state, extra=extra, metric=metric, force=force)
        self.last = None if saved else (chunk.state, extra, metric)
        if chunk.step == self.num_steps:
            self.signals.release()
        return stop

    def save_last(self) -> None:
        """Saves the last chunk, if it is not saved already."""
        if self.last is not None:
            state, extra, metric = self.last
            self.checkpoints.save(state, extra=extra, metric=metric, force=True)
            self.last = None


def execute(
    experiment: Experiment, config: Any, launch: Launch, bars: Bars, *, quiet: bool = False
) -> tuple[RunFolder, dict[str, Any]]:
    """Runs an experiment in its folder, or finds it finished there: `(folder, summary)`.

    Raises:
      Interrupted: by a signal, after saving.
    """
    common.check(config)
    folder = open_folder(experiment.name, config, launch.workdir, resume=launch.resume)
    summary = folder.summary
    if summary is not None and summary["num_epochs"] >= config.num_epochs:
        if not quiet:
            bars.console.print(f"{folder.path} is finished already.", highlight=False, soft_wrap=True)
        return folder, summary
    signals = Signals()
    observer = FolderObserver(folder, experiment.monitor, launch, bars, signals)
    with observer.checkpoints, signals:
        try:
            result = common.run(experiment, config, observer=observer, devices=launch.devices, way=launch.parallel)
        except DivergedError as error:
            observer.save_last()
            kept = f"the state of step {observer.step} is kept" if observer.step else "nothing was finite to keep"
            raise SystemExit(_fail(f"{error} In {folder.path}, {kept}.")) from None
    if result.stopped:
        assert signals.caught is not None
        raise Interrupted(signals.caught, observer.step)
    return folder, finish(folder, experiment, result)


def finish(folder: RunFolder, experiment: Experiment, result: Result) -> dict[str, Any]:
    """Draws the figures and writes the summary, last: a folder with a summary is finished."""
    from aejax import plots

    folder.figures.mkdir(exist_ok=True)
    for name, figure in experiment.draw(result.trained).items():
        plots.save(figure, folder.figures / f"{name}.png")
    summary = {
        "experiment": experiment.name,
        "dataset": result.config.dataset,
        "seed": result.config.seed,
        "num_epochs": result.config.num_epochs,
        "metrics": result.metrics,
        "reference": {name: reference._asdict() for name, reference in result.reference.items()},
        "wall_seconds": result.wall_seconds,
        "steps_per_second": result.steps_per_second if result.steps_per_second == result.steps_per_second else None,
    }
    write_json(folder.path / "summary.json", summary)
    return summary


def main(experiment: Experiment, description: str | None, argv: Sequence[str] | None = None) -> None:
    """The command line of an experiment."""

    def body(config: Any, launch: Launch, bars: Bars) -> Callable[[], None]:
        folder, summary = execute(experiment, config, launch, bars)

        def report() -> None:
            bars.console.print(closing_table(summary))
            list_figures(bars.console, folder.path)

        return report

    command_line(f"experiments.{experiment.name}", experiment.config, description, body, argv)


def command_line(
    module: str,
    config_type: type[Any],
    description: str | None,
    body: Callable[[Any, Launch, Bars], Callable[[], None]],
    argv: Sequence[str] | None,
) -> None:
    """Parses flags, runs `body` under progress bars, prints its report, and turns errors into exit codes."""

    @dataclasses.dataclass(frozen=True)
    class Arguments:
        config: Annotated[config_type, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        launch: Annotated[Launch, tyro.conf.arg(name="")]

    arguments = tyro.cli(
        Arguments, prog=f"python -m {module}", description=description, args=argv,
    )  # fmt: skip
    use_compilation_cache()
    bars = Bars(Console(soft_wrap=not sys.stdout.isatty()))
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--resume"]
    again = shlex.join(["python", "-m", module, *words, "--resume"])
    try:
        with bars:
            report = body(arguments.config, arguments.launch, bars)
        report()
    except Interrupted as stop:
        bars.console.print(f"Stopped and saved at step {stop.step}. To go on:\n  {again}", highlight=False)
        raise SystemExit(128 + stop.signum) from None
    except KeyboardInterrupt:
        bars.console.print(f"Stopped. What was trained is saved. To go on:\n  {again}", highlight=False)
        raise SystemExit(128 + signal.SIGINT) from None
    except InputError as error:
        raise SystemExit(_fail(str(error), code=2)) from None
    except OSError as error:
        raise SystemExit(_fail(f"{error}. Checkpoints saved before are intact; to go on: {again}")) from None


def _fail(message: str, code: int = 1) -> int:
    Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {message}", highlight=False)
    return code


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes; at JAX's defaults nothing of this size would be stored."""
    from aejax.data.prepared import cache_dir

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
