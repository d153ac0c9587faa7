"""A study made of pieces that are functions rather than runs, each kept in the folder, so that the study goes on.

What is done is not repeated with `--resume`, also where there are more seeds or rows; with more passes all is measured
again. Every piece says which commit measured it.

No method and no published figure: those are in the studies.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aejax import data
from aejax.checks import InputError, check_count, nearest
from aejax.runner.config import to_dict
from aejax.runner.environment import provenance
from aejax.runner.folder import RunFolder, open_folder, read_json, write_json
from aejax.runner.options import Launch, refuse_for_sweeps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars

Say = Callable[[str], None]
Found = dict[str, dict[str, Any]]  # by name, by row: what was measured, as JSON has it


class Piece(NamedTuple):
    """What is measured at once, and kept."""

    name: str  # of the file: a task and a seed, as in `cardio-0`
    row: str  # of the table
    measure: Callable[[Say], dict[str, Any]]


class PiecedStudy(NamedTuple):
    """One study, described."""

    name: str
    config: type[Any]
    pieces: Callable[[Any], Iterator[Piece]]  # of a configuration, which it checks before it yields the first
    metrics: Callable[[Any, Found], dict[str, Any]]  # what the summary has
    table: Callable[[dict[str, Any]], str]  # summary -> Markdown
    draw: "Callable[[Any, Found], dict[str, Figure]]"
    digest: Callable[[str], str] = data.digest


def check_rows(rows: Sequence[str], known: Collection[str]) -> None:
    """Refuses rows that are unknown, or there twice, or none."""
    if unknown := [row for row in rows if row not in known]:
        raise InputError(f"There is no row {unknown[0]!r}. {nearest(unknown[0], list(known), what='rows')}")
    if not rows or len(set(rows)) < len(rows):
        raise InputError(f"--rows are {rows}; wanted is at least one, and none twice.")


def check_counts(config: Any, *names: str) -> None:
    """Refuses what is no number from 1 up, widths of layers and seeds too."""
    check_count(**{f"--{name.replace('_', '-')}": getattr(config, name) for name in (*names, "num_seeds")})
    check_count(**{f"--hidden-dims, layer {i}": width for i, width in enumerate(config.hidden_dims)})
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")


def body(study: PiecedStudy) -> "Callable[[Any, Launch, Bars], Callable[[], None]]":
    """What the command line calls: measures piece by piece, draws, writes the summary last, and returns the report."""
    from aejax import plots
    from aejax.runner.console import list_figures

    def body(config: Any, launch: Launch, bars: "Bars") -> Callable[[], None]:
        refuse_for_sweeps(launch)
        folder = open_folder(study.name, config, launch.workdir, resume=launch.resume, digest=study.digest)
        if not folder.is_finished:
            pieces = list(study.pieces(config))
            folder.claim()
            try:
                finish(config, folder, pieces, bars)
            finally:
                folder.release()

        def report() -> None:
            bars.console.print(study.table(folder.summary), markup=False, highlight=False)
            list_figures(bars.console, folder.path)

        return report

    def finish(config: Any, folder: RunFolder, pieces: list[Piece], bars: "Bars") -> None:
        folder.start()
        found: Found = {}
        for piece in pieces:
            say = lambda text, piece=piece: bars.say(f"{piece.name}, {piece.row}: {text}")
            found.setdefault(piece.name, {})[piece.row] = _kept(folder.path, config, piece, say)
        bars.say("drawing")
        folder.figures.mkdir(exist_ok=True)
        for name, figure in study.draw(config, found).items():
            plots.save(figure, folder.figures / f"{name}.png")
        commits = {str(each["commit"]) for rows in found.values() for each in rows.values()}
        own = provenance()
        own["environment"]["commit"] = ", ".join(sorted(commits))
        summary = {"experiment": study.name, **to_dict(config), **own, "metrics": study.metrics(config, found)}
        write_json(folder.path / "summary.json", summary)

    return body


def _kept(path: Path, config: Any, piece: Piece, say: Say) -> dict[str, Any]:
    """The measurement of a piece that the folder has, if it was made with as many passes; else a new one, kept."""
    file = path / f"{piece.name}.json"
    rows, passes = read_json(file) or {}, getattr(config, "num_epochs", None)
    kept = rows.get(piece.row)
    if kept is None or kept.get("num_epochs") != passes or "commit" not in kept:
        say("measuring")
        kept = piece.measure(say) | {"num_epochs": passes, "commit": provenance()["environment"]["commit"]}
        write_json(file, rows | {piece.row: kept})
    return kept


def main(study: PiecedStudy, description: str | None) -> None:
    """The command line of a study."""
    from aejax.runner.study import command_line

    command_line(study.name, study.config, description, body(study))
