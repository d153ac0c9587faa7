"""Sets with known factors: the sprites, pixel by pixel, and faces in the layout in which they are handed around."""

import numpy as np
import pytest

from aejax import data
from aejax.checks import InputError
from aejax.data.sprites import SHAPES, SIDE, SIZES, sprites


@pytest.fixture(scope="module")
def grid():
    """The images by their factors, `[3, 4, 12, 8, 8, 24, 24]`."""
    return sprites()[0].reshape(*SIZES.values(), SIDE, SIDE)


def moved(images, by, axis):
    """Images, empty at their border, moved by so many pixels."""
    assert not np.take(images, range(-by, 0), axis=axis).any()
    return np.roll(images, by, axis=axis)


def test_every_combination_is_there_once():
    x, found = sprites()
    assert x.dtype == np.uint8
    assert set(np.unique(x)) == {0, 1}
    assert len(np.unique(found, axis=0)) == len(x) == np.prod(list(SIZES.values())) == 9216
    np.testing.assert_array_equal(found.max(axis=0) + 1, list(SIZES.values()))
    assert found.min() == 0


def test_a_step_of_x_or_y_moves_the_image_by_a_pixel(grid):
    for steps in (1, 5):
        np.testing.assert_array_equal(grid[:, :, :, steps:], moved(grid[:, :, :, :-steps], steps, axis=-1))
        np.testing.assert_array_equal(grid[:, :, :, :, steps:], moved(grid[:, :, :, :, :-steps], steps, axis=-2))


def test_no_two_are_equal_but_for_the_symmetries_of_square_and_ellipse(grid):
    images = np.packbits(grid.reshape(*SIZES.values(), -1), axis=-1)
    square, ellipse, heart = images
    for quarter in (3, 6, 9):
        np.testing.assert_array_equal(square, np.roll(square, quarter, axis=1))
    np.testing.assert_array_equal(ellipse, np.roll(ellipse, 6, axis=1))
    different = np.concatenate([part.reshape(-1, images.shape[-1]) for part in (square[:, :3], ellipse[:, :6], heart)])
    assert len(different) == 4 * (3 + 6 + 12) * 64
    assert len(np.unique(different, axis=0)) == len(different)


def test_a_quarter_of_a_turn_is_that_of_the_pixels(grid):
    """Counter-clockwise, about the middle of the image of a sprite that stands there as nearly as it can."""
    for steps in range(9):
        before, after = grid[:, :, steps, 3, 3, :-1, :-1], grid[:, :, steps + 3, 3, 3, :-1, :-1]  # 23 pixels wide
        np.testing.assert_array_equal(after, np.rot90(before, axes=(-2, -1)))


def test_the_long_axis_of_the_ellipse_turns_by_a_twelfth_of_a_turn(grid):
    for orientation in range(12):
        down, across = np.nonzero(grid[SHAPES.index("ellipse"), 3, orientation, 3, 3])
        direction = np.linalg.eigh(np.cov(across, -down))[1][:, -1]
        off = np.degrees(np.arctan2(direction[1], direction[0])) - 30 * orientation
        assert abs((off + 90) % 180 - 90) < 3


def test_shapes_are_what_they_are_called(grid):
    """Areas of 4 h^2; second moments of square and ellipse; the heart's tip is below and its lobes are above."""
    areas = grid.sum(axis=(-2, -1)).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(areas, 4 * np.square([[2.5, 3.4, 4.3, 5.2]] * 3), rtol=0.07)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    middle = 17 / 2 + 3

    def moment(shape, across, down):
        image = grid[SHAPES.index(shape), 3, 0, 3, 3]
        return float((image * (columns - middle) ** across * (rows - middle) ** down).sum() / image.sum())

    assert moment("square", 2, 0) == moment("square", 0, 2) == (11**2 - 1) / 12  # 11 pixels broad
    assert moment("ellipse", 2, 0) == pytest.approx(5.2**2 * 2 / np.pi, rel=0.05)  # half axis squared over 4
    assert moment("ellipse", 0, 2) == pytest.approx(5.2**2 / (2 * np.pi), rel=0.1)
    assert abs(moment("heart", 1, 0)) < 1e-12
    heart = grid[SHAPES.index("heart"), 3, 0, 3, 3]
    widths = heart.sum(axis=1)[heart.any(axis=1)]
    assert widths[-1] <= 3 < widths[: len(widths) // 2].max()
    assert moment("heart", 2, 1) < 0  # what is far from the middle line is high
    assert abs(moment("heart", 0, 1)) < 0.2


def test_they_are_drawn_alike_and_cannot_be_written_to(grid):
    again = sprites.__wrapped__()[0]
    np.testing.assert_array_equal(again.reshape(grid.shape), grid)
    with pytest.raises(ValueError, match="read-only"):
        grid[0] = 1


def test_the_loader_gives_them_in_splits_with_the_shape_as_label():
    x, found = sprites()
    label = {image.tobytes(): shape for image, shape in zip(x.astype(np.float32), found[:, 0], strict=True)}
    loaded = data.load("sprites", validation=0.1)
    assert (loaded.name, loaded.image_shape) == ("sprites", (24, 24, 1))
    assert [len(part.x) for part in loaded[1:4]] == [7465, 829, 922]
    for part in loaded[1:4]:
        assert [label[image.tobytes()] for image in part.x[:300]] == part.y[:300].tolist()


def test_factors_come_with_their_images():
    loaded = data.load_factors("sprites")
    x, found = sprites()
    np.testing.assert_array_equal(loaded.x, x)
    np.testing.assert_array_equal(loaded.factors, found)
    assert loaded.x.dtype == np.float32


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A folder with six faces of two people; the brightness of a face is its number."""
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    (tmp_path / "cmu_faces").mkdir()
    path = tmp_path / "cmu_faces" / "cmu_faces_60x64.npz"
    x = np.arange(6, dtype=np.uint8)[:, None, None] * np.full((1, 60, 64), 51, np.uint8)
    found = np.stack([np.arange(6) // 3, np.arange(6) % 3], axis=1).astype(np.uint8)
    np.savez(path, x=x, factors=found, factor_names=np.array(["person", "pose"]), person=np.array(["a", "b"]))
    return path


def test_faces_are_read_where_they_lie(faces):
    loaded = data.load_factors("cmu_faces")
    assert loaded.factor_names == ("person", "pose")
    np.testing.assert_allclose(loaded.x[:, 59, 63, 0], np.arange(6) / 5)
    np.testing.assert_array_equal(loaded.factors, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    split = data.load("cmu_faces", validation=0.2)
    for part in split[1:4]:
        np.testing.assert_array_equal(part.y, np.round(part.x[:, 0, 0, 0] * 5) >= 3)


def test_what_is_not_there_says_where_it_belongs(faces, monkeypatch):
    faces.write_bytes(faces.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cmu_faces_60x64.npz cannot be read .* Copy it again"):
        data.load("cmu_faces")
    faces.unlink()
    np.savez(faces, x=np.zeros((1, 60, 64), np.uint8))
    with pytest.raises(InputError, match=r"cannot be read .*factors"):
        data.load_factors("cmu_faces")
    faces.unlink()
    with pytest.raises(InputError, match=r"'cmu_faces' is not in .* Put cmu_faces/cmu_faces_60x64.npz there"):
        data.load("cmu_faces")
    monkeypatch.delenv("AEJAX_DATA")
    with pytest.raises(InputError, match="looked for in the folder AEJAX_DATA, which is not set"):
        data.load("cmu_faces")


def test_other_names_are_refused():
    with pytest.raises(InputError, match=r"'sprite' is no set with known factors. Did you mean 'sprites'"):
        data.load_factors("sprite")
