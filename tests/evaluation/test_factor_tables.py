"""MIG, DCI and SAP against tables that are computed by hand, and codes of which the answer is known."""

from math import log

import numpy as np
import pytest
from scipy.stats import chi2, entropy

from aejax import evaluation
from aejax.checks import InputError
from aejax.evaluation.factor_tables import top_gaps

GRID = np.stack(np.meshgrid(*map(np.arange, (2, 3, 4)), indexing="ij"), axis=-1).reshape(-1, 3)


def many(rng, repeats=40):
    """Every combination that often, in an order of its own."""
    return rng.permutation(np.tile(GRID, (repeats, 1)))


def parts(codes, factors):
    """Two thirds to learn on, a third to test on."""
    cut = 2 * len(codes) // 3
    return codes[:cut], factors[:cut], codes[cut:], factors[cut:]


def turned(codes):
    """Standardised, and turned so that each unit has 4/9, 4/9 and 1/9 of the variance of the three factors."""
    return (codes - codes.mean(axis=0)) / codes.std(axis=0) @ np.array([[2, 2, -1], [-1, 2, 2], [2, -1, 2]]) / 3


def test_information_of_a_joint_table_by_hand():
    """A unit that says the factor wrong once in four times, of eight rows: log 2 less the entropy of (3/4, 1/4)."""
    factor = np.repeat([0, 1], 4)[:, None]
    unit = np.array([0, 0, 0, 1, 1, 1, 1, 0])[:, None] * 2.5 - 7
    known = log(2) + 0.75 * log(0.75) + 0.25 * log(0.25)
    assert evaluation.mutual_information(unit, factor)[0, 0] == pytest.approx(known, rel=1e-12)
    codes = np.concatenate([unit, factor, np.zeros((8, 1))], axis=1)
    assert evaluation.mig(codes, factor) == pytest.approx((log(2) - known) / log(2), rel=1e-12)
    assert evaluation.mig(codes, 40 - 30 * factor) == evaluation.mig(codes, factor)  # names of values are none


def test_bins_are_of_equal_width():
    """Of 20 bins over [0, 20], 19.5 and 20 share the last one, 18.9 and 19.1 do not share one."""
    factor = np.array([[0], [1], [0], [1]])
    share, apart = np.array([[0.0], [0.0], [19.5], [20.0]]), np.array([[0.0], [20.0], [18.9], [19.1]])
    assert evaluation.mutual_information(share, factor)[0, 0] == pytest.approx(0, abs=1e-12)
    assert evaluation.mutual_information(apart, factor)[0, 0] == pytest.approx(log(2))
    assert evaluation.mutual_information(apart, factor, num_bins=1)[0, 0] == 0


def test_mig_of_factors_of_their_sum_and_of_two_copies():
    """1 for the factors themselves. Two coins turned by 45 degrees: each unit knows half of each, so no gap.

    With their sums `a + 2 b` beside a: of a both units know all, of b one does.
    """
    assert evaluation.mig(GRID, GRID) == pytest.approx(1, abs=1e-12)
    coins = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    mixed = coins @ [[1, 1], [1, -1]]
    np.testing.assert_allclose(evaluation.mutual_information(mixed, coins), 0.5 * log(2))
    assert evaluation.mig(mixed, coins) == pytest.approx(0, abs=1e-12)
    both = np.stack([coins @ [1, 2], coins[:, 0]], axis=1)
    assert evaluation.mig(both, coins) == pytest.approx(0.5, abs=1e-12)
    # Of four kinds a unit that tells two from two knows half, a coin knows all of itself: entropies differ.
    kinds = np.stack(np.unravel_index(np.arange(8), (2, 4)), axis=1)
    assert evaluation.mig(kinds // [1, 2], kinds) == pytest.approx((1 + 1 / 2) / 2, abs=1e-12)


def test_mig_of_noise_is_what_the_histogram_finds():
    """2 N I is chi-squared with (bins - 1) (values - 1) degrees of freedom, here of 4 values in 5 even bins."""
    rng = np.random.default_rng(0)
    n, units = 4000, 200
    codes, factor = rng.random((n, units)), rng.integers(4, size=(n, 1))
    found = 2 * n * evaluation.mutual_information(codes, factor, num_bins=5)[:, 0]
    law = chi2(12)
    assert found.mean() == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(units))
    assert found.std() == pytest.approx(law.std(), rel=0.25)
    few = codes[:, :10]
    assert evaluation.mig(few, factor, num_bins=5) < law.ppf(1 - 1e-6) / (2 * n) / log(4)


def test_gaps_are_between_the_best_two_of_a_column():
    scores = np.array([[0.9, 0.2, 0.5], [0.4, 0.2, 0.1], [0.7, 0.6, 0.5]])
    np.testing.assert_allclose(top_gaps(scores), [0.2, 0.4, 0.0])


def test_importances_by_hand_and_by_scipys_entropy():
    """Rows (1, 1) and (0, 2): 0 and 1, of equal weight. Columns (1, 0) and (1, 2), of weight 1/4 and 3/4."""
    split = -(log(1 / 3) / 3 + 2 * log(2 / 3) / 3) / log(2)
    found = evaluation.importance_scores([[1.0, 1.0], [0.0, 2.0]])
    assert found == pytest.approx((0.5, 0.25 + 0.75 * (1 - split)), rel=1e-12)
    table = np.random.default_rng(1).random((5, 3)) ** 3
    table[2] = 0.0  # a dead unit has no weight
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    alive = rows > 0
    unit = 1 - entropy(table[alive].T, base=3)
    factor = 1 - entropy(table, base=5)
    expected = unit @ rows[alive] / rows.sum(), factor @ columns / columns.sum()
    assert evaluation.importance_scores(table) == pytest.approx(expected, rel=1e-12)
    assert evaluation.importance_scores(np.zeros((4, 2))) == (0.0, 0.0)


def test_dci_of_coins_of_a_rotation_and_of_noise():
    rng = np.random.default_rng(2)
    factors = rng.permutation(np.tile(np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1), (45, 1)))
    found = evaluation.dci(*parts(np.concatenate([factors, np.zeros((len(factors), 1))], axis=1), factors))
    np.testing.assert_allclose(found[:3], 1, atol=1e-6)
    np.testing.assert_allclose(found.importance, np.eye(4, 3), atol=1e-6)
    mixed = evaluation.dci(*parts(turned(factors), factors))
    assert max(mixed[:2]) < 0.8
    assert mixed.informativeness > 0.95  # nothing is lost by turning
    noise = evaluation.dci(*parts(rng.normal(size=factors.shape), factors))
    assert max(noise[:2]) < 0.1
    assert noise.informativeness == pytest.approx(1 / 2, abs=4 * np.sqrt(1 / 4 / len(factors)))


def test_dci_orders_units_and_factors_as_they_are():
    """The first unit is factor 1, the second knows factor 0 and half of factor 1."""
    factors = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (60, 1))
    found = evaluation.dci(factors[:, ::-1], factors, factors[:, ::-1], factors)
    np.testing.assert_allclose(found.importance, [[0, 1], [1, 0]], atol=1e-6)
    wrong = evaluation.dci(factors, factors, factors, 1 - factors)
    assert wrong.informativeness == 0


def test_sap_of_coins_is_one_half():
    """The unit that is a balanced coin predicts it, any other one is right in half of all cases."""
    rng = np.random.default_rng(3)
    coins = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (100, 1))
    codes = 4.0 * coins - 2  # the ridge wants codes that are not small
    assert evaluation.sap(codes, coins, codes, coins) == pytest.approx(0.5, abs=1e-12)
    # Of a unit that says the first coin wrong once in four times, three quarters are right: 1 - 3/4 in place of 1/2.
    wrong = np.where(np.arange(400) % 16 < 4, -1, 1) * codes[:, 0]
    three = np.stack([codes[:, 0], wrong, codes[:, 1]], axis=1)
    assert evaluation.sap(three, coins, three, coins) == pytest.approx((0.25 + 0.5) / 2, abs=1e-12)
    # Tested where the first coin is another one in a quarter of the cases: 3/4 - 1/2 for it.
    others = coins[:16] ^ (np.arange(16)[:, None] < [4, 0])
    assert evaluation.sap(codes, coins, codes[:16], others) == pytest.approx((0.25 + 0.5) / 2, abs=1e-12)
    noise = rng.normal(size=(4000, 3))
    assert evaluation.sap(*parts(noise, np.tile(coins, (10, 1)))) < 4 * np.sqrt(0.25 * 3 / 4000)


def test_sap_of_factors_is_above_that_of_a_rotation():
    factors = many(np.random.default_rng(4))
    known, mixed = (evaluation.sap(*parts(codes, factors)) for codes in (3.0 * factors, 3 * turned(factors)))
    assert known > 0.3
    assert mixed < 0.5 * known


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros((3, 2)), np.zeros((2, 1), int), r"Codes \(3, 2\) and factors \(2, 1\)"),
        (np.zeros(3), np.zeros((3, 1), int), r"Codes \(3,\)"),
        (np.full((2, 2), np.nan), np.array([[0], [1]]), "2 of 2 codes are not finite"),
        (np.eye(2), np.array([[0.0], [1.5]]), "dtype float64; integers"),
        (np.eye(2), np.array([[3, 0], [3, 1]]), r"Factors \[0\], counted from 0, have one value"),
    ],
)
def test_what_is_no_table_of_codes_and_factors_is_refused(codes, factors, message):
    for call in (evaluation.mig, lambda z, f: evaluation.dci(z, f, z, f), lambda z, f: evaluation.sap(z, f, z, f)):
        with pytest.raises(InputError, match=message):
            call(codes, factors)


def test_a_single_unit_and_parts_that_do_not_fit_are_refused():
    one, factors = np.arange(4.0)[:, None], np.arange(4)[:, None] % 2
    for call in (evaluation.mig, lambda z, f: evaluation.sap(z, f, z, f)):
        with pytest.raises(InputError, match="best and the second unit; the codes have one"):
            call(one, factors)
    with pytest.raises(InputError, match="1 units and 1 factors"):
        evaluation.dci(one, factors, one, factors)
    with pytest.raises(InputError, match=r"Test codes \(4, 1\) and factors \(4, 2\)"):
        evaluation.sap(np.ones((4, 2)), np.tile(factors, 2), one, np.tile(factors, 2))
    with pytest.raises(InputError, match="none negative"):
        evaluation.importance_scores([[1.0, -1e-3], [0.0, 1.0]])
