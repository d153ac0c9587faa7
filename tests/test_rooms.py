"""The house has floors: whoever reads a module needs to know what lies below it, and nothing above."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up. A module is on the floor of the longest name here that is its own or a package of it; one may
# import from its own floor and from those below.
FLOORS = (
    ("aejax.*",),
    ("aejax.methods", "aejax.evaluation", "aejax.plots"),
    (
        "aejax.fitted",
        "aejax.learning",
        "aejax.recipe",
        "aejax.export",
        "aejax.compress",
        "aejax.layers",
        "aejax.estimators",
    ),
    ("aejax",),  # the public surface, which names all of these
    ("aejax.runner",),
    ("experiments",),
    ("experiments.studies", "experiments.benchmarks"),
)
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("aejax", "experiments")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def floor(module: str) -> int:
    named = {name: level for level, names in enumerate(FLOORS) for name in names}
    if module in named:
        return named[module]
    package = module.rpartition(".")[0]
    return named["aejax.*"] if package == "aejax" else floor(package)


def imports(module: str) -> set[str]:
    """The modules of ours that one imports, in functions and for type checkers too, or from their package by name."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} imports by a relative path"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found & FILES.keys()


ARROWS = {module: imports(module) for module in FILES}


def test_floors_and_imports_are_read_as_they_are_meant():
    assert [floor(name) for name in ("aejax.algorithm", "aejax.nets.mlp", "aejax.methods.vae", "aejax")] == [0, 0, 1, 3]
    assert [floor(name) for name in ("aejax.runner.study", "experiments.vae", "experiments.studies.score")] == [4, 5, 6]
    assert {"aejax.plots", "aejax.checkpoint", "aejax.runner.study"} & imports("aejax.runner.launch") == {"aejax.plots"}
    assert "aejax.runner.console" in imports("aejax.runner.study")  # in `if TYPE_CHECKING`


def test_no_two_modules_import_each_other_by_any_detour():
    try:
        TopologicalSorter(ARROWS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_nothing_imports_from_a_floor_above():
    up = {(module, other) for module, others in ARROWS.items() for other in others if floor(other) > floor(module)}
    assert up == set()


def test_the_library_knows_no_experiment_and_the_loop_no_method():
    library = {module: others for module, others in ARROWS.items() if module.partition(".")[0] == "aejax"}
    assert not [module for module, others in library.items() if any(o.startswith("experiments") for o in others)]
    for heart in ("aejax.algorithm", "aejax.training"):
        assert not [below for below in reached(heart) if below.startswith("aejax.methods")]


def reached(module: str) -> set[str]:
    """What a module imports, and what that imports."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        found |= waiting
        waiting = set().union(*(ARROWS[each] for each in waiting)) - found
    return found - {module}


def test_every_module_says_what_it_is_and_ends_in_time():
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    limit = {module: 300 if module.startswith("aejax.runner") else 400 for module in FILES}
    assert {module: n for module, n in lines.items() if n > limit[module]} == {}
