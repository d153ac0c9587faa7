"""The table of methods in README.md: `python -m experiments.readme` writes it from the registry."""

from importlib.util import find_spec

from aejax.methods import METHODS
from experiments.units import PAGE

README = PAGE.parents[1] / "README.md"
START, END = "<!-- methods: written by python -m experiments.readme -->\n", "<!-- end of methods -->\n"
_ELSEWHERE = {"ae_l2": "linear_ae", "mdae": "linear_ae", "sparse_ae": "sparse"}  # where the name is another


def table() -> str:
    """A row for each method, in the order of the registry."""
    lines = ["| method | experiment | paper |", "| --- | --- | --- |"]
    for name, method in METHODS.items():
        experiment = _ELSEWHERE.get(name, name)
        assert find_spec(f"experiments.{experiment}"), f"{name} has no experiment"
        lines.append(f"| {method.title} | `python -m experiments.{experiment}` | {method.paper} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with the table between its marks."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
