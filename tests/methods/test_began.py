"""BEGAN: both losses, the controller and its bounds, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.began import BEGAN, began, began_disc_loss, began_gen_loss
from aejax.methods.ebgan import EBGAN
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = BEGAN.dense(6, 2, hidden_dims=(5,))
X = np.random.default_rng(0).random((4, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, KEY, X) | {"balance": jnp.float32(0.25)}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def net(group, v):
    first, second = (jax.tree.map(lambda p: np.asarray(p, np.float64), group[f"dense_{i}"]) for i in range(2))
    return np.maximum(v @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]


def error(params, x):
    return np.abs(x - sigmoid(net(params["decoder"], net(params["encoder"], x)))).sum(axis=1)


def imagined(params, key):
    noise = np.asarray(jax.random.uniform(key, (4, 2), minval=-1.0, maxval=1.0), np.float64)
    return sigmoid(net(params["generator"], noise))


def test_the_losses_by_hand(params):
    seen, other = (error(params, imagined(params, key)).mean() for key in jax.random.split(KEY))
    real = error(params, X.astype(np.float64)).mean()
    loss, terms = began_disc_loss(params, Batch(X), KEY, model=MODEL)
    assert float(loss) == pytest.approx(real - 0.25 * seen, rel=1e-5)
    assert float(terms["abs_error"]) == pytest.approx(real, rel=1e-5)
    assert float(began_gen_loss(params, Batch(X), KEY, model=MODEL)[0]) == pytest.approx(other, rel=1e-5)


def test_the_gradient_of_the_autoencoder_sees_generated_images(params):
    """Against central differences in float64, along one direction."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64) + 0.1, params)  # away from the kinks at zero
        way = jax.tree.map(lambda v: jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape), wide["decoder"])
        batch = Batch(jnp.asarray(X, jnp.float64))

        def loss(t):
            moved = jax.tree.map(lambda v, w: v + t * w, wide["decoder"], way)
            return began_disc_loss(wide | {"decoder": moved}, batch, KEY, model=MODEL)[0]

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert float(jax.grad(loss)(0.0)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(("start", "gain"), [(0.25, 0.1), (0.9, 1e3), (0.5, 0.0001)])
def test_the_controller_by_hand_and_within_its_bounds(params, start, gain):
    algo = began(MODEL, gamma=0.7, gain=gain, tx=optax.sgd)
    state, terms = algo.step(algo.init(params | {"balance": jnp.float32(start)}), Batch(X), KEY)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0)  # step and phase
    real = error(params, X.astype(np.float64)).mean()
    fake = error(params, imagined(params, jax.random.split(key)[1])).mean()
    moved = np.clip(start + gain * (0.7 * real - fake) / 6, 0, 1)  # errors as means over the six pixels
    assert float(state.params["balance"]) == pytest.approx(moved, rel=1e-5)
    assert float(terms["control/convergence"]) == pytest.approx(real + abs(0.7 * real - fake), rel=1e-5)
    assert float(terms["control/balance"]) == pytest.approx(start)


def test_samples_are_those_of_the_generator(params):
    drawn = MODEL.apply({"params": params}, KEY, 4, method="sample")
    np.testing.assert_allclose(drawn, imagined(params, KEY), rtol=1e-5)
    assert params["generator"]["dense_0"]["kernel"].shape == params["decoder"]["dense_0"]["kernel"].shape
    assert not np.allclose(params["generator"]["dense_0"]["kernel"], params["decoder"]["dense_0"]["kernel"])


def test_a_tied_decoder_is_refused():
    with pytest.raises(InputError, match=r"so would the generator be: use tied=False"):
        BEGAN.dense(6, 2, tied=True)
    BEGAN.dense(6, 2, tied=False)


def test_an_ebgan_is_refused_for_it_has_no_balance():
    with pytest.raises(InputError, match="A BEGAN is needed"):
        began(EBGAN.dense(6, 2))
