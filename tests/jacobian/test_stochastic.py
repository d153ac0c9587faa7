"""Estimates against the exact Jacobian, written out: means, gradients, variances, standard errors.

Keys are fixed, so nothing here fails by chance; a change of the draws would fail a z-test at 4.5 (all entries of a
gradient together count as 77 tests) with a chance below 1e-3 a run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.jacobian.exact import frobenius_sq
from aejax.jacobian.stochastic import PROBES, hutchinson_sq, hutchpp_sq

NUM_INPUTS, NUM_HIDDEN, NUM_OUTPUTS = 6, 7, 5
NUM_DRAWS = 10_000


def encode(params, x):
    return jnp.tanh(x @ params["w1"]) @ params["w2"]


def exact(params, x):
    """`[M, N]`: of tanh(x w1) w2, with the slope 1 - tanh^2."""
    return params["w2"].T @ ((1 - jnp.tanh(x @ params["w1"]) ** 2)[:, None] * params["w1"].T)


def exact_sq(params, x):
    return jnp.sum(exact(params, x) ** 2)


@pytest.fixture
def setup():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        yield (
            {
                "w1": jnp.asarray(rng.normal(size=(NUM_INPUTS, NUM_HIDDEN))),
                "w2": jnp.asarray(rng.normal(size=(NUM_HIDDEN, NUM_OUTPUTS))),
            },
            jnp.asarray(0.3 * rng.normal(size=NUM_INPUTS)),
        )


def draw(estimate, params, x, *, grad=True):
    """Estimates under many keys, and their gradients by params, flat."""
    loss = lambda params, key: (lambda e: (e.value, e))(estimate(functools.partial(encode, params), x, key))
    one = jax.grad(loss, has_aux=True) if grad else lambda params, key: (params, loss(params, key)[1])
    grads, estimates = jax.jit(jax.vmap(one, (None, 0)))(params, jax.random.split(jax.random.key(1), NUM_DRAWS))
    return estimates, np.concatenate([g.reshape(NUM_DRAWS, -1) for g in jax.tree.leaves(grads)], axis=1) if grad else ()


def assert_mean(samples, expected, z=4.5):
    """Samples `[num, ...]` have the mean `expected`, within z of their own standard errors."""
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - expected), z * error + 1e-12)


def variance_of_one(probe, a):
    c, total = len(a), np.trace(a @ a)
    if probe == "gaussian":
        return 2 * total
    if probe == "rademacher":
        return 2 * (total - np.square(np.diag(a)).sum())
    return 2 * c / (c + 2) * total - 2 / (c + 2) * np.trace(a) ** 2  # Hoffman et al. (2019)


def gram(params, x, mode):
    j = np.asarray(exact(params, x))
    return j @ j.T if mode == "reverse" else j.T @ j


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("probe", PROBES)
def test_one_probe_is_unbiased_in_value_and_gradient_and_has_the_variance_of_the_formula(setup, probe, mode):
    params, x = setup
    estimates, grads = draw(functools.partial(hutchinson_sq, probe=probe, mode=mode), params, x)
    truth, slopes = jax.value_and_grad(exact_sq)(params, x)
    assert_mean(estimates.value, truth)
    assert_mean(grads, np.concatenate([g.reshape(-1) for g in jax.tree.leaves(slopes)]))
    assert_mean(np.square(estimates.value - truth), variance_of_one(probe, gram(params, x, mode)))
    assert np.isnan(estimates.standard_error).all()


@pytest.mark.parametrize(("probe", "mode"), [*((probe, "reverse") for probe in PROBES), ("orthogonal", "forward")])
def test_the_squared_standard_error_is_unbiased_for_the_variance(setup, probe, mode):
    params, x = setup
    estimates, _ = draw(functools.partial(hutchinson_sq, probe=probe, mode=mode, num_probes=3), params, x, grad=False)
    a = gram(params, x, mode)
    variance = variance_of_one(probe, a) / 3 * ((len(a) - 3) / (len(a) - 1) if probe == "orthogonal" else 1)
    assert_mean(np.square(estimates.value - np.trace(a)), variance)
    assert_mean(np.square(estimates.standard_error), variance)


@pytest.mark.parametrize(("mode", "size"), [("reverse", NUM_OUTPUTS), ("forward", NUM_INPUTS)])
def test_a_whole_orthogonal_frame_is_exact(setup, mode, size):
    params, x = setup
    estimate = functools.partial(hutchinson_sq, probe="orthogonal", mode=mode, num_probes=size)
    value_of = lambda params: (lambda e: (e.value, e))(
        estimate(functools.partial(encode, params), x, jax.random.key(3))
    )
    slopes, (value, standard_error) = jax.jit(jax.grad(value_of, has_aux=True))(params)
    np.testing.assert_allclose(value, exact_sq(params, x), rtol=1e-13)
    assert float(standard_error) == 0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    jax.tree.map(close, slopes, jax.jit(jax.grad(exact_sq))(params, x))


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_hutchpp_is_unbiased_in_value_and_gradient_and_knows_its_variance(setup, mode):
    params, x = setup
    estimates, grads = draw(functools.partial(hutchpp_sq, num_probes=9, mode=mode), params, x)  # 2 sketched, 3 sampled
    truth, slopes = jax.value_and_grad(exact_sq)(params, x)
    assert_mean(estimates.value, truth)
    assert_mean(grads, np.concatenate([g.reshape(-1) for g in jax.tree.leaves(slopes)]))
    assert_mean(np.square(estimates.standard_error) - np.square(estimates.value - truth), 0.0)


def matrix_of_spectrum(s, num_inputs):
    rng = np.random.default_rng(2)
    u, v = (np.linalg.qr(rng.normal(size=(n, len(s))))[0] for n in (len(s), num_inputs))
    return jnp.asarray((u * s) @ v.T)


def test_hutchpp_is_exact_up_to_the_rank_of_its_sketch():
    with jax.enable_x64(True):
        matrix = matrix_of_spectrum(np.array([3.0, 2.0, 1.0, 0, 0, 0, 0, 0]), 9)
        for mode in ("reverse", "forward"):
            run = jax.jit(lambda key, m=mode: hutchpp_sq(matrix.__matmul__, jnp.zeros(9), key, num_probes=14, mode=m))
            estimate = run(jax.random.key(0))
            np.testing.assert_allclose(estimate.value, 9 + 4 + 1, rtol=1e-12)
            np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-12)


def test_hutchpp_beats_hutchinson_on_a_decaying_spectrum_at_the_same_number_of_products():
    with jax.enable_x64(True):
        matrix = matrix_of_spectrum(0.7 ** np.arange(40), 60)
        truth = np.square(0.7 ** np.arange(40)).sum()
        keys, x = jax.random.split(jax.random.key(0), 500), jnp.zeros(60)
        errors = []
        for estimate in (hutchinson_sq, hutchpp_sq):
            run = jax.jit(jax.vmap(lambda key, e=estimate: e(matrix.__matmul__, x, key, num_probes=24).value))
            errors.append(np.square(run(keys) - truth).mean())
        assert errors[1] < errors[0] / 50  # 1 / 200 in an independent NumPy version


def test_both_estimates_do_as_many_products_as_they_are_told():
    matrix, key = jnp.ones((300, 400)), jax.random.key(0)  # large, so that products with it are all that counts
    for estimate in (hutchinson_sq, hutchpp_sq):
        run = jax.jit(lambda key, e=estimate: e(matrix.__matmul__, jnp.zeros(400), key, num_probes=24).value)
        flops = run.lower(key).compile().cost_analysis()["flops"]
        assert 24 <= flops / (2 * matrix.size) < 27


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "estimate",
    [functools.partial(hutchinson_sq, num_probes=4, probe="orthogonal"), functools.partial(hutchpp_sq, num_probes=8)],
)
def test_batches_are_the_business_of_vmap(setup, estimate):
    params, _ = setup
    x, keys = jax.random.normal(jax.random.key(5), (3, 2, 3)), jax.random.split(jax.random.key(6), 3)
    f = lambda image: encode(params, image.reshape(-1)).reshape(5, 1)
    alone = jax.jit(functools.partial(estimate, f))
    batch = jax.jit(jax.vmap(functools.partial(estimate, f)))(x, keys)
    for i in range(3):
        one = alone(x[i], keys[i])
        np.testing.assert_allclose(batch.value[i], one.value, rtol=1e-12)
        np.testing.assert_allclose(batch.standard_error[i], one.standard_error, rtol=1e-9)
        assert abs(one.value - exact_sq(params, x[i].reshape(-1))) < 6 * one.standard_error


@pytest.mark.parametrize("probe", PROBES)
def test_half_precision_is_summed_in_single(probe):
    # A Jacobian of 1/2 on the diagonal: every probe of length sqrt(C) gives C / 4; a sum in bfloat16 would stop short.
    estimate = hutchinson_sq(lambda x: x / 2, jnp.ones(1024, jnp.bfloat16), jax.random.key(0), probe=probe)
    assert estimate.value.dtype == jnp.float32
    np.testing.assert_allclose(estimate.value, 256, rtol=0.2 if probe == "gaussian" else 0.01)


def test_hutchpp_in_half_precision():
    f = lambda x: jnp.full(40, x.sum())  # rank one: exact but for rounding
    estimate = hutchpp_sq(f, jnp.zeros(30, jnp.bfloat16), jax.random.key(0), num_probes=8)
    np.testing.assert_allclose(estimate.value, 1200, rtol=0.03)


def test_what_cannot_be_estimated_is_refused():
    f, x, key = jnp.sin, jnp.ones(3), jax.random.key(0)
    with pytest.raises(InputError, match="Did you mean 'gaussian'"):
        hutchinson_sq(f, x, key, probe="gausian")
    with pytest.raises(InputError, match="Did you mean 'reverse'"):
        hutchinson_sq(f, x, key, mode="revers")
    with pytest.raises(InputError, match="at least one"):
        hutchinson_sq(f, x, key, num_probes=0)
    with pytest.raises(InputError, match="4 orthogonal probes do not fit into 3 dimensions"):
        hutchinson_sq(f, x, key, num_probes=4, probe="orthogonal")
    fewer = hutchinson_sq(f, x, key, num_probes=3, probe="orthogonal").value
    np.testing.assert_allclose([fewer, frobenius_sq(f, x)], 3 * np.cos(1) ** 2, rtol=1e-5)
    for num_probes in (3, 16):
        with pytest.raises(InputError, match=r"from 4 to 15, .* The exact norm costs 3: frobenius_sq"):
            hutchpp_sq(f, x, key, num_probes=num_probes)
    for num_probes in (4, 15):
        jax.eval_shape(lambda n=num_probes: hutchpp_sq(f, x, key, num_probes=n))
