"""Probes on sets whose answer is plain."""

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.evaluation import knn, linear_probe

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def _blobs(labels, seed):
    """Fifty points about each corner of the unit square, at a hundredth of its side."""
    rng = np.random.default_rng(seed)
    z = np.repeat(CORNERS, 50, axis=0) + 0.01 * rng.normal(size=(200, 2))
    return z, np.repeat(labels, 50)


def test_separable_corners():
    train, test = _blobs([0, 1, 2, 3], 0), _blobs([0, 1, 2, 3], 1)
    assert linear_probe(*train, *test) == 1.0
    assert knn(*train, *test) == 1.0


def test_exclusive_or_is_for_neighbours_and_not_for_lines():
    train, test = _blobs([0, 1, 1, 0], 0), _blobs([0, 1, 1, 0], 1)
    assert knn(*train, *test) == 1.0
    assert linear_probe(*train, *test) <= 0.75  # a line takes three corners at most


def test_probe_does_not_depend_on_the_scale_or_origin_of_a_unit():
    (train, y), (test, test_y) = _blobs([0, 1, 2, 2], 0), _blobs([0, 1, 2, 2], 1)
    scale, shift = np.array([1e-3, 1e4]), np.array([7.0, -3.0])
    assert linear_probe(train * scale + shift, y, test * scale + shift, test_y) == linear_probe(train, y, test, test_y)


def test_vote_of_five_by_hand():
    z = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [50.0], [51.0]])
    y = np.array([1, 1, 0, 0, 0, 1, 1])
    assert knn(z, y, [[0.0]], [0]) == 1.0  # three zeros outvote the two ones that are nearer
    assert knn(z, y, [[0.0]], [1], k=3) == 1.0  # of 1, 1, 0


def test_a_slow_fit_is_cut_short_without_a_warning():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(400, 300)) ** 3, rng.integers(0, 3, 400)  # pure noise: hundreds of iterations
    assert linear_probe(z, y, z, y) > 0.9


@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_refuses_what_cannot_be_probed(probe):
    z, y = np.zeros((6, 2)), np.array([0, 1, 0, 1, 0, 1])
    with pytest.raises(InputError, match=r"train: codes \(6, 2\) and labels \(5,\)"):
        probe(z, y[:5], z, y)
    with pytest.raises(InputError, match="3 dimensions"):
        probe(np.zeros((6, 3)), y, z, y)
    with pytest.raises(InputError, match="test: 1 of 6 codes are not finite"):
        probe(z, y, np.where(np.arange(12).reshape(6, 2) == 3, np.nan, z), y)
    with pytest.raises(InputError, match="two kinds of label"):
        probe(z, np.zeros(6), z, y)


def test_refuses_more_neighbours_than_codes():
    with pytest.raises(InputError, match="k=5 neighbours among 4"):
        knn(CORNERS, [0, 1, 0, 1], CORNERS, [0, 1, 0, 1])
