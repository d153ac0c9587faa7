"""The command line around an experiment: flags, run folder, progress, interruption, exit codes.

0 done; 1 diverged, or an I/O error such as a full disk; 2 something in the input; 130 and 143 interrupted and saved.

What a run computes is in `running`, what a folder holds in `folder`; here they only meet.
"""

import contextlib
import math
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
from rich.console import Console

from aejax import extras
from aejax.checks import DivergedError, InputError, expanded
from aejax.runner import origin, tensorboard
from aejax.runner.config import check, module_of
from aejax.runner.console import Bars, closing_table, lasting_output, list_figures
from aejax.runner.experiment import Experiment, Result
from aejax.runner.folder import AnotherRun, FolderWarning, RunFolder, default_path, open_folder, write_json
from aejax.runner.observer import FolderObserver, Interrupted, interruptible
from aejax.runner.options import Launch, parse
from aejax.runner.running import run


def execute(
    experiment: Experiment, config: Any, launch: Launch, bars: Bars, *, quiet: bool = False, params: Any = None
) -> tuple[RunFolder, dict[str, Any]]:
    """Runs an experiment in its folder, or finds it finished there: `(folder, summary)`; params as in `run`.

    Raises:
      Interrupted: by a signal, after saving.
    """
    check(config)
    begun = origin.find(experiment, config, launch)
    folder = open_folder(
        experiment.name,
        config,
        launch.workdir,
        resume=launch.resume,
        formerly=experiment.formerly,
        origin=begun and begun.record(),
    )
    if folder.is_finished:
        if not quiet:
            bars.console.print(f"{folder.path} is finished already.", highlight=False, markup=False, soft_wrap=True)
        return folder, folder.summary
    params = params if begun is None else begun.params
    with FolderObserver(folder, launch, bars, begun) as observer:
        try:
            how: dict[str, Any] = {"devices": launch.devices, "parallel": launch.parallel}
            result = run(experiment, config, observer=observer, params=params, **how)
        except DivergedError as error:
            observer.save(force=True)
            kept = f"The state of step {observer.step} is kept" if observer.step else "Nothing was trained before it"
            error.add_note(f"{kept}, in {folder.path}.")
            raise
        if result.stopped:
            assert observer.caught is not None
            raise Interrupted(observer.caught)
        return folder, finish(folder, experiment, result, observer.log_pictures)


def finish(
    folder: RunFolder, experiment: Experiment, result: Result, log_pictures: Callable[[], None]
) -> dict[str, Any]:
    """Draws the figures, logs them, and writes the summary, last: where nothing failed, the run is finished then."""
    from aejax import plots

    trained = result.trained
    folder.figures.mkdir(exist_ok=True)
    figures = trained.each({"figures": lambda: experiment.draw(trained)}).get("figures", {})
    trained.each({n: partial(plots.save, figure, folder.figures / f"{n}.png") for n, figure in figures.items()})
    trained.each({"pictures in the event file": log_pictures})
    summary = {
        "experiment": experiment.name,
        "dataset": result.config.dataset,
        "seed": result.config.seed,
        "num_epochs": result.config.num_epochs,
        "metrics": result.metrics,
        "reference": {name: reference._asdict() for name, reference in result.reference.items()},
        "wall_seconds": result.wall_seconds,
        "steps_per_second": None if math.isnan(result.steps_per_second) else result.steps_per_second,
    }
    if trained.notes:
        summary["notes"] = trained.notes
    if failed := [name for name, note in trained.notes.items() if note.startswith("failed:")]:
        summary["failed"] = failed
    write_json(folder.path / "summary.json", summary)
    return summary


def main(experiment: Experiment, description: str | None, argv: Sequence[str] | None = None) -> None:
    """The command line of an experiment."""

    def body(config: Any, launch: Launch, bars: Bars) -> Callable[[], None]:
        folder, summary = execute(experiment, config, launch, bars)

        def report() -> None:
            bars.console.print(closing_table(summary, experiment.units))
            for name, note in summary.get("notes", {}).items():
                bars.console.print(f"{name}: {note}", highlight=False, markup=False, soft_wrap=True)
            list_figures(bars.console, folder.path)
            if failed := summary.get("failed"):
                what = f"{', '.join(failed)} failed, and what was trained is saved in {folder.path}."
                raise SystemExit(_fail(f"{what} With --resume the run measures and draws again."))

        return report

    command_line(experiment.name, experiment.config, description, body, argv)


def command_line(
    name: str,
    config_type: type[Any],
    description: str | None,
    body: Callable[[Any, Launch, Bars], Callable[[], None]],
    argv: Sequence[str] | None,
) -> None:
    """Parses flags, runs `body` under progress bars, prints its report, and turns errors into exit codes.

    Args:
      name: of the experiment or the study, by which its default folder is named.
      config_type: its Config, from the module that is run.
      description: for --help.
      body: `(config, launch, bars) -> report`.
      argv: the flags; those of the process by default.
    """
    with lasting_output():
        _command_line(name, config_type, description, body, sys.argv[1:] if argv is None else argv)


def _command_line(name: str, config_type: type[Any], description: str | None, body: Any, argv: Sequence[str]) -> None:
    try:
        extras.need("A run from the command line", "tyro", "matplotlib", "sklearn", extra="runner")
    except InputError as error:
        raise SystemExit(_fail(str(error), code=2)) from None
    module = module_of(config_type)
    config, launch = parse(module, config_type, description, argv)
    use_compilation_cache()
    bars = Bars(Console(soft_wrap=not sys.stdout.isatty()))

    def command(words: Sequence[str]) -> str:
        python = "python" if shutil.which("python") == sys.executable else sys.executable
        return shlex.join([python, "-m", module, *words])

    def again() -> str:
        return command([*(word for word in argv if word != "--resume"), *(["--resume"] if begun() else [])])

    def begun() -> bool:
        path = expanded(launch.workdir or default_path(name, config, launch.origin))
        return (path / "config.json").exists()

    try:
        with interruptible(), plain_warnings():
            check_machine()
            if not launch.checkpoint_seconds >= 0:
                raise InputError(f"--checkpoint-seconds is {launch.checkpoint_seconds}; it has to be 0 or more.")
            tensorboard.check(launch)
            with bars:
                report = body(config, launch, bars)
            report()
    except Interrupted as stop:
        saved = "; what was trained is saved" if begun() else ""
        print(f"Stopped{saved}. To go on:\n  {again()}", file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None
    except AnotherRun as error:
        raise SystemExit(_fail(f"{error}{origin.instead(argv, error, command)}", code=2)) from None
    except InputError as error:
        raise SystemExit(_fail(str(error), code=2)) from None
    except DivergedError as error:
        raise SystemExit(_fail(" ".join([str(error), *getattr(error, "__notes__", ())]))) from None
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        rest = f" Checkpoints saved before are intact. To go on: {again()}" if begun() else ""
        raise SystemExit(_fail(f"{what}.{rest}")) from None


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as one line each, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", FolderWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        yield


def _fail(message: str, code: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def check_machine() -> None:
    """Refuses to begin where a run cannot be kept, or JAX not start."""
    if find_spec("fcntl") is None:
        raise InputError("Runs need Linux or macOS, for they lock their folders; on Windows use WSL.")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = f": {str(error).partition(chr(10))[0]}" if str(error) else ""
        raise InputError(
            f"JAX cannot start{f' with JAX_PLATFORMS={asked}' if asked else ''} on this machine{reason}."
            " JAX_PLATFORMS=cpu in front of the command leaves out what is not there."
        ) from None


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes; at JAX's defaults nothing of this size would be stored."""
    from aejax.data.prepared import cache_dir

    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
