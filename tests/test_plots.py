"""Facts about the pictures: what is drawn is the data, pixel by pixel, on one scale, where the axes say."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from scipy.stats import norm

from aejax import plots
from aejax.checks import InputError

H, W = 8, 6
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(5, H * W)).astype(np.float32)


def screen(figure) -> np.ndarray:
    """The figure as drawn, `[height, width, 3]` uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def the_images(figure):
    return [image for ax in figure.axes for image in ax.images]


def on_screen(figure, image) -> np.ndarray:
    """The rectangle of the screen that an image covers."""
    pixels = screen(figure)
    left, bottom, width, height = image.axes.get_window_extent().bounds
    top = pixels.shape[0] - bottom - height
    corners = np.array([top, left, height, width])
    np.testing.assert_allclose(corners, np.round(corners), atol=1e-6)  # whole pixels
    top, left, height, width = np.round(corners).astype(int)
    return pixels[top : top + height, left : left + width]


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_grid_holds_the_images_in_order_and_nothing_between():
    (image,) = the_images(plots.images(IMAGES, (H, W), columns=3))
    sheet = np.ma.filled(image.get_array(), np.nan)
    gap = (sheet.shape[1] - 3 * W) // 2
    assert sheet.shape == (2 * H + gap, 3 * W + 2 * gap)
    for i, x in enumerate(IMAGES.reshape(5, H, W)):
        top, left = i // 3 * (H + gap), i % 3 * (W + gap)
        np.testing.assert_array_equal(sheet[top : top + H, left : left + W], x)
        sheet[top : top + H, left : left + W] = np.nan
    assert np.isnan(sheet).all()  # the gaps, and the sixth place


def test_screen_pixels_are_the_data_enlarged_by_a_whole_number():
    figure = plots.images(IMAGES[:1], (H, W))
    (image,) = the_images(figure)
    drawn = on_screen(figure, image)
    scale = drawn.shape[0] // H
    assert drawn.shape == (H * scale, W * scale, 3)
    assert scale > 1
    grey = np.kron(IMAGES[0].reshape(H, W), np.ones((scale, scale)))
    # A level of grey is lost in the table of 256 colours, another where that is cut to bytes.
    np.testing.assert_allclose(drawn, np.repeat(grey[..., None], 3, axis=-1) * 255, atol=2)


def test_colour_reaches_the_screen_and_is_cut_to_its_range():
    x = RNG.uniform(-0.5, 1.5, size=(2, 4, 4, 3))
    figure = plots.images(x, (4, 4, 3), columns=2)
    (image,) = the_images(figure)
    drawn = on_screen(figure, image)
    scale = drawn.shape[0] // 4
    enlarged = np.kron(np.clip(x[0], 0, 1), np.ones((scale, scale, 1)))
    np.testing.assert_allclose(drawn[:, : 4 * scale], enlarged * 255, atol=1.01)
    assert (drawn[:, 4 * scale : drawn.shape[1] - 4 * scale] == 255).all()  # white between the two


def test_reconstructions_stand_under_their_originals():
    x_hat = 1 - IMAGES
    figure = plots.reconstructions(IMAGES, x_hat, (H, W))
    (image,) = the_images(figure)
    sheet = np.ma.filled(image.get_array(), np.nan)
    for i in range(5):
        left = i * (sheet.shape[1] + sheet.shape[0] - 2 * H) // 5  # one gap more, five equal steps
        np.testing.assert_array_equal(sheet[:H, left : left + W].ravel(), IMAGES[i])
        np.testing.assert_array_equal(sheet[-H:, left : left + W].ravel(), x_hat[i])
    assert [text for text in texts(figure) if text] == ["original", "reconstruction"]


def _sheet(**knobs):
    y = np.array([3, 1, 1, 3, 7])
    columns = {
        name: plots.Column(RNG.normal(size=(5, dim)), RNG.uniform(size=(5, H * W)), samples, note)
        for name, dim, samples, note in (("PCA", 2, None, "error 1"), ("VAE", 4, RNG.uniform(size=(64, H * W)), ""))
    }
    return plots.compare_sheet(IMAGES, y, columns, (H, W), **knobs), columns, y


def test_styles_have_one_code_a_row_and_one_class_a_column():
    z, classes = np.arange(3.0)[:, None], np.array([4, 7])
    figure = plots.styles(lambda z, y: np.repeat((z + y[:, None]) / 10, H * W, axis=1), z, classes, (H, W))
    sheet = np.ma.filled(the_images(figure)[0].get_array(), np.nan)
    gap = sheet.shape[1] - 2 * W
    for i in range(3):
        for j, label in enumerate(classes):
            tile = sheet[i * (H + gap) : i * (H + gap) + H, j * (W + gap) : j * (W + gap) + W]
            np.testing.assert_allclose(tile, (i + label) / 10)
    assert texts(figure)[1:] == ["4", "7"]
    with pytest.raises(InputError, match=r"Codes of shape \(3,\) and classes of shape \(2,\)"):
        plots.styles(None, z[:, 0], classes, (H, W))


def test_sheet_aligns_every_method_under_the_originals():
    figure, columns, _ = _sheet(title="the title")
    shown = [1, 2, 0, 3, 4]  # class by class
    original, pca, vae, samples = the_images(figure)
    for image, x in ((original, IMAGES), (pca, columns["PCA"].x_hat), (vae, columns["VAE"].x_hat)):
        sheet = np.ma.filled(image.get_array(), np.nan)
        step = (sheet.shape[1] - W) // 4
        for i, row in enumerate(shown):
            np.testing.assert_array_equal(sheet[:, i * step : i * step + W].ravel(), x[row].astype(sheet.dtype))
        assert image.axes.get_position().x0 == original.axes.get_position().x0
        assert image.axes.get_position().x1 == original.axes.get_position().x1
    np.testing.assert_array_equal(samples.get_array()[:, :W].ravel(), columns["VAE"].samples[0])
    rights = [ax.get_window_extent().x1 for ax in figure.axes]
    np.testing.assert_allclose(max(rights), samples.axes.get_window_extent().x1)  # the blocks end together
    for text in ("the title", "original", "PCA", "error 1", "VAE"):
        assert text in texts(figure)


@pytest.mark.parametrize(
    ("y", "shown"),
    [
        (None, range(10)),
        (np.arange(20) % 10, range(10)),
        ([1] * 15 + [0] * 5, [15, 16, 17, 18, 19, 0, 1, 2, 3, 4]),
        (np.arange(20)[::-1], range(19, 9, -1)),
        ([0] * 18 + [2, 1], [0, 1, 2, 3, 4, 5, 6, 7, 19, 18]),
    ],
)
def test_sheet_shows_ten_images_of_every_class_equally_many(y, shown):
    x = np.arange(20.0)[:, None] / 20
    column = plots.Column(np.zeros((20, 2)), x, None)
    original, _ = the_images(plots.compare_sheet(x, y if y is None else np.asarray(y), {"A": column}, (1, 1)))
    drawn = original.get_array().compressed()
    np.testing.assert_array_equal(np.round(drawn * 20), list(shown))


def test_sheet_has_one_plot_of_codes_a_method_and_one_legend():
    figure, columns, y = _sheet()
    plots_of_codes = [ax for ax in figure.axes if ax.collections]
    assert len(plots_of_codes) == 2
    np.testing.assert_array_equal(plots_of_codes[0].collections[0].get_offsets(), columns["PCA"].z)
    assert [text for text in texts(figure) if text in ("1", "3", "7")] == ["1", "3", "7"]
    assert any("principal components of 4-D" in text for text in texts(figure))
    dots = [text.get_color() for text in figure.texts if text.get_text() == "\N{BLACK CIRCLE}"]
    colors = plots_of_codes[0].collections[0].get_facecolors()
    for color, label in zip(colors, y, strict=True):
        np.testing.assert_array_equal(color[:3], to_rgba(dots[[1, 3, 7].index(label)])[:3])


def test_sheet_of_data_that_are_no_images_shows_the_codes():
    columns = {name: plots.Column(RNG.normal(size=(9, 3)), RNG.normal(size=(9, 30)), None) for name in "ABCD"}
    figure = plots.compare_sheet(RNG.normal(size=(9, 30)), None, columns, None)
    assert len(figure.axes) == 4
    assert not the_images(figure)
    for ax in figure.axes:
        assert len({tuple(color) for color in ax.collections[0].get_facecolors()}) == 1  # no labels, one colour


def test_filters_are_the_columns_by_norm_on_one_scale_about_zero():
    kernel = RNG.normal(size=(H * W, 6)) * np.arange(1, 7)
    figure = plots.filters(kernel, (H, W), num=4)
    image = the_images(figure)[0]
    sheet = np.ma.filled(image.get_array(), np.nan)
    step = sheet.shape[1] - W
    for i, unit in enumerate([5, 4, 3, 2]):
        top, left = i // 2 * (sheet.shape[0] - H), i % 2 * step
        np.testing.assert_array_equal(sheet[top : top + H, left : left + W].ravel(), kernel[:, unit])
    assert image.norm.vmax == -image.norm.vmin == np.abs(kernel[:, 2:]).max()
    (bar,) = (ax for ax in figure.axes if ax is not image.axes)
    assert bar.get_ylabel() == "weight"
    assert "6 filters, the 4 of largest norm" in texts(figure)


def test_panels_of_filters_span_the_norms_and_share_one_scale():
    kernel = np.random.default_rng(1).normal(size=(H * W, 7))
    kernel /= np.linalg.norm(kernel, axis=0)
    kernels = {"small": kernel * np.arange(1, 8), "large": 10 * kernel * np.arange(1, 8)}
    figure = plots.filter_panels(kernels, (H, W), num=4)
    small, large = the_images(figure)
    assert small.norm.vmax == -small.norm.vmin == large.norm.vmax
    assert {"small", "large"} <= set(texts(figure))
    sheet = np.ma.filled(large.get_array(), np.nan)
    for i, unit in enumerate([6, 4, 2, 0]):  # every second one of seven, largest first
        top, left = i // 2 * (sheet.shape[0] - H), i % 2 * (sheet.shape[1] - W)
        np.testing.assert_array_equal(sheet[top : top + H, left : left + W].ravel(), kernels["large"][:, unit])


def test_manifold_grid_stands_at_normal_quantiles_second_coordinate_upwards():
    n, seen = 5, []

    def generate(z):
        seen.append(z)
        return np.repeat(norm.cdf(z.sum(axis=1, keepdims=True)), H * W, axis=1)

    figure = plots.manifold_grid(generate, (H, W), n=n, centre=[1.0, -1.0], scale=[2.0, 0.5])
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    across, up = 1 + 2 * quantiles, -1 + 0.5 * quantiles
    (z,) = seen
    np.testing.assert_allclose(z.reshape(n, n, 2)[0, :, 0], across, rtol=1e-6)
    np.testing.assert_allclose(z.reshape(n, n, 2)[:, 0, 1], up[::-1], rtol=1e-6)  # the first row is the top one
    (image,) = the_images(figure)
    ax = image.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{value:.2f}" for value in across]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    sheet = image.get_array()
    for x, z_1 in zip(ax.get_xticks(), across, strict=True):  # the image at each tick is the one of its label
        for y, z_2 in zip(ax.get_yticks(), up, strict=True):
            np.testing.assert_allclose(sheet[round(y), round(x)], norm.cdf(z_1 + z_2), rtol=1e-5)
            np.testing.assert_allclose([(y + 1) % (H + 1), (x + 1) % (W + 1)], [(H + 1) / 2, (W + 1) / 2])  # middle


def test_walk_is_straight_and_ends_beside_its_images():
    a, b, seen = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3)), []

    def generate(z):
        seen.append(z)
        return IMAGES[np.arange(len(z)) % 5]

    figure = plots.walk(generate, a, b, (H, W), x_a=IMAGES[:2], x_b=IMAGES[2:4], num_steps=5)
    path = seen[0].reshape(2, 5, 3)
    np.testing.assert_allclose(path[:, 0], a)
    np.testing.assert_allclose(path[:, 4], b)
    np.testing.assert_allclose(np.diff(path, n=2, axis=1), 0, atol=1e-12)
    start, end, middle = the_images(figure)
    np.testing.assert_array_equal(start.get_array()[:H].ravel(), IMAGES[0])
    np.testing.assert_array_equal(end.get_array()[-H:].ravel(), IMAGES[3])
    boxes = [image.axes.get_window_extent() for image in (start, middle, end)]
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[1].x1 < boxes[2].x0
    assert len({(round(box.y0, 6), round(box.y1, 6)) for box in boxes}) == 1  # rows in line


def test_scatter_of_plane_codes_is_the_codes():
    z, y = RNG.normal(size=(30, 2)), np.arange(30) % 3
    ax = plots.latent_scatter(z, y).axes[0]
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), z)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"]
    assert ax.get_aspect() == 1


def test_classes_are_named_at_their_medians_unless_the_names_would_collide():
    z = np.array([[0.0, 0.0], [1.0, 0.0], [1.001, 0.0], [0.0, 1.0], [0.2, 1.0], [9.0, 1.0]])
    ax = plots.latent_scatter(z, np.array([0, 1, 2, 3, 3, 3])).axes[0]
    places = np.array([text.get_position() for text in ax.texts])
    np.testing.assert_allclose(places[[0, 3]], [[0, 0], [0.2, 1]], atol=0.01)
    names = ax.transData.transform(places)
    assert np.linalg.norm(names[1] - names[2]) > 20  # pixels
    np.testing.assert_allclose(places[[1, 2]].mean(axis=0), [1.0005, 0], atol=0.01)


def test_scatter_of_large_codes_is_pca_and_says_so():
    from sklearn.decomposition import PCA

    z = RNG.normal(size=(200, 5)) * np.array([3.0, 1.0, 7.0, 0.5, 0.1]) + 4
    figure = plots.latent_scatter(z)
    fitted = PCA(2).fit(z)
    drawn = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(drawn), np.abs(fitted.transform(z)), atol=1e-6)
    assert "first two principal components" in texts(figure)[0]
    share = round(100 * fitted.explained_variance_ratio_[0])
    assert figure.axes[0].get_xlabel() == f"principal component 1 ({share} % of the variance)"


def test_curves_draw_every_row_once_with_units_and_log_where_it_spans_a_decade():
    history = [
        {"step": 10 * e, "epoch": e, "elbo/loss": 5.0 - e, "elbo/sse": 10.0**-e, "val/elbo/loss": 6.0 - e}
        for e in range(1, 5)
    ]
    figure = plots.curves(history)
    loss, sse = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[e, 5.0 - e] for e in range(1, 5)])
    np.testing.assert_array_equal(loss.lines[1].get_xydata(), [[e, 6.0 - e] for e in range(1, 5)])
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert (loss.get_ylabel(), sse.get_ylabel(), loss.get_xlabel()) == ("nats", "squared error", "epoch")
    assert (loss.get_yscale(), sse.get_yscale()) == ("linear", "log")
    assert len(sse.lines) == 1


def every_figure():
    yield plots.images(IMAGES, (H, W), title="t")
    yield plots.image_rows({"a": IMAGES, "b": IMAGES}, (H, W, 1))
    yield plots.samples(IMAGES, (H, W))
    yield plots.manifold_grid(lambda z: RNG.uniform(size=(len(z), H, W, 1)), (H, W), n=4)
    yield plots.walk(lambda z: IMAGES, IMAGES[:1, :3], IMAGES[1:2, :3], (H, W), num_steps=5)
    yield _sheet()[0]
    yield plots.filters(RNG.normal(size=(H * W, 3)), (H, W))
    yield plots.latent_scatter(RNG.normal(size=(4, 1)), np.arange(4))
    yield plots.latent_scatter(RNG.normal(size=(40, 3)), np.arange(40))
    yield plots.curves([{"step": 1, "a/loss": 1.0}])


def test_no_picture_interpolates_and_images_share_one_grey_scale():
    for i, figure in enumerate(every_figure()):
        screen(figure)
        for image in the_images(figure):
            assert image.get_interpolation() == "nearest"
            if i < 6:
                assert (image.norm.vmin, image.norm.vmax, image.get_cmap().name) == (0, 1, "gray")


def check_layout(figure) -> None:
    """Asserts that nothing that is written leaves the figure, or covers an image or other writing."""
    screen(figure)
    renderer = figure.canvas.get_renderer()
    size = figure.bbox
    written = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
    for box in written + [ax.get_tightbbox(renderer) for ax in figure.axes]:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= size.x1
        assert box.y1 <= size.y1
    for image in the_images(figure):
        assert not any(image.axes.get_window_extent().overlaps(box) for box in written)
    assert not any(a.overlaps(b) for i, a in enumerate(written) for b in written[:i])


def test_nothing_that_is_written_leaves_the_figure_or_covers_an_image():
    for figure in every_figure():
        check_layout(figure)


@pytest.mark.slow
def test_global_state_stays_as_it_was_and_pyplot_is_never_imported():
    program = """
import sys, numpy as np
from aejax import plots
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()  # not dict(): looking up the backend would import pyplot
plots.latent_scatter(np.ones((3, 2)), np.arange(3))
plots.images(np.ones((3, 4)), (2, 2))
plots.filters(np.ones((4, 3)), (2, 2))
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_save_writes_what_is_drawn_and_leaves_nothing_else(tmp_path):
    figure = plots.images(IMAGES, (H, W))
    plots.save(figure, tmp_path / "grid.png")
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png"))[..., :3], screen(figure))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    before = (tmp_path / "grid.png").read_bytes()
    figure.savefig = lambda *_, **__: (_ for _ in ()).throw(OSError("No space left on device"))
    with pytest.raises(OSError, match="No space"):
        plots.save(figure, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_refuses_what_cannot_be_drawn():
    with pytest.raises(InputError, match=r"image_shape=\(8, 6, 2\)"):
        plots.images(IMAGES, (8, 6, 2))
    with pytest.raises(InputError, match=r"\(5, 48\) do not fit image_shape=\(8, 8\)"):
        plots.images(IMAGES, (8, 8))
    with pytest.raises(InputError, match=r"\[5, 4\] images"):
        plots.reconstructions(IMAGES, IMAGES[:4], (H, W))
    with pytest.raises(InputError, match="not empty"):
        plots.latent_scatter(np.zeros((0, 2)))
    with pytest.raises(InputError, match="2 steps"):
        plots.walk(lambda z: z, np.zeros((1, 2)), np.zeros((1, 2)), (1, 2), num_steps=1)
    with pytest.raises(InputError, match="without a metric"):
        plots.curves([{"step": 1}])


def test_ten_classes_get_ten_colours_made_for_every_kind_of_colour_vision():
    figure = plots.latent_scatter(RNG.normal(size=(10, 2)), np.arange(10))
    drawn = figure.axes[0].collections[0].get_facecolors()[:, :3]
    np.testing.assert_allclose(drawn, [to_rgba(c)[:3] for c in matplotlib.color_sequences["petroff10"]])
    many = plots.latent_scatter(RNG.normal(size=(47, 2)), np.arange(47))
    assert len({tuple(color) for color in many.axes[0].collections[0].get_facecolors()}) == 47
