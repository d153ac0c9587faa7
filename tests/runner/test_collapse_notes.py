"""What a run says of a model that has collapsed: in its report, in its summary, and nowhere else."""

from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import EXPERIMENT, read

from aejax import data, evaluation, runner
from aejax.checks import InputError
from aejax.runner import measures
from experiments import ae

WORTHLESS = ("--workdir", "run", "--num-epochs", 1, "--hparams.lr", 1e-9)


@pytest.mark.slow
def test_a_model_that_learnt_nothing_is_said_so_and_a_sound_one_has_nothing_to_say(call):
    outcome = call(*WORTHLESS)
    assert outcome.code == 0
    summary = read(Path("run/summary.json"))
    note = summary["notes"]["collapse"]
    assert f"\ncollapse: {note}\n" in outcome.out
    assert "failed" not in summary
    assert summary["metrics"].keys() == {"test_sse"}
    again = call(*WORTHLESS)
    assert "is finished already" in again.out
    assert f"\ncollapse: {note}\n" in again.out
    outcome = call("--workdir", "sound", "--hidden-dims", 64, "--hparams.lr", 0.01, "--num-epochs", 50)
    assert "collapse" not in outcome.out
    assert "notes" not in read(Path("sound/summary.json"))


@pytest.mark.first(1)
@pytest.mark.parametrize(("limit", "value"), [("_EXAMPLES", 50), ("_NUMBERS", 50 * 64 + 63)])
def test_the_report_is_that_of_the_library_against_the_parameters_of_before_the_first_step(monkeypatch, limit, value):
    monkeypatch.setattr(measures, limit, value)
    config = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=1, hparams=ae.method.HParams(lr=1e-9))
    result = runner.run(EXPERIMENT, config)
    fresh = runner.prepare(EXPERIMENT, config).state.params
    x = data.flatten(data.load("digits")).test.x[:50]
    found = evaluation.collapse(result.model, result.state.params, x, jax.random.key(0), untrained=fresh)
    assert result.trained.notes == {"collapse": " ".join(found.findings)}
    sse = {"sse": evaluation.reconstruction_sse(result.model, result.state.params, x)}
    sse["untrained_sse"] = evaluation.reconstruction_sse(result.model, fresh, x)
    assert {name: found.numbers[name] for name in sse} == pytest.approx(sse, rel=1e-5)
    assert found.findings[-1].endswith("with the untrained parameters by 1 %.")


def test_the_keys_of_measurements_are_those_of_before():
    config = ae.Config(hidden_dims=(8,), batch_size=512, num_epochs=1, seed=3)
    trained = runner.run(EXPERIMENT, config).trained
    eval_key = jax.random.split(jax.random.key(3), 3)[2]
    expected = jax.random.split(eval_key, 4)[2:]
    for key, own in zip((trained.measure_key, trained.draw_key), expected, strict=True):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(own))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("a name"), "KeyError: 'a name'"),
        (OSError("full"), "OSError: full"),
        (InputError("Of one."), "Of one."),
    ],
)
def test_whatever_goes_wrong_in_it_fails_no_run(call, monkeypatch, error, said):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(evaluation, "collapse", broken)
    outcome = call("--workdir", "run", "--num-epochs", 1)
    assert outcome.code == 0
    assert f"collapse: not looked for: {said}" in outcome.out
    assert "failed" not in read(Path("run/summary.json"))
    assert "is finished already" in call("--workdir", "run", "--num-epochs", 1).out
