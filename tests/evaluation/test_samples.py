"""Scores of samples: closed forms of Gaussians, definitions written out, and what cannot change them."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from aejax.checks import InputError
from aejax.evaluation import samples

RNG = np.random.default_rng(0)


def test_frechet_is_its_formula_and_that_of_known_gaussians():
    a, b = RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5)), RNG.normal(size=(300, 5)) + 1
    s, t = np.cov(a.T), np.cov(b.T)
    gap = a.mean(axis=0) - b.mean(axis=0)
    expected = gap @ gap + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert samples.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    drawn = RNG.normal(size=(50, 3))
    white = (drawn - drawn.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T))).T
    scaled = white * [1.0, 2.0, 5.0] + [0.0, 0.0, 3.0]  # deviations of 1, 2 and 5 where the first has 1
    assert samples.frechet_distance(white, scaled) == pytest.approx(0 + 1 + 16 + 9, rel=1e-9)


def test_frechet_of_fewer_examples_than_features_and_of_the_same_ones():
    few = RNG.normal(size=(4, 10))
    assert samples.frechet_distance(few, few[::-1]) == pytest.approx(0, abs=1e-9)
    moved = samples.frechet_distance(few, few + 2.0)
    assert moved == pytest.approx(40, rel=1e-9)
    assert samples.frechet_distance(few + 2.0, few) == pytest.approx(moved, rel=1e-9)


def by_definition(real, fake, k):
    far = lambda a, b: np.sqrt(np.square(a[:, None] - b[None]).sum(axis=-1))
    radius = lambda v: np.sort(far(v, v), axis=1)[:, k]  # the first is itself
    inside = far(fake, real) <= radius(real)[None]
    recalled = (far(real, fake) <= radius(fake)[None]).any(axis=1)
    return inside.any(axis=1).mean(), recalled.mean(), inside.sum() / (k * len(fake)), inside.any(axis=0).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_manifold_is_its_definition(k):
    real, fake = RNG.normal(size=(60, 3)), 0.7 * RNG.normal(size=(50, 3)) + 0.3
    np.testing.assert_allclose(samples.manifold(real, fake, k), by_definition(real, fake, k), rtol=1e-12)


def test_the_manifold_goes_block_by_block(monkeypatch):
    """More rows than are looked at together, in one dimension, where all can be counted."""
    real, fake = np.arange(2500.0)[:, None], np.arange(0.0, 1250, 0.5)[:, None]
    monkeypatch.setattr(samples, "_BLOCK", 2**21)
    found = samples.manifold(real, fake, 2)
    np.testing.assert_allclose(found, by_definition(real, fake, 2), rtol=1e-12)
    assert found.coverage == pytest.approx(1251 / 2500)
    assert samples.manifold(real, fake, 2, reach=samples.reaches(real, 2)) == found
    copies = np.repeat(RNG.normal(size=(3, 40)) + 100, 4, axis=0)  # balls of no size, which hold what is there
    assert samples.manifold(copies, copies, 3) == (1, 1, 4 / 3, 1)


def test_what_scores_say_of_alike_lost_and_far_samples():
    real, alike = RNG.normal(size=(2, 1000, 2))
    found = samples.manifold(real, alike, 5)
    assert found.precision > 0.95
    assert found.recall > 0.95
    assert found.density == pytest.approx(1, abs=0.1)  # its expectation, whatever the distribution
    assert found.coverage == pytest.approx(1 - (1 / 2) ** 5, abs=0.03)  # theirs, lemma 2, of as many of each
    one = samples.manifold(real, 0.01 * alike, 5)
    assert one.precision == 1
    assert max(one.recall, one.coverage) < 0.05
    assert samples.manifold(real, alike + 100, 5) == (0, 0, 0, 0)


def test_the_nearest_are_found_and_copies_stand_out():
    known, held_out = RNG.normal(size=(2000, 4)), RNG.normal(size=(30, 4))
    which, gap = samples.nearest(np.concatenate([known[[7, 1500]], held_out]), known)
    far = np.sqrt(np.square(held_out[:, None] - known[None]).sum(axis=-1))
    assert which[:2].tolist() == [7, 1500]
    np.testing.assert_array_equal(which[2:], far.argmin(axis=1))
    np.testing.assert_allclose(gap, np.r_[0, 0, far.min(axis=1)], rtol=1e-9)


def test_sharpness_of_waves_noise_and_blur():
    rows = np.arange(16)
    wave = lambda cycles: np.broadcast_to(np.cos(2 * np.pi * cycles * rows / 16)[:, None], (16, 16))
    for cycles, high in ((1, 0), (4, 0), (5, 1), (8, 1)):  # more than 4 in 16 pixels are of high frequency
        assert samples.sharpness(3 + wave(cycles)[None]) == pytest.approx(high, abs=1e-12)
        assert samples.sharpness(wave(cycles).T[None]) == pytest.approx(high, abs=1e-12)
    assert samples.sharpness(np.stack([wave(2) + 3 * wave(6), wave(2)])) == pytest.approx((0.9 + 0) / 2, abs=1e-12)
    noise = RNG.normal(size=(200, 64, 64))
    share = 1 - (33**2 - 1) / (64**2 - 1)  # of the bins but that of the mean
    assert samples.sharpness(noise) == pytest.approx(share, abs=0.005)
    digits = load_digits().images
    blurred = np.stack([gaussian_filter(image, 0.7) for image in digits])
    assert samples.sharpness(blurred) < 0.6 * samples.sharpness(digits)
    coloured = np.repeat(digits[:50, ..., None], 3, axis=-1)
    assert samples.sharpness(coloured) == pytest.approx(samples.sharpness(digits[:50]), rel=1e-12)
    assert samples.sharpness(np.full((2, 8, 8), 0.1)) == 0


def test_features_of_the_recipe_tell_classes_and_find_lost_ones():
    x, y = load_digits(return_X_y=True)
    x = x / 16
    features = samples.classifier_features(x[:1200], y[:1200])
    again = samples.classifier_features(x[:1200], y[:1200])(x[1200:])
    np.testing.assert_array_equal(features(x[1200:].reshape(-1, 8, 8, 1)), again)
    real, held_out = features(x[:597]), features(x[1200:])
    alike = samples.frechet_distance(real, held_out)
    one_class = samples.frechet_distance(real, features(x[y == 3]))
    assert one_class > 5 * alike
    gaps = np.linalg.norm(
        again[:, None] - features(np.stack([x[:1200][y[:1200] == c].mean(0) for c in range(10)])), axis=2
    )
    assert (gaps.argmin(axis=1) == y[1200:]).mean() > 0.85


def test_what_is_no_cloud_is_refused():
    good = RNG.normal(size=(5, 2))
    for bad in (good[:, :1], good[:1], good[0], np.where(good > 0, np.nan, good)):
        with pytest.raises(InputError, match="cloud"):
            samples.frechet_distance(good, bad)
    with pytest.raises(InputError, match="k is 5, of 5 real"):
        samples.manifold(good, good)
    samples.manifold(good, good, k=4)
    with pytest.raises(InputError, match="of 4 pixels and more"):
        samples.sharpness(np.ones((2, 8, 3)))
    with pytest.raises(InputError, match="one integer for each of the 5"):
        samples.classifier_features(good, [0, 1])
    for y in ([0, 0, 0, 0, 0], [0, 0, 1, 1, 2]):
        with pytest.raises(InputError, match="of two examples each, and ten"):
            samples.classifier_features(good, y)
    with pytest.raises(InputError, match="one integer for each"):
        samples.classifier_features(good, np.array([0.0, 0.5, 1.0, 0.0, 0.5]))
    for classes in (2, 3, 7):  # the least that is taken
        least = (
            RNG.normal(size=(10 * classes, 2)),
            np.r_[np.repeat(np.arange(1, classes), 2), np.zeros(8 * classes + 2, int)],
        )
        assert samples.classifier_features(*least)(good).shape == (5, 128)
    images = RNG.normal(size=(2, 8, 8))
    images[0, 3, 3] = np.nan
    for bad in (images, images.astype(complex)):
        with pytest.raises(InputError, match="finite real numbers"):
            samples.sharpness(bad)


def test_the_mean_distance_of_a_simplex_is_its_side_and_of_a_gaussian_known():
    assert samples.mean_distance(3 * np.eye(7)) == pytest.approx(3 * np.sqrt(2), rel=1e-12)
    assert samples.mean_distance(np.full((5, 3), 0.3)) == 0
    x = np.random.default_rng(0).normal(size=(3000, 1)) + 1e3  # of N(0, 2) the mean absolute value is 2 / sqrt(pi)
    assert samples.mean_distance(x) == pytest.approx(2 / np.sqrt(np.pi), rel=0.03)
