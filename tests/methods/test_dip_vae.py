"""The DIP-VAE: covariances by NumPy, both penalties by hand, and where they have their minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights import check_weights, wide

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.dip_vae import HParams, covariance_of, dip_vae, dip_vae_loss
from aejax.methods.vae import VAE, vae_loss
from aejax.nets import init_params
from aejax.posteriors import DiagonalGaussian

KEY = jax.random.key(0)
MODEL = VAE.dense(5, 3, hidden_dims=(), likelihood="gaussian")
X = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32) @ np.diag([2, 1, 1, 0.5, 0.2]).astype(np.float32)
PARAMS = init_params(MODEL, KEY, X)


def by_hand(covariance):
    """Off-diagonal and diagonal squares in float64, from the affine encoder's own numbers."""
    layer = jax.tree.map(np.float64, PARAMS["encoder"]["dense_0"])
    mean, logvar = np.split(X @ layer["kernel"] + layer["bias"], 2, axis=1)
    cov = np.cov(mean.T, bias=True)
    if covariance == "codes":  # the law of total covariance
        cov = cov + np.diag(np.exp(logvar).mean(axis=0))
    off = sum(cov[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    return off, sum((cov[i, i] - 1) ** 2 for i in range(3))


@pytest.mark.parametrize("covariance", ["means", "codes"])
def test_the_loss_is_the_bound_and_the_penalties_by_hand(covariance):
    loss, found = dip_vae_loss(PARAMS, Batch(X), KEY, model=MODEL, lambda_od=3.0, lambda_d=5.0, covariance=covariance)
    off, diagonal = by_hand(covariance)
    np.testing.assert_allclose([found["off_diagonal_sq"], found["diagonal_sq"]], [off, diagonal], rtol=1e-5)
    bound, terms = vae_loss(PARAMS, Batch(X), jax.random.clone(KEY), model=MODEL)
    np.testing.assert_allclose(loss, bound + 3 * off + 5 * diagonal, rtol=1e-5)
    assert {name: found[name] for name in terms} == terms


def test_the_covariance_of_codes_is_that_of_drawn_ones():
    posterior = DiagonalGaussian(*np.random.default_rng(1).normal(size=(2, 4, 2)).astype(np.float32))
    draws = np.float64(jax.vmap(posterior.sample)(jax.random.split(KEY, 50_000)).reshape(-1, 2))
    centred = draws - draws.mean(axis=0)
    exact = np.asarray(covariance_of(posterior, covariance="codes"))
    for i, j in ((0, 0), (0, 1), (1, 1)):
        products = centred[:, i] * centred[:, j]
        assert abs(products.mean() - exact[i, j]) < 4 * products.std() / np.sqrt(len(products))
    means_only = np.asarray(covariance_of(posterior, covariance="means"))
    assert means_only[0, 1] == exact[0, 1]
    assert exact[0, 0] - means_only[0, 0] > 0.5


@pytest.mark.first(1)
@pytest.mark.parametrize("covariance", ["means", "codes"])
def test_every_weight_weighs_its_part_and_no_other(covariance):
    with jax.enable_x64(True):
        batch = Batch(jnp.float64(X))
        loss = lambda p, **knobs: dip_vae_loss(p, batch, KEY, model=MODEL, covariance=covariance, **knobs)
        weighed = {
            "lambda_od": lambda terms: terms["off_diagonal_sq"],
            "lambda_d": lambda terms: terms["diagonal_sq"],
        }
        check_weights(loss, wide(PARAMS), {"lambda_od": 3.0, "lambda_d": 5.0}, weighed)
        free, _ = loss(wide(PARAMS), lambda_od=0.0, lambda_d=0.0)
        np.testing.assert_allclose(free, vae_loss(wide(PARAMS), batch, KEY, model=MODEL)[0], rtol=1e-12)


def test_whitened_means_have_no_penalty():
    """An encoder that whitens its data: the inverse root of their covariance in float64."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    kernel = np.concatenate([vectors / np.sqrt(values), np.zeros((3, 3))], axis=1)
    model = VAE.dense(3, 3, hidden_dims=(), likelihood="gaussian")
    params = init_params(model, KEY, jnp.zeros((1, 3)))
    for noise, covariance, scale in ((-80.0, "means", 1.0), (np.log(0.75), "codes", 0.5)):
        # Codes of variance 1 are means of variance 1/4 and noise of 3/4.
        layer = {"kernel": jnp.float32(scale * kernel), "bias": jnp.float32([0.0] * 3 + [noise] * 3)}
        own = params | {"encoder": {"dense_0": layer}}
        _, found = dip_vae_loss(own, Batch(jnp.float32(x)), KEY, model=model, covariance=covariance)
        np.testing.assert_allclose([found["off_diagonal_sq"], found["diagonal_sq"]], 0, atol=1e-9)


def test_over_devices_the_covariance_is_that_of_all_rows():
    loss = lambda rows: dip_vae_loss(PARAMS, Batch(rows), KEY, model=MODEL, axis_name="shards")[1]
    found = jax.vmap(loss, axis_name="shards")(X.reshape(2, 4, 5))
    off, diagonal = by_hand("codes")
    np.testing.assert_allclose(found["off_diagonal_sq"], [off] * 2, rtol=1e-5)
    np.testing.assert_allclose(found["diagonal_sq"], [diagonal] * 2, rtol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="Did you mean 'means'"):
        dip_vae(MODEL, covariance="mean")
    with pytest.raises(InputError, match="lambda_od"):
        dip_vae(MODEL, HParams(lambda_od=-1.0))
