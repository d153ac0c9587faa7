"""Recommenders without a network against the conditions that define them, scikit-learn, and other solvers."""

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from aejax.checks import InputError
from aejax.evaluation.recommenders import biases, ease, item_knn, popularity

RNG = np.random.default_rng(0)
X = (RNG.random((40, 8)) < 0.35).astype(float)
X[:, 6] = 0  # an item that nobody has


@pytest.mark.parametrize("x", [X, X[:5]], ids=["more users than items", "fewer"])
def test_ease_meets_the_conditions_of_its_minimum(x):
    """The gradient of the Lagrangian: zero off the diagonal, where the multipliers are free; and the diagonal is."""
    ridge = 3.0
    b = ease(x, ridge)
    gradient = x.T @ (x @ b - x) + ridge * b
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(gradient[off], 0, atol=1e-12)
    np.testing.assert_array_equal(np.diag(b), np.zeros(8))
    assert np.abs(np.diag(gradient)).max() > 0.1  # the multipliers, which hold it there


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    b = ease(X, 2.0)
    for j in range(8):
        others = np.delete(np.arange(8), j)
        fitted = Ridge(2.0, fit_intercept=False, tol=1e-12).fit(X[:, others], X[:, j])
        np.testing.assert_allclose(b[others, j], fitted.coef_, atol=1e-10)


def test_biases_are_the_minimum_of_their_sum_of_squares():
    user, item = np.nonzero(RNG.random((9, 7)) < 0.5)
    keep = (user != 4) & (item != 3)  # one of each without a rating
    user, item = user[keep], item[keep]
    rating = RNG.normal(3, 1, len(user))
    mean, of_user, of_item = biases(user, item, rating, (9, 7), ridge=2.0)
    assert mean == pytest.approx(rating.mean())
    assert of_user[4] == of_item[3] == 0

    def loss(b):
        return ((rating - mean - b[:9][user] - b[9:][item]) ** 2).sum() + 2.0 * (b**2).sum()

    best = scipy.optimize.minimize(loss, np.zeros(16), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(np.concatenate([of_user, of_item]), best, atol=1e-6)


def test_item_knn_has_the_largest_cosines_of_scikit_learn():
    cosine = cosine_similarity(X.T)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(item_knn(X, 8), cosine, atol=1e-12)
    b = item_knn(X, 3)
    for j in range(8):
        kept = np.flatnonzero(b[:, j])
        assert len(kept) <= 3
        np.testing.assert_allclose(b[kept, j], cosine[kept, j], atol=1e-12)
        np.testing.assert_allclose(b[:, j].sum(), np.sort(cosine[:, j])[-3:].sum(), atol=1e-12)
    assert not b[6].any()
    assert not b[:, 6].any()


def test_popularity_counts_users():
    np.testing.assert_array_equal(popularity(np.array([[1, 0, 3], [2, 0, 0]])), [2, 0, 1])


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="ridge is 0"):
        ease(X, 0)
    with pytest.raises(InputError, match="users by items"):
        ease(X[0], 1.0)
    with pytest.raises(InputError, match="k=0"):
        item_knn(X, 0)
    with pytest.raises(InputError, match="ridge is -1"):
        biases(np.array([0]), np.array([0]), np.ones(1), (1, 1), ridge=-1)
