"""What every autoencoder has in common: its maps by hand, its constructors, and which modules are refused."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.nets import MLP, check_module, init_params

KEY = jax.random.key(0)
X = jnp.zeros((1, 4))


class Normalised(nn.Module):
    """What a user may bring: a network whose normalisation couples examples and keeps state."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(2)(x))


class Listed(nn.Module):
    """A field that cannot be hashed, where Flax does not freeze it."""

    widths: object

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.widths[0])(x)


def test_the_maps_by_hand():
    # All weights one, biases zero: (1, 2) has the code 3, the output (3, 3), the means 1 / (1 + e^-3) or 3.
    params = {
        "encoder": {"dense_0": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}},
        "decoder": {"dense_0": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}},
    }
    x = jnp.array([[1.0, 2.0]])
    for likelihood, mean in {"bernoulli": 1 / (1 + math.exp(-3)), "gaussian": 3.0}.items():
        bound = AE.dense(2, 1, hidden_dims=(), likelihood=likelihood).bind({"params": params})
        np.testing.assert_array_equal(bound.embed(x), [[3.0]])
        np.testing.assert_array_equal(bound.decode(jnp.array([[3.0]])), [[3.0, 3.0]])
        np.testing.assert_allclose(bound.generate(jnp.array([[3.0]])), [[mean, mean]], rtol=1e-6)
        np.testing.assert_allclose(bound.reconstruct(x), [[mean, mean]], rtol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_the_dense_decoder_mirrors_the_encoder(tied):
    model = AE.dense(8, 2, hidden_dims=(6, 4), tied=tied)
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 8)))["params"]
    kernels = {part: [leaf.shape for leaf in jax.tree.leaves(params[part]) if leaf.shape[0] > 1 and leaf.ndim == 2]
               for part in ("encoder", "decoder")}  # fmt: skip
    assert kernels == {"encoder": [(8, 6), (6, 4), (4, 2)], "decoder": [] if tied else [(2, 4), (4, 6), (6, 8)]}


def test_the_encoder_returns_as_many_numbers_as_the_method_asks_for():
    for cls, numbers in {AE: 3, VAE: 6}.items():
        assert cls.dense(4, 3).encoder.features[-1] == numbers
        assert cls.conv((5, 4, 1), 3).encoder.code_dim == numbers


def test_parameters_are_those_of_flax():
    model = AE.dense(4, 2, hidden_dims=(3,), tied=True)
    jax.tree.map(np.testing.assert_array_equal, init_params(model, KEY, X), model.init(KEY, X)["params"])


def test_equal_modules_compile_once():
    traces = []

    def traced(x, model):
        traces.append(model)
        return x

    jitted = jax.jit(traced, static_argnames="model")
    for _ in range(2):
        jitted(X, model=AE.dense(4, 2, tied=True))
        jitted(X, model=AE.conv((28, 28, 1), 2))
    assert len(traces) == 2


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (MLP((2,), activation=lambda x: x), "MLP.activation is a lambda.*module-level function"),
        (nn.Sequential((MLP((2,)), MLP((2,), final_activation=lambda x: x))), "MLP.final_activation is a lambda"),
        (nn.Sequential([MLP((2,))]), "Sequential.layers is a list; use a tuple"),
        (Listed(np.array([2])), "Listed.widths is a ndarray; use a tuple"),
        (Normalised(), "batch_stats.*LayerNorm or GroupNorm in place of BatchNorm"),
        (MLP((3,)), r"shape \(3,\); latent_dim=2 asks for an encoder that returns 2 numbers"),
    ],
)
def test_encoders_that_are_refused(encoder, message):
    with pytest.raises(InputError, match=message):
        init_params(AE(encoder=encoder, decoder=MLP((4,)), latent_dim=2), KEY, X)


def test_what_else_is_refused():
    with pytest.raises(InputError, match=r"decoder returns \(5,\) for an example of shape \(4,\)"):
        init_params(AE(encoder=MLP((2,)), decoder=MLP((5,)), latent_dim=2), KEY, X)
    with pytest.raises(InputError, match=r"'bernouli'.*Did you mean 'bernoulli'"):
        init_params(AE.dense(4, 2, likelihood="bernouli"), KEY, X)


def test_modules_that_are_not_refused():
    for module in (AE.dense(4, 2, tied=True), AE.conv((4, 4, 1), 2), AE.dense(4, 2, activation=nn.gelu)):
        check_module(module)
