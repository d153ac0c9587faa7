"""CVAE: p(x given y), y a class or numbers, against a closed form, and labels that the model does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from aejax import evaluation, training
from aejax.checks import InputError
from aejax.data import Batch, parts
from aejax.methods.cvae import CVAE, cvae
from aejax.methods.vae import vae_loss
from aejax.nets import Labelled, init_params

KEY = jax.random.key(0)
MODEL = CVAE.dense(3, 2, num_classes=2, hidden_dims=(), likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.array([0, 1, 0, 1, 1, 0], np.int32)


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, KEY, Batch(X, Y))


def test_the_label_stands_behind_the_input():
    """With ones everywhere a dense net returns the sum of what it sees."""
    import flax.linen as nn

    net = Labelled(nn.Dense(1, kernel_init=nn.initializers.ones, use_bias=False), 3)
    out, variables = net.init_with_output(KEY, jnp.full((2, 4), 0.5), jnp.array([2, 7]))
    assert out.ravel().tolist() == [3.0, 2.0]  # the second label is no class
    kernel = variables["params"]["net"]["kernel"].at[6].set(10.0)
    assert (
        float(net.apply({"params": {"net": {"kernel": kernel}}}, jnp.full((1, 4), 0.5), jnp.array([2]))[0, 0]) == 12.0
    )
    image = jnp.zeros((1, 2, 2, 1))
    seen = Labelled(nn.Dense(4, kernel_init=nn.initializers.ones, use_bias=False), 3)
    assert seen.init_with_output(KEY, image, jnp.array([1]))[0].tolist() == np.ones((1, 2, 2, 4)).tolist()


def test_the_likelihood_is_that_of_x_given_its_label(params):
    """A linear decoder and unit variance: p(x|y) = N(W_y + b, W_z W_z' + I)."""
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["decoder"]["net"]["dense_0"])
    w_z, w_y, b = layer["kernel"][:2], layer["kernel"][2:], layer["bias"]
    cov = w_z.T @ w_z + np.eye(3)
    exact = -np.mean([multivariate_normal.logpdf(x, w_y[y] + b, cov) for x, y in zip(X, Y, strict=True)])
    found = evaluation.nll(MODEL, params, Batch(X, Y), KEY, num_samples=4000)
    assert abs(found.nll_nats - exact) < 4 * found.std_error + 1e-4
    other = evaluation.nll(MODEL, params, Batch(X, 1 - Y), KEY, num_samples=4000)
    wrong = -np.mean([multivariate_normal.logpdf(x, w_y[1 - y] + b, cov) for x, y in zip(X, Y, strict=True)])
    assert abs(other.nll_nats - wrong) < 4 * other.std_error + 1e-4
    assert abs(exact - wrong) > 8 * found.std_error


def test_the_likelihood_is_that_of_x_given_the_numbers_in_y():
    """Likewise: p(x|y) = N(W_y'y + b, W_z'W_z + I), the encoder having seen both."""
    model = CVAE.dense(3, 2, num_classes=None, hidden_dims=(), likelihood="gaussian")
    y = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    params = init_params(model, KEY, Batch(X, y))
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["decoder"]["net"]["dense_0"])
    w_z, w_y, b = layer["kernel"][:2], layer["kernel"][2:], layer["bias"]
    assert w_y.shape == (4, 3)
    log_p = lambda y: [
        multivariate_normal.logpdf(v, m, w_z.T @ w_z + np.eye(3)) for v, m in zip(X, y @ w_y + b, strict=True)
    ]
    found = evaluation.nll(model, params, Batch(X, y), KEY, num_samples=4000)
    assert abs(found.nll_nats + np.mean(log_p(y))) < 4 * found.std_error + 1e-4
    assert abs(np.mean(log_p(y)) - np.mean(log_p(y[::-1]))) > 8 * found.std_error  # each has its own
    mean = lambda x, y: model.apply({"params": params}, x, y, method="encode").mean
    kernel = params["encoder"]["net"]["dense_0"]["kernel"][:, :2]
    np.testing.assert_allclose(mean(X, y), np.hstack([X, y]) @ kernel, rtol=1e-5, atol=1e-6)


def test_the_loss_is_of_what_is_not_seen_and_knows_what_is_only_as_the_condition():
    """Pixels of four quadrants, of which one is seen; a network without weights gives each of the others log 2."""
    x = np.random.default_rng(0).uniform(size=(5, 6, 6, 1)).astype(np.float32)
    seen = parts.region(x.shape[1:], "lower_left")
    batch, other = parts.split(x, seen), parts.split(np.where(seen, 1 - x, x), seen)
    model = CVAE.dense(27, 2, num_classes=None, hidden_dims=(4,))
    params = init_params(model, KEY, batch)
    nothing = vae_loss(jax.tree.map(jnp.zeros_like, params), batch, KEY, model=model)
    assert float(nothing[0]) == pytest.approx(27 * np.log(2), rel=1e-5)
    assert float(nothing[1]["kl_nats"]) == 0
    assert abs(vae_loss(params, batch, KEY, model=model)[0] - vae_loss(params, other, KEY, model=model)[0]) > 1e-3
    for net, own in (("encoder", 27), ("decoder", 2)):  # rows of the first kernel that are not of the condition
        layer = params[net]["net"]["dense_0"]
        params[net]["net"]["dense_0"] = layer | {"kernel": layer["kernel"].at[own:].set(0.0)}
    assert vae_loss(params, batch, KEY, model=model)[0] == vae_loss(params, other, KEY, model=model)[0]


def test_the_bound_is_above_the_likelihood_and_takes_the_labels(params):
    algo = cvae(MODEL)
    state = algo.init(params)
    bound = np.mean(
        [training.evaluate(algo, state, Batch(X, Y), key)["elbo/bound_nats"] for key in jax.random.split(KEY, 64)]
    )
    assert bound > evaluation.nll(MODEL, params, Batch(X, Y), KEY, num_samples=2000).nll_nats
    with pytest.raises(InputError, match="conditioned on labels"):
        training.train(algo, state, Batch(X), KEY, batch_size=2, num_epochs=1)
    with pytest.raises(InputError, match="num_classes=2"):
        training.train(algo, state, Batch(X, Y + 1), KEY, batch_size=2, num_epochs=1)


def test_one_code_is_drawn_as_every_class(params):
    drawn = MODEL.apply({"params": params}, KEY, 2, jnp.array([0, 1]), method="sample")
    z = jax.random.normal(KEY, (2, 2))
    np.testing.assert_allclose(
        drawn, MODEL.apply({"params": params}, z, jnp.array([0, 1]), method="generate"), rtol=1e-6
    )
    assert not np.allclose(drawn, MODEL.apply({"params": params}, KEY, 2, jnp.array([1, 0]), method="sample"))
