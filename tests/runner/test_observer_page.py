"""The code of docs/observer.md runs, prints the losses of the rows, and stops as it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "observer.md"


@pytest.mark.parametrize("rate", [pytest.param(1e-3, marks=pytest.mark.slow), 0.3])
def test_it_stops_where_the_loss_has_not_fallen_for_two_rows(capsys, rate):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    small = f"vae.Config(hidden_dims=(8,), batch_size=485, num_epochs=500, hparams=vae.method.HParams(lr={rate}))"
    assert "vae.Config(num_epochs=300)" in code
    code = code.replace("vae.Config(num_epochs=300)", small)
    code = code.replace("vae.EXPERIMENT", "vae.EXPERIMENT._replace(measure=lambda trained: {'told': 1.0})")
    names = {}
    exec(compile(code, PAGE.name, "exec"), names)
    result = names["result"]
    losses = [row["val/elbo/loss"] for row in result.history]
    printed = [f"step {row['step']}: val/elbo/loss {row['val/elbo/loss']:.4g}" for row in result.history]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("step ")] == printed
    assert lines[-1] == f"{result.stopped} {result.history[-1]}"
    patient = [min(losses[: n - 2]) > min(losses[n - 2 : n]) for n in range(3, len(losses) + 1)]
    assert all(patient[:-1])
    assert result.stopped == (not patient[-1]) == (rate > 0.1)
    assert bool(result.metrics) != result.stopped
