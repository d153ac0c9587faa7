"""The comparison of contractions: what is trained, what is measured, and what is left on the disk."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import ortho_group
from small_run import contents

from aejax.methods.ae import AE
from aejax.runner import launch
from experiments.studies import spectra

KEY = jax.random.key(0)


def test_the_methods_share_everything_but_their_knobs():
    config = spectra.Config(latent_dim=7, seed=3, hparams=spectra.HParams(2e-3, 0.4, 0.6))
    runs = {name: own for name, (_, own) in spectra.experiments(config).items()}
    assert list(runs) == ["ae", "dae", "cae"]
    for own in runs.values():
        network = (own.hidden_dims, own.code, own.tied, own.latent_dim, own.seed, own.hparams.lr)
        assert network == ((), "sigmoid", True, 7, 3, 2e-3)
    assert runs["dae"].hparams.level == 0.4
    assert runs["cae"].hparams.contraction == 0.6


def encoder(kernel):
    model = AE.dense(*kernel.shape, hidden_dims=(), use_bias=False)
    return model, {"encoder": {"dense_0": {"kernel": np.asarray(kernel, np.float32)}}}


def test_a_similarity_is_measured_as_one():
    kernel = 0.3 * ortho_group.rvs(5, random_state=0)
    x = np.random.default_rng(0).random((8, 5), np.float32)
    found = spectra.contraction(*encoder(kernel), x, KEY)
    np.testing.assert_allclose(found.spectrum, np.full(5, 0.3), rtol=1e-5)
    gaps = np.linalg.norm(x[:, None] - x, axis=-1)
    assert found.distance == pytest.approx(gaps.sum() / 56, rel=1e-5)
    assert found.nearest == pytest.approx(np.sort(gaps, axis=1)[:, 1].mean(), rel=1e-5)
    expected = {"effective_rank": 5.0, "contraction_near": 0.3, "contraction_far": 0.3, "contraction_pairs": 0.3}
    assert spectra.summarise(found) == pytest.approx(expected, rel=1e-4)


def test_near_and_far_are_read_at_their_radii():
    radii = np.array([0.02, 0.5, 2.0, 8.0])
    found = spectra.Contraction(np.ones(2), 2.0, radii, np.array([1.0, 2.0, 3.0, 4.0]), 5.0, 2.0, 1.0)
    metrics = spectra.summarise(found)
    assert (metrics["contraction_near"], metrics["contraction_far"]) == (1.0, 3.0)


def test_tangents_of_a_linear_encoder_are_its_left_singular_vectors():
    u = ortho_group.rvs(6, random_state=0)[:, :3]
    kernel = u * [3.0, 2.0, 1.0] @ ortho_group.rvs(3, random_state=1)
    found = spectra.tangents(*encoder(kernel), np.random.default_rng(0).random((4, 6)), 2)
    expected = (u * np.sign(u[np.abs(u).argmax(axis=0), range(3)])).T[:2]
    np.testing.assert_allclose(found, np.tile(expected, (4, 1, 1)), atol=1e-5)


FLAGS = ("--latent-dim", "8", "--num-epochs", "2", "--batch-size", "500", "--workdir", "run")


@pytest.mark.slow
def test_finished_runs_are_reused_and_all_that_is_reported_is_documented(tmp_path, capsys):
    call = lambda *flags: launch.command_line("spectra", spectra.Config, "", spectra.body, [*FLAGS, *flags])
    call()
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    documented = (Path(spectra.__file__).parents[2] / "docs" / "units.md").read_text()
    assert set(summary["metrics"]) == {"ae", "dae", "cae"}
    assert tuple(summary["metrics"]["cae"]) == spectra.METRICS
    assert [name for name in spectra.METRICS if f"`{name}`" not in documented] == []
    assert {path.name for path in (run / "figures").iterdir()} == {"spectra.png", "contraction.png", "tangents.png"}
    assert "contraction_near" in capsys.readouterr().out

    before = {name: contents(run / name) for name in ("ae", "cae")}
    (run / "summary.json").unlink()  # ended while it drew
    call("--resume")
    assert {name: contents(run / name) for name in before} == before
    assert json.loads((run / "summary.json").read_text()) == summary
