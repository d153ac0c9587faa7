"""Facts about the sheet of embeddings: equal panels that hold the codes, in colours that one legend explains."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from test_plots import check_layout, texts

from aejax import plots
from aejax.checks import InputError

RNG = np.random.default_rng(2)
Y = np.array([7, 3, 3, 1, 7, 1, 1, 3, 7, 1, 3, 7])
PANELS = {
    "PCA": plots.Embedding(RNG.normal(size=(12, 2)), "trust 0.9123   continuity 0.9456   hit 0.7212"),
    "one unit": plots.Embedding(RNG.normal(size=(12, 1)), "trust 0.7"),
    "three": plots.Embedding([10.0, 1.0, 0.1] * RNG.normal(size=(12, 3))),
    "far away": plots.Embedding(1e4 + 1e-3 * RNG.normal(size=(12, 2)), "one\N{MULTIPLICATION SIGN}"),
    "fifth": plots.Embedding(RNG.normal(size=(12, 2))),
}


def test_panels_are_equal_squares_in_rows_and_hold_the_codes():
    figure = plots.embeddings(PANELS, Y, title="the title", columns=3)
    boxes = np.array([ax.get_window_extent().bounds for ax in figure.axes])
    np.testing.assert_allclose(boxes[:, 2:], boxes[0, 2], atol=1e-6)
    np.testing.assert_allclose(boxes[:2, 0], boxes[3:, 0], atol=1e-6)  # columns
    np.testing.assert_allclose(boxes[:3, 1], boxes[0, 1], atol=1e-6)
    assert boxes[3, 1] + boxes[3, 3] < boxes[0, 1]  # the second row lies lower
    shown = [ax.collections[0].get_offsets() for ax in figure.axes]
    np.testing.assert_array_equal(shown[0], PANELS["PCA"].z)
    np.testing.assert_array_equal(shown[1], np.pad(PANELS["one unit"].z, [(0, 0), (0, 1)]))
    assert abs(np.corrcoef(shown[2][:, 0], PANELS["three"].z[:, 0])[0, 1]) > 0.99
    for ax in figure.axes:  # one scale along both axes
        assert ax.get_data_ratio() == pytest.approx(1)
    check_layout(figure)


def test_names_and_notes_stand_above_their_panels_in_order():
    figure = plots.embeddings(PANELS, Y, title="the title", columns=3)
    check_layout(figure)  # draws it, too
    written = {text.get_text(): text.get_window_extent(figure.canvas.get_renderer()) for text in figure.texts}
    for (name, panel), ax in zip(PANELS.items(), figure.axes, strict=True):
        box = ax.get_window_extent()
        assert written[name].y0 > box.y1
        assert written[name].x0 == pytest.approx(box.x0, abs=3)
        if panel.note:
            assert box.y1 < written[panel.note].y0 < written[name].y0
            assert written[panel.note].x1 < box.x1
    assert "the title" in written


def test_one_legend_explains_the_colours_of_all_panels():
    figure = plots.embeddings(PANELS, Y)
    assert [text for text in texts(figure) if text in ("1", "3", "7")] == ["1", "3", "7"]
    dots = [text.get_color() for text in figure.texts if text.get_text() == "\N{BLACK CIRCLE}"]
    for ax in figure.axes:
        for color, label in zip(ax.collections[0].get_facecolors(), Y, strict=True):
            np.testing.assert_array_equal(color[:3], to_rgba(dots[[1, 3, 7].index(label)])[:3])
    check_layout(plots.embeddings({"a": PANELS["PCA"]}, Y, title="a title that is wider than the one panel"))
    named, unnamed = (plots.embeddings(PANELS, Y, names=names) for names in (True, False))
    assert all(len(ax.texts) == 3 for ax in named.axes)
    assert not any(ax.texts for ax in unnamed.axes)
    assert texts(unnamed).count("\N{BLACK CIRCLE}") == 3
    bare = plots.embeddings(PANELS)
    assert "\N{BLACK CIRCLE}" not in texts(bare)
    check_layout(bare)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="no embedding"):
        plots.embeddings({})
    with pytest.raises(InputError, match=r"'PCA': 12, .* 11 labels"):
        plots.embeddings(PANELS, Y[1:])
    with pytest.raises(InputError, match="'a': 12, 'b': 3"):
        plots.embeddings({"a": PANELS["PCA"], "b": plots.Embedding(np.ones((3, 2)))})


def test_points_behind_lie_beneath_the_codes_of_their_panel():
    behind = RNG.normal(size=(30, 2))
    figure = plots.embeddings({"a": PANELS["PCA"], "b": PANELS["PCA"]._replace(behind=behind)}, Y, names=False)
    without, over = (ax.collections for ax in figure.axes)
    assert len(without) == 1
    shown = {len(points.get_offsets()): points for points in over}
    np.testing.assert_allclose(shown[30].get_offsets(), behind)
    assert shown[30].get_zorder() < shown[12].get_zorder()
    for z in (PANELS["three"].z, PANELS["one unit"].z):
        with pytest.raises(InputError, match=r"a has codes .* behind them"):
            plots.embeddings({"a": plots.Embedding(z, behind=behind)}, Y)
