"""Metrics, volumes and shortest paths of surfaces whose geometry is in the textbooks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jax.sharding import PartitionSpec as P

from aejax.checks import InputError
from aejax.jacobian.geometry import log_volume, magnification, path_length, pullback_metric, shortest_path


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def sphere(z):
    """Polar angle and azimuth."""
    return jnp.stack([jnp.sin(z[0]) * jnp.cos(z[1]), jnp.sin(z[0]) * jnp.sin(z[1]), jnp.cos(z[0])])


def polar(z):
    return z[0] * jnp.stack([jnp.cos(z[1]), jnp.sin(z[1])])


def cylinder(z):
    return jnp.stack([jnp.cos(z[0]), jnp.sin(z[0]), z[1]])


def paraboloid(z):
    return jnp.stack([z[0], z[1], z[0] ** 2 + z[1] ** 2])


def polygon(angle, num_points):
    """Length of an arc of the unit circle as T - 1 equal chords."""
    return 2 * (num_points - 1) * np.sin(angle / (2 * (num_points - 1)))


def solve(decode, z_a, z_b, **kwargs):
    return jax.jit(lambda a, b: shortest_path(decode, a, b, **kwargs))(jnp.asarray(z_a), jnp.asarray(z_b))


@pytest.mark.parametrize("angles", [(0.3, 1.0), (2.0, -4.0)])
def test_the_metric_of_the_sphere(angles):
    z = jnp.array(angles)
    np.testing.assert_allclose(pullback_metric(sphere, z), np.diag([1, np.sin(angles[0]) ** 2]), atol=1e-15)
    np.testing.assert_allclose(magnification(sphere, z), abs(np.sin(angles[0])), rtol=1e-13)


def test_the_metric_of_the_paraboloid():
    # I + (2 z)(2 z)^T, whose determinant is 1 + 4 |z|^2; at (1, 2) that is 21.
    z = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(pullback_metric(paraboloid, z), [[5, 8], [8, 17]], rtol=1e-14)
    np.testing.assert_allclose(magnification(paraboloid, z), np.sqrt(21), rtol=1e-14)


@pytest.mark.parametrize("shape", [(4, 4), (7, 4), (4, 7)])
def test_log_volume_is_half_the_log_determinant_of_the_smaller_gram_matrix(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    f = lambda m: lambda x: jnp.sin(m @ x.reshape(-1))  # at zero its Jacobian is m
    x = jnp.zeros((shape[1], 1))
    value, slope = jax.jit(jax.value_and_grad(lambda m: log_volume(f(m), x)))(matrix)
    gram = matrix.T @ matrix if shape[0] > shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(value, np.linalg.slogdet(gram)[1] / 2, rtol=1e-12)
    np.testing.assert_allclose(slope, np.linalg.pinv(matrix).T, rtol=1e-10)  # d log vol = tr(pinv(J) dJ)


def test_log_volume_keeps_what_a_gram_matrix_loses():
    # Columns (1, e, 0) and (1, 0, e): the Gram determinant 2 e^2 + e^4 is below the rounding of (1 + e^2)^2.
    e = 1e-9
    matrix = np.array([[1, 1], [e, 0], [0, e]])
    value = log_volume(lambda x: matrix @ x, jnp.zeros(2))
    np.testing.assert_allclose(value, np.log(2 * e**2) / 2, rtol=1e-7)
    assert np.linalg.det(matrix.T @ matrix) == 0


def test_log_volume_without_full_rank():
    assert float(log_volume(lambda x: jnp.stack([x[0], 2 * x[0], 0 * x[1]]), jnp.ones(2))) == -np.inf
    assert float(magnification(lambda x: jnp.stack([x[0], 2 * x[0], 0 * x[1]]), jnp.ones(2))) == 0


def test_path_length_by_hand_and_its_gradient_where_points_coincide():
    points = jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, 5.0]])
    value, slope = jax.value_and_grad(lambda p: path_length(lambda z: 2 * z, p))(points)
    assert float(value) == 12
    np.testing.assert_allclose(slope, [[-1.2, -1.6], [1.2, 1.6], [0, -2], [0, 2]])


@pytest.mark.parametrize(("start", "end"), [((0.3, 0.0), (0.6, 2.5)), ((1.2, 0.5), (2.0, 2.0))])
def test_shortest_paths_on_the_sphere_are_great_circles(start, end):
    path = solve(sphere, start, end, num_points=20, num_steps=100)
    a, b = np.asarray(sphere(jnp.array(start))), np.asarray(sphere(jnp.array(end)))
    angle = np.arccos(a @ b)
    # Chords of equal length: the discrete problem has its own closed form.
    np.testing.assert_allclose(path.length, polygon(angle, 20), rtol=1e-10)
    np.testing.assert_allclose(path.energy, polygon(angle, 20) ** 2, rtol=1e-10)
    t = np.linspace(0, 1, 20)[:, None]
    slerp = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(jax.vmap(sphere)(path.points), slerp, atol=1e-5)
    np.testing.assert_array_equal(path.points[0], start)
    np.testing.assert_array_equal(path.points[-1], end)


def test_shortest_paths_in_polar_coordinates_are_chords():
    path = solve(polar, (1.0, 0.0), (2.0, 2.0), num_points=16, num_steps=60)
    a, b = np.array([1.0, 0.0]), 2 * np.array([np.cos(2), np.sin(2)])
    np.testing.assert_allclose(path.length, np.linalg.norm(b - a), rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(polar)(path.points), np.linspace(a, b, 16), atol=1e-6)


def test_shortest_paths_on_the_cylinder_are_helices():
    path = solve(lambda z: cylinder(jnp.stack([z[0] + 0.3 * z[0] ** 2, z[1]])), (0.0, 0.0), (1.0, 2.0), num_points=16)
    np.testing.assert_allclose(path.length, np.hypot(polygon(1.3, 16), 2), rtol=1e-10)
    turn = np.asarray(path.points[:, 0] + 0.3 * path.points[:, 0] ** 2)
    np.testing.assert_allclose(turn, np.linspace(0, 1.3, 16), atol=1e-6)
    np.testing.assert_allclose(path.points[:, 1], np.linspace(0, 2, 16), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_straight_lines_are_kept_where_the_decoder_is_linear(dtype):
    # The search starts at its end: nothing may become NaN there.
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), dtype)
    start, end = jnp.array([0.5, -1.0], dtype), jnp.array([2.0, 1.0], dtype)
    run = jax.jit(lambda a, b: shortest_path(lambda z: matrix @ z, a, b, num_points=9))
    path, still = run(start, end), run(start, start)
    np.testing.assert_allclose(path.points, np.linspace(start, end, 9), atol=1e-6)
    np.testing.assert_allclose(path.length, np.linalg.norm(matrix @ (end - start)), rtol=1e-6)
    np.testing.assert_array_equal(still.points, np.tile(start, (9, 1)))
    assert float(still.length) == float(still.energy) == 0


@pytest.mark.slow
def test_shortest_paths_on_the_paraboloid_solve_the_geodesic_equation():
    # On the graph of h: z'' = -grad h (z'^T hess h z') / (1 + |grad h|^2), at constant speed; h = |z|^2.
    def equation(_, y):
        z, v = y[:2], y[2:]
        return np.concatenate([v, -2 * z * (2 * v @ v) / (1 + 4 * z @ z)])

    start, velocity = np.array([0.8, 0.0]), np.array([0.0, 1.0])  # of length one on the surface, too
    slow = scipy.integrate.solve_ivp(equation, (0, 0.8), [*start, *velocity], rtol=1e-11, atol=1e-12, dense_output=True)
    coarse, fine = (solve(paraboloid, start, slow.y[:2, -1], num_points=1 + n, num_steps=100) for n in (16, 32))
    np.testing.assert_allclose((4 * fine.length - coarse.length) / 3, 0.8, rtol=1e-6)  # Richardson
    np.testing.assert_allclose(fine.points, slow.sol(np.linspace(0, 0.8, 33))[:2].T, atol=1e-4)
    straight = path_length(paraboloid, jnp.linspace(jnp.asarray(start), jnp.asarray(slow.y[:2, -1]), 33))
    assert float(straight) > 1.05 * 0.8  # the start of the search is far from it


def test_gradients_of_energy_and_length_hold_the_optimum_fixed():
    # A sphere of radius r: length r L, energy r^2 L^2, with L the polygon of the angle; by an end, the angle's slope.
    start, end = jnp.array([1.2, 0.5]), jnp.array([2.0, 2.0])

    def measures(radius, end):
        path = shortest_path(lambda z: radius * sphere(z), start, end, num_points=20, num_steps=100)
        return jnp.stack([path.length, path.energy])

    by_radius, by_end = jax.jit(jax.jacrev(measures, argnums=(0, 1)))(1.5, end)
    angle = lambda end: jnp.arccos(sphere(start) @ sphere(end))
    total = polygon(float(angle(end)), 20)
    np.testing.assert_allclose(by_radius, [total, 2 * 1.5 * total**2], rtol=1e-8)
    stretch = 1.5 * np.cos(float(angle(end)) / 38) * jax.grad(angle)(end)  # d polygon / d angle = cos(angle / 2 (T-1))
    np.testing.assert_allclose(by_end, [stretch, 2 * 1.5 * total * stretch], rtol=1e-5)


@pytest.mark.slow
def test_batches_are_the_business_of_vmap():
    starts, ends = jnp.array([[0.3, 0.0], [1.2, 0.5], [1.0, 1.0]]), jnp.array([[0.6, 2.5], [2.0, 2.0], [1.0, 1.0]])
    many = jax.jit(
        jax.vmap(lambda a, b: (shortest_path(sphere, a, b, num_points=10, num_steps=60), log_volume(sphere, a)))
    )
    paths, volumes = many(starts, ends)
    a, b = np.asarray(jax.vmap(sphere)(starts)), np.asarray(jax.vmap(sphere)(ends))
    angles = np.arccos(np.minimum(np.sum(a * b, axis=1), 1))
    np.testing.assert_allclose(paths.length, polygon(angles, 10), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(volumes, np.log(np.sin(starts[:, 0])), rtol=1e-12)


def test_devices_share_the_paths():
    starts, ends = jnp.linspace(jnp.array([0.8, 0.0]), jnp.array([1.2, 0.5]), 4), jnp.full((4, 2), 2.0)
    solve_each = jax.vmap(lambda a, b: shortest_path(sphere, a, b, num_points=10, num_steps=60).length)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    lengths = jax.jit(jax.shard_map(solve_each, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"), check_vma=False))
    angles = np.arccos(np.sum(np.asarray(jax.vmap(sphere)(starts) * jax.vmap(sphere)(ends)), axis=1))
    np.testing.assert_allclose(lengths(starts, ends), polygon(angles, 10), rtol=1e-8)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match=r"\[2\] and \[3\]"):
        shortest_path(jnp.sin, jnp.ones(2), jnp.ones(3))
    with pytest.raises(InputError, match="num_points is 2"):
        shortest_path(jnp.sin, jnp.ones(2), jnp.ones(2), num_points=2)
    with pytest.raises(InputError, match="3 coordinates decode to 1 numbers"):
        magnification(lambda z: z[:1], jnp.ones(3))
    assert float(log_volume(lambda z: 2 * z[:1], jnp.ones(3))) == pytest.approx(np.log(2))  # which it is told to ask
