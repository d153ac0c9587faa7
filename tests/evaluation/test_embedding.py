"""Scores of embeddings against their definitions, written out with ranks, and against examples worked by hand."""

import numpy as np
import pytest
from sklearn import manifold

from aejax.checks import InputError
from aejax.evaluation import continuity, neighborhood_hit, trustworthiness

RNG = np.random.default_rng(0)
X, Z, Y = RNG.normal(size=(60, 6)), RNG.normal(size=(60, 2)), RNG.integers(0, 3, 60)


def ranks(x):
    """`[N, N]`: the place of j among the neighbours of i, from 1; 0 for i itself. Sorts nothing."""
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    return np.array([[(row < row[j]).sum() for j in range(len(x))] for row in distances])


def missed(here, there, k):
    """The penalty of those among the k nearest `here` that are not so `there`, over the largest that is possible."""
    a, b, n = ranks(here), ranks(there), len(here)
    total = sum(b[i, j] - k for i in range(n) for j in range(n) if 1 <= a[i, j] <= k < b[i, j])
    worst = n * sum(n - 1 - place - k for place in range(k))  # the k nearest are the k farthest, of ranks N - 1, ...
    return total / worst


@pytest.mark.parametrize("k", [1, 5, 17])
def test_both_are_one_less_the_share_of_the_worst_penalty(k):
    for z in (Z, X[:, :2]):
        assert trustworthiness(X, z, k=k) == pytest.approx(1 - missed(z, X, k), abs=1e-12)
        assert continuity(X, z, k=k) == pytest.approx(1 - missed(X, z, k), abs=1e-12)
    assert trustworthiness(X, Z, k=k) == manifold.trustworthiness(X, Z, n_neighbors=k)


def test_hit_is_the_share_of_equal_labels_among_the_nearest():
    for k in (1, 4, 59):
        near = (ranks(Z) <= k) & ~np.eye(60, dtype=bool)
        shares = [(Y[row] == label).mean() for row, label in zip(near, Y, strict=True)]
        assert neighborhood_hit(Z, Y, k=k) == pytest.approx(np.mean(shares), abs=1e-12)


def test_a_fold_loses_continuity_and_a_tear_loses_trust():
    """A line laid double has strangers as neighbours; the points of a line sent to two far halves lose theirs."""
    line = np.arange(40.0)[:, None]
    folded = np.abs(line - 19.6)  # 0.8 or 0.2 apart in place of 39
    assert trustworthiness(line, folded, k=4) < 0.75
    assert continuity(line, folded, k=4) > trustworthiness(line, folded, k=4) + 0.1
    torn = np.where(line % 2 == 0, line, line + 1000)  # every other point is elsewhere
    assert continuity(line, torn, k=4) < trustworthiness(line, torn, k=4) < 1


@pytest.mark.parametrize("z", [X, 3 * X[:, ::-1] - 1, -X.astype(np.float32)], ids=["same", "moved", "mirrored"])
def test_codes_with_the_distances_of_the_data_are_perfect(z):
    assert trustworthiness(X, z, k=7) == continuity(X, z, k=7) == 1.0


def test_images_are_as_good_as_vectors():
    assert trustworthiness(X.reshape(60, 2, 3, 1), Z, k=3) == trustworthiness(X, Z, k=3)


def test_codes_of_other_examples_are_worth_a_guess():
    x, y = RNG.normal(size=(400, 5)), np.repeat([0, 1, 2, 3], 100)
    x[:, 0] += 10 * y
    order = RNG.permutation(400)
    assert neighborhood_hit(x, y, k=10) > 0.99
    # Both scores are then means over random ranks, 1/2 for few neighbours; their deviation is about 0.01.
    assert abs(trustworthiness(x, x[order], k=10) - 0.5) < 0.06
    assert abs(continuity(x, x[order], k=10) - 0.5) < 0.06
    assert abs(neighborhood_hit(x[order], y, k=10) - 0.25) < 0.06


@pytest.mark.parametrize("score", [trustworthiness, continuity])
def test_what_cannot_be_scored_is_refused(score):
    bad = X.copy()
    bad[3] = np.nan
    for x, z, k, message in (
        (X, Z, 30, r"k=30 neighbours of each of 60 examples; it has to be at least 1 and below N / 2"),
        (X, Z, 0, "k=0"),
        (X[:50], Z, 3, r"\(50, 6\) and codes of shape \(60, 2\)"),
        (X, Z[:, 0], 3, r"shape \(60,\); wanted is \[N, Z\]"),
        (bad, Z, 3, "NaN or infinity"),
        (X, bad, 3, "1 of 60 codes are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            score(x, z, k=k)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(60, 2\) and labels \(59,\)"):
        neighborhood_hit(Z, Y[1:], k=3)
    with pytest.raises(InputError, match="k=60 neighbours of each of 60 codes"):
        neighborhood_hit(Z, Y, k=60)
