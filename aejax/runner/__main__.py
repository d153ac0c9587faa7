"""python -m aejax.runner table FOLDER... shows the runs in folders side by side.

Experiments are not run here: they are commands of their own modules.
"""

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from aejax.checks import InputError, nearest
from aejax.runner import table
from aejax.runner.console import lasting_output
from aejax.runner.folder import write_text

_EXPLAINED = """\
Run folders, looked at from outside.

  python -m aejax.runner table FOLDER...   runs side by side: what differs, metrics, how far they are

`--help` behind a command explains its flags. Experiments are run by their own modules, such as
`python -m experiments vae`.
"""


def main(argv: Sequence[str]) -> None:
    """The command line; 0 done, 1 an I/O error, 2 something in the input, 130 interrupted."""
    with lasting_output():
        _main(argv)


def _main(argv: Sequence[str]) -> None:
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(_EXPLAINED, end="")
        elif argv[0] == "table":
            show(_parser().parse_args(argv[1:]))
        else:
            raise InputError(f"There is no command {argv[0]!r}. {nearest(argv[0], ['table'], what='commands')}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.strerror}: {error.filename}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m aejax.runner table",
        description="Runs side by side, finished or not: what differs in their configurations, their metrics (of those"
        " that have not finished, the losses of the last row), seconds, and how far they are.",
        allow_abbrev=False,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs are looked for in and below it")
    parser.add_argument("--sort", metavar="NAME", help="a metric or another column; by default the name of the run")
    parser.add_argument("--csv", metavar="FILE", help="write the table there too, in full digits; - for nothing else")
    parser.add_argument("--curves", metavar="FILE.png", type=Path, help="draw a term of all runs")
    parser.add_argument(
        "--term", metavar="NAME", help="which one, such as val/recon/loss; by default a validation loss"
    )
    return parser


def show(options: argparse.Namespace) -> None:
    """Reads the runs, then prints and writes whatever is asked for."""
    if options.curves is not None and options.curves.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--curves {options.curves}: give a file with the ending .png, .pdf or .svg.")
    if options.term is not None and options.curves is None:
        raise InputError("--term says what --curves FILE.png draws; give both, or leave it out.")
    found = table.find(options.folders)
    columns = table.columns(found.runs, options.sort)
    runs = table.ordered(found.runs, options.sort) if options.sort else found.runs
    for line in found.skipped:
        print(line, file=sys.stderr)
    if options.csv == "-":
        print(_csv(runs, columns), end="")
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=1_000_000)
        with console.capture() as printed:
            console.print(table.render(runs, columns, console))
        print("\n".join(line.rstrip() for line in printed.get().splitlines()))
        if options.csv is not None:
            write_text(Path(options.csv), _csv(runs, columns))
    if options.curves is not None:
        _draw(runs, options.term, options.curves)


def _csv(runs: Sequence[table.Run], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([table.text(run.value(column)) for column in columns] for run in runs)
    return text.getvalue()


def _draw(runs: Sequence[table.Run], term: str | None, file: Path) -> None:
    from aejax import plots

    terms = Counter(name for run in runs for name in run.last)
    losses = [name for name in terms if name.endswith("/loss")]
    term = term or max(losses, key=lambda name: (name.startswith("val/"), terms[name]), default="val/recon/loss")
    if term not in terms:
        raise InputError(f"No run has a row with {term!r}. {nearest(term, terms, what='terms')}")
    without = [run.name for run in runs if term not in run.last]
    if without:
        print(f"Without {term}, and so not in {file}: {', '.join(without)}", file=sys.stderr)
    drawn, differ = [run for run in runs if term in run.last], table.differing(runs)
    labels = [table.label(run, differ) for run in drawn]
    alike = {label for label, count in Counter(labels).items() if count > 1}
    named = [f"{run.name}: {label}" if label in alike else label for run, label in zip(drawn, labels, strict=True)]
    plots.save(plots.histories(dict(zip(named, (run.history for run in drawn), strict=True)), term), file)


if __name__ == "__main__":
    main(sys.argv[1:])
