"""Facts about rate-distortion sheets: dots are runs, the line joins their means, strokes have the slope -beta."""

import numpy as np
import pytest
from test_plots import check_layout

from aejax import plots
from aejax.checks import InputError

RATES = np.array([[9.0, 11.0], [4.0, 6.0], [1.0, 2.0]])
DISTORTIONS = np.array([[10.0, 12.0], [13.0, 15.0], [25.0, 26.0]])
PANEL = plots.RateDistortion([0.5, 1.0, 4.0], RATES, DISTORTIONS, ([1.0, 5.0, 9.0], [20.0, 12.0, 9.0]))


def test_what_is_drawn_is_what_was_given():
    figure = plots.rate_distortion({"images": PANEL, "others": PANEL._replace(exact=None)}, title="the title")
    check_layout(figure)
    ax, other = figure.axes
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["a run"].get_xydata(), np.stack([RATES.ravel(), DISTORTIONS.ravel()], axis=1))
    np.testing.assert_array_equal(lines["mean of the runs"].get_xydata(), [[1.5, 25.5], [5, 14], [10, 11]])
    np.testing.assert_array_equal(lines["exact"].get_xydata(), [[1, 20], [5, 12], [9, 9]])
    assert "exact" not in {line.get_label() for line in other.lines}
    assert [text.get_text() for text in ax.texts] == ["$\\beta$ = 0.5", "$\\beta$ = 1", "$\\beta$ = 4"]


def test_strokes_have_the_slope_of_their_weight_and_all_the_same_length_on_paper():
    ax = plots.rate_distortion({"images": PANEL}, title="").axes[0]
    strokes = [line.get_xydata() for line in ax.lines if line.get_label().startswith("_") and len(line.get_xydata())]
    slopes = [float(np.divide(*(b - a)[::-1])) for a, b in strokes]
    np.testing.assert_allclose(slopes, [-0.5, -1, -4])
    np.testing.assert_allclose([(a + b) / 2 for a, b in strokes], [[10, 11], [5, 14], [1.5, 25.5]])
    shape = [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())]
    lengths = [np.linalg.norm((b - a) / shape) for a, b in strokes]
    np.testing.assert_allclose(lengths, lengths[0])


def test_the_dotted_line_joins_the_places_of_the_lowest_sum():
    ax = plots.rate_distortion({"images": PANEL}, title="").axes[0]
    (line,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(line.get_xydata().sum(axis=1), 19)
    assert line.get_label() == "sum of 19.00"


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="at least one"):
        plots.rate_distortion({}, title="")
    for panel in (PANEL._replace(weights=[1.0]), PANEL._replace(rates=RATES[:, :1]), PANEL._replace(rates=RATES[:, 0])):
        with pytest.raises(InputError, match=r"wanted are \[H\]"):
            plots.rate_distortion({"images": panel}, title="")
