"""Likelihoods as fields of a module: parameters of their own, the width of the decoder, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from flax import linen as nn

from aejax import likelihoods
from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import LIKELIHOODS, Bernoulli, Categorical, DiscretizedLogistic, Gaussian
from aejax.methods.ae import AE, ae_loss
from aejax.methods.stacked import StackedAE, layer_loss
from aejax.nets import MLP, init_params


def test_a_learned_variance_is_a_parameter_that_comes_to_the_squared_error(digits):
    model, x = AE.dense(64, 2, hidden_dims=(), likelihood="gaussian_learned"), jnp.asarray(digits[:50])
    params = init_params(model, jax.random.key(0), x)
    assert model.groups == ("encoder", "decoder", "logvar")
    assert set(params) == set(model.groups)
    assert params["logvar"].shape == ()
    error = float(jnp.mean((model.apply({"params": params}, x, method="reconstruct") - x) ** 2))
    raw = scipy.optimize.brentq(lambda raw: np.exp(2 * (-6 + np.logaddexp(0, raw / 2 + 6))) - error, -30, 30)

    def loss(logvar):
        return ae_loss(params | {"logvar": logvar}, Batch(x), jax.random.key(0), model=model)[0]

    value, slope = jax.value_and_grad(loss)(jnp.array(raw, jnp.float32))
    np.testing.assert_allclose(value, 32 * (np.log(error) + 1 + np.log(2 * np.pi)), rtol=1e-5)
    np.testing.assert_allclose(slope, 0.0, atol=1e-3)  # of 32 on either side
    assert float(jax.grad(loss)(jnp.array(raw + 1, jnp.float32))) > 5


@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, Categorical(5), DiscretizedLogistic(2, 17)])
def test_decoders_that_are_built_return_what_the_likelihood_wants(likelihood):
    key, vectors, images = jax.random.key(0), jnp.zeros((2, 6)), jnp.zeros((2, 4, 5, 3))
    dense = AE.dense(6, 2, hidden_dims=(4,), likelihood=likelihood)
    conv = AE.conv((4, 5, 3), 2, features=(4,), strides=(2,), likelihood=likelihood)
    for model, x in ((dense, vectors), (conv, images)):
        params = jax.eval_shape(lambda model=model, x=x: init_params(model, key, x))
        assert set(params) == set(model.groups)
        decoder = jax.eval_shape(
            lambda p, z, m=model: m.decoder.apply({"params": p}, z), params["decoder"], vectors[:, :2]
        )
        assert decoder.shape[1:] == likelihoods.get(likelihood).outputs(x.shape[1:])


@pytest.mark.parametrize(
    ("likelihood", "width", "message"),
    [
        ("bernoulli", 5, r"decoder returns \(5,\) for an example of shape \(4,\); Bernoulli\(\) wants \(4,\)"),
        ("gaussian_learned", 5, r"decoder returns \(5,\) .* Gaussian\(variance='learned'\) wants \(4,\)"),
        ("gaussian_per_pixel", 4, r"decoder returns \(4,\) .* Gaussian\(variance='per_pixel'\) wants \(8,\)"),
        (Categorical(3), 4, r"decoder returns \(4,\) for an example; Categorical\(levels=3\) wants 3 numbers for each"),
        (Categorical(3), 6, r"decoder returns \(6,\) .* Categorical\(levels=3\) wants \(12,\)"),
    ],
)
def test_a_decoder_of_the_wrong_width_is_told_the_right_one(likelihood, width, message):
    model = AE(encoder=MLP((2,)), decoder=MLP((width,)), latent_dim=2, likelihood=likelihood)
    with pytest.raises(InputError, match=message) as error:
        init_params(model, jax.random.key(0), jnp.zeros((1, 4)))
    wanted = re.search(
        r" wants (?:\((\d+),\)|(\d+) numbers for each component: a last axis that is as many times as long)",
        str(error.value),
    )
    right = MLP((int(wanted[1] or 4 * int(wanted[2])),))
    jax.eval_shape(lambda: init_params(model.clone(decoder=right), jax.random.key(0), jnp.zeros((1, 4))))


def test_tied_weights_cannot_return_several_numbers():
    AE.dense(4, 2, tied=True, likelihood="gaussian_learned")
    for cls in (AE, StackedAE):
        with pytest.raises(InputError, match=r"per_pixel'\) wants \(8,\) .* shape \(4,\); .* Use tied=False"):
            cls.dense(4, 2, tied=True, likelihood="gaussian_per_pixel")
    assert AE.dense(4, 2, tied=False, likelihood="gaussian_per_pixel").decoder.features[-1] == 8
    assert StackedAE.dense(4, 2, tied=False, likelihood="gaussian_per_pixel").decoder[0].features == (8,)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian_learned", Categorical(5)])
def test_the_first_layer_of_a_stack_has_the_likelihood_of_the_data(likelihood):
    model = StackedAE.dense(4, 2, hidden_dims=(3,), tied=False, likelihood=likelihood)
    x = jnp.linspace(0.0, 1.0, 5)[:, None] * jnp.ones((1, 4))
    params = init_params(model, jax.random.key(0), x)
    loss = lambda params: layer_loss(params, Batch(x), jax.random.key(0), model=model, layer=0, corruption=None)[0]
    value, slopes = jax.value_and_grad(loss)(params)
    moved = {group for group in params if any(np.any(leaf) for leaf in jax.tree.leaves(slopes[group]))}
    assert moved == set(model.layer_groups(0))
    bound = model.bind({"params": params})
    output = bound.with_own_parameter(bound.decoder[0](bound.encoder[0](x)))
    np.testing.assert_allclose(value, likelihoods.get(likelihood).nll(output, x).mean(), rtol=1e-6)


def test_equal_likelihoods_compile_once():
    traces = []

    def traced(x, model):
        traces.append(model)
        return x

    jitted = jax.jit(traced, static_argnames="model")
    for variance in (1, 1.0, np.float32(1)):
        jitted(jnp.zeros(1), model=AE(nn.Dense(2), nn.Dense(4), 2, Gaussian(variance)))
    assert len(traces) == 1


def test_a_likelihood_is_found_by_name_or_is_one():
    assert likelihoods.get("bernoulli") == Bernoulli()
    assert likelihoods.get(Gaussian(0.1)) == Gaussian(0.1)
    with pytest.raises(InputError, match="Did you mean 'bernoulli'"):
        likelihoods.get("bernouli")
    with pytest.raises(InputError, match=r"wanted is a name such as 'gaussian', or an object such as Gaussian\("):
        likelihoods.get(Gaussian)
    for levels in (1, 2.0, True):
        with pytest.raises(InputError, match="a whole number of at least 2"):
            Categorical(levels)
    with pytest.raises(InputError, match="mixtures is 0"):
        DiscretizedLogistic(0)
