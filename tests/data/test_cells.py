"""Made-up cells: counts against the means and dispersions that they are said to be drawn from."""

import numpy as np
import scipy.stats

from aejax import data
from aejax.data.cells import cells


def test_counts_have_the_moments_that_are_said():
    """Of each gene, in standard errors: the mean, and the variance `m + m^2 / r`, from scipy's moments of the law."""
    x, _, mean, dispersion = cells()
    law = scipy.stats.nbinom(dispersion, dispersion / (dispersion + mean))
    _, variance, _, excess = law.stats("mvsk")
    of_mean = (x - mean).sum(axis=0) / np.sqrt(variance.sum(axis=0))
    of_variance = ((x - mean) ** 2 - variance).sum(axis=0) / np.sqrt(((excess + 2) * variance**2).sum(axis=0))
    for scores in (of_mean, of_variance):
        assert abs(scores.mean()) < 4 / np.sqrt(len(scores))
        assert 0.8 < scores.std() < 1.2
    twice = ((x - mean) ** 2 - mean - 2 * mean**2 / dispersion).sum(axis=0)  # with half of the dispersion
    assert (twice < 0).mean() > 0.95


def test_they_are_a_labelled_set_of_whole_numbers():
    loaded = data.load("cells")
    found = np.concatenate([np.c_[part.x, part.y] for part in (loaded.train, loaded.validation, loaded.test)])
    wanted = np.c_[cells().x, cells().kind]
    np.testing.assert_array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])
    data.check(loaded.train.x, "negative_binomial")
    assert np.bincount(cells().kind).min() > 150
    assert 300 < np.median(cells().x.sum(axis=1)) < 2000
