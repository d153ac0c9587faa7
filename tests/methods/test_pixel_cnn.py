"""PixelCNN: all images of 2x2 enumerated, the network by hand, draws against both, and a distribution learnt."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import learn
from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Categorical
from aejax.methods import pixel_cnn as method
from aejax.methods.ae import AE
from aejax.methods.pixel_cnn import PixelCNN, pixel_cnn, pixel_cnn_loss
from aejax.nets import init_params, pixels
from aejax.training import train

KEY = jax.random.key(0)
ALL = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32)
TINY = PixelCNN.conv((2, 2, 1), 3, features=(2, 2), kernel_size=3)
VECTORS = PixelCNN.dense(4, 3, hidden_dims=(8,))


def drawn(model, x, scale=2.0):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(model, KEY, x))
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), shapes)


def nll_of_each(model, params, x):
    return np.array([float(pixel_cnn_loss(params, Batch(row[None]), KEY, model=model)[0]) for row in x])


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def by_hand(params, x):
    """The logits of an image 2x2, `[2, 2]`, in float64, from the definitions of the two layers."""
    layers = [params["encoder"][f"layers_{i}"] for i in range(2)]
    gate = lambda y: np.tanh(y[:2]) * sigmoid(y[2:])
    out = lambda layer, y: y @ layer["kernel"] + layer["bias"]
    at = lambda image, i, j: image[i, j] if 0 <= i < 2 and 0 <= j < 2 else np.zeros(image.shape[2])
    above = before = x.reshape(2, 2, 1)
    for k, layer in enumerate(layers):
        vertical, horizontal = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
        for i, j in itertools.product(range(2), range(2)):
            y = layer["above_bias"] + sum(at(above, i - 1, j + d) @ layer["above"][0, d + 1] for d in (-1, 0, 1))
            y = y + sum(at(above, i, j + d) @ layer["above"][1, d + 1] for d in (-1, 0, 1) if k == 1)
            vertical[i, j] = gate(y)
            own = at(before, i, j - 1) @ layer["before"][0, 0] + (at(before, i, j) @ layer["before"][0, 1] if k else 0)
            horizontal[i, j] = out(layer["last"], gate(own + out(layer["across"], y))) + (at(before, i, j) if k else 0)
        above, before = vertical, horizontal
    z = out(params["encoder"]["last"], np.maximum(before, 0))
    return out(params["decoder"]["dense"], np.maximum(z, 0))[..., 0]


def test_the_probabilities_of_all_images_sum_to_one_and_are_those_of_the_network_by_hand():
    x = ALL.reshape(16, 2, 2, 1)
    params = drawn(TINY, x)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    logits = np.stack([by_hand(wide, image) for image in x])[..., None]
    p = np.where(x == 1, sigmoid(logits), sigmoid(-logits)).prod(axis=(1, 2, 3))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert np.ptp(p) > 0.05  # the network matters
    np.testing.assert_allclose(nll_of_each(TINY, params, x), -np.log(p), rtol=1e-5)


@pytest.mark.parametrize("model", [VECTORS, PixelCNN.conv((1, 2, 2), 4, features=(4, 4), kernel_size=3)])
def test_vectors_and_channels_sum_to_one_too(model):
    x = ALL.reshape(16, *model.data_shape)
    p = np.exp(-nll_of_each(model, drawn(model, x), x))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 2 * p.min()  # the network matters


def test_names_on_a_grid_sum_to_one_and_other_names_for_the_same_change_nothing():
    """The weights of the first layer go with the name that they are of, and those of the last with the logit."""
    levels, renamed = 3, np.array([2, 0, 1])
    tokens = np.array(list(itertools.product(range(levels), repeat=4))).reshape(-1, 2, 2, 1)
    model = PixelCNN.conv((2, 2, 1), 3, features=(2, 2), kernel_size=3, likelihood=Categorical(levels), one_hot=True)
    x, other = ((each / (levels - 1)).astype(np.float32) for each in (tokens, renamed[tokens]))
    params = drawn(model, x)
    p = np.exp(-model.apply({"params": params}, model.apply({"params": params}, x, method="encode"), x, method="nll"))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 2 * p.min()
    old = np.argsort(renamed)
    first, last = params["encoder"]["layers_0"], params["decoder"]["dense"]
    first |= {"above": first["above"][:, :, old], "before": first["before"][:, :, old]}
    last |= {"kernel": last["kernel"][:, old], "bias": last["bias"][old]}
    bound = model.bind({"params": params})
    np.testing.assert_allclose(np.exp(-bound.nll(bound.encode(other), other)), p, rtol=1e-4, atol=1e-8)


def test_names_of_two_channels_sum_to_one():
    levels = 3
    tokens = np.array(list(itertools.product(range(levels), repeat=4))).reshape(-1, 1, 2, 2)
    model = PixelCNN.conv((1, 2, 2), 4, features=(4, 4), kernel_size=3, likelihood=Categorical(levels), one_hot=True)
    x = (tokens / (levels - 1)).astype(np.float32)
    params = drawn(model, x)
    p = np.exp(-model.apply({"params": params}, model.apply({"params": params}, x, method="encode"), x, method="nll"))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 2 * p.min()


def test_draws_have_the_enumerated_probabilities():
    x = ALL.reshape(16, 2, 2, 1)
    params = drawn(TINY, x)
    p = np.exp(-nll_of_each(TINY, params, x))
    draws = np.asarray(jax.jit(lambda key: TINY.apply({"params": params}, key, 20_000, method="sample"))(KEY))
    counts = np.bincount((draws.reshape(-1, 4) @ [8, 4, 2, 1]).astype(int), minlength=16)
    chi_squared = (np.square(counts - 20_000 * p) / (20_000 * p)).sum()
    assert chi_squared < 37.7  # of 15 degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    ("shape", "likelihood", "one_hot"),
    [((5, 4, 1), "bernoulli", False), ((3, 2, 3), Categorical(3), False), ((4, 4, 1), Categorical(5), True)],
    ids=["grey", "colour", "tokens"],
)
def test_what_is_kept_while_drawing_changes_no_bit(shape, likelihood, one_hot):
    model = PixelCNN.conv(shape, 6, features=(6, 6, 9), kernel_size=3, likelihood=likelihood, one_hot=one_hot)
    params = drawn(model, np.zeros((1, *shape), np.float32), 0.7)
    variables = {"params": params}
    kept = jax.jit(lambda key: model.apply(variables, key, 30, method="sample"))(KEY)
    features = lambda x: model.apply(variables, x, method="encode")
    emit = method.emitter(model, variables)
    naive = jax.jit(lambda key: pixels.draw_naively(features, emit, key, (30, *shape)))(KEY)
    np.testing.assert_array_equal(kept, naive)
    assert np.std(np.asarray(kept), axis=0).min() > 0
    said = []
    np.testing.assert_array_equal(method.rows_drawn(model, params, KEY, 30, said.append), kept)
    assert said[-1] == f"sampling: row {shape[0]} of {shape[0]}"


@pytest.mark.slow
def test_the_loss_falls_to_the_entropy_of_the_data():
    """Of 2x2 images whose first row is random and whose second is the first turned round, but for one in ten: noise."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, (4000, 2))
    second = np.where(rng.random((4000, 1)) < 0.1, rng.integers(0, 2, (4000, 2)), first[:, ::-1])
    x = np.concatenate([first, second], axis=1).astype(np.float32)
    p = np.bincount((x @ [8, 4, 2, 1]).astype(int), minlength=16) / len(x)
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    model = PixelCNN.conv((2, 2, 1), 16, features=(16, 16), kernel_size=3)
    algo, data = pixel_cnn(model, lr=1e-2), Batch(x.reshape(-1, 2, 2, 1))
    *_, last = train(algo, algo.init(init_params(model, KEY, data.x)), data, KEY, batch_size=400, num_epochs=30)
    nll = float(pixel_cnn_loss(last.state.params, data, KEY, model=model)[0])
    assert entropy - 1e-4 < nll < entropy + 0.01


@pytest.mark.slow
def test_learnt_on_an_array_it_embeds_and_draws_images_and_vectors():
    x = (np.random.default_rng(0).random((40, 4, 4)) < 0.5).astype(np.float32)
    for options in ({"net": "conv", "features": (4,), "kernel_size": 3}, {"hidden_dims": (8,)}):
        fitted = learn("pixel_cnn", x, latent_dim=5, num_epochs=1, **options)
        assert fitted.embed(x).shape == (40, 5)
        assert set(np.unique(fitted.sample(6))) == {0, 1}
        mean = fitted.reconstruct(x)
        scrambled = fitted.reconstruct(np.concatenate([x[:, :2], 1 - x[:, 2:]], axis=1))
        np.testing.assert_array_equal(scrambled[:, :2], mean[:, :2])  # whatever follows


def test_of_vectors_components_that_see_nothing_learn_their_own_distribution():
    """(0, b, 1 - b) of a fair b has log 2 nats. The first two have seen nothing but zeros, and are not alike."""
    b = np.arange(400) % 2
    x = np.stack([0 * b, b, 1 - b], axis=1).astype(np.float32)
    model = PixelCNN.dense(3, 8, hidden_dims=(8,))
    algo, data = pixel_cnn(model, lr=3e-2), Batch(x)
    *_, last = train(algo, algo.init(init_params(model, KEY, x)), data, KEY, batch_size=100, num_epochs=60)
    assert float(pixel_cnn_loss(last.state.params, data, KEY, model=model)[0]) == pytest.approx(np.log(2), abs=0.02)


def test_a_model_that_does_not_know_what_it_draws_is_refused():
    with pytest.raises(InputError, match=r"data_shape, \(D,\) or \(H, W, C\), is needed; got AE"):
        pixel_cnn(AE.dense(4, 2))
    with pytest.raises(InputError, match=r"take Categorical\(levels\)"):
        PixelCNN.dense(4, 2, one_hot=True)
    pixel_cnn(PixelCNN.dense(4, 2, one_hot=True, likelihood=Categorical(3)))
