"""The linear VAE against probabilistic PCA and against the Gaussian of scipy; references in float64."""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from aejax import data, evaluation, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Gaussian
from aejax.methods.linear_vae import LinearVAE, linear_log_likelihood, linear_vae, linear_vae_loss, ppca
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params

D, Z, N = 7, 2, 60
MODEL = LinearVAE.dense(D, Z)
KEY = jax.random.key(0)


def drawn(seed=0, n=N):
    """From a linear-Gaussian model of noise variance 0.3."""
    rng = np.random.default_rng(seed)
    w = rng.normal(0, 1.2, (D, Z))
    return rng.normal(size=(n, Z)) @ w.T + rng.normal(size=D) + np.sqrt(0.3) * rng.normal(size=(n, D))


X = drawn()
BATCH = Batch(jnp.asarray(X, jnp.float32))


def best_log_likelihood(x, k):
    """Mean maximum of the log-likelihood of probabilistic PCA, from eigenvalues alone (Tipping & Bishop)."""
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    kept, left, d = values[:k], values[k:], x.shape[1]
    return -0.5 * (np.log(kept).sum() + (d - k) * np.log(left.mean()) + d * (1 + np.log(2 * np.pi)))


def noise_variance(raw):
    """What a learned log-variance stands for: the floor of Rybkin et al. under it."""
    return np.exp(2 * (-6 + np.logaddexp(0, np.float64(raw) / 2 + 6)))


def somewhere(params, scale=0.3):
    """Parameters at a random place near these, float32."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return tree.unflatten([jnp.asarray(leaf + scale * rng.normal(size=np.shape(leaf)), jnp.float32) for leaf in leaves])


def scipys(weights, bias, variance, x):
    covariance = weights @ weights.T + variance * np.eye(len(bias))
    return scipy.stats.multivariate_normal(bias, covariance).logpdf(np.float64(x).reshape(len(x), -1))


def bound_from_likelihood(params, x):
    """Mean of -log p(x) + KL(q(z|x) | p(z|x)), of which neither is what the loss computes."""
    encoder, decoder = params["encoder"]["dense_0"], params["decoder"]["dense_0"]
    w, s2 = decoder["kernel"].T, noise_variance(params["logvar"])
    precision = w.T @ w / s2 + np.eye(Z)
    off = x @ encoder["kernel"] + encoder["bias"] - np.linalg.solve(precision, w.T @ (x - decoder["bias"]).T / s2).T
    variances = np.exp(params["posterior_logvar"])
    kl = 0.5 * (
        variances @ np.diag(precision) + np.einsum("ni,ij,nj->n", off, precision, off) - Z
        - params["posterior_logvar"].sum() - np.linalg.slogdet(precision)[1]
    )  # fmt: skip
    return (kl - scipys(w, decoder["bias"], s2, x)).mean()


def in_float64(params):
    return jax.tree.map(lambda v: np.asarray(v, np.float64), params)


def test_the_closed_form_optimum_has_the_likelihood_of_probabilistic_pca():
    params = ppca(X, Z)
    found = -linear_log_likelihood(MODEL, params, X).mean()
    np.testing.assert_allclose(found, -best_log_likelihood(X, Z), rtol=1e-12)
    for scale in (0.01, 0.1):
        assert -linear_log_likelihood(MODEL, somewhere(params, scale), X).mean() > found
    wide = np.random.default_rng(2).normal(size=(6, 9)) * np.geomspace(3, 0.3, 9)  # fewer rows than columns
    found = linear_log_likelihood(LinearVAE.dense(9, 3), ppca(wide, 3), wide).mean()
    np.testing.assert_allclose(found, best_log_likelihood(wide, 3), rtol=1e-10)


def test_at_the_optimum_the_bound_is_the_likelihood_and_its_gradient_vanishes():
    with jax.enable_x64(True):
        params, batch = jax.tree.map(jnp.asarray, ppca(X, Z)), Batch(jnp.asarray(X))
        bound = jax.value_and_grad(lambda p: linear_vae_loss(p, batch, KEY, model=MODEL)[0])
        loss, slope = bound(params)
        _, slope_away = bound(jax.tree.map(lambda v: v + 0.01, params))
    np.testing.assert_allclose(loss, -best_log_likelihood(X, Z), rtol=1e-12)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope)) < 1e-10
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(slope_away)) > 1e-4


@pytest.mark.parametrize("num_samples", [1, 7])
def test_at_the_optimum_every_importance_weight_is_the_likelihood(num_samples):
    params, truth = ppca(np.float32(X), Z), linear_log_likelihood(MODEL, ppca(X, Z), X)
    result = evaluation.nll(MODEL, params, np.float32(X), KEY, num_samples=num_samples)
    np.testing.assert_allclose(result.nll_nats, -truth.mean(), rtol=2e-6)
    np.testing.assert_allclose(result.ess, num_samples, rtol=1e-4)


def test_elsewhere_the_bound_is_short_of_the_likelihood_by_the_divergence_from_the_true_posterior():
    params = somewhere(ppca(X, Z))
    loss, terms = linear_vae_loss(params, BATCH, KEY, model=MODEL)
    exact = -linear_log_likelihood(MODEL, params, X).mean()
    np.testing.assert_allclose(loss, bound_from_likelihood(in_float64(params), np.float64(BATCH.x)), rtol=1e-5)
    assert loss > exact + 0.1
    np.testing.assert_allclose(terms["bound_nats"], terms["recon_nats"] + terms["kl_nats"], rtol=1e-6)
    result = evaluation.nll(MODEL, params, BATCH.x, KEY, num_samples=20)
    assert loss > result.nll_nats + 4 * result.std_error
    assert result.nll_nats > exact


@pytest.mark.slow
def test_samples_agree_with_the_exact_expectation_and_so_do_their_gradients():
    params = somewhere(ppca(X, Z))
    loss = lambda p, key, analytic: linear_vae_loss(p, BATCH, key, model=MODEL, analytic=analytic)
    both = jax.grad(loss, has_aux=True)
    draws = jax.jit(jax.vmap(lambda key: both(params, key, False)))(jax.random.split(KEY, 3000))
    exact = both(params, KEY, True)

    def score(values, expected):  # rounding of means that hardly vary, such as that of the KL, is no deviation
        values = np.float64(values)
        return np.abs(values.mean(0) - expected) / (
            values.std(0) / np.sqrt(len(values)) + 1e-6 * (1 + np.abs(expected))
        )

    scores = jax.tree.map(score, draws, exact)
    assert max(each.max() for each in jax.tree.leaves(scores)) < 4.5  # of 43 numbers: once in 3,400 seeds


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["wide code", "two layers", "convolutions", "VAE, fixed variance"])
def test_the_likelihood_of_any_affine_decoder_is_that_of_its_gaussian(kind):
    shape, variance = (5,), None
    if kind == "wide code":
        model = LinearVAE.dense(5, 8)
    elif kind == "two layers":
        model = LinearVAE.dense(5, 2, hidden_dims=(3,))
    elif kind == "convolutions":
        shape, model = (4, 3, 1), LinearVAE.conv((4, 3, 1), 2, features=(2,), strides=(2,))
    else:
        model, variance = VAE.dense(5, 2, hidden_dims=(), likelihood=Gaussian(0.2)), 0.2
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    shapes = jax.eval_shape(lambda: init_params(model, KEY, x))
    params = somewhere(jax.tree.map(lambda s: np.zeros(s.shape), shapes), 0.5)
    decode = lambda z: np.asarray(evaluation.call(model, params, "generate", z), np.float64).reshape(len(z), -1)
    bias = decode(jnp.zeros((1, model.latent_dim)))
    weights = (decode(jnp.eye(model.latent_dim)) - bias).T
    truth = scipys(weights, bias[0], variance or noise_variance(params["logvar"]), x)
    np.testing.assert_allclose(linear_log_likelihood(model, params, x), truth, rtol=1e-5)
    if variance is None:
        loss = linear_vae_loss(params, Batch(jnp.asarray(x)), KEY, model=model)[0]
        q = evaluation.call(model, params, "encode", x)
        mean, v = np.float64(q.mean), np.exp(np.float64(q.logvar))
        off = x.reshape(len(x), -1) - mean @ weights.T - bias
        s2 = noise_variance(params["logvar"])
        recon = 0.5 * ((off**2).sum(1) + v @ (weights**2).sum(0)) / s2 + 0.5 * off.shape[1] * np.log(2 * np.pi * s2)
        np.testing.assert_allclose(loss, (recon + 0.5 * (mean**2 + v - 1 - np.log(v)).sum(1)).mean(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("analytic", [True, False])
def test_training_comes_within_half_a_percent_of_probabilistic_pca(analytic):
    x = drawn(n=512)
    truth = best_log_likelihood(x, Z)
    algo = linear_vae(MODEL, lr=3e-2, tx=lambda lr: optax.adam(optax.cosine_decay_schedule(lr, 800)), analytic=analytic)
    batch = Batch(jnp.asarray(x, jnp.float32))
    state = algo.init(init_params(MODEL, KEY, batch.x))
    state, _ = jax.jit(lambda s: training.fit(algo, s, batch, KEY, batch_size=128, num_epochs=200))(state)
    reached = linear_log_likelihood(MODEL, state.params, x).mean()
    assert truth * (1 + np.sign(truth) * 1e-12) >= reached >= truth - 0.005 * abs(truth)
    bound, _ = linear_vae_loss(state.params, batch, KEY, model=MODEL)
    assert -reached <= bound + 1e-4 <= -truth + 0.005 * abs(truth)


@pytest.mark.slow
def test_where_nothing_is_known_in_closed_form_it_is_the_loss_of_a_vae():
    x = Batch(jnp.asarray(np.random.default_rng(0).random((4, D)), jnp.float32))
    others = {"likelihood": "bernoulli"}, {"likelihood": "gaussian_per_pixel"}, {"prior": "mixture"}
    for fields, analytic in [*((each, True) for each in others), ({}, False)]:
        model = LinearVAE.dense(D, Z, **fields)
        params = init_params(model, KEY, x.x)
        ours = linear_vae_loss(params, x, KEY, model=model, analytic=analytic)
        jax.tree.map(np.testing.assert_array_equal, ours, vae_loss(params, x, KEY, model=model))
        assert ours[0] != linear_vae_loss(params, x, jax.random.key(1), model=model, analytic=analytic)[0]


class Bent(nn.Module):
    """A decoder that is not affine, and of which nothing tells."""

    @nn.compact
    def __call__(self, z):
        return jnp.tanh(nn.Dense(D)(z))


def test_what_is_not_linear_or_has_no_closed_form_is_refused():
    with pytest.raises(InputError, match="decoder has an activation"):
        linear_vae(LinearVAE.dense(D, Z, hidden_dims=(3,), activation=nn.relu))
    with pytest.raises(InputError, match="decoder has an activation"):
        init_params(LinearVAE.conv((4, 4, 1), Z, activation=nn.relu), KEY, jnp.ones((1, 4, 4, 1)))
    bent = LinearVAE(encoder=nn.Dense(Z), decoder=Bent(), latent_dim=Z, likelihood="gaussian")
    with pytest.raises(InputError, match="LinearVAE is not affine"):
        linear_log_likelihood(bent, init_params(bent, KEY, BATCH.x), X)
    bits = LinearVAE.dense(D, Z, likelihood="bernoulli")
    with pytest.raises(InputError, match=r"'bernoulli' and 'normal'. Use aejax.evaluation.nll or ais"):
        linear_log_likelihood(bits, init_params(bits, KEY, BATCH.x), X)
    with pytest.raises(InputError, match="7 components has 1 to 6"):
        ppca(X, 7)
    with pytest.raises(InputError, match=r"x has shape \(4, 2, 2\); .* x.reshape"):
        ppca(np.ones((4, 2, 2)), 1)
    with pytest.raises(InputError, match="A variance of 0 is not to be learned"):
        ppca(np.ones((4, 3)), 1)


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="MNIST in $TFDS_DATA_DIR is needed")
def test_probabilistic_pca_of_mnist_has_its_likelihoods_and_every_bound_agrees():
    """The figures: an eigendecomposition of the covariance of the 60,000 training images, pixels in [0, 1]."""
    mnist = data.flatten(data.load("mnist", validation=0))
    train, test = mnist.train.x, mnist.test.x
    for k, of_train, of_test in ((2, 12.428, 14.360), (10, 182.155, 186.024), (50, 507.905, 517.603)):
        model, params = LinearVAE.dense(784, k), ppca(train, k)
        assert abs(linear_log_likelihood(model, params, train).mean() - of_train) < 0.01
        truth = linear_log_likelihood(model, params, test)
        assert abs(truth.mean() - of_test) < 0.01
        bound, _ = linear_vae_loss(params, Batch(jnp.asarray(test)), KEY, model=model)
        assert abs(bound + truth.mean()) < 0.01
        result = evaluation.nll(model, params, test, KEY, num_samples=10)
        assert abs(result.nll_nats + truth.mean()) < 0.01
        assert result.ess > 9.99
    few = test[:32]
    model, params = LinearVAE.dense(784, 10), ppca(train, 10)
    wrong = params | {"posterior_logvar": params["posterior_logvar"] + 0.5}
    annealed = evaluation.ais(model, wrong, few, KEY, num_temperatures=100, start="posterior")
    truth = linear_log_likelihood(model, params, few)
    assert abs(annealed.nll_nats + truth.mean()) < 4 * annealed.std_error + 1e-3
    assert annealed.std_error < 0.1
