"""The scores by images that share a factor, against codes of which the answer is known."""

import jax
import numpy as np
import pytest

from aejax import evaluation
from aejax.checks import InputError

SIZES = {"num_train": 2000, "num_test": 1000}
GRID = np.stack(np.meshgrid(*map(np.arange, (3, 3, 4, 4)), indexing="ij"), axis=-1).reshape(-1, 4)
BOTH = (evaluation.beta_vae_score, evaluation.factor_vae_score)


@pytest.fixture(scope="module")
def factors():
    """Every combination 300 times, in an order of its own."""
    return np.random.default_rng(0).permutation(np.tile(GRID, (300, 1)))


def standardised(factors):
    return (factors - factors.mean(axis=0)) / factors.std(axis=0)


def within(found, share, *, deviations=4):
    return abs(found - share) < deviations * np.sqrt(share * (1 - share) / SIZES["num_test"])


@pytest.mark.parametrize("score", BOTH)
def test_factors_score_one_and_noise_is_at_chance(factors, score):
    assert score(3.0 * factors, factors, jax.random.key(0), **SIZES) == 1
    noise = np.random.default_rng(1).normal(size=factors.shape)
    assert within(score(noise, factors, jax.random.key(0), **SIZES), 1 / 4)


@pytest.mark.parametrize("score", BOTH)
def test_a_rotation_scores_less(factors, score):
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    codes = standardised(factors)
    known, turned = (score(z, factors, jax.random.key(1), batch_size=8, **SIZES) for z in (codes, codes @ turn))
    assert known > 0.97
    assert turned < known - 0.2


def test_two_units_for_two_of_four_factors(factors):
    """By pairs: two are known and the rest is guessed as one class of two, 3/4. By the vote: two units, two answers."""
    codes = 3.0 * factors[:, :2]
    assert within(evaluation.beta_vae_score(codes, factors, jax.random.key(2), **SIZES), 3 / 4)
    assert within(evaluation.factor_vae_score(codes, factors, jax.random.key(2), **SIZES), 2 / 4)


def test_units_that_vary_by_less_than_a_twentieth_have_no_vote(factors):
    """A third unit of noise comes out least where factor 2 or 3 is fixed, and then is right in half of the cases."""
    noise = np.random.default_rng(3).normal(size=(len(factors), 1))
    noise = (noise - noise.mean()) / noise.std()
    score = lambda deviation: evaluation.factor_vae_score(
        np.concatenate([3.0 * factors[:, :2], deviation * noise], axis=1), factors, jax.random.key(4), **SIZES
    )
    assert within(score(0.0499), 2 / 4)
    assert score(0.0501) > 2 / 4 + 0.1
    assert evaluation.factor_vae_score(0.01 * noise, factors, jax.random.key(5), **SIZES) == 0


def test_the_variance_of_a_unit_is_relative(factors):
    """Where scales count, the smallest unit would always come out."""
    noise = np.random.default_rng(8).normal(size=factors.shape)
    codes = (standardised(factors) + 0.3 * noise) * [1.0, 10.0, 100.0, 1000.0]
    assert evaluation.factor_vae_score(codes, factors, jax.random.key(6), **SIZES) == 1


def test_the_vote_is_that_of_the_training_points(factors):
    """Units in any order, and a factor with two units: each of them votes for it."""
    codes = standardised(factors)[:, [3, 1, 0, 2, 1]]
    assert evaluation.factor_vae_score(codes, factors, jax.random.key(7), **SIZES) == 1


def test_pairs_differ_in_what_they_do_not_share_only():
    """One unit is a coin, which all pairs of half of the points share: |z - z'| is 0 there, elsewhere 1/2 in the mean.

    Two pairs to a point are equal by chance in a quarter of the cases, where the other factor is shared. The best rule
    is then wrong in that quarter of half of the points.
    """
    factors = np.random.default_rng(4).permutation(np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (2000, 1)))
    codes = 10.0 * factors[:, :1]
    found = evaluation.beta_vae_score(codes, factors, jax.random.key(8), batch_size=2, **SIZES)
    assert within(found, 1 - 1 / 8)


def test_every_row_of_a_value_is_drawn_and_no_other():
    """Uneven counts: of value 0 there are 3 rows, of 1 one, of 2 six. A unit that is the number of the row."""
    column = np.array([2, 0, 2, 2, 1, 0, 2, 2, 0, 2])
    sharing = evaluation.disentanglement._Sharing(column)
    rows = np.broadcast_to(np.arange(10)[:, None], (10, 6000))
    drawn = sharing.draw(rows, np.random.default_rng(5))
    np.testing.assert_array_equal(column[drawn], column[rows])
    for value, count in enumerate((3, 1, 6)):
        times = np.bincount(drawn[column == value].ravel(), minlength=10)[column == value]
        assert len(times) == count
        expected = 6000 * count / count
        assert np.abs(times - expected).max() <= 4 * np.sqrt(expected)


def test_gathering_in_parts_changes_nothing_but_the_draws(factors, monkeypatch):
    monkeypatch.setattr(evaluation.disentanglement, "_AT_ONCE", 1000)
    for score in BOTH:
        assert score(3.0 * factors, factors, jax.random.key(0), num_train=200, num_test=100) == 1


def test_the_key_decides(factors):
    noise = np.random.default_rng(6).normal(size=factors.shape)
    for score in BOTH:
        first, again, other = (score(noise, factors, jax.random.key(i), **SIZES) for i in (0, 0, 1))
        assert first == again != other


def test_all_scores_of_the_factors():
    coins = np.stack(np.meshgrid(*[np.arange(2)] * 3, np.arange(12), indexing="ij"), axis=-1).reshape(-1, 4)[:, :3]
    sizes = {"num_train": 300, "num_test": 100}
    known = evaluation.disentanglement_scores(3 * coins, coins, jax.random.key(0), **sizes)
    assert known["beta_vae_score"] == known["factor_vae_score"] == 1
    assert known["mig"] == pytest.approx(1, abs=1e-12)  # of all 96 images, each combination 12 times
    assert known["dci_disentanglement"] == pytest.approx(1, abs=1e-6)
    assert known["dci_completeness"] == pytest.approx(1, abs=1e-6)
    assert known["dci_informativeness"] == 1


def test_images_are_learned_on_or_tested_on_and_not_both(monkeypatch):
    """Of 96 images 72 and 24, as 300 to 100; the trees see 40 of the 72. One unit is the number of the image."""
    seen = {}

    def spy(name, result):
        monkeypatch.setattr(evaluation.disentanglement, name, lambda *parts: seen.update({name: parts}) or result)

    spy("dci", evaluation.DCI(0.1, 0.2, 0.3, np.eye(2)))
    spy("sap", 0.4)
    spy("mig", 0.5)
    numbers = np.arange(96)
    codes, factors = np.stack([numbers, numbers % 5], axis=1), np.stack([numbers % 2, numbers // 2 % 2], axis=1)
    call = lambda **sizes: evaluation.disentanglement_scores(codes, factors, jax.random.key(0), **sizes)
    found = call(num_train=300, num_test=100, num_for_trees=40)
    assert list(found.values())[2:] == [0.5, 0.4, 0.1, 0.2, 0.3]
    train, train_factors, test, test_factors = seen["sap"]
    assert sorted([*train[:, 0], *test[:, 0]]) == list(range(96))
    assert (len(train), len(seen["mig"][0])) == (72, 96)
    np.testing.assert_array_equal(test_factors[:, 0], test[:, 0] % 2)
    np.testing.assert_array_equal(seen["dci"][0], train[:40])
    np.testing.assert_array_equal(seen["dci"][1], train_factors[:40])
    np.testing.assert_array_equal(seen["dci"][2], test)
    call(num_train=30, num_test=20)
    assert [len(part) for part in (*seen["dci"], *seen["mig"])] == [30, 30, 20, 20, 30, 30]


@pytest.mark.parametrize("score", BOTH)
def test_sizes_and_single_factors_are_refused(score):
    key = jax.random.key(0)
    for name in ("batch_size", "num_train", "num_test"):
        with pytest.raises(InputError, match=f"{name}=0; at least 1"):
            score(GRID, GRID, key, **{name: 0})
    with pytest.raises(InputError, match="there is one factor"):
        score(GRID, GRID[:, :1], key)
    with pytest.raises(InputError, match="have one value each"):
        score(GRID, GRID * [1, 1, 1, 0], key)


def test_one_image_has_no_variance():
    with pytest.raises(InputError, match="batch_size=1"):
        evaluation.factor_vae_score(GRID, GRID, jax.random.key(0), batch_size=1)
