"""Facts about the sheet of curves: the lines are the data, several runs are their mean and range."""

import numpy as np
import pytest
from test_plots import check_layout

from aejax import plots
from aejax.checks import InputError

X = np.arange(1, 5)
RUNS = np.array([[8.0, 4.0, 2.0, 1.0], [6.0, 6.0, 2.0, 3.0]])
PANELS = {
    "one": plots.Lines("step", "nats", {"a": plots.Curve(X, X**2), "b": plots.Curve(X, -X, 1, dashed=True)}),
    "several": plots.Lines("epoch", "SSE", {"runs": plots.Curve(X, RUNS)}, log=True),
    "third": plots.Lines("epoch", "SSE", {str(i): plots.Curve(X, i * X, i) for i in range(6)}),
}


def test_lines_are_the_data_and_runs_a_mean_within_their_range():
    figure = plots.line_panels(PANELS, title="the title")
    one, several, _ = figure.axes
    np.testing.assert_array_equal(one.lines[0].get_xydata(), np.stack([X, X**2], axis=1))
    assert [line.get_linestyle() for line in one.lines] == ["-", "--"]
    assert one.lines[0].get_color()[:3].tolist() != one.lines[1].get_color()[:3].tolist()
    np.testing.assert_array_equal(several.lines[0].get_ydata(), [7, 5, 2, 2])
    (band,) = several.collections
    corners = band.get_paths()[0].vertices
    for x, low, high in zip(X, RUNS.min(axis=0), RUNS.max(axis=0), strict=True):
        heights = corners[corners[:, 0] == x, 1]
        assert (heights.min(), heights.max()) == (low, high)
    assert (one.get_yscale(), several.get_yscale()) == ("linear", "log")
    check_layout(figure)


def test_legends_cover_no_line():
    figure = plots.line_panels(PANELS, title="")
    check_layout(figure)
    for ax, panel in zip(figure.axes, PANELS.values(), strict=True):
        assert [text.get_text() for text in ax.get_legend().get_texts()] == list(panel.curves)
        box = ax.get_legend().get_window_extent()
        for line in ax.lines:
            assert ax.transData.transform(line.get_xydata())[:, 1].max() < box.y0


def test_nothing_to_draw_is_refused():
    for panels in ({}, {"empty": plots.Lines("x", "y", {})}):
        with pytest.raises(InputError, match="each with a curve"):
            plots.line_panels(panels, title="")
