import json

import numpy as np
import pytest

from aejax.runner.history import History
from aejax.training import Chunk


def chunks(values, lengths):
    """Chunks of one metric, in stretches of those lengths."""
    step = 0
    for n in lengths:
        yield Chunk(None, step + n, {"recon/loss": values[step : step + n]}, 1.0)
        step += n


def test_rows_are_means_over_whole_epochs_of_at_least_200_steps():
    history = History(num_steps=750, num_epochs=5)  # 150 steps an epoch: rows of 2 epochs, and the fifth alone
    assert history.boundary == 300
    values = np.repeat(np.float32([1.0, 2.0, 5.0]), [300, 300, 150])
    for chunk in chunks(values, [1, 299, 200, 100, 150]):
        history.add(chunk)
    assert history.rows == [
        {"step": 300, "epoch": 2, "recon/loss": 1.0},
        {"step": 600, "epoch": 4, "recon/loss": 2.0},
        {"step": 750, "epoch": 5, "recon/loss": 5.0},
    ]


def test_rows_do_not_depend_on_where_the_run_was_cut():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000).astype(np.float32)
    whole = History(num_steps=1000, num_epochs=10)
    for chunk in chunks(values, [200] * 5):
        whole.add(chunk)
    assert whole.rows[1]["recon/loss"] == pytest.approx(values[200:400].astype(np.float64).mean(), abs=1e-12)
    lengths = [1, 3, 77, 119, 150, 50, 123, 77, 200, 200]
    for cut in range(len(lengths)):
        first, second = History(1000, 10), History(1000, 10)
        parts = list(chunks(values, lengths))
        for chunk in parts[:cut]:
            first.add(chunk)
        saved = json.loads(json.dumps(first.extra()))
        for chunk in parts[cut:]:
            first.add(chunk)  # goes on, is killed, and leaves no trace
        second.restore(saved)
        for chunk in parts[cut:]:
            second.add(chunk)
        assert second.rows == whole.rows, cut


def test_speed_leaves_out_the_steps_that_compile_and_time_adds_up():
    history = History(num_steps=401, num_epochs=1)
    assert np.isnan(history.steps_per_second())
    history.add(Chunk(None, 1, {"recon/loss": np.ones(1)}, 60.0))
    history.add(Chunk(None, 401, {"recon/loss": np.ones(400)}, 2.0))
    assert history.steps_per_second() == 200
    later = History(401, 1)
    later.restore(history.extra() | {"seconds": 100.0})
    assert 100 < later.seconds() < 110
