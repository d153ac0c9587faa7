"""The view of likelihoods against closed forms, and its two small tables."""

import json
import math

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

from aejax import data
from aejax.methods.ae import AE
from aejax.runner import launch
from experiments.studies import likelihood_view

LOGITS = np.linspace(-12, 12, 49).astype(np.float32)


@pytest.mark.parametrize("x", likelihood_view.TARGETS)
def test_curves_are_the_closed_forms(x):
    p, q = expit(LOGITS.astype(np.float64)), expit(-LOGITS.astype(np.float64))
    loss, slope = likelihood_view.by_logit(likelihood_view.NLLS["cross-entropy"], LOGITS, x)
    np.testing.assert_allclose(loss, -xlogy(x, p) - xlogy(1 - x, q), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, p - x, atol=1e-6)
    loss, slope = likelihood_view.by_logit(likelihood_view.NLLS["squared error"], LOGITS, x)
    np.testing.assert_allclose(loss, (p - x) ** 2 / 2 + math.log(2 * math.pi) / 2, rtol=1e-6)
    np.testing.assert_allclose(slope, (p - x) * p * q, rtol=1e-3, atol=1e-7)


def test_only_cross_entropy_pulls_at_an_output_that_is_saturated_and_wrong():
    (_, pull), (_, push) = (likelihood_view.by_logit(nll, LOGITS, 0.0) for nll in likelihood_view.NLLS.values())
    assert pull[-1] == pytest.approx(1, abs=1e-5)
    assert abs(push[-1]) < 1e-5


@pytest.mark.parametrize("sse", [0.2, 4.7, 300.0])
def test_nats_of_a_squared_error(sse):
    unit, best = likelihood_view.nats(sse, 64)
    assert unit == pytest.approx(sse / 2 + 32 * math.log(2 * math.pi), rel=1e-5)
    assert best == pytest.approx(32 * math.log(2 * math.pi * math.e * sse / 64), rel=1e-4, abs=1e-3)
    nll = lambda logvar: sse / 2 * math.exp(-logvar) + 32 * (logvar + math.log(2 * math.pi))
    found = minimize_scalar(nll, bracket=(-8, 2))
    assert found.fun == pytest.approx(best, rel=1e-4, abs=1e-3)
    assert math.exp(found.x) == pytest.approx(sse / 64, rel=1e-4)


@pytest.mark.slow
def test_a_saturated_start_is_wrong_at_every_output():
    rng = np.random.default_rng(0)
    bright = np.arange(12) % 3 == 0
    x = np.where(bright, rng.uniform(0.7, 1, (50, 12)), rng.uniform(0, 0.3, (50, 12))).astype(np.float32)
    model = AE.dense(12, 2, hidden_dims=(5,))
    params = likelihood_view.init(jax.random.key(0), model=model, x=x, bias=6.0)
    np.testing.assert_array_equal(params["decoder"]["dense_1"]["bias"], np.where(bright, -6, 6))
    x_hat = model.apply({"params": params}, x, method="reconstruct")
    assert np.abs(np.asarray(x_hat) - bright).min() > 0.5
    plain = likelihood_view.init(jax.random.key(0), model=model, x=x, bias=0.0)
    np.testing.assert_array_equal(plain["decoder"]["dense_1"]["kernel"], params["decoder"]["dense_1"]["kernel"])
    assert not plain["decoder"]["dense_1"]["bias"].any()


def test_readings_of_pca_on_data_of_known_variances():
    """Two directions of ten; the rest of the error is what was left out."""
    x = np.zeros((400, 12), np.float32)
    x[:, :11] = np.random.default_rng(0).normal(size=(400, 11)) * [5, 4, *9 * [0.1]]
    found = likelihood_view.readings(data.Dataset("x", data.Batch(x), None, data.Batch(x), None))
    variances = np.sort(np.linalg.eigvalsh(np.cov(x.T.astype(np.float64), bias=True)))
    assert list(found) == ["mean image", "PCA, 2", "PCA, 10"]
    assert found["mean image"]["test_sse"] == pytest.approx(variances.sum(), rel=1e-5)
    assert found["PCA, 2"]["test_sse"] == pytest.approx(variances[:-2].sum(), rel=1e-4)
    assert found["PCA, 2"]["deviation"] == pytest.approx((variances[:-2].sum() / 12) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("flags", [("--devices", "2"), ("--parallel", "pmap"), ("--num-seeds", "0")])
def test_refused_before_it_begins(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as end:
        launch.command_line("likelihood_view", likelihood_view.Config, "", likelihood_view.body, flags)
    assert end.value.code == 2
    assert ("one device" if flags[0] != "--num-seeds" else "--num-seeds is 0") in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_trains_both_from_the_same_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(likelihood_view, "OPTIMIZERS", {"SGD": (likelihood_view.optax.sgd, (1e-6, 0.03))})
    flags = ("--num-train", "512", "--batch-size", "32", "--num-epochs", "4", "--num-seeds", "2", "--workdir", "run")
    launch.command_line("likelihood_view", likelihood_view.Config, "", likelihood_view.body, flags)
    out = capsys.readouterr().out
    assert "| SGD, saturated start |" in out
    assert "| PCA, 10 |" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    trained = summary["trained"]["SGD"]
    last = {
        (start, name): np.mean(run["sse"], axis=0)[-1] for start, each in trained.items() for name, run in each.items()
    }
    assert np.shape(trained["saturated start"]["cross-entropy"]["sse"]) == (2, 4)
    assert {run["lr"] for each in trained.values() for run in each.values()} == {0.03}  # the other moves nothing
    assert last["saturated start", "cross-entropy"] < last["saturated start", "squared error"] / 2
    assert max(last["ordinary start", name] for name in likelihood_view.NLLS) < 10
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"likelihood_view.png"}
