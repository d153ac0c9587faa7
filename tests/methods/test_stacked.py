"""The stacked autoencoder: a layer sees the clean code below it, greedy training is training on that code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from aejax import evaluation, training
from aejax.checks import InputError
from aejax.corruption import masking
from aejax.data import Batch, Dataset
from aejax.methods.ae import AE, ae_loss
from aejax.methods.dae import HParams as DAEHParams
from aejax.methods.dae import dae
from aejax.methods.stacked import HParams, StackedAE, layer_loss, stacked, unrolled
from aejax.nets import MLP, TiedMLP, init_params
from aejax.nets.conv import conv_transpose

KEY = jax.random.key(0)
STACK = StackedAE.dense(12, 3, hidden_dims=(8, 5))


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(KEY, (40, 12))


@pytest.fixture(scope="module")
def params(x):
    return init_params(STACK, jax.random.key(1), x)


def _layer(params, i):
    layer, below = params[f"encoder_{i}"]["dense_0"], params[f"decoder_{i}"]["bias_0"]
    return tuple(np.asarray(value, np.float64) for value in (layer["kernel"], layer["bias"], below))


def test_the_loss_of_a_layer_is_that_of_the_clean_code_below_given_its_corrupted_self(x, params):
    """Tutorial SdA: sigmoid(x W + b), reconstructed by sigmoid(h W' + b'), under cross-entropy; here in NumPy."""
    h = np.asarray(x, np.float64)
    for i in range(3):
        kernel, bias, below = _layer(params, i)
        h_tilde = np.asarray(masking(KEY, jnp.asarray(h, jnp.float32), 0.4), np.float64)
        p = expit(expit(h_tilde @ kernel + bias) @ kernel.T + below)
        nats = -(h * np.log(p) + (1 - h) * np.log(1 - p)).sum(axis=1).mean()
        loss, metrics = layer_loss(params, Batch(x), KEY, model=STACK, layer=i, level=0.4)
        np.testing.assert_allclose(loss, nats, rtol=1e-5)
        np.testing.assert_allclose(metrics["sse"], np.square(p - h).sum(axis=1).mean(), rtol=1e-4)
        h = expit(h @ kernel + bias)
    np.testing.assert_allclose(STACK.apply({"params": params}, x, method="embed"), h, rtol=1e-5)


def test_the_stack_decodes_through_the_means_of_every_layer(x, params):
    z = np.asarray(STACK.apply({"params": params}, x, method="embed"), np.float64)
    for i in (2, 1, 0):
        kernel, _, below = _layer(params, i)
        z = expit(z @ kernel.T + below)
    np.testing.assert_allclose(STACK.apply({"params": params}, x, method="reconstruct"), z, rtol=1e-5)


def test_a_stage_is_a_denoising_autoencoder_trained_on_the_codes_below(x, params):
    """Layer 1 in place against a lone DAE on codes that were written down before; the other layers stay, bit for bit.

    A stack's first phase draws its noise as a lone player does, so the runs are the same but for rounding.
    """
    sizes = {"batch_size": 10, "num_epochs": 3}
    algo = stacked(STACK, HParams(lr=0.1, level=0.3), optax.sgd, layers=(1,))
    after, _ = training.fit(algo, algo.init(params), Batch(x), KEY, **sizes)

    encoder = MLP((5,), final_activation=jax.nn.sigmoid)
    alone = AE(encoder=encoder, decoder=TiedMLP(encoder), latent_dim=5)
    codes = STACK.bind({"params": params}).features(x, 1)
    lone = dae(alone, DAEHParams(lr=0.1, level=0.3), optax.sgd, corruption="masking")
    start = {"encoder": params["encoder_1"], "decoder": params["decoder_1"]}
    expected, _ = training.fit(lone, lone.init(start), Batch(codes), KEY, **sizes)

    for group in ("encoder", "decoder"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            after.params[f"{group}_1"], expected.params[group],
        )  # fmt: skip
    for group in set(params) - {"encoder_1", "decoder_1"}:
        jax.tree.map(np.testing.assert_array_equal, after.params[group], params[group])


def test_without_corruption_the_key_decides_nothing(x, params):
    losses = {
        float(layer_loss(params, Batch(x), jax.random.key(i), model=STACK, layer=1, corruption=None)[0]) for i in (0, 1)
    }
    noisy = {float(layer_loss(params, Batch(x), jax.random.key(i), model=STACK, layer=1)[0]) for i in (0, 1)}
    assert (len(losses), len(noisy)) == (1, 2)


def test_unrolled_it_is_one_deep_autoencoder(x, params):
    algo = unrolled(STACK)
    metrics = algo.evaluate(algo.init(params), Batch(x), KEY)
    expected, _ = ae_loss(params, Batch(x), KEY, model=STACK)
    z = np.asarray(STACK.apply({"params": params}, x, method="reconstruct"), np.float64)
    nats = -(np.asarray(x) * np.log(z) + (1 - np.asarray(x)) * np.log(1 - z)).sum(axis=1).mean()
    np.testing.assert_allclose([metrics["recon/loss"], expected], nats, rtol=1e-5)
    state, _ = jax.jit(algo.step)(algo.init(params), Batch(x), KEY)
    moved = {
        group
        for group in params
        if not np.array_equal(*(next(iter(jax.tree.leaves(p[group]))) for p in (state.params, params)))
    }
    assert moved == set(STACK.groups) == set(params)


@pytest.mark.slow
def test_layers_of_convolutions_undo_each_other_in_shape_and_are_the_chain_of_their_parts():
    model = StackedAE.conv((7, 6, 2), 4, features=(3, 5), strides=(2, 1))
    x = jax.random.uniform(KEY, (2, 7, 6, 2))
    params = init_params(model, KEY, x)
    bound = model.bind({"params": params})
    first, second = bound.features(x, 1), bound.features(x, 2)
    kernel = params["encoder_0"]["layers_0"]["kernel"]
    patches = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(first, expit(patches), rtol=1e-5)  # the biases begin at zero
    assert (first.shape, second.shape) == ((2, 4, 3, 3), (2, 4, 3, 5))
    z = bound.embed(x)
    np.testing.assert_allclose(z, expit(second.reshape(2, -1) @ params["encoder_2"]["layers_1"]["dense_0"]["kernel"]))
    flat = expit(z @ params["decoder_2"]["layers_0"]["dense_0"]["kernel"]).reshape(second.shape)
    undo = lambda h, i, size, stride: conv_transpose(h, params[f"decoder_{i}"]["kernel"], size, stride)
    np.testing.assert_allclose(bound.decode(z), undo(expit(undo(flat, 1, (4, 3), 1)), 0, (7, 6), 2), rtol=1e-5)
    assert model == StackedAE.conv((7, 6, 2), 4, features=(3, 5), strides=(2, 1))  # equal, so it compiles once


def test_a_stack_can_be_fine_tuned():
    """Two classes that one unit tells apart: the classifier on the last code finds them, and moves encoders alone."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = (0.2 + 0.6 * y[:, None] * np.array([1, 0, 0, 0, 0, 0]) + 0.1 * rng.random((300, 6))).astype(np.float32)
    split = [Batch(x[i : i + 100], y[i : i + 100]) for i in (0, 100, 200)]
    model = StackedAE.dense(6, 4, hidden_dims=(5,))
    params = init_params(model, KEY, x)
    dataset = Dataset("two", *split, image_shape=None)
    tuned = evaluation.fine_tune(model, params, dataset, KEY, tx=optax.adam(0.05), num_epochs=30, batch_size=20)
    assert tuned.test_error == 0.0
    assert set(tuned.params) == {"encoder_0", "encoder_1", "classifier"}


def test_what_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"layers=\(3,\)"):
        stacked(STACK, layers=(3,))
    with pytest.raises(InputError, match="Did you mean 'masking'"):
        stacked(STACK, corruption="maskin")
    with pytest.raises(InputError, match="level is 2"):
        stacked(STACK, HParams(level=2.0))
