"""Priors: densities against scipy and quadrature, samples against densities; learned ones within their model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads
from scipy.special import expit, log_softmax, logsumexp

from aejax import priors, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE
from aejax.methods.cvae import CVAE
from aejax.methods.vae import VAE, HParams, vae, vae_loss
from aejax.nets import Couplings, init_params
from aejax.priors import FlowPrior, GaussianMixture, LearnedMixture, StandardNormal, SwissRoll, VampPrior

MIXTURE = GaussianMixture((1.0, 3.0), ((-1.0, 0.5), (1.0, 0.0)), (((0.5, 0.2), (0.2, 0.3)), ((0.2, -0.1), (-0.1, 0.4))))
MEANS, LOGVARS, LOGITS = (
    np.random.default_rng(1).normal(0, scale, shape) for scale, shape in ((1, (3, 2)), (0.5, (3, 2)), (1, (3,)))
)
LOGVARS -= 1
# Three pseudo-inputs of four pixels, and an encoder of them: means that depend on x, and log-variances that do too.
PSEUDO, KERNEL = (np.random.default_rng(2).normal(0, 1, shape) for shape in ((3, 4), (4, 4)))
BIAS = np.array([0.0, 0.0, -2.0, -2.0])


class Learned:
    """A learned prior within a linear VAE on four pixels, as one that can be sampled and has a density."""

    def __init__(self, prior, params, likelihood="bernoulli", dtype=jnp.float32):
        encoder = {"kernel": jnp.asarray(KERNEL, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}
        params = jax.tree.map(lambda v: jnp.asarray(v, dtype), params)
        model = VAE(nn.Dense(4), nn.Dense(4), latent_dim=2, likelihood=likelihood, prior=prior)
        bound = model.bind({"params": {"encoder": encoder, "prior": params}})
        self.sample, self.log_prob = jax.jit(bound.sample_prior, static_argnums=1), bound.log_prior


LEARNED = Learned(LearnedMixture(3), {"means": MEANS, "logvars": LOGVARS, "logits": LOGITS})
VAMP = Learned(VampPrior(3), {"pseudo_inputs": PSEUDO})
_COUPLINGS = Couplings(3, (5,), nn.tanh)
FLOW_PARAMS = jax.tree.map(
    lambda leaf: 0.4 * np.random.default_rng(leaf.size).normal(size=leaf.shape),
    jax.eval_shape(_COUPLINGS.init, jax.random.key(0), jnp.ones((1, 2)))["params"],
)
FLOW = Learned(FlowPrior(_COUPLINGS), {"flow": FLOW_PARAMS})
PLANE = {
    "normal": StandardNormal(2),
    "mixture": MIXTURE,
    "ring": GaussianMixture.ring(),
    "roll": SwissRoll(),
    "learned": LEARNED,
    "vamp": VAMP,
    "flow": FLOW,
}


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


def log_mixture(z, log_weights, means, logvars):
    each = scipy.stats.norm(means, np.exp(logvars / 2)).logpdf(z[..., None, :]).sum(-1)
    return logsumexp(log_weights + each, axis=-1)


def test_the_learned_mixture_is_the_sum_of_scipys_densities():
    z = np.random.default_rng(0).normal(0, 2, (3, 4, 2))
    expected = log_mixture(z, log_softmax(LOGITS), MEANS, LOGVARS)
    np.testing.assert_allclose(LEARNED.log_prob(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)


def test_the_learned_mixture_of_half_precision_is_drawn_and_summed_in_float32():
    """Parameters are such as bfloat16 holds exactly; codes of float64 are taken under strict promotion too."""
    given = {"means": MEANS, "logvars": LOGVARS, "logits": LOGITS}
    rounded = {name: np.float64(jnp.asarray(v, jnp.bfloat16)) for name, v in given.items()}
    half = Learned(LearnedMixture(3), rounded, dtype=jnp.bfloat16)
    z = np.random.default_rng(0).normal(0, 2, (3, 4, 2))
    expected = log_mixture(z, log_softmax(rounded["logits"]), rounded["means"], rounded["logvars"])
    np.testing.assert_allclose(half.log_prob(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)
    draws = half.sample(jax.random.key(0), 4096)
    assert draws.dtype == jnp.float32
    assert len(np.unique(np.asarray(draws[:, 0]))) > 4000  # bfloat16 has a few hundred values there
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(half.log_prob(jnp.asarray(z)), expected, rtol=1e-6)


@pytest.mark.parametrize(("likelihood", "squash"), [("bernoulli", expit), ("gaussian", lambda raw: raw)])
def test_vampprior_is_the_mean_of_the_posteriors_at_its_pseudo_inputs(likelihood, squash):
    """The pseudo-inputs lie in [0, 1] where the data do."""
    z = np.random.default_rng(0).normal(0, 2, (3, 4, 2))
    means, logvars = np.split(squash(PSEUDO) @ KERNEL + BIAS, 2, axis=1)
    expected = log_mixture(z, -np.log(3), means, logvars)
    prior = Learned(VampPrior(3), {"pseudo_inputs": PSEUDO}, likelihood)
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_flow_prior_is_what_the_flow_makes_of_the_standard_normal():
    """Draws are images of those of N(0, I), and the density there has the determinant of the exact Jacobian."""
    forward = lambda u: _COUPLINGS.apply({"params": FLOW_PARAMS}, u)[0]
    with jax.enable_x64(True):
        u = StandardNormal(2).sample(jax.random.key(8), 5)
        z, jacobians = forward(u), jax.vmap(jax.jacfwd(forward))(u)
    expected = scipy.stats.norm.logpdf(u).sum(1) - np.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(FLOW.log_prob(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)
    drawn = FLOW.sample(jax.random.key(9), 5)
    np.testing.assert_allclose(drawn, forward(StandardNormal(2).sample(jax.random.key(9), 5)), rtol=1e-5)


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


@pytest.mark.first(3)
@pytest.mark.parametrize("name", PLANE)
def test_densities_integrate_to_one(name):
    axis, log_p = grid(PLANE[name])
    total = np.trapezoid(np.trapezoid(np.exp(log_p), axis), axis)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.first(1)
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


@pytest.mark.first(1)
@pytest.mark.parametrize("name", PLANE)
def test_scores_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        z = jnp.asarray(PLANE[name].sample(jax.random.key(6), 4), jnp.float64)
        check_grads(jax.jit(PLANE[name].log_prob), (z,), order=1)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [LearnedMixture(4), VampPrior(4), FlowPrior(Couplings(4, (8,)))])
def test_a_learned_prior_is_a_group_that_training_moves(prior, digits):
    """Its bound ends below that of the same steps with the prior at rest: its gradient goes the right way."""
    model, data = VAE.dense(64, 2, hidden_dims=(16,), prior=prior), Batch(jnp.asarray(digits[:256]))
    params = init_params(model, jax.random.key(0), data.x)
    assert model.groups == ("encoder", "decoder", "prior")
    assert set(params) == set(model.groups)
    algo = vae(model, HParams(lr=1e-2))
    *_, last = training.train(algo, algo.init(params), data, jax.random.key(1), batch_size=64, num_epochs=4)
    rows = (lambda v: v.reshape(4, -1)) if not isinstance(prior, FlowPrior) else (lambda v: v.reshape(1, -1))
    moved = jax.tree.map(lambda a, b: rows(jnp.abs(a - b)).max(axis=1), last.state.params["prior"], params["prior"])
    assert all((farthest > 1e-2).all() for farthest in jax.tree.leaves(moved))  # every component

    def bound(prior):
        return vae_loss({**last.state.params, "prior": prior}, data, jax.random.key(2), model=model)[0]

    assert bound(last.state.params["prior"]) < bound(params["prior"])


def test_a_model_without_a_prior_says_what_to_do():
    model = AE.dense(4, 2, hidden_dims=())
    params = init_params(model, jax.random.key(0), jnp.zeros((1, 4)))
    for method, arguments in (("sample", (jax.random.key(0), 3)), ("log_prior", (jnp.zeros((1, 2)),))):
        with pytest.raises(InputError, match=r"This AE has no prior .*AE\.dense\(\.\.\., prior='normal'\)"):
            model.apply({"params": params}, *arguments, method=method)
    advised = AE.dense(4, 2, hidden_dims=(), prior="normal")
    assert advised.apply({"params": params}, jax.random.key(0), 3, method="sample").shape == (3, 4)
    assert model.apply({"params": params}, jnp.zeros((3, 2)), method="generate").shape == (3, 4)  # codes of one's own


def test_samples_of_the_model_have_the_moments_of_a_linear_decoder():
    """x = A z + b of draws of the mixture: E x = A E z + b, and Cov x = A Cov z A'."""
    model = AE.dense(3, 2, hidden_dims=(), likelihood="gaussian", prior=MIXTURE)
    kernel, bias = np.array([[1.0, 0.5, -1.0], [0.0, 2.0, 1.0]]), np.array([3.0, 0.0, -1.0])
    params = {"decoder": {"dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}
    x = np.asarray(model.apply({"params": params}, jax.random.key(7), 40_000, method="sample"), np.float64)
    weights, means, covariances = np.array([0.25, 0.75]), np.array(MIXTURE.means), np.array(MIXTURE.covariances)
    second = np.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None, :])
    mean = weights @ means
    off = x - (mean @ kernel + bias)
    assert (abs(off.mean(0)) < 4 * off.std(0) / 200).all()
    products = off[:, :, None] * off[:, None, :]
    expected = kernel.T @ (second - np.outer(mean, mean)) @ kernel
    assert (abs(products.mean(0) - expected) < 4 * products.std(0) / 200).all()


def test_learned_priors_that_cannot_be_are_refused():
    x = jnp.zeros((1, 4))
    for model, message in (
        (AE.dense(4, 2, prior=VampPrior(3)), "AE.encode returns none such: use LearnedMixture"),
        (VAE.dense(4, 2, prior=VampPrior(0)), "num_pseudo_inputs is 0"),
        (VAE.dense(4, 2, prior=LearnedMixture(-1)), "num_components is -1"),
        (VAE.dense(4, 1, prior=FlowPrior(Couplings())), "codes of at least 2 numbers"),
        (VAE.dense(4, 2, prior=nn.Dense(3)), r"is a Dense; give one of \['mixture', 'normal'"),
        (VAE.dense(4, 3, prior="swiss_roll"), "2 dimensions; latent_dim is 3"),
        (VAE.dense(4, 3, prior=StandardNormal(2)), "2 dimensions; latent_dim is 3"),
        (VAE.dense(4, 2, prior="vamp"), "Unknown prior 'vamp'"),
    ):
        with pytest.raises(InputError, match=message):
            init_params(model, jax.random.key(0), x)
    init_params(AE.dense(4, 2, prior=LearnedMixture(3)), jax.random.key(0), x)  # as the first one is told
    labelled = Batch(x, jnp.zeros(1, jnp.int32))
    with pytest.raises(InputError, match="CVAE is conditioned on labels, VampPrior is not: use LearnedMixture"):
        init_params(CVAE.dense(4, 2, prior=VampPrior(3)), jax.random.key(0), labelled)
    jax.eval_shape(lambda: init_params(CVAE.dense(4, 2, prior=LearnedMixture(3)), jax.random.key(0), labelled))


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
    with pytest.raises(InputError, match=r"noise of at least [\d.]+\.$") as error:
        SwissRoll(noise=0.01)
    SwissRoll(noise=float(str(error.value).rpartition(" ")[2].rstrip(".")))
    with pytest.raises(AssertionError):
        StandardNormal(2).log_prob(jnp.zeros((4, 3)))


def test_a_class_and_a_style_are_as_likely_as_counted():
    """All of it sums to 1, over the corners and along the style; draws are one-hot, even, and normal beside."""
    prior = priors.ClassAndStyle(3, 4)
    line = np.linspace(-8, 8, 1601)
    corners = np.concatenate([np.repeat(np.eye(3), len(line), axis=0), np.tile(line, 3)[:, None]], axis=1)
    density = np.exp(np.asarray(prior.log_prob(jnp.asarray(corners)), np.float64)).reshape(3, -1)
    np.testing.assert_allclose(density.sum(axis=1) * 0.01, np.full(3, 1 / 3), rtol=1e-5)
    np.testing.assert_allclose(density[1], scipy.stats.norm.pdf(line) / 3, rtol=1e-4, atol=1e-30)
    assert prior.log_prob(jnp.array([1.0, 1.0, 0.0, 0.0])) == -jnp.inf
    z = np.asarray(prior.sample(jax.random.key(0), 6000))
    assert (np.sort(z[:, :3], axis=1) == [0, 0, 1]).all()
    found = [scipy.stats.kstest(z[z[:, k] == 1, 3], "norm") for k in range(3)]
    assert min(scipy.stats.chisquare(z[:, :3].sum(axis=0)).pvalue, *(each.pvalue for each in found)) > 1e-3
    with pytest.raises(InputError, match="at least one number of style"):
        priors.ClassAndStyle(3, 3)
