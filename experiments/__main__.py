"""python -m experiments NAME runs an experiment, a study or a benchmark; without a name it lists them."""

import ast
import runpy
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from aejax.checks import nearest
from aejax.runner.console import lasting_output

ROOMS = {"Methods": "experiments", "Studies": "experiments.studies", "Benchmarks": "experiments.benchmarks"}


def listed() -> dict[str, dict[str, str]]:
    """By room: the modules that can be run, and the first line of what each says of itself."""
    found: dict[str, dict[str, str]] = {}
    for room, package in ROOMS.items():
        folder = Path(__file__).parent / package.partition(".")[2]
        sources = {path.stem: path.read_text() for path in sorted(folder.glob("[!_]*.py"))}
        runs = {name: source for name, source in sources.items() if '\nif __name__ == "__main__":\n' in source}
        found[room] = {n: (ast.get_docstring(ast.parse(s)) or "").partition("\n")[0] for n, s in runs.items()}
    return found


def main(argv: Sequence[str]) -> None:
    found = listed()
    if not argv or argv[0].startswith("-"):
        print("Run one with `python -m experiments NAME`; `--help` explains its flags.")
        for room, modules in found.items():
            print(f"\n{room}")
            for name, line in modules.items():
                print(textwrap.fill(line, 79, initial_indent=f"  {name:<19} ", subsequent_indent=" " * 22))
        return
    places = {name: f"{ROOMS[room]}.{name}" for room, modules in found.items() for name in modules}
    name = argv[0].removeprefix("studies.").removeprefix("benchmarks.")
    if name not in places:
        print(f"error: There is no {name!r}. {nearest(name, places, what='names')}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"python -m experiments {name}", *argv[1:]]
    runpy.run_module(places[name], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with lasting_output():
        main(sys.argv[1:])
