"""MS-SSIM and the VAE by it: the indices in float64 with scipy's filter, closed forms, gradients, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.ndimage import gaussian_filter

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.gan import GAN
from aejax.methods.ms_ssim_vae import (
    EXPONENTS,
    MSSSIMVAE,
    HParams,
    ms_ssim,
    ms_ssim_vae,
    ms_ssim_vae_loss,
    num_scales,
    ssim,
)
from aejax.nets import init_params

KEY = jax.random.key(0)
C1, C2 = 1e-4, 9e-4


def images(seed, shape, smooth=1.0):
    """Two different images of each of the channels, of some structure, in [0, 1]."""
    rng = np.random.default_rng(seed)
    x = np.stack([gaussian_filter(rng.random(shape[:2]), smooth) for _ in range(shape[2])], axis=-1)
    x = (x - x.min()) / (x.max() - x.min())
    return x, np.clip(0.7 * x + 0.2 * rng.random(shape), 0, 1)


def by_scipy(x, y, window):
    """SSIM and contrast with structure, `[H, W]` in float64, by scipy's Gaussian filter, its borders cut."""
    reach = (window - 1) // 2
    local = lambda v: gaussian_filter(v, 1.5, truncate=reach / 1.5)[
        reach : v.shape[0] - reach, reach : v.shape[1] - reach
    ]
    a, b = local(x), local(y)
    contrast = (2 * (local(x * y) - a * b) + C2) / (local(x * x) - a * a + local(y * y) - b * b + C2)
    return ((2 * a * b + C1) / (a * a + b * b + C1) * contrast).mean(), contrast.mean()


@pytest.mark.parametrize(("shape", "window"), [((28, 28, 1), 11), ((13, 17, 3), 11), ((8, 8, 1), 3), ((9, 7, 2), 5)])
def test_ssim_is_that_of_a_float64_reference(shape, window):
    x, y = images(0, shape)
    expected = np.mean([by_scipy(x[..., c], y[..., c], window)[0] for c in range(shape[2])])
    found = ssim(jnp.float32(x[None]), jnp.float32(y[None]), window)
    assert 0.1 < expected < 0.95
    np.testing.assert_allclose(found, [expected], rtol=2e-5)


@pytest.mark.parametrize(
    ("shape", "window", "scales"), [((176, 180, 1), 11, 5), ((28, 29, 2), 11, 2), ((9, 8, 1), 3, 2)]
)
def test_ms_ssim_is_that_of_a_float64_reference(shape, window, scales):
    """A product over channels' own scales; pictures of every other scale are means of 2 x 2 pixels."""
    x, y = images(1, shape, smooth=3.0)
    assert num_scales(shape, window) == scales
    each = []
    for c in range(shape[2]):
        a, b, product = x[..., c], y[..., c], 1.0
        for i in range(scales):
            whole, contrast = by_scipy(a, b, window)
            product *= (whole if i == scales - 1 else contrast) ** (EXPONENTS[i] / sum(EXPONENTS[:scales]))
            a, b = (
                sum(v[i : v.shape[0] // 2 * 2 : 2, j : v.shape[1] // 2 * 2 : 2] for i in (0, 1) for j in (0, 1)) / 4
                for v in (a, b)
            )
        each.append(product)
    assert 0.1 < np.mean(each) < 0.98
    np.testing.assert_allclose(ms_ssim(jnp.float32(x[None]), jnp.float32(y[None]), window), [np.mean(each)], rtol=2e-5)


def test_the_exponents_are_the_published_ones():
    assert EXPONENTS == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    assert sum(EXPONENTS) == pytest.approx(1, abs=2e-4)


def test_equal_images_are_alike_and_nothing_else_is_more():
    x, y = (jnp.float32(v[None]) for v in images(2, (28, 28, 1)))
    np.testing.assert_allclose([ssim(x, x)[0], ms_ssim(x, x)[0]], 1, atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(jax.grad(lambda y: ms_ssim(x, y)[0]))(x), 0, atol=1e-4
    )  # the largest value there is
    np.testing.assert_allclose([ssim(x, y), ms_ssim(x, y)], [ssim(y, x), ms_ssim(y, x)], rtol=1e-6)
    noise = jax.random.normal(KEY, x.shape)
    noisy = jnp.concatenate([jnp.clip(x + s * noise, 0, 1) for s in (0.0, 0.05, 0.2, 0.8)])
    far = ms_ssim(jnp.tile(x, (4, 1, 1, 1)), noisy)
    assert (jnp.diff(far) < 0).all()


def test_images_without_structure_differ_by_their_light_at_the_coarsest_scale():
    """In closed form: of two greys a and b contrast is 1, light (2 a b + c) / (a^2 + b^2 + c)."""
    light = (2 * 0.8 * 0.3 + C1) / (0.8**2 + 0.3**2 + C1)
    a, b = (jnp.full((2, 28, 28, 1), grey) for grey in (0.8, 0.3))
    np.testing.assert_allclose(ssim(a, b), light, rtol=1e-4)
    np.testing.assert_allclose(ms_ssim(a, b), light ** (0.2856 / (0.0448 + 0.2856)), rtol=1e-4)


def test_the_gradient_by_differences_and_where_images_are_opposites():
    with jax.enable_x64(True):
        x, y = (jnp.asarray(v[None]) for v in images(3, (12, 8, 2)))
        check_grads(jax.jit(lambda y: ms_ssim(x, y, 3)), (y,), order=1, modes=["rev"], rtol=1e-5)
        assert ms_ssim(x, y, 3).dtype == float
    board = jnp.float32(np.indices((8, 8)).sum(axis=0) % 2)[None, :, :, None]
    value, slope = jax.jit(jax.value_and_grad(lambda y: ms_ssim(board, y, 3)[0]))(1 - board)
    assert float(value) == pytest.approx(1e-4 ** (0.0448 / (0.0448 + 0.2856)), rel=1e-4)  # all grey at half the size
    assert not slope.any()  # at both scales below what counts


def test_the_loss_is_its_terms_and_the_same_for_images_and_vectors():
    x = jnp.float32(np.stack([images(seed, (8, 8, 1))[0] for seed in range(4)]))
    model = MSSSIMVAE.dense(64, 2, hidden_dims=(5,))
    params = init_params(model, KEY, x.reshape(4, 64))
    bound = model.bind({"params": params})
    loss, terms = ms_ssim_vae_loss(params, Batch(x.reshape(4, 64)), KEY, model=model, beta=0.3, similarity=7.0)
    posterior = bound.encode(x.reshape(4, 64))
    x_hat = bound.generate(posterior.sample(jax.random.clone(KEY)))
    mean, logvar = (np.float64(v) for v in (posterior.mean, posterior.logvar))
    kl = 0.5 * (mean**2 + np.exp(logvar) - logvar - 1).sum(axis=1).mean()
    gap = 1 - float(ms_ssim(x, x_hat.reshape(4, 8, 8, 1), 3).mean())
    assert float(terms["kl_nats"]) == pytest.approx(kl, rel=1e-5)
    assert float(terms["ms_ssim_gap"]) == pytest.approx(gap, rel=1e-5)
    assert float(terms["sse"]) == pytest.approx(
        float(jnp.square(x_hat - x.reshape(4, 64)).sum(axis=1).mean()), rel=1e-5
    )
    assert float(loss) == pytest.approx(0.3 * kl + 7 * gap, rel=1e-5)


@pytest.mark.slow
def test_a_weight_of_similarity_teaches_structure():
    """A picture that is learnt by heart: the gap falls, as no other term of the loss is there."""
    x = jnp.float32(images(4, (8, 8, 1))[0]).reshape(1, 64)
    model = MSSSIMVAE.dense(64, 2, hidden_dims=(16,))
    algo = ms_ssim_vae(model, HParams(lr=1e-2, beta=0.0))
    batch = Batch(jnp.tile(x, (8, 1)))
    state = algo.init(init_params(model, KEY, x))
    step = lambda state, _: algo.step(state, batch, KEY)
    _, terms = jax.jit(lambda state: jax.lax.scan(step, state, length=150))(state)
    assert terms["elbo/ms_ssim_gap"][0] > 0.3
    assert terms["elbo/ms_ssim_gap"][-1] < 0.02


def test_shapes_and_windows_by_size():
    assert MSSSIMVAE.dense(784, 2).image_shape == (28, 28, 1)
    assert [MSSSIMVAE.dense(n * n, 2).window for n in (3, 4, 8, 12, 21, 22, 28, 64)] == [3, 3, 3, 5, 9, 11, 11, 11]
    assert MSSSIMVAE.conv((9, 8, 3), 2, features=(3,), strides=(2,)).image_shape == (9, 8, 3)
    wide = MSSSIMVAE.dense(8 * 9 * 2, 2, image_shape=(8, 9, 2), window=7)
    assert (wide.image_shape, wide.window, num_scales((8, 9, 2), 7)) == ((8, 9, 2), 7, 1)


def test_what_does_not_fit_is_refused():
    for own, said in (
        ({"data_dim": 60}, "no grey square"),
        ({"data_dim": 60, "image_shape": (8, 8, 1)}, "64 numbers, and x 60"),
        ({"data_dim": 64, "window": 11}, "A window of 11 pixels"),
        ({"data_dim": 64, "window": 1}, "at least 2"),
        ({"data_dim": 4}, "A window of 3 pixels"),
    ):
        with pytest.raises(InputError, match=said):
            MSSSIMVAE.dense(**own, latent_dim=2)
    with pytest.raises(InputError, match="A window of 11 pixels"):
        ssim(jnp.ones((1, 10, 12, 1)), jnp.ones((1, 10, 12, 1)))
    with pytest.raises(InputError, match="MSSSIMVAE is needed"):
        ms_ssim_vae(GAN.dense(64, 2))
    with pytest.raises(InputError, match=r"Images in \[0, 1\]"):
        ms_ssim_vae(MSSSIMVAE.dense(64, 2, likelihood="gaussian"))
    with pytest.raises(InputError, match="use bernoulli"):
        ms_ssim_vae(MSSSIMVAE.dense(64, 2, likelihood="gaussian_learned"))
    with pytest.raises(InputError, match="uniform prior"):
        ms_ssim_vae(MSSSIMVAE.dense(64, 2, prior="uniform"))
    with pytest.raises(InputError, match="similarity"):
        ms_ssim_vae(MSSSIMVAE.dense(64, 2), similarity=-1.0, tx=optax.sgd)
    bare = MSSSIMVAE.dense(64, 2).clone(window=None)
    with pytest.raises(InputError, match="give image_shape"):
        bare.similarity(jnp.ones((1, 64)), jnp.ones((1, 64)))
