"""The study of posteriors: evidence, entropy and gap against quadrature, a small run, and what is refused."""

import json

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from small_run import contents

from aejax.runner import launch
from experiments.studies import inference_games as study

FLAGS = ("--hidden-dims", "8", "--num-examples", "512", "--num-epochs", "1", "--num-seeds", "2", "--rows", "avb", "vae")


def call(*flags):
    launch.command_line("inference_games", study.Config, "", study.body, [*FLAGS, *flags])


def test_the_evidence_is_the_integral_over_both_codes():
    def density(x, z):
        noise = np.exp(-0.5 * (x - z * z) ** 2 / study.VARIANCE) / np.sqrt(2 * np.pi * study.VARIANCE)
        return noise * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

    points = np.array([[1.0, 4.0], [-0.3, 0.0]])
    exact = [sum(np.log(quad(lambda z, x=x: density(x, z), -8, 8, limit=500)[0]) for x in point) for point in points]
    np.testing.assert_allclose(study.log_evidence(points), exact, rtol=1e-6)


def test_draws_of_the_examples_have_the_moments_of_the_model():
    """`E z^2 = 1`, `Var z^2 = 2`, and the noise on it."""
    x = np.asarray(study.examples(jax.random.key(0), 200_000), np.float64)
    np.testing.assert_allclose(x.mean(axis=0), 1, atol=5 * np.sqrt(2.25 / len(x)))
    np.testing.assert_allclose(x.var(axis=0), 2 + study.VARIANCE, rtol=0.05)


def test_entropies_are_those_in_closed_form():
    rng = np.random.default_rng(0)
    mixing = np.array([[2.0, 0.0], [0.5, 0.1]])
    z = rng.standard_normal((4000, 2)) @ mixing.T
    assert study.entropy(z) == pytest.approx(np.log(2 * np.pi * np.e) + np.log(0.2), abs=0.06)
    assert study.entropy(rng.uniform(0, 3, (4000, 2))) == pytest.approx(np.log(9), abs=0.06)


def test_the_true_posterior_has_no_gap_and_a_gaussian_its_divergence():
    """The KL from a Gaussian to the posterior, number by number on a grid."""
    rng, x = np.random.default_rng(1), np.array([[1.0, 2.0], [0.2, 1.5]])
    truth = np.stack([study.posterior_draws(rng, point, 4000) for point in x], axis=1)
    assert study.gap(x, truth) == pytest.approx(0, abs=0.08)

    mean, deviation, divergence = np.array([[0.9, 1.3], [0.0, 1.2]]), 0.3, 0.0
    grid = np.linspace(-5, 5, 200_001)
    for point, centres in zip(x, mean, strict=True):
        for value, centre in zip(point, centres, strict=True):
            log_q = -0.5 * ((grid - centre) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
            log_p = study.log_joint(value, grid)
            log_p = log_p - np.log(np.exp(log_p).sum() * (grid[1] - grid[0]))
            divergence += (np.exp(log_q) * (log_q - log_p)).sum() * (grid[1] - grid[0]) / len(x)
    z = mean + deviation * rng.standard_normal((4000, 2, 2))
    assert study.gap(x, z) == pytest.approx(divergence, abs=0.1)
    assert divergence > 0.5


def test_only_encoders_are_trained():
    model, _, init = study.functions("vae", (8,), 10)
    params = init(jax.random.key(0))
    assert jax.tree.map(float, params["decoder"]) == {"scale": 1.0}
    slope = jax.grad(lambda p: model.apply({"params": p}, np.ones((1, 2), np.float32), method="generate").sum())
    assert float(slope(params)["decoder"]["scale"]) == 0


@pytest.mark.slow
def test_a_small_run_has_its_table_and_picture(tmp_path, capsys):
    call("--workdir", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {name: len(found["gap_nats"]) for name, found in summary["metrics"].items()} == {"avb": 2, "vae": 2}
    assert all(gap > 0 for found in summary["metrics"].values() for gap in found["gap_nats"])
    assert "| AVB, functions of noise |" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run" / "figures").iterdir()] == ["posteriors.png"]
    before = contents(tmp_path)
    call("--workdir", "run")  # finished: only the report
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds=0"),
        (["--rows", "abv"], "Did you mean 'avb'"),
        (["--rows", "avb", "avb"], "none twice"),
        (["--hidden-dims", "0"], "--hidden-dims, layer 0=0"),
        (["--lr", "0"], "--lr"),
        (["--seed", "-1"], "--seed is -1"),
        (["--num-examples", "100"], "256"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        call("--workdir", "run", *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
