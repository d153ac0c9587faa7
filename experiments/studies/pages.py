"""Writes what is made from the registry: the names in README.md, docs/methods.md and docs/units.md."""

import textwrap
from importlib.util import find_spec
from pathlib import Path

from aejax.methods import METHODS
from aejax.runner import units
from aejax.runner.inputs import EVALUATION_BATCH
from experiments.studies.units import METRICS

ROOT = Path(__file__).parents[2]
README, TABLE, UNITS = ROOT / "README.md", ROOT / "docs" / "methods.md", ROOT / "docs" / "units.md"
START, END = "<!-- methods: written by python -m experiments pages -->\n", "<!-- end of methods -->\n"


def readme(text: str) -> str:
    """The README with the names of all methods between its marks."""
    before, rest = text.split(START)
    names = textwrap.fill(", ".join(f"`{name}`" for name in METHODS), 130)
    return before + START + names + "\n" + END + rest.split(END)[1]


def methods_page() -> str:
    """docs/methods.md: a row for each method, in the order of the registry."""
    lines = ["| method | experiment | paper |", "| --- | --- | --- |"]
    for name, method in METHODS.items():
        assert find_spec(f"experiments.{name}"), f"{name} has no experiment"
        lines.append(f"| {method.title} | `python -m experiments {name}` | {method.paper} |")
    table = "\n".join(lines)
    return f"<!-- Written by python -m experiments pages -->\n# Methods, in the order of their papers\n\n{table}\n"


def units_page() -> str:
    """docs/units.md."""
    return f"""\
<!-- Written by python -m experiments pages -->
# What is reported, and in which unit

Likelihoods and divergences are in nats per example: sums over data and code dimensions, means over examples. `beta`
means beta. The Gaussian likelihood has unit variance and keeps its 1/2 and its constant, so it is
`sse / 2 + D / 2 log(2 pi)`.

During training, metrics are named `player/term`, and `val/player/term` on the validation split:

{_units("term", units.TERMS)}
A term that is marked *of the batch* is no mean over examples: in training it is that of the batch of the step, on the
validation and the test split the mean over batches of {EVALUATION_BATCH} in their order, the last one as short as it
comes. So is `loss` where such a term is part of it. Noise is drawn once for each batch.

A finished run reports:

{_units("name", units.METRICS)}
Studies report beside that:

{_units("name", METRICS)}
With real-valued pixels the Bernoulli "likelihood" is a cross-entropy whose floor is the entropy of the pixels: compare
only figures of one convention. `--binarize stochastic` draws new binary images at every presentation, as Burda et al.
(2016) do; everything that a finished run reports is then measured on one binary draw of the test split.
"""


def _units(head: str, table: dict[str, units.Unit]) -> str:
    lines = [f"| {head} | meaning | unit |", "| --- | --- | --- |"]
    for names, each in table.items():
        shown = ", ".join(f"`{name}`" for name in names.split(", "))
        lines.append(f"| {shown} | {each.meaning}{', *of the batch*' if each.coupled else ''} | {each.unit} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(readme(README.read_text()))
    TABLE.write_text(methods_page())
    UNITS.write_text(units_page())
