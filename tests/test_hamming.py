"""Packed bits and the index, against a sort of all distances in NumPy, where ties are plenty; and by hand."""

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.hamming import HammingIndex, cut, medians, pack


def brute(codes, queries):
    """By distance, then by index: `[Q, N]` distances, and the order."""
    distance = (queries[:, None] != codes[None]).sum(axis=2)
    return distance, np.lexsort((np.broadcast_to(np.arange(len(codes)), distance.shape), distance), axis=1)


def bits(rng, n, num_bits, kinds=None):
    """Random bits; with `kinds`, rows of which many are equal."""
    if kinds is None:
        return rng.integers(2, size=(n, num_bits))
    return rng.integers(2, size=(kinds, num_bits))[rng.integers(kinds, size=n)]


def test_a_word_is_the_sum_of_its_bits_times_powers_of_two():
    rng = np.random.default_rng(0)
    for num_bits in (1, 8, 31, 32, 33, 100):
        b = bits(rng, 5, num_bits)
        words = pack(b)
        assert words.shape == (5, -(-num_bits // 32))
        whole = [sum(int(w) << (32 * i) for i, w in enumerate(row)) for row in words]
        assert whole == [sum(int(bit) << i for i, bit in enumerate(row)) for row in b]


def test_each_bit_is_set_in_half_of_the_codes_that_it_was_cut_by():
    z = np.random.default_rng(1).normal(3.0, 2.0, (100, 7))
    np.testing.assert_array_equal(cut(z, medians(z)).sum(axis=0), np.full(7, 50))
    assert not cut(z[:1], z[0]).any()  # at the threshold


@pytest.mark.parametrize(
    ("n", "num_bits", "kinds"),
    [(1, 3, None), (64, 8, None), (65, 8, None), (700, 40, 5)],
)
def test_the_nearest_are_those_of_a_stable_sort(n, num_bits, kinds):
    compare(n, num_bits, kinds)


def test_so_they_are_where_distance_and_place_are_too_much_for_float32(monkeypatch):
    monkeypatch.setattr("aejax.hamming._EXACT", 0)
    compare(130, 20, 30)


def compare(n, num_bits, kinds):
    rng = np.random.default_rng(n)
    codes = bits(rng, n, num_bits, kinds)
    queries = np.concatenate([codes[rng.integers(n, size=1)], bits(rng, 4, num_bits)])
    distance, order = brute(codes, queries)
    index = HammingIndex(pack(codes))
    for k in sorted({1, min(n, 70), min(n, 1000)}):
        found = index.search(pack(queries), k)
        np.testing.assert_array_equal(found.indices, order[:, :k])
        np.testing.assert_array_equal(found.distances, np.take_along_axis(distance, order[:, :k], 1))


@pytest.mark.parametrize("radius", [0, 1, 3, 8, 100])
def test_a_ball_holds_all_that_are_that_near(radius, monkeypatch):
    monkeypatch.setattr("aejax.hamming._PAIRS", 16)
    rng = np.random.default_rng(2)
    codes, queries = bits(rng, 333, 8), bits(rng, 9, 8)
    distance, order = brute(codes, queries)
    found = HammingIndex(pack(codes)).within(pack(queries), radius)
    assert len(found) == 9
    for each, d, o in zip(found, distance, order, strict=True):
        wanted = o[d[o] <= radius]
        np.testing.assert_array_equal(each.indices, wanted)
        np.testing.assert_array_equal(each.distances, d[wanted])


def test_equal_codes_come_in_their_order_and_an_empty_ball_is_empty():
    index = HammingIndex(pack([[1, 1, 1]] * 3 + [[0, 0, 1]] * 200 + [[1, 1, 1]]))
    found = index.search(pack([[1, 1, 0]]), 6)
    assert found.indices.tolist() == [[0, 1, 2, 203, 3, 4]]
    assert found.distances.tolist() == [[1, 1, 1, 1, 3, 3]]
    empty = index.within(pack([[1, 1, 0]]), 0)[0]
    assert empty.indices.shape == empty.distances.shape == (0,)
    assert len(index) == 204


def test_any_number_of_queries_is_answered_as_one_at_a_time():
    rng = np.random.default_rng(3)
    codes, queries = bits(rng, 500, 16), pack(bits(rng, 300, 16))
    index = HammingIndex(pack(codes))
    whole, balls = index.search(queries, 4), index.within(queries, 3)
    for i in (0, 7, 8, 255, 256, 299):
        one = index.search(queries[i : i + 1], 4)
        np.testing.assert_array_equal(one.indices[0], whole.indices[i])
        np.testing.assert_array_equal(index.within(queries[i : i + 1], 3)[0].indices, balls[i].indices)


def test_what_cannot_be_is_refused():
    codes = pack(np.eye(4, dtype=int))
    index = HammingIndex(codes)
    for call, match in (
        (lambda: index.search(codes, 5), "k is 5; the index has 4 codes"),
        (lambda: index.search(codes, 0), "k=0"),
        (lambda: index.search(np.zeros((1, 2), np.uint32), 1), "Queries have 2 words; the codes have 1"),
        (lambda: index.search(codes.astype(int), 1), "Queries have dtype int64; words of uint32 .*pack"),
        (lambda: index.within(codes, -1), "radius is -1"),
        (lambda: index.within(codes, 0.5), "radius is 0.5"),
        (lambda: HammingIndex(np.zeros((0, 1), np.uint32)), r"Codes have shape \(0, 1\)"),
        (lambda: pack([[0, 2]]), "integers 0 and 1: `cut`"),
        (lambda: pack([[0.0, 1.0]]), "dtype float64"),
        (lambda: pack([1, 0]), r"shape \(2,\)"),
        (lambda: cut([[1.0, 2.0]], [0.0]), r"2 numbers .* shape \(1,\)"),
        (lambda: medians([[np.nan]]), "all finite"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_the_order_of_bits_in_memory_does_not_matter():
    z = np.random.default_rng(9).normal(size=(10, 40))
    np.testing.assert_array_equal(pack(cut(np.asfortranarray(z), medians(z))), pack(cut(z, medians(z))))


@pytest.mark.parametrize("thresholds", [[np.nan, 0.0], ["a", "b"]])
def test_thresholds_are_finite_numbers(thresholds):
    with pytest.raises(InputError, match="numbers that are all finite"):
        cut([[1.0, 2.0]], thresholds)
