"""Batched application against the model applied to everything at once."""

import jax
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.evaluation import embed, reconstruct, reconstruction_sse
from aejax.methods.ae import AE
from aejax.nets import init_params


@pytest.fixture(scope="module")
def trained(digits):
    model = AE.dense(64, 3, hidden_dims=(5,))
    return model, init_params(model, jax.random.key(0), digits), digits[:50]


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_batches_and_padding_do_not_change_the_result(trained, batch_size):
    model, params, x = trained
    whole = model.apply({"params": params}, x, method="embed")
    np.testing.assert_allclose(embed(model, params, x, batch_size=batch_size), whole, rtol=1e-5, atol=1e-6)
    whole = np.asarray(model.apply({"params": params}, x, method="reconstruct"))
    np.testing.assert_allclose(reconstruct(model, params, x, batch_size=batch_size), whole, rtol=1e-5)
    by_hand = np.mean([np.sum((a.astype(np.float64) - b) ** 2) for a, b in zip(whole, x, strict=True)])
    np.testing.assert_allclose(reconstruction_sse(model, params, x, batch_size=batch_size), by_hand, rtol=1e-5)


def test_pca_as_an_autoencoder_has_the_error_of_scikit_learn(digits):
    from sklearn.decomposition import PCA

    pca = PCA(10, svd_solver="full").fit(digits)
    model = AE.dense(64, 10, hidden_dims=(), likelihood="gaussian")
    params = {
        "encoder": {"dense_0": {"kernel": pca.components_.T, "bias": -pca.mean_ @ pca.components_.T}},
        "decoder": {"dense_0": {"kernel": pca.components_, "bias": pca.mean_}},
    }
    truth = np.mean(np.sum((digits - pca.inverse_transform(pca.transform(digits))) ** 2, axis=1))
    np.testing.assert_allclose(reconstruction_sse(model, params, digits), truth, rtol=1e-5)
    np.testing.assert_allclose(embed(model, params, digits), pca.transform(digits), atol=1e-4)


def test_refuses_no_examples(trained):
    model, params, x = trained
    with pytest.raises(InputError, match="no examples"):
        embed(model, params, x[:0])
