"""VaDE: its bound against quadrature and draws, its ends against the VAE, and what begins it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from aejax import clusters, learn, priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.vade import VaDE, kl, vade, vade_ae, vade_loss
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params
from aejax.posteriors import DiagonalGaussian

KEY = jax.random.key(0)
MODEL = VaDE.dense(6, 2, hidden_dims=(5,), prior=priors.LearnedMixture(3), likelihood="gaussian")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
MEANS, LOGVARS, WEIGHTS = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2)), np.array([0.2, 0.5, 0.3])


@pytest.fixture(scope="module")
def params():
    prior = {"means": MEANS, "logvars": LOGVARS, "logits": np.log(WEIGHTS) + 7.0}
    return init_params(MODEL, KEY, X) | {"prior": jax.tree.map(jnp.float32, prior)}


def test_the_kl_is_that_of_its_definition():
    """`E_q(c) [E_q(z) log q(z) q(c) / p(z, c)]`, the inner mean by quadrature over each dimension."""
    mean, logvar, z = RNG.normal(size=(4, 2)), RNG.normal(size=(4, 2)), RNG.normal(size=(4, 2))
    joint = lambda point: np.array([w * multivariate_normal(m, np.diag(np.exp(v))).pdf(point)
                                    for w, m, v in zip(WEIGHTS, MEANS, LOGVARS, strict=True)])  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = weights / weights.sum()
    expected = np.zeros(4)
    for i in range(4):
        gamma = joint(z[i]) / joint(z[i]).sum()
        for c in range(3):
            inner = 0.0
            for d in range(2):
                points = mean[i, d] + np.exp(0.5 * logvar[i, d]) * nodes
                log_q = norm(mean[i, d], np.exp(0.5 * logvar[i, d])).logpdf(points)
                log_p = norm(MEANS[c, d], np.exp(0.5 * LOGVARS[c, d])).logpdf(points)
                inner += weights @ (log_q - log_p)
            expected[i] += gamma[c] * (inner + np.log(gamma[c] / WEIGHTS[c]))
    mixture = clusters.Mixture(*map(jnp.asarray, (MEANS, LOGVARS, np.log(WEIGHTS))))
    found = kl(DiagonalGaussian(jnp.asarray(mean), jnp.asarray(logvar)), jnp.asarray(z), mixture)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_bound_is_below_the_likelihood_and_its_parts_add_up(params):
    """Of a linear decoder log p(x) is known: a mixture of Gaussians in data space."""
    linear = VaDE.dense(6, 2, hidden_dims=(), prior=priors.LearnedMixture(3), likelihood="gaussian")
    own = init_params(linear, KEY, X) | {"prior": params["prior"]}
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), own["decoder"]["dense_0"])
    w, b = layer["kernel"], layer["bias"]
    components = [multivariate_normal(m @ w + b, w.T @ np.diag(np.exp(v)) @ w + np.eye(6))
                  for m, v in zip(MEANS, LOGVARS, strict=True)]  # fmt: skip
    log_p = np.log(sum(weight * each.pdf(X) for weight, each in zip(WEIGHTS, components, strict=True))).mean()
    losses = [vade_loss(own, Batch(X), key, model=linear) for key in jax.random.split(KEY, 50)]
    assert np.mean([loss for loss, _ in losses]) > -log_p
    for loss, terms in losses[:2]:
        assert float(terms["bound_nats"]) == pytest.approx(float(terms["recon_nats"] + terms["kl_nats"]), rel=1e-6)
        assert float(loss) == float(terms["bound_nats"])
    scaled, terms = vade_loss(own, Batch(X), KEY, model=linear, beta=0.3)
    assert float(scaled) == pytest.approx(float(terms["recon_nats"]) + 0.3 * float(terms["kl_nats"]), rel=1e-6)


def test_with_one_cluster_at_the_origin_it_is_the_vae():
    model = VaDE.dense(6, 2, hidden_dims=(5,), prior=priors.LearnedMixture(1), likelihood="gaussian")
    standard = {"means": jnp.zeros((1, 2)), "logvars": jnp.zeros((1, 2)), "logits": jnp.zeros(1)}
    own = init_params(model, KEY, X) | {"prior": standard}
    vae = VAE.dense(6, 2, hidden_dims=(5,), likelihood="gaussian")
    networks = {group: own[group] for group in ("encoder", "decoder")}
    loss, expected = vade_loss(own, Batch(X), KEY, model=model), vae_loss(networks, Batch(X), KEY, model=vae)
    assert float(loss[0]) == pytest.approx(float(expected[0]), rel=1e-6)
    assert float(loss[1]["kl_nats"]) == pytest.approx(float(expected[1]["kl_nats"]), rel=1e-5)


def test_the_gradient_is_that_of_central_differences(params):
    """In float64, along one direction of all parameters, q(c|x) among what moves."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), params)
        way = jax.tree.map(lambda v: jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape), wide)
        batch = Batch(jnp.asarray(X, jnp.float64))
        loss = lambda t: vade_loss(jax.tree.map(lambda v, w: v + t * w, wide, way), batch, KEY, model=MODEL)[0]
        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert float(jax.grad(loss)(0.0)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("logvar", [-60.0, -20.0, 20.0])
def test_variances_near_zero_and_clusters_far_away_give_numbers(params, logvar):
    """A product of densities is 0 / 0 there; probabilities as they are, with 1e-10 added, forget which is nearest."""
    prior = {**params["prior"], "means": 1e3 * params["prior"]["means"]} if logvar > 0 else params["prior"]
    own = {**params, "prior": {**prior, "logvars": jnp.full((3, 2), logvar).at[0].set(0.0)}}
    (loss, _), grads = jax.value_and_grad(lambda p: vade_loss(p, Batch(X), KEY, model=MODEL), has_aux=True)(own)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    codes = MODEL.apply({"params": own}, X, method="embed")
    far = {**own, "prior": {**own["prior"], "means": jnp.array([[1e4, 0], [2e4, 0], [3e4, 0]]),
                            "logvars": jnp.zeros((3, 2))}}  # fmt: skip
    assert (MODEL.apply({"params": far}, X, method="clusters") == 0).all(), codes


def test_it_begins_with_a_mixture_of_the_codes_of_an_autoencoder(params):
    started = vade(MODEL).start(params, Batch(X), KEY)
    expected = clusters.gaussian_mixture(KEY, MODEL.apply({"params": params}, X, method="embed"), 3)
    np.testing.assert_allclose(started["prior"]["means"], expected.means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(started["prior"]["logits"], expected.log_weights, rtol=1e-4, atol=1e-5)
    before, _ = vade_ae(MODEL).step(vade_ae(MODEL).init(params), Batch(X), KEY)
    jax.tree.map(np.testing.assert_array_equal, before.params["prior"], params["prior"])
    moved = np.asarray(before.params["encoder"]["dense_1"]["kernel"] != params["encoder"]["dense_1"]["kernel"])
    assert moved[:, :2].any()
    assert not moved[:, 2:].any()  # what returns the log-variances


def test_another_prior_is_refused():
    with pytest.raises(InputError, match=r"here it is 'normal': prior=LearnedMixture\(10\)"):
        vade(VaDE.dense(6, 2, prior="normal"))


@pytest.mark.slow
def test_blobs_are_told_apart_and_drawn_again():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 900)
    x = 4 * rng.normal(size=(3, 8))[y] + rng.normal(size=(900, 8))
    fitted = learn("vade", x, latent_dim=2, hidden_dims=(32,), prior=priors.LearnedMixture(3), num_epochs=30,
                   pretrain_epochs=30, likelihood="gaussian")  # fmt: skip
    found = np.asarray(fitted.model.apply({"params": fitted.params}, x, method="clusters"))
    assert all(np.bincount(found[y == k]).max() > 0.97 * (y == k).sum() for k in range(3))
    assert len(set(found)) == 3
    drawn = fitted.sample(600, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), x.mean(axis=0), atol=0.6)
