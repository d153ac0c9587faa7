"""Facts about the pictures of fields: arrows where the density is, on one scale; errors over their levels."""

import numpy as np
import pytest
from test_plots import check_layout

from aejax import plots
from aejax.checks import InputError

ACROSS, UP = np.array([0.0, 0.5, 1.0]), np.array([-1.0, 1.0])


def test_arrows_stand_on_the_grid_and_share_a_scale():
    density = np.array([[1.0, 0.5, 1e-5], [0.2, 0.3, 0.4]])
    field = np.zeros((2, 3, 2))
    field[0, 0] = [3.0, 4.0]  # the longest shown
    field[0, 2] = [100.0, 0.0]  # where there is no density
    figure = plots.vector_fields({"a": field, "b": 0.5 * field}, ACROSS, UP, density, title="fields")
    first, second = figure.axes
    places = [[0, -1], [0.5, -1], [0, 1], [0.5, 1], [1, 1]]
    for ax, factor in ((first, 1.0), (second, 0.5)):
        (arrows,) = ax.collections
        np.testing.assert_array_equal(arrows.get_offsets(), places)
        np.testing.assert_array_equal(arrows.U, factor * np.array([3.0, 0, 0, 0, 0]))
        np.testing.assert_array_equal(arrows.V, factor * np.array([4.0, 0, 0, 0, 0]))
        assert 5.0 / arrows.scale == pytest.approx(1.6 * 0.5)  # 1.6 steps of the grid
        np.testing.assert_array_equal(ax.images[0].get_array(), density)
        assert tuple(ax.images[0].get_extent()) == (-0.25, 1.25, -2, 2)
    check_layout(figure)


def test_errors_are_a_dot_a_seed_and_a_line_through_the_means():
    figure = plots.level_errors({"a": [[1.0, 3.0], [0.2, 0.4]]}, [0.5, 0.1], title="errors", y_label="relative")
    (ax,) = figure.axes
    line, dots = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[0.5, 2.0], [0.1, 0.3]])
    np.testing.assert_array_equal(dots.get_xydata(), [[0.5, 1.0], [0.5, 3.0], [0.1, 0.2], [0.1, 0.4]])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    check_layout(figure)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(InputError, match="wanted are"):
        plots.vector_fields({"a": np.zeros((3, 2, 2))}, ACROSS, UP, np.ones((2, 3)), title="")
    with pytest.raises(InputError, match="a row for each level"):
        plots.level_errors({"a": [[1.0]]}, [0.5, 0.1], title="", y_label="")
