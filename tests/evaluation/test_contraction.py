"""Contraction of encoders whose Jacobian is known: linear ones, and one sigmoid."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from conditioned import linear_model
from scipy.special import ellipe
from scipy.stats import ortho_group

from aejax.checks import InputError
from aejax.evaluation import contraction_curve, effective_rank, pair_contraction, spectra
from aejax.methods.ae import AE

KEY = jax.random.key(0)


def encoder(kernel, **fields):
    """A one-layer autoencoder whose encoder has this kernel `[D, Z]` and no bias."""
    model = AE.dense(*kernel.shape, hidden_dims=(), use_bias=False, **fields)
    return model, {"encoder": {"dense_0": {"kernel": np.asarray(kernel, np.float32)}}}


def test_the_spectrum_of_a_linear_encoder_is_that_of_its_kernel():
    u, v = ortho_group.rvs(7, random_state=0), ortho_group.rvs(4, random_state=1)
    kernel = u[:, :4] * [3.0, 2.0, 1.0, 0.5] @ v
    found = spectra(*encoder(kernel), np.random.default_rng(0).random((5, 7)), batch_size=2)
    np.testing.assert_allclose(found, np.tile([3.0, 2.0, 1.0, 0.5], (5, 1)), rtol=2e-6)


def test_the_spectrum_of_a_sigmoid_layer_by_hand():
    """At zero every slope is 1/4, and a diagonal kernel keeps the directions apart; at x the slopes are s (1 - s)."""
    x = np.array([[0.0, 0.0], [1.0, 1.0]])
    found = spectra(*encoder(np.diag([4.0, 1.0]), code_activation=nn.sigmoid), x)
    slope = lambda u: np.exp(-u) / (1 + np.exp(-u)) ** 2
    np.testing.assert_allclose(found, [[1.0, 0.25], [slope(1.0), 4 * slope(4.0)]], rtol=2e-5)


def test_of_a_conditioned_encoder_the_label_of_each_example_counts():
    """z = W x + shift of the class: the shift drops out of spectra and curves, and counts between classes."""
    model, params, batch, _, (to_mean, b, _) = linear_model()
    singular = np.linalg.svd(to_mean, compute_uv=False)
    np.testing.assert_allclose(spectra(model, params, batch), np.tile(singular, (40, 1)), rtol=1e-5)
    ratios = contraction_curve(model, params, batch, [0.5, 2.0], KEY, num_directions=3)
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-4)
    assert singular[-1] * 0.1 < ratios[0] < singular[0]
    x = np.float64(batch.x)
    z = (x - b[batch.y]) @ to_mean
    pairs = [np.linalg.norm(z[i] - z[j]) / np.linalg.norm(x[i] - x[j]) for i in range(40) for j in range(i)]
    assert pair_contraction(model, params, batch)[0] == pytest.approx(np.mean(pairs), rel=1e-5)


def test_effective_rank_counts():
    assert effective_rank([5.0, 0.0, 0.0]) == 1
    np.testing.assert_allclose(effective_rank([[2.0, 2.0, 2.0], [1.0, 2.0**0.5, 3.0**0.5]]), [3.0, 36 / 14])
    assert np.isnan(effective_rank([0.0, 0.0]))


def test_a_similarity_contracts_alike_everywhere():
    kernel = 0.3 * ortho_group.rvs(6, random_state=0)
    x = np.random.default_rng(0).random((9, 6))
    model, params = encoder(kernel)
    np.testing.assert_allclose(contraction_curve(model, params, x, [0.1, 1.0, 50.0], KEY), 0.3, rtol=1e-5)
    ratio, distance = pair_contraction(model, params, x)
    assert ratio == pytest.approx(0.3, rel=1e-5)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i]]
    assert distance == pytest.approx(np.mean(pairs), rel=1e-6)


def test_pairs_of_the_same_inputs_say_nothing():
    model, params = encoder(np.diag([2.0, 1.0]))
    x = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    assert pair_contraction(model, params, x) == (2.0, 3.0)


def test_directions_are_uniform():
    """The mean of |diag(a, b) u| over the circle is an elliptic integral, 2 a E(1 - b^2 / a^2) / pi."""
    model, params = encoder(np.diag([3.0, 1.0]))
    num = 40_000
    (found,) = contraction_curve(model, params, np.zeros((1, 2)), [1.0], KEY, num_directions=num)
    mean = 6 / np.pi * ellipe(1 - 1 / 9)
    deviation = np.sqrt((9 + 1) / 2 - mean**2)  # the mean square is (a^2 + b^2) / 2
    assert abs(found - mean) < 4.4 * deviation / num**0.5  # wrong for one seed in 10^5


def test_a_sigmoid_contracts_more_the_further_one_goes():
    """One input: the two directions are equally far from zero in the code, tanh(w r / 2) / 2."""
    model, params = encoder(np.array([[3.0]]), code_activation=nn.sigmoid)
    radii = np.array([0.01, 1.0, 10.0])
    found = contraction_curve(model, params, np.zeros((3, 1)), radii, KEY)
    np.testing.assert_allclose(found, np.tanh(1.5 * radii) / 2 / radii, rtol=1e-4)


class Flat(nn.Module):
    """A matrix on images."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(16, use_bias=False, name="dense_0")(x.reshape(len(x), -1))


def test_images_are_measured_as_vectors():
    params = {"encoder": {"dense_0": {"kernel": np.float32(0.3 * ortho_group.rvs(16, random_state=0))}}}
    model = AE(encoder=Flat(), decoder=Flat(), latent_dim=16)
    x = np.random.default_rng(0).random((6, 4, 4, 1), np.float32)
    np.testing.assert_allclose(contraction_curve(model, params, x, [0.1, 1.0], KEY), 0.3, rtol=1e-5)
    np.testing.assert_allclose(spectra(model, params, x), np.full((6, 16), 0.3), rtol=1e-5)
    assert pair_contraction(model, params, x)[0] == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize(("radii", "num", "message"), [([1.0, 0.0], 1, r"radii\[1\] is 0"), ([1.0], 0, "at least one")])
def test_refuses_what_has_no_ratio(radii, num, message):
    model, params = encoder(np.eye(2))
    with pytest.raises(InputError, match=message):
        contraction_curve(model, params, np.zeros((1, 2)), radii, KEY, num_directions=num)
