"""The VAE of a given capacity, against Shannon: of a linear one the error at C nats has a closed form.

With squared errors and means that are linear in x only the covariance of the data matters, and the least error at a
rate of C nats is that of a Gaussian source, by reverse water-filling (Cover & Thomas, theorem 10.3.3): directions of
variance v keep the error min(t, v), at a cost of log(v / t) / 2 nats, and t is where the nats add up to C.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from weights import check_weights, wide

from aejax import training
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.annealed_vae import annealed_vae, annealed_vae_loss
from aejax.methods.vae import VAE, terms, vae_loss
from aejax.nets import init_params
from aejax.schedules import Ramp

KEY = jax.random.key(0)
MODEL = VAE.dense(4, 3, hidden_dims=(), likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
PARAMS = init_params(MODEL, KEY, X)


def least_error(variances, capacity):
    """Reverse water-filling: the summed squared error, and the water level, by bisection."""
    low, high = 1e-9, variances.max()
    for _ in range(200):
        level = 0.5 * (low + high)
        nats = 0.5 * np.log(np.maximum(variances / level, 1)).sum()
        low, high = (level, high) if nats > capacity else (low, level)
    return np.minimum(level, variances).sum(), level


def expected(params, x):
    """KL and squared error of a linear VAE with the noise integrated out, in float64."""
    enc, dec = (jax.tree.map(np.float64, params[group]["dense_0"]) for group in ("encoder", "decoder"))
    mean, logvar = np.split(x @ enc["kernel"] + enc["bias"], 2, axis=1)
    kl = 0.5 * (np.square(mean) + np.exp(logvar) - 1 - logvar).sum(axis=1)
    misfit = np.square(x - mean @ dec["kernel"] - dec["bias"]).sum(axis=1)
    return kl.mean(), (misfit + np.exp(logvar) @ np.square(dec["kernel"]).sum(axis=1)).mean()


@pytest.mark.parametrize("capacity", [pytest.param(0.5, marks=pytest.mark.slow), 2.0])
def test_a_linear_one_ends_at_the_capacity_with_the_least_error_at_that_rate(capacity):
    x = X @ np.diag([2.0, 1.2, 0.9, 0.5]).astype(np.float32)
    x = x - x.mean(axis=0)
    error, level = least_error(np.linalg.eigvalsh(np.cov(np.float64(x).T, bias=True)), capacity)
    gamma = 1.2 * level  # a nat lowers half the squared error by the water level; below that gamma holds no KL down
    tx = lambda lr: optax.adam(optax.exponential_decay(lr, 1, 0.998))
    algo = annealed_vae(MODEL, lr=4e-2, gamma=gamma, capacity=Ramp(0.0, capacity, 300), tx=tx)
    batch = Batch(jnp.tile(jnp.asarray(x), (2, 1)))  # 2 draws for each example
    run = jax.jit(lambda state: training.fit(algo, state, batch, KEY, batch_size=128, num_epochs=3000)[0])
    kl, misfit = expected(run(algo.init(PARAMS)).params, x)
    assert kl == pytest.approx(capacity, rel=0.01)
    assert misfit == pytest.approx(error, rel=0.01)
    assert misfit > 0.999 * error


def test_the_loss_by_hand_on_both_sides_of_the_capacity():
    each = terms(MODEL, PARAMS, Batch(X), KEY)
    recon, kl = np.float64(each.recon).mean(), np.float64(each.kl).mean()
    for capacity in (0.5 * kl, 2.0 * kl):
        loss, found = annealed_vae_loss(PARAMS, Batch(X), KEY, model=MODEL, gamma=7.0, capacity=capacity)
        np.testing.assert_allclose(loss, recon + 7 * abs(kl - capacity), rtol=1e-5)
        np.testing.assert_allclose(found["kl_nats"], kl, rtol=1e-6)
        np.testing.assert_allclose(found["capacity_gap_nats"], abs(kl - capacity), rtol=1e-5)
    beta, _ = vae_loss(PARAMS, Batch(X), jax.random.clone(KEY), model=MODEL, beta=7.0)
    np.testing.assert_allclose(annealed_vae_loss(PARAMS, Batch(X), KEY, model=MODEL, gamma=7.0, capacity=0.0)[0], beta)


@pytest.mark.parametrize("capacity", [0.1, 25.0])
def test_the_weight_pulls_the_kl_up_or_down_to_the_capacity(capacity):
    with jax.enable_x64(True):
        batch = Batch(jnp.float64(X))
        loss = lambda p, **knobs: annealed_vae_loss(p, batch, KEY, model=MODEL, capacity=capacity, **knobs)
        sign = 1 if capacity == 0.1 else -1
        check_weights(loss, wide(PARAMS), {"gamma": 5.0}, {"gamma": lambda terms: sign * terms["kl_nats"]})


def test_over_devices_the_gap_is_that_of_the_mean_over_all_rows():
    """A device on either side of the capacity: the mean of their gaps would be another."""
    shards = np.stack([0.1 * X[:32], 4 * X[:32]])
    one = lambda rows: annealed_vae_loss(
        PARAMS, Batch(rows), KEY, model=MODEL, gamma=1.0, capacity=1.0, axis_name="shards"
    )
    loss, found = jax.vmap(one, axis_name="shards")(shards)
    low, high = np.float64(found["kl_nats"])
    assert low < 1 < high
    np.testing.assert_allclose(loss - found["recon_nats"], 2 * [abs(0.5 * (low + high) - 1)], rtol=1e-4)


def test_bad_knobs_are_refused():
    with pytest.raises(InputError, match="capacity"):
        annealed_vae(MODEL, capacity=-1.0)
