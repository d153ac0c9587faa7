"""Sparseness by hand, in closed form for known distributions, and unmoved by what it must not see."""

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.evaluation import dead_units, filter_sharpness, lifetime_sparsity, population_sparsity


def test_lifetime_sparsity_by_hand():
    # Of (4, 2, 0): mean 2, mean square 20/3, so (1 - 4 / (20/3)) / (2/3) = 0.6; the silent unit is left out.
    codes = np.array([[4.0, 0.0, 1.0], [2.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(lifetime_sparsity(codes), (0.6 + 0.0) / 2, rtol=1e-12)
    np.testing.assert_allclose(lifetime_sparsity(-7.0 * codes), 0.3, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_k_equal_units_of_many_have_the_closed_form(k):
    # E|r| = k/Z and E r^2 = k/Z: (1 - k/Z) / (1 - 1/Z), for any height and any choice of units.
    rng = np.random.default_rng(0)
    codes = np.stack([rng.permutation(np.r_[np.full(k, height), np.zeros(10 - k)]) for height in (0.1, 1.0, 30.0)])
    np.testing.assert_allclose(population_sparsity(codes), (1 - k / 10) / 0.9, atol=1e-12)


def test_exponential_responses_are_half_sparse():
    # E r = 1 and E r^2 = 2. Delta method for m^2 / s: Var r = 1, Var r^2 = 20, Cov = 4, gradient (1, -1/4), hence
    # variance (1 + 20/16 - 2) / N; 4.9 deviations, one false alarm in a million.
    num = 200_000
    codes = np.random.default_rng(1).exponential(size=(num, 1))
    assert abs(lifetime_sparsity(codes) - 0.5) < 4.9 * np.sqrt(0.25 / num)


def test_dead_units_by_hand():
    codes = np.array([[0.0, 0.01, 0.5, -0.5], [0.0, 0.02, 0.0, 0.0]])
    assert dead_units(codes) == 0.25
    assert dead_units(codes, 0.02) == 0.5
    assert dead_units(codes, 0.5) == 1.0


def test_filter_sharpness_by_hand():
    # Of (3, 4): (sqrt 2 - 7/5) / (sqrt 2 - 1); the empty filter is left out, scale and sign are not seen.
    expected = (np.sqrt(2) - 1.4) / (np.sqrt(2) - 1)
    np.testing.assert_allclose(filter_sharpness([[3.0, 0.0, -30.0], [4.0, 0.0, 40.0]]), expected, rtol=1e-12)


def test_filters_of_noise_have_the_sharpness_of_the_docstring():
    kernel = np.random.default_rng(2).normal(size=(784, 1000))
    expected = (28 - np.sqrt(2 * 784 / np.pi)) / 27
    assert abs(expected - 0.21) < 0.005
    np.testing.assert_allclose(filter_sharpness(kernel), expected, atol=2e-3)  # the bias of the ratio is O(1 / D)


def test_nothing_at_all_has_no_sparseness():
    zeros = np.zeros((3, 2))
    assert dead_units(zeros) == 1.0
    assert np.isnan([lifetime_sparsity(zeros), population_sparsity(zeros), filter_sharpness(zeros)]).all()


@pytest.mark.parametrize("measure", [lifetime_sparsity, population_sparsity, dead_units, filter_sharpness])
def test_what_is_no_matrix_of_numbers_is_refused(measure):
    with pytest.raises(InputError, match="at least two rows"):
        measure(np.ones(3))
    with pytest.raises(InputError, match="1 are not finite"):
        measure(np.array([[1.0, np.nan], [2.0, 3.0]]))
