"""The benchmark of the Hamming index: all candidates find the same, and speed is of as many queries as were asked."""

import numpy as np
import pytest

from aejax.checks import InputError
from experiments.benchmarks import hamming

SMALL = hamming.Config(num_codes=500, num_queries=16, k=20)


def test_all_candidates_find_the_same_distances():
    calls, queries = hamming.candidates(SMALL)
    assert queries[hamming.OURS] == 16
    assert queries[hamming.NUMPY] == 2
    ours, numpy = (calls[name]() for name in (hamming.OURS, hamming.NUMPY))
    np.testing.assert_array_equal(numpy[0], ours.distances[:2])
    np.testing.assert_array_equal(numpy[1], ours.indices[:2])


def test_speed_is_that_of_a_query(monkeypatch):
    turns = {hamming.OURS: [16.0, 32.0, 64.0], hamming.NUMPY: [20.0, 20.0, 20.0]}  # milliseconds of 16 and of 2
    monkeypatch.setattr(hamming, "interleave", lambda calls, rounds, seconds: turns)
    monkeypatch.setattr(hamming, "installed", lambda package: False)
    found = hamming.measure(SMALL)
    assert found["queries_per_second"] == {hamming.OURS: [500, 250, 1000], hamming.NUMPY: [100, 100, 100]}
    assert found["speed"] == {hamming.OURS: 1, hamming.NUMPY: 5}


def test_what_cannot_be_is_refused():
    for fields in ({"num_bits": 65}, {"k": 501}):
        with pytest.raises(InputError, match="a multiple of 64"):
            hamming.measure(SMALL.__class__(**{"num_codes": 500, "num_queries": 16, "k": 20} | fields))
