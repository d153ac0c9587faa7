"""Mult-DAE against its equations in float64 NumPy, the share of counts that is the optimum, and its dropout."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import log_softmax

from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call
from aejax.likelihoods import Multinomial
from aejax.methods.ae import AE
from aejax.methods.mult_dae import MultDAE, dropped, mult_dae, mult_dae_loss, unit
from aejax.nets import init_params

N, D, Z = 5, 6, 3
X = np.random.default_rng(0).poisson(1.0, (N, D)).astype(np.float64)
X[3] = 0
MODEL = MultDAE.dense(D, Z)


def drawn(model=MODEL):
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.ones((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.7 * rng.normal(size=leaf.shape), shapes)


@cache
def value_and_grad():
    def loss(params, x, key, rate, weight_decay):
        return mult_dae_loss(params, Batch(x), key, model=MODEL, dropout=rate, weight_decay=weight_decay)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def evaluated(params, x, rate=0.0, weight_decay=0.0):
    with jax.enable_x64(True):
        return jax.device_get(value_and_grad()(params, jnp.asarray(x), jax.random.key(2), rate, weight_decay))


def lengths_of_one(x):
    length = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_the_loss_is_that_of_the_equations_at_what_was_dropped(rate):
    params = drawn()
    (loss, terms), _ = evaluated(params, X, rate, 0.1)
    with jax.enable_x64(True):
        h = np.asarray(dropped(jax.random.key(2), jnp.asarray(X), rate))
    kept = h != 0
    np.testing.assert_allclose(h[kept], (lengths_of_one(X) / (1 - rate))[kept], rtol=1e-12)  # scaled before it is lost
    assert (kept == (X > 0)).all() == (rate == 0)
    v, w = (params[group]["dense_0"] for group in ("encoder", "decoder"))
    log_p = log_softmax(np.tanh(h @ v["kernel"] + v["bias"]) @ w["kernel"] + w["bias"], axis=1)
    recon = -(X * log_p).sum(axis=1).mean()
    squared = (v["kernel"] ** 2).sum() + (w["kernel"] ** 2).sum()
    np.testing.assert_allclose(terms["recon_nats"], recon, rtol=1e-12)
    np.testing.assert_allclose(loss, recon + 0.1 * squared, rtol=1e-12)
    x_hat = X.sum(axis=1, keepdims=True) * np.exp(log_p)
    np.testing.assert_allclose(terms["sse"], ((x_hat - X) ** 2).sum(axis=1).mean(), rtol=1e-12)


def test_the_gradient_vanishes_at_the_shares_of_all_counts():
    """Of a decoder that ignores its code: the maximum of a multinomial likelihood, whatever the totals."""
    params = drawn()
    params["decoder"]["dense_0"] = {"kernel": np.zeros((Z, D)), "bias": np.log(X.sum(axis=0)) + 3.0}
    grads = evaluated(params, X)[1]["decoder"]["dense_0"]["bias"]
    np.testing.assert_allclose(grads, np.zeros(D), atol=1e-14)


def test_the_gradient_is_that_of_finite_differences():
    params = drawn()
    grads = evaluated(params, X, 0.3, 0.1)[1]
    direction = jax.tree.map(lambda leaf: np.random.default_rng(2).normal(size=leaf.shape), params)
    at = lambda h: evaluated(jax.tree.map(lambda p, d: p + h * d, params, direction), X, 0.3, 0.1)[0][0]
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, grads, direction)))
    np.testing.assert_allclose((at(1e-5) - at(-1e-5)) / 2e-5, slope, rtol=1e-7)


def test_the_likelihood_is_scipys_but_for_the_number_of_orders():
    output = np.random.default_rng(3).normal(0, 2, (N, 3, 2))
    x = X.reshape(N, 3, 2)
    p = np.exp(log_softmax(output.reshape(N, D), axis=1))
    exact = [scipy.stats.multinomial.logpmf(row, int(row.sum()), q) for row, q in zip(X, p, strict=True)]
    orders = scipy.special.gammaln(X.sum(1) + 1) - scipy.special.gammaln(X + 1).sum(1)
    with jax.enable_x64(True):
        got = Multinomial().nll(jnp.asarray(output), jnp.asarray(x))
        shares = Multinomial().mean(jnp.asarray(output))
    np.testing.assert_allclose(got, orders - np.array(exact), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.asarray(shares).reshape(N, D), p, rtol=1e-12)
    n = 20_000
    draws = Multinomial().sample(jax.random.key(0), jnp.broadcast_to(jnp.asarray(output[:1]), (n, 3, 2)))
    assert draws.shape == (n, 3, 2)
    assert (draws.sum((1, 2)) == 1).all()
    z = (np.asarray(draws).reshape(n, D).mean(0) - p[0]) / np.sqrt(p[0] * (1 - p[0]) / n)
    np.testing.assert_array_less(np.abs(z), 4.5)


def test_the_dropout_keeps_the_mean_and_loses_its_share():
    x = np.tile(np.float32([[3.0, 4.0]]), (40_000, 1))
    h = np.asarray(dropped(jax.random.key(0), jnp.asarray(x), 0.25))
    lost = (h == 0).mean()
    assert abs(lost - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / h.size)
    spread = np.float64([0.6, 0.8]) * np.sqrt(0.25 / 0.75 / len(h))
    np.testing.assert_array_less(np.abs(h.mean(axis=0, dtype=np.float64) - [0.6, 0.8]) / spread, 4.5)


def test_the_code_goes_by_the_shares_and_the_counts_by_the_total():
    params = jax.tree.map(np.float32, drawn())
    x = np.float32(X)
    np.testing.assert_allclose(call(MODEL, params, "embed", 7 * x), call(MODEL, params, "embed", x), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(call(MODEL, params, "reconstruct", x)).sum(1), X.sum(1), rtol=1e-5)
    z = call(MODEL, params, "embed", x)
    np.testing.assert_allclose(np.asarray(call(MODEL, params, "generate", z)).sum(1), np.ones(N), rtol=1e-5)
    assert np.isfinite(unit(jnp.zeros((1, 4)))).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="MultDAE takes multinomial alone"):
        mult_dae(MultDAE.dense(D, Z, likelihood="poisson"))
    with pytest.raises(InputError, match=r"dropout is 1\.0; it has to be below 1"):
        mult_dae(MODEL, dropout=1.0)
    with pytest.raises(InputError, match="MultDAE or a MultVAE is needed"):
        mult_dae(AE.dense(D, Z, likelihood="multinomial"))
    with pytest.raises(InputError, match="counts, which are integers"):
        mult_dae(MODEL).check(Batch(np.float32(X + 0.5)))
