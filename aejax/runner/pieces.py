"""A study made of pieces that are functions rather than runs: one file for each, by row, so that it goes on.

What is done is kept in the folder and not repeated with `--resume`, also where there are more seeds, rows or passes.

No method and no published figure: those are in the studies.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aejax import data
from aejax.runner.config import to_dict
from aejax.runner.environment import provenance
from aejax.runner.folder import open_folder, read_json, write_json
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


def body(study: PiecedStudy) -> "Callable[[Any, Launch, Bars], Callable[[], None]]":
    """What the command line calls: measures piece by piece, draws, writes the summary last, and returns the report."""
    from aejax import plots
    from aejax.runner.console import list_figures

    def body(config: Any, launch: Launch, bars: "Bars") -> Callable[[], None]:
        refuse_for_sweeps(launch)
        folder = open_folder(study.name, config, launch.workdir, resume=launch.resume, digest=study.digest)
        if not folder.is_finished:
            pieces = list(study.pieces(config))
            folder.start()
            found: Found = {}
            for piece in pieces:
                say = lambda text, piece=piece: bars.say(f"{piece.name}, {piece.row}: {text}")
                found.setdefault(piece.name, {})[piece.row] = _kept(folder.path, config, piece, say)
            bars.say("drawing")
            folder.figures.mkdir(exist_ok=True)
            for name, figure in study.draw(config, found).items():
                plots.save(figure, folder.figures / f"{name}.png")
            metrics = study.metrics(config, found)
            summary = {"experiment": study.name, **to_dict(config), **provenance(), "metrics": metrics}
            write_json(folder.path / "summary.json", summary)

        def report() -> None:
            bars.console.print(study.table(folder.summary), markup=False, highlight=False)
            list_figures(bars.console, folder.path)

        return report

    return body


def _kept(path: Path, config: Any, piece: Piece, say: Say) -> dict[str, Any]:
    """What was measured of a piece with as many passes; measured now, and written, where it is not there."""
    file = path / f"{piece.name}.json"
    rows = read_json(file) or {}
    passes = getattr(config, "num_epochs", None)
    if rows.get(piece.row, {}).get("num_epochs", passes) != passes or piece.row not in rows:
        say("measuring")
        rows[piece.row] = piece.measure(say) | ({} if passes is None else {"num_epochs": passes})
        write_json(file, rows)
    return rows[piece.row]


def main(study: PiecedStudy, description: str | None) -> None:
    """The command line of a study."""
    from aejax.runner.study import command_line

    command_line(study.name, study.config, description, body(study))
