"""The geometry of decoders that are known: linear ones, which bend nothing, and the circle."""

from pathlib import Path as File
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import data, jacobian, runner
from aejax.checks import InputError
from aejax.methods.vae import VAE
from aejax.runner.inputs import Spec
from experiments.studies import geometry

KEY = jax.random.key(0)


def linear(num_pairs=4):
    """A run whose decoder is a matrix."""
    model = VAE.dense(5, 2, hidden_dims=(), likelihood="gaussian")
    x = np.random.default_rng(0).random((30, 5), np.float32)
    params = model.init(KEY, x)["params"]
    config = geometry.Config(num_pairs=num_pairs, num_points=5, num_steps=5)
    dataset = SimpleNamespace(test=data.Batch(x), image_shape=None)
    return SimpleNamespace(
        config=config, model=model, state=SimpleNamespace(params=params), dataset=dataset, measure_key=KEY
    )


@pytest.mark.slow
def test_a_linear_decoder_has_one_area_and_straight_lines():
    trained = linear()
    kernel = np.asarray(trained.state.params["decoder"]["dense_0"]["kernel"], np.float64)  # [2, D]
    found = geometry.magnification(trained, np.array([[-1.0, 0.0], [3.0, 2.0]]))
    np.testing.assert_allclose(found.values, np.sqrt(np.linalg.det(kernel @ kernel.T)), rtol=1e-4)
    np.testing.assert_allclose([found.horizontal[0], found.horizontal[-1]], [-1.4, 3.4], rtol=1e-6)
    np.testing.assert_allclose([found.vertical[0], found.vertical[-1]], [-0.2, 2.2], rtol=1e-6)

    paths = geometry.paths(trained)
    expected = np.linalg.norm((paths.straight[:, -1] - paths.straight[:, 0]) @ kernel, axis=1)
    np.testing.assert_allclose(paths.straight_length, expected, rtol=1e-5)
    np.testing.assert_allclose(paths.shortest_length, expected, rtol=1e-4)
    np.testing.assert_allclose(paths.straight, paths.shortest, atol=1e-3)
    z = trained.model.apply({"params": trained.state.params}, trained.dataset.test.x, method="embed")
    for pair in paths.straight:  # from one test code to another
        gaps = np.linalg.norm(np.asarray(z)[:, None] - pair[[0, -1]], axis=-1)
        np.testing.assert_allclose(gaps.min(axis=0), 0, atol=1e-6)
        assert len(set(gaps.argmin(axis=0))) == 2


def test_a_refined_path_is_the_same_path_with_shorter_chords():
    angles = jnp.array([[0.0], [0.6], [np.pi / 2]])
    fine = geometry.refined(angles, times=8)
    assert fine.shape == (17, 1)
    np.testing.assert_allclose(fine[::8], angles, atol=1e-6)
    np.testing.assert_allclose(np.diff(fine[:9, 0]), 0.6 / 8, rtol=1e-5)
    circle = lambda z: jnp.array([jnp.cos(z[0]), jnp.sin(z[0])])
    steps = np.diff(angles[:, 0]) / 8
    chords = 8 * 2 * np.sin(steps / 2).sum()
    assert float(jacobian.path_length(circle, fine)) == pytest.approx(chords, rel=1e-5)


@pytest.mark.slow
def test_a_run_reports_documented_numbers_and_draws_the_plane():
    config = geometry.Config(num_epochs=2, hidden_dims=(8,), num_pairs=3, num_points=4, num_steps=3, batch_size=500)
    result = runner.run(geometry.EXPERIMENT, config)
    documented = (File(__file__).parents[3] / "docs" / "units.md").read_text()
    assert [name for name in result.metrics if f"`{name}`" not in documented] == []
    found = result.metrics
    assert 0 < found["length_ratio_min"] <= found["length_ratio"] <= found["length_ratio_max"] <= 1.001
    figures = geometry.draw(result.trained)
    assert set(figures) == {"magnification", "paths"}
    codes = figures["magnification"].axes[0].collections[0].get_offsets()
    z = result.model.apply({"params": result.state.params}, result.trained.dataset.test.x, method="embed")
    np.testing.assert_allclose(codes, z, atol=1e-5)
    lines = next(ax.lines for ax in figures["paths"].axes if ax.lines)
    paths = geometry.paths(result.trained)
    order = np.argsort(paths.shortest_length / paths.straight_length)
    np.testing.assert_allclose(lines[1].get_xydata(), paths.shortest[order[0]], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 3}, "maps are of codes of 2 numbers"),
        ({"num_pairs": 0}, "--num-pairs is 0"),
        ({"num_points": 2}, "--num-points is 2"),
    ],
)
def test_refuses_what_has_no_map(change, message):
    with pytest.raises(InputError, match=message):
        geometry.build_model(geometry.Config(**change), Spec((64,)))
