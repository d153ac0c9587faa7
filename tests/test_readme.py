"""What the README says has to work: its example runs, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from aejax.methods import METHODS
from experiments.studies import pages

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_python_example_runs_and_learns():
    example = re.search(r"```python\n(import jax\n.*?)```", README, re.DOTALL).group(1)
    assert len([line for line in example.splitlines() if line]) <= 15
    names: dict = {}
    exec(compile(example.replace("num_epochs=100", "num_epochs=20"), "README.md", "exec"), names)
    digits, algo, state, x_hat = names["digits"], names["algo"], names["chunk"].state, names["x_hat"]
    before = names["evaluate"](algo, algo.init(names["params"]), names["Batch"](digits.test.x), names["eval_key"])
    after = names["evaluate"](algo, state, names["Batch"](digits.test.x), names["eval_key"])
    assert after["elbo/bound_nats"] < before["elbo/bound_nats"] - 10
    mean_image = digits.train.x.mean(axis=0)
    error, of_the_mean = ((digits.test.x - guess) ** 2 for guess in (x_hat, mean_image))
    assert error.sum() < of_the_mean.sum()


def test_the_three_lines_run_and_learn():
    example = re.search(r"```python\n(from aejax import data, learn\n.*?)```", README, re.DOTALL).group(1)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    train, test, fitted = names["digits"].train.x, names["digits"].test.x, names["fitted"]
    assert names["codes"].shape == (180, 2)
    assert names["images"].shape == (16, 8, 8, 1)
    error, of_the_mean = (((test - guess) ** 2).sum() for guess in (fitted.reconstruct(test), train.mean(axis=0)))
    assert error < 0.8 * of_the_mean


def test_names_and_table_of_methods_are_those_of_the_registry():
    assert pages.readme(README) == README, "run python -m experiments pages"
    assert pages.TABLE.read_text() == pages.methods_page(), "run python -m experiments pages"
    assert [line.split("`")[1].split()[-1] for line in pages.methods_page().splitlines() if "`" in line] == [*METHODS]
    assert len(README.splitlines()) < 150


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/own_experiment.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert links
    assert not missing
