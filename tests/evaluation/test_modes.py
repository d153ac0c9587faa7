"""Modes that samples cover, against closed forms and places by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.evaluation.modes import GRID, RING, mode_coverage
from aejax.priors import GaussianMixture

KEY = jax.random.key(0)


@pytest.mark.parametrize(("mixture", "count"), [(RING, 8), (GRID, 25)])
def test_of_the_truth_all_modes_are_covered_and_the_share_of_the_chi_squared(mixture, count):
    """Of two independent normals, the squares' sum is below 9 with the chance 1 - exp(-9/2)."""
    n, share = 100_000, 1 - np.exp(-4.5)
    found = mode_coverage(mixture.sample(KEY, n), mixture=mixture)
    assert int(found.modes) == count
    assert float(found.high_quality) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n))


def test_the_mixtures_are_where_they_are_said_to_be():
    angles = np.pi / 4 * np.arange(8)
    np.testing.assert_allclose(RING.means, 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-12)
    assert set(GRID.means) == {(2.0 * i, 2.0 * j) for i in range(-2, 3) for j in range(-2, 3)}
    for mixture, deviation in ((RING, 0.02), (GRID, 0.05)):
        np.testing.assert_allclose(mixture.covariances, np.tile(deviation**2 * np.eye(2), (len(mixture.means), 1, 1)))


@pytest.mark.parametrize("kept", [1, 7, 24])
def test_modes_that_are_dropped_are_missed_exactly(kept):
    modes = np.random.default_rng(kept).permutation(np.asarray(GRID.means))[:kept]
    noise = 0.05 * np.clip(np.random.default_rng(0).normal(size=(40, kept, 2)), -2, 2)  # at most sqrt(8) deviations
    found = mode_coverage(jnp.asarray((modes + noise).reshape(-1, 2), jnp.float32), mixture=GRID)
    assert (int(found.modes), float(found.high_quality)) == (kept, 1.0)


def test_three_deviations_are_the_edge_by_hand():
    at = lambda *offsets: mode_coverage(jnp.array([[2.0 + 0.05 * v, -4.0] for v in offsets]), mixture=GRID)
    assert (int(at(2.99, -2.99).modes), float(at(2.99, -2.99).high_quality)) == (1, 1.0)
    assert (int(at(3.01, -3.01).modes), float(at(3.01, -3.01).high_quality)) == (0, 0.0)
    assert float(at(0.0, 1.0, 2.0, 20.0).high_quality) == 0.75
    assert [int(at(3.01, -3.01).assigned), int(at(19.9).assigned), int(at(19.9, 20.1).assigned)] == [1, 1, 2]
    assert int(mode_coverage(jnp.full((5, 2), jnp.nan), mixture=GRID).assigned) == 0
    both = mode_coverage(jnp.array([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0], [0.01, 0.0]]), mixture=GRID)
    assert (int(both.modes), float(both.high_quality)) == (2, 0.75)


def test_even_samples_have_the_share_of_the_area_of_the_discs():
    n, side = 200_000, 10.0
    share = 25 * np.pi * 0.15**2 / side**2
    x = jax.random.uniform(KEY, (n, 2), minval=-side / 2, maxval=side / 2)
    found = mode_coverage(x, mixture=GRID)
    assert float(found.high_quality) == pytest.approx(share, abs=4 * np.sqrt(share / n))
    assert int(found.modes) == 25


def test_deviations_are_those_along_each_direction():
    """Of a mode with deviations 1 and 0.1: (2.9, 0) is of it, (0, 0.31) is not, nor (2.5, 0.2), sqrt(6.25 + 4) out."""
    long = GaussianMixture((1.0,), ((0.0, 0.0),), (((1.0, 0.0), (0.0, 0.01)),))
    turned = GaussianMixture((1.0,), ((0.0, 0.0),), (((0.505, 0.495), (0.495, 0.505)),))  # by 45 degrees
    x = np.array([[2.9, 0.0], [0.0, 0.31], [2.5, 0.2], [0.0, 0.29]])
    turn = np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    for mixture, points in ((long, x), (turned, x @ turn)):
        near = [float(mode_coverage(jnp.float32(point[None]), mixture=mixture).high_quality) for point in points]
        assert near == [1.0, 0.0, 0.0, 1.0]


def test_many_runs_are_judged_at_once():
    x = jnp.stack([GRID.sample(KEY, 200), jnp.zeros((200, 2)), jnp.ones((200, 2))])
    found = jax.vmap(lambda each: mode_coverage(each, mixture=GRID))(x)
    assert found.modes.tolist() == [25, 1, 0]
    assert found.high_quality[1:].tolist() == [1.0, 0.0]
