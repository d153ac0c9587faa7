"""The study of rate and distortion: its exact curve against a minimiser, its data, its measure at a known optimum."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Gaussian
from aejax.methods import METHODS
from aejax.methods.vae import VAE, HParams
from aejax.runner import launch
from aejax.sweep import SweepResult
from experiments.benchmarks import timing
from experiments.studies import beta_vae

KEY = jax.random.key(0)


def test_no_method_has_the_name_of_the_study():
    assert "beta_vae" not in METHODS


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0, 40.0])
def test_the_exact_curve_is_where_a_minimiser_ends(beta):
    """One direction at a time, x ~ N(0, v), q(z|x) = N(a x, e^logvar), p(x|z) = N(w z, noise)."""
    variances, noise = (3.0, 0.7, 0.1), 0.3
    rate = distortion = 0.0
    for v in variances:

        def parts(p, v=v):
            a, logvar, w = p
            kl = 0.5 * (a**2 * v + math.exp(logvar) - 1 - logvar)
            error = v * (1 - w * a) ** 2 + w**2 * math.exp(logvar)
            return kl, 0.5 * (error / noise + math.log(2 * math.pi * noise))

        best = min(
            (minimize(lambda p: parts(p)[1] + beta * parts(p)[0], start, method="BFGS", tol=1e-10)
             for start in ([0.5, -1.0, 0.5], [1e-3, 0.0, 1e-3])), key=lambda found: found.fun)  # fmt: skip
        rate, distortion = rate + parts(best.x)[0], distortion + parts(best.x)[1]
    np.testing.assert_allclose(beta_vae.exact(variances, noise, beta), (rate, distortion), rtol=1e-5, atol=1e-6)


def test_the_exact_curve_has_the_slope_of_its_weight_and_the_likelihood_at_one():
    betas = np.array([0.3, 1.0, 2.5])
    above, below = (beta_vae.exact((2.0, 0.5, 0.01), 0.2, betas * (1 + step)) for step in (1e-6, -1e-6))
    np.testing.assert_allclose((above[1] - below[1]) / (above[0] - below[0]), -betas, rtol=1e-5)
    rate, distortion = beta_vae.exact((2.0, 0.5, 0.01), 0.2, 1.0)
    model = np.array([2.0, 0.5, 0.2])  # variances of the best model whose noise is 0.2
    assert rate + distortion == pytest.approx(0.5 * (np.log(2 * np.pi * model) + np.array([1, 1, 0.01 / 0.2])).sum())


def test_gaussian_data_have_the_covariance_asked_for():
    x = beta_vae.gaussian((3.0, 1.0, 0.2), 500, 0).astype(np.float64)
    np.testing.assert_allclose(x.T @ x / 500, np.diag([3.0, 1.0, 0.2]), atol=1e-6)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    assert abs(np.mean(x[:, 0] ** 4) / 9 - 3) < 0.7  # of a Gaussian 3


@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_what_is_measured_at_the_optimum_is_the_exact_curve(beta):
    """Probabilistic PCA of the noise beta s2, put into the parameters by hand."""
    variances, noise = np.array([2.0, 0.6]), 0.25
    level = beta * noise
    w = np.sqrt(np.maximum(variances - level, 0))
    encoder = np.concatenate([np.diag(w / np.maximum(variances, level)), np.zeros((2, 2))], axis=1)
    logvar = np.log(level / np.maximum(variances, level))
    model = VAE.dense(2, 2, hidden_dims=(), likelihood=Gaussian(noise))
    params = {
        "encoder": {"dense_0": {"kernel": encoder, "bias": np.concatenate([np.zeros(2), logvar])}},
        "decoder": {"dense_0": {"kernel": np.diag(w), "bias": np.zeros(2)}},
    }
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    own = beta_vae.functions(model, 2, 1, binarize=False)
    states = jax.tree.map(lambda leaf: leaf[None, None], own.judge.init(params))
    x = beta_vae.gaussian(tuple(variances), 4000, 1)
    result = SweepResult(states, {"elbo/loss": np.zeros((1, 1, 1, 1))}, "sequential")
    found = beta_vae.measure(own, result, x, jax.random.key(0))
    rate, distortion = beta_vae.exact(variances, noise, beta)
    assert found["test_kl_nats"] == [[pytest.approx(rate, rel=1e-4, abs=1e-5)]]
    assert found["test_recon_nats"] == [[pytest.approx(distortion, abs=0.02)]]
    assert found["test_bound_nats"][0][0] == pytest.approx(
        found["test_kl_nats"][0][0] + found["test_recon_nats"][0][0], rel=1e-5
    )
    assert found["active_units"] == [[float((variances > level).sum())]]


SMALL = beta_vae.Config(betas=(0.5, 2.0), latent_dim=2, hidden_dims=(4,), num_epochs=2, num_seeds=2, cost_epochs=1)


def test_every_beta_meets_every_seed():
    """Each with the noise of its own seed: the loss is `recon + beta kl` of its beta."""
    x = np.random.default_rng(0).random((40, 6), np.float32)
    config = dataclasses.replace(SMALL, batch_size=20)
    own = beta_vae.functions(VAE.dense(6, 2, hidden_dims=(4,)), 6, 4, binarize=True)
    result = beta_vae.train(config, own, x, 2, 1e-2)
    parts = {name: result.metrics[f"elbo/{name}"] for name in ("loss", "recon_nats", "kl_nats")}
    assert parts["loss"].shape == (2, 2, 2, 2)
    betas = np.array([0.5, 2.0])[:, None, None, None]
    np.testing.assert_allclose(parts["loss"], parts["recon_nats"] + betas * parts["kl_nats"], rtol=1e-5)
    assert len({float(v) for v in parts["recon_nats"][:, :, 0, 0].ravel()}) == 2  # the seeds differ, and only they
    assert all(leaf.shape[:2] == (2, 2) for leaf in jax.tree.leaves(result.states.params))


def test_the_cost_is_by_run_and_compiles_anew_only_where_it_says_so(monkeypatch):
    config = dataclasses.replace(SMALL, batch_size=20, cost_rounds=1)
    calls = []
    monkeypatch.setattr(beta_vae, "train", lambda config, own, x, epochs, lr: calls.append(("sweep", epochs)))
    monkeypatch.setattr(
        beta_vae.training, "train", lambda *_, **sizes: calls.append(("single", sizes["num_epochs"])) or ()
    )
    monkeypatch.setattr(jax, "clear_caches", lambda: calls.append("cleared"))

    def interleave(own, rounds, seconds):
        calls.append("compiled before")
        for call in own.values():
            call()
        return {"single": [120.0], "sweep": [60.0]}

    monkeypatch.setattr(timing, "interleave", interleave)
    own = beta_vae.functions(VAE.dense(6, 2, hidden_dims=(4,)), 6, 4, binarize=True)
    found = beta_vae.cost(config, own, np.zeros((40, 6), np.float32), lambda _: None)
    turns = ["compiled before", *[("single", 1)] * 4, ("sweep", 1)]
    assert calls == ["cleared", ("single", 1), "cleared", ("sweep", 1), *turns]
    assert (found["runs"], found["single_seconds"], found["sweep_seconds"]) == (4, 0.03, 0.015)
    assert found["ratio"] == 0.5


def test_programs_on_the_disk_are_neither_read_nor_written(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with timing.uncached():
            jax.jit(lambda x: x + 1.234)(np.ones(3)).block_until_ready()
        assert not list(tmp_path.iterdir())
        jax.jit(lambda x: x + 2.345)(np.ones(3)).block_until_ready()
        assert list(tmp_path.iterdir())
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        timing.compilation_cache.reset_cache()


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"betas": ()}, "--betas"), ({"betas": (1.0, 1.0)}, "none twice"), ({"betas": (-1.0,)}, "beta"),
     ({"latent_dim": 0}, "--latent-dim"), ({"hidden_dims": (0,)}, "--hidden-dims"), ({"seed": -1}, "--seed"),
     ({"num_seeds": 0}, "--num-seeds"), ({"cost_epochs": 0}, "--cost-epochs"), ({"cost_rounds": -1}, "--cost-rounds")],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(fields, words):
    with pytest.raises(InputError, match=words):
        beta_vae.check(dataclasses.replace(SMALL, **fields))


def test_the_table_has_both_curves_the_exact_one_in_brackets_and_the_cost():
    values = {"test_kl_nats": [[3.0, 4.0]], "test_recon_nats": [[20.0, 22.0]], "test_bound_nats": [[23.0, 26.0]],
              "active_units": [[7, 7]]}  # fmt: skip
    exactly = {"exact_rate_nats": [3.25], "exact_distortion_nats": [20.5]}
    cost = {"runs": 20.0, "single_seconds": 2.0, "sweep_seconds": 1.0, "ratio": 0.5, "cold_single_seconds": 6.0,
            "cold_sweep_seconds": 1.5, "cold_ratio": 0.25}  # fmt: skip
    summary = {"betas": [0.3], "images": values, "gaussian": values | exactly, "cost": cost, "cost_epochs": 9,
               "cost_rounds": 3}  # fmt: skip
    lines = beta_vae.table(summary).splitlines()
    assert lines[2] == "| 0.3 | 3.50 ± 0.71 | 21.0 ± 1.4 | 24.5 ± 2.1 | 7 ± 0 |"
    assert lines[6] == "| 0.3 | 3.50 ± 0.71 (3.250) | 21.0 ± 1.4 (20.500) | 24.5 ± 2.1 (23.750) | 7 ± 0 |"
    assert "9 passes: 2.00 s alone, 1.00 s in the sweep, 0.50 of it; with compilation 6.00 s alone" in lines[-1]
    del summary["cost"]
    assert beta_vae.table(summary).splitlines()[-1] == lines[6]


@pytest.mark.slow
def test_the_command_ends_with_both_curves(tmp_path, capsys):
    flags = ["--num-epochs", "3", "--hidden-dims", "8", "--latent-dim", "3", "--num-seeds", "2", "--betas", "0.5", "4"]
    flags += ["--cost-rounds", "1", "--cost-epochs", "1", "--workdir", str(tmp_path / "run")]
    launch.command_line("beta_vae", beta_vae.Config, "", beta_vae.body, flags)
    out = capsys.readouterr().out
    assert "Gaussian data (exact)" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {
        "rate_distortion", "reconstructions", "samples",
    }  # fmt: skip
    gaussian = summary["gaussian"]
    for name, term in (("rate", "kl"), ("distortion", "recon")):  # trained by the same functions, to the closed form
        found = np.mean(gaussian[f"test_{term}_nats"], axis=1)
        np.testing.assert_allclose(found, gaussian[f"exact_{name}_nats"], rtol=0.02)
    assert summary["cost"]["cold_ratio"] > 0
    assert not np.isnan(summary["images"]["test_bound_nats"]).any()


def test_batches_of_the_training_are_binarised_and_those_of_the_judge_are_not():
    """At logits of 2 a pixel of 1/2 costs softplus(2) - 1; drawn it is 0 or 1, and costs 1 more or less."""
    own = beta_vae.functions(VAE.dense(4, 2, hidden_dims=()), 4, 1, binarize=True)
    params = jax.tree.map(np.zeros_like, own.init(jax.random.key(0)))
    params["decoder"]["dense_0"]["bias"] += 2
    batch, training = Batch(np.full((3, 4), 0.5, np.float32)), own.build(HParams())
    state = training.init(params)
    costs = np.array([training.step(state, batch, key)[1]["elbo/recon_nats"] for key in jax.random.split(KEY, 4)])
    ones = (4 * math.log1p(math.exp(2)) - costs) * 3 / 2
    np.testing.assert_allclose(ones, ones.round(), atol=1e-4)
    assert len({*ones.round()}) > 1
    terms = own.judge.evaluate(own.judge.init(params), batch, jax.random.clone(KEY))
    assert float(terms["elbo/recon_nats"]) == pytest.approx(4 * (math.log1p(math.exp(2)) - 1), rel=1e-5)
    assert float(terms["elbo/kl_nats"]) == 0
