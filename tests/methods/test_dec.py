"""DEC: the published gradients by hand, targets of the whole set, and when they change."""

import jax
import numpy as np
import optax
import pytest

from aejax import learn, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.dec import DEC, dec, dec_loss, decoder_loss, refreshed
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = DEC.dense(6, 2, hidden_dims=(), num_clusters=3, likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(2500, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    """Those of a start, and then moved, so that the snapshot is another than the encoder."""
    started = dec(MODEL).start(init_params(MODEL, KEY, X), Batch(X), KEY)
    moved = jax.tree.map(lambda v: 1.1 * v + 0.05, {g: started[g] for g in ("encoder", "decoder", "centres")})
    return {**started, **moved}


def encoded(group, x=X):
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), group["dense_0"])
    return x.astype(np.float64) @ layer["kernel"] + layer["bias"]


def assigned(z, centres):
    """q of equation 1, example by example."""
    q = np.zeros((len(z), len(centres)))
    for i, point in enumerate(z):
        kernel = [1 / (1 + ((point - centre) ** 2).sum()) for centre in np.asarray(centres, np.float64)]
        q[i] = np.array(kernel) / sum(kernel)
    return q


def sharpened(q):
    """p of equation 3, from q of the whole set."""
    f = q.sum(axis=0)
    weight = np.array([[q[i, j] ** 2 / f[j] for j in range(q.shape[1])] for i in range(len(q))])
    return weight / weight.sum(axis=1, keepdims=True)


def targets_by_hand(params):
    snapshot = params["snapshot"]
    return sharpened(assigned(encoded(snapshot["encoder"]), snapshot["centres"]))


def apply(params, x, method):
    return np.exp(np.asarray(MODEL.apply({"params": params}, x, method=method)))


def test_targets_are_those_of_the_whole_set_and_the_whole_is_its_parts(params):
    p = targets_by_hand(params)
    np.testing.assert_allclose(apply(params, X, "log_targets"), p, rtol=1e-4, atol=1e-6)
    parts = [apply(params, X[i : i + 37], "log_targets") for i in range(0, 2500, 37)]
    np.testing.assert_allclose(np.concatenate(parts), p, rtol=1e-4, atol=1e-6)
    of_batches = [sharpened(assigned(encoded(params["snapshot"]["encoder"], part), params["snapshot"]["centres"]))
                  for part in np.split(X, 100)]  # fmt: skip
    assert np.abs(np.concatenate(of_batches) - p).max() > 0.02  # which a target of each batch alone is not


def test_the_loss_and_its_gradients_are_the_published_ones(params):
    """Equations 2, 4 and 5, the sums over examples as means."""
    x = X[:20]
    z, centres = encoded(params["encoder"], x), np.asarray(params["centres"], np.float64)
    q, p = assigned(z, centres), targets_by_hand(params)[:20]
    loss, terms = dec_loss(params, Batch(x), KEY, model=MODEL)
    assert float(loss) == pytest.approx((p * np.log(p / q)).sum() / 20, rel=1e-4)
    assert float(terms["cluster_kl_nats"]) == float(loss)
    grads = jax.grad(lambda own: dec_loss(own, Batch(x), KEY, model=MODEL)[0])(params)
    to_z, to_centres = np.zeros_like(z), np.zeros_like(centres)
    for i in range(20):
        for j in range(3):
            gap = z[i] - centres[j]
            pull = 2 * (p[i, j] - q[i, j]) / (1 + gap @ gap) * gap / 20
            to_z[i] += pull
            to_centres[j] -= pull
    np.testing.assert_allclose(grads["centres"], to_centres, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(grads["encoder"]["dense_0"]["kernel"], x.T @ to_z, rtol=1e-3, atol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves((grads["snapshot"], grads["decoder"])))


def test_the_decoder_learns_and_no_code_feels_it(params):
    grads = jax.grad(lambda own: decoder_loss(own, Batch(X[:9]), KEY, model=MODEL)[0])(params)
    z = encoded(params["encoder"], X[:9])
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["decoder"]["dense_0"])
    gap = (z @ layer["kernel"] + layer["bias"] - X[:9]) / 9
    np.testing.assert_allclose(grads["decoder"]["dense_0"]["kernel"], z.T @ gap, rtol=1e-4, atol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves((grads["encoder"], grads["centres"])))


def test_the_start_is_k_means_of_the_codes_and_a_snapshot_of_that():
    fresh = init_params(MODEL, KEY, X)
    started = dec(MODEL).start(fresh, Batch(X), KEY)
    z, centres = encoded(fresh["encoder"]), np.asarray(started["centres"], np.float64)
    chosen = np.square(z[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
    means = np.stack([z[chosen == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(centres, means, atol=1e-4)
    np.testing.assert_array_equal(MODEL.apply({"params": started}, X, method="clusters"), chosen)
    jax.tree.map(np.testing.assert_array_equal, started["snapshot"]["encoder"], fresh["encoder"])
    np.testing.assert_allclose(started["snapshot"]["frequencies"], assigned(z, centres).mean(axis=0), rtol=1e-4)


def chunks(algo, state, num_epochs):
    sizes = {"batch_size": 16, "num_epochs": num_epochs, "boundary": 2}
    return list(training.train(algo, state, Batch(X[:64]), KEY, **sizes))


def test_targets_change_every_so_many_steps_and_a_run_goes_on_between_two_of_them():
    algo = dec(MODEL, tx=optax.sgd, lr=0.5, refresh_every=3)
    begun = algo.init(algo.start(init_params(MODEL, KEY, X), Batch(X[:64]), KEY))
    whole = chunks(algo, begun, 3)
    states = {0: begun} | {chunk.step: chunk.state for chunk in whole}
    now = refreshed(MODEL, states[9].params, Batch(X[:64]), KEY)["snapshot"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), states[12].params["snapshot"], now)
    assert np.abs(states[12].params["centres"] - now["centres"]).max() > 1e-4  # moved since
    saved = jax.tree.map(np.asarray, states[8])  # two steps after a refresh
    jax.tree.map(np.testing.assert_array_equal, chunks(algo, saved, 3)[-1].state, states[12])


def test_it_needs_a_cluster():
    with pytest.raises(InputError, match="num_clusters=0; at least 1"):
        DEC.dense(6, 2, num_clusters=0)


@pytest.mark.slow
def test_it_is_surer_of_clusters_that_touch():
    """Three groups of points in 2-D, bent into 20-D; the same parameters before and after."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 1500)
    angle = 2 * np.pi * y / 3
    flat = 2.2 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(size=(1500, 2))
    x = np.tanh(flat @ rng.normal(size=(2, 20))) + 0.05 * rng.normal(size=(1500, 20))
    options = {"latent_dim": 2, "hidden_dims": (32,), "num_clusters": 3, "seed": 1, "refresh_every": 20}
    before = learn("dec", x, num_epochs=1, lr=1e-9, pretrain_epochs=30, **options)
    after = learn("dec", x, num_epochs=40, pretrain_epochs=30, **options)
    surest = [apply_to(fitted, x).max(axis=1).mean() for fitted in (before, after)]
    assert surest[1] > surest[0] + 0.1


def apply_to(fitted, x):
    return np.exp(fitted.model.apply({"params": fitted.params}, x, method="log_assignments"))
