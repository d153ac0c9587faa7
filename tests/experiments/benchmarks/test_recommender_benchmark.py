"""The benchmark of recommenders: that a pass is a pass, and what it says where RecBole is not installed."""

import json

import numpy as np

from aejax import training
from experiments.benchmarks import recommender

SMALL = recommender.Config(num_users=40, num_items=30, each=5, batch_size=10)


def test_users_have_as_many_items_as_was_asked_for_and_none_twice():
    items = recommender.liked(SMALL)
    assert items.shape == (40, 5)
    assert items.min() >= 0
    assert items.max() < 30
    assert all(len(np.unique(row)) == 5 for row in items)


def test_a_pass_is_of_all_users(monkeypatch):
    """Seven steps in 1.4 seconds are 0.8 seconds for the four steps of a pass."""
    chunk = training.Chunk(None, 7, {"elbo/loss": np.zeros(7)}, 1.4)
    monkeypatch.setattr(training, "train", lambda *args, **sizes: iter([chunk]))
    np.testing.assert_allclose(next(recommender.ours(SMALL)), 0.8, rtol=1e-12)


def test_without_recbole_its_row_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recommender, "installed", lambda package: False)
    monkeypatch.setattr(recommender, "race", lambda starts, rounds: {name: [2000.0, 1000.0, 4000.0] for name in starts})
    monkeypatch.setattr("sys.argv", ["recommender", "--num-users", "100", "--out", str(tmp_path / "found.json")])
    recommender.main()
    assert "recbole is not installed" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())["passes"]
    assert found == {"aejax": {"seconds": [2.0, 1.0, 4.0], "times_ours": 1.0, "users_per_second": 50.0}}
