"""A study: several runs as one experiment, the rows of a table times seeds, with one table and its pictures.

Each run has a folder of its own inside the study's, so that a study may be interrupted and goes on with `--resume`,
also to more passes, seeds or rows; the runs of one row share one compiled program, whatever their number of seeds.

No method and no published figure: those are in the studies.
"""

import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aejax.checks import InputError
from aejax.data import Dataset
from aejax.runner.config import check, to_dict
from aejax.runner.environment import provenance
from aejax.runner.experiment import Experiment
from aejax.runner.folder import FolderWarning, RunFolder, elsewhere, open_folder, read_json, write_json
from aejax.runner.inputs import load_data
from aejax.runner.loading import load
from aejax.runner.options import Launch, refuse_origin
from aejax.runner.running import prepare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars

Runs = dict[str, tuple[Experiment, Any]]  # by row and seed, as in `cae-0`: the experiment and its configuration
Metrics = dict[str, dict[str, list[float]]]  # by row: each metric, of every seed
Measured = dict[str, float]
Once = Callable[[str, Callable[[Callable[[str], None]], Measured]], Measured]  # name, measure(say) -> metrics


class Study(NamedTuple):
    """One study, described."""

    name: str
    config: type[Any]  # has `dataset` at least
    runs: Callable[[Any], Runs]  # of a configuration, which it checks
    table: Callable[[dict[str, Any]], str]  # summary -> Markdown
    draw: Callable[[Any, Path, Dataset], "dict[str, Figure]"]  # of a configuration, from the folders of its runs
    beside: Callable[[Any, Dataset, Once], Metrics] = lambda config, dataset, once: {}  # further rows, which come first
    after: Callable[[str], str | None] = lambda name: None  # the run from whose parameters a run begins
    formerly: tuple[str, ...] = ()  # names that it had, which older folders hold
    of_folders: Callable[[Any, Path, Once], Metrics] = (
        lambda config, path, once: {}
    )  # more of the rows, and further ones, from their runs
    then: Callable[[Any, Path], Runs] = lambda config, path: {}  # further runs, made of the folders of the others


def seeded(rows: dict[str, tuple[Experiment, Any]], seed: int, num_seeds: int) -> Runs:
    """Every row with every seed, from `seed` on, all rows of the first seed first; `InputError` where there is none."""
    if num_seeds < 1:
        raise InputError(f"--num-seeds is {num_seeds}; it has to be at least 1.")
    seeds = range(seed, seed + num_seeds)
    return {
        f"{name}-{each}": (experiment, dataclasses.replace(config, seed=each))
        for each in seeds
        for name, (experiment, config) in rows.items()
    }


def run_all(
    runs: Runs,
    folder: RunFolder,
    launch: Launch,
    bars: "Bars",
    *,
    after: Callable[[str], str | None] = lambda name: None,
    done: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """The metrics of every run, and its `seconds`; runs that are finished in the folder are not repeated.

    Args:
      runs: in the order in which they are run.
      folder, launch, bars: as the command line has them.
      after: the name of the run from whose last parameters a run begins; None for fresh ones.
      done: names of runs that the folder has already.

    Raises:
      InputError: a configuration or the data cannot be used, and nothing has been written then; or what is measured of
        a run failed.
    """
    from aejax.runner.launch import execute

    _check(runs, folder.path, launch, after)
    folder.start(runs=[*done, *runs])
    metrics = {}
    for name, (experiment, config) in runs.items():
        path = folder.path / name
        inner = dataclasses.replace(launch, workdir=path, resume=path.exists())
        bars.title = name
        before = after(name)
        params = None if before is None else load(folder.path / before)[2].params
        _, summary = execute(experiment, config, inner, bars, quiet=True, params=params)
        for what, note in summary.get("notes", {}).items():
            bars.console.print(f"{name}, {what}: {note}", highlight=False, markup=False, soft_wrap=True)
        if failed := summary.get("failed"):
            raise InputError(f"{', '.join(failed)} of {name} failed. With --resume it is measured again.")
        metrics[name] = summary["metrics"] | {"seconds": summary["wall_seconds"]}
    bars.title = ""
    return metrics


def _check(runs: Runs, path: Path, launch: Launch, after: Callable[[str], str | None]) -> None:
    """Refuses what any of the runs would, and its folder; of those that differ in their seed alone one is traced."""
    alike = {(id(each), dataclasses.replace(own, seed=0)): each for each, own in runs.values()}
    for (_, config), experiment in alike.items():
        prepare(experiment, config, devices=launch.devices, parallel=launch.parallel, shapes_only=True)
    for name, (_, config) in runs.items():
        check(config)
        before, saved = after(name), read_json(path / name / "config.json")
        if before is not None and saved is not None and saved["config"]["num_epochs"] != config.num_epochs:
            raise InputError(f"{path / name} began where a shorter {before} ended. Give {elsewhere(launch.resume)}.")
    with warnings.catch_warnings():  # each run warns when its turn comes
        warnings.simplefilter("ignore", FolderWarning)
        for name, (experiment, config) in runs.items():
            if (path / name).exists():
                open_folder(experiment.name, config, path / name, resume=True, formerly=experiment.formerly)


def by_row(metrics: dict[str, dict[str, float]]) -> Metrics:
    """`{row: {metric: [of every seed]}}` from the metrics of runs named by row and seed."""
    rows: Metrics = {}
    for run, values in metrics.items():
        row = rows.setdefault(run.rpartition("-")[0], {name: [] for name in values})
        for name, value in values.items():
            row[name].append(value)
    return rows


def body(study: Study) -> Callable[[Any, Launch, "Bars"], Callable[[], None]]:
    """What the command line calls: runs, draws, writes the summary last, and returns the report."""
    from aejax import plots
    from aejax.runner.console import list_figures

    def body(config: Any, launch: Launch, bars: "Bars") -> Callable[[], None]:
        folder = open_folder(study.name, config, launch.workdir, resume=launch.resume, formerly=study.formerly)

        def once(name: str, measure: Callable[[Callable[[str], None]], Measured]) -> Measured:
            """What is measured for minutes, without a run of its own, is kept in the folder by its name."""
            file = folder.path / f"{name}.json"
            kept, config = read_json(file), json.loads(json.dumps(folder.config))
            of_one_seed = lambda config: {**config, "num_seeds": 1}
            if kept is None or of_one_seed(kept["config"]) != of_one_seed(config):
                start = time.monotonic()
                found = measure(lambda text: bars.say(f"{name}: {text}"))
                kept = {"config": config, "metrics": found | {"seconds": time.monotonic() - start}}
                write_json(file, kept)
            return kept["metrics"]

        if not folder.is_finished:
            runs = study.runs(config)
            found = run_all(runs, folder, launch, bars, after=study.after)
            if further := study.then(config, folder.path):
                found |= run_all(further, folder, launch, bars, after=study.after, done=list(found))
            trained = by_row(found)
            dataset = load_data(next(iter(runs.values()))[1])
            bars.say("measuring and drawing")
            for row, more in study.of_folders(config, folder.path, once).items():
                trained[row] = trained.get(row, {}) | more
            metrics = study.beside(config, dataset, once) | trained
            folder.figures.mkdir(exist_ok=True)
            for name, figure in study.draw(config, folder.path, dataset).items():
                plots.save(figure, folder.figures / f"{name}.png")
            summary = {"experiment": study.name, **to_dict(config), **provenance(), "metrics": metrics}
            write_json(folder.path / "summary.json", summary)

        def report() -> None:
            bars.console.print(study.table(folder.summary), markup=False, highlight=False)
            list_figures(bars.console, folder.path)

        return report

    return body


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first column the names of the rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines)


def spread(values: Sequence[float], *, scale: float = 1.0) -> str:
    """Mean and sample standard deviation, to the digits that mean something; the value itself where it is alone."""
    values = [scale * value for value in values]
    if len(values) == 1:
        return f"{values[0]:.5g}"
    deviation = float(np.std(values, ddof=1)) if np.ptp(values) else 0.0  # the mean of equal values may be rounded
    if not deviation > 0:  # or not a number
        return f"{values[0]:.5g} ± {deviation:g}"
    digits = int(np.clip(1 - np.floor(np.log10(deviation)), 0, 5))
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def cost(row: dict[str, list[float]]) -> str:
    """The number of seeds, and the median of the seconds of a run."""
    return f"{len(row['seconds'])}, {np.median(row['seconds']):.0f}" if "seconds" in row else ""


def main(study: Study, description: str | None) -> None:
    """The command line of a study."""
    command_line(study.name, study.config, description, body(study))


def at_once(
    name: str,
    check: Callable[[Any], None],
    make: Callable[[Any, Callable[[str], None]], "tuple[dict[str, Any], dict[str, Figure]]"],
    table: Callable[[dict[str, Any]], str],
) -> Callable[[Any, Launch, "Bars"], Callable[[], None]]:
    """The body of a command line of what is no `Study`, and is made in one go, without runs of its own.

    Args:
      name: of the study.
      check: refuses a configuration that cannot be run, before anything is written.
      make: of a configuration and of what says how far it is: what the summary holds beside it, and pictures by name.
      table: summary -> Markdown.
    """
    from aejax import plots
    from aejax.runner.console import list_figures
    from aejax.runner.options import refuse_for_sweeps

    def body(config: Any, launch: Launch, bars: "Bars") -> Callable[[], None]:
        refuse_for_sweeps(launch)
        folder = open_folder(name, config, launch.workdir, resume=launch.resume)
        if not folder.is_finished:
            check(config)
            folder.start()
            found, figures = make(config, bars.say)
            folder.figures.mkdir(exist_ok=True)
            for title, figure in figures.items():
                plots.save(figure, folder.figures / f"{title}.png")
            write_json(folder.path / "summary.json", {"experiment": name, **to_dict(config), **provenance(), **found})

        def report() -> None:
            bars.console.print(table(folder.summary), markup=False, highlight=False)
            list_figures(bars.console, folder.path)

        return report

    return body


def command_line(
    name: str,
    config: type[Any],
    description: str | None,
    body: Callable[[Any, Launch, "Bars"], Callable[[], None]],
) -> None:
    """The command line of what is no `Study`; the arguments as in `aejax.runner.launch.command_line`."""
    from aejax.runner import launch

    def checked(config: Any, launch: Launch, bars: "Bars") -> Callable[[], None]:
        refuse_origin(launch)
        return body(config, launch, bars)

    launch.command_line(name, config, description, checked, None)
