"""Parts of priors, one for each class, and clouds of points: against counts, closed forms and two-sample tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aejax import priors
from aejax.as_json import from_json, to_json
from aejax.checks import InputError
from aejax.evaluation import code_mmd
from aejax.priors import GaussianMixture, PointCloud, StandardNormal, SwissRoll

KEY = jax.random.key(0)
POINTS = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [-5.0, 1.0]])
CLOUD = PointCloud.of(POINTS, noise=0.2, y=[1, 0, 1, 1])
PARTED = {
    "ring": (GaussianMixture.ring(4, radial_std=0.2), 4),
    "roll": (SwissRoll(), 5),
    "cloud": (CLOUD, 2),
}


def test_a_cloud_is_the_mean_of_scipys_densities():
    z = np.random.default_rng(0).normal(0, 2, (3, 5, 2))
    expected = np.log(np.mean([scipy.stats.multivariate_normal(p, 0.04 * np.eye(2)).pdf(z) for p in POINTS], axis=0))
    with jax.enable_x64(True):
        np.testing.assert_allclose(CLOUD.log_prob(jnp.asarray(z)), expected, rtol=1e-10)


def test_draws_of_a_cloud_are_its_points_evenly_with_noise():
    z = np.asarray(CLOUD.sample(KEY, 8000))
    gaps = np.linalg.norm(z[:, None] - POINTS, axis=2)
    nearest = gaps.argmin(axis=1)
    assert scipy.stats.chisquare(np.bincount(nearest, minlength=4)).pvalue > 1e-3
    offsets = (z - POINTS[nearest]) / 0.2
    assert min(scipy.stats.kstest(offsets[:, i], "norm").pvalue for i in (0, 1)) > 1e-3


@pytest.mark.parametrize("name", PARTED)
def test_parts_together_are_the_prior(name):
    """Each as often as it is probable: of the cloud one point of four is of class 0, of the others all alike."""
    prior, count = PARTED[name]
    y = np.arange(400) % count if name != "cloud" else np.minimum(np.arange(400) % 4, 1)
    together = np.asarray(prior.sample_parts(KEY, jnp.asarray(y), count))
    whole = np.asarray(prior.sample(jax.random.key(1), 400))
    assert code_mmd(together, whole, jax.random.key(2), num_permutations=99).p_value > 0.01
    other = np.asarray(prior.sample_parts(KEY, jnp.zeros(400, jnp.int32), count))
    assert code_mmd(other, whole, jax.random.key(3), num_permutations=99).p_value == 0.01  # the smallest there is


def test_the_part_of_a_mode_is_its_gaussian():
    prior = GaussianMixture(
        (1.0, 3.0), ((2.0, 0.0), (0.0, -1.0)), (((1.0, 0.0), (0.0, 0.25)), ((0.5, 0.2), (0.2, 1.0)))
    )
    y = jnp.asarray(np.arange(6000) % 2)
    z = np.asarray(prior.sample_parts(KEY, y, 2), np.float64)
    for k in (0, 1):
        own = z[k::2]
        whitened = np.linalg.solve(np.linalg.cholesky(np.array(prior.covariances[k])), (own - prior.means[k]).T)
        assert min(scipy.stats.kstest(each, "norm").pvalue for each in whitened) > 1e-3
    densities = [
        w * scipy.stats.multivariate_normal(m, c).pdf(z)
        for w, m, c in zip((1, 3), prior.means, prior.covariances, strict=True)
    ]
    np.testing.assert_array_equal(prior.part_of(jnp.asarray(z), 2), np.argmax(densities, axis=0))


def test_the_stretches_of_a_roll_are_equally_large_from_the_centre_outwards():
    """r = radius s with s^2 uniform: stretch k of 5 lies between radii 3 sqrt(k / 5) and 3 sqrt((k + 1) / 5)."""
    roll, y = SwissRoll(noise=0.08), np.repeat(np.arange(5), 2000)
    z = np.asarray(roll.sample_parts(KEY, jnp.asarray(y), 5), np.float64)
    radii = np.linalg.norm(z, axis=1).reshape(5, -1)
    for k, own in enumerate(radii):
        assert own.min() > 3 * np.sqrt(k / 5) - 0.4
        assert own.max() < 3 * np.sqrt((k + 1) / 5) + 0.4
        middle = 3 * np.mean(np.sqrt(np.linspace(k / 5, (k + 1) / 5, 10_001)))
        assert abs(own.mean() - middle) < 0.02  # the noise across adds 0.003 at most, that of the mean is 0.01
    shares = (np.arange(100) + 0.5) / 100
    spine = (
        np.sqrt(shares)[:, None]
        * 3
        * np.stack([np.cos(4 * np.pi * np.sqrt(shares)), np.sin(4 * np.pi * np.sqrt(shares))], 1)
    )
    np.testing.assert_array_equal(roll.part_of(jnp.asarray(spine), 5), (shares * 5).astype(int))
    assert np.mean(np.asarray(roll.part_of(jnp.asarray(z), 5)) == y) > 0.95  # noise crosses ends alone: turns are apart


def test_the_part_of_a_place_in_a_cloud_is_that_of_the_nearest_point():
    z = jnp.array([[0.1, 0.2], [3.0, 0.4], [0.0, 9.0], [1.9, 0.0], [2.1, 0.0]])
    assert CLOUD.part_of(z, 2).tolist() == [1, 0, 1, 1, 0]
    drawn = np.asarray(CLOUD.sample_parts(KEY, jnp.ones(3000, jnp.int32), 2))
    near = np.linalg.norm(drawn[:, None] - POINTS, axis=2).argmin(axis=1)
    counts = np.bincount(near, minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-3


def test_a_ring_in_more_dimensions_is_normal_there():
    plane, space = GaussianMixture.ring(3), GaussianMixture.ring(3, latent_dim=4)
    z = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = np.asarray(plane.log_prob(jnp.asarray(z[:, :2]))) + scipy.stats.norm.logpdf(z[:, 2:]).sum(axis=1)
    np.testing.assert_allclose(space.log_prob(jnp.asarray(z)), expected, rtol=1e-5)
    with pytest.raises(InputError, match="2 or more are needed"):
        GaussianMixture.ring(3, latent_dim=1)


def test_a_cloud_is_equal_to_its_like_and_goes_to_json_and_back():
    again = PointCloud.of(POINTS.astype(np.float32), noise=0.2, y=np.array([1, 0, 1, 1]))
    assert again == CLOUD == from_json(to_json(CLOUD))
    assert hash(again) == hash(CLOUD)
    assert priors.get(CLOUD, 2) is CLOUD


def test_what_has_no_parts_for_these_classes_says_what_has():
    for prior, count, advised in (
        (StandardNormal(3), 4, GaussianMixture.ring(4, latent_dim=3)),
        (GaussianMixture.ring(3, latent_dim=2), 4, GaussianMixture.ring(4, latent_dim=2)),
    ):
        for ask in (prior.check_parts, lambda k, p=prior: p.part_of(jnp.zeros((1, p.latent_dim)), k)):
            with pytest.raises(InputError) as error:
                ask(count)
            advice = str(error.value).partition("GaussianMixture.ring(")[2].partition(")")[0]
            assert advice == f"{count}, latent_dim={prior.latent_dim}"
        advised.check_parts(count)
    for cloud in (CLOUD, PointCloud.of(POINTS, noise=0.2)):
        with pytest.raises(InputError, match=r"with each of 0 to 2 in y"):
            cloud.sample_parts(KEY, jnp.zeros(2, jnp.int32), 3)
    PointCloud.of(POINTS, noise=0.2, y=[0, 1, 2, 0]).check_parts(3)


@pytest.mark.parametrize("prior", [GaussianMixture.ring(2), SwissRoll(), CLOUD])
def test_labels_of_no_part_are_refused_where_they_have_a_value(prior):
    for y, message in (
        (np.array([0, 2]), "was asked for num_classes=2, .* it takes parts and num_classes=3"),
        (np.array([-1, 1]), "drop the rows below 0"),
        (np.array([0.0, 1.0]), "dtype float64"),
        (np.eye(2, dtype=int), r"y.argmax\(axis=1\)"),
    ):
        with pytest.raises(InputError, match=message):
            prior.sample_parts(KEY, y, 2)
    y = np.array([0, 1])
    traced = jax.jit(lambda y: prior.sample_parts(jax.random.clone(KEY), y, 2))(y)
    np.testing.assert_allclose(traced, prior.sample_parts(KEY, y, 2), rtol=1e-6)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (POINTS[0], {}, r"\(2,\) of float64"),
        (POINTS[:0], {}, "K at least 1"),
        (np.where(POINTS > 3, np.nan, POINTS), {}, "finite"),
        (POINTS, {"noise": 0.0}, "noise is 0.0"),
        (POINTS, {"y": [0, 1]}, "for 4 points"),
        (POINTS, {"y": [0, 1, -1, 0]}, "integers from 0 up"),
        (POINTS, {"y": [0.5, 1, 1, 0]}, "float64"),
    ],
)
def test_what_is_no_cloud_is_refused(points, options, message):
    with pytest.raises(InputError, match=message):
        PointCloud.of(points, **{"noise": 0.1} | options)
