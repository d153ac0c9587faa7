"""FSQ: levels, numbers and gradients by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.fsq import FSQ, bounded, fsq_loss
from aejax.nets import init_params, quantise

KEY = jax.random.key(0)
MODEL = FSQ.dense(5, 4, hidden_dims=(), levels=(3, 4), likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda v: 2 * v, init_params(MODEL, KEY, X))


def by_hand(params):
    """What is rounded, `[6, 2, 2]`, by appendix A.1 in float64."""
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["encoder"]["dense_0"])
    z = (X @ layer["kernel"] + layer["bias"]).reshape(6, 2, 2)
    three, four = 0.999 * np.tanh(z[..., 0]), 1.4985 * np.tanh(z[..., 1] + math.tan(0.5 / 1.4985)) - 0.5
    return np.stack([three, four], axis=-1)


def test_the_code_and_its_tokens_by_hand(params):
    levels = np.round(by_hand(params))  # -1 to 1, and -2 to 1
    bound = MODEL.bind({"params": params})
    np.testing.assert_allclose(bound.embed(X), (levels / [1, 2]).reshape(6, 4), atol=1e-6)
    tokens = (levels[..., 0] + 1) + 3 * (levels[..., 1] + 2)
    np.testing.assert_array_equal(bound.tokens(X), tokens)
    assert len(np.unique(tokens)) > 4
    np.testing.assert_array_equal(bound.entries(bound.tokens(X)), bound.embed(X))


def test_all_points_of_the_grid_have_numbers_of_their_own():
    tokens = jnp.arange(60)
    digits = quantise.to_digits(tokens, (3, 4, 5))
    assert len({tuple(row) for row in digits.tolist()}) == 60
    assert digits[1 + 3 * 2 + 12 * 4].tolist() == [1, 2, 4]
    np.testing.assert_array_equal(quantise.to_tokens(digits, (3, 4, 5)), tokens)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_every_level_is_reached_and_none_besides(size):
    found = np.unique(np.round(bounded(jnp.linspace(-8, 8, 4001)[:, None], (size,))))
    np.testing.assert_array_equal(found, np.arange(size) - size // 2)


def test_the_gradient_is_that_of_the_bounded_numbers_as_if_they_were_not_rounded(params):
    """d loss / d z = decoder's gradient at the rounded code, times the derivative of tanh."""
    grads = jax.grad(lambda p: fsq_loss(p, Batch(jnp.asarray(X)), KEY, model=MODEL)[0])(params)
    y = by_hand(params)
    code = (np.round(y) / [1, 2]).reshape(6, 4)
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["decoder"]["dense_0"])
    upstream = (code @ layer["kernel"] + layer["bias"] - X) @ layer["kernel"].T / 6
    slope = np.stack([0.999 * (1 - (y[..., 0] / 0.999) ** 2), 1.4985 * (1 - ((y[..., 1] + 0.5) / 1.4985) ** 2)], -1)
    by_chain = upstream.reshape(6, 2, 2) * slope / [1, 2]
    np.testing.assert_allclose(
        grads["encoder"]["dense_0"]["kernel"], X.T @ by_chain.reshape(6, 4), rtol=1e-4, atol=1e-5
    )


def test_levels_that_do_not_fit_are_refused_and_the_advice_helps():
    for levels in ((), (1, 3), (3, 3, 3)):
        with pytest.raises(InputError, match="their count divides latent_dim=4"):
            init_params(FSQ.dense(5, 4, levels=levels), KEY, X)
    with pytest.raises(InputError, match=r"tokens count up to 2\^31"):
        init_params(FSQ.dense(5, 4, levels=(1000, 1000, 1000, 1000)), KEY, X)
    init_params(FSQ.dense(5, 4, levels=(2, 2, 2, 2)), KEY, X)
