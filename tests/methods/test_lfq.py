"""LFQ: the entropy term over all words by hand, tokens, and the straight-through gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import reconstruction
from aejax.methods.lfq import LFQ, entropies, lfq_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = LFQ.dense(5, 6, hidden_dims=(), bits=3, likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, KEY, X)


def encoded(params):
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["encoder"]["dense_0"])
    return (X @ layer["kernel"] + layer["bias"]).reshape(-1, 3)


def by_enumeration(vectors, temperature):
    """Both entropies, from a softmax over the eight words, `-|v - c|^2 / temperature`."""
    words = np.array(list(itertools.product([-1, 1], repeat=3)))
    weights = np.exp(-np.square(vectors[:, None] - words).sum(-1) / temperature)
    q = weights / weights.sum(axis=1, keepdims=True)
    entropy = lambda q: -(q * np.log(q)).sum(axis=-1)
    return entropy(q).mean(), entropy(q.mean(axis=0))


@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_the_loss_by_hand(params, temperature):
    knobs = {"entropy": 0.3, "commitment": 0.5, "temperature": temperature}
    loss, terms = lfq_loss(params, Batch(X), KEY, model=MODEL, **knobs)
    vectors = encoded(params)
    single, together = by_enumeration(vectors, temperature)
    gap = np.square(vectors - np.sign(vectors)).sum() / 7
    assert float(terms["token_entropy_nats"]) == pytest.approx(2 * single, rel=1e-5)
    assert float(terms["codebook_entropy_nats"]) == pytest.approx(2 * together, rel=1e-5)
    assert float(terms["commitment_sq"]) == pytest.approx(gap, rel=1e-5)
    recon, _ = reconstruction(params, jnp.sign(jnp.asarray(vectors)).reshape(7, 6), Batch(X), model=MODEL)
    assert float(loss) == pytest.approx(float(recon) + 0.3 * 2 * (single - together) + 0.5 * gap, rel=1e-5)


def test_the_term_is_least_where_words_are_sure_and_all_of_them_are_used():
    words = 9.0 * np.array(list(itertools.product([-1, 1], repeat=3)), np.float32)
    single, together = entropies(jnp.asarray(words), 1.0)
    assert float(single) == pytest.approx(0, abs=1e-6)
    assert float(together) == pytest.approx(3 * np.log(2), rel=1e-6)
    single, together = entropies(jnp.zeros((4, 3)), 1.0)  # nothing known: each bit as likely
    assert float(single) == pytest.approx(3 * np.log(2), rel=1e-6)
    assert float(together) == pytest.approx(3 * np.log(2), rel=1e-6)


def test_tokens_are_the_signs_as_bits_and_lead_back_to_the_code(params):
    bound = MODEL.bind({"params": params})
    bits = (encoded(params) > 0).reshape(7, 2, 3)
    np.testing.assert_array_equal(bound.tokens(X), bits @ [1, 2, 4])
    np.testing.assert_array_equal(bound.entries(bound.tokens(X)), bound.embed(X))
    np.testing.assert_array_equal(bound.embed(X), 2.0 * bits.reshape(7, 6) - 1)


def test_the_gradient_passes_straight_through_the_signs(params):
    off = {"entropy": 0.0, "commitment": 0.0}
    grads = jax.grad(lambda p: lfq_loss(p, Batch(jnp.asarray(X)), KEY, model=MODEL, **off)[0])(params)
    layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params["decoder"]["dense_0"])
    code = np.sign(encoded(params)).reshape(7, 6)
    upstream = (code @ layer["kernel"] + layer["bias"] - X) @ layer["kernel"].T / 7
    np.testing.assert_allclose(grads["encoder"]["dense_0"]["kernel"], X.T @ upstream, rtol=1e-4, atol=1e-5)


def test_words_that_do_not_fit_are_refused_and_the_advice_helps():
    for bits in (0, 4, 17):
        with pytest.raises(InputError, match=f"bits={bits}: from 1 to 16, and divides latent_dim=6"):
            init_params(LFQ.dense(5, 6, bits=bits), KEY, X)
    init_params(LFQ.dense(5, 6, bits=2), KEY, X)


def test_both_terms_pull_the_encoder_as_finite_differences_say(params):
    """Of what the weights add to the loss, in float64; the reconstruction goes straight through its signs."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), params)
        batch, layer = Batch(jnp.asarray(X, jnp.float64)), wide["encoder"]["dense_0"]

        def added(encoder, **knobs):
            of = lambda **own: lfq_loss({**wide, "encoder": encoder}, batch, KEY, model=MODEL, temperature=0.7, **own)[
                0
            ]
            return of(**knobs) - of(entropy=0.0, commitment=0.0)

        for knobs in ({"entropy": 0.3, "commitment": 0.0}, {"entropy": 0.0, "commitment": 0.2}):
            slopes = jax.grad(added)(wide["encoder"], **knobs)["dense_0"]["kernel"]
            for i, j in ((0, 0), (2, 4), (4, 5)):
                up, down = (
                    added({"dense_0": {**layer, "kernel": layer["kernel"].at[i, j].add(d)}}, **knobs)
                    for d in (1e-6, -1e-6)
                )
                slope = (up - down) / 2e-6
                assert float(slopes[i, j]) == pytest.approx(float(slope), rel=1e-4, abs=1e-7)
            assert abs(slopes).max() > 1e-3


@pytest.mark.parametrize(("vectors", "temperature"), [(np.full((4, 8), 3.0), 1.0), (X, 0.01)])
def test_where_words_are_sure_slopes_are_finite(vectors, temperature):
    """There most words have a probability of 0 in float32, of which `p log p` has no slope."""
    of = lambda v: entropies(v, temperature)[1] - entropies(v, temperature)[0]
    assert np.isfinite(jax.grad(of)(jnp.asarray(vectors, jnp.float32))).all()


def test_terms_are_summed_in_float32(params):
    half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), params)
    _, metrics = lfq_loss(half, Batch(jnp.asarray(X, jnp.bfloat16)), KEY, model=MODEL)
    assert {value.dtype for value in metrics.values()} == {jnp.dtype("float32")}
