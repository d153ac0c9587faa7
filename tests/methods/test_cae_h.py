"""CAE+H: the change of the Jacobian by hand, and its limit, the Hessian that JAX computes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrature import expectation, setup, with_noise

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.cae import CAE, cae_loss
from aejax.methods.cae_h import HParams, cae_h, cae_h_loss

KEY = jax.random.key(0)


@pytest.mark.first(1)
@pytest.mark.parametrize("model", [CAE.dense(2, 3), CAE.dense(2, 2, hidden_dims=(3,), activation=nn.tanh)])
def test_the_limit_is_the_hessian_and_the_rate_is_quadratic(model):
    with jax.enable_x64(True):
        params, batch = setup(model, (1, 2), jnp.float64)
        hessian = jax.hessian(lambda row: model.bind({"params": params}).encode(row[None])[0])(batch.x[0])
        exact = float(jnp.sum(jnp.square(hessian)))

        @jax.jit
        def change(sigma):
            loss = lambda e: with_noise(cae_h_loss)(e, params, batch, KEY, model=model, sigma=sigma, num_samples=1)
            return expectation(lambda e: loss(e)[1]["jacobian_change_sq"], 2) / sigma**2

        ratios = np.array([float(change(0.05 / 2**i)) / exact - 1 for i in range(4)])
    np.testing.assert_allclose(np.log2(ratios[:-1] / ratios[1:])[1:], 2.0, atol=0.02)
    assert abs(4 * ratios[3] - ratios[2]) / 3 < 0.01 * abs(ratios[3])  # Richardson


@pytest.mark.parametrize(("size", "num_samples"), [(10_000, 4), (2, 20_000)])
def test_a_quadratic_code_by_hand(size, num_samples):
    """h = (w.x)^2 has J = 2 (w.x) w, so the change is 4 sigma^2 (w.e)^2 |w|^2: mean 4 sigma^2 |w|^4, and its deviation
    is the mean times sqrt(2). A z-test on 40,000 draws, wrong once in 10^5 keys; were the draws of an example one, the
    mean of two examples would be off by as much as itself."""
    model = CAE.dense(3, 1, code_activation=jnp.square)
    params, _ = setup(model, (1, 3))
    params["encoder"]["dense_0"]["kernel"] = jnp.array([[1.0], [2.0], [-2.0]])
    batch, weights = Batch(jax.random.uniform(KEY, (size, 3))), {"contraction": 0.0, "gamma": 0.5, "sigma": 0.1}
    loss, metrics = cae_h_loss(params, batch, KEY, model=model, num_samples=num_samples, **weights)
    mean = 4 * 0.01 * 81
    assert abs(metrics["jacobian_change_sq"] / mean - 1) < 4.4 * np.sqrt(2 / 40_000)
    np.testing.assert_allclose(loss, metrics["recon_nats"] + 0.5 * metrics["jacobian_change_sq"], rtol=1e-6)


def test_without_gamma_it_is_the_cae():
    model = CAE.dense(6, 4)
    params, batch = setup(model, (5, 6))
    with jax.numpy_dtype_promotion("strict"):
        loss, metrics = cae_h_loss(params, batch, KEY, model=model, contraction=0.3, gamma=0.0, sigma=jnp.float32(1))
    del metrics["jacobian_change_sq"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        (loss, metrics),
        cae_loss(params, batch, KEY, model=model, contraction=0.3),
    )


def test_a_linear_code_has_no_curvature():
    model = CAE.dense(6, 4, code_activation=None)
    params, batch = setup(model, (5, 6))
    _, metrics = cae_h_loss(params, batch, KEY, model=model, sigma=10.0)
    assert metrics["jacobian_change_sq"] == 0


def test_bad_settings_are_refused():
    for change, message in (({"gamma": -1.0}, "gamma is -1"), ({"sigma": 0.0}, "sigma is 0")):
        with pytest.raises(InputError, match=message):
            cae_h(CAE.dense(6, 4), HParams()._replace(**change))
    with pytest.raises(InputError, match="num_samples is 0"):
        cae_h(CAE.dense(6, 4), num_samples=0)
