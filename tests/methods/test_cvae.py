"""CVAE: p(x given y) against a closed form, and labels that the model does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from aejax import evaluation, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.cvae import CVAE, cvae
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
