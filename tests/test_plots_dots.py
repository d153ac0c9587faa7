"""Facts about the chart of dots: each is the mean of its runs, its bar their range, its line the column it is of."""

import numpy as np
import pytest
from test_plots import check_layout

from aejax import plots
from aejax.checks import InputError

ROWS = {"a": {"left": [1.0, 3.0], "right": 5.0}, "a row of a long name": {"left": [4.0, 4.0], "right": [6.0]}}


def test_dots_are_means_and_bars_ranges_each_on_the_line_of_its_column():
    figure = plots.dots(ROWS, x_label="nats", title="the title")
    (ax,) = figure.axes
    first, second = (line for line in ax.lines if line.get_linestyle() == "None")
    np.testing.assert_array_equal(first.get_xdata(), [2.0, 5.0])
    np.testing.assert_array_equal(second.get_xdata(), [4.0, 6.0])
    bars = [segment[:, 0].tolist() for bar in ax.collections for segment in bar.get_segments()]
    assert bars == [[1.0, 3.0], [5.0, 5.0], [4.0, 4.0], [6.0, 6.0]]
    for line in (first, second):
        np.testing.assert_array_equal(np.rint(line.get_ydata()), [0, 1])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["left", "right"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(ROWS)
    check_layout(figure)
    box = ax.get_legend().get_window_extent()
    assert box.x1 < figure.bbox.x1


def test_rows_that_are_no_table_are_refused():
    for rows in ({}, {"a": {}}, {"a": {"left": 1.0}, "b": {"right": 1.0}}):
        with pytest.raises(InputError, match="wanted is the same of each"):
            plots.dots(rows, x_label="", title="")
