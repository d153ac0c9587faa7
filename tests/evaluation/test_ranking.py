"""Recall and NDCG against numbers found by hand, and ties against all orders that they may have."""

from itertools import permutations

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.evaluation.ranking import ndcg, ranked, recall

NOTHING = np.zeros((1, 6), bool)


def flags(*columns, width=6):
    found = np.zeros((1, width), bool)
    found[0, list(columns)] = True
    return found


def test_numbers_by_hand():
    # Item 0 is known. The list is 3, 1, 5, 2, 4; 1, 2 and 4 are held out: hits at the places 2, 4 and 5.
    scores = np.array([[9.0, 4.0, 2.0, 5.0, 1.0, 3.0]])
    found = ranked(scores, flags(0), flags(1, 2, 4), 5)
    assert found.gain.tolist() == [[0, 1, 0, 1, 1]]
    assert recall(found, 1).tolist() == [0]
    assert recall(found, 2).tolist() == [1 / 2]  # of min(2, 3)
    assert recall(found, 4) == pytest.approx([2 / 3])
    # 1 / log2(3) + 1 / log2(5) over 1 + 1 / log2(3) + 1 / 2
    assert ndcg(found, 4) == pytest.approx([(0.63092975 + 0.43067656) / 2.13092975], rel=1e-7)
    assert ndcg(found, 5) == pytest.approx([(0.63092975 + 0.43067656 + 0.38685281) / 2.13092975], rel=1e-7)
    assert ndcg(found, 1).tolist() == [0]


def test_the_best_list_is_worth_one_and_places_beyond_the_last_item_nothing():
    scores = np.arange(6.0)[None]
    found = ranked(scores, flags(0), flags(5, 4), 20)
    assert found.gain.shape == (1, 20)
    for k in (1, 2, 5, 20):
        assert recall(found, k) == pytest.approx([1])
        assert ndcg(found, k) == pytest.approx([1])
    # the known item is not at the end of the list, but not in it
    assert ranked(scores, flags(5), flags(0), 6).gain.tolist() == [[0, 0, 0, 0, 1, 0]]


def test_equal_scores_are_worth_the_mean_over_their_orders():
    scores = np.array([2.0, 1.0, 1.0, 1.0, 0.5, 0.5])
    held_out = flags(1, 5)
    found = ranked(scores[None], NOTHING, held_out, 6)
    expected: dict = {}
    orders = [(0, *middle, *last) for middle in permutations((1, 2, 3)) for last in permutations((4, 5))]
    for order in orders:
        exact = ranked(-np.argsort(order)[None].astype(float), NOTHING, held_out, 6)
        for k in (1, 2, 3, 5):
            for name, score in (("recall", recall), ("ndcg", ndcg)):
                expected[name, k] = expected.get((name, k), 0) + score(exact, k)[0] / len(orders)
    for k in (1, 2, 3, 5):
        np.testing.assert_allclose(
            [recall(found, k)[0], ndcg(found, k)[0]], [expected["recall", k], expected["ndcg", k]]
        )


def test_users_are_scored_one_by_one():
    rng = np.random.default_rng(0)
    scores, held_out = rng.integers(0, 4, (8, 12)).astype(float), rng.random((8, 12)) < 0.3
    held_out[:, 0] = True
    known = (rng.random((8, 12)) < 0.3) & ~held_out
    together = ranked(scores, known, held_out, 7)
    for i in range(8):
        alone = ranked(scores[i : i + 1], known[i : i + 1], held_out[i : i + 1], 7)
        np.testing.assert_allclose(together.gain[i], alone.gain[0])
    # what is said of known items does not matter
    np.testing.assert_array_equal(ranked(np.where(known, 99.0, scores), known, held_out, 7).gain, together.gain)


def test_a_constant_score_is_worth_what_chance_is():
    found = ranked(np.zeros((1, 6)), flags(0), flags(2, 3), 5)
    np.testing.assert_allclose(found.gain, np.full((1, 5), 2 / 5))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="have shapes"):
        ranked(np.zeros((1, 6)), NOTHING, flags(0, width=5), 2)
    for known, held_out in ((NOTHING, NOTHING), (flags(1), flags(1))):
        with pytest.raises(InputError, match="needs an item that is held out"):
            ranked(np.zeros((1, 6)), known, held_out, 2)
    for scores, k in ((np.full((1, 6), np.nan), 2), (np.zeros((1, 6)), 0)):
        with pytest.raises(InputError, match="finite"):
            ranked(scores, NOTHING, flags(1), k)
    with pytest.raises(InputError, match="the list has 3 places"):
        recall(ranked(np.zeros((1, 6)), NOTHING, flags(1), 3), 4)
