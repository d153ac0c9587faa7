"""Analysis and synthesis against their equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from aejax.nets.transforms import GDN, Analysis, Synthesis


def test_gdn_is_its_equation_and_the_inverse_multiplies():
    rng = np.random.default_rng(0)
    x, beta, gamma = rng.normal(size=(4, 5, 3)), rng.normal(size=3), rng.normal(size=(3, 3))
    params = {"params": {"beta_root": beta, "gamma_root": gamma}}
    root = np.empty_like(x)
    for i in range(3):
        root[..., i] = np.sqrt(beta[i] ** 2 + 1e-6 + sum(gamma[j, i] ** 2 * x[..., j] ** 2 for j in range(3)))
    with jax.enable_x64(True):
        np.testing.assert_allclose(GDN().apply(params, jnp.asarray(x)), x / root, rtol=1e-12)
        np.testing.assert_allclose(GDN(inverse=True).apply(params, jnp.asarray(x)), x * root, rtol=1e-12)


def test_every_gamma_has_a_gradient_at_the_start():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    params = GDN().init(jax.random.key(0), x)
    grads = jax.grad(lambda p: jnp.square(GDN().apply(p, x) - 1).sum())(params)["params"]["gamma_root"]
    assert np.abs(grads).min() > 0


def test_a_code_sees_the_pixels_of_its_place_and_their_neighbours_alone():
    """One layer of kernel 3 and stride 4: a place sees 3 x 3 pixels, and a pixel of the image one place."""
    analysis, synthesis = Analysis(2, (), (4,), (3,)), Synthesis(1, (), (4,), (3,))
    x = jnp.zeros((1, 8, 8, 1))
    params = analysis.init(jax.random.key(0), x)
    seen = np.asarray(jax.grad(lambda x: analysis.apply(params, x)[0, 1, 0, 0])(x)[0, :, :, 0]) != 0
    assert np.nonzero(seen.any(axis=1))[0].tolist() == [4, 5, 6]
    assert np.nonzero(seen.any(axis=0))[0].tolist() == [0, 1, 2]
    z = analysis.apply(params, x)
    back = synthesis.init(jax.random.key(1), z)
    np.testing.assert_allclose(synthesis.apply(back, 0 * z), np.full((1, 8, 8, 1), 0.5))


def test_a_synthesis_goes_back_through_strides_and_kernels():
    """Kernels of 5 and strides of 4 come first on the way in, and last on the way out."""
    model = Synthesis(1, features=(3,), strides=(4, 2), kernels=(5, 3))
    params = model.init(jax.random.key(0), jnp.zeros((1, 2, 3, 2)))["params"]
    edges = [params[f"conv_{i}"]["kernel"].shape[:2] for i in (0, 1)]
    assert edges == [(3, 3), (5, 5)]
    z = jnp.zeros((1, 4, 4, 2))
    moved = model.apply({"params": params}, z.at[0, 2, 2].set(5.0)) - model.apply({"params": params}, z)
    rows = np.flatnonzero(np.abs(np.asarray(moved)).max(axis=(0, 2, 3)) > 1e-6)
    # A code reaches 3 places of the middle layer, 4 pixels apart, and each of these 5 pixels.
    assert rows[-1] - rows[0] + 1 == 2 * 4 + 5
