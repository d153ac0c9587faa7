"""Sets of ratings: the made-up one against what it was drawn from, the others in the layout in which they are read."""

import numpy as np
import pytest
import scipy.stats

from aejax import data
from aejax.checks import InputError
from aejax.data.ratings import load_ratings, table


def test_made_up_ratings_are_draws_of_their_truth():
    found = load_ratings("ratings")
    mean, seen, noise = found.truth
    assert len(set(zip(found.user.tolist(), found.item.tolist(), strict=True))) == len(found.rating)
    off = (found.rating - mean[found.user, found.item]) / noise
    assert scipy.stats.kstest(off, "norm").pvalue > 1e-3
    times = np.zeros(found.shape)
    times[found.user, found.item] = 1
    z = (times - seen).sum() / np.sqrt((seen * (1 - seen)).sum())
    assert abs(z) < 4
    by_item = (times - seen).sum(0) / np.sqrt((seen * (1 - seen)).sum(0))
    assert abs(np.square(by_item).mean() - 1) < 0.3
    singular = np.linalg.svd(mean - mean.mean(0) - mean.mean(1, keepdims=True) + mean.mean(), compute_uv=False)
    assert singular[3] > 1 > 1e-9 > singular[4]  # four factors, beside the biases
    with pytest.raises(ValueError, match="read-only"):
        found.rating[0] = 3


def test_a_set_of_ratings_is_a_table_with_gaps_for_whoever_loads_it_in_splits():
    found = load_ratings("ratings")
    dense = table(found)
    assert np.isnan(dense).sum() == dense.size - len(found.rating)
    splits = data.load("ratings", validation=0.1)
    parts = [splits.train.x, splits.validation.x, splits.test.x]
    assert [len(part) for part in parts] == [648, 72, 80]
    rows = np.sort(np.nansum(np.concatenate(parts), axis=1))
    np.testing.assert_allclose(rows, np.sort(np.nansum(dense, axis=1)), rtol=1e-5)


def test_files_are_read_in_their_layouts(tmp_path, monkeypatch):
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    for name in ("movielens_small", "jester5k"):
        with pytest.raises(InputError, match=rf"Put {name}/ratings.npz there"):
            load_ratings(name)
        (tmp_path / name).mkdir()
    user, item, rating = np.array([0, 2, 1]), np.array([3, 0, 3]), np.array([4.5, 0.5, 3.0])
    np.savez(tmp_path / "movielens_small" / "ratings.npz", user=user, item=item, rating=rating, item_title=["a"])
    found = load_ratings("movielens_small")
    assert (found.shape, found.liked, found.truth) == ((3, 4), 4.0, None)
    assert found.rating.tolist() == [4.5, 0.5, 3.0]
    jokes = np.float32([[np.nan, -9.5, 0.0], [7.0, np.nan, np.nan]])
    np.savez(tmp_path / "jester5k" / "ratings.npz", ratings=jokes)
    found = load_ratings("jester5k")
    assert (found.user.tolist(), found.item.tolist(), found.rating.tolist()) == ([0, 0, 1], [1, 2, 0], [-9.5, 0, 7])
    np.testing.assert_array_equal(table(found), jokes)
    np.savez(tmp_path / "jester5k" / "ratings.npz", scores=jokes)
    with pytest.raises(InputError, match="cannot be read"):
        load_ratings("jester5k")
    with pytest.raises(InputError, match=r"'movielens' is no set of ratings\. Did you mean 'movielens_small'"):
        load_ratings("movielens")
