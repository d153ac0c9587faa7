"""The study of modes: what is trained and asked, in a small run, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from small_run import contents

from aejax import training
from aejax.algorithm import begin
from aejax.data import Batch
from aejax.evaluation.modes import GRID, RING
from aejax.methods import METHODS
from aejax.runner import launch
from experiments.studies import modes

FLAGS = (
    "--rows", "gan", "--hidden-dims", "8", "--num-examples", "200", "--num-epochs", "2", "--batch-size", "20",
    "--num-seeds", "2",
)  # fmt: skip


def call(*flags):
    launch.command_line("modes", modes.Config, "", modes.body, [*FLAGS, *flags])


def test_each_row_is_a_method_at_one_rate_and_has_its_own_seeds():
    for name, row in modes.ROWS.items():
        knobs = modes.settings(name, 0.5)._asdict()
        rates = {field for field in knobs if field.endswith("lr")}
        assert {knobs[field] for field in rates} == {0.5}
        others = METHODS[name].hparams()._asdict()
        assert {field: knobs[field] for field in knobs if field not in rates} == {
            field: value for field, value in others.items() if field not in rates
        }
        assert hasattr(row.optimiser(0.1), "update")
    assert set(modes.Config().rows) == set(modes.ROWS)
    assert "modes" not in METHODS


def test_seeds_give_samples_of_their_own_and_the_same_again():
    sizes = {"num_examples": 200, "num_epochs": 2, "batch_size": 20, "num_seeds": 2}  # of FLAGS, and so compiled once
    config = modes.Config(("gan",), hidden_dims=(8,), **sizes)
    first = modes.samples(config, "gan", RING)
    assert first.shape == (2, 2000, 2)
    assert not np.allclose(first[0], first[1])
    np.testing.assert_array_equal(modes.samples(config, "gan", RING), first)


def test_runs_of_drawn_settings_are_those_of_each_seed_alone():
    config = modes.Config(("gan",), hidden_dims=(8,), num_examples=200, num_epochs=1, batch_size=100, settings="random")
    both = modes.samples(dataclasses.replace(config, num_seeds=2), "gan", RING)
    assert both.shape == (2, 10_000, 2)
    algo = modes.functions("gan", 2, (8,), "random")[1](modes.drawn_settings(1))
    x = RING.sample(jax.random.fold_in(jax.random.key(0), modes._DATA), 200)
    init_key, train_key, draw_key = jax.random.split(jax.random.key(1), 3)
    model, _, init = modes.functions("gan", 2, (8,), "random")
    state = begin(algo, init, Batch(x), init_key)
    state, _ = training.fit(algo, state, Batch(x), train_key, batch_size=100, num_epochs=1)
    alone = model.apply({"params": state.params}, draw_key, 10_000, method="sample")
    np.testing.assert_allclose(both[1], alone, rtol=1e-4, atol=1e-5)


def test_metrics_are_of_each_seed_by_hand():
    centres = np.asarray(GRID.means, np.float32)
    x = np.stack([centres[:20].repeat(2, axis=0), np.where(np.arange(40)[:, None] < 10, centres[0], 1.0)])
    assert modes.measure(x, GRID) == {"modes": [20.0, 1.0], "high_quality": [1.0, 0.25], "assigned": [20.0, 2.0]}


def test_drawn_settings_are_of_the_run_and_reach_its_optimiser_and_first_weights():
    """The first step of Adam is the rate on every weight, and its running mean (1 - b1) times the gradient."""
    _, build, init = modes.functions("ali", 2, (8,), "random")
    params = init(jax.random.key(0))
    for own in (modes.drawn_settings(0), modes.drawn_settings(1)):
        algo = build(own)
        first = algo.start(params, None, jax.random.key(3))
        kernels = [w for path, w in jax.tree_util.tree_leaves_with_path(first) if path[-1].key == "kernel"]
        whole = np.concatenate([np.ravel(w) for w in kernels]) / own.std
        assert np.std(whole) == pytest.approx(1, abs=4 / np.sqrt(2 * len(whole)))
        assert len(np.unique(whole)) == len(whole)
        biases = [w for path, w in jax.tree_util.tree_leaves_with_path(first) if path[-1].key != "kernel"]
        assert all((np.asarray(b) == 0).all() for b in biases)
        x = Batch(GRID.sample(jax.random.key(1), 20))
        after, _ = algo.step(algo.init(first), x, jax.random.key(2))
        for group in first:  # of both players
            moved = np.abs(jax.tree.leaves(after.params[group])[0] - jax.tree.leaves(first[group])[0])
            assert moved.max() == pytest.approx(own.lr, rel=1e-2)
        for player in after.opt_states.values():
            mean, square = (jax.tree.leaves(optax.tree.get(player, name))[0] for name in ("mu", "nu"))
            np.testing.assert_allclose(np.abs(mean).max(), (1 - own.b1) * np.sqrt(square.max() / 0.001), rtol=1e-4)
    assert modes.drawn_settings(0) != modes.drawn_settings(1)


def test_drawn_settings_stay_in_their_ranges():
    each = np.array([modes.drawn_settings(seed) for seed in range(2000)])
    edges = np.array([[1e-4, 1e-2], [0, 0.9], [1e-2, 1]])
    assert ((each > edges[:, 0]) & (each < edges[:, 1])).all()
    np.testing.assert_allclose(np.median(each, axis=0), [1e-3, 0.45, 0.1], rtol=0.15)


def test_the_table_of_drawn_settings_has_the_extremes_and_the_published_numbers():
    found = {"modes": [2.0, 4.0], "high_quality": [0.5, 0.5], "assigned": [3.0, 9.0]}
    metrics = {where: {modes.TRUTH: found, "ali": found} for where in modes.MIXTURES}
    head, *lines = modes.table({"settings": "random", "rows": ["ali"], "metrics": metrics}).splitlines()
    assert head.split(" | ")[4:] == [
        "grid: modes of 25", "grid: within 3 deviations, %", "grid: assigned (fewest, most)",
        "grid: assigned, published |",
    ]  # fmt: skip
    assert "(3, 9)" in lines[-1]
    assert lines[-1].endswith("| 13.4 ± 5.8 |")
    assert "13.4" not in modes.table({"rows": ["ali"], "metrics": metrics})


def test_a_small_run_has_its_table_and_pictures(tmp_path, capsys):
    call("--workdir", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for where, count in (("ring", 8), ("grid", 25)):
        truth, found = (summary["metrics"][where][name] for name in (modes.TRUTH, "gan"))
        assert truth["modes"] == [count]
        assert truth["high_quality"][0] == pytest.approx(1 - np.exp(-4.5), abs=4 * np.sqrt(0.011 / 2000))
        assert len(found["modes"]) == len(found["high_quality"]) == 2
    assert "| gan |" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"ring.png", "grid.png"}
    before = contents(tmp_path)
    call("--workdir", "run")  # finished: only the report
    assert contents(tmp_path) == before


def test_data_have_a_key_of_their_own():
    """`sweep` splits the key of each seed in three."""
    key = jax.random.key(0)
    keys = [*jax.random.split(key, 3), *(jax.random.fold_in(key, fold) for fold in (modes._DATA, modes._DATA - 1))]
    assert len({tuple(jax.random.key_data(each).tolist()) for each in keys}) == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds=0"),
        (["--rows", "gun"], "Did you mean 'gan'"),
        (["--rows", "gan", "gan"], "none twice"),
        (["--rows", "wgan_gp", "--batch-size", "22"], "20 would be"),
        (["--lr", "0"], "--lr is 0.0"),
        (["--batch-size", "300"], "300"),
        (["--devices", "2"], "one device"),
        (["--settings", "own"], "equal"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        call(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not contents(tmp_path)
