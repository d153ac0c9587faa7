"""Several runs as one experiment: their order, their programs, what is on the disk, and what the table says."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from small_run import contents, read

from aejax import runner, training
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import ae_loss
from aejax.runner import launch, options, study
from aejax.runner.console import Bars
from aejax.runner.folder import open_folder
from experiments import ae


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    num_epochs: int = 2


TINY = ae.Config(hidden_dims=(), num_epochs=2, batch_size=500, validation=0.0)
LR = lambda lr: dataclasses.replace(TINY, hparams=ae.method.HParams(lr))


def size(trained):
    return {"size": float(sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(trained.state.params)))}


EXPERIMENT = ae.EXPERIMENT._replace(measure=size, draw=lambda trained: {})


def run_all(runs, path, *, config=Config(), **known):
    """The runs in that folder, which may be there already."""
    folder = open_folder("tiny", config, path, resume=path.exists())
    return study.run_all(runs, folder, launch.Launch(workdir=path), Bars(Console(file=io.StringIO())), **known)


def numbers(metrics):
    return {name: {key: value for key, value in found.items() if key != "seconds"} for name, found in metrics.items()}


def test_all_rows_of_the_first_seed_come_first():
    runs = study.seeded({"a": (EXPERIMENT, TINY), "b_c": (EXPERIMENT, LR(0.1))}, 7, 2)
    assert list(runs) == ["a-7", "b_c-7", "a-8", "b_c-8"]
    assert {name: own.seed for name, (_, own) in runs.items()} == {"a-7": 7, "b_c-7": 7, "a-8": 8, "b_c-8": 8}
    assert runs["b_c-8"][1] == dataclasses.replace(LR(0.1), seed=8)
    with pytest.raises(InputError, match="--num-seeds is 0"):
        study.seeded({"a": (EXPERIMENT, TINY)}, 7, 0)


def test_metrics_are_gathered_by_row():
    metrics = {"a-0": {"sse": 1.0, "seconds": 9.0}, "b_c-0": {"hit": 0.5}, "a-1": {"sse": 2.0, "seconds": 8.0}}
    assert study.by_row(metrics) == {"a": {"sse": [1.0, 2.0], "seconds": [9.0, 8.0]}, "b_c": {"hit": [0.5]}}
    assert study.cost({"seconds": [1.0, 9.0, 2.0]}) == "3, 2"
    assert study.cost({"sse": [1.0]}) == ""


def test_the_table_is_markdown():
    found = study.table(("", "a", "", ""), [["x", "1", "", ""], ["", "", "", "2"]])
    assert found == "| | a | | |\n| --- | --- | --- | --- |\n| x | 1 | | |\n| | | | 2 |\n"


@pytest.mark.parametrize(
    ("values", "scale", "shown"),
    [
        ([13.8661, 13.8663, 13.8665], 1, "13.86630 ± 0.00020"),
        ([101.0, 103.0, 105.0], 1, "103.0 ± 2.0"),
        ([100.0, 400.0], 1, "250 ± 212"),
        ([0.01, 0.03], 100, "2.0 ± 1.4"),
        ([3.25], 1, "3.25"),
        ([0.0325], 100, "3.25"),
        ([0.5, 0.5], 1, "0.5 ± 0"),
        ([0.1, 0.1, 0.1], 1, "0.1 ± 0"),  # whose mean is not 0.1
        ([0.5, float("nan")], 1, "0.5 ± nan"),
    ],
)
def test_spread_keeps_the_digits_that_mean_something(values, scale, shown):
    assert study.spread(values, scale=scale) == shown


def counting():
    """An experiment, and how often its algorithm was built and its loss traced."""
    built, traced = [], []

    def build(config, model, tx, axis_name):
        built.append(config)

        def loss(params, batch, key):
            traced.append(0)
            return ae_loss(params, batch, key, model=model)

        player = Player(loss, ("encoder", "decoder"), tx(config.hparams.lr))
        return play({"recon": player}, [["recon"]], axis_name=axis_name)

    return EXPERIMENT._replace(build_algorithm=build), built, traced


@pytest.mark.slow
def test_seeds_share_one_program(tmp_path):
    traces = []
    for num_seeds in (1, 3):
        experiment, built, traced = counting()
        found = run_all(study.seeded({"a": (experiment, TINY)}, 0, num_seeds), tmp_path / str(num_seeds))
        assert len(built) == 1
        traces.append(len(traced))
    assert traces[0] == traces[1] > 0
    assert len({values["size"] for values in found.values()}) == 3  # one program, and three runs


def test_an_interrupted_study_goes_on_to_the_same_numbers(tmp_path):
    measured = []

    def measure(trained, *, broken):
        measured.append(trained.config.seed)
        if trained.config.seed == broken:
            raise OSError("the disk is full")
        return size(trained)

    runs = lambda broken: study.seeded(
        {"a": (EXPERIMENT._replace(measure=partial(measure, broken=broken)), TINY)}, 4, 2
    )
    whole = run_all(runs(None), tmp_path / "whole")
    path = tmp_path / "run"
    with pytest.raises(OSError, match="full"):
        run_all(runs(5), path)
    before = contents(path / "a-4")
    del measured[:]
    resumed = run_all(runs(None), path)
    assert measured == [5]
    assert contents(path / "a-4") == before
    assert numbers(resumed) == numbers(whole)
    assert run_all(runs(None), path) == resumed  # seconds as well: nothing was run
    assert measured == [5]


@dataclasses.dataclass(frozen=True)
class Grown(Config):
    rows: tuple[str, ...] = ("a",)
    num_seeds: int = 1


def test_a_finished_study_is_given_further_rows_and_seeds(tmp_path):
    """What is there is kept, to its bytes; fewer of either are another study, and so is another order."""
    rates = {"a": 1e-3, "b": 1e-2}
    runs = lambda config: study.seeded({row: (EXPERIMENT, LR(rates[row])) for row in config.rows}, 0, config.num_seeds)
    tiny, path = study.Study("tiny", Grown, runs, str, lambda *_: {}), tmp_path / "run"

    def call(config, resume):
        study.body(tiny)(config, launch.Launch(workdir=path, resume=resume), Bars(Console(file=io.StringIO())))
        return read(path / "summary.json")["metrics"]

    first, before = call(Grown(), False), contents(path / "a-0")
    with pytest.raises(InputError, match=r"rows \['a'\] there and \['a', 'b'\] here. It may grow with --resume"):
        call(Grown(rows=("a", "b")), False)
    metrics = call(Grown(rows=("a", "b"), num_seeds=2), True)
    assert contents(path / "a-0") == before
    assert {row: len(found["size"]) for row, found in metrics.items()} == {"a": 2, "b": 2}
    assert metrics["a"]["size"][0] == first["a"]["size"][0]
    fewer, permuted = Grown(num_seeds=3), (Grown(rows=rows, num_seeds=2) for rows in (("b", "a"), ("b", "a", "c")))
    for other in (fewer, *permuted):
        with pytest.raises(InputError, match="holds another run") as error:
            call(other, True)
        assert "may grow" not in str(error.value)


def test_what_is_measured_once_is_not_lost(tmp_path):
    measured, broken = [], [True]

    def beside(config, dataset, once):
        def slow(name, say):
            measured.append(name)
            if name == "b-0" and broken:
                raise OSError("the disk is full")
            return {"length": float(len(name) + len(measured))}

        return study.by_row({name: once(name, partial(slow, name)) for name in ("a-0", "b-0")})

    runs = lambda config: study.seeded({"row": (EXPERIMENT, TINY)}, 0, config.num_seeds)
    tiny = study.Study("tiny", Grown, runs, str, lambda *_: {}, beside)
    call = lambda resume, seeds=1: study.body(tiny)(
        Grown(num_seeds=seeds),
        launch.Launch(workdir=tmp_path / "run", resume=resume),
        Bars(Console(file=io.StringIO())),
    )
    with pytest.raises(OSError, match="full"):
        call(False)
    del broken[:]
    call(True)
    assert measured == ["a-0", "b-0", "b-0"]
    metrics = read(tmp_path / "run" / "summary.json")["metrics"]
    assert list(metrics) == ["a", "b", "row"]
    assert (metrics["a"]["length"], metrics["b"]["length"]) == ([4.0], [6.0])
    assert metrics["a"]["seconds"][0] >= 0
    file = tmp_path / "run" / "a-0.json"
    file.write_text(file.read_text().replace('"num_epochs": 2', '"num_epochs": 1'))  # as of a shorter study
    (tmp_path / "run" / "summary.json").unlink()
    call(True)
    assert measured == ["a-0", "b-0", "b-0", "a-0"]
    call(True, seeds=2)  # what is measured is of one of them
    assert measured == ["a-0", "b-0", "b-0", "a-0"]


@pytest.mark.slow
def test_a_run_begins_where_another_one_ended(tmp_path):
    """By hand: the algorithm's `init` of the old parameters, and one compiled function for all epochs."""
    runs = study.seeded({"first": (EXPERIMENT, TINY), "second": (EXPERIMENT, LR(0.03))}, 2, 1)
    after = {"first-2": None, "second-2": "first-2"}.get
    found = run_all(runs, tmp_path / "run", after=after)
    ready = runner.prepare(*runs["second-2"])
    old = runner.load(tmp_path / "run" / "first-2")[2].params
    fit = jax.jit(partial(training.fit, ready.algorithm, batch_size=500, num_epochs=2))
    expected, _ = fit(ready.algorithm.init(old), Batch(ready.dataset.train.x), ready.keys[0])
    params = runner.load(tmp_path / "run" / "second-2")[2].params
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, expected.params)
    assert found["first-2"]["size"] != found["second-2"]["size"]
    grown = {name: (each, dataclasses.replace(own, num_epochs=3)) for name, (each, own) in runs.items()}
    with pytest.raises(InputError, match="began where a shorter first-2 ended"):
        run_all(grown, tmp_path / "run", config=Config(num_epochs=3), after=after)
    study._check(grown, tmp_path / "another", launch.Launch(workdir=tmp_path / "another"), after)


@pytest.mark.parametrize(
    ("refuse", "flags"),
    [
        (options.refuse_for_sweeps, {"devices": 2}),
        (options.refuse_for_sweeps, {"parallel": "pmap"}),
        (options.refuse_for_sweeps, {"tensorboard": True}),
        (options.refuse_origin, {"origin": Path("old")}),
    ],
)
def test_a_launch_passes_without_the_flags_that_are_to_be_left_out(refuse, flags):
    with pytest.raises(InputError, match="leave "):
        refuse(launch.Launch(**flags))
    refuse(launch.Launch())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hparams": ae.method.HParams(-1.0)}, "lr is -1.0"),
        ({"batch_size": 5000}, "5000"),
        ({"seed": -1}, "--seed is -1"),  # only of its first run
    ],
)
def test_nothing_is_written_where_one_row_is_refused(tmp_path, change, message):
    rows = {"a": (EXPERIMENT, TINY), "b": (EXPERIMENT, dataclasses.replace(TINY, **change))}
    runs = study.seeded(rows, change.get("seed", 0), 2)
    with pytest.raises(InputError, match=message):
        run_all(runs, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_longer_study_with_runs_that_cannot_grow_is_refused_as_it_stands(tmp_path):
    """The second one was to change with the number of passes, as a warm-up by halves does."""
    path, rows = tmp_path / "run", lambda epochs: {
        "a": (EXPERIMENT, dataclasses.replace(TINY, num_epochs=epochs)),
        "b": (EXPERIMENT, dataclasses.replace(LR(epochs / 100), num_epochs=epochs)),
    }  # fmt: skip
    run_all(study.seeded(rows(1), 0, 1), path, config=Config(num_epochs=1))
    before = contents(path)
    with pytest.raises(InputError, match=r"b-0 holds another run: hparams .*, num_epochs 1 there and 2 here"):
        run_all(study.seeded(rows(2), 0, 1), path)
    assert contents(path) == before


def test_further_runs_are_made_of_the_folders_of_the_first(tmp_path):
    """And a row of what is measured of both; all are told in config.json."""
    sizes = lambda path: {name: read(path / name / "summary.json")["metrics"]["size"] for name in ("a-0", "b-0")}
    then = lambda config, path: {"b-0": (EXPERIMENT, LR(read(path / "a-0" / "summary.json")["metrics"]["size"] * 1e-6))}

    def of_folders(config, path, once):
        found = sizes(path)
        return {"a": {"twice": [2 * found["a-0"]]}, "c": {"both": [*found.values()]}}

    runs = lambda config: {"a-0": (EXPERIMENT, TINY)}
    tiny = study.Study("tiny", Config, runs, str, lambda *_: {}, of_folders=of_folders, then=then)
    study.body(tiny)(Config(), launch.Launch(workdir=tmp_path / "run"), Bars(Console(file=io.StringIO())))
    metrics = read(tmp_path / "run" / "summary.json")["metrics"]
    assert list(metrics) == ["a", "b", "c"]
    (a,), (b,) = metrics["a"]["size"], metrics["b"]["size"]
    assert metrics["a"]["twice"] == [2 * a]
    assert metrics["c"] == {"both": [a, b]}
    assert read(tmp_path / "run" / "config.json")["runs"] == ["a-0", "b-0"]
    assert runner.load(tmp_path / "run" / "b-0")[0].hparams.lr == a * 1e-6
