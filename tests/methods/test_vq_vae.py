"""VQ-VAE: running means by hand, the straight-through gradient, one forward pass, and one codebook on many devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import parallel, training
from aejax.algorithm import play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.vq_vae import VQVAE, vq_vae, vq_vae_loss
from aejax.nets import init_params, quantise

KEY = jax.random.key(0)
MODEL = VQVAE.dense(6, 4, hidden_dims=(), num_entries=3, entry_dim=2, likelihood="gaussian")
DATA = Batch(np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32))
SIZES = {"batch_size": 16, "num_epochs": 2}


@pytest.fixture(scope="module")
def params():
    algo = vq_vae(MODEL)
    return algo.start(init_params(MODEL, KEY, DATA.x), DATA, KEY)


def encoded(params, x):
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["encoder"]["dense_0"])
    return (x @ layer["kernel"] + layer["bias"]).reshape(len(x), 2, 2)


def test_a_step_moves_the_codebook_as_by_hand(params):
    algo = vq_vae(MODEL, decay=0.75, tx=optax.sgd)
    state, terms = jax.jit(algo.step)(algo.init(params), Batch(DATA.x[:5]), KEY)
    vectors = encoded(params, DATA.x[:5]).reshape(-1, 2)
    entries = np.asarray(params["codebook"]["sums"] / params["codebook"]["counts"], np.float64)
    chosen = np.square(vectors[:, None] - entries[None]).sum(axis=-1).argmin(axis=1)
    counts, sums = np.zeros((3, 1)), np.zeros((3, 2))
    for vector, k in zip(vectors, chosen, strict=True):
        counts[k] += 1
        sums[k] += vector
    for name, seen in {"counts": counts, "sums": sums}.items():
        moved = 0.75 * np.asarray(params["codebook"][name]) + 0.25 * seen
        np.testing.assert_allclose(state.params["codebook"][name], moved, rtol=1e-5, atol=1e-6)
    shares = counts[counts > 0] / counts.sum()
    assert float(terms["codebook/perplexity"]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    gap = np.square(vectors - entries[chosen]).sum() / 5
    assert float(terms["recon/commitment_sq"]) == pytest.approx(gap, rel=1e-4)


def test_the_gradient_of_the_encoder_is_that_of_the_decoder_at_the_entries_plus_commitment(params):
    x = jnp.asarray(DATA.x[:4])
    grads = jax.grad(lambda p: vq_vae_loss(p, Batch(x), KEY, model=MODEL, commitment=0.5)[0])(params)
    vectors = jnp.asarray(encoded(params, DATA.x[:4]), jnp.float32)
    entries = jax.lax.stop_gradient(params["codebook"]["sums"] / params["codebook"]["counts"])
    chosen = entries[jnp.square(vectors[:, :, None] - entries[None, None]).sum(-1).argmin(-1)]

    def rest(z):  # of the entries, as the decoder sees them
        output = MODEL.apply({"params": params}, z.reshape(4, 4), method="decode")
        return 0.5 * jnp.square(output - x).sum() / 4

    by_hand = jax.grad(rest)(chosen) + 0.5 * 2 * (vectors - chosen) / 4
    np.testing.assert_allclose(grads["encoder"]["dense_0"]["kernel"], x.T @ by_hand.reshape(4, 4), rtol=1e-4, atol=1e-5)
    assert all(not leaf.any() for leaf in jax.tree.leaves(grads["codebook"]))


def test_player_and_rule_share_one_pass_through_the_encoder():
    big = VQVAE.dense(64, 8, hidden_dims=(256,), num_entries=4, entry_dim=4)
    algo, x = vq_vae(big, tx=optax.sgd), jnp.ones((32, 64))
    params = init_params(big, KEY, x)
    seen = {}

    def spy(players, phases, **options):
        seen.update(players)
        return play(players, phases, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aejax.methods.vq_vae.play", spy)
        vq_vae(big, tx=lambda lr: optax.sgd(lr))
    alone = play({"recon": seen["recon"]}, [["recon"]])
    flops = [
        jax.jit(each.step).lower(each.init(params), Batch(x), KEY).compile().cost_analysis()["flops"]
        for each in (algo, alone)
    ]
    encoder = 2 * 32 * (64 * 256 + 256 * 8)
    assert flops[0] - flops[1] < 0.25 * encoder


def test_weight_decay_shrinks_entries_and_not_how_often_they_were_chosen(params):
    """Of 32 examples there are 64 vectors, so that the counts of all entries tend to 64, whatever the optimiser."""
    model = MODEL.clone(codebook_by="gradient")
    algo = vq_vae(model, tx=lambda lr: optax.adamw(lr, weight_decay=0.5), lr=0.1, decay=0.9)
    state, _ = jax.jit(algo.step)(algo.init(params), DATA, KEY)
    total = 0.9 * float(params["codebook"]["counts"].sum()) + 0.1 * 64
    assert float(state.params["codebook"]["counts"].sum()) == pytest.approx(total, rel=1e-6)
    still = vq_vae(model, lr=0.1, decay=0.9)
    moved, _ = jax.jit(still.step)(still.init(params), DATA, KEY)
    shrunk = moved.params["codebook"]["sums"] - 0.1 * 0.5 * params["codebook"]["sums"]
    np.testing.assert_allclose(state.params["codebook"]["sums"], shrunk, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit", "shard_map"])
def test_one_codebook_on_one_and_many_devices(params, way):
    def last(axis_name=None, **options):
        algo = vq_vae(MODEL, tx=optax.sgd, axis_name=axis_name)
        chunk = list(training.train(algo, algo.init(params), DATA, KEY, **SIZES, **options))[-1]
        return chunk.state, {name: values[-1] for name, values in chunk.metrics.items()}

    one, expected = last()
    for devices in (2, min(8, jax.device_count())):
        many, metrics = last(None if way == "jit" else parallel.AXIS, parallel=way, devices=devices)
        codebooks = many.params["codebook"], one.params["codebook"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *codebooks)
        np.testing.assert_allclose(metrics["codebook/perplexity"], expected["codebook/perplexity"], rtol=1e-5)


def test_an_entry_that_nothing_chooses_keeps_its_place():
    codebook = {"sums": jnp.array([[2.0], [6.0]]), "counts": jnp.array([[1.0], [2.0]])}
    seen = {"sums": jnp.array([[1.0], [0.0]]), "counts": jnp.array([[1.0], [0.0]])}
    for _ in range(400):
        codebook = quantise.moved(codebook, seen, 0.9)
    entries = codebook["sums"] / codebook["counts"]
    np.testing.assert_allclose(entries, [[1.0], [3.0]], rtol=1e-4)


def test_the_nearest_entry_is_found_far_from_the_origin():
    entries = np.random.default_rng(1).normal(size=(64, 4)) + 1e4
    vectors = np.random.default_rng(2).normal(size=(500, 4)) + 1e4
    entries, vectors = entries.astype(np.float32), vectors.astype(np.float32)
    exact = np.square(vectors.astype(np.float64)[:, None] - entries.astype(np.float64)[None]).sum(-1).argmin(1)
    assert (np.asarray(quantise.nearest(jnp.asarray(vectors), jnp.asarray(entries))) == exact).mean() > 0.995


def test_the_codebook_begins_at_centres_of_the_codes(params):
    """No centre of k-means can be moved: each is the mean of the vectors nearest to it."""
    entries = np.asarray(params["codebook"]["sums"], np.float64)
    vectors = encoded(params, DATA.x).reshape(-1, 2)
    chosen = np.square(vectors[:, None] - entries[None]).sum(axis=-1).argmin(axis=1)
    means = np.stack([vectors[chosen == k].mean(axis=0) for k in range(3)])
    assert np.abs(means - entries).max() < 0.05 * np.abs(entries).max()
    with pytest.raises(InputError, match="entry_dim divides latent_dim=4"):
        init_params(VQVAE.dense(6, 4, entry_dim=3), KEY, DATA.x)


def test_a_gradient_moves_the_entries_towards_the_vectors_that_chose_them(params):
    """Plain gradient descent: e - rate * 2 (sum over who chose it of e - v) / B; the use is counted beside."""
    model = MODEL.clone(codebook_by="gradient")
    algo = vq_vae(model, lr=0.05, decay=0.75, tx=optax.sgd)
    state, terms = jax.jit(algo.step)(algo.init(params), Batch(DATA.x[:5]), KEY)
    vectors = encoded(params, DATA.x[:5]).reshape(-1, 2)
    entries = np.asarray(params["codebook"]["sums"], np.float64)
    chosen = np.square(vectors[:, None] - entries[None]).sum(axis=-1).argmin(axis=1)
    moved = entries.copy()
    for vector, k in zip(vectors, chosen, strict=True):
        moved[k] -= 0.05 * 2 * (entries[k] - vector) / 5
    np.testing.assert_allclose(state.params["codebook"]["sums"], moved, rtol=1e-5, atol=1e-6)
    assert np.abs(moved - entries).max() > 1e-2
    gap = np.square(vectors - entries[chosen]).sum() / 5
    assert float(terms["entries/loss"]) == pytest.approx(gap, rel=1e-4)
    vectors = encoded(state.params, DATA.x[:5]).reshape(-1, 2)  # the rule follows, and sees what the players made
    chosen = np.square(vectors[:, None] - moved[None]).sum(axis=-1).argmin(axis=1)
    counts = 0.75 * np.ones(3) + 0.25 * np.bincount(chosen, minlength=3)
    np.testing.assert_allclose(state.params["codebook"]["counts"][:, 0], counts, rtol=1e-5)
    z = np.asarray(model.apply({"params": state.params}, DATA.x[:5], method="embed")).reshape(-1, 2)
    np.testing.assert_allclose(z, moved[chosen], rtol=1e-5)


@pytest.mark.parametrize("way", ["means", "gradient"])
def test_a_dead_entry_begins_anew_at_a_vector_of_the_batch_and_the_others_stay(params, way):
    model = MODEL.clone(codebook_by=way)
    counts = jnp.array([[1.0], [1e-3], [2.0]])
    codebook = {"counts": counts, "sums": params["codebook"]["sums"] * (counts if way == "means" else 1)}
    codebook["sums"] = codebook["sums"].at[1].set(1e3 * (1e-3 if way == "means" else 1))  # far from all vectors

    def entries(revival):
        algo = vq_vae(model, lr=1e-9, decay=0.99, tx=optax.sgd, revival=revival)
        state, _ = jax.jit(algo.step)(algo.init({**params, "codebook": codebook}), Batch(DATA.x[:5]), KEY)
        own = state.params["codebook"]
        return np.asarray(own["sums"] / (own["counts"] if way == "means" else 1)), np.asarray(own["counts"])[:, 0]

    (with_it, use), (without, before) = entries(0.1), entries(0.0)
    assert without[1].min() > 900
    vectors = encoded(params, DATA.x[:5]).reshape(-1, 2)
    assert np.abs(vectors - with_it[1]).max(axis=1).min() < 1e-4
    np.testing.assert_allclose(with_it[[0, 2]], without[[0, 2]], rtol=1e-6)
    assert use[1] == pytest.approx(before.mean(), rel=1e-5)
    np.testing.assert_allclose(use[[0, 2]], before[[0, 2]], rtol=1e-6)


def test_an_entry_that_is_used_less_is_revived_only_below_the_share():
    codebook = {"sums": jnp.arange(8.0).reshape(4, 2), "counts": jnp.array([[1.0], [0.29], [0.31], [2.4]])}
    vectors = 100 + jnp.arange(6.0).reshape(3, 2)  # fewer than entries
    found = quantise.revived(codebook, vectors, KEY, 0.3, running=False)
    np.testing.assert_array_equal(found["sums"][jnp.array([0, 2, 3])], codebook["sums"][jnp.array([0, 2, 3])])
    assert found["sums"][1].tolist() in vectors.tolist()
    assert float(found["counts"][1, 0]) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["means", "gradient"])
def test_many_devices_revive_with_vectors_of_all_of_them(params, way):
    model, algos = MODEL.clone(codebook_by=way), []
    codebook = {"sums": params["codebook"]["sums"].at[1].set(1e3), "counts": jnp.array([[1.0], [1e-3], [2.0]])}
    for axis_name in (None, parallel.AXIS):
        algos.append(vq_vae(model, tx=optax.sgd, revival=0.1, axis_name=axis_name))
    begun = algos[0].init({**params, "codebook": codebook})
    last = [
        list(training.train(algo, begun, DATA, KEY, **SIZES, **options))[-1].state.params["codebook"]
        for algo, options in zip(algos, ({}, {"parallel": "shard_map", "devices": 4}), strict=True)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *last)
    assert np.abs(np.asarray(last[0]["sums"] / last[0]["counts"])).max() < 100


def test_ways_and_shares_that_are_unknown_are_refused_and_the_advice_helps():
    with pytest.raises(InputError, match=r"codebook_by='gradients'\. Did you mean 'gradient'"):
        init_params(MODEL.clone(codebook_by="gradients"), KEY, DATA.x)
    with pytest.raises(InputError, match="revival is 1; a share of the mean count is wanted, from 0 to below 1"):
        vq_vae(MODEL, revival=1)
    init_params(MODEL.clone(codebook_by="gradient"), KEY, DATA.x)
    vq_vae(MODEL, revival=0.5)


def test_tokens_stand_for_the_code():
    model = VQVAE.dense(6, 4, entry_dim=2, num_entries=5)
    x = jax.random.normal(jax.random.key(7), (9, 6))
    params = init_params(model, KEY, x)
    bound = model.bind({"params": params})
    codebook = np.asarray(bound.codebook())
    tokens = np.asarray(bound.tokens(x))
    by_hand = np.concatenate([codebook[tokens[:, 0]], codebook[tokens[:, 1]]], axis=1)
    np.testing.assert_array_equal(bound.entries(tokens), by_hand)
    np.testing.assert_allclose(bound.encode(x), by_hand, rtol=1e-6, atol=1e-6)
