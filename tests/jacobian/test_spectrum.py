"""Jacobians as matrices against their closed form and NumPy, power iteration against its known rate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from aejax.checks import InputError
from aejax.jacobian.spectrum import jacobian, singular_values, spectral_norm, svd


def network(w1, w2, x):
    """An image to an image, so that shapes have to be flattened."""
    return (jnp.tanh(x.reshape(-1) @ w1) @ w2).reshape(-1, 2)


def closed_form(w1, w2, x):
    """`[M, N]` in NumPy: of tanh(x w1) w2, with the slope 1 - tanh^2."""
    return w2.T @ ((1 - np.tanh(x.reshape(-1) @ w1) ** 2)[:, None] * w1.T)


def setup(num_outputs, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 7)), rng.normal(size=(7, num_outputs)), 0.3 * rng.normal(size=(2, 3))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("num_outputs", [4, 8])  # reverse mode, and forward mode
def test_the_matrix_and_its_svd_are_those_of_numpy(num_outputs):
    w1, w2, x = setup(num_outputs)
    expected = closed_form(w1, w2, x)
    both = jax.jit(lambda x: (jacobian(partial(network, w1, w2), x), svd(partial(network, w1, w2), x, k=3)))
    matrix, (u, s, vh) = jax.tree.map(np.asarray, both(x))
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=1e-14)
    slow_u, slow_s, slow_vh = np.linalg.svd(expected, full_matrices=False)
    np.testing.assert_allclose(s, slow_s[:3], rtol=1e-12)
    np.testing.assert_allclose((u * s) @ vh, (slow_u[:, :3] * slow_s[:3]) @ slow_vh[:3], atol=1e-12)
    np.testing.assert_allclose(np.abs(vh @ slow_vh.T), np.eye(3, len(slow_s)), atol=1e-12)


def test_gradients_of_singular_values_are_finite_differences():
    w1, w2, x = setup(4)
    towards = np.random.default_rng(1).normal(size=(3, *w1.shape))
    slopes = jax.jit(jax.jacrev(lambda w1: singular_values(partial(network, w1, w2), x)))(w1)
    for d in towards:
        values = lambda t, d=d: np.linalg.svd(closed_form(w1 + t * d, w2, x), compute_uv=False)
        expected = (8 * (values(1e-3) - values(-1e-3)) - (values(2e-3) - values(-2e-3))) / 12e-3
        np.testing.assert_allclose(np.tensordot(slopes, d, 2), expected, rtol=1e-7)


def test_equal_singular_values_have_gradients():
    # s(a I) = (a, a, a), and the sum of the values is the nuclear norm, whose gradient at a I is I.
    slope = jax.grad(lambda m: singular_values(lambda x: m @ x, jnp.zeros(3)).sum())(2 * jnp.eye(3))
    np.testing.assert_allclose(slope, np.eye(3), atol=1e-14)


def test_power_iteration_turns_at_its_known_rate():
    # diag(4, 2) takes (1, 1) after three iterations to (16^3, 4^3): the tangent is 1/64.
    sigma, v = spectral_norm(lambda x: x * jnp.array([4.0, 2.0]), jnp.zeros(2), jnp.ones(2), num_iters=3)
    np.testing.assert_allclose(v, np.array([64, 1]) / np.sqrt(64**2 + 1), rtol=1e-14)
    np.testing.assert_allclose(sigma, np.sqrt((16 * 64**2 + 4) / (64**2 + 1)), rtol=1e-14)


@pytest.mark.parametrize("num_outputs", [4, 8])
def test_the_spectral_norm_and_its_gradients(num_outputs):
    w1, w2, x = setup(num_outputs)
    norm = lambda w1, x: spectral_norm(partial(network, w1, w2), x, jnp.ones_like(x), num_iters=300)
    (sigma, v), (slope_w, slope_x) = jax.jit(
        lambda w1, x: (norm(w1, x), jax.grad(lambda *a: norm(*a)[0], argnums=(0, 1))(w1, x))
    )(w1, x)
    _, s, vh = np.linalg.svd(closed_form(w1, w2, x))
    np.testing.assert_allclose(sigma, s[0], rtol=1e-12)
    np.testing.assert_allclose(abs(np.vdot(v, vh[0])), 1, rtol=1e-12)
    slow = lambda w1, x: np.linalg.norm(closed_form(w1, w2, x), ord=2)
    rng = np.random.default_rng(1)
    for _ in range(3):
        dw, dx = rng.normal(size=w1.shape), rng.normal(size=x.shape)
        at = lambda t, dw=dw, dx=dx: slow(w1 + t * dw, x + t * dx)
        expected = (8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3
        np.testing.assert_allclose(np.vdot(slope_w, dw) + np.vdot(slope_x, dx), expected, rtol=1e-7)


def test_a_warm_start_needs_fewer_iterations():
    w1, w2, x = setup(8)
    moved = w1 + 1e-3 * np.random.default_rng(3).normal(size=w1.shape)
    step = jax.jit(lambda w1, v: spectral_norm(partial(network, w1, w2), x, v, num_iters=1))

    def iterations(w1, v):
        truth, count, sigma = np.linalg.norm(closed_form(w1, w2, x), ord=2), 0, 0.0
        while sigma < truth * (1 - 1e-6):
            (sigma, v), count = step(w1, v), count + 1
        return count, v

    cold, v = iterations(w1, np.random.default_rng(5).normal(size=x.shape))
    warm, _ = iterations(moved, v)
    assert cold >= 3 * warm


@pytest.mark.slow
def test_the_gradient_records_no_iterations():
    w1, w2, x = (jnp.asarray(a) for a in setup(8))
    memory = []
    for num_iters in (2, 200):
        sigma = lambda w1, n=num_iters: spectral_norm(partial(network, w1, w2), x, x, num_iters=n)[0]
        memory.append(jax.jit(jax.grad(sigma)).lower(w1).compile().memory_analysis().temp_size_in_bytes)
        assert np.isfinite(jax.grad(sigma)(w1)).all()  # without jit, too
    assert memory[0] == memory[1]


def test_a_constant_has_norm_zero_and_a_gradient():
    norm = lambda scale: spectral_norm(lambda x: scale * x, jnp.ones(3), jnp.ones(3), num_iters=2)[0]
    assert tuple(map(float, jax.value_and_grad(norm)(0.0))) == (0.0, 0.0)


def test_batches_are_the_business_of_vmap():
    w1, w2, _ = setup(4)
    x = 0.5 * np.random.default_rng(4).normal(size=(3, 2, 3))
    f = partial(network, w1, w2)
    norm = lambda x: spectral_norm(f, x, jnp.ones_like(x), num_iters=200)[0]
    values, sigmas = jax.jit(jax.vmap(lambda x: (singular_values(f, x), norm(x))))(x)
    slow = [np.linalg.svd(closed_form(w1, w2, row), compute_uv=False) for row in x]
    np.testing.assert_allclose(values, slow, rtol=1e-12)
    np.testing.assert_allclose(sigmas, np.array(slow)[:, 0], rtol=1e-9)


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_may_share_the_start_of_the_iteration(check_vma):
    w1, w2, _ = (jnp.asarray(a) for a in setup(4))
    x = jnp.asarray(0.5 * np.random.default_rng(4).normal(size=(4, 2, 3)))
    v = jnp.ones((2, 3))

    def mean_norm(w1, x):
        return jax.vmap(lambda x: spectral_norm(partial(network, w1, w2), x, v, num_iters=3)[0])(x).mean()

    def on_each(w1, x):
        w1 = jax.lax.pcast(w1, "batch", to="varying")
        return jax.lax.pmean(jax.grad(mean_norm)(w1, x), "batch")

    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P("batch")), "out_specs": P(), "check_vma": check_vma}
    found = jax.jit(jax.shard_map(on_each, mesh=mesh, **specs))(w1, x)
    np.testing.assert_allclose(found, jax.jit(jax.grad(mean_norm))(w1, x), rtol=1e-10)


def test_what_makes_no_sense_is_refused():
    for k in (0, 4):
        with pytest.raises(InputError, match=f"k is {k}; this Jacobian has 3 singular values"):
            svd(jnp.sin, jnp.ones(3), k=k)
    with pytest.raises(InputError, match=r"v has the shape \[2\] and x \[3\]"):
        spectral_norm(jnp.sin, jnp.ones(3), jnp.ones(2))
    with pytest.raises(InputError, match="num_iters is -1"):
        spectral_norm(jnp.sin, jnp.ones(3), jnp.ones(3), num_iters=-1)
