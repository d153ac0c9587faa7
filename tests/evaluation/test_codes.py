"""Active units by hand, and the permutation test against the definition of the statistic and its null."""

import jax
import numpy as np
import pytest
from scipy.stats import kstest

from aejax.checks import InputError
from aejax.evaluation import active_units, code_mmd, moment_gaps
from aejax.evaluation.codes import _relabel, _unbiased_mmd_sq


def slow_mmd_sq(x, y, bandwidth):
    """The definition, pair by pair, in float64."""
    kernel = lambda a, b: np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2))
    within = lambda v: np.mean([kernel(a, b) for i, a in enumerate(v) for j, b in enumerate(v) if i != j])
    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_active_units_by_hand():
    # Variances 0, 0.0099, 0.0101, 4: of +-a about any mean, a^2.
    a = np.sqrt([0.0, 0.0099, 0.0101, 4.0])
    codes = np.array([3.0, -2.0, 100.0, 0.0]) + np.array([[1.0], [-1.0]]) * a
    assert active_units(codes) == 2
    assert active_units(codes, threshold=0.005) == 3


def test_moment_gaps_by_hand():
    codes = np.array([[2.0, 0.0], [4.0, 0.0], [2.0, 4.0], [4.0, 4.0]])  # means 3 and 2, variances 1 and 4
    assert moment_gaps(codes) == (3.0, 3.0)
    assert moment_gaps(codes, mean=[3.0, 2.5], variance=[1.0, 5.0]) == (0.5, pytest.approx(0.2))


@pytest.mark.parametrize(("n", "m"), [(12, 12), (5, 20), (40, 1203)])
def test_statistic_of_every_relabelling_is_the_definition(n, m):
    rng = np.random.default_rng(0)
    pooled = np.concatenate([rng.normal(size=(n, 3)), 0.5 + rng.normal(size=(m, 3))]).astype(np.float32)
    members = _relabel(n, n + m, 2, jax.random.key(0))
    assert (members.sum(axis=0) == n).all()
    values = _unbiased_mmd_sq(pooled, members, np.float32(1.5))
    for column, value in zip(members.T[: 2 if m < 100 else 0], values, strict=False):
        expected = slow_mmd_sq(pooled[column].astype(np.float64), pooled[~column].astype(np.float64), 1.5)
        np.testing.assert_allclose(value, expected, atol=1e-6)
    if m > 100:  # more than one block, and a padded one: against a block that holds everything
        gram = np.exp(-((pooled[:, None] - pooled).astype(np.float64) ** 2).sum(-1) / (2 * 1.5**2))
        np.fill_diagonal(gram, 0)
        s = members.astype(np.float64)
        t = 1 - s
        form = lambda a, b: np.einsum("ip,ij,jp->p", a, gram, b)
        expected = form(s, s) / (n * (n - 1)) + form(t, t) / (m * (m - 1)) - 2 * form(s, t) / (n * m)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def test_test_statistic_is_that_of_the_samples_as_given():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 2)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)
    result = code_mmd(x, y, jax.random.key(0), num_permutations=10)
    pooled = np.concatenate([x, y]).astype(np.float64)
    distances = np.sqrt(((pooled[:, None] - pooled) ** 2).sum(-1))[np.triu_indices(16, 1)]
    np.testing.assert_allclose(result.bandwidth, np.median(distances), rtol=1e-5)
    np.testing.assert_allclose(result.mmd_sq, slow_mmd_sq(x, y, np.median(distances)), atol=1e-6)


@pytest.mark.slow
def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(300, 50, 2)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 300)
    p = [code_mmd(z[:20], z[20:], key, num_permutations=99).p_value for z, key in zip(draws, keys, strict=True)]
    # The p-value is uniform on 0.01, ..., 1; spread evenly below each step it is uniform on [0, 1].
    assert kstest(np.array(p) - 0.01 * rng.uniform(size=300), "uniform").pvalue > 0.01


def test_a_shift_and_a_scale_are_found():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 400, 3)).astype(np.float32)
    assert code_mmd(x, y, jax.random.key(0), num_permutations=199).p_value > 0.05
    assert code_mmd(x + 0.25, y, jax.random.key(0), num_permutations=199).p_value == 1 / 200
    assert code_mmd(1.3 * x, y, jax.random.key(0), num_permutations=199).p_value == 1 / 200


def test_refuses_what_cannot_be_compared():
    z = np.zeros((4, 2))
    with pytest.raises(InputError, match=r"\(4, 2\) and prior samples \(4, 3\)"):
        code_mmd(z, np.zeros((4, 3)), jax.random.key(0))
    with pytest.raises(InputError, match="at least 2"):
        code_mmd(z[:1], z, jax.random.key(0))
    with pytest.raises(InputError, match="1 of 4 codes are not finite"):
        active_units(np.where(np.arange(8).reshape(4, 2) == 0, np.inf, z))
    with pytest.raises(InputError, match="not empty"):
        moment_gaps(np.zeros(3))
