"""The study of random codes: each score against a case whose value is known, its rows, its table, and a whole run."""

import dataclasses
import json
from itertools import product

import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm

from aejax import evaluation, nets, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.runner import launch, study
from experiments.studies import generate


def test_the_frechet_distance_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)), 1 + rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert generate.frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert generate.frechet(a, a) == pytest.approx(0, abs=1e-8)
    assert generate.frechet(a, a + np.array([3, 0, 4, 0])) == pytest.approx(25, rel=1e-8)
    assert generate.frechet(a[:, :1], 2 * a[:, :1]) == pytest.approx(
        a[:, 0].var(ddof=1) + a[:, 0].mean() ** 2, rel=1e-6
    )


def test_draws_have_the_moments_asked_for():
    covariance = np.array([[2.0, 0.9], [0.9, 1.0]])
    z = generate.drawn(np.array([3.0, -1.0]), covariance, 40_000, 0)
    np.testing.assert_allclose(z.mean(axis=0), [3, -1], atol=0.05)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=0.05)
    assert generate.drawn(np.zeros(2), np.zeros((2, 2)), 3, 0).tolist() == [[0, 0]] * 3


def blobs(count=150, seed=0):
    """Three kinds of image of 30 pixels, far from each other."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = 0.1 * rng.random((count, 30)) + 0.8 * (np.arange(30) // 10 == y[:, None])
    return Batch(x.astype(np.float32), y.astype(np.int32))


DATA = Dataset("blobs", blobs(), None, blobs(60, 1), (5, 6, 1))


def test_scores_of_cases_that_are_known():
    own, test = generate.judge(DATA), DATA.test.x
    real = generate.scores(own, test[None])
    assert (real["digits"], real["kinds"]) == (1, pytest.approx(3))
    nearest = min(np.linalg.norm(test[0] - x) for x in DATA.train.x)
    assert generate.scores(own, test[None, :1].repeat(2, axis=1))["nearest"] == pytest.approx(nearest, rel=1e-4)
    assert generate.scores(own, DATA.train.x[None])["frechet"] == pytest.approx(0, abs=1e-5)
    assert generate.scores(own, DATA.train.x[None])["nearest"] == pytest.approx(0, abs=1e-3)
    one = generate.scores(own, test[DATA.test.y == 1][None])  # a kind alone
    assert (one["digits"], one["kinds"]) == (1, 1)
    assert one["frechet"] > 10 * real["frechet"]
    noise = generate.scores(own, np.random.default_rng(0).random((2, 60, 30), np.float32))
    assert (noise["digits"], noise["kinds"]) == (0, 0)
    assert noise["nearest"] > 3 * real["nearest"]


def test_the_classifier_is_not_sure_far_away_nor_between():
    own, x = generate.judge(DATA), DATA.test.x
    assert (generate.sure(own, x) == DATA.test.y).all()
    assert set(generate.sure(own, (x[0:1] + x[1:2]) / 2)) == {-1}
    assert set(generate.sure(own, np.ones((1, 30), np.float32))) == {-1}


def test_the_pairs_are_of_two_of_the_labels():
    y = np.arange(40) % 5
    found = generate.pairs(y, (1, 3, 4), 0)
    assert found.shape == (generate._PAIRS, 2)
    assert {tuple(pair) for pair in y[found]} == {pair for pair in product((1, 3, 4), repeat=2) if pair[0] != pair[1]}


def test_codes_are_drawn_from_the_unit_normal_and_from_the_moments_of_codes():
    """Of a VAE those of its draws: q(z|x) = N(5, 1/4) whatever x. Of an AE those of its codes: x itself."""
    x = np.random.default_rng(0).normal(2, 3, (5000, 1)).astype(np.float32)
    model, plain = VAE.dense(1, 1, hidden_dims=()), AE.dense(1, 1, hidden_dims=())
    kernel = {"kernel": np.zeros((1, 2), np.float32), "bias": np.array([5, np.log(0.25)], np.float32)}
    cases = {model: kernel, plain: {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)}}
    for (own, encoder), moments in zip(cases.items(), [(5, 0.5), (2, 3)], strict=True):
        params = nets.init_params(own, jax.random.key(0), x[:1]) | {"encoder": {"dense_0": encoder}}
        found = generate.codes(own, params, x, 20_000, 3)
        assert (found["prior"].mean(), found["prior"].std()) == pytest.approx((0, 1), abs=0.05)
        assert (found["fitted"].mean(), found["fitted"].std()) == pytest.approx(moments, rel=0.05)


def test_rows_differ_in_what_they_are_named_for():
    runs = generate.runs(dataclasses.replace(generate.Config(), num_seeds=2, seed=3, latent_dim=6, lr=0.02))
    assert list(runs) == [f"{name}-{seed}" for seed in (3, 4) for name in generate.TITLES]
    rows = {name.partition("-")[0]: row for name, (_, row) in runs.items()}
    assert {name: row.latent_dim for name, row in rows.items()} == {"ae": 6, "free": 6, "vae": 6, "plane": 2}
    assert {name: rows[name].hparams.beta for name in ("free", "vae", "plane")} == {"free": 0, "vae": 1, "plane": 1}
    assert {(row.hparams.lr, row.schedule, row.validation) for row in rows.values()} == {(0.02, "cosine", 0.0)}


@pytest.mark.parametrize("labels", [(2, 11), (2,), (2, 2)])
def test_labels_that_are_not_there_are_refused(labels):
    with pytest.raises(InputError, match=r"--walk-between .* which have \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\]"):
        generate.runs(dataclasses.replace(generate.Config(), walk_between=labels))


def test_the_table_has_a_row_for_each_kind_of_draws():
    scores = {"digits": [0.5], "kinds": [7.0], "nearest": [1.25], "frechet": [0.125]}
    model = {f"{source}_{name}": v for source in generate.SOURCES for name, v in scores.items()}
    model |= {"between_digits": [0.25], "test_sse": [2.0], "seconds": [9.0]}
    metrics = {"test": scores | {"between_digits": [0.75]}, "pixels": scores} | dict.fromkeys(generate.TITLES, model)
    lines = generate.table({"metrics": metrics}).splitlines()
    assert lines[2] == "| test images | 50 | 7 | 1.25 | 0.125 | 75 | | |"
    assert lines[4] == "| AE, N(0, I) | 50 | 7 | 1.25 | 0.125 | 25 | 2 | 1, 9 |"
    assert lines[5] == "| AE, a Gaussian fitted to its codes | 50 | 7 | 1.25 | 0.125 | | | |"
    assert len(lines) == 4 + 8


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_SETS", 2)
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--latent-dim", "3", "--num-seeds", "1"]
    launch.command_line("generate", generate.Config, "", study.body(generate.STUDY), [*flags, "--workdir", "run"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["test", "pixels", *generate.TITLES]
    figures = {path.stem for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"draws", "plane", "walks_ae", "walks_free", "walks_vae"}
    _, model, state = runner.load(tmp_path / "run" / "plane-0")
    assert evaluation.embed(model, state.params, np.zeros((1, 64), np.float32)).shape == (1, 2)
    assert summary["metrics"]["test"]["digits"][0] > 0.7
