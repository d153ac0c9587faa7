"""The bound taken apart: by hand, against the covariances of a linear-Gaussian model, and at its two ends."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conditioned import linear_model
from scipy.special import logsumexp
from scipy.stats import norm

from aejax.checks import InputError
from aejax.evaluation import decompose, nll
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.priors import GaussianMixture

KEY = jax.random.key(3)


def linear(to_mean, logvar, **fields):
    """A VAE with q(z|x) = N(x A, diag(exp(logvar))), A `[D, Z]`, and p(x|z) = N(0, I) whatever z is."""
    (d, size), logvar = np.shape(to_mean), np.asarray(logvar)
    encoder = {"kernel": np.concatenate([to_mean, np.zeros((d, size))], 1), "bias": np.r_[0 * logvar, logvar]}
    params = {"encoder": encoder, "decoder": {"kernel": np.zeros((size, d)), "bias": np.zeros(d)}}
    model = VAE(nn.Dense(2 * size), nn.Dense(d), latent_dim=size, likelihood="gaussian", **fields)
    return model, jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)


def by_hand(to_mean, logvar, x, num_samples):
    """Reconstruction, information, total correlation and the KL of each dimension, from all densities, in float64.

    The noise is that of the documented keys: sample j of example i from `fold_in(fold_in(key, i), j)`.
    """
    mean, std = np.float64(x) @ to_mean, np.exp(0.5 * np.asarray(logvar))
    keys = [[jax.random.fold_in(jax.random.fold_in(KEY, i), j) for j in range(num_samples)] for i in range(len(x))]
    noise = jax.vmap(jax.vmap(lambda own: jax.random.normal(own, std.shape)))(jnp.array(keys))
    z = mean[:, None] + std * np.float64(noise)  # [N, S, Z]
    of_all = norm.logpdf(z[:, :, None], mean, std)  # [N, S, N, Z]
    own = norm.logpdf(z, mean[:, None], std).sum(-1)
    joint = logsumexp(of_all.sum(-1), axis=-1) - math.log(len(x))
    each = logsumexp(of_all, axis=-2) - math.log(len(x))
    recon = -norm.logpdf(np.float64(x)).sum(-1).mean()  # of a decoder that returns zeros
    return recon, (own - joint).mean(), (joint - each.sum(-1)).mean(), (each - norm.logpdf(z)).mean((0, 1))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("x", "num_samples"),
    [
        (np.array([[1.0, 0.0, -0.5], [-0.5, 2.0, 0.3]]), 1),
        (np.random.default_rng(0).normal(size=(9, 3)), 4),
        (np.random.default_rng(1).normal(size=(300, 3)), 1),  # more than a block of components, and of draws
    ],
)
def test_parts_are_those_of_all_single_densities(x, num_samples):
    to_mean, logvar, x = np.array([[1.0, 0.2], [0.5, -1.0], [0.0, 0.3]]), [-1.0, 0.5], x.astype(np.float32)
    found = decompose(*linear(to_mean, logvar), x, KEY, num_samples=num_samples, max_rows=7 if len(x) == 9 else 1024)
    recon, mutual_info, total_correlation, each = by_hand(to_mean, logvar, x, num_samples)
    np.testing.assert_allclose(found.recon_nats, recon, rtol=1e-6)
    np.testing.assert_allclose(found.mutual_info_nats, mutual_info, atol=2e-6)
    np.testing.assert_allclose(found.total_correlation_nats, total_correlation, atol=2e-6)
    np.testing.assert_allclose(found.kl_of_dimensions, each, atol=2e-6)
    np.testing.assert_allclose(found.dimension_kl_nats, each.sum(), atol=2e-6)
    np.testing.assert_allclose(found.marginal_kl_nats, total_correlation + each.sum(), atol=2e-6)


def test_linear_gaussian_parts_are_those_of_the_covariances():
    """Of x ~ N(0, I) the aggregate posterior is N(0, A'A + S), of which the mixture of 3,000 is a sample."""
    to_mean, logvar, count = np.array([[0.8, 0.9], [0.3, 0.5], [0.0, 0.4]]), np.array([-0.7, 0.2]), 3000
    rng = np.random.default_rng(4)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    found = decompose(*linear(to_mean, logvar), x, KEY)
    cov = to_mean.T @ to_mean + np.diag(np.exp(logvar))
    variances, log_det = np.diag(cov), np.linalg.slogdet(cov)[1]
    mutual_info = 0.5 * (log_det - logvar.sum())
    total_correlation = 0.5 * (np.log(variances).sum() - log_det)
    each = 0.5 * (variances - 1 - np.log(variances))
    # The deviation of the parts of a single draw, from draws of q(x, z) and the three Gaussian densities; that of the
    # components adds at most as much again. 4.9 deviations: one false alarm in a million.
    many = rng.normal(size=(100_000, 3))
    z = many @ to_mean + np.exp(0.5 * logvar) * rng.normal(size=(100_000, 2))
    own = norm.logpdf(z, many @ to_mean, np.exp(0.5 * logvar)).sum(1)
    joint = -0.5 * (np.einsum("ni,ij,nj->n", z, np.linalg.inv(cov), z) + log_det) - math.log(2 * math.pi)
    of_each = norm.logpdf(z, 0, np.sqrt(variances))
    tolerance = lambda ratio: 2 * 4.9 * ratio.std(axis=0) / np.sqrt(count)
    assert 0.3 < mutual_info < 1
    assert abs(found.mutual_info_nats - mutual_info) < tolerance(own - joint) < 0.2
    assert abs(found.total_correlation_nats - total_correlation) < tolerance(joint - of_each.sum(1)) < 0.1
    assert total_correlation > 0.05
    assert (np.abs(found.kl_of_dimensions - each) < tolerance(of_each - norm.logpdf(z))).all()


@pytest.mark.first(1)
@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("num_samples", [1, 5])
def test_parts_add_up_to_the_bound_of_nll(prior, num_samples):
    identity = ((1.0, 0.3), (0.3, 1.0))
    fields = (
        {} if prior == "normal" else {"prior": GaussianMixture((1.0, 2.0), ((0.0, 1.0), (1.0, 0.0)), (identity,) * 2)}
    )
    model, params = linear([[1.0, 0.2], [0.5, -1.0], [0.0, 0.3]], [-1.0, 0.5], **fields)
    x = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    found = decompose(model, params, x, KEY, num_samples=num_samples)
    kl = found.mutual_info_nats + found.total_correlation_nats + found.dimension_kl_nats
    np.testing.assert_allclose(found.recon_nats + kl, found.bound_nats, rtol=1e-12)
    np.testing.assert_allclose(
        found.bound_nats, nll(model, params, x, KEY, num_samples=num_samples).curve[1], rtol=1e-6
    )
    assert (found.kl_of_dimensions is None) == (prior == "mixture")


def test_exact_posterior_has_the_likelihood_as_its_bound_with_labels_too():
    model, params, batch, truth, _ = linear_model()
    np.testing.assert_allclose(decompose(model, params, batch, KEY).bound_nats, -truth.mean(), rtol=1e-5)


def test_a_collapsed_code_knows_nothing_and_one_that_tells_all_apart_knows_log_n():
    x = np.arange(7, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    nothing = decompose(*linear(np.zeros((3, 2)), [0.3, 0.0]), x, KEY)
    assert nothing.mutual_info_nats == pytest.approx(0, abs=1e-6)
    assert nothing.total_correlation_nats == pytest.approx(0, abs=1e-6)
    everything = decompose(*linear(np.ones((3, 2)), [-2.0, -2.0]), x, KEY)  # deviations of 0.4, steps of 3
    assert everything.mutual_info_nats == pytest.approx(math.log(7), abs=1e-4)
    assert everything.total_correlation_nats == pytest.approx(math.log(7), abs=1e-3)  # each dimension tells all


def test_what_has_no_aggregate_density_is_refused():
    x = np.zeros((4, 3), np.float32)
    plain = AE.dense(3, 2, likelihood="gaussian")
    params = plain.init(jax.random.key(0), x)["params"]
    with pytest.raises(InputError, match=r"AE\.encode returns one array, which has no density"):
        decompose(plain, params, x, KEY)
    with pytest.raises(InputError, match="num_samples=0"):
        decompose(*linear(np.ones((3, 2)), [0.0, 0.0]), x, KEY, num_samples=0)
