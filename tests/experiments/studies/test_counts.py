"""The study of counts: its rows, its scores, its table, and a whole run."""

import dataclasses
import json

import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods.count_vae import CountVAE
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments.studies import counts


def test_the_rows_differ_in_their_likelihood_alone():
    config = dataclasses.replace(counts.Config(), lr=0.02, hidden_dims=(9,), num_seeds=1, seed=1)
    runs = counts.runs(config)
    assert list(runs) == ["poisson-1", "negative_binomial-1"]
    (experiment, poisson), (_, other) = runs.values()
    assert dataclasses.replace(poisson, likelihood="negative_binomial") == other
    assert (other.hparams.lr, other.validation, other.seed, other.dataset) == (0.02, 0.0, 1, "cells")
    model = experiment.build_model(other, Spec((200,), 5))
    assert type(model) is CountVAE
    assert model.likelihood == "negative_binomial"
    with pytest.raises(InputError, match="--nll-samples is 0"):
        counts.runs(dataclasses.replace(config, nll_samples=0))
    with pytest.raises(InputError, match="--latent-dim is 201; PCA of 1800 x 200 counts"):
        counts.runs(dataclasses.replace(config, latent_dim=201))


def test_logarithms_by_hand():
    # 1 + 10^4 * 3 / 4 and 1 + 10^4 / 4; a cell without counts has none
    found = counts.log_normalised(np.array([[3.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [[np.log(7501), np.log(2501)], [0, 0]], rtol=1e-6)


def test_the_truth_has_no_error_and_twice_of_it_log_2():
    true = np.array([0.5, 1.0, 4.0])
    exact, twice, turned = (counts.against_truth(found, true) for found in (true, 2 * true, 1 / true))
    assert exact == pytest.approx({"dispersion_error": 0.0, "dispersion_correlation": 1.0})
    assert twice == pytest.approx({"dispersion_error": np.log(2), "dispersion_correlation": 1.0})
    assert turned["dispersion_correlation"] == pytest.approx(-1)


def test_codes_that_are_the_kinds_score_1_and_noise_about_0():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 600).astype(np.int32)
    x = np.c_[np.eye(4)[y], rng.normal(size=(600, 4))].astype(np.float32)
    dataset = Dataset("x", Batch(x[:400], y[:400]), None, Batch(x[400:], y[400:]), None)
    right = counts.scores(lambda x: x[:, :4], dataset, 0)
    assert right == pytest.approx({"cluster_nmi": 1.0, "cluster_ari": 1.0, "knn5_accuracy": 1.0})
    noise = counts.scores(lambda x: x[:, 4:], dataset, 0)
    assert abs(noise["cluster_ari"]) < 0.02
    assert noise["cluster_nmi"] < 0.05
    assert 0.1 < noise["knn5_accuracy"] < 0.4
    bare = dataset._replace(train=Batch(x[:400]), test=Batch(x[400:]))
    assert counts.scores(lambda x: x, bare, 0) == {}


def test_pca_is_that_of_the_logarithms():
    x = data.load("cells").train.x[:300]
    found = counts.pca(x, 3)(x)
    off = counts.log_normalised(x).astype(np.float64)
    off -= off.mean(axis=0)
    lengths = np.linalg.svd(off, compute_uv=False)[:3]
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), lengths, rtol=0.02)


def test_the_table_leaves_out_what_was_not_measured():
    scored = {"cluster_nmi": [0.5], "active_units": [7.0], "seconds": [3.0]}
    row = scored | {"test_bound_nats": [20.0], "dispersion_error": [0.25]}
    lines = counts.table({"metrics": {"gaussian": scored, "negative_binomial": row}}).splitlines()
    assert lines[0].startswith("| | bound, nats | active units | NMI | dispersions")
    assert lines[2] == "| Gaussian VAE of logarithms | | 7 | 0.5 | | 1, 3 |"
    assert lines[3] == "| negative binomial | 20 | 7 | 0.5 | 0.25 | 1, 3 |"


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--nll-samples", "5"]
    flags += ["--latent-dim", "3", "--num-seeds", "1", "--workdir", str(tmp_path / "run")]
    launch.command_line("counts", counts.Config, "", study.body(counts.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["pca", "gaussian", "poisson", "negative_binomial"]
    assert set(counts.COLUMNS) <= set(summary["metrics"]["negative_binomial"])
    assert (tmp_path / "run" / "figures" / "codes.png").is_file()
    _, model, state = runner.load(tmp_path / "run" / "negative_binomial-0")
    assert set(state.params["decoder"]) == {"net", "log_dispersion"}
    assert model.latent_dim == 3
