"""Precision against an enumeration of all orders of ties, and against counting one by one."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy import sparse

from aejax.checks import InputError
from aejax.evaluation.retrieval import balls, by_bits, by_cosine, first_k


def enumerated(scores, relevant, k):
    """The mean precision over all orders of the items that are sorted by score."""
    orders = [order for order in permutations(range(len(scores))) if list(scores[list(order)]) == sorted(scores)[::-1]]
    return float(sum(Fraction(int(relevant[list(order[:k])].sum()), k) for order in orders) / len(orders))


def test_ties_are_worth_their_mean_over_all_orders():
    rng = np.random.default_rng(0)
    scores = rng.integers(3, size=(12, 6)).astype(np.float64)
    scores[0] = 1.0  # all tied: what chance is
    relevant = rng.random((12, 6)) < 0.4
    for k in range(1, 7):
        wanted = [enumerated(*row, k) for row in zip(scores, relevant, strict=True)]
        np.testing.assert_allclose(first_k(scores, relevant, k), wanted, rtol=1e-12)


def made(rng, num_bits=5, queries=300, items=40):
    """Bits of queries and items, and labels of both."""
    return (
        rng.random((queries, num_bits)) < 0.5, rng.random((items, num_bits)) < 0.5,
        rng.integers(3, size=queries), rng.integers(3, size=items),
    )  # fmt: skip


def test_the_first_by_bits_are_those_of_least_hamming_distance():
    queries, items, asked, known = made(np.random.default_rng(1))
    distance = (queries[:, None] != items[None]).sum(axis=2)
    for k in (1, 10, 40):
        wanted = first_k(-distance, asked[:, None] == known[None], k).mean()
        assert by_bits(queries, items, asked, known, k=k) == pytest.approx(wanted, rel=1e-12)
    order = np.random.default_rng(2).permutation(40)  # of the items says nothing
    assert by_bits(queries, items[order], asked, known[order], k=7) == pytest.approx(
        by_bits(queries, items, asked, known, k=7), rel=1e-12
    )


def test_balls_are_counted_one_by_one():
    queries, items, asked, known = made(np.random.default_rng(3), items=6)
    found = balls(queries, items, asked, known)
    assert len(found) == 6
    for radius, ball in enumerate(found):
        precision, recall, empty = [], [], []
        for query, label in zip(queries, asked, strict=True):
            inside = (items != query).sum(axis=1) <= radius
            hits = (inside & (known == label)).sum()
            precision.append(hits / inside.sum() if inside.any() else 0.0)
            recall.append(hits / (known == label).sum() if (known == label).any() else 0.0)
            empty.append(not inside.any())
        np.testing.assert_allclose(ball, [np.mean(precision), np.mean(recall), np.mean(empty)], rtol=1e-12)
    assert 0 < found[0].empty < 1
    assert found[-1].empty == 0


def test_cosines_are_those_of_scikit_learn_dense_or_sparse():
    from sklearn.metrics.pairwise import cosine_similarity

    rng = np.random.default_rng(4)
    x, db = rng.poisson(0.5, (30, 8)).astype(np.float32), rng.poisson(0.5, (25, 8)).astype(np.float32)
    x[0] = 0
    asked, known = rng.integers(3, size=30), rng.integers(3, size=25)
    near = np.round(cosine_similarity(x.astype(float), db.astype(float)), 12)
    wanted = first_k(near, asked[:, None] == known[None], 25)  # all of them: whatever rounding does to ties
    assert by_cosine(x, db, asked, known, k=25) == pytest.approx(wanted.mean(), rel=1e-12)
    x, db = rng.random((30, 8)), rng.random((25, 8))  # without ties
    wanted = first_k(cosine_similarity(x, db), asked[:, None] == known[None], 5).mean()
    assert by_cosine(x, db, asked, known, k=5) == pytest.approx(wanted, rel=1e-12)
    assert by_cosine(sparse.csr_matrix(x), sparse.csr_matrix(db), asked, known, k=5) == pytest.approx(wanted, rel=1e-12)


def test_what_cannot_be_is_refused():
    bits, y = np.zeros((3, 2), bool), np.zeros(3, int)
    for call, match in (
        (lambda: by_bits(bits.astype(int), bits, y, y), "dtype int64; bool is wanted"),
        (lambda: by_bits(bits, bits[:, :1], y, y), r"Queries \(3, 2\) and database \(3, 1\)"),
        (lambda: by_bits(bits, bits, y, y), "k is 100; there are 3 items"),
        (lambda: by_bits(bits, bits, y[:2], y, k=1), r"Labels have shape \(2,\) for 3 items"),
        (lambda: balls(bits[:0], bits, y[:0], y), "at least one of each"),
        (lambda: by_cosine([[np.nan, 1.0]], [[1.0, 1.0]], [0], [0], k=1), "NaN"),
        (lambda: first_k(np.zeros((1, 2)), np.zeros((1, 3)), 1), r"\(1, 2\) and \(1, 3\)"),
        (lambda: first_k(np.zeros((1, 2)), np.zeros((1, 2)), 0), "k=0"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_cosines_that_rounding_alone_tells_apart_are_ties():
    items = np.array([[1.0, 1, 1], [0.1, 0.1, 0.1], [0.3, 0.3, 0.3]])
    assert by_cosine([[1.0, 1, 1]], items, [1], [1, 0, 0], k=1) == pytest.approx(1 / 3)
