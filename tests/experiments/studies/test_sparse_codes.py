"""The study of sparse codes: what each row trains, a classifier with a known answer, the table, a whole run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_run import contents

from aejax import runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.runner import launch, study
from experiments.studies import sparse_codes

SMALL = [
    "--latent-dim",
    "16",
    "--sigmoid-dim",
    "16",
    "--ks",
    "4",
    "--num-epochs",
    "2",
    "--batch-size",
    "400",
    "--probe.num-epochs",
    "2",
]


def test_every_row_gets_its_own_penalty_and_knobs():
    config = dataclasses.replace(sparse_codes.Config(), num_seeds=2, seed=3)
    runs = sparse_codes.runs(config)
    assert [name for name in runs if name.endswith("-3")] == ["ae-3", "kl-3", "l1-3", "k10-3", "k25-3", "k40-3"]
    own = {name: row for name, (_, row) in runs.items()}
    assert (own["ae-3"].hparams.sparsity, own["kl-3"].hparams.sparsity) == (0.0, config.hparams.sparsity)
    assert (own["l1-3"].penalty, own["l1-3"].hparams.sparsity) == ("l1", config.hparams.l1)
    assert [(own[name].k, own[name].alpha) for name in ("k10-4", "k40-4")] == [(10, 1.0), (40, 1.0)]
    assert [own[name].latent_dim for name in ("ae-3", "kl-4", "l1-3", "k10-3")] == [196, 196, 196, 1000]
    assert [own[name].hparams.weight_decay > 0 for name in ("ae-3", "kl-3", "l1-3")] == [False, True, True]
    assert {row.hparams.lr for name, row in own.items() if name[0] == "k" and name[1] != "l"} == {config.hparams.k_lr}


def test_what_cannot_be_run_is_refused():
    for field in ({"ks": ()}, {"num_seeds": 0}, {"probe": sparse_codes.Probe(num_epochs=0)}):
        with pytest.raises(InputError, match="At least one"):
            sparse_codes.runs(dataclasses.replace(sparse_codes.Config(), **field))
    with pytest.raises(InputError, match=r"probe\.lr is 0"):
        sparse_codes.runs(dataclasses.replace(sparse_codes.Config(), probe=sparse_codes.Probe(lr=0.0)))


def test_the_classifier_errs_where_the_labels_lie_and_does_not_see_the_scale():
    """Two blobs far apart, and one test label in five wrong: an error of 0.2, whatever the unit of the codes."""
    rng = np.random.default_rng(0)

    def split(size, wrong):
        y = np.arange(size) % 2
        z = rng.normal(size=(size, 3)) + np.where(y, 10.0, -10.0)[:, None]
        return Batch(z.astype(np.float32), (y ^ (np.arange(size) < wrong)).astype(np.int32))

    coded = Dataset("blobs", split(200, 0), split(50, 0), split(100, 20), None)
    probe = sparse_codes.Probe(lr=0.05, num_epochs=5, batch_size=50)
    for scale in (1.0, 1e-3):
        scaled = sparse_codes.over_splits(coded, lambda z, scale=scale: np.float32(scale) * z)
        assert sparse_codes.probe_code(scaled, jax.random.key(0), probe).test_error == pytest.approx(0.2, abs=1e-6)


def test_rates_that_cancel_in_the_mean_are_seen_unit_by_unit():
    """Rates 0.05, 0.1, 0.109, 0.111 and 0.15 of a target of 0.1: 4 % off in the mean, two of five within a tenth."""
    z = np.array([[0.0, 0.1, 0.118, 0.0, 0.3], [0.1, 0.1, 0.1, 0.222, 0.0]], np.float32)
    assert sparse_codes.rates(z, 0.1) == pytest.approx({"rate_gap": 0.04, "rates_within_tenth": 0.4}, rel=1e-4)


def test_the_table_has_the_cells_that_a_row_knows():
    row = {name: [0.25] for name in (
        "probe_error", "test_sse", "mean_rate", "lifetime_sparsity", "population_sparsity", "dead_units",
        "filter_sharpness", "seconds", "alpha",
    )}  # fmt: skip
    kl = row | {"rate_gap": [0.03], "rates_within_tenth": [0.8]}
    metrics = {"pixels": {"probe_error": [0.07]}, "k25": row, "k7": row, "ae": row, "kl": kl}
    summary = {"dataset": "mnist", "latent_dim": 1000, "metrics": metrics}
    lines = sparse_codes.table(summary).splitlines()
    assert lines[2].startswith("| pixels | 7 |")
    assert lines[3].startswith("| k-sparse, k = 25 | 25 | 0.25 | 0.25 | | 0.25, 0.25 |")
    assert lines[4].startswith("| k-sparse, k = 7 | 25 | 0.25 | 0.25 | |")
    assert lines[5].startswith("| AE, sigmoid | 25 | | 0.25 | 0.25 | 0.25, 0.25 |")
    assert "| | 0.25 | 0.25, off target by 3 %; 80 % of units within a tenth of it | 0.25, 0.25 |" in lines[6]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again_and_is_not_run_twice(tmp_path):
    def call():
        launch.command_line(
            "sparse_codes", sparse_codes.Config, "", study.body(sparse_codes.STUDY),
            [*SMALL, "--workdir", str(tmp_path / "run"), *(["--resume"] if (tmp_path / "run").exists() else [])],
        )  # fmt: skip

    call()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["pixels", "ae", "kl", "l1", "k4"]
    (gap,), (rate,) = summary["metrics"]["kl"]["rate_gap"], summary["metrics"]["kl"]["mean_rate"]
    assert gap == pytest.approx(abs(rate / 0.1 - 1))
    assert 0 <= summary["metrics"]["kl"]["rates_within_tenth"][0] <= 1
    assert "rate_gap" not in summary["metrics"]["ae"]
    config, model, state = runner.load(tmp_path / "run" / "k4-0")
    z = model.apply({"params": state.params}, runner.load_data(config).test.x, method="embed")
    assert int((np.asarray(z) != 0).sum(axis=1).max()) <= 4
    assert summary["metrics"]["k4"]["alpha"][0] in summary["alphas"]
    before = contents(tmp_path / "run")
    assert "figures/filters.png" in before
    call()
    assert contents(tmp_path / "run") == before
