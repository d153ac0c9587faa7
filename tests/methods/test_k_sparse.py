"""The k-sparse autoencoder: the code against NumPy, the linear one as its limit, and supports that are recovered."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE, ae_loss
from aejax.methods.k_sparse import KSparseAE, k_sparse, keep_largest
from aejax.nets import init_params

KEY = jax.random.key(0)


def largest_by_sorting(z, k):
    """NumPy's answer: all but the last k of each sorted row are zero."""
    kept = np.zeros_like(z)
    for row, out in zip(z, kept, strict=True):
        order = np.argsort(row)[-k:]
        out[order] = row[order]
    return kept


@pytest.mark.first(2)
@pytest.mark.parametrize("k", [1, 4, 9])
def test_the_k_largest_are_numpys(k):
    z = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    expected = largest_by_sorting(z, k)
    np.testing.assert_array_equal(keep_largest(jnp.asarray(z), k), expected)
    np.testing.assert_array_equal(jax.vmap(lambda z: keep_largest(z, k))(z.reshape(5, 10, 9)).reshape(50, 9), expected)


def test_largest_is_not_largest_in_size_and_of_equals_the_first_stays():
    z = jnp.array([[-5.0, 1.0, 0.5], [-1.0, -2.0, -3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(keep_largest(z, 1), [[0, 1, 0], [-1, 0, 0], [2, 0, 0]])


def test_the_gradient_goes_through_the_units_that_are_kept():
    z, weights = jnp.array([[3.0, -9.0, 1.0, 2.0]]), jnp.array([[1.0, 2.0, 3.0, 4.0]])
    slope = jax.grad(lambda z: jnp.sum(weights * keep_largest(z, 2)))(z)
    np.testing.assert_array_equal(slope, [[1.0, 0.0, 0.0, 4.0]])


def test_the_loss_and_its_gradient_are_those_of_the_formula_in_float64():
    model = KSparseAE.dense(6, 5, k=2)
    x = jax.random.normal(KEY, (4, 6))
    params = init_params(model, jax.random.key(1), x)
    (_, metrics), grads = jax.value_and_grad(ae_loss, has_aux=True)(params, Batch(x), KEY, model=model)
    w, data = np.float64(params["encoder"]["dense_0"]["kernel"]), np.float64(x)  # biases are zero
    z = largest_by_sorting(data @ w, 2)
    error = z @ w.T - data
    np.testing.assert_allclose(metrics["sse"], np.square(error).sum(axis=1).mean(), rtol=1e-5)
    # d/dW of half the squared error: through the decoder, and through the kept units of the encoder.
    slope = (error.T @ z + data.T @ ((error @ w) * (z != 0))) / 4
    np.testing.assert_allclose(grads["encoder"]["dense_0"]["kernel"], slope, rtol=1e-4, atol=1e-5)


def test_with_all_units_it_is_the_linear_autoencoder():
    sparse = KSparseAE.dense(6, 4, k=4)
    linear = AE.dense(6, 4, hidden_dims=(), tied=True, likelihood="gaussian")
    x = jax.random.normal(KEY, (5, 6))
    params = init_params(sparse, jax.random.key(1), x)
    found = jax.value_and_grad(ae_loss, has_aux=True)(params, Batch(x), KEY, model=sparse)
    expected = jax.value_and_grad(ae_loss, has_aux=True)(params, Batch(x), KEY, model=linear)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_an_orthogonal_dictionary_gives_back_supports_codes_and_data():
    """One step of hard thresholding is exact where the atoms are orthonormal: W'x is the code."""
    rng = np.random.default_rng(3)
    atoms = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    z = np.zeros((20, 8))
    for row in z:
        row[rng.choice(8, size=3, replace=False)] = rng.uniform(0.5, 2.0, size=3)
    model = KSparseAE.dense(8, 8, k=3)
    params = init_params(model, KEY, jnp.zeros((1, 8)))
    params["encoder"]["dense_0"]["kernel"] = jnp.asarray(atoms, jnp.float32)
    x = jnp.asarray(z @ atoms.T, jnp.float32)
    found = np.asarray(model.apply({"params": params}, x, method="encode"))
    np.testing.assert_array_equal(found != 0, z != 0)
    np.testing.assert_allclose(found, z, atol=1e-5)
    np.testing.assert_allclose(model.apply({"params": params}, x, method="reconstruct"), x, atol=1e-5)


def test_an_incoherent_dictionary_gives_the_supports_that_the_theorem_promises():
    """Coefficients within a factor c, coherence mu: supports of k are right if `k mu (1 + c) < 1 + mu`.

    A unit of the support answers at least `low - (k - 1) mu high`, one outside at most `k mu high`.
    """
    rng = np.random.default_rng(4)
    atoms = np.concatenate([np.eye(64), _hadamard(64) / 8], axis=1)  # two bases, coherence 1/8
    k, low, high = 2, 1.0, 1.5
    assert low - (k - 1) * high / 8 > k * high / 8
    z = np.zeros((500, 128))
    for row in z:
        row[rng.choice(128, size=k, replace=False)] = rng.uniform(low, high, size=k)
    model = KSparseAE.dense(64, 128, k=k)
    params = init_params(model, KEY, jnp.zeros((1, 64)))
    params["encoder"]["dense_0"]["kernel"] = jnp.asarray(atoms, jnp.float32)
    found = model.apply({"params": params}, jnp.asarray(z @ atoms.T, jnp.float32), method="encode")
    np.testing.assert_array_equal(np.asarray(found) != 0, z != 0)


def _hadamard(size):
    from scipy.linalg import hadamard

    return hadamard(size).astype(np.float64)


def test_features_keep_more_units_than_the_code_that_is_trained():
    model = KSparseAE.dense(6, 8, k=2, alpha=1.5)
    x = jax.random.normal(KEY, (5, 6))
    params = init_params(model, jax.random.key(1), x)
    bound = model.bind({"params": params})
    z = np.asarray(bound.encoder(x))
    np.testing.assert_array_equal(bound.encode(x), largest_by_sorting(z, 2))
    np.testing.assert_array_equal(bound.embed(x), largest_by_sorting(z, 3))
    np.testing.assert_array_equal(bound.reconstruct(x), bound.decode(bound.encode(x)))
    everything = KSparseAE.dense(6, 8, k=2, alpha=100.0).bind({"params": params})
    np.testing.assert_array_equal(everything.embed(x), z)


def test_what_cannot_be_is_refused():
    for fields in ({"k": 0}, {"k": 5}, {"k": 2, "alpha": 0.5}):
        with pytest.raises(InputError, match="with 4 units"):
            k_sparse(KSparseAE.dense(6, 4, **fields), tx=optax.sgd)
    with pytest.raises(InputError, match=r"k=25 and alpha=1\.0 with 4 units"):
        init_params(KSparseAE.dense(6, 4), KEY, jnp.zeros((1, 6)))
    with pytest.raises(InputError, match="k is 5 for codes of 4 units"):
        keep_largest(jnp.zeros((1, 4)), 5)
