"""Posteriors: densities against scipy, draws against densities, divergences against Monte Carlo."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aejax import priors
from aejax.methods.vae import VAE
from aejax.nets import Autoregressive
from aejax.posteriors import DiagonalGaussian, Flow, noise, sample_and_kl

RNG = np.random.default_rng(0)
MEAN, LOGVAR = RNG.normal(0, 2, (5, 3)), RNG.normal(0, 1, (5, 3))
Q = DiagonalGaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(LOGVAR, jnp.float32))
KEY = jax.random.key(0)


def scipy_log_prob(z):
    return scipy.stats.norm(MEAN, np.exp(LOGVAR / 2)).logpdf(z).sum(-1)


def test_the_density_is_scipys():
    z = RNG.normal(0, 2, (5, 3))
    with jax.enable_x64(True):
        got = DiagonalGaussian(jnp.asarray(MEAN), jnp.asarray(LOGVAR)).log_prob(jnp.asarray(z))
    np.testing.assert_allclose(got, scipy_log_prob(z), rtol=1e-12)


def test_draws_have_the_distribution_asked_for():
    z = DiagonalGaussian(jnp.full((20_000,), 1.5), jnp.full((20_000,), np.log(0.25))).sample(jax.random.key(5))
    assert scipy.stats.kstest(np.asarray(z), scipy.stats.norm(1.5, 0.5).cdf).pvalue > 0.01
    with pytest.raises(AssertionError, match="shape"):
        DiagonalGaussian(jnp.zeros((2, 3)), jnp.zeros((2, 1))).sample(KEY)


def test_a_draw_comes_with_its_density():
    z, log_q = Q.sample_and_log_prob(KEY)
    np.testing.assert_array_equal(z, Q.sample(jax.random.clone(KEY)))
    np.testing.assert_allclose(log_q, scipy_log_prob(np.asarray(z, np.float64)), rtol=1e-5)


def test_the_closed_divergence_is_that_of_monte_carlo():
    z, log_q = jax.jit(jax.vmap(Q.sample_and_log_prob))(jax.random.split(jax.random.key(1), 20_000))
    values = np.asarray(log_q, np.float64) - scipy.stats.norm.logpdf(z).sum(-1)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - np.asarray(Q.kl_standard_normal())) < 4 * error).all()


def test_one_key_for_each_example():
    keys = jax.random.split(KEY, 5)
    rows = [jax.random.normal(key, (3,)) for key in keys]
    np.testing.assert_array_equal(noise(keys, (5, 3)), np.stack(rows))
    z, log_q = Q.sample_and_log_prob(jax.random.clone(keys))
    np.testing.assert_allclose(z, MEAN + np.exp(LOGVAR / 2) * np.stack(rows), rtol=1e-5)
    np.testing.assert_allclose(log_q, scipy_log_prob(np.asarray(z, np.float64)), rtol=1e-5)
    np.testing.assert_array_equal(noise(jax.random.PRNGKey(3), (5, 3)), noise(jax.random.key(3), (5, 3)))
    with pytest.raises(AssertionError, match="shape"):
        noise(keys[:4], (5, 3))


def test_it_is_a_pytree_that_leaves_jit_and_unpacks():
    mean, logvar = jax.jit(lambda q: q)(Q)
    np.testing.assert_array_equal(mean, Q.mode)
    np.testing.assert_array_equal(logvar, Q.logvar)


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_density_and_gradient_are_finite_at_extreme_variances(logvar):
    def log_q(q):
        return q.sample_and_log_prob(KEY)[1].sum()

    value, grads = jax.value_and_grad(log_q)(DiagonalGaussian(jnp.ones((1, 2)), jnp.full((1, 2), logvar)))
    assert np.isfinite(value)
    np.testing.assert_allclose(grads.logvar, [[-0.5, -0.5]], rtol=1e-6)  # of -logvar / 2, the entropy's other sign
    np.testing.assert_array_equal(grads.mean, [[0.0, 0.0]])


def test_densities_of_half_precision_are_summed_wide():
    q = DiagonalGaussian(jnp.zeros((1, 4096), jnp.bfloat16), jnp.ones((1, 4096), jnp.bfloat16))
    # Of 4096 dimensions, -(1 + log 2 pi) / 2 each at the mean; the sum in bfloat16 would be a multiple of 32.
    np.testing.assert_allclose(q.log_prob(q.mean), [-2048 * (1 + np.log(2 * np.pi))], rtol=3e-3)
    assert q.log_prob(q.mean).dtype == jnp.float32


def test_half_precision_is_drawn_and_measured_in_single():
    """In bfloat16 exp(logvar / 2), the noise and their product would each be off by up to 1 in 256."""
    half = [jax.random.normal(key, (64, 8)).astype(jnp.bfloat16) for key in jax.random.split(KEY)]
    q, single = DiagonalGaussian(*half), DiagonalGaussian(*(v.astype(jnp.float32) for v in half))
    (z, log_q), (expected, log_expected) = (p.sample_and_log_prob(KEY) for p in (q, single))
    assert z.dtype == log_q.dtype == jnp.float32
    for a, b in ((z, expected), (log_q, log_expected), (q.sample(KEY), expected), (q.log_prob(z), single.log_prob(z))):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    points = half[0][:, :2]
    for prior in (priors.StandardNormal(2), priors.GaussianMixture.ring(), priors.SwissRoll()):
        np.testing.assert_allclose(prior.log_prob(points), prior.log_prob(points.astype(jnp.float32)), rtol=1e-6)


def test_the_divergence_from_the_prior_of_the_model():
    mixture = priors.GaussianMixture((1.0, 2.0), ((0.0,) * 3, (1.0,) * 3), (tuple(map(tuple, np.eye(3))),) * 2)
    z, log_q = Q.sample_and_log_prob(KEY)
    log_p = {
        "normal": scipy.stats.norm.logpdf(z).sum(-1),
        mixture: np.logaddexp(
            np.log(1 / 3) + scipy.stats.norm.logpdf(z).sum(-1), np.log(2 / 3) + scipy.stats.norm(1).logpdf(z).sum(-1)
        ),
    }
    for prior, expected in log_p.items():
        model = VAE.dense(4, 3, prior=prior).bind({"params": {}})
        for closed in (True, False):
            drawn, kl = sample_and_kl(Q, jax.random.clone(KEY), model, closed=closed)
            np.testing.assert_array_equal(drawn, z)
            if closed and prior == "normal":
                np.testing.assert_array_equal(kl, Q.kl_standard_normal())
            else:
                np.testing.assert_allclose(kl, log_q - expected, rtol=1e-5, atol=1e-5)


class Shifted(VAE):
    """A model with a prior of its own, N(1, I)."""

    def log_prior(self, z):
        return priors.StandardNormal(self.latent_dim).log_prob(z - 1)


def test_a_model_that_overrides_its_prior_is_not_taken_for_the_standard_normal():
    model = Shifted.dense(4, 3).bind({"params": {}})
    z, kl = sample_and_kl(Q, KEY, model)
    np.testing.assert_allclose(kl, scipy_log_prob(np.asarray(z)) - scipy.stats.norm(1).logpdf(z).sum(-1), rtol=1e-4)


# --- flows ---------------------------------------------------------------------------------------------------------


def flow_of(base, seed=0):
    """A posterior far from its base, told three numbers of each example."""
    flow, rng = Autoregressive(2, (6,), nn.tanh), np.random.default_rng(seed)
    context = jnp.asarray(rng.normal(size=(len(base.mean), 3)), jnp.float32)
    shapes = jax.eval_shape(flow.init, KEY, base.mean, context)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    return Flow(base, (context,), params, flow)


def single(q, i):
    """The posterior of example i alone, in float64."""
    wide = lambda tree: jax.tree.map(lambda v: jnp.asarray(np.float64(v)), tree)
    row = lambda v: v[i : i + 1]
    return Flow(jax.tree.map(row, wide(q.base)), tuple(map(row, wide(q.context))), wide(q.params), q.flow)


@pytest.mark.slow
def test_the_density_of_a_flow_has_the_determinant_of_its_exact_jacobian():
    """z = flow(mean + exp(logvar / 2) e), each example with its own context."""
    q = flow_of(Q)
    z, log_q = jax.jit(Flow.sample_and_log_prob)(q, KEY)
    e = np.float64(jax.random.normal(jax.random.clone(KEY), (5, 3)))
    with jax.enable_x64(True):
        for i in range(5):
            own = single(q, i)

            def placed(e, own=own):
                u = own.base.mean + jnp.exp(0.5 * own.base.logvar) * e[None]
                return own.flow.apply(own.params, u, *own.context)[0][0]

            at, jacobian = jax.jit(lambda e, placed=placed: (placed(e), jax.jacfwd(placed)(e)))(jnp.asarray(e[i]))
            np.testing.assert_allclose(z[i], at, rtol=1e-4, atol=1e-4)
            expected = scipy.stats.norm.logpdf(e[i]).sum() - np.linalg.slogdet(jacobian)[1]
            np.testing.assert_allclose(log_q[i], expected, rtol=1e-5)
    np.testing.assert_allclose(q.sample(jax.random.clone(KEY)), z, rtol=1e-5)


def test_a_draw_of_a_flow_has_the_density_that_the_inverse_finds_there():
    q = flow_of(Q)
    z, log_q = jax.jit(Flow.sample_and_log_prob)(q, KEY)
    np.testing.assert_allclose(jax.jit(Flow.log_prob)(q, z), log_q, rtol=1e-4)
    leaves, structure = jax.tree.flatten(jax.jit(lambda q: q)(q))
    assert structure == jax.tree.structure(flow_of(Q))  # so that what it goes into is compiled once
    np.testing.assert_array_equal(structure.unflatten(leaves).mode, q.mode)


@pytest.mark.parametrize("size", [1, 2])
def test_the_density_of_a_flow_integrates_to_one(size):
    q = flow_of(DiagonalGaussian(jnp.full((1, size), 0.3), jnp.full((1, size), -0.5)))
    axis = np.linspace(-15, 15, {1: 6001, 2: 801}[size])
    points = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, 1, size)
    log_q = jax.jit(lambda z: jax.vmap(q.log_prob)(z))(jnp.asarray(points, jnp.float32))
    density = np.exp(np.float64(log_q)).reshape([len(axis)] * size)
    for _ in range(size):
        density = np.trapezoid(density, axis, axis=-1)
    np.testing.assert_allclose(density, 1, atol=1e-4)


def test_a_flow_as_it_begins_is_its_base():
    context = jnp.ones((5, 3))
    flow = Autoregressive()
    q = Flow(Q, (context,), jax.jit(flow.init)(KEY, Q.mean, context), flow)
    z, log_q = q.sample_and_log_prob(jax.random.clone(KEY))
    expected, log_expected = Q.sample_and_log_prob(jax.random.clone(KEY))
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(log_q, log_expected)
    np.testing.assert_array_equal(q.mode, Q.mean)


def test_a_flow_is_given_one_key_for_each_example_too():
    keys, q = jax.random.split(KEY, 5), flow_of(Q)
    z, log_q = q.sample_and_log_prob(keys)
    u = Q.sample(jax.random.clone(keys))
    expected, log_det = q.flow.apply(q.params, u, *q.context)
    np.testing.assert_allclose(z, expected, rtol=1e-6)
    np.testing.assert_allclose(log_q, Q.log_prob(u) - log_det, rtol=1e-4, atol=1e-4)


def test_a_flow_of_half_precision_is_drawn_and_measured_in_single():
    half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), (Q, flow_of(Q).context))
    wide = jax.tree.map(lambda v: v.astype(jnp.float32), half)
    q, expected = (Flow(*parts, flow_of(Q).params, flow_of(Q).flow) for parts in (half, wide))
    for a, b in zip(q.sample_and_log_prob(KEY), expected.sample_and_log_prob(jax.random.clone(KEY)), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)
