"""Puts a finished study into the documentation: its summary, its table in the page that has its marks, chosen figures.

`python -m experiments publish runs/deep_ae-mnist-1a2b3c4d --figures reconstructions` writes docs/deep_ae.json and
docs/deep_ae_reconstructions.png, and the table between the marks of deep_ae in docs/classical.md. Where a page has the
marks of a study on one data set, such as bounds_mnist, its runs on that set go there; other marks that begin with the
study's name, for a second table on a set, are taken by `--place anomaly_adbench_shuffled`. With `--add`, the seeds and
rows of the run join those that are published, of the same configuration.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro

from aejax.checks import InputError
from aejax.runner.folder import read_json, write_json, write_text

DOCS = Path(__file__).parents[2] / "docs"
# What may differ where runs are joined, beside their rows.
OF_A_PART = ("seed", "num_seeds", "date", "environment", "metrics", "parts", "seeds")


def publish(
    folder: Path, figures: tuple[str, ...] = (), docs: Path = DOCS, *, add: bool = False, place: str | None = None
) -> None:
    """Writes all of it; files of an earlier run of the study are replaced, or with `add` its seeds and rows are kept.

    Raises:
      InputError: the folder holds no finished study, a figure is missing, or no page has a place for it; the
        code of the run was not a commit; it is of digits where a run on another set is published; or it cannot be
        added to what is published.
    """
    summary = read_json(folder / "summary.json")
    if summary is None:
        raise InputError(f"{folder} holds no finished study: summary.json is missing.")
    study = summary["experiment"]
    of_the_set = f"{study}_{summary['dataset']}_" if "dataset" in summary else f"{study}_"
    if place is not None and not place.startswith(of_the_set):
        raise InputError(f"--place is {place!r}; of this run it begins with {of_the_set}.")
    pages = {page: page.read_text() for page in sorted(docs.glob("*.md"))}
    places = {
        name: page
        for name in ((study, f"{study}_{summary.get('dataset')}") if place is None else (place,))
        for page, text in pages.items()
        if all(mark in text for mark in marks(name))
    }
    if not places:
        start, end = marks(place or study)
        raise InputError(
            f"No page in {docs} has a place for {place or study}: the lines {start.strip()} and {end.strip()}."
        )
    name, page = places.popitem()
    start, end = marks(name)
    published = read_json(docs / f"{name}.json")
    _check(summary, published)
    if digest := (read_json(folder / "config.json") or {}).get("data_digest"):
        summary |= {"data_digest": digest}
    if add:
        if figures:
            raise InputError("Figures show the runs of one folder; leave them out with --add.")
        summary = added(summary, published)
    pictures = [folder / "figures" / f"{figure}.png" for figure in figures]
    missing = [str(picture) for picture in pictures if not picture.exists()]
    if missing:
        raise InputError(f"There is no {missing[0]}.")
    before, rest = pages[page].split(start)
    table = import_module(f"experiments.studies.{study}").table(summary)
    write_text(page, before + start + table + end + rest.split(end)[1])
    write_json(docs / f"{name}.json", summary)
    for picture in pictures:
        shutil.copyfile(picture, docs / f"{name}_{picture.name}")


def _check(summary: dict[str, Any], published: dict[str, Any] | None) -> None:
    commit, dataset = summary["environment"]["commit"], summary.get("dataset")
    if commit is None or any(each == "None" or each.endswith("-dirty") for each in commit.split(", ")):
        raise InputError(f"The run is of the commit {commit}, which nobody can check out; commit, and run it again.")
    if dataset == "digits" and published is not None and published["dataset"] != dataset:
        raise InputError(f"A run on {published['dataset']} is published, and this one is on {dataset}.")


def added(summary: dict[str, Any], published: dict[str, Any] | None) -> dict[str, Any]:
    """The published summary with the rows and seeds of another; `parts` tells the runs that it is made of.

    Of a row that both have, what only one has measured is left out. A row that both have with the same values, such as
    what is measured without training, is there once.

    Raises:
      InputError: there is none, it is no study of rows and seeds, configurations or data differ, or a row has one of
        the seeds already.
    """
    if published is None:
        raise InputError("Nothing is published yet to which the run could be added; leave out --add.")
    if not {"seed", "num_seeds", "metrics"} <= {*published} & {*summary}:
        raise InputError(f"{summary['experiment']} is no study of rows and seeds; leave out --add to replace it.")
    if any(isinstance(value, dict) for found in summary["metrics"].values() for value in found.values()):
        raise InputError(f"{summary['experiment']} has more than one table of rows; leave out --add to replace it.")
    row_fields = getattr(import_module(f"experiments.studies.{summary['experiment']}"), "ROWS_BY", ("rows",))
    own = (*row_fields, *OF_A_PART)
    of_all = [{k: v for k, v in each.items() if k not in own} for each in (published, summary)]
    if "data_digest" not in published:  # of an older publication
        of_all[1].pop("data_digest", None)
    if differ := [name for name in {**of_all[0], **of_all[1]} if of_all[0].get(name) != of_all[1].get(name)]:
        raise InputError(
            f"The run differs from what is published in {', '.join(differ)}; leave out --add to replace it."
        )
    parts = published.get("parts") or [_part(published)]
    of_these_seeds = {row for part in parts if part["seeds"] == _part(summary)["seeds"] for row in part["rows"]}
    known = {row for row in of_these_seeds if _values(published, row) == _values(summary, row)}
    if known < {*summary["metrics"]}:  # else nothing would be added, which is refused below
        summary = {**summary, "metrics": {row: v for row, v in summary["metrics"].items() if row not in known}}
    new = _part(summary)
    for part in parts:
        twice = {*part["rows"]} & {*new["rows"]} if {*part["seeds"]} & {*new["seeds"]} else ()
        if twice:
            raise InputError(f"Published are seeds {part['seeds']} of {', '.join(sorted(twice))}; add others.")
    metrics = {row: {name: [*values] for name, values in found.items()} for row, found in published["metrics"].items()}
    for row, found in summary["metrics"].items():
        before = metrics.get(row, {name: [] for name in found})
        metrics[row] = {name: [*values, *found[name]] for name, values in before.items() if name in found}
    parts = [*parts, new]
    rows = {name: [*dict.fromkeys([*published[name], *summary[name]])] for name in row_fields}
    seeds = {seed for part in parts for seed in part["seeds"]}
    shared = {"seed": min(seeds), "num_seeds": len(seeds), "seeds": sorted(seeds), "date": summary["date"]}
    return published | rows | shared | {"environment": summary["environment"], "parts": parts, "metrics": metrics}


def _values(summary: dict[str, Any], row: str) -> dict[str, Any]:
    """What was measured of a row, without the time that it took."""
    return {name: values for name, values in summary["metrics"].get(row, {}).items() if name != "seconds"}


def _part(summary: dict[str, Any]) -> dict[str, Any]:
    seeds = [*range(summary["seed"], summary["seed"] + summary["num_seeds"])]
    return {"rows": [*summary["metrics"]], "seeds": seeds} | {name: summary[name] for name in ("date", "environment")}


def marks(name: str) -> tuple[str, str]:
    """The lines around the table of a study, `study` or `study_dataset`."""
    return f"<!-- {name}: written by python -m experiments publish -->\n", f"<!-- end of {name} -->\n"


def command(folder: Path, /, figures: tuple[str, ...] = (), add: bool = False, place: str | None = None) -> None:
    publish(folder, figures, add=add, place=place)


if __name__ == "__main__":
    try:
        tyro.cli(command, prog="python -m experiments publish", description=__doc__)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
