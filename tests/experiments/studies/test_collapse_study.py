"""The study of collapse: its rows, what it reads in reports, the KL of each dimension, the table, and a whole run."""

import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from aejax import evaluation, nets, runner
from aejax.checks import InputError
from aejax.methods.vae import VAE, HParams
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from aejax.schedules import Cycle, Ramp
from experiments.studies import collapse

CONFIG = dataclasses.replace(collapse.Config(), num_epochs=40, num_seeds=2, seed=5)


def test_every_row_is_what_its_title_says():
    runs = collapse.runs(CONFIG)
    assert list(runs) == [f"{name}-{seed}" for seed in (5, 6) for name in collapse.settings(CONFIG)]
    rows = {name.rpartition("-")[0]: row for name, (_, row) in runs.items()}
    assert {name: row.hparams.beta for name, row in rows.items() if row.hparams.beta != 1} == {
        "beta_0.1": 0.1, "beta_10": 10, "beta_10_ramp": 10, "beta_10_cycle": 10, "wide_beta": 0.05,
    }  # fmt: skip
    assert {name for name, row in rows.items() if row.warmup_epochs} == {n for n in rows if n.endswith("_ramp")}
    assert {name for name, row in rows.items() if row.cycle_epochs} == {n for n in rows if n.endswith("_cycle")}
    assert {row.warmup_epochs for row in rows.values()} == {0, 20}
    assert {row.cycle_epochs for row in rows.values()} == {0, 10}
    assert {name for name, row in rows.items() if row.latent_dim == 50} == {"large", "large_ramp", "large_cycle"}
    assert {n: row.likelihood for n, row in rows.items() if row.likelihood != "bernoulli"} == {
        "wide": "gaussian", "wide_ramp": "gaussian", "wide_cycle": "gaussian", "wide_beta": "gaussian",
        "learned": "gaussian_learned", "fast": "gaussian_learned", "fast_ramp": "gaussian_learned",
    }  # fmt: skip
    assert {name for name, row in rows.items() if row.hparams.lr != 1e-3} == {"fast", "fast_ramp"}
    assert rows["fast"].hparams.lr == pytest.approx(1e-2)
    build = lambda name: collapse.build_model(rows[name], Spec((64,), None))
    assert build("deep_cycle").decoder.features == (512,) * 6 + (64,)
    assert build("deep").encoder == build("beta_1").encoder
    assert build("beta_1").decoder.features == (64, 128, 64)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("deep_ramp", Ramp(0.0, 1.0, 60)), ("beta_10_cycle", Cycle(0.0, 10.0, 30)), ("wide_beta", 0.05)],
)
def test_the_weight_rises_as_its_row_says(name, schedule, monkeypatch):
    """At three steps an epoch."""
    _, row = collapse.runs(CONFIG)[f"{name}-5"]
    model, built = collapse.build_model(row, Spec((6,), None)), []
    build = lambda model, hparams, tx, **options: built.append(hparams)
    monkeypatch.setattr(collapse.vae, "build_algorithm", partial(collapse.vae.build_algorithm, build=build))
    collapse.build_algorithm(row, model, SimpleNamespace(steps_per_epoch=3), None)
    assert built == [HParams(1e-3, schedule)]


def dead_model(x, likelihood="bernoulli"):
    model = VAE.dense(x.shape[1], 4, hidden_dims=(), likelihood=likelihood)
    return model, jax.tree.map(np.zeros_like, nets.init_params(model, jax.random.key(0), x[:1]))


def test_the_sentences_of_a_real_report_are_known():
    """Parameters of zeros: nothing depends on anything."""
    x = np.random.default_rng(0).random((50, 6), np.float32)
    model, params = dead_model(x)
    report = evaluation.collapse(model, params, x, jax.random.key(1), untrained=params)
    found = collapse.finds(report.findings)
    assert found == dict.fromkeys(collapse.FINDINGS, 1.0)
    assert len(report.findings) == len(collapse.FINDINGS)
    for sentence in report.findings:  # each is one kind
        assert sum(collapse.finds((sentence,)).values()) == 1
    assert collapse.finds(()) == dict.fromkeys(collapse.FINDINGS, 0.0)


def test_the_kl_of_each_dimension_is_the_closed_form_largest_first():
    model = VAE.dense(2, 3, hidden_dims=())
    mean, logvar = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, np.log(4.0)])
    x = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)
    kernel = np.zeros((2, 6), np.float32)
    kernel[0, 1] = 2  # the second mean is 1 and 3
    params = nets.init_params(model, jax.random.key(0), x) | {
        "encoder": {"dense_0": {"kernel": kernel, "bias": np.concatenate([mean, logvar]).astype(np.float32)}}
    }
    found = collapse.kl_by_dimension(model, params, x)
    np.testing.assert_allclose(found, [(1 + 9) / 4, 0.5 * (4 - 1 - np.log(4)), 0], atol=1e-6)


def test_what_cannot_be_run_is_refused():
    for fields in ({"large_dim": 0}, {"decoder_dims": ()}, {"decoder_dims": (4, 0)}):
        with pytest.raises(InputError, match="--decoder-dims"):
            collapse.runs(dataclasses.replace(CONFIG, **fields))
    with pytest.raises(InputError, match="--num-epochs is 3; the 4 cycles"):
        collapse.runs(dataclasses.replace(CONFIG, num_epochs=3))


def test_the_table_says_what_the_reports_found_and_of_how_many_seeds():
    row = {name: [0.0, 0.0] for name in collapse.FINDINGS} | {"active_units": [3, 3], "seconds": [1.0, 3.0]}
    row |= {name: [2.0, 4.0] for name in ("train_kl_nats", "mutual_info_nats", "marginal_kl_nats", "train_bound_nats",
                                          "test_sse")}  # fmt: skip
    bad = row | {"finds_posterior": [1.0, 1.0], "finds_mean": [0.0, 1.0]}
    names = list(collapse.settings(CONFIG))
    summary = {**dataclasses.asdict(CONFIG), "metrics": dict.fromkeys(names, row) | {names[-1]: bad}}
    lines = collapse.table(summary).splitlines()
    assert lines[2] == "| beta 0.1 | nothing | 3 ± 0 of 8 |" + " 3.0 ± 1.4 |" * 5 + " 2, 2 |"
    assert lines[-1].startswith("| deep decoder, cyclic | collapsed posterior (2), no better than the mean (1) | 3 ± 0")
    assert "| 50 numbers | nothing | 3 ± 0 of 50 |" in "\n".join(lines)


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again(tmp_path):
    flags = ["--num-epochs", "4", "--batch-size", "400", "--hidden-dims", "8", "--latent-dim", "3", "--num-seeds", "1"]
    flags += ["--decoder-dims", "8", "8", "--large-dim", "6", "--workdir", "run"]
    launch.command_line("collapse", collapse.Config, "", study.body(collapse.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["metrics"]) == set(collapse.settings(collapse.Config()))
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"kl", "reconstructions"}
    assert {*collapse.FINDINGS, "mutual_info_nats"} <= summary["metrics"]["wide"].keys()
    _, model, _ = runner.load(tmp_path / "run" / "deep_ramp-0")
    assert model.decoder.features == (8, 8, 64)
