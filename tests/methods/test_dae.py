"""The denoising autoencoder: the best linear one is known in closed form, for every noise."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import likelihoods, training
from aejax.checks import InputError
from aejax.corruption import CORRUPTIONS
from aejax.data import Batch
from aejax.likelihoods import Categorical, Gaussian
from aejax.methods.ae import AE, ae, ae_loss
from aejax.methods.dae import HParams, dae, dae_loss
from aejax.methods.mdae import mdae, mdae_loss
from aejax.methods.stacked import StackedAE, stacked
from aejax.nets import init_params
from aejax.schedules import cosine

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def gaussian_data():
    """Correlated Gaussian data, `[2048, 4]`, with a mean that is not zero."""
    mix = np.array([[0.6, 0.3, 0, 0.1], [0, 0.5, 0.2, 0], [0, 0, 0.4, -0.2], [0.1, 0, 0, 0.3]])
    return (np.random.default_rng(0).normal(size=(2048, 4)) @ mix + [0.4, 0.5, 0.6, 0.3]).astype(np.float32)


class Weighed(StackedAE):
    """A model whose loss is not that of its likelihood."""

    def nll(self, z, x, *condition):
        return 2 * jnp.square(x - self.decode(z)).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Heavier(Gaussian):
    """Of one's own: what `Weighed` does, component by component."""

    def nll_components(self, output, x):
        return 4 * super().nll_components(output, x)


@pytest.mark.parametrize("build", [dae, mdae, stacked])
def test_a_model_with_a_likelihood_of_its_own_is_refused_where_components_are_needed(build):
    model = Weighed.dense(4, 2, hidden_dims=(), likelihood="gaussian")
    with pytest.raises(
        InputError, match=r"Weighed overrides nll, .* use a method that asks for the nll, such as ae\."
    ) as error:
        build(model)
    ae(model)  # as advised
    own = StackedAE.dense(4, 2, hidden_dims=(), likelihood=Heavier(1.0))
    if "a likelihood of your own" in str(error.value):
        build(own)
    else:  # the marginalised one, which does not know its curvature
        with pytest.raises(InputError, match="curvature of Heavier"):
            build(own)
    losses = {dae: partial(dae_loss, corruption="masking"), mdae: mdae_loss}
    for loss in [losses[build]] if build in losses else []:
        with pytest.raises(InputError, match="Weighed overrides nll"):
            jax.eval_shape(partial(loss, model=model), {}, Batch(jnp.zeros((3, 4))), KEY)


def _best_linear(x, corruption, level):
    """The regression of x on its corrupted self: (matrix, offset), from the moments of the data and of the noise."""
    x = x.astype(np.float64)
    mean, cov, second = x.mean(0), np.cov(x.T, bias=True), np.square(x).mean(0)
    keep = {"gaussian": 1, "masking": 1 - level, "salt_and_pepper": 1 - level}[corruption]
    noisy_mean = keep * mean + (level / 2 if corruption == "salt_and_pepper" else 0)
    noisy_cov = keep**2 * cov
    if corruption == "gaussian":  # the Wiener filter
        noisy_cov = cov + level**2 * np.eye(len(mean))
    else:  # a component is kept, or is 0, or (salt) 1; different components are hit independently
        noisy_second = keep * second + (level / 2 if corruption == "salt_and_pepper" else 0)
        np.fill_diagonal(noisy_cov, noisy_second - noisy_mean**2)
    matrix = np.linalg.solve(noisy_cov, keep * cov)
    return matrix, mean - noisy_mean @ matrix


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corruption", "level"),
    [
        ("gaussian", 0.5),
        pytest.param("masking", 0.4, marks=pytest.mark.slow),
        pytest.param("salt_and_pepper", 0.3, marks=pytest.mark.slow),
    ],
)
def test_a_linear_one_learns_the_best_linear_denoiser(gaussian_data, corruption, level):
    state, model = _train(gaussian_data, 4, corruption, level)
    matrix, offset = _best_linear(gaussian_data, corruption, level)
    found_matrix, found_offset = _as_affine(model, state.params)
    assert np.linalg.norm(found_matrix - matrix) < 0.01 * np.linalg.norm(matrix)
    best = gaussian_data @ matrix + offset
    error = gaussian_data @ found_matrix + found_offset - best
    assert np.linalg.norm(error) < 0.01 * np.linalg.norm(best)


@pytest.mark.slow
def test_a_narrow_one_learns_the_truncated_wiener_filter(gaussian_data):
    # Component by component of the eigenbasis the filter saves lambda^2 / (lambda + sigma^2): the two largest stay.
    state, model = _train(gaussian_data, 2, "gaussian", 0.5)
    eigenvalues, basis = np.linalg.eigh(np.cov(gaussian_data.T.astype(np.float64), bias=True))
    gains = eigenvalues / (eigenvalues + 0.25)
    matrix = (basis[:, 2:] * gains[2:]) @ basis[:, 2:].T
    found, _ = _as_affine(model, state.params)
    assert np.linalg.norm(found - matrix) < 0.01 * np.linalg.norm(matrix)


def _train(x, latent_dim, corruption, level):
    batch_size, num_epochs = 512, 800
    model = AE.dense(4, latent_dim, hidden_dims=(), likelihood="gaussian")
    tx = lambda lr: optax.adam(cosine(lr, num_epochs * len(x) // batch_size))
    algo = dae(model, HParams(lr=0.02, level=level), tx, corruption=corruption)
    data = Batch(jnp.asarray(x))
    train = jax.jit(
        lambda state: training.fit(algo, state, data, jax.random.key(1), batch_size=batch_size, num_epochs=num_epochs)
    )
    return train(algo.init(init_params(model, KEY, data.x)))[0], model


def _as_affine(model, params):
    bound = model.bind({"params": params})
    offset = np.asarray(bound.reconstruct(jnp.zeros((1, 4))), np.float64)[0]
    return np.asarray(bound.reconstruct(jnp.eye(4)), np.float64) - offset, offset


@pytest.mark.first(1)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_without_noise_it_is_the_plain_autoencoder(corruption):
    model = AE.dense(6, 2, hidden_dims=(5,))
    x = jax.random.uniform(KEY, (3, 6))
    params, batch = init_params(model, jax.random.key(1), x), Batch(x)
    with jax.numpy_dtype_promotion("strict"):
        denoising = dae_loss(params, batch, KEY, model=model, corruption=corruption, level=jnp.float32(0))
    plain = ae_loss(params, batch, KEY, model=model)
    jax.tree.map(np.testing.assert_array_equal, denoising, plain)


def test_the_target_is_clean_and_every_component_can_be_lost():
    # All inputs masked: the output is the decoder of the encoder's answer to nothing, held against the clean x.
    model = AE.dense(3, 2, hidden_dims=(), likelihood="gaussian")
    x = jnp.array([[1.0, 2.0, 3.0]])
    params = init_params(model, KEY, x)  # biases are zero, hence so is the output: the error is 1 + 4 + 9
    _, metrics = dae_loss(params, Batch(x), KEY, model=model, corruption="masking", level=1.0)
    np.testing.assert_allclose(metrics["sse"], 14.0, rtol=1e-6)


@pytest.mark.first(1)
@pytest.mark.parametrize(("corruption", "hit"), [("masking", 0.0), ("salt_and_pepper", 1.0)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_emphasis_weighs_the_components_that_the_noise_hits(corruption, hit, likelihood):
    """By hand: the noise is drawn as documented, and a component of x = 1 - hit that changed was hit."""
    model = AE.dense(40, 3, hidden_dims=(5,), likelihood=likelihood)
    x = jnp.full((6, 40), 1 - hit)
    params = init_params(model, KEY, x)
    x_tilde = np.asarray(CORRUPTIONS[corruption](KEY, x, 0.6))
    # Salt turns a 1 into a 1: these are hit too, and are told from the intact ones by a second image.
    was_hit = (x_tilde != x) | (np.asarray(CORRUPTIONS[corruption](KEY, 1 - x, 0.6)) != 1 - x)
    assert 0.4 < was_hit.mean() < 0.8
    output = np.asarray(model.apply({"params": params}, x_tilde), np.float64)
    if likelihood == "bernoulli":
        nats = np.logaddexp(0, output) - output * np.asarray(x)
    else:
        nats = np.square(x - output) / 2 + np.log(2 * np.pi) / 2
    weights = {"corrupted": 0.75, "intact": 0.2}
    loss, metrics = dae_loss(params, Batch(x), KEY, model=model, corruption=corruption, level=0.6, **weights)
    expected = (np.where(was_hit, 0.75, 0.2) * nats).sum(axis=1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["recon_nats"], nats.sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-9, 0.5])
def test_gaussian_noise_of_any_level_hits_every_component(level):
    model = AE.dense(6, 2, hidden_dims=(5,))
    x = jax.random.uniform(KEY, (3, 6))
    params = init_params(model, jax.random.key(1), x)
    weighted, metrics = dae_loss(params, Batch(x), KEY, model=model, level=level, corrupted=2.0, intact=0.0)
    np.testing.assert_allclose(weighted, 2 * metrics["recon_nats"], rtol=1e-6)


def test_full_emphasis_ignores_what_is_intact():
    """The gradient with respect to the output biases of components that were not hit is zero, and of the others not."""
    model = AE.dense(30, 3, hidden_dims=())
    x = jax.random.uniform(KEY, (1, 30), minval=0.1)
    params = init_params(model, KEY, x)
    hit = np.asarray(CORRUPTIONS["masking"](jax.random.key(7), x, 0.5) == 0)[0]
    loss = lambda params: dae_loss(
        params, Batch(x), jax.random.key(7), model=model, corruption="masking", level=0.5, intact=0.0
    )[0]
    gradient = np.asarray(jax.grad(loss)(params)["decoder"]["dense_0"]["bias"])
    np.testing.assert_array_equal(gradient != 0, hit)


def test_unknown_noises_and_impossible_levels_are_refused():
    model = AE.dense(3, 2)
    with pytest.raises(InputError, match="Did you mean 'gaussian'"):
        dae(model, corruption="gausian")
    with pytest.raises(InputError, match=r"level is 1\.5"):
        dae(model, HParams(level=1.5), corruption="masking")
    with pytest.raises(InputError, match="level is -1"):
        dae(model, HParams(level=-1.0))
    with pytest.raises(InputError, match="intact is -1"):
        dae(model, HParams(intact=-1.0))


@pytest.mark.first(1)
@pytest.mark.parametrize("likelihood", [Categorical(3), "gaussian_per_pixel", "gaussian_learned"])
def test_emphasis_works_where_a_component_takes_several_numbers(likelihood):
    """Weights of 2 on all components double the loss, whose unweighted sum is the likelihood's own."""
    model = AE.dense(6, 2, hidden_dims=(), likelihood=likelihood)
    x = jnp.round(2 * jax.random.uniform(KEY, (3, 6))) / 2
    params = init_params(model, jax.random.key(1), x)
    loss, metrics = dae_loss(params, Batch(x), KEY, model=model, level=0.0, corrupted=2.0)
    expected = likelihoods.get(likelihood).nll(model.apply({"params": params}, x), x).mean()
    np.testing.assert_allclose(metrics["recon_nats"], expected, rtol=1e-6)
    np.testing.assert_allclose(loss, 2 * expected, rtol=1e-6)
