"""The study of priors: each row has its own, what is measured of one that is known, the table, and a whole run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import data, nets, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.vae import vae
from aejax.priors import FlowPrior, LearnedMixture, VampPrior
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments.studies import priors


def test_every_row_has_its_own_prior_and_all_else_alike():
    config = dataclasses.replace(priors.Config(), num_components=7, num_steps=3, num_seeds=2, seed=4, lr=0.02)
    runs = priors.runs(config)
    assert list(runs) == [f"{name}-{seed}" for seed in (4, 5) for name in ("normal", "mixture", "vamp", "flow")]
    own = {name: experiment.build_model(row, Spec((64,), 10)) for name, (experiment, row) in runs.items()}
    found = [own[f"{name}-5"].prior for name in ("normal", "mixture", "vamp", "flow")]
    assert found == ["normal", LearnedMixture(7), VampPrior(7), FlowPrior(nets.Couplings(3))]
    assert len({model.clone(prior=None) for model in own.values()}) == 1
    alike = {dataclasses.replace(row, prior="normal", seed=0) for _, row in runs.values()}
    assert len(alike) == 1
    row = alike.pop()
    assert (row.binarize, row.hparams.lr, row.latent_dim, row.nll_samples) == ("stochastic", 0.02, 8, 500)


@pytest.mark.parametrize("field", ["num_components", "num_steps", "nll_samples", "num_seeds"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(InputError, match=field.replace("_", "-")):
        priors.runs(dataclasses.replace(priors.Config(), **{field: 0}))


def test_the_gaps_are_those_of_the_moments_of_codes_and_prior(monkeypatch):
    """Posteriors N((3, 0), diag(4, 1)) whatever x, against N(0, I): means 3 apart, variances 3 of 1."""
    row = priors.Row(hidden_dims=(), nll_samples=0, prior="normal")
    model = priors.build_model(row, Spec((6,), None))
    x = np.full((3000, 6), 0.5, np.float32)
    params = nets.init_params(model, jax.random.key(0), x[:1])
    encoder = {"kernel": jnp.zeros((6, 4)), "bias": jnp.array([3.0, 0.0, np.log(4.0), 0.0])}
    algo = vae(model)
    state = algo.init(params | {"encoder": {"dense_0": encoder}})
    dataset = data.Dataset("x", Batch(x), None, Batch(x), None)
    key = jax.random.key(1)
    monkeypatch.setattr(priors.measures, "against_prior", lambda trained, z, key: {"mean": float(z[:, 0].mean())})
    found = priors.measure(runner.Trained(row, model, algo, state, dataset, [], key, key, {}))
    assert found["mean"] == pytest.approx(3, abs=4 * 2 / np.sqrt(3000))
    assert found["code_mean_gap"] == pytest.approx(3, abs=0.2)
    assert found["code_var_gap"] == pytest.approx(3, abs=0.5)
    assert found["test_kl_nats"] == pytest.approx(0.5 * (9 + 4 - 1 - np.log(4)), rel=1e-4)
    assert found["test_bound_nats"] == pytest.approx(found["test_recon_nats"] + found["test_kl_nats"], rel=1e-5)


def test_the_table_has_a_row_for_each_prior():
    keys = (
        "test_nll_nats", "nll_ess", "test_bound_nats", "test_recon_nats", "test_kl_nats", "active_units", "code_mmd",
        "code_mmd_p", "code_mean_gap", "code_var_gap", "seconds",
    )  # fmt: skip
    row = {key: [float(i + 1)] for i, key in enumerate(keys)}
    summary = {"metrics": dict.fromkeys(priors.TITLES, row), "num_components": 9, "nll_samples": 70}
    lines = priors.table(summary).splitlines()
    assert lines[2] == "| N(0, I) | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9, 10 | 1, 11 |"
    assert lines[3].startswith("| mixture of 9 Gaussians |")
    assert lines[4].startswith("| VampPrior of 9 |")
    assert lines[0].count("|") == lines[5].count("|")
    assert lines[-1].startswith("70 importance samples")


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--nll-samples", "5"]
    flags += ["--num-components", "4", "--latent-dim", "3", "--num-seeds", "1", "--workdir", str(tmp_path / "run")]
    launch.command_line("priors", priors.Config, "", study.body(priors.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == list(priors.TITLES)
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples", "pseudo_inputs"}
    _, model, state = runner.load(tmp_path / "run" / "vamp-0")  # by the module that the folder names
    assert model.prior == VampPrior(4)
    assert state.params["prior"]["pseudo_inputs"].shape == (4, 64)
