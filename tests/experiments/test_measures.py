import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

from experiments import compare, figures, measures


def test_principal_angle_of_a_rotated_direction():
    x = np.random.default_rng(0).normal(size=(500, 3)) * [5.0, 1.0, 0.1]
    x = np.concatenate([x, -x])  # exact mean 0
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1]
    for degrees in (0.0, 10.0, 90.0):
        angle = math.radians(degrees)
        direction = math.cos(angle) * axes[:, [0]] + math.sin(angle) * axes[:, [1]]
        assert measures.principal_angle(3.0 * direction, x) == pytest.approx(degrees, abs=1e-5)


def test_pca_sse_is_that_of_scikit_learn(digits):
    train, test = digits[:1500], digits[1500:]
    fitted = PCA(10, svd_solver="full").fit(train.astype(np.float64))
    error = fitted.inverse_transform(fitted.transform(test)) - test
    expected = np.square(error).sum(axis=1).mean()
    assert measures.pca_sse(train, test, 10) == pytest.approx(expected, rel=1e-6)
    assert measures.pca_sse(train, test, 64) == pytest.approx(0.0, abs=1e-6)


def test_uncentred_pca_sse_by_hand():
    x = np.array([[3.0, 4.0], [6.0, 8.0]])  # one direction through the origin
    test = np.array([[3.0, 4.0], [-4.0, 3.0]])  # on it, and at a right angle to it
    assert measures.pca_sse(x, test, 1, centred=False) == pytest.approx(12.5)


def test_final_mean_weighs_the_last_tenth_of_the_steps():
    rows = [{"step": 50, "loss": 9.0}, {"step": 95, "loss": 2.0}, {"step": 100, "loss": 4.0}]
    # Steps 91 to 95 at 2, steps 96 to 100 at 4.
    assert measures.final_mean(SimpleNamespace(history=rows), "loss") == pytest.approx(3.0)


def test_spread_keeps_the_digits_that_mean_something():
    assert figures.spread([13.8661, 13.8663, 13.8665]) == "13.86630 ± 0.00020"
    assert figures.spread([101.0, 103.0, 105.0]) == "103.0 ± 2.0"
    assert figures.spread([3.25]) == "3.25 ± 0.00"


def test_the_jacobian_norm_of_pca_is_that_of_its_components(digits):
    from aejax import data

    dataset = data.flatten(data.load("digits"))
    metrics, z, x_hat = compare.pca(dataset, 5)
    assert metrics["jacobian_norm"] == pytest.approx(np.linalg.norm(PCA(5).fit(dataset.train.x).components_))
    assert metrics["test_sse"] == pytest.approx(measures.pca_sse(dataset.train.x, dataset.test.x, 5), rel=1e-4)
    assert np.square(dataset.test.x - x_hat).sum(axis=1).mean() == pytest.approx(metrics["test_sse"])
    assert z.shape == (180, 5)
