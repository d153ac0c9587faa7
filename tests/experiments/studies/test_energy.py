"""The study of energies: the knobs of each row, diversity and convergence by hand, the table, and a whole run."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE
from aejax.nets import init_params
from aejax.runner import launch, study, units
from experiments import began, ebgan
from experiments.studies import energy, generators
from experiments.studies.energy import ROWS, Config
from experiments.studies.units import METRICS

KEY = jax.random.key(0)


def test_rows_differ_in_what_their_title_says_alone():
    runs = energy.runs(Config(num_seeds=2, seed=3, num_epochs=7))
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ROWS]
    usual, other = ebgan.Config().hparams, began.Config().hparams
    assert runs["margin_2-3"][1].hparams == usual._replace(margin=2.0)
    assert runs["margin_0.5_alone-4"][1].hparams == usual._replace(margin=0.5, repelling=0.0)
    assert runs["gamma_0.7-3"][1].hparams == other._replace(gamma=0.7)
    assert {(own.latent_dim, own.hidden_dims, own.num_epochs) for _, own in runs.values()} == {(8, (256,), 7)}
    with pytest.raises(InputError, match="no row 'margin_3'"):
        energy.runs(Config(rows=("margin_3",)))


def test_diversity_is_the_spread_of_samples_over_that_of_test_images():
    x = np.random.default_rng(0).random((30, 16), np.float32)
    real = generators.Real.of(data.Dataset("x", Batch(x), None, Batch(x), (4, 4, 1)), lambda x: np.asarray(x, float))
    assert energy.spread_out(x, real)["diversity"] == 1
    assert energy.spread_out(0.25 * x + 7, real)["diversity"] == pytest.approx(0.25, rel=1e-5)
    assert energy.spread_out(np.repeat(x[:1], 30, axis=0), real)["diversity"] == 0
    two = np.repeat(np.eye(2, 16, dtype=np.float32), 15, axis=0)  # 225 of the 435 pairs are sqrt(2) apart
    flat = real._replace(dataset=real.dataset._replace(test=Batch(np.eye(16, dtype=np.float32))))  # and here all
    assert energy.spread_out(two, flat)["diversity"] == pytest.approx(225 / 435, rel=1e-6)


def test_each_method_has_its_own_measure_of_convergence():
    """Of the last tenth of the steps: a loss of 3 at a margin of 2."""
    x = np.full((4, 6), 0.5, np.float32)
    model = AE.dense(6, 2, hidden_dims=())
    state = SimpleNamespace(params=init_params(model, KEY, x))
    set_of = data.Dataset("x", Batch(x), None, Batch(x), None)
    history = [{"step": 90, "disc/loss": 99.0, "control/convergence": 99.0}]
    history += [{"step": 100, "disc/loss": 3.0, "control/convergence": 5.0}]
    of = lambda config: runner.Trained(config, model, None, state, set_of, history, KEY, KEY, {})
    found = energy.measure(of(ebgan.Config(hparams=ebgan.Config().hparams._replace(margin=2.0))))
    assert found["loss_over_margin"] == pytest.approx(1.5)
    assert "convergence" not in found
    found = energy.measure(of(began.Config()))
    assert found["convergence"] == pytest.approx(5.0)
    assert "loss_over_margin" not in found


def test_the_table_counts_the_runs_that_collapsed():
    row = {"frechet": [3.0, 3.0], "diversity": [0.49, 0.51], "recall": [0.5, 0.5], "seconds": [9.0, 9.0]}
    metrics = {"test": {"frechet": [0.5], "recall": [1.0]}, "margin_5": row | {"loss_over_margin": [1.0, 1.0]}}
    lines = energy.table({"rows": ["margin_5"], "metrics": metrics}).splitlines()
    assert lines[2] == "| test images | | 0.5 | 1 | 1 | | | | | |"
    assert lines[3] == "| EBGAN, margin 5 | 1 of 2 | 3 ± 0 | 0.500 ± 0.014 | 0.5 ± 0 | | | 1 ± 0 | | 2, 9 |"


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--latent-dim", "3"]
    flags += ["--rows", "margin_1_alone", "gamma_0.5", "--workdir", str(tmp_path / "run")]
    launch.command_line("energy", Config, "", study.body(energy.STUDY), flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(metrics) == ["margin_1_alone", "gamma_0.5", "test"]
    assert [name for row in metrics.values() for name in row if units.find(name, METRICS) is None] == []
    assert {*energy.SCORES} == {*metrics["margin_1_alone"], *metrics["gamma_0.5"]} & {*energy.SCORES}
    _, model, state = runner.load(tmp_path / "run" / "gamma_0.5-0")
    x = generators.drawn(model, state.params, np.zeros((1, 64)), jax.random.key(0), 180)
    x_hat = model.apply({"params": state.params}, x, method="reconstruct")
    assert metrics["gamma_0.5"]["sampled_sse"] == [pytest.approx(np.square(x_hat - x).sum(axis=1).mean(), rel=1e-4)]
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples", "reconstructions"}
