"""The study of disentanglement: what each row trains, rows with a known answer, and a whole run of it."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import contents

from aejax import data
from aejax.data import Factored
from aejax.methods import METHODS
from aejax.runner import launch
from experiments.studies import disentangle

GRID = np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1).astype(np.int32)
CONFIG = dataclasses.replace(
    disentangle.Config(), num_train=100, num_test=60, num_for_trees=50, latent_dim=3, hidden_dims=(4,)
)


@pytest.fixture
def bars(monkeypatch):
    """Images of three bars, 4, 8 and 12 pixels long, each lit by a coin of its own, 20 times."""
    factors = np.tile(GRID, (20, 1))
    x = np.repeat(factors, (4, 8, 12), axis=1).astype(np.float32).reshape(-1, 4, 6, 1)
    found = Factored("bars", x, factors, ("short", "middle", "long"))
    monkeypatch.setattr(data, "load_factors", lambda name: found)
    return found


def test_every_row_has_its_own_weight():
    config = dataclasses.replace(CONFIG, hparams=disentangle.HParams(2e-3, 5.0, 7.0, 9.0, 11.0, 13.0))
    found = disentangle.settings(config)
    assert list(found) == ["vae", "beta_vae", "beta_tc_vae", "factor_vae", "dip_vae"]
    assert {hparams.lr for _, hparams in found.values()} == {2e-3}
    vae, beta, tc, factor, dip = (hparams for _, hparams in found.values())
    assert (vae.beta, beta.beta, tc.beta, factor.gamma, dip.lambda_od, dip.lambda_d) == (1.0, 5.0, 7.0, 9.0, 11.0, 13.0)
    assert factor.disc_lr == 2e-3
    assert METHODS["dip_vae"].build.__signature__.parameters["covariance"].default == "codes"  # DIP-VAE-II


@pytest.mark.slow
def test_factors_and_components_of_pixels_that_are_factors(bars):
    found = disentangle.beside(CONFIG, bars)
    for row in found.values():
        assert row["mig"] == [pytest.approx(1, abs=0.05)]  # of 100 of 160 images
        assert row["beta_vae_score"] == row["factor_vae_score"] == row["dci_informativeness"] == [1]
    two = disentangle.beside(dataclasses.replace(CONFIG, latent_dim=2), bars)
    assert two["pca"]["factor_vae_score"][0] < 0.9  # the short bar has no component


def test_the_picture_walks_along_one_unit_a_line_the_widest_first(bars, monkeypatch):
    """Units are three times the first, and twice the last coin; the decoder shows the code."""
    from aejax import plots

    drawn = {}
    monkeypatch.setattr(plots, "image_rows", lambda lines, shape, title: drawn.update(lines))
    codes = bars.factors[:, [2, 0]] * np.array([2.0, 3.0], np.float32)
    disentangle.draw("vae", jnp.asarray, codes, bars)
    assert list(drawn) == ["unit 1: short 100 %", "unit 0: long 100 %"]
    np.testing.assert_allclose(drawn["unit 1: short 100 %"], [[0, z] for z in np.linspace(0, 3, 9)], rtol=1e-6)


def test_the_table_has_a_line_for_each_row():
    row = {name: [0.25, 0.35] for name in (*disentangle.SCORES, *disentangle.TRAINED)}
    factors = {name: [1.0] for name in disentangle.SCORES}
    lines = disentangle.table({"metrics": {"factors": factors, "dip_vae": row}}).splitlines()
    assert lines[2] == "| the factors themselves |" + 7 * " 1 |" + " | | 1 |"
    assert lines[3] == f"| DIP-VAE-II |{8 * ' 0.300 ± 0.071 |'} 0.300 ± 0.071, 0.300 ± 0.071 | 2 |"
    assert len({line.count("|") for line in lines}) == 1


FLAGS = (
    "--num-epochs", "30", "--num-seeds", "2", "--latent-dim", "3", "--hidden-dims", "8", "--batch-size", "40",
    "--num-train", "100", "--num-test", "60", "--num-for-trees", "40", "--hparams.lr", "1e-2", "--workdir", "run",
)  # fmt: skip


def call(*flags):
    launch.command_line("disentangle", disentangle.Config, "", disentangle.body, [*FLAGS, *flags])


@pytest.mark.slow
def test_a_study_ends_with_all_rows_and_is_not_run_twice(tmp_path, bars, monkeypatch, capsys):
    some = {row: each for row, each in disentangle.settings(disentangle.Config()).items() if row.endswith("a_vae")}
    monkeypatch.setattr(disentangle, "settings", lambda config: {"vae": ("vae", METHODS["vae"].hparams(1e-2)), **some})
    call()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["factors", "pca", "vae", "beta_vae"]
    vae, beta = summary["metrics"]["vae"], summary["metrics"]["beta_vae"]
    assert len(vae["mig"]) == 2
    assert vae["mig"][0] != vae["mig"][1]
    assert max(beta["train_kl_nats"]) < min(vae["train_kl_nats"])  # four times as dear
    assert max(vae["train_recon_nats"]) < 24 * np.log(2) / 2  # the pixels have as many nats where nothing is known
    assert "| beta-VAE |" in capsys.readouterr().out
    before = contents(tmp_path / "run")
    assert {"figures/vae_units.png", "figures/beta_vae_units.png"} <= set(before)
    call()
    assert contents(tmp_path / "run") == before
    # A run that was killed before its summary goes on, and trains nothing again.
    (tmp_path / "run" / "summary.json").unlink()
    monkeypatch.setattr(disentangle, "train", lambda *arguments: pytest.fail("trained again"))
    call("--resume")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"] == summary["metrics"]


@pytest.mark.slow
def test_all_methods_run(tmp_path, bars):
    call()
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(metrics) == list(disentangle.TITLES)
    assert all(0 <= value <= 1 for row in metrics.values() for name in disentangle.SCORES for value in row[name])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds=0"),
        (["--latent-dim", "1"], "--latent-dim is 1"),
        (["--hparams.beta", "-1"], "beta is -1"),
        (["--batch-size", "200"], "200"),
        (["--devices", "2"], "one device"),
    ],
)
def test_refused_before_it_begins(tmp_path, bars, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        call(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not contents(tmp_path)


def test_sets_without_factors_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        call("--dataset", "digits")
    assert "'digits' is no set with known factors" in capsys.readouterr().err
    assert not contents(tmp_path)
