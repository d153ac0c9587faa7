"""Facts about the pictures of Jacobians: spectra, contraction, tangents, the plane of a code."""

import numpy as np
import pytest
from test_plots import IMAGES, H, W, check_layout, the_images

from aejax import plots
from aejax.checks import InputError

RNG = np.random.default_rng(1)


def test_spectra_are_the_values_by_rank_on_a_log_scale_without_zeros():
    figure = plots.spectra({"AE": [4.0, 2.0, 0.0], "CAE": [3.0, 0.1]}, title="spectra")
    (ax,) = figure.axes
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 4], [2, 2], [3, np.nan]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 3], [2, 0.1]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["AE", "CAE"]
    check_layout(figure)


def test_contraction_curves_stand_over_their_radii_and_the_rings_over_the_mean_distance():
    curve = plots.ContractionCurve([0.1, 1.0, 10.0], [0.5, 0.4, 0.3], 0.7)
    figure = plots.contraction_curves({"CAE": curve}, nearest=1.5, distance=3.0)
    (ax,) = figure.axes
    line, ring = ax.lines[:2]
    np.testing.assert_array_equal(line.get_xydata(), [[0.1, 0.5], [1.0, 0.4], [10.0, 0.3]])
    np.testing.assert_array_equal(ring.get_xydata(), [[3.0, 0.7]])
    places = {text.get_text(): text.xy[0] for text in ax.texts}
    assert places == {"nearest example": 1.5, "mean example": 3.0}
    assert ax.get_ylim()[0] == 0  # how much is left of a distance is read as a height
    check_layout(figure)


@pytest.mark.parametrize("channels", [1, 3])
def test_tangents_show_each_direction_and_both_steps_along_it(channels):
    x = RNG.uniform(0.2, 0.8, size=(2, H * W * channels))
    directions = {name: RNG.normal(size=(2, 3, x.shape[1])) for name in ("AE", "CAE")}
    directions = {name: v / np.linalg.norm(v, axis=2, keepdims=True) for name, v in directions.items()}
    figure = plots.tangents(x, directions, (H, W, channels), step=0.2)
    shown = the_images(figure)
    assert len(shown) == 2 * 2 * 3  # a row for each example and method: x, directions, steps
    limits = {image.norm.vmax for image in shown[1::3]}
    assert len(limits) == 1
    drawn = lambda image: np.ma.filled(image.get_array(), np.nan)
    for row, (i, name) in enumerate((i, name) for i in range(2) for name in directions):
        original, along, steps = shown[3 * row : 3 * row + 3]
        image = x[i].reshape(H, W, channels)
        np.testing.assert_allclose(drawn(original)[:, :W].reshape(H, W, -1)[..., :channels], image, atol=1e-12)
        pitch = (drawn(along).shape[1] - W) // 2
        for j in range(3):
            v = directions[name][i, j].reshape(H, W, channels)
            np.testing.assert_allclose(drawn(along)[:, j * pitch : j * pitch + W], v.sum(axis=-1), atol=1e-12)
            for k, sign in ((2 * j, -1), (2 * j + 1, 1)):
                found = drawn(steps)[:, k * pitch : k * pitch + W].reshape(H, W, -1)[..., :channels]
                expected = image + sign * 0.2 * v
                np.testing.assert_allclose(found, expected if channels == 1 else np.clip(expected, 0, 1), atol=1e-12)
    check_layout(figure)


def a_map() -> plots.Magnification:
    across, up = np.linspace(-1, 3, 21), np.linspace(0, 1, 11)
    return plots.Magnification(np.exp(across + 2 * up[:, None]), across, up)


def test_the_map_has_its_values_where_the_axes_say():
    found = a_map()
    figure = plots.magnification_map(found, np.array([[0.0, 0.5], [1.0, 0.2]]), np.array([3, 7]))
    ax, bar = figure.axes
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    for row, column in ((0, 0), (10, 20), (3, 7)):  # the centre of each pixel is the point of the grid
        np.testing.assert_allclose(left + (column + 0.5) * (right - left) / 21, found.horizontal[column], atol=1e-12)
        np.testing.assert_allclose(bottom + (row + 0.5) * (top - bottom) / 11, found.vertical[row], atol=1e-12)
        expected = np.exp(found.horizontal[column] + 2 * found.vertical[row])
        np.testing.assert_allclose(image.get_array()[row, column], expected)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[0.0, 0.5], [1.0, 0.2]])
    assert bar.get_yscale() == "log"
    assert "data units" in bar.get_ylabel()
    assert image.get_interpolation() == "nearest"
    check_layout(figure)


def test_a_map_with_places_of_no_area_stays_finite():
    found = a_map()._replace(values=np.where(np.arange(21) < 5, 0.0, a_map().values))
    (ax, _) = plots.magnification_map(found, np.zeros((1, 2))).axes
    assert np.isfinite(ax.images[0].get_array()).all()
    assert ax.images[0].norm.vmin > 0


def test_paths_are_drawn_through_their_points_beside_their_images():
    straight = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, 1.0]])
    shortest = np.array([[0.0, 0.0], [1.0, 0.9], [2.0, 1.0]])
    pair = plots.Connection(straight, shortest, IMAGES[:3], IMAGES[2:], 2.5, 1.25)
    figure = plots.paths(a_map(), [pair, pair], (H, W))
    texts = [text.get_text() for text in figure.texts]
    assert {"1 straight, 2.50", "1 shortest, 1.25", "2 straight, 2.50"} <= set(texts)
    (plane,) = (ax for ax in figure.axes if ax.lines)
    np.testing.assert_array_equal(plane.lines[0].get_xydata(), straight)
    np.testing.assert_array_equal(plane.lines[1].get_xydata(), shortest)
    rows = [image for image in the_images(figure) if image.axes is not plane]
    np.testing.assert_array_equal(rows[0].get_array()[:, :W].ravel(), IMAGES[0])
    np.testing.assert_array_equal(rows[1].get_array()[:, -W:].ravel(), IMAGES[4])
    check_layout(figure)
    assert not [ax for ax in plots.paths(a_map(), [pair], None).axes if ax.images and ax.images[0].norm.vmax == 1]


def test_refuses_what_does_not_fit_together():
    with pytest.raises(InputError, match="at least one connection"):
        plots.paths(a_map(), [], (H, W))
    with pytest.raises(InputError, match="one value a point"):
        plots.magnification_map(a_map()._replace(vertical=[0.0, 1.0]), np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"AE \[2, 3, 48\], CAE \[2, 2, 48\]"):
        plots.tangents(IMAGES[:2], {"AE": np.ones((2, 3, 48)), "CAE": np.ones((2, 2, 48))}, (H, W), step=1.0)
    with pytest.raises(InputError, match="at least one, by name"):
        plots.spectra({}, title="none")
