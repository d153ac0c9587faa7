"""The study of flows: its rows, its table, and a whole run."""

import dataclasses
import json

import pytest

from aejax import nets, runner
from aejax.checks import InputError
from aejax.methods.iaf_vae import IAFVAE
from aejax.methods.vae import VAE
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments.studies import flows


def test_every_depth_is_a_row_beside_the_gaussian_and_all_else_is_alike():
    runs = flows.runs(
        dataclasses.replace(flows.Config(), depths=(2, 5), flow_dims=(9, 8), lr=0.02, num_seeds=1, seed=1)
    )
    assert list(runs) == ["gaussian-1", "iaf2-1", "iaf5-1"]
    gaussian, *others = (experiment.build_model(row, Spec((64,), 10)) for experiment, row in runs.values())
    assert type(gaussian) is VAE
    assert [(type(model), model.flow) for model in others] == [
        (IAFVAE, nets.Autoregressive(depth, (9, 8))) for depth in (2, 5)
    ]
    assert {model.decoder for model in others} == {gaussian.decoder}
    assert {(row.hparams.lr, row.binarize, row.nll_samples, row.seed) for _, row in runs.values()} == {
        (0.02, "stochastic", 500, 1)
    }


def test_what_cannot_be_run_is_refused():
    for fields in ({"nll_samples": 0}, {"depths": (2, 2)}):
        with pytest.raises(InputError, match="each of --depths another"):
            flows.runs(dataclasses.replace(flows.Config(), **fields))
    (experiment, row) = flows.runs(dataclasses.replace(flows.Config(), depths=(0,)))["iaf0-0"]
    with pytest.raises(InputError, match="--num-steps 0"):
        experiment.build_model(row, Spec((64,), 10))


def test_the_table_has_the_difference_of_bound_and_likelihood_of_each_seed():
    row = {"test_bound_nats": [20.0, 21.0], "test_nll_nats": [18.0, 19.0]}
    row |= {"num_params": [1234.0] * 2, "nll_ess": [50.0] * 2, "active_units": [7.0] * 2, "seconds": [3.0, 5.0]}
    lines = flows.table({"metrics": {"gaussian": row, "iaf4": row}, "nll_samples": 70}).splitlines()
    assert lines[2] == "| Gaussian | 1,234 | 20.50 ± 0.71 | 18.50 ± 0.71 | 2 ± 0 | 50 ± 0 | 7 ± 0 | 2, 4 |"
    assert lines[3].startswith("| flow of 4 |")
    assert lines[0].count("|") == lines[2].count("|")


@pytest.mark.slow
def test_a_study_ends_with_rows_that_open_again(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--nll-samples", "5", "--depths", "1"]
    flags += ["--latent-dim", "3", "--num-seeds", "1", "--workdir", str(tmp_path / "run")]
    launch.command_line("flows", flows.Config, "", study.body(flows.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["gaussian", "iaf1"]
    _, model, state = runner.load(tmp_path / "run" / "iaf1-0")
    assert model.flow == nets.Autoregressive(1)
    assert set(state.params["flow"]) == {"steps_0"}
