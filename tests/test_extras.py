"""What the core lacks is said in one line, and whoever follows that line has it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from smoke_core import MISSING, complaint

import aejax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
BY_MODULE = packages_distributions()


def brings(extra: str) -> set[str]:
    """The packages of an extra, those of the extras that it names among them."""
    found = set()
    for requirement in map(Requirement, EXTRAS[extra]):
        inner = requirement.extras if requirement.name == "aejax" else ()
        found |= set().union(*map(brings, inner)) if inner else {requirement.name.lower()}
    return found


def distribution(module: str) -> str:
    """The package that has a module; TensorFlow, which is not installed here, has that of its name."""
    return BY_MODULE.get(module, [module])[0].lower().replace("_", "-")


@pytest.fixture
def core_alone(monkeypatch):
    absent = ("sklearn", "tensorflow_datasets", "importlib_resources", "PIL", "matplotlib", "tyro", "tensorflow")
    for module in (*absent, "constriction"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize("call", MISSING)
def test_what_is_missing_is_said_in_one_line_that_names_the_extra(core_alone, capsys, call):
    module, extra = MISSING[call]
    said = complaint(call) or capsys.readouterr().err.removeprefix("error: ").removesuffix("\n")
    assert re.fullmatch(rf".+ needs {module}, which is not installed: pip install 'aejax\[{extra}\]'", said)
    assert distribution(module) in brings(extra)


def test_every_advice_in_the_library_names_an_extra_that_brings_the_module():
    advised = {}
    for path in (ROOT / "aejax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "extras.need":
                extra = ast.literal_eval(node.keywords[0].value)
                for module in map(ast.literal_eval, node.args[1:]):
                    advised[module, extra] = distribution(module) in brings(extra)
    assert len(advised) > 8
    assert all(advised.values()), advised


def test_the_core_is_what_training_takes_and_the_extras_bring_one_another():
    assert {Requirement(each).name for each in PROJECT["dependencies"]} == {"jax", "flax", "optax", "chex", "numpy"}
    everything = brings("all")
    for extra in ("data", "runner", "sklearn", "export", "compress"):
        assert brings(extra) <= everything
    assert everything <= brings("test")
    assert brings("data") <= brings("runner") & brings("prepare")


def test_versions_have_no_upper_cap_without_a_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    capped = [line for line in lines if re.search(r'"[\w-]+[^"]*<\d', line)]
    assert all("#" in line for line in capped), capped


def test_the_version_is_the_same_everywhere():
    version = aejax.__version__
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
