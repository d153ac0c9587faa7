"""Where clusters begin: against scikit-learn and scipy, and under a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from aejax import clusters
from aejax.checks import InputError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def blobs():
    """Five groups of unequal size and width, in 3-D, which touch."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 3)) * 4
    sizes, widths = [200, 150, 100, 60, 30], [1.0, 0.5, 1.5, 0.8, 0.3]
    groups = [c + w * rng.normal(size=(n, 3)) for c, n, w in zip(centres, sizes, widths, strict=True)]
    return rng.permutation(np.concatenate(groups)).astype(np.float32)


def inertia(z, centres):
    z, centres = np.asarray(z, np.float64), np.asarray(centres, np.float64)
    return np.square(z[:, None] - centres[None]).sum(axis=2).min(axis=1).sum()


def test_k_means_is_as_good_as_that_of_scikit_learn_and_better_than_a_single_start(blobs):
    z, keys = jnp.asarray(blobs), jax.random.split(KEY, 20)
    found = jax.jit(lambda key: clusters.k_means(key, z, 8))(KEY)
    known = KMeans(8, n_init=20, random_state=0).fit(blobs).inertia_
    assert inertia(blobs, found) < 1.002 * known
    single = [
        inertia(z, each) for each in jax.jit(jax.vmap(lambda key: clusters.k_means(key, z, 8, num_starts=1)))(keys)
    ]
    assert max(single) > 1.02 * known  # a start decides much
    assert inertia(blobs, found) <= 1.001 * min(single)


def test_every_centre_is_the_mean_of_those_that_chose_it(blobs):
    centres = np.asarray(clusters.k_means(KEY, jnp.asarray(blobs), 5), np.float64)
    chosen = np.square(blobs[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
    means = np.stack([blobs[chosen == k].mean(axis=0, dtype=np.float64) for k in range(5)])
    np.testing.assert_allclose(centres, means, rtol=1e-5, atol=1e-5)


def test_first_centres_are_spread_as_k_means_plus_plus_says():
    """Of 0 (90 times), 3 and 5: the second centre is drawn in proportion to the squared gaps, 9 to 25 from 0."""
    z = jnp.array([[0.0]] * 90 + [[3.0], [5.0]])
    drawn = jax.vmap(lambda key: clusters._spread(key, z, 2)[:, 0])(jax.random.split(KEY, 4000))
    second = np.asarray(drawn)[np.asarray(drawn)[:, 0] == 0, 1]
    assert set(second.tolist()) == {3.0, 5.0}
    assert (second == 5).mean() == pytest.approx(25 / 34, abs=4 * np.sqrt(25 * 9 / 34**2 / len(second)))


def test_the_mixture_is_that_of_scikit_learn(blobs):
    """Compared by the likelihood: both maximise it from k-means, with 1e-6 added to the variances."""
    found = clusters.gaussian_mixture(KEY, jnp.asarray(blobs), 5, num_rounds=300, least_variance=0.0)
    known = GaussianMixture(5, covariance_type="diag", n_init=10, max_iter=1000, tol=1e-7, random_state=0).fit(blobs)
    assert np.exp(np.asarray(found.log_weights, np.float64)).sum() == pytest.approx(1.0, abs=1e-5)
    likelihood = float(jax.nn.logsumexp(found.log_joint(jnp.asarray(blobs)), axis=1).mean())
    assert likelihood == pytest.approx(known.score(blobs), abs=2e-3)
    order, own = np.argsort(known.means_[:, 0]), np.argsort(np.asarray(found.means)[:, 0])
    np.testing.assert_allclose(np.asarray(found.means)[own], known.means_[order], atol=0.05)
    np.testing.assert_allclose(np.exp(found.logvars)[own], known.covariances_[order], rtol=0.1)


def test_log_joint_is_that_of_scipy():
    rng = np.random.default_rng(1)
    means, logvars, weights = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), np.array([0.2, 0.5, 0.3])
    z = rng.normal(size=(7, 2))
    expected = [
        np.log(w) + multivariate_normal(m, np.diag(np.exp(v))).logpdf(z)
        for w, m, v in zip(weights, means, logvars, strict=True)
    ]
    found = clusters.Mixture(*map(jnp.asarray, (means, logvars, np.log(weights)))).log_joint(jnp.asarray(z))
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-5)


def test_a_cluster_of_a_single_point_keeps_a_variance():
    z = jnp.array([[0.0, 1.0], [0.1, 1.2], [-0.1, 0.9], [50.0, 50.0]])
    found = clusters.gaussian_mixture(KEY, z, 2)
    assert np.isfinite(jax.tree.leaves(found)[1]).all()
    floor = 1e-3 * np.asarray(z, np.float64).var(axis=0)
    np.testing.assert_allclose(np.exp(found.logvars)[np.asarray(found.means)[:, 0].argmax()], floor, rtol=1e-3)


@pytest.mark.parametrize("count", [5, 1024, 2048, 2500])
def test_blocks_are_the_whole(count):
    x = np.random.default_rng(2).normal(size=(count, 3)).astype(np.float32)
    function = lambda rows: jnp.cumsum(rows, axis=1)
    np.testing.assert_array_equal(clusters.in_blocks(function, x), np.cumsum(x, axis=1))


def test_more_clusters_than_vectors_are_refused_and_as_many_are_the_vectors():
    z = jnp.array([[1.0], [2.0]])
    assert set(np.asarray(clusters.k_means(KEY, z, 2)).ravel().tolist()) == {1.0, 2.0}
    for begin in (clusters.k_means, clusters.gaussian_mixture):
        with pytest.raises(InputError, match="3 clusters of 2 examples"):
            jax.eval_shape(lambda begin=begin: begin(KEY, z, 3))
