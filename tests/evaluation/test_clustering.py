"""Scores of clusterings: against all pairings, definitions written out, and under other numbers."""

import itertools

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.evaluation import cluster_scores, k_means, matched

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 4, 300)
NOISY = np.where(RNG.random(300) < 0.6, (Y + 1) % 4, RNG.integers(0, 4, 300))


def best_of_all_pairings(y, clusters):
    names, labels = np.unique(clusters), np.unique(y)
    agree = {(c, label): np.mean((clusters == c) & (y == label)) for c in names for label in labels}
    wide = [*labels, *[-1] * max(0, len(names) - len(labels))]
    pairings = set(itertools.permutations(wide, len(names)))
    return max(sum(agree.get(pair, 0.0) for pair in zip(names, pairing, strict=True)) for pairing in pairings)


@pytest.mark.parametrize("clusters", [NOISY, NOISY % 3, NOISY + 4 * (RNG.random(300) < 0.4), np.zeros(300, int)],
                         ids=["as many", "fewer", "more", "one"])  # fmt: skip
def test_the_pairing_is_the_best_of_all(clusters):
    found = cluster_scores(Y, clusters)
    assert found.cluster_accuracy == pytest.approx(best_of_all_pairings(Y, clusters), abs=1e-12)
    assert (matched(Y, clusters) == Y).mean() == found.cluster_accuracy


def test_scores_are_their_definitions():
    joint = np.array([[np.mean((a == Y) & (b == NOISY)) for b in range(4)] for a in range(4)])
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    information = sum(joint[a, b] * np.log(joint[a, b] / rows[a] / columns[b]) for a in range(4) for b in range(4))
    entropy = lambda p: -(p * np.log(p)).sum()
    found = cluster_scores(Y, NOISY)
    assert found.nmi == pytest.approx(2 * information / (entropy(rows) + entropy(columns)), abs=1e-9)
    pairs = list(itertools.combinations(range(300), 2))
    same = np.array([(Y[i] == Y[j], NOISY[i] == NOISY[j]) for i, j in pairs])
    both, by_y, by_c = same.all(axis=1).sum(), same[:, 0].sum(), same[:, 1].sum()
    chance = by_y * by_c / len(pairs)
    assert found.ari == pytest.approx((both - chance) / ((by_y + by_c) / 2 - chance), abs=1e-9)


def test_numbers_do_not_matter():
    found = cluster_scores(Y, NOISY)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        new_y, new_c = rng.permutation(90)[:4], rng.permutation(90)[:4] - 30
        other = cluster_scores(new_y[Y], new_c[NOISY])
        np.testing.assert_allclose(other, found, rtol=1e-12)
        np.testing.assert_array_equal(matched(new_y[Y], new_c[NOISY]), new_y[matched(Y, NOISY)])
    np.testing.assert_allclose(cluster_scores(Y, (Y + 2) % 4), 1.0)


def test_k_means_finds_blobs_and_more_starts_are_no_worse():
    z = np.repeat(20 * RNG.normal(size=(8, 3)), 30, axis=0) + RNG.normal(size=(240, 3))
    many = k_means(z, 8)
    assert cluster_scores(np.repeat(np.arange(8), 30), many.clusters).cluster_accuracy == 1.0
    np.testing.assert_array_equal(k_means(z.reshape(240, 3, 1), 8).clusters, many.clusters)
    flat = RNG.random((300, 2))  # no clusters at all
    inertia = lambda found: np.square(flat - found.centres[found.clusters]).sum()
    singles = [inertia(k_means(flat, 20, num_starts=1, seed=seed)) for seed in range(8)]
    assert inertia(k_means(flat, 20)) < 0.98 * max(singles)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matched([0, 1], [0]), r"Labels \(2,\) and clusters \(1,\)"),
        (lambda: matched([], []), r"N at least 1"),
        (lambda: matched([0.0, 1.0], [0, 1]), "float64 and clusters of int64"),
        (lambda: cluster_scores([-1, 0], [0, 1]), "The lowest label is -1"),
        (lambda: k_means([[0.0], [np.nan]], 1), "1 of 2 codes are not finite"),
        (lambda: k_means([[0.0]], 2), "num_clusters=2 of 1 codes"),
        (lambda: k_means([[0.0]], 0), "num_clusters=0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
