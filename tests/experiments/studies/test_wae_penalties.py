"""The study of penalties: the weight of each row, codes that follow and do not, the curves, the table, a whole run."""

import json

import jax
import numpy as np
import pytest

from aejax import priors
from aejax.checks import InputError
from aejax.runner import launch, study, units
from experiments import wae_gan, wae_mmd
from experiments.studies import code_shapes, wae_penalties
from experiments.studies.units import METRICS
from experiments.studies.wae_penalties import ROWS, Config


def test_rows_differ_in_their_weight_alone():
    runs = wae_penalties.runs(Config(num_seeds=2, seed=3))
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ROWS]
    assert runs["none-3"][1].hparams == wae_mmd.Config().hparams._replace(mmd_weight=0.0)
    assert runs["mmd_10-4"][1].hparams == wae_mmd.Config().hparams._replace(mmd_weight=10.0)
    assert runs["gan_0.1-3"][1].hparams == wae_gan.Config().hparams._replace(penalty=0.1)
    assert {own.prior for _, own in runs.values()} == {"normal"}
    with pytest.raises(InputError, match="no row 'mmd'"):
        wae_penalties.runs(Config(rows=("mmd",)))


def test_codes_that_follow_the_prior_are_not_told_apart_and_others_are():
    """The kernel has the value exp(-1/2) at the median distance; far apart are all points of two clouds."""
    prior = priors.get("normal", 2)
    z = np.asarray(prior.sample(jax.random.key(5), 400))
    found = code_shapes.against(prior, {"": z, "far_": z + 50}, jax.random.key(0))
    assert found["code_mmd_p"] > 0.05
    assert abs(found["code_mmd"]) < 0.01
    assert found["far_code_mmd_p"] == pytest.approx(1 / 501)
    assert found["far_code_mmd"] > 0.5


def test_the_curves_are_means_over_seeds_of_what_the_runs_report(tmp_path):
    for row, values in {"none": [(0.04, 1.0), (0.14, 2.0)], "gan_1": [(-0.01, 3.0), (0.002, 5.0)]}.items():
        for seed, (sq, sse) in enumerate(values):
            (tmp_path / f"{row}-{seed}").mkdir()
            text = json.dumps({"metrics": {"train_code_mmd": sq, "test_sse": sse}})
            (tmp_path / f"{row}-{seed}" / "summary.json").write_text(text)
    x, y = wae_penalties.trade(Config(num_seeds=2), tmp_path, ["none", "gan_1"])
    np.testing.assert_allclose(x, [0.3, 0.0])  # roots of 0.09 and, below zero, of 0
    np.testing.assert_allclose(y, [1.5, 4.0])


def test_the_table_by_hand():
    row = dict(zip(wae_penalties.SCORES, ([1.0], [0.02], [0.3], [0.01], [0.002], [1.5]), strict=True))
    lines = wae_penalties.table({"rows": ["none"], "metrics": {"none": row | {"seconds": [4.0]}}}).splitlines()
    assert lines[2] == "| no penalty | 1 | 0.02 | 0.3 | 0.01 | 0.002 | 1.5 | 1, 4 |"


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    flags = ["--num-epochs", "30", "--batch-size", "400", "--hidden-dims", "32", "--latent-dim", "2"]
    flags += ["--rows", "none", "mmd_1000", "--workdir", str(tmp_path / "run")]
    launch.command_line("wae_penalties", Config, "", study.body(wae_penalties.STUDY), flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert [name for row in metrics.values() for name in row if units.find(name, METRICS) is None] == []
    assert metrics["mmd_1000"]["train_code_mmd"][0] < metrics["none"]["train_code_mmd"][0]
    assert metrics["mmd_1000"]["test_sse"][0] > metrics["none"]["test_sse"][0]
    found = {path.stem for path in (tmp_path / "run" / "figures").iterdir()}
    assert found == {"samples", "reconstructions", "trade"}
