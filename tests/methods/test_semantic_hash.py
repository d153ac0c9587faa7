"""Semantic hashing against its equation in float64 NumPy, with the noise that was drawn; and what noise does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from aejax import evaluation, training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.hamming import cut, medians
from aejax.likelihoods import Weighted
from aejax.methods.ae import AE
from aejax.methods.semantic_hash import SemanticHash, semantic_hash, semantic_hash_loss
from aejax.nets import init_params

N, D, H, Z = 5, 6, 4, 2
RNG = np.random.default_rng(0)
COUNTS, BITS, OTHER = RNG.poisson(1.0, (N, D)) + 0.0, RNG.integers(2, size=(N, D)) + 0.0, RNG.random((N, D))


def drawn(model):
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.ones((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)


def network(group, h):
    h = np.maximum(h @ group["dense_0"]["kernel"] + group["dense_0"]["bias"], 0)
    return h @ group["dense_1"]["kernel"] + group["dense_1"]["bias"]


def noisy_logits(params, seen, key, noise, dropout):
    """What the decoder returns in NumPy, for the draws of that key."""
    drop_key, noise_key = jax.random.split(key)
    lost = np.asarray(jax.random.uniform(drop_key, seen.shape, jnp.float32)) < dropout
    with jax.enable_x64(True):
        eps = np.asarray(jax.random.normal(noise_key, (N, Z), float))
    z = network(params["encoder"], np.where(lost, 0, seen) / (1 - dropout)) + noise * eps
    return network(params["decoder"], expit(z))


@pytest.mark.parametrize("target", [None, OTHER])
def test_the_loss_is_that_of_the_equation_at_what_was_drawn(target):
    """Images, and words; of the example itself, or of another that stands in its place."""
    for model, x in (
        (SemanticHash.dense(D, Z, hidden_dims=(H,)), BITS),
        (SemanticHash.dense(D, Z, hidden_dims=(H,), likelihood=Weighted()), COUNTS),
    ):
        params, key = drawn(model), jax.random.key(2)
        wanted = x if target is None else target
        with jax.enable_x64(True):
            batch = Batch(jnp.asarray(x), None if target is None else jnp.asarray(target))
            loss, terms = semantic_hash_loss(params, batch, key, model=model, noise=0.7, dropout=0.3)
        if model.is_of_events:
            seen = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
            log_p = log_softmax(noisy_logits(params, seen, key, 0.7, 0.3), axis=1)
            nll, mean = -(wanted * log_p).sum(axis=1), np.exp(log_p) * wanted.sum(axis=1, keepdims=True)
        else:
            p = expit(noisy_logits(params, x, key, 0.7, 0.3))
            nll, mean = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).sum(axis=1), p
        np.testing.assert_allclose(loss, nll.mean(), rtol=1e-12)
        np.testing.assert_allclose(terms["recon_nats"], nll.mean(), rtol=1e-12)
        np.testing.assert_allclose(terms["sse"], ((mean - wanted) ** 2).sum(axis=1).mean(), rtol=1e-12)


def test_noise_drives_the_units_to_0_and_1():
    """Four kinds of example; with noise that drowns what lies between, hardly a unit is left there."""
    rng = np.random.default_rng(3)
    x = np.eye(4, 12, dtype=np.float32)[rng.integers(4, size=400)]
    model = SemanticHash.dense(12, 4, hidden_dims=(16,))
    first = init_params(model, jax.random.key(0), x[:1])

    @jax.jit
    @jax.vmap
    def units(noise):
        algo = semantic_hash(model, lr=1e-2, noise=noise, dropout=0.0)
        state, _ = training.fit(algo, algo.init(first), Batch(x), jax.random.key(1), num_epochs=20, batch_size=20)
        return jax.nn.sigmoid(model.apply({"params": state.params}, x, method="embed"))

    none, much = ((found > 0.05) & (found < 0.95) for found in units(jnp.array([0.0, 4.0])))
    assert much.mean() < 0.1 < none.mean()


def test_bits_are_the_units_above_their_median():
    z = np.array([[-9.0, 40.0], [0.0, 41.0], [5.0, 42.0]])  # logistic units of the second are all 1 in float32
    assert cut(z, medians(z)).tolist() == [[False, False], [False, False], [True, True]]


def test_events_are_reconstructed_as_so_many_as_there_were_and_images_as_they_are():
    words = SemanticHash.dense(D, Z, hidden_dims=(H,), likelihood="multinomial")
    params, x = jax.tree.map(np.float32, drawn(words)), jnp.asarray(COUNTS, jnp.float32)
    np.testing.assert_allclose(evaluation.reconstruct(words, params, x).sum(axis=1), COUNTS.sum(axis=1), rtol=1e-5)
    longer = evaluation.embed(words, params, 3 * x)
    np.testing.assert_allclose(longer, evaluation.embed(words, params, x), rtol=1e-5)
    images = SemanticHash.dense(D, Z, hidden_dims=(H,))
    z = evaluation.embed(images, params, x)
    wanted = expit(network(params["decoder"], expit(z)))
    np.testing.assert_allclose(evaluation.reconstruct(images, params, x), wanted, rtol=1e-4)


def test_what_cannot_be_is_refused():
    model = SemanticHash.dense(D, Z)
    with pytest.raises(InputError, match="A SemanticHash is needed"):
        semantic_hash(AE.dense(D, Z))
    with pytest.raises(InputError, match="dropout is 1; it has to be below 1"):
        semantic_hash(model, dropout=1)
    algo, x = semantic_hash(model), np.float32(BITS)
    with pytest.raises(InputError, match=r"x has shape \(5, 6\) and y \(5,\); .* Labels are not used: Batch\(x\)"):
        algo.check(Batch(x, np.zeros(N, np.int32)))
    with pytest.raises(InputError, match="holds values from 0 to 2"):
        algo.check(Batch(x, 2 * x))
    algo.check(Batch(x, x))
