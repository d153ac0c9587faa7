"""The score experiment against a single Gaussian, where everything is known in closed form."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from small_run import contents

from aejax.methods.ae import AE
from aejax.methods.mdae import linear_dae
from aejax.priors import GaussianMixture
from aejax.runner import launch
from experiments.studies import score

COV = ((1.0, 0.4), (0.4, 0.6))
GAUSSIAN = GaussianMixture((1.0,), ((0.5, -1.0),), (COV,))
LINEAR = AE.dense(2, 2, hidden_dims=(), likelihood="gaussian")


def _with_exact_moments(rng, n=1000):
    """Rows whose mean and covariance are those of the Gaussian, not nearly but exactly."""
    x = rng.normal(size=(n, 2))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T
    return x @ np.linalg.cholesky(np.array(COV)).T + [0.5, -1.0]


def test_the_best_linear_denoiser_is_the_score_with_noise():
    params = linear_dae(_with_exact_moments(np.random.default_rng(0)), "gaussian", 0.5)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=(50, 2)))
        found = score.field(params, x, 0.5, model=LINEAR)
        expected = -np.linalg.solve(np.array(COV) + 0.25 * np.eye(2), (np.asarray(x) - [0.5, -1.0]).T).T
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        np.testing.assert_allclose(score.score(x, prior=score.smoothed(GAUSSIAN, 0.5)), expected, rtol=1e-10)


@pytest.mark.slow
def test_noise_on_the_draws_of_a_mixture_smooths_its_density():
    """Each density is a convolution: by Gauss-Hermite quadrature over the noise, with scipy's normal densities."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    chances = np.outer(weights, weights).ravel() / weights.sum() ** 2
    density = lambda x: sum(
        w * multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(score.MIXTURE.weights, score.MIXTURE.means, score.MIXTURE.covariances, strict=True)
    )
    for point in ([0.0, 0.0], [-1.0, 0.7], [2.0, -1.5]):
        expected = chances @ density(np.array(point) - 0.3 * grid)
        found = score.smoothed(score.MIXTURE, 0.3).log_prob(jnp.array(point))
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


def test_errors_of_a_round_gaussian_by_hand():
    # The score is -x and with noise -x / (1 + sigma^2): off by sigma^2 / (1 + sigma^2), here a fifth. A field of zero
    # is off by all of the true score and by 0.8 of it from the one with noise.
    prior = GaussianMixture((1.0,), ((0.0, 0.0),), (((1.0, 0.0), (0.0, 1.0)),))
    eye = {"dense_0": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    found = score.errors(
        {"encoder": eye, "decoder": eye}, prior.sample(jax.random.key(0), 100), 0.5, model=LINEAR, prior=prior
    )
    assert found == pytest.approx({"score_error": 1.0, "smoothing_error": 0.2, "fit_error": 0.8}, rel=1e-5)


FLAGS = (
    "--levels", "0.8", "0.3", "--hidden-dim", "16", "--num-examples", "20000", "--num-epochs", "3",
    "--batch-size", "100", "--num-seeds", "1",
)  # fmt: skip


def call(*flags):
    launch.command_line("score", score.Config, "", score.body, [*FLAGS, *flags])


@pytest.mark.slow
def test_less_noise_is_closer_to_the_score(tmp_path, capsys):
    call("--workdir", "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (loud,), (quiet,) = summary["metrics"]["score_error"]
    (bound,), _ = summary["metrics"]["smoothing_error"]
    assert quiet < 0.7 * loud
    assert loud == pytest.approx(bound, abs=0.05)  # there the noise is all that matters
    assert "| 0.3 |" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"errors.png", "fields.png"}
    before = contents(tmp_path)
    call("--workdir", "run")  # finished: only the report
    assert contents(tmp_path) == before


def test_data_and_initialisation_have_keys_of_their_own():
    """`sweep` splits the key of each seed in three."""
    keys = [*score.data_keys(7), *jax.random.split(jax.random.key(7), 3)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds of at least 1"),
        (["--levels", "0.5", "0"], "level 0.0 is 0.0"),
        (["--batch-size", "30000"], "30000"),
        (["--devices", "2"], "one device"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        call(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not contents(tmp_path)
