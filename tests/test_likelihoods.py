"""Likelihoods against scipy, at the ends of the float range, and in their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, log_softmax, logsumexp, softmax

from aejax.checks import InputError
from aejax.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    Multinomial,
    NegativeBinomial,
    Observed,
    Poisson,
    Weighted,
    bernoulli_nll,
    gaussian_nll,
    sse,
)

rng = np.random.default_rng(0)
OUTPUT = rng.normal(0, 3, (4, 3, 2))
BITS = (rng.random((4, 3, 2)) < 0.5).astype(np.float64)
PIXELS = rng.random((4, 3, 2))
LOGVAR = rng.normal(0, 1, (4, 3, 2))
COUNTS = rng.poisson(5, (4, 3, 2)).astype(np.float64)
LOGISTICS = rng.normal(0, 1, (4, 3, 3, 3, 2))  # parameter and mixture in front of the channel


def joined(*blocks):
    return np.concatenate(blocks, axis=-1)


def floored(logvar):
    """The variance of the code of Rybkin et al.: log sigma of -6 and the softplus of what lies above."""
    return np.exp(2 * (-6 + np.logaddexp(0, logvar / 2 + 6)))


def dispersion(raw):
    return np.clip(np.logaddexp(0, raw), 1e-4, 1e4)


def negative_binomial(output):
    """scipy's has the number of successes, and their probability."""
    mean, size = np.exp(output[..., :2]), dispersion(output[..., 2:])
    return scipy.stats.nbinom(size, size / (size + mean))


def shares(output, levels):
    """The probability of each level under the mixture of logistics, `[..., C, levels]`: differences of scipy's cdf."""
    logits, mean, log_scale = (output[..., i, :, :, None] for i in range(3))
    edges = np.linspace(-1, 1, levels)[:-1] + 1 / (levels - 1)
    cdf = scipy.stats.logistic.cdf(edges, mean, np.exp(np.maximum(log_scale, -7)))
    cdf = np.concatenate([np.zeros_like(mean), cdf, np.ones_like(mean)], axis=-1)
    return (softmax(logits, axis=-3) * np.diff(cdf, axis=-1)).sum(-3)


def picked(p, level):
    return np.log(np.take_along_axis(p, level.astype(int)[..., None], axis=-1))[..., 0]


def categories(logits):
    return np.moveaxis(softmax(logits.reshape(4, 3, 5, 2), axis=-2), -2, -1)


FIVE = rng.normal(0, 1, (4, 3, 10))
OPTIMAL = np.sqrt(np.mean((PIXELS - OUTPUT) ** 2))

# What is asked: the likelihood, output and x, and from elsewhere the log-likelihood of each component, and the mean.
CASES = {
    "bernoulli": (Bernoulli(), OUTPUT, BITS, scipy.stats.bernoulli.logpmf(BITS, expit(OUTPUT)), expit(OUTPUT)),
    "unit": (Gaussian(), OUTPUT, PIXELS, scipy.stats.norm.logpdf(PIXELS, OUTPUT), OUTPUT),
    "fixed": (Gaussian(0.3), OUTPUT, PIXELS, scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.sqrt(0.3)), OUTPUT),
    "learned": (
        Gaussian("learned"), joined(OUTPUT, np.full_like(OUTPUT, -3.0)), PIXELS,
        scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.sqrt(floored(-3.0))), OUTPUT,
    ),
    "per_pixel": (
        Gaussian("per_pixel"), joined(OUTPUT, 5 * LOGVAR), PIXELS,
        scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.sqrt(floored(5 * LOGVAR))), OUTPUT,
    ),
    "optimal": (Gaussian("optimal"), OUTPUT, PIXELS, scipy.stats.norm.logpdf(PIXELS, OUTPUT, OPTIMAL), OUTPUT),
    "categorical": (
        Categorical(5), FIVE, np.round(PIXELS * 4) / 4, picked(categories(FIVE), np.round(PIXELS * 4)),
        categories(FIVE) @ np.linspace(0, 1, 5),
    ),
    "logistics": (
        DiscretizedLogistic(3, 256), LOGISTICS.reshape(4, 3, 18), np.round(PIXELS * 255) / 255,
        picked(shares(LOGISTICS, 256), np.round(PIXELS * 255)), shares(LOGISTICS, 256) @ np.linspace(0, 1, 256),
    ),
    "poisson": (Poisson(), OUTPUT, COUNTS, scipy.stats.poisson.logpmf(COUNTS, np.exp(OUTPUT)), np.exp(OUTPUT)),
    "negative_binomial": (
        NegativeBinomial(), joined(OUTPUT, 3 * LOGVAR), COUNTS,
        negative_binomial(joined(OUTPUT, 3 * LOGVAR)).logpmf(COUNTS), np.exp(OUTPUT),
    ),
    "multinomial": (
        Multinomial(), OUTPUT, COUNTS, COUNTS * log_softmax(OUTPUT, axis=(1, 2)), softmax(OUTPUT, axis=(1, 2)),
    ),
    "weighted": (
        Weighted(), OUTPUT, PIXELS, PIXELS * log_softmax(OUTPUT, axis=(1, 2)), softmax(OUTPUT, axis=(1, 2)),
    ),
    "observed": (
        Observed(Gaussian(0.3)), OUTPUT, np.where(BITS, PIXELS, np.nan),
        BITS * scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.sqrt(0.3)), OUTPUT,
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)
every_name = pytest.mark.parametrize("name", LIKELIHOODS)


# --- functions -------------------------------------------------------------------------------------------------------


def test_the_parameter_of_a_learned_variance_is_found_from_it():
    for variance in (1e-5, 0.03, 1.0, 1e4):
        np.testing.assert_allclose(floored(Gaussian.raw_logvar(variance)), variance, rtol=1e-12)
    for variance in (np.exp(-12.0), 0.0, np.inf, np.nan):
        with pytest.raises(InputError, match=r"is not to be learned; above 6\.14e-06 it is"):
            Gaussian.raw_logvar(variance)


def test_bernoulli_of_grey_pixels_is_the_cross_entropy_whose_floor_is_the_entropy():
    with jax.enable_x64(True):
        got = bernoulli_nll(jnp.asarray(scipy.special.logit(PIXELS)), jnp.asarray(PIXELS))
    np.testing.assert_allclose(got, scipy.stats.bernoulli.entropy(PIXELS).sum((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("logvar", [LOGVAR, 0.0, -1.5])
def test_gaussian_is_scipys(logvar):
    with jax.enable_x64(True):
        got = gaussian_nll(
            jnp.asarray(OUTPUT), jnp.asarray(PIXELS), logvar if np.isscalar(logvar) else jnp.asarray(logvar)
        )
    expected = -scipy.stats.norm.logpdf(PIXELS, OUTPUT, np.exp(np.asarray(logvar) / 2)).sum((1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_sse_by_hand():
    # (1 - 3)^2 + (2 - 2)^2 + (0 + 1)^2 = 5, and 4 * 0.25 = 1 with one pixel right
    x_hat = jnp.array([[1.0, 2.0, 0.0], [0.5, 0.5, 7.0]])
    x = jnp.array([[3.0, 2.0, -1.0], [0.0, 1.0, 7.0]])
    assert sse(x_hat, x).tolist() == [5.0, 0.5]


def test_gaussian_of_unit_variance_is_half_the_sse_and_a_constant():
    mean, x = jnp.asarray(OUTPUT, jnp.float32), jnp.asarray(PIXELS, jnp.float32)
    np.testing.assert_allclose(gaussian_nll(mean, x) - sse(mean, x) / 2, 6 * 0.9189385, rtol=1e-5)  # log(2 pi) / 2


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 20.0, 100.0, 1e4])
def test_bernoulli_is_exact_at_any_logit(logit, x):
    nll = lambda logit: bernoulli_nll(jnp.full((1, 1), logit), jnp.full((1, 1), x))[0]
    value, grad = jax.value_and_grad(nll)(logit)
    # -x log s(l) - (1 - x) log(1 - s(l)), and its derivative s(l) - x
    expected = x * np.logaddexp(0, -logit) + (1 - x) * np.logaddexp(0, logit)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-40)
    rate = scipy.special.expit(logit)
    np.testing.assert_allclose(grad, rate - x, atol=1e-7)
    np.testing.assert_allclose(jax.grad(jax.grad(nll))(logit), rate * (1 - rate), atol=1e-7)


@pytest.mark.parametrize("logvar", [-80.0, 80.0])
def test_gaussian_is_exact_at_any_variance(logvar):
    mean, x, lv = jnp.full((1, 2), 1.5), jnp.full((1, 2), 1.0), jnp.full((1, 2), logvar)
    value, grads = jax.value_and_grad(lambda m, v: gaussian_nll(m, x, v)[0], (0, 1))(mean, lv)
    precision = np.exp(-logvar)
    np.testing.assert_allclose(value, 0.25 * precision + logvar + np.log(2 * np.pi), rtol=1e-5)
    np.testing.assert_allclose(grads[0], np.full((1, 2), 0.5 * precision), rtol=1e-5)
    np.testing.assert_allclose(grads[1], np.full((1, 2), 0.5 - 0.125 * precision), rtol=1e-5)


@pytest.mark.parametrize("loss", [bernoulli_nll, gaussian_nll, sse])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(AssertionError, match="shape"):
        loss(jnp.zeros((4, 3)), jnp.zeros((4, 1)))


# --- objects ---------------------------------------------------------------------------------------------------------


def evaluated(likelihood, output, x):
    """Each number that a likelihood has for output and x, compiled as one program."""

    def together(output):
        return likelihood.nll(output, x).sum()

    def all_of_it(output):
        one = lambda o, x: likelihood.nll(o[None], x[None])[0]
        return {
            "components": likelihood.nll_components(output, x), "nll": likelihood.nll(output, x),
            "mean": likelihood.mean(output), "slope": jax.grad(together)(output), "each": jax.vmap(one)(output, x),
        }  # fmt: skip

    return jax.jit(all_of_it)


@pytest.mark.first(7)
@every_case
def test_a_likelihood_is_scipys(case):
    likelihood, output, x, log_p, mean = CASES[case]
    direction, h = rng.normal(size=output.shape), 1e-5
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        program = evaluated(likelihood, jnp.asarray(output), jnp.asarray(x))
        got, up, down = (jax.device_get(program(output + step * direction)) for step in (0, h, -h))
    np.testing.assert_allclose(got["components"], -log_p, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got["nll"], -log_p.sum((1, 2)), rtol=1e-10)
    # Of logistics, the mean is cut off and not rounded: the ends of the range cost 1e-6.
    np.testing.assert_allclose(got["mean"], mean, rtol=1e-10, atol=2e-6 if case == "logistics" else 0)
    difference = (up["nll"] - down["nll"]).sum() / (2 * h)
    np.testing.assert_allclose(np.vdot(got["slope"], direction), difference, rtol=1e-6)
    assert (np.abs(got["each"] - got["nll"]) > 1e-3).any() == likelihood.coupled == (case == "optimal")
    if not likelihood.coupled:
        np.testing.assert_allclose(got["each"], got["nll"], rtol=1e-12)


@pytest.mark.first(6)
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("optimal", "multinomial", "weighted")])
def test_draws_have_the_moments_of_the_distribution(case):
    likelihood, output, _, _, mean = CASES[case]
    n, output, mean = 100_000, output[0, 0], mean[0, 0]
    draws = jax.jit(lambda key: likelihood.sample(key, jnp.broadcast_to(jnp.asarray(output), (n, len(output)))))
    draws = np.asarray(draws(jax.random.key(0)), np.float64)
    assert draws.shape == (n, 2)
    variance = {
        "bernoulli": lambda: mean * (1 - mean), "unit": lambda: 1.0, "fixed": lambda: 0.3,
        "learned": lambda: floored(-3.0), "per_pixel": lambda: floored(5 * LOGVAR[0, 0]),
        "categorical": lambda: categories(FIVE)[0, 0] @ np.linspace(0, 1, 5) ** 2 - mean**2,
        "logistics": lambda: shares(LOGISTICS, 256)[0, 0] @ np.linspace(0, 1, 256) ** 2 - mean**2,
        "observed": lambda: 0.3, "poisson": lambda: mean, "negative_binomial": lambda: negative_binomial(output).var(),
    }[case]() * np.ones(2)  # fmt: skip
    deviations = (draws - mean) ** 2
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / np.sqrt(variance / n), 4.5)
    np.testing.assert_array_less(np.abs(deviations.mean(0) - variance) / (deviations.std(0) / np.sqrt(n)), 4.5)


@pytest.mark.first(6)
@every_name
def test_value_and_gradient_are_finite_at_any_output(name):
    likelihood = LIKELIHOODS[name]

    @jax.jit
    @jax.vmap
    def program(value, x):
        output = likelihood.attach(jnp.full((2, *likelihood.outputs((3,))), value), value)
        nll = lambda output: likelihood.nll(output, jnp.full((2, 3), x)).sum()
        return jax.value_and_grad(nll)(output), likelihood.mean(output)

    for found in jax.tree.leaves(program(jnp.array([-1e4, 1e4, -1e4, 1e4]), jnp.array([0.0, 0.0, 1.0, 1.0]))):
        assert np.isfinite(found).all()


@pytest.mark.first(5)
@every_name
def test_half_precision_is_summed_in_single(name):
    likelihood = LIKELIHOODS[name]
    x = jnp.zeros((16, 784)).at[:, ::3].set(1.0)

    @jax.jit
    def program(noise):
        single = likelihood.attach(noise, jnp.array(-1.0))
        half = likelihood.attach(noise.astype(jnp.bfloat16), jnp.array(-1.0, jnp.bfloat16))
        same = half.astype(jnp.float32)
        return *(likelihood.nll(output, x) for output in (half, same, single)), likelihood.mean(half)

    got, same, single, mean = program(jax.random.normal(jax.random.key(0), (16, *likelihood.outputs((784,)))))
    assert got.dtype == mean.dtype == jnp.float32
    np.testing.assert_allclose(got, single, rtol=1e-3)  # what rounding the outputs costs
    np.testing.assert_allclose(got, same, rtol=1e-6)  # and nothing else
    assert len(np.unique(got)) == 16


@pytest.mark.parametrize("log_scale", [-9.0, -4.0, 0.0, 5.0, 40.0])
def test_the_levels_of_discretised_logistics_sum_to_one(log_scale):
    likelihood, levels = DiscretizedLogistic(2, 16), jnp.arange(16.0)[:, None] / 15
    output = jnp.array([[0.3, -0.2, -0.7, 0.4, log_scale, log_scale - 1]])
    nll = jax.jit(likelihood.nll)(jnp.broadcast_to(output, (16, 6)), levels)
    np.testing.assert_allclose(logsumexp(-np.asarray(nll, np.float64)), 0.0, atol=2e-6)


@pytest.mark.parametrize("log_scale", [-20.0, -3.0, -1.0, 2.0, 15.0])
def test_the_mean_of_a_logistic_is_that_of_scipy_cut_off(log_scale):
    for mean in (-1.5, -0.3, 0.99):
        law = scipy.stats.logistic(mean, np.exp(max(log_scale, -7.0)))
        points = [mean] if abs(mean) < 1 else None
        expected = (1 - scipy.integrate.quad(law.cdf, -1, 1, points=points)[0] + 1) / 2  # E clip(y) = 1 - int F
        got = jax.jit(DiscretizedLogistic(1).mean)(jnp.array([[0.0, mean, log_scale]]))
        np.testing.assert_allclose(got, [[expected]], atol=1e-6)


def test_counts_beyond_what_float32_can_tell_are_a_proper_poisson():
    # From log rate t = 24 log 2 on, the rate is 2^24 (1 + a - t); its nll has its minimum where the rate is the count.
    turn, x = 24 * np.log(2), 2.0**24 * 3
    with jax.enable_x64(True):
        output = jnp.array([[turn - 1e-3, turn + 2.0, turn + 5.0]])
        np.testing.assert_allclose(Poisson().mean(output), [[2**24 * np.exp(-1e-3), x, 2 * x]], rtol=1e-12)
        grad = np.asarray(jax.grad(lambda output: Poisson().nll(output, jnp.full((1, 3), x))[0])(output))
    np.testing.assert_allclose(grad[0, 1], 0.0, atol=1e-6)
    assert grad[0, 0] < 0 < grad[0, 2]


@pytest.mark.parametrize("dispersion", [1e-3, 0.1, 1.0, 30.0, 1e4, np.inf])
def test_large_counts_keep_their_digits(dispersion):
    """Their log-factorials are up to 1e7, of which float32 knows no digit behind the point; infinite is Poisson."""
    mean = 10.0 ** np.arange(0, 7)[:, None]
    log_mean = np.log(mean).astype(np.float32)
    exact = np.exp(log_mean.astype(np.float64))
    law = scipy.stats.poisson(exact)
    if np.isfinite(dispersion):
        law = scipy.stats.nbinom(dispersion, dispersion / (dispersion + exact))
    x = np.round(law.rvs((7, 50), random_state=0)).astype(np.float32)
    likelihood, output = Poisson(), np.broadcast_to(log_mean, x.shape)
    if np.isfinite(dispersion):
        raw = np.where(dispersion > 20, dispersion, np.log(np.expm1(min(dispersion, 20.0))))
        likelihood, output = NegativeBinomial(), np.concatenate([output, np.full_like(output, raw)], axis=-1)
    got = np.asarray(jax.jit(likelihood.nll_components)(output, x), np.float64)
    error = np.abs(got + law.logpmf(x.astype(np.float64)))
    slope = np.abs(x - exact) / (1 + exact / dispersion)  # in the output, whose rounding is 1e-6
    np.testing.assert_array_less(error, 1e-5 + 3e-6 * slope)


def test_the_series_is_good_in_double_precision():
    x = np.array([15.0, 16.0, 17.0, 40.0, 1e3])
    with jax.enable_x64(True):
        got = Poisson().nll_components(jnp.log(jnp.asarray(x + 1)), jnp.asarray(x))
    np.testing.assert_allclose(got, -scipy.stats.poisson.logpmf(x, x + 1), rtol=1e-12)


@pytest.mark.slow
def test_the_slope_is_right_where_the_series_begins():
    """The dispersion is exactly 16 there, in float32."""
    r = np.array([15.99, 16.0, 16.01], np.float32)
    slope = jax.vmap(jax.grad(lambda raw: NegativeBinomial().nll(jnp.array([[-30.0, raw]]), jnp.ones((1, 1)))[0]))(r)
    np.testing.assert_allclose(slope, np.zeros(3), atol=1e-5)  # P(1) is the mean there, whatever the dispersion


def test_counts_that_the_output_did_not_expect_have_their_slope():
    """Means, dispersions and counts drawn apart; the slopes are those of the definition, in float64."""
    log_mean, log_dispersion, log_count = np.random.default_rng(0).uniform([-20, -7, 0], [16, 9, 15], (2000, 3)).T
    raw = np.where(log_dispersion > 3, np.exp(log_dispersion), np.log(np.expm1(np.exp(np.minimum(log_dispersion, 3)))))
    x = np.where(np.arange(2000) % 5 > 0, np.floor(np.exp(log_count)), 0.0)
    output, x = (v.astype(np.float32) for v in (np.stack([log_mean, raw], axis=1), x[:, None]))
    mean, r, n = np.exp(np.float64(output[:, 0])), np.logaddexp(0, np.float64(output[:, 1])), np.float64(x[:, 0])
    log_p = scipy.stats.nbinom.logpmf(n, r, r / (mean + r))
    by_r = np.log1p(mean / r) - (mean - n) / (mean + r) - scipy.special.digamma(n + r) + scipy.special.digamma(r)
    wanted = np.stack([r * (mean - n) / (mean + r), by_r * expit(np.float64(output[:, 1]))], axis=1)
    nll = lambda output: (NegativeBinomial().nll(output, x).sum(), NegativeBinomial().nll(output, x))
    slope, value = jax.jit(jax.grad(nll, has_aux=True))(output)
    np.testing.assert_allclose(value, -log_p, rtol=1e-5, atol=2e-5)  # the output is rounded
    np.testing.assert_allclose(slope, wanted, rtol=1e-3, atol=1e-5)


# --- the variance ----------------------------------------------------------------------------------------------------


def test_the_optimal_variance_has_the_largest_likelihood():
    mean, x = jnp.asarray(OUTPUT, jnp.float32), jnp.asarray(PIXELS, jnp.float32)
    best = Gaussian("optimal").nll(mean, x).mean()
    # Rybkin et al., section 4: D/2 (log sigma^2 + 1 + log 2 pi)
    np.testing.assert_allclose(best, 3 * (2 * np.log(OPTIMAL) + 1 + np.log(2 * np.pi)), rtol=1e-6)
    others = [gaussian_nll(mean, x, 2 * np.log(OPTIMAL) + shift).mean() for shift in (-0.1, -0.01, 0.01, 0.1)]
    assert min(others) > best


def test_a_variance_that_is_fitted_to_black_pixels_stays_finite():
    black = jnp.zeros((1, 4))

    def fitted(loss, steps):
        def step(logvar, _):
            return logvar - 0.1 * jax.grad(loss)(logvar), None

        return jax.lax.scan(step, jnp.zeros((1, 4)), length=steps)[0]

    def floored_nll(logvar):
        return Gaussian("per_pixel").nll(jnp.concatenate([black, logvar], axis=-1), black)[0]

    free = lambda logvar: gaussian_nll(black, black, logvar)[0]
    assert free(fitted(free, 1500)) < -100  # on its way down, until exp(-logvar) overflows
    bound = 4 * 0.5 * (-12 + np.log(2 * np.pi))
    assert bound <= floored_nll(fitted(floored_nll, 6000)) < bound + 0.1
    assert float(Gaussian("optimal").nll(black, black)[0]) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        ("optimum", "Unknown variance 'optimum'. Did you mean 'optimal'"),
        (0.0, r"variance is 0.0; a positive Python number, or one of learned, per_pixel, optimal"),
        (-1, "variance is -1; a positive"),
        (float("nan"), "variance is nan"),
        (np.array([1.0]), "a positive Python number"),
        (None, "variance is None"),
    ],
)
def test_variances_that_are_refused(variance, message):
    with pytest.raises(InputError, match=message):
        Gaussian(variance)


def test_there_is_no_sampling_from_an_optimal_variance():
    with pytest.raises(InputError, match=r"variance is that of a batch of x.*Gaussian\(variance="):
        Gaussian("optimal").sample(jax.random.key(0), jnp.zeros((1, 2)))
    x = np.array([[1.0, -2.0]])
    fixed = Gaussian(variance=np.square(x).mean())  # the mean squared error of a component
    assert fixed.sample(jax.random.key(0), jnp.zeros((1, 2))).shape == (1, 2)
    np.testing.assert_allclose(
        fixed.nll(jnp.zeros((1, 2)), x), Gaussian("optimal").nll(jnp.zeros((1, 2)), x), rtol=1e-6
    )
