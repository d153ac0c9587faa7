"""Puts a finished study into the documentation: its summary, its table in the page that has its marks, chosen figures.

`python -m experiments publish runs/deep_ae-mnist-1a2b3c4d --figures reconstructions` writes docs/deep_ae.json and
docs/deep_ae_reconstructions.png, and the table between the marks of deep_ae in docs/classical.md. Where a page has the
marks of a study on one data set, such as bounds_mnist, its runs on that set go there.
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


def publish(folder: Path, figures: tuple[str, ...] = (), docs: Path = DOCS) -> None:
    """Writes all of it; files of an earlier run of the study are replaced.

    Raises:
      InputError: the folder holds no finished study, a figure is missing, or no page has a place for it; the
        code of the run was not a commit; or it is of digits where a run on another set is published.
    """
    summary = read_json(folder / "summary.json")
    if summary is None:
        raise InputError(f"{folder} holds no finished study: summary.json is missing.")
    study = summary["experiment"]
    pages = {page: page.read_text() for page in sorted(docs.glob("*.md"))}
    places = {
        name: page
        for name in (study, f"{study}_{summary.get('dataset')}")
        for page, text in pages.items()
        if all(mark in text for mark in marks(name))
    }
    if not places:
        start, end = marks(study)
        raise InputError(f"No page in {docs} has a place for {study}: the lines {start.strip()} and {end.strip()}.")
    name, page = places.popitem()
    start, end = marks(name)
    _check(summary, read_json(docs / f"{name}.json"))
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
    if commit is None or commit.endswith("-dirty"):
        raise InputError(f"The run is of the commit {commit}, which nobody can check out; commit, and run it again.")
    if dataset == "digits" and published is not None and published["dataset"] != dataset:
        raise InputError(f"A run on {published['dataset']} is published, and this one is on {dataset}.")


def marks(name: str) -> tuple[str, str]:
    """The lines around the table of a study, `study` or `study_dataset`."""
    return f"<!-- {name}: written by python -m experiments publish -->\n", f"<!-- end of {name} -->\n"


def command(folder: Path, /, figures: tuple[str, ...] = ()) -> None:
    publish(folder, figures)


if __name__ == "__main__":
    try:
        tyro.cli(command, prog="python -m experiments publish", description=__doc__)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
