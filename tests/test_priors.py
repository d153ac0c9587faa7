"""Priors: densities against scipy and quadrature, samples against densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from aejax import priors
from aejax.checks import InputError
from aejax.priors import GaussianMixture, StandardNormal, SwissRoll

MIXTURE = GaussianMixture((1.0, 3.0), ((-1.0, 0.5), (1.0, 0.0)), (((0.5, 0.2), (0.2, 0.3)), ((0.2, -0.1), (-0.1, 0.4))))
PLANE = {"normal": StandardNormal(2), "mixture": MIXTURE, "ring": GaussianMixture.ring(), "roll": SwissRoll()}


def grid(prior):
    """Density on a fine grid of the plane, and its axis: trapezoids are exact to all digits for smooth tails."""
    axis = np.linspace(-6, 6, 601)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).astype(np.float32)
    log_p = np.asarray(jax.lax.map(prior.log_prob, jnp.asarray(points)), np.float64)
    return axis, log_p


def test_standard_normal_is_scipys():
    z = np.random.default_rng(0).normal(0, 2, (6, 5))
    with jax.enable_x64(True):
        got = StandardNormal(5).log_prob(jnp.asarray(z))
    np.testing.assert_allclose(got, scipy.stats.multivariate_normal(np.zeros(5)).logpdf(z), rtol=1e-12)


def test_mixture_is_the_sum_of_scipys_densities():
    z = np.random.default_rng(0).normal(0, 2, (3, 4, 2))
    parts = [
        w * scipy.stats.multivariate_normal(m, c).pdf(z)
        for w, m, c in zip((0.25, 0.75), MIXTURE.means, MIXTURE.covariances, strict=True)
    ]
    with jax.enable_x64(True):
        got = MIXTURE.log_prob(jnp.asarray(z))
    np.testing.assert_allclose(got, np.log(sum(parts)), rtol=1e-10)


@pytest.mark.parametrize("roll", [SwissRoll(), SwissRoll(radius=3.0, turns=2.0, noise=0.07), SwissRoll(1.0, 1.0, 0.5)])
def test_swiss_roll_is_the_integral_along_the_roll(roll):
    def integrand(s, x, y):
        angle = 2 * np.pi * roll.turns * s
        sq = (x - roll.radius * s * np.cos(angle)) ** 2 + (y - roll.radius * s * np.sin(angle)) ** 2
        return 2 * s * np.exp(-sq / (2 * roll.noise**2)) / (2 * np.pi * roll.noise**2)

    for z in [(0.0, 0.0), (3.0, 0.05), (-2.2, 0.1), (0.3, -1.0), (1.4, 0.0), (-0.5, 2.0)]:
        exact = scipy.integrate.quad(
            integrand, 0, 1, z, epsabs=0, epsrel=1e-10, limit=1000, points=np.linspace(0, 1, 60)
        )[0]
        with jax.enable_x64(True):
            got = roll.log_prob(jnp.asarray(z))
        np.testing.assert_allclose(got, np.log(exact), atol=5e-6)


@pytest.mark.parametrize("name", PLANE)
def test_densities_integrate_to_one(name):
    axis, log_p = grid(PLANE[name])
    total = np.trapezoid(np.trapezoid(np.exp(log_p), axis), axis)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("name", PLANE)
def test_samples_have_the_entropy_and_the_marginals_of_the_density(name):
    prior = PLANE[name]
    axis, log_p = grid(prior)
    p = np.exp(log_p)
    z = prior.sample(jax.random.key(3), 20_000)
    assert z.shape == (20_000, 2)
    values = np.asarray(prior.log_prob(z))
    expected = np.trapezoid(np.trapezoid(p * np.where(p > 0, log_p, 0), axis), axis)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))
    for i in range(2):
        cdf = scipy.integrate.cumulative_trapezoid(np.trapezoid(p, axis, axis=1 - i), axis, initial=0)
        assert scipy.stats.kstest(np.asarray(z[:, i]), lambda v, cdf=cdf: np.interp(v, axis, cdf)).pvalue > 0.01


@pytest.mark.parametrize(
    ("prior", "mean", "second"),
    [
        (StandardNormal(3), 0.0, 1.0),
        # E|z|^2 / 2 = (radius^2 + radial^2 + tangential^2) / 2, equal in both axes by symmetry
        (GaussianMixture.ring(), 0.0, (1.4**2 + 0.5**2 + 0.1**2) / 2),
    ],
)
def test_moments_by_hand(prior, mean, second):
    z = np.asarray(prior.sample(jax.random.key(4), 40_000))
    assert (abs(z.mean(0) - mean) < 4 * z.std(0) / 200).all()
    assert (abs((z**2).mean(0) - second) < 4 * (z**2).std(0) / 200).all()


def test_moments_of_the_swiss_roll_by_hand():
    # |z|^2 = radius^2 u + thickness, u uniform: radius^2 / 2 + 2 noise^2
    sq = np.asarray(jnp.square(SwissRoll().sample(jax.random.key(5), 40_000)).sum(1))
    assert abs(sq.mean() - (4.5 + 0.02)) < 4 * sq.std() / 200


@pytest.mark.parametrize("name", PLANE)
def test_scores_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        z = PLANE[name].sample(jax.random.key(6), 4)
        check_grads(jax.jit(PLANE[name].log_prob), (z,), order=1)


def test_a_prior_is_a_static_argument():
    traces = []

    def log_prob(z, prior):
        traces.append(prior)
        return prior.log_prob(z)

    jitted = jax.jit(log_prob, static_argnames="prior")
    for name in ("normal", "mixture", "swiss_roll"):
        for _ in range(2):
            jitted(jnp.zeros((1, 2)), prior=priors.get(name, 2))  # built anew, and equal
    assert len(traces) == 3


def test_priors_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="Did you mean 'normal'"):
        priors.get("norml", 2)
    with pytest.raises(InputError, match="2 dimensions; latent_dim is 8"):
        priors.get("swiss_roll", 8)
    with pytest.raises(InputError, match="means"):
        GaussianMixture((1.0, 1.0), ((0.0,),), (((1.0,),),))
    with pytest.raises(InputError, match="positive"):
        GaussianMixture((0.0,), ((0.0,),), (((1.0,),),))
    with pytest.raises(InputError, match="definite"):
        GaussianMixture((1.0,), ((0.0, 0.0),), (((1.0, 2.0), (2.0, 1.0)),))
    with pytest.raises(InputError, match="symmetric"):
        GaussianMixture((1.0,), ((0.0, 0.0),), (((1.0, 0.5), (0.0, 1.0)),))
    with pytest.raises(InputError, match="noise of at least"):
        SwissRoll(noise=0.01)
    with pytest.raises(AssertionError):
        StandardNormal(2).log_prob(jnp.zeros((4, 3)))
