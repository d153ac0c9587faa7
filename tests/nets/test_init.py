"""First parameters: those of Flax, what is refused before there are any, and the output at the mean of the data."""

import math
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import Batch, Dataset, flatten
from aejax.methods.ae import AE
from aejax.nets import MLP, from_equinox, init_params, start_bias

KEY = jax.random.key(0)
X = np.zeros((1, 4), np.float32)


class Normalised(nn.Module):
    """What a user may bring: a network whose normalisation couples examples and keeps state."""

    use_running_average: bool | None = False

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(self.use_running_average)(nn.Dense(2)(x))


class Dropped(nn.Module):
    deterministic: bool | None
    width: int = 2

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=self.deterministic)(nn.Dense(self.width)(x))


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x + jax.random.normal(self.make_rng("noise"), x.shape))


def make(encoder=None, decoder=None, likelihood="bernoulli"):
    return AE(encoder or MLP((2,)), decoder or MLP((4,)), 2, likelihood)


def test_parameters_are_those_of_flax_whatever_form_x_has():
    model = AE.dense(4, 2, hidden_dims=(3,), tied=True)
    wanted = model.init(KEY, X)["params"]
    for data in (Batch(X, np.zeros(1, int)), X.astype(np.uint8)):
        jax.tree.map(np.testing.assert_array_equal, init_params(model, KEY, data), wanted)


@pytest.mark.first(4)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make(Normalised()), "batch_stats.*LayerNorm or GroupNorm in place of BatchNorm"),
        (make(Normalised(None)), "encoder/BatchNorm_0 is a BatchNorm.*LayerNorm or GroupNorm in its place"),
        (make(Dropped(False)), "encoder/Dropout_0 is a Dropout.*leave it out, or make it with deterministic=True"),
        (make(Dropped(None)), "encoder/Dropout_0 is a Dropout"),
        (make(decoder=Dropped(False, 4)), "decoder/Dropout_0 is a Dropout"),
        (make(nn.Sequential((MLP((3,)), Dropped(False)))), "encoder/layers_1/Dropout_0 is a Dropout"),
        (make(Noisy()), "encoder is a Noisy, which draws.*noise belongs to a loss"),
        (make(MLP((3,))), r"shape \(3,\); latent_dim=2 asks for an encoder that returns 2 numbers"),
        (make(decoder=MLP((5,))), r"decoder returns \(5,\) for an example of shape \(4,\)"),
        (AE.dense(2, 4), r"decoder returns \(2,\).*The size of the data comes first: AE.dense\(4, 2\)"),
        (make(likelihood="bernouli"), "'bernouli'.*Did you mean 'bernoulli'"),
        (make(likelihood="mse"), "Unknown likelihood 'mse'. Known likelihoods: bernoulli, "),
        (make(MLP), "AE.encoder is the class MLP, not yet called"),
        (make(jnp.tanh), "AE.encoder is a?.*; a Linen module is wanted"),
    ],
)
def test_models_that_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        init_params(model, KEY, X)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.astype(np.complex64), "x has dtype complex64; real numbers are needed"),
        (np.array([["a"] * 4]), "x has dtype <U1; real numbers"),
        (X[:0], r"x has shape \(0, 4\).*at least one example"),
        (X[0], r"x has shape \(4,\); \[B, ...\] is needed"),
        ([[0.0] * 4], r"x is a list; an array \[B, ...\] is needed"),
        (np.zeros((1, 2, 2)), r"examples of shape \(2, 2\) to \(2, 2\).*Flatten x: x.reshape\(-1, 4\) .*flatten\)\.$"),
    ],
)
def test_data_that_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        init_params(make(), KEY, x)


class Layered(nn.Module):
    norm: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.norm(nn.Dense(2)(x))


@pytest.mark.first(4)
@pytest.mark.parametrize(
    "model",
    [
        make(Dropped(True)),
        make(nn.Dense(2)),  # without the dropout
        make(Layered(nn.LayerNorm())),
        make(Layered(nn.GroupNorm(num_groups=1))),
        make(MLP((2,))),
        AE.dense(4, 2),  # the size of the data comes first
        make(decoder=MLP((256, 4))),
    ],
    ids=["dropout is off", "no dropout", "LayerNorm", "GroupNorm", "numbers", "sizes", "a module"],
)
def test_what_the_refusals_of_models_advise_is_taken(model):
    init_params(model, KEY, np.stack([X[0], X[0] + 1]))


def test_images_for_a_dense_network_are_flattened_or_seen_by_convolutions():
    x = np.random.default_rng(0).random((2, 2, 2, 1), np.float32)
    with pytest.raises(
        InputError, match=r"Flatten x: x.reshape\(-1, 4\) .* or use AE\.conv\(\(2, 2, 1\), 2\)"
    ) as error:
        init_params(AE(MLP((2,)), MLP((4,)), 2), KEY, x)
    init_params(make(), KEY, eval(re.search(r"x\.reshape\(.*?\)", str(error.value))[0], {"x": x}))
    images = eval(str(error.value).partition("or use ")[2].rstrip("."), {"AE": AE})
    jax.eval_shape(lambda: init_params(images, KEY, x))
    batch = Batch(x)
    init_params(make(), KEY, flatten(Dataset("two", batch, None, batch, (2, 2, 1))).train)


class HandWritten(nn.Module):
    """A decoder whose last bias has a name of its own; `gain` is as large, and is no bias."""

    @nn.compact
    def __call__(self, z):
        h = nn.Dense(4, name="last", use_bias=False)(nn.relu(nn.Dense(4, name="a")(z)))
        gain = self.param("z_gain", nn.initializers.ones, (1, 4))
        return h * gain + self.param("offset", nn.initializers.zeros, (4,))[None]


def _equinox(likelihood):
    decoder = from_equinox(eqx.nn.MLP, 2, 4, 3, 1)
    return AE(encoder=MLP((2,)), decoder=decoder, latent_dim=2, likelihood=likelihood)


VECTORS = np.array([[0.0, 1.0, 0.25, 0.5], [0.0, 1.0, 0.75, 0.0]], np.float32)
MEANS = np.array([0.0, 1.0, 0.5, 0.25])
IMAGES = np.stack([VECTORS, VECTORS[::-1], 0.5 * VECTORS], axis=-1).reshape(2, 2, 2, 3)  # three channels
BIASES = {
    "dense": (lambda lik: AE.dense(4, 2, hidden_dims=(3,), likelihood=lik), ("dense_1", "bias"), MEANS),
    "tied": (lambda lik: AE.dense(4, 2, hidden_dims=(3,), tied=True, likelihood=lik), ("bias_1",), MEANS),
    "hand": (lambda lik: make(decoder=HandWritten(), likelihood=lik), ("offset",), MEANS),
    "equinox": (_equinox, ("net", "layers", "1", "bias"), MEANS),
    "conv": (
        lambda lik: AE.conv((2, 2, 3), 2, features=(2,), strides=(1,), likelihood=lik),
        ("conv_0", "bias"),
        np.array([7 / 16, 7 / 16, 7 / 32]),
    ),
}


OTHERS = [("dense", "gaussian_learned"), ("dense", "gaussian_per_pixel")]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("kind", "likelihood"), [*((kind, "gaussian") for kind in BIASES), ("dense", "bernoulli"), *OTHERS]
)
def test_the_bias_of_the_output_starts_at_the_mean_of_the_data(kind, likelihood):
    build, path, wanted = BIASES[kind]
    data = IMAGES if kind == "conv" else VECTORS
    if likelihood == "bernoulli":
        clipped = wanted.clip(1e-3, 1 - 1e-3)
        wanted = np.log(clipped) - np.log1p(-clipped)
    model = build(likelihood)
    params = jax.tree.map(lambda leaf: leaf + 0.5, init_params(model, KEY, data[:1]))
    started = start_bias(model, params, Batch(data))
    leaf = started["decoder"]
    for name in path:
        leaf = leaf[name]
    np.testing.assert_allclose(np.ravel(leaf)[: len(wanted)], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(np.ravel(leaf)[len(wanted) :], 0.5)  # what is beside the mean stays
    moved = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, started)), strict=True)]
    assert sum(moved) == 1


def test_a_start_within_a_trace_is_the_same_and_init_params_takes_it():
    model = AE.dense(4, 2, hidden_dims=())
    wanted = start_bias(model, init_params(model, KEY, X), VECTORS)
    assert float(wanted["decoder"]["dense_0"]["bias"][0]) == pytest.approx(math.log(0.001 / 0.999))
    for init in (init_params, lambda *args, **kw: jax.jit(lambda key, x: init_params(model, key, x, **kw))(*args[1:])):
        found = init(model, KEY, VECTORS, output_bias=True)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)


def test_starts_that_are_refused():
    with pytest.raises(InputError, match=r"under Bernoulli and Gaussian likelihoods, not under Poisson"):
        start_bias(AE.dense(4, 2, likelihood="poisson"), {}, VECTORS)
    no_bias = AE.dense(4, 2, use_bias=False)
    squashed = make(decoder=MLP((4,), final_activation=jnp.tanh))
    for model in (no_bias, squashed):
        with pytest.raises(InputError, match=r"No parameter of the decoder is the bias of its output.*give the last"):
            init_params(model, KEY, VECTORS, output_bias=True)
        jax.eval_shape(lambda model=model: init_params(model, KEY, VECTORS))  # the start is left as it is
    init_params(make(decoder=nn.Sequential((squashed.decoder, nn.Dense(4)))), KEY, VECTORS, output_bias=True)
