"""AutoRec against its equations in float64 NumPy, entry by entry, and against means of what was observed."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax
from aejax import evaluation, training
from aejax.algorithm import transform_batch
from aejax.checks import InputError
from aejax.data import Batch, sparse
from aejax.likelihoods import Gaussian, Multinomial, Observed
from aejax.methods.ae import AE, ae
from aejax.methods.autorec import AutoRec, autorec, autorec_loss
from aejax.nets import init_params

N, D, Z = 6, 5, 3
RNG = np.random.default_rng(0)
FULL = RNG.normal(0.5, 1.5, (N, D))
SEEN = RNG.random((N, D)) < 0.5
SEEN[:, 3] = False  # a column without a rating
SEEN[2] = False  # and a row
X = np.where(SEEN, FULL, np.nan)
MODEL = AutoRec.dense(D, Z)


def drawn():
    shapes = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0), jnp.zeros((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


@cache
def value_and_grad():
    return jax.jit(
        jax.value_and_grad(
            lambda p, x, w: autorec_loss(p, Batch(x), jax.random.key(0), model=MODEL, weight_decay=w), has_aux=True
        )
    )


def evaluated(params, x, weight_decay=0.1):
    with jax.enable_x64(True):
        return jax.device_get(value_and_grad()(params, jnp.asarray(x), jnp.asarray(weight_decay)))


def by_hand(params, weight_decay):
    """Equation 3, twice the loss of N examples: loops over what was observed, and nothing else."""
    v, mu = (params["encoder"]["dense_0"][name] for name in ("kernel", "bias"))
    w, b = (params["decoder"]["dense_0"][name] for name in ("kernel", "bias"))
    total, count = 0.0, 0
    for i in range(N):
        told = [j for j in range(D) if SEEN[i, j]]
        code = 1 / (1 + np.exp(-(sum((FULL[i, j] * v[j] for j in told), mu))))
        for j in told:
            total += (FULL[i, j] - (code @ w[:, j] + b[j])) ** 2
            count += 1
    squared = (v**2).sum() + (w**2).sum()
    lam = 4 * N * weight_decay
    return total, count, squared, total + lam / 2 * squared


def test_the_loss_is_equation_3_over_what_was_observed():
    params = drawn()
    (loss, terms), _ = evaluated(params, X)
    total, count, squared, paper = by_hand(params, 0.1)
    constant = count * np.log(2 * np.pi)
    np.testing.assert_allclose(2 * N * loss - constant, paper, rtol=1e-12)
    np.testing.assert_allclose(terms["sse"] * N, total, rtol=1e-12)
    np.testing.assert_allclose(terms["observed"] * N, count, rtol=1e-12)
    np.testing.assert_allclose(terms["weights_sq"], squared, rtol=1e-12)
    np.testing.assert_allclose(2 * N * terms["recon_nats"] - constant, total, rtol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    params = drawn()
    _, grads = evaluated(params, X)
    direction = jax.tree.map(lambda leaf: np.random.default_rng(2).normal(size=leaf.shape), params)
    at = lambda h: evaluated(jax.tree.map(lambda p, d: p + h * d, params, direction), X)[0][0]
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, grads, direction)))
    np.testing.assert_allclose((at(1e-5) - at(-1e-5)) / 2e-5, slope, rtol=1e-7)


def test_what_was_not_observed_moves_nothing():
    """The weights that lead to and from a column without a rating have no gradient but that of their own size."""
    params = drawn()
    (loss, _), grads = evaluated(params, X, 0.0)
    assert not np.abs(grads["decoder"]["dense_0"]["kernel"][:, 3]).any()
    assert grads["decoder"]["dense_0"]["bias"][3] == 0
    assert not np.abs(grads["encoder"]["dense_0"]["kernel"][3]).any()
    params["encoder"]["dense_0"]["kernel"][3] *= 100
    params["decoder"]["dense_0"]["bias"][3] = -1e6
    assert evaluated(params, X, 0.0)[0][0] == loss


def test_changing_unobserved_entries_changes_nothing_of_a_trained_model():
    """Of sparse rows, whose padding may hold anything, made dense in the compiled step."""
    row, column = np.nonzero(SEEN)
    listed = sparse.rows(row, column, np.float32(FULL[row, column]), (N, D))
    noise = np.float32(RNG.normal(0, 1e6, listed.values.shape))
    other = listed._replace(values=np.where(listed.columns < 0, noise, listed.values))
    assert (other.values != listed.values).any()
    algo = transform_batch(autorec(MODEL, lr=0.1), sparse.Dense(D, np.nan))
    state = algo.init(jax.tree.map(np.float32, drawn()))

    def trained(data, algo=algo):
        *_, last = training.train(algo, state, data, jax.random.key(3), batch_size=2, num_epochs=3)
        return last.state.params, last.metrics

    first = trained(listed)
    jax.tree.map(np.testing.assert_array_equal, trained(other), first)
    dense = trained(Batch(np.float32(X)), autorec(MODEL, lr=0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), dense, first)


def test_where_the_code_says_nothing_the_best_answers_are_the_means_of_what_was_observed():
    params = drawn()
    params["decoder"]["dense_0"]["kernel"][:] = 0
    means = np.where(SEEN.any(0), np.nansum(X, 0) / np.maximum(SEEN.sum(0), 1), 7.0)
    params["decoder"]["dense_0"]["bias"][:] = means
    (_, terms), grads = evaluated(params, X, 0.0)
    np.testing.assert_allclose(grads["decoder"]["dense_0"]["bias"], np.zeros(D), atol=1e-15)
    spread = np.sqrt(np.nanmean((X - means) ** 2))
    np.testing.assert_allclose(np.sqrt(terms["sse"] / terms["observed"]), spread, rtol=1e-12)


def test_three_lines_fill_a_table_of_low_rank():
    """Half of a table of rank one, which the other half tells."""
    rng = np.random.default_rng(4)
    full = np.outer(rng.normal(size=200), rng.normal(size=10)).astype(np.float32)
    x = np.where(rng.random(full.shape) < 0.5, full, np.float32(np.nan))
    fitted = aejax.learn("autorec", x, latent_dim=8, num_epochs=120, batch_size=50, lr=1e-2, weight_decay=1e-3)
    hidden = np.isnan(x)
    error = np.sqrt(np.mean((fitted.reconstruct(x) - full)[hidden] ** 2))
    assert error < 0.5 * np.sqrt(np.mean(full[hidden] ** 2))
    told = (fitted.reconstruct(x) - full)[~hidden]
    sse = evaluation.reconstruction_sse(fitted.model, fitted.params, x)
    np.testing.assert_allclose(sse, (told**2).sum() / 200, rtol=1e-5)


def test_whether_it_has_collapsed_is_not_asked_of_what_is_not_there():
    with pytest.raises(InputError, match="not observed"):
        evaluation.collapse(MODEL, jax.tree.map(np.float32, drawn()), np.float32(X), jax.random.key(0))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="nothing but NaN"):
        autorec(MODEL).check(Batch(np.full((2, D), np.nan, np.float32)))
    with pytest.raises(InputError, match=r"NaN or infinity .* 1 of its 2 examples, first in row 1"):
        autorec(MODEL).check(Batch(np.float32([[np.nan, *range(1, D)], [np.inf] * D])))
    with pytest.raises(InputError, match="AE has to see every number: use AutoRec"):
        ae(AE.dense(D, Z, likelihood="gaussian_observed")).check(Batch(np.float32(X)))
    with pytest.raises(InputError, match="NaN or infinity"):
        autorec(AutoRec.dense(D, Z, likelihood="gaussian")).check(Batch(np.float32(X)))
    for likelihood in (Gaussian("optimal"), Multinomial()):
        with pytest.raises(InputError, match="whose components are independent"):
            Observed(likelihood)
