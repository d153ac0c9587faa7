"""The compressive autoencoder against logistics by scipy, entropies by sums, and its loss in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import softmax

from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call
from aejax.methods.ae import AE, ae_loss
from aejax.methods.compressive_ae import CompressiveAE, compressive_ae, compressive_ae_loss, entropy_loss
from aejax.nets import init_params
from aejax.nets.entropy import LogisticMixtures

N, D, H, Z = 5, 6, 4, 3
X = np.random.default_rng(0).random((N, D))
MODEL = CompressiveAE.dense(D, Z, hidden_dims=(H,))


def drawn(model=MODEL, size=1.0):
    """Parameters at a random place, in float64 NumPy."""
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.ones((1, D))))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: size * rng.normal(size=leaf.shape), shapes)


def shares(entropy, n):
    """Of the integers n `[..., Z]`, by scipy: differences of the distribution function, `[..., Z]`."""
    cdf = lambda t: stats.logistic.cdf(t[..., None, :], entropy["means"], np.exp(entropy["log_scales"]))
    return (softmax(entropy["logits"], axis=0) * (cdf(n + 0.5) - cdf(n - 0.5))).sum(axis=-2)


def layer(group, i, h):
    return h @ group[f"dense_{i}"]["kernel"] + group[f"dense_{i}"]["bias"]


def coded(params, x):
    return layer(params["encoder"], 1, np.maximum(layer(params["encoder"], 0, x), 0))


def decoded(params, y):
    return layer(params["decoder"], 1, np.maximum(layer(params["decoder"], 0, y), 0))


def test_an_integer_has_the_difference_of_the_distribution_function_and_all_have_one():
    entropy = drawn()["entropy"]
    n = np.repeat(np.arange(-200.0, 201)[:, None], Z, axis=1)
    with jax.enable_x64(True):
        found = np.exp(-np.asarray(LogisticMixtures(Z).apply({"params": entropy}, jnp.asarray(n))))
    np.testing.assert_allclose(found, shares(entropy, n), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-12)


def test_far_away_the_rate_grows_by_one_nat_for_each_scale_and_has_a_gradient():
    """The tail of a logistic is `exp(-t / s)`: float32, where the difference of the functions has long been zero."""
    model = LogisticMixtures(1, 1)
    params = {"logits": jnp.zeros((1, 1)), "means": jnp.zeros((1, 1)), "log_scales": jnp.full((1, 1), np.log(0.5))}
    rate = jax.jit(lambda y: model.apply({"params": params}, jnp.full((1, 1), y))[0, 0])
    assert float(rate(1000.0) - rate(900.0)) == pytest.approx(200, rel=1e-5)
    assert float(jax.grad(rate)(1000.0)) == pytest.approx(2, rel=1e-5)
    narrow = params | {"log_scales": jnp.full((1, 1), -50.0)}
    assert float(model.apply({"params": narrow}, jnp.zeros((1, 1)))[0, 0]) < 1e-6


def test_it_learns_a_distribution_to_its_entropy():
    """Of integers that are drawn as 1/2, 1/4, 1/8, 1/8: 1.75 bits; what is learned from them takes as many."""
    values, p = np.array([-1.0, 0, 1, 2]), np.array([0.25, 0.5, 0.125, 0.125])
    model, y = LogisticMixtures(1, 4), jnp.asarray(values, jnp.float32)[:, None]
    loss = lambda params: jnp.asarray(p, jnp.float32) @ model.apply({"params": params}, y)[:, 0]
    tx = optax.adam(0.05)
    params = model.init(jax.random.key(0), y)["params"]

    def step(carry, _):
        updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1])
        return (optax.apply_updates(carry[0], updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=2000))((params, tx.init(params)))
    bits = float(loss(params)) / np.log(2)
    assert 1.75 <= bits + 1e-6 < 1.76


def test_the_terms_are_those_of_the_equations_with_noise_and_rounded():
    params, key = drawn(), jax.random.key(2)
    with jax.enable_x64(True):
        batch = Batch(jnp.asarray(X))
        noisy = compressive_ae_loss(params, batch, key, model=MODEL, distortion=7.0)
        rounded = compressive_ae_loss(params, batch, key, model=MODEL, distortion=7.0, rounded=True)
        noise = np.asarray(jax.random.uniform(key, (N, Z), float, -0.5, 0.5))
    assert np.abs(noise).max() <= 0.5
    y = coded(params, X)
    for (loss, terms), code in ((noisy, y + noise), (rounded, np.round(y))):
        rate = -np.log(shares(params["entropy"], code)).sum(axis=1).mean()
        sse = np.square(decoded(params, code) - X).sum(axis=1).mean()
        np.testing.assert_allclose(terms["rate_nats"], rate, rtol=1e-10)
        np.testing.assert_allclose(terms["sse"], sse, rtol=1e-12)
        np.testing.assert_allclose(loss, rate + 7 * sse, rtol=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    params, key = drawn(), jax.random.key(2)
    with jax.enable_x64(True):
        loss = lambda p: compressive_ae_loss(p, Batch(jnp.asarray(X)), key, model=MODEL, distortion=7.0)[0]
        rng, step = np.random.default_rng(3), 1e-6
        direction = jax.tree.map(lambda v: rng.normal(size=v.shape), params)
        at = lambda t: loss(jax.tree.map(lambda p, d: p + t * d, params, direction))
        products = jax.tree.map(lambda g, d: float((g * d).sum()), jax.jit(jax.grad(loss))(params), direction)
        slopes = {group: sum(jax.tree.leaves(products[group])) for group in products}
        assert float(at(step) - at(-step)) / (2 * step) == pytest.approx(sum(slopes.values()), rel=1e-6)
        assert min(map(abs, slopes.values())) > 1e-2


def test_the_entropy_model_has_the_gradient_of_the_whole_loss_and_nothing_else_has_one():
    params, key, batch = jax.tree.map(jnp.float32, drawn()), jax.random.key(2), Batch(jnp.float32(X))
    whole = jax.grad(lambda p: compressive_ae_loss(p, batch, key, model=MODEL)[0])(params)
    own = jax.grad(lambda p: entropy_loss(p, batch, key, model=MODEL)[0])(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), own["entropy"], whole["entropy"])
    assert not any(np.any(v) for group in ("encoder", "decoder") for v in jax.tree.leaves(own[group]))


def test_a_step_sees_noise_and_an_evaluation_rounds():
    params = jax.tree.map(jnp.float32, drawn())
    algo, batch = compressive_ae(MODEL, distortion=7.0), Batch(jnp.float32(X))
    state, evaluate, step = algo.init(params), jax.jit(algo.evaluate), jax.jit(algo.step)
    found = [evaluate(state, batch, jax.random.key(i)) for i in range(2)]
    assert found[0] == found[1]
    rounded = compressive_ae_loss(params, batch, jax.random.key(0), model=MODEL, distortion=7.0, rounded=True)[1]
    assert float(found[0]["rd/sse"]) == pytest.approx(float(rounded["sse"]))
    stepped = [float(step(state, batch, jax.random.key(i))[1]["rd/sse"]) for i in range(2)]
    assert stepped[0] != stepped[1] != float(rounded["sse"])


def test_with_rounding_steps_that_are_small_beside_the_code_it_is_the_autoencoder():
    """Codes c times as large, and a decoder that divides by c: both losses are those of the AE but for 1 / c^2."""
    params, plain = drawn(), AE.dense(D, Z, hidden_dims=(H,), likelihood="gaussian")
    of_ae = {group: params[group] for group in ("encoder", "decoder")}
    scaled = lambda layer, c: jax.tree.map(lambda v: v * c, layer)
    gaps = []
    with jax.enable_x64(True):
        batch = Batch(jnp.asarray(X))
        wanted = ae_loss(of_ae, batch, jax.random.key(0), model=plain)[1]["sse"]
        for c in (1e2, 1e4):
            encoder = params["encoder"] | {"dense_1": scaled(params["encoder"]["dense_1"], c)}
            first = params["decoder"]["dense_0"]
            decoder = params["decoder"] | {"dense_0": first | {"kernel": first["kernel"] / c}}
            own = params | {"encoder": encoder, "decoder": decoder}
            for rounded in (False, True):
                found = compressive_ae_loss(own, batch, jax.random.key(0), model=MODEL, rounded=rounded)[1]["sse"]
                gaps.append(abs(float(found - wanted)))
    assert max(gaps[:2]) < 1
    assert max(gaps[2:]) < 1e-2 * max(gaps[:2]) + 1e-9


def test_images_of_any_size_come_back_in_their_size_and_padding_repeats_the_edge():
    model = CompressiveAE.images(1, 2, features=(3,), strides=(2, 2), kernels=(3, 3))
    x = np.random.default_rng(0).random((2, 8, 12, 1)).astype(np.float32)
    params = init_params(model, jax.random.key(0), x)
    part = x[:, :7, :9]
    assert call(model, params, "embed", part).shape == (2, 2, 3, 2)
    by_hand = np.concatenate([part, part[:, :, 8:], part[:, :, 8:], part[:, :, 8:]], axis=2)
    by_hand = np.concatenate([by_hand, by_hand[:, 6:]], axis=1)
    x_hat = call(model, params, "reconstruct", part)
    np.testing.assert_array_equal(x_hat, call(model, params, "reconstruct", by_hand)[:, :7, :9])
    sse = compressive_ae_loss(params, Batch(jnp.asarray(part)), jax.random.key(0), model=model, rounded=True)[1]["sse"]
    assert float(sse) == pytest.approx(np.square(x_hat - part).sum() / 2, rel=1e-5)


def test_what_cannot_be_is_refused():
    x = np.ones((1, 8, 8, 1), np.float32)
    for fields, match in (
        ({"strides": (2, 2, 2)}, "as many strides as kernels"),
        ({"entropy": LogisticMixtures(2, 0)}, "mixtures=0"),
    ):
        with pytest.raises(InputError, match=match):
            init_params(CompressiveAE.images(1, 2, features=(3,), **({"strides": (2, 2), "kernels": (3, 3)} | fields)),
                        jax.random.key(0), x)  # fmt: skip
    with pytest.raises(InputError, match="distortion is 0"):
        compressive_ae(MODEL, distortion=0.0)
    with pytest.raises(InputError, match="entropy beside"):
        compressive_ae(AE.dense(D, Z))
