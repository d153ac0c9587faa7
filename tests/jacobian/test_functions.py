"""What has no Jacobian is refused by all measures in the same words, and the advice that they give ends well."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import jacobian
from aejax.checks import InputError
from aejax.jacobian.programs import has_jvp, has_vjp

KEY = jax.random.key(0)
X = np.linspace(0.25, 1, 4, dtype=np.float32)
KERNEL = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

MEASURES = {
    "forward": lambda f, x: jacobian.frobenius_sq(f, x, mode="forward"),
    "reverse": lambda f, x: jacobian.frobenius_sq(f, x, mode="reverse"),
    "auto": jacobian.frobenius_sq,
    "limited": lambda f, x: jacobian.frobenius_sq(f, x, memory_limit=10**6),
    "value": jacobian.value_and_frobenius_sq,
    "explain": jacobian.explain,
    "difference": lambda f, x: jacobian.difference_sq(f, x, x),
    "matrix": jacobian.jacobian,
    "spectral": lambda f, x: jacobian.spectral_norm(f, x, x),
    "hutchinson": lambda f, x: jacobian.hutchinson_sq(f, x, KEY),
    "hutchpp": lambda f, x: jacobian.hutchpp_sq(f, x, KEY, num_probes=4),
    "volume": jacobian.log_volume,
    "metric": jacobian.pullback_metric,
    "magnification": jacobian.magnification,
    "path": lambda f, x: jacobian.shortest_path(f, x, x),
}


def halves(v):
    return {"mean": jnp.tanh(v @ KERNEL), "logvar": 10 * v @ KERNEL}


BAD_RESULTS = {
    "f returns a dict of 2 arrays": halves,
    "f returns a tuple of 2 arrays": lambda v: (jnp.tanh(v), v),
    "f returns bool": lambda v: v @ KERNEL > 0,
    "f returns int8": lambda v: jnp.round(7 * v).astype(jnp.int8),
    "f returns complex64": lambda v: jnp.fft.fft(v),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_what_has_no_jacobian_is_refused(measure):
    for message, f in BAD_RESULTS.items():
        with pytest.raises(InputError, match=message):
            MEASURES[measure](f, X)
    for message, x in (("x is a dict", {"a": X}), ("x has the dtype int32", np.arange(4, dtype=np.int32))):
        with pytest.raises(InputError, match=message):
            MEASURES[measure](lambda v: v, x)


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", jacobian.MODES)
def test_the_advice_ends_well(mode):
    norm = lambda f, x=X: jacobian.frobenius_sq(f, x, mode=mode)
    slopes = 1 - np.tanh(X @ KERNEL) ** 2
    joined = norm(lambda v: jax.flatten_util.ravel_pytree(halves(v))[0])
    np.testing.assert_allclose(joined, np.square(slopes * KERNEL).sum() + 100 * np.square(KERNEL).sum(), rtol=1e-5)
    assert float(norm(lambda v: (v @ KERNEL > 0).astype(float))) == 0
    both = norm(lambda v: (lambda y: jnp.stack([y.real, y.imag]))(jnp.fft.fft(v)))
    np.testing.assert_allclose(both, 16, rtol=1e-6)  # four rows of the Fourier matrix, of the length two
    assert float(norm(lambda v: 2.0 * v, jnp.arange(4).astype(float))) == 16


def test_several_arrays_are_joined_and_constants_stand_behind_them():
    vector, apart = jax.flatten_util.ravel_pytree({"a": X, "b": 2 * X})
    scaled = lambda v, scale: scale * (apart(v)["a"] + apart(v)["b"])
    np.testing.assert_allclose(jacobian.frobenius_sq(scaled, vector, jnp.float32(3)), 72, rtol=1e-6)


class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="mean")(x), nn.Dense(3, name="logvar")(x)


def test_a_module_of_two_results_is_refused_too():
    for mode in jacobian.MODES:
        with pytest.raises(InputError, match="f returns a tuple of 2 arrays"):
            jacobian.encoder_sq(Two(), Two().init(KEY, X[None])["params"], X[None], mode=mode)


# Functions through which derivatives go one way only.


@jax.custom_vjp
def straight_through(v):
    return jnp.round(v)


straight_through.defvjp(lambda v: (jnp.round(v), None), lambda _, cotangent: (cotangent,))

WIDE = np.random.default_rng(1).normal(size=(4, 9)).astype(np.float32)


def backward_only(v):
    return straight_through(jnp.tanh(v) @ WIDE)


def forward_only(v):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.tanh(c[1])), (0, v))[1][:2]


def test_which_ways_a_program_is_open():
    program = lambda f: jax.make_jaxpr(f)(X).eqns
    assert (has_jvp(program(backward_only)), has_vjp(program(backward_only))) == (False, True)
    assert (has_jvp(program(forward_only)), has_vjp(program(forward_only))) == (True, False)
    counts = lambda v: v * jax.lax.while_loop(lambda i: i < v[0], lambda i: i + 1, 0)  # no derivative goes through it
    assert has_vjp(program(counts))
    inside = jax.jit(lambda v: jax.lax.scan(lambda c, _: (backward_only(c)[:4], None), v, length=2)[0])
    assert not has_jvp(program(inside))


@pytest.mark.slow
def test_a_rule_for_the_backward_pass_alone():
    """Nine outputs of four inputs: forward mode would be the cheaper one."""
    matrix = (1 - np.tanh(X) ** 2)[:, None] * WIDE  # transposed: rounding is passed through
    other = (1 - np.tanh(X + 1) ** 2)[:, None] * WIDE
    square = np.square(matrix).sum()
    np.testing.assert_allclose(jacobian.jacobian(backward_only, X), matrix.T, rtol=1e-5)
    np.testing.assert_allclose(jacobian.frobenius_sq(backward_only, X), square, rtol=1e-5)
    np.testing.assert_allclose(jacobian.frobenius_sq(backward_only, X, memory_limit=3000), square, rtol=1e-5)
    change = jacobian.difference_sq(backward_only, X, X + 1)
    np.testing.assert_allclose(change, np.square(matrix - other).sum(), rtol=1e-4)
    largest, _ = jacobian.spectral_norm(backward_only, X, jnp.ones(4), num_iters=60)
    np.testing.assert_allclose(largest, np.linalg.norm(matrix, ord=2), rtol=1e-4)
    np.testing.assert_allclose(jacobian.pullback_metric(backward_only, X), matrix @ matrix.T, rtol=1e-4, atol=1e-5)
    exact = jacobian.hutchinson_sq(backward_only, X, KEY, mode="forward", probe="orthogonal", num_probes=4)
    np.testing.assert_allclose(exact.value, square, rtol=1e-4)


def test_a_loop_that_only_running_it_ends():
    slope = np.ones(4)
    y = np.asarray(X, np.float64)
    for _ in range(3):
        y = np.tanh(y)
        slope = slope * (1 - y**2)
    square = np.square(slope[:2]).sum()
    for f in (forward_only, lambda v: jnp.sin(1e-3 * forward_only(v)) * 1e3):
        np.testing.assert_allclose(jacobian.frobenius_sq(f, X), square, rtol=1e-5)
        np.testing.assert_allclose(jacobian.frobenius_sq(f, X, memory_limit=10**4), square, rtol=1e-5)
        np.testing.assert_allclose(jacobian.singular_values(f, X), np.sort(slope[:2])[::-1], rtol=1e-5)
