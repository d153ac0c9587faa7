"""PixelVAE: the likelihood by quadrature over the code and all images of 2x2, draws against it, the chain of means."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import evaluation
from aejax.data import Batch
from aejax.methods.pixel_vae import PixelVAE
from aejax.methods.vae import vae_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
ALL = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32)
IMAGES = PixelVAE.conv((2, 2, 1), 1, features=(4,), strides=(2,), pixel_features=(4,))
VECTORS = PixelVAE.dense(4, 1, hidden_dims=(4,), pixel_dims=(8,))
both = pytest.mark.parametrize("model", [IMAGES, VECTORS], ids=["images", "vectors"])


def drawn(model, x):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: init_params(model, KEY, x))
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), jnp.float32), shapes)


def marginal(model, params, x):
    """p(x) of all images, from 200 points of Gauss-Hermite quadrature over the one number of the code."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    z = jnp.asarray(np.repeat(points, len(x))[:, None], jnp.float32)
    every = jnp.asarray(np.tile(x, (200, *[1] * (x.ndim - 1))))
    nll = jax.jit(lambda z, x: model.apply({"params": params}, z, x, method="nll"))(z, every)
    p = np.exp(-np.asarray(nll, np.float64)).reshape(200, len(x))
    return p, weights / weights.sum() @ p


@pytest.mark.first(1)
@both
def test_images_given_a_code_sum_to_one_and_the_bound_is_one_on_the_enumerated_likelihood(model):
    x = ALL.reshape(16, *model.data_shape)
    params = drawn(model, x)
    given, p = marginal(model, params, x)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(given, axis=0).max() > 0.05  # the code matters
    found = evaluation.nll(model, params, x, KEY, num_samples=2000)
    exact = -np.log(p).mean()
    assert abs(found.nll_nats - exact) < 4 * found.std_error + 1e-3
    _, terms = vae_loss(params, Batch(x), KEY, model=model, num_samples=500)
    assert float(terms["bound_nats"]) > exact
    assert float(terms["kl_nats"]) > 0.01


@pytest.mark.first(1)
@both
def test_draws_have_the_enumerated_probabilities(model):
    x = ALL.reshape(16, *model.data_shape)
    params = drawn(model, x)
    p = marginal(model, params, x)[1]
    draws = jax.jit(lambda key: model.apply({"params": params}, key, 20_000, method="sample"))(KEY)
    counts = np.bincount((np.asarray(draws).reshape(-1, 4) @ [8, 4, 2, 1]).astype(int), minlength=16)
    assert (np.square(counts - 20_000 * p) / (20_000 * p)).sum() < 37.7  # 15 degrees of freedom, one in a thousand


@pytest.mark.first(1)
@both
def test_a_code_stands_for_the_means_of_its_pixels_one_after_the_other(model):
    x = ALL.reshape(16, *model.data_shape)
    params, z = drawn(model, x), jnp.array([[-1.5], [0.3], [2.0]])
    image = np.zeros((3, 4), np.float32)
    for i in range(4):
        logits = model.apply({"params": params}, z, image.reshape(3, *model.data_shape), method="decode_given")
        image[:, i] = 1 / (1 + np.exp(-np.asarray(logits).reshape(3, 4)[:, i]))
    found = model.apply({"params": params}, z, method="generate")
    np.testing.assert_allclose(np.asarray(found).reshape(3, 4), image, atol=1e-5)
    assert np.abs(image[0] - image[2]).max() > 0.01
