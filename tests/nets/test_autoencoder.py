"""What every autoencoder has in common: its maps by hand, and its constructors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.methods.vae import VAE

KEY = jax.random.key(0)
X = jnp.zeros((1, 4))


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


def test_a_grid_says_of_each_place_what_stands_there():
    """Of one convolution by 2, its kernel nothing but the middle: a code of the lower row is of the lower image."""
    model = AE.conv((4, 4, 1), 8, features=(1,), strides=(2,), grid=True, likelihood="gaussian")
    middle = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)  # of an even size, `SAME` pads behind: the first is the place
    params = {
        "encoder": {"conv_0": {"kernel": middle, "bias": jnp.zeros(1)},
                    "dense": {"kernel": jnp.array([[1.0, 10.0]]), "bias": jnp.zeros(2)}},
        "decoder": {"dense": {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.zeros(1)},
                    "conv_0": {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.zeros(1)}},
    }  # fmt: skip
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    bound = model.bind({"params": params})
    np.testing.assert_array_equal(bound.encode(x), [[0, 0, 2, 20, 8, 80, 10, 100]])
    lower = bound.decode(jnp.array([[0.0, 9, 0, 9, 0, 9, 1, 9]]))[0, :, :, 0]
    assert float(lower[:2, :2].sum()) == 0
    assert float(lower[2:, 2:].min()) == 1
    third = bound.decode(jnp.array([[0.0, 9, 0, 9, 1, 9, 0, 9]]))[0, :, :, 0]  # the left place of the lower row
    assert float(third[2:, :2].min()) == 1
    assert float(third[:2, 2:].sum()) == 0


def test_a_grid_that_does_not_fit_is_refused():
    for cls, latent_dim in ((AE, 6), (VAE, 8)):  # of the VAE, what the encoder returns is more than the code
        with pytest.raises(InputError, match="grid of 4 places"):
            cls.conv((8, 8, 1), latent_dim, grid=True)
    assert AE.conv((8, 8, 1), 8, grid=True).encoder.place_dim == 2


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
