"""Batched application against the model applied to everything at once; with labels, against a linear model by hand."""

from functools import partial

import jax
import numpy as np
import pytest
from conditioned import ConditionedVAE, WithClass, linear_model

from aejax import evaluation
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call, embed, over_batches, reconstruct, reconstruction_sse
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.nets import check_labels, init_params


@pytest.fixture(scope="module")
def trained(digits):
    model = AE.dense(64, 3, hidden_dims=(5,))
    return model, init_params(model, jax.random.key(0), digits), digits[:50]


@pytest.mark.slow
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
    with pytest.raises(InputError, match="as many rows"):
        over_batches(partial(call, model, params, "embed"), x, x[:3])


def test_a_batch_stands_for_x_and_its_labels_are_used_only_where_the_model_takes_them(trained):
    model, params, x = trained
    np.testing.assert_array_equal(embed(model, params, Batch(x, np.full(len(x), 99))), embed(model, params, x))


def test_a_conditioned_model_sees_the_label_of_each_example():
    model, params, batch, _, (to_mean, b, w) = linear_model()
    x, y = np.float64(batch.x), batch.y
    z = (x - b[y]) @ to_mean
    x_hat = z @ w.T + b[y]
    np.testing.assert_allclose(embed(model, params, batch, batch_size=7), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reconstruct(model, params, batch, batch_size=7), x_hat, rtol=1e-4, atol=1e-5)
    sse = np.square(x - x_hat).sum(1).mean()
    np.testing.assert_allclose(reconstruction_sse(model, params, batch, batch_size=7), sse, rtol=1e-5)
    draws = model.apply({"params": params}, jax.random.key(0), 3, np.array([0, 1, 2]), method="sample")
    z = model.apply({"params": params}, jax.random.key(0), 3, method="sample_prior")
    np.testing.assert_allclose(draws, z @ w.T + b, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="sample\\(key, 3, y\\)"):
        model.apply({"params": params}, jax.random.key(0), 3, method="sample")


def test_labels_that_are_missing_or_unknown_are_refused_and_the_advice_ends_well():
    model, params, batch, _, _ = linear_model()
    names = np.array(["a", "b", "c"])[batch.y]
    one_hot = np.eye(3, dtype=int)[batch.y]
    for y, message in (
        (None, "none came: give Batch\\(x, y\\)"),
        (batch.y[:-1], "as many rows"),
        (batch.y - 1, "from -1 to 1; .* labels from 0 to 2: drop the rows below 0"),
        (batch.y + 7, "from 7 to 9; .*: build it with num_classes=10"),
        (batch.y + 0.5, "dtype float64; .* np.unique\\(y, return_inverse=True\\)\\[1\\] numbers"),
        (names, "dtype <U1"),
        (one_hot, r"shape \(40, 3\); .*: y.argmax\(axis=1\)"),
        (batch.y[:, None], r"shape \(40, 1\); .*: y.ravel\(\)"),
        (np.zeros((40, 2), int), r"one integer for each example, \[B\]\.$"),
    ):
        for function in (embed, reconstruct, reconstruction_sse):
            with pytest.raises(InputError, match=message):
                function(model, params, batch._replace(y=y))
    expected = embed(model, params, batch)
    for y in (np.unique(names, return_inverse=True)[1], one_hot.argmax(axis=1), batch.y[:, None].ravel()):
        np.testing.assert_array_equal(embed(model, params, batch._replace(y=y)), expected)
    check_labels(ConditionedVAE(WithClass(4), WithClass(6), 2, num_classes=10), batch.y + 7)
    check_labels(AE.dense(6, 2), batch.y - 1)  # not conditioned on classes
    jax.jit(lambda y: check_labels(model, y))(batch.y + 7)  # traced: no value yet


GREY = np.random.default_rng(0).integers(0, 256, (6, 8)).astype(np.uint8)
BAD = {
    "bytes": (GREY, "dtype uint8|from 0 to 2"),
    "integers": (GREY.astype(np.int64) % 2, "dtype int64; floats are needed"),
    "bool": (GREY > 9, "dtype bool; floats are needed"),
    "NaN": (np.where(GREY[2, 3] == GREY, np.nan, 0.5), "NaN or infinity"),
    "a vector": (GREY[0] / 255, r"shape \(8,\)"),
}
ASKED = {
    "embed": lambda model, params, x: evaluation.embed(model, params, x),
    "reconstruct": lambda model, params, x: evaluation.reconstruct(model, params, x),
    "sse": lambda model, params, x: evaluation.reconstruction_sse(model, params, x),
    "nll": lambda model, params, x: evaluation.nll(model, params, x, jax.random.key(0), num_samples=2),
    "spectra": lambda model, params, x: evaluation.spectra(model, params, x),
}


@pytest.mark.first(5)
@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("asked", ASKED)
def test_what_cannot_be_trained_on_is_not_measured_either(asked, what):
    """A network takes bytes for numbers up to 255, and returns some code for them."""
    x, says = BAD[what]
    model = VAE.dense(8, 2, hidden_dims=(4,))
    params = init_params(model, jax.random.key(0), np.zeros((1, 8), np.float32))
    with pytest.raises(InputError, match=says):
        ASKED[asked](model, params, x)


def test_noise_beyond_the_range_may_be_encoded_but_is_no_data_to_measure():
    model, noisy = VAE.dense(8, 2, hidden_dims=(4,)), np.full((3, 8), 1.5, np.float32)
    params = init_params(model, jax.random.key(0), noisy * 0)
    assert evaluation.reconstruct(model, params, noisy).shape == (3, 8)
    with pytest.raises(InputError, match=r"from 1.5 to 1.5; the bernoulli likelihood needs \[0, 1\]"):
        evaluation.reconstruction_sse(model, params, noisy)
