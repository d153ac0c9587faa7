"""Two stochastic layers against their linear case, where posterior, likelihood and bound have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_gaussian import away, draws, z_scores

from aejax import evaluation, priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.iwae import iwae_loss
from aejax.methods.two_layer_vae import TwoLayerVAE, merged, two_layer_vae
from aejax.methods.vae import vae_loss
from aejax.nets import MLP, init_params
from aejax.posteriors import DiagonalGaussian

D, L, U = 7, 4, 2


def linear(ladder):
    nets = {"encoder": 2 * L, "decoder": D, "upper_encoder": 2 * U, "upper_decoder": 2 * L}
    nets = {name: MLP((width,)) for name, width in nets.items()}
    return TwoLayerVAE(**nets, latent_dim=L + U, likelihood="gaussian", ladder=ladder)


both = pytest.mark.parametrize("ladder", [False, True], ids=["from below", "ladder"])


def layer(kernel, bias):
    return {"dense_0": {"kernel": kernel, "bias": bias}}


def problem(ladder, size=40):
    """A model whose layers have independent components given what comes before; its data, and its exact posterior.

    upper ~ N(0, I), lower ~ N(A upper + a, S), x ~ N(W lower + b, I), with `W^T W`, S and `A^T A` diagonal, and each
    component of the lower layer with one parent at most.
    """
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(D, L)))[0] * np.array([2.0, 1.5, 1.0, 0.5])
    a = np.zeros((L, U))
    a[0, 0], a[2, 1] = 1.2, -0.8
    shift, noise, b = rng.normal(size=L), np.array([0.5, 1.0, 2.0, 0.3]), rng.normal(size=D)
    upper = rng.normal(size=(size, U))
    lower = upper @ a.T + shift + np.sqrt(noise) * rng.normal(size=(size, L))
    x = lower @ w.T + b + rng.normal(size=(size, D))
    told = np.diag(w.T @ w)  # precision of what x says of the lower layer, whose mean is W^T (x - b) / told
    params = {
        "decoder": layer(w.T, b),
        "upper_decoder": layer(np.c_[a.T, np.zeros((U, L))], np.r_[shift, np.log(noise)]),
    }
    if ladder:
        spread = noise + 1 / told  # of that mean given the upper layer
        precision = 1 + (a**2 / spread[:, None]).sum(0)
        to_upper = a / spread[:, None] / precision
        params["encoder"] = layer(np.c_[w / told, np.zeros((D, L))], np.r_[-b @ w / told, -np.log(told)])
        params["upper_encoder"] = layer(np.c_[to_upper, np.zeros((L, U))], np.r_[-shift @ to_upper, -np.log(precision)])
    else:
        prior = np.diag(a @ a.T) + noise
        precision = told + 1 / prior
        params["encoder"] = layer(
            np.c_[w / precision, np.zeros((D, L))], np.r_[(shift / prior - b @ w) / precision, -np.log(precision)]
        )
        above = 1 + (a**2 / noise[:, None]).sum(0)
        to_upper = a / noise[:, None] / above
        params["upper_encoder"] = layer(np.c_[to_upper, np.zeros((L, U))], np.r_[-shift @ to_upper, -np.log(above)])
    law = scipy.stats.multivariate_normal(w @ shift + b, w @ (a @ a.T + np.diag(noise)) @ w.T + np.eye(D))
    return jax.tree.map(jnp.float32, params), x.astype(np.float32), law.logpdf(x)


@pytest.mark.first(1)
@both
def test_at_the_exact_posterior_every_draw_is_worth_the_likelihood(ladder):
    params, x, log_p = problem(ladder)
    model = linear(ladder)
    loss, _ = vae_loss(params, Batch(x), jax.random.key(0), model=model)
    np.testing.assert_allclose(loss, -log_p.mean(), rtol=1e-5)
    found = evaluation.nll(model, params, x, jax.random.key(1), num_samples=2000)
    np.testing.assert_allclose([found.nll_nats, found.ess], [-log_p.mean(), 2000], rtol=1e-4)
    assert set(params) == set(model.groups)


@pytest.mark.first(1)
@both
def test_elsewhere_bounds_are_below_it_and_grow_with_the_draws(ladder):
    params, x, log_p = problem(ladder)
    near = {**params, **away({name: params[name] for name in ("encoder", "upper_encoder")}, 0.1)}
    found = evaluation.nll(linear(ladder), near, x, jax.random.key(0), num_samples=2000)
    curve = [found.curve[k] for k in (1, 5, 50, 500)]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > -log_p.mean() + 0.05
    assert abs(found.nll_nats + log_p.mean()) < 4 * found.std_error + 0.01
    bounds = draws(lambda key: iwae_loss(near, Batch(x), key, model=linear(ladder), num_samples=5)[0], 500, seed=1)
    assert abs(z_scores(bounds, found.curve[5])) < 5


@pytest.mark.slow
@both
def test_the_draws_of_the_posterior_have_its_density(ladder):
    """The mean of `p / q` over draws of q is 1 for any p, here a Gaussian narrower than they are."""
    params, x, _ = problem(ladder)
    params = away(params, 0.3)
    model = linear(ladder)
    q = model.apply({"params": params}, x[:1].repeat(5000, 0), method="encode")
    z, log_q = q.sample_and_log_prob(jax.random.key(0))
    np.testing.assert_allclose(q.log_prob(z), log_q, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(q.sample(jax.random.key(0)), z)
    z = np.float64(z)
    law = scipy.stats.multivariate_normal(z.mean(0), 0.7 * np.cov(z.T))
    weights = np.exp(law.logpdf(z) - np.float64(log_q))
    assert abs(z_scores(weights, 1.0)) < 4
    assert weights.std() < 3
    np.testing.assert_allclose(q.mode, np.broadcast_to(q.mode[:1], q.mode.shape))


@both
def test_the_code_of_an_example_is_the_mean_of_its_draws(ladder):
    """Where all is linear and the variances are fixed."""
    params, x, _ = problem(ladder)
    q = linear(ladder).apply({"params": params}, x[:1].repeat(5000, 0), method="encode")
    z = np.float64(jax.jit(lambda q: q.sample(jax.random.key(0)))(q))
    assert np.abs(z_scores(z, np.float64(q.mode[0]))).max() < 4


def test_the_prior_is_the_joint_of_both_layers():
    params, _, _ = problem(False)
    model = linear(False).bind({"params": params})
    w = np.float64(params["upper_decoder"]["dense_0"]["kernel"])
    bias = np.float64(params["upper_decoder"]["dense_0"]["bias"])
    a, shift, noise = w[:, :L].T, bias[:L], np.exp(bias[L:])
    covariance = np.block([[a @ a.T + np.diag(noise), a], [a.T, np.eye(U)]])
    law = scipy.stats.multivariate_normal(np.r_[shift, np.zeros(U)], covariance)
    z = np.float32(np.random.default_rng(1).normal(0, 2, (9, L + U)))
    np.testing.assert_allclose(model.log_prior(z), law.logpdf(z), rtol=1e-5)
    drawn = np.float64(model.sample_prior(jax.random.key(0), 20_000))
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (drawn - law.mean).T).T
    products = np.einsum("ni,nj->nij", whitened, whitened)
    assert np.abs(z_scores(whitened, 0.0)).max() < 4.5
    assert np.abs(z_scores(products, np.eye(L + U))).max() < 4.5


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_merging_is_the_product_of_two_gaussians(scale):
    rng = np.random.default_rng(0)
    means, logvars = rng.normal(0, 3, (2, 5, 4)), scale * rng.uniform(-1, 1, (2, 5, 4))
    with jax.enable_x64(True):
        found = merged(*(DiagonalGaussian(jnp.asarray(m), jnp.asarray(v)) for m, v in zip(means, logvars, strict=True)))
    precisions = np.exp(-logvars)
    np.testing.assert_allclose(found.mean, (means * precisions).sum(0) / precisions.sum(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.logvar, -np.log(precisions.sum(0)), rtol=1e-9, atol=1e-12)
    if scale == 1.0:  # as a density, at any point: log a + log b - log merged is the same
        z = rng.normal(size=(50, 1, 1))
        log = lambda mean, logvar: scipy.stats.norm(mean, np.exp(logvar / 2)).logpdf(z)
        rest = log(means[0], logvars[0]) + log(means[1], logvars[1]) - log(*map(np.asarray, found))
        np.testing.assert_allclose(rest, np.broadcast_to(rest[:1], rest.shape), rtol=1e-9)


@pytest.mark.first(1)
@pytest.mark.parametrize(("ladder", "logvar"), [(False, -80.0), (True, 80.0)])
def test_loss_and_gradient_are_finite_at_extreme_variances(ladder, logvar):
    """From below draws of such a variance are inputs of the upper encoder, so there it may only be small."""
    params, x, _ = problem(ladder)
    bias = params["encoder"]["dense_0"]["bias"]
    params["encoder"]["dense_0"]["bias"] = jnp.r_[bias[:L], jnp.full(L, logvar, jnp.float32)]
    loss = lambda p: vae_loss(p, Batch(x), jax.random.key(1), model=linear(ladder))[0]
    found = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.slow
@both
def test_every_network_has_a_gradient(ladder):
    params, x, _ = problem(ladder)
    params = away(params, 0.3)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda v: v.astype(float), params)
        both = jax.jit(
            jax.value_and_grad(lambda p: vae_loss(p, Batch(np.float64(x)), jax.random.key(0), model=linear(ladder))[0])
        )
        loss, (_, grads) = lambda p: both(p)[0], both(params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            index = (0,) * leaf.ndim
            at = lambda step, path=path, index=index: loss(
                jax.tree_util.tree_map_with_path(lambda p, v: v.at[index].add(step) if p == path else v, params)
            )
            own = dict(jax.tree_util.tree_leaves_with_path(grads))[path][index]
            assert abs(own) > 1e-6
            np.testing.assert_allclose((at(1e-5) - at(-1e-5)) / 2e-5, own, rtol=1e-6)


def test_the_net_of_the_paper():
    model = TwoLayerVAE.dense(784, 150, hidden_dims=(200, 200))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.zeros((1, 784))))
    widths = {name: [layer["kernel"].shape for layer in group.values()] for name, group in params.items()}
    assert widths == {
        "encoder": [(784, 200), (200, 200), (200, 200)],
        "upper_encoder": [(100, 100), (100, 100), (100, 100)],
        "upper_decoder": [(50, 100), (100, 100), (100, 200)],
        "decoder": [(100, 200), (200, 200), (200, 784)],
    }


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="latent_dim is 1; two layers take at least 2"):
        TwoLayerVAE.dense(8, 1)
    assert TwoLayerVAE.dense(8, 2).code_size(2) == 2
    with pytest.raises(InputError, match="that of the upper of two layers is 'normal'"):
        two_layer_vae(TwoLayerVAE.dense(8, 6, prior="mixture"))
    two_layer_vae(TwoLayerVAE.dense(8, 6, prior=priors.StandardNormal(2)))
