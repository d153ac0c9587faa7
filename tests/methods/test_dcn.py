"""DCN: centres code by code as published, the loss by hand, and the order of play."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import training
from aejax.data import Batch
from aejax.methods.dcn import DCN, dcn, dcn_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = DCN.dense(6, 2, hidden_dims=(), num_clusters=3, likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    started = dcn(MODEL).start(init_params(MODEL, KEY, X), Batch(X), KEY)
    return {**started, "centres": 1.3 * started["centres"] + 0.1, "counts": jnp.array([100.0, 7.0, 30.0])}


def affine(group, v):
    layer = jax.tree.map(lambda p: np.asarray(p, np.float64), group["dense_0"])
    return v @ layer["kernel"] + layer["bias"]


def test_the_loss_and_the_gradient_of_a_code_by_hand(params):
    z = affine(params["encoder"], X)
    centres = np.asarray(params["centres"], np.float64)
    chosen = [min(range(3), key=lambda k, p=point: ((p - centres[k]) ** 2).sum()) for point in z]
    gaps = z - centres[chosen]
    errors = affine(params["decoder"], z) - X
    loss, terms = dcn_loss(params, Batch(X), KEY, model=MODEL, clustering=0.6)
    assert float(terms["cluster_sq"]) == pytest.approx((gaps**2).sum() / 64, rel=1e-5)
    recon = 0.5 * (errors**2).sum() / 64 + 3 * np.log(2 * np.pi)
    assert float(loss) == pytest.approx(recon + 0.6 / 2 * (gaps**2).sum() / 64, rel=1e-5)
    np.testing.assert_array_equal(MODEL.apply({"params": params}, X, method="clusters"), chosen)
    grads = jax.grad(lambda own: dcn_loss(own, Batch(X), KEY, model=MODEL, clustering=0.6)[0])(params)
    back = errors @ np.asarray(params["decoder"]["dense_0"]["kernel"], np.float64).T + 0.6 * gaps
    np.testing.assert_allclose(grads["encoder"]["dense_0"]["kernel"], X.T @ back / 64, rtol=1e-4, atol=1e-5)
    assert not grads["centres"].any()


def test_centres_move_code_by_code_each_by_one_part_in_its_count_and_see_the_networks_after_their_step(params):
    """The loops of the authors' `batch_km`, with a rate that is no whole number."""
    algo = dcn(MODEL, tx=optax.sgd, lr=0.1)
    after, _ = jax.jit(algo.step)(algo.init(params), Batch(X[:16]), KEY)
    z = affine(after.params["encoder"], X[:16])
    assert np.abs(z - affine(params["encoder"], X[:16])).max() > 1e-2
    centres, counts = (np.asarray(params[group], np.float64).copy() for group in ("centres", "counts"))
    chosen = [min(range(3), key=lambda k, p=point: ((p - centres[k]) ** 2).sum()) for point in z]
    for point, k in zip(z, chosen, strict=True):
        counts[k] += 1
        centres[k] = (1 - 1 / counts[k]) * centres[k] + 1 / counts[k] * point
    np.testing.assert_allclose(after.params["centres"], centres, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after.params["counts"], counts)
    assert len(set(chosen)) > 1


def test_counts_begin_at_a_hundred_and_add_up_to_all_that_was_seen():
    algo = dcn(MODEL)
    begun = algo.init(algo.start(init_params(MODEL, KEY, X), Batch(X), KEY))
    np.testing.assert_array_equal(begun.params["counts"], [100.0] * 3)
    *_, last = training.train(algo, begun, Batch(X), KEY, batch_size=16, num_epochs=3)
    assert float(last.state.params["counts"].sum()) == 300 + 3 * 64


def test_a_weight_draws_codes_to_their_centres():
    def spread(clustering):
        algo = dcn(MODEL, clustering=clustering, lr=0.01)
        begun = algo.init(algo.start(init_params(MODEL, KEY, X), Batch(X), KEY))
        *_, last = training.train(algo, begun, Batch(X), KEY, batch_size=16, num_epochs=30)
        terms = dcn_loss(last.state.params, Batch(X), KEY, model=MODEL)[1]
        z = MODEL.apply({"params": last.state.params}, X, method="embed")
        return float(terms["cluster_sq"]) / float(z.var(axis=0).sum())

    assert spread(3.0) < 0.8 * spread(0.0)
