"""The benchmark of likelihoods: its loops estimate what ours does, and its figures are of as many images as it says."""

import dataclasses

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.methods.linear_vae import linear_log_likelihood, ppca
from aejax.methods.vae import VAE
from experiments.benchmarks import nll


def test_all_ways_estimate_the_same_likelihood():
    """A linear model at its optimum, where every weight is the likelihood itself, so that there is no noise."""
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32) * np.array([3, 2, 1, 1, 1], np.float32)
    model = VAE.dense(5, 2, hidden_dims=(), likelihood="gaussian_learned")
    found = ppca(x, 2)
    logvar = found.pop("posterior_logvar")
    dense = found["encoder"]["dense_0"]
    kernel = np.concatenate([dense["kernel"], np.zeros((5, 2), np.float32)], axis=1)
    found["encoder"] = {"dense_0": {"kernel": kernel, "bias": np.concatenate([dense["bias"], logvar])}}
    expected = -linear_log_likelihood(model, found, x[:4]).mean()
    assert nll.jitted(found, x[:4], 100, model) == pytest.approx(expected, rel=1e-5)
    assert nll.eager(found, x[:4], 200, model) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_loops_draw_independent_samples():
    """Away from the optimum L_K falls with K, as that of `evaluation.nll` does."""
    config = nll.Config(num_images=16, num_samples=200, hidden_dims=(8,), latent_dim=3, data_dim=20)
    calls, images = nll.candidates(config)
    found = {name: call() for name, call in calls.items()}
    assert images == {nll.OURS: 16, nll.JITTED: 16, nll.EAGER: 2}
    assert found[nll.JITTED] == pytest.approx(found[nll.OURS], abs=0.15)


def test_figures_are_those_of_a_whole_test_set(monkeypatch):
    turns = {nll.OURS: [100.0, 300.0, 200.0], nll.JITTED: [400.0, 600.0, 500.0], nll.EAGER: [50.0, 75.0, 100.0]}
    monkeypatch.setattr(nll, "interleave", lambda calls, rounds, seconds: turns)
    config = nll.Config(num_images=16, num_samples=100, hidden_dims=(8,), latent_dim=3, data_dim=20, whole=160)
    found = nll.measure(config)
    assert found["seconds"] == {nll.OURS: [2, 1, 3], nll.JITTED: [5, 4, 6], nll.EAGER: [6, 4, 8]}
    assert found["speed"] == {nll.OURS: 1, nll.JITTED: 2.5, nll.EAGER: 4}
    assert found["config"]["num_samples"] == 100


def test_counts_that_do_not_divide_are_refused():
    for fields in ({"num_images": 0}, {"num_samples": 150}, {"num_samples": 0}):
        with pytest.raises(InputError, match="a multiple of 100"):
            nll.measure(dataclasses.replace(nll.Config(), **fields))
