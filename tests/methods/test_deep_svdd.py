"""Deep SVDD: its loss by hand, its minimum by least squares, its centre, and a decoder without a say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import train
from aejax.algorithm import begin
from aejax.data import Batch
from aejax.methods.deep_svdd import DeepSVDD, deep_svdd, deep_svdd_loss
from aejax.nets import init_params

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32) + np.float32([1, 0, 2, 0, -1])
DATA = Batch(jnp.asarray(X))


def begun(model, **knobs):
    algo = deep_svdd(model, **knobs)
    return algo, begin(algo, lambda key: init_params(model, key, DATA.x[:1]), DATA, KEY)


def test_the_loss_is_the_distance_from_the_centre_and_half_the_weighted_squares():
    model = DeepSVDD.dense(5, 3, likelihood="gaussian", hidden_dims=(4,))
    _, state = begun(model)
    first, last = (np.float64(state.params["encoder"][f"dense_{i}"]["kernel"]) for i in range(2))
    images = DeepSVDD.conv((8, 8, 1), 3, features=(2,), strides=(2,))
    for encoder in (state.params["encoder"], init_params(images, KEY, jnp.zeros((1, 8, 8, 1)))["encoder"]):
        assert all(list(layer) == ["kernel"] for layer in encoder.values())  # no biases
    z = np.maximum(X.astype(np.float64) @ first, 0) @ last
    distance = np.square(z - np.float64(state.params["centre"])).sum(axis=1)
    loss, terms = deep_svdd_loss(state.params, DATA, KEY, model=model, weight_decay=0.3)
    assert float(terms["centre_sq"]) == pytest.approx(distance.mean(), rel=1e-5)
    assert float(loss) == pytest.approx(distance.mean() + 0.15 * ((first**2).sum() + (last**2).sum()), rel=1e-5)
    found = model.apply({"params": state.params}, DATA.x, method="distances")
    np.testing.assert_allclose(found, distance, rtol=1e-4)


def test_the_centre_is_the_mean_code_at_the_start_kept_away_from_zero_and_stays():
    model = DeepSVDD.dense(5, 24, likelihood="gaussian", hidden_dims=())
    algo, state = begun(model, lr=0.1)
    mean = (X.astype(np.float64) @ np.float64(state.params["encoder"]["dense_0"]["kernel"])).mean(axis=0)
    near = np.abs(mean) < 0.1
    assert 0 < near.sum() < 24, mean
    expected = np.where(near, np.where(mean < 0, -0.1, 0.1), mean)
    np.testing.assert_allclose(state.params["centre"], expected, rtol=1e-5)
    *_, last = train(algo, state, DATA, KEY, batch_size=16, num_epochs=3)
    np.testing.assert_array_equal(last.state.params["centre"], state.params["centre"])


def test_a_linear_encoder_ends_at_least_squares():
    model = DeepSVDD.dense(5, 2, likelihood="gaussian", hidden_dims=())
    algo, state = begun(model, lr=0.05, weight_decay=0.2, tx=optax.adam)
    *_, last = train(algo, state, DATA, KEY, batch_size=64, num_epochs=600)
    x, centre = X.astype(np.float64), np.float64(state.params["centre"])
    ridge = x.T @ x + 0.5 * 0.2 * len(x) * np.eye(5)  # |xW - c|^2 / N + 0.1 |W|^2
    expected = np.linalg.solve(ridge, x.T @ np.broadcast_to(centre, (64, 2)))
    np.testing.assert_allclose(last.state.params["encoder"]["dense_0"]["kernel"], expected, atol=2e-3)


def test_the_decoder_learns_and_has_no_say_in_the_codes():
    model = DeepSVDD.dense(5, 3, likelihood="gaussian", hidden_dims=(4,))
    algo, state = begun(model)
    moved = state.params | {"decoder": jax.tree.map(lambda v: v + 1.0, state.params["decoder"])}
    after, other = (algo.step(each, DATA, KEY)[0].params for each in (state, state._replace(params=moved)))
    jax.tree.map(np.testing.assert_array_equal, after["encoder"], other["encoder"])
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after["decoder"], state.params["decoder"])
    assert any(jax.tree.leaves(changed))


def test_with_biases_all_examples_may_fall_into_one_point():
    """Proposition 2 of the paper: that minimum is there, and a linear encoder finds it."""
    model = DeepSVDD.dense(5, 2, likelihood="gaussian", hidden_dims=(), use_bias=True)
    algo, state = begun(model, lr=0.05, weight_decay=0.0)
    *_, last = train(algo, state, DATA, KEY, batch_size=64, num_epochs=600)
    assert float(model.apply({"params": last.state.params}, DATA.x, method="distances").max()) < 1e-3
