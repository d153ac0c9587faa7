"""Files that users bring: what is read, and what is said of those that cannot be."""

import numpy as np
import pytest

import aejax.data.arrays
from aejax import data
from aejax.checks import InputError


def numbered(n, *shape):
    """n examples, each filled with its own number."""
    return np.broadcast_to(np.arange(n, dtype=np.float64).reshape(n, *[1] * len(shape)), (n, *shape))


def numbers(part):
    """Which of the `numbered` examples a split holds."""
    return part.x.reshape(len(part.x), -1)[:, 0].astype(int).tolist()


def save(tmp_path, **arrays):
    path = tmp_path / "faces.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "example", "image_shape"),
    [((5,), (5,), None), ((3, 4), (3, 4, 1), (3, 4, 1)), ((3, 4, 2), (3, 4, 2), (3, 4, 2))],
)
def test_splits_are_disjoint_and_cover_the_file(tmp_path, shape, example, image_shape):
    path = tmp_path / "faces.npy"
    np.save(path, numbered(50, *shape))
    loaded = data.load(str(path))
    parts = [numbers(part) for part in (loaded.train, loaded.validation, loaded.test)]
    assert [len(part) for part in parts] == [41, 4, 5]
    assert sorted(i for part in parts for i in part) == list(range(50))
    assert loaded.train.x.shape[1:] == example
    assert loaded.image_shape == image_shape
    assert loaded.name == "faces"
    assert loaded.train.y is None
    assert loaded.test.y is None


def test_labels_and_a_test_set_of_its_own(tmp_path):
    path = save(tmp_path, x=numbered(20, 3), y=np.arange(20), x_test=numbered(4, 3), y_test=np.arange(4.0))
    loaded = data.load(path, validation=0.25)
    assert numbers(loaded.test) == [0, 1, 2, 3]
    assert loaded.test.y.tolist() == [0, 1, 2, 3]
    assert [len(loaded.train.x), len(loaded.validation.x)] == [15, 5]
    assert sorted(numbers(loaded.train) + numbers(loaded.validation)) == list(range(20))
    for part in (loaded.train, loaded.validation):
        assert part.y.tolist() == numbers(part)
        assert part.y.dtype == np.int32


def test_a_validation_set_of_its_own_is_taken_whole_or_not_at_all(tmp_path):
    valid = {"x_valid": numbered(30, 3)[20:], "y_valid": np.arange(20, 30)}
    path = save(tmp_path, x=numbered(20, 3), y=np.arange(20), x_test=numbered(4, 3), **valid)
    for validation in (0.0, 0.1, 0.5):
        loaded = data.load(path, validation=validation)
        assert sorted(numbers(loaded.train)) == list(range(20))
        assert numbers(loaded.test) == [0, 1, 2, 3]
        if validation:
            assert numbers(loaded.validation) == loaded.validation.y.tolist() == list(range(20, 30))
        else:
            assert loaded.validation is None
    untested = data.load(save(tmp_path, x=numbered(20, 3), **valid))
    assert [len(untested.train.x), len(untested.validation.x), len(untested.test.x)] == [18, 10, 2]


def test_uint8_of_the_validation_set_decides_the_scale_too(tmp_path):
    dark, bright = np.ones((10, 2), np.uint8), np.full((10, 2), 255, np.uint8)
    loaded = data.load(save(tmp_path, x=dark, x_test=dark, x_valid=bright))
    np.testing.assert_array_equal(loaded.train.x, np.float32(1 / 255))


def test_a_file_sorted_by_label_does_not_leave_one_class_for_validation(tmp_path):
    path = save(tmp_path, x=numbered(200, 3), y=np.repeat([0, 1], 100), x_test=numbered(4, 3))
    loaded = data.load(path)
    assert set(loaded.validation.y) == {0, 1}
    assert loaded.test.y is None


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), [0, 0.2, 1]),
        (np.array([[0, 1, 1]], np.uint8), [0, 1, 1]),
        (np.array([[False, True, True]]), [0, 1, 1]),
        (np.array([[0, 51, 255]], np.int64), [0, 51, 255]),
        (np.array([[-1, 0.5, 3]], np.float16), [-1, 0.5, 3]),
        (np.array([[-1, 0.5, 3]], ">f8"), [-1, 0.5, 3]),
    ],
)
def test_only_uint8_is_scaled(tmp_path, x, expected):
    x = np.repeat(x, 10, axis=0)
    loaded = data.load(save(tmp_path, x=x, x_test=x))
    for part in (loaded.train, loaded.validation, loaded.test):
        assert part.x.dtype == np.float32
        np.testing.assert_array_equal(part.x, np.broadcast_to(np.float32(expected), part.x.shape))


def test_uint8_is_scaled_alike_in_both_splits(tmp_path):
    dark, bright = np.ones((10, 2), np.uint8), np.full((10, 2), 255, np.uint8)
    loaded = data.load(save(tmp_path, x=bright, x_test=dark))
    np.testing.assert_array_equal(loaded.test.x, np.float32(1 / 255))


def test_compressed_files_are_read(tmp_path):
    path = tmp_path / "faces.npz"
    np.savez_compressed(path, x=np.ones((10, 4), np.float32))
    assert data.load(str(path)).train.x.sum() == 32  # 8 examples of 4 ones


GOOD = np.zeros((10, 4), np.float32)
BAD_ROWS = np.where(np.arange(10)[:, None] == 7, np.nan, GOOD)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD, "y": GOOD}, r"holds arrays images, y; the examples have to be named x"),
        ({}, r"holds no arrays"),
        ({"x": np.zeros(10)}, r"x of faces.npz has shape \(10,\); \[N, D\] or \[N, H, W\] or \[N, H, W, C\] is needed"),
        ({"x": np.zeros((10, 1, 2, 3, 4))}, r"x of faces.npz has shape \(10, 1, 2, 3, 4\)"),
        ({"x": np.zeros((0, 4))}, r"x of faces.npz has shape \(0, 4\): no examples"),
        ({"x": GOOD.astype(complex)}, r"x of faces.npz has dtype complex128; real numbers are needed"),
        ({"x": GOOD.astype(object)}, r"x of faces.npz has dtype object; real numbers are needed"),
        ({"x": GOOD.astype(str)}, r"x of faces.npz has dtype <U32; real numbers are needed"),
        ({"x": BAD_ROWS}, r"x of faces.npz holds NaN or infinity .* 1 of its 10 examples, first in row 7"),
        ({"x": GOOD, "x_test": BAD_ROWS}, r"x_test of faces.npz holds NaN or infinity"),
        ({"x": GOOD + np.float64(1e300)}, r"x of faces.npz holds NaN or infinity \(in float32\) in 10"),
        ({"x": GOOD, "y": np.zeros(9, int)}, r"y of faces.npz has shape \(9,\); one integer for each of the 10"),
        ({"x": GOOD, "y": np.eye(10)}, r"y of faces.npz has shape \(10, 10\).*They are one-hot: y.argmax\(axis=1\)"),
        (
            {"x": GOOD, "y": np.ones((10, 2))},
            r"y of faces.npz has shape \(10, 2\).* Choose one of its columns: y\[:, 0\]",
        ),
        (
            {"x": GOOD, "y": np.ones((10, 1, 1))},
            r"y of faces.npz has shape \(10, 1, 1\); one integer for each .* needed\.$",
        ),
        ({"x": GOOD, "y": np.arange(10) / 2}, r"y of faces.npz holds 0.5 in row 1; labels have to be integers"),
        ({"x": GOOD, "y": np.full(10, 2**40)}, r"y of faces.npz holds 1099511627776 in row 0; .*32 bits"),
        ({"x": GOOD, "y": np.full(10, np.nan)}, r"y of faces.npz holds nan in row 0"),
        ({"x": GOOD, "y": np.array(["a"] * 10)}, r"y of faces.npz has dtype <U1; labels have to be integers"),
        ({"x": GOOD, "x_test": np.zeros((3, 5))}, r"x_test of faces.npz .*shape \(5,\); those of x are \(4,\)"),
        ({"x": GOOD, "x_test": np.zeros((3, 4), np.uint8)}, r"x_test of faces.npz is uint8 and x is float32"),
        ({"x": GOOD, "y_test": np.zeros(3, int)}, r"holds y_test without x_test"),
        ({"x": GOOD, "y_valid": np.zeros(3, int)}, r"holds y_valid without x_valid"),
        ({"x": GOOD, "x_valid": np.zeros((3, 5))}, r"x_valid of faces.npz .*shape \(5,\); those of x are \(4,\)"),
        ({"x": GOOD[:2]}, r"faces.npz has 2 examples, too few to divide into 3 splits"),
        ({"x": GOOD[:1], "x_test": GOOD}, r"faces.npz has 1 examples, too few to divide into 2 splits"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message) as error:
        data.load(save(tmp_path, **arrays))
    assert len(str(error.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("arrays", "mended"),
    [
        ({"images": GOOD, "labels": np.arange(10)}, {"x": GOOD, "y": np.arange(10)}),
        ({"x": BAD_ROWS}, {"x": np.nan_to_num(BAD_ROWS)}),
        ({"x": BAD_ROWS}, {"x": np.delete(BAD_ROWS, 7, axis=0)}),  # the row that the message names
        ({"x": GOOD + np.uint8(9), "x_test": np.full((3, 4), 9, np.uint8)},
         {"x": (GOOD + 9).astype(np.uint8), "x_test": np.full((3, 4), 9, np.uint8)}),
        ({"x": GOOD, "y": np.arange(10) / 2}, {"x": GOOD, "y": np.arange(10)}),
    ],
)  # fmt: skip
def test_arrays_that_are_mended_as_the_refusal_says_are_read(tmp_path, arrays, mended):
    with pytest.raises(InputError):
        data.load(save(tmp_path, **arrays))
    assert np.isfinite(data.load(save(tmp_path, **mended)).train.x).all()


@pytest.mark.parametrize("shape", [(30, 1), (30,)])
def test_a_column_of_labels_is_taken_as_labels(tmp_path, shape):
    y = np.arange(30) % 3
    x = np.stack([y, y], axis=1) / 2
    np.savez(tmp_path / "scans.npz", x=x, y=y.reshape(shape), x_test=x[:7], y_test=y[:7].reshape(7, *shape[1:]))
    loaded = data.load(str(tmp_path / "scans.npz"))
    for part in (loaded.train, loaded.test):
        np.testing.assert_array_equal(part.y, 2 * part.x[:, 0])


def test_the_advice_about_labels_leaves_them_what_they_are(tmp_path):
    y = np.arange(30) % 3
    for labels, advised in ((np.eye(3)[y], lambda y: y.argmax(axis=1)), (np.stack([y, y > 0], 1), lambda y: y[:, 0])):
        x = np.stack([y, y], axis=1) / 2
        np.savez(tmp_path / "scans.npz", x=x, y=labels)
        with pytest.raises(InputError):
            data.load(str(tmp_path / "scans.npz"))
        np.savez(tmp_path / "scans.npz", x=x, y=advised(labels))
        loaded = data.load(str(tmp_path / "scans.npz"))
        np.testing.assert_array_equal(loaded.train.y, 2 * loaded.train.x[:, 0])


def test_the_fewest_examples_that_can_be_split(tmp_path):
    loaded = data.load(save(tmp_path, x=numbered(3, 2)))
    assert sorted(i for part in loaded[1:4] for i in numbers(part)) == [0, 1, 2]


def test_a_missing_file_has_its_neighbours_named(tmp_path):
    save(tmp_path, x=GOOD)
    with pytest.raises(InputError, match=r"There is no file .*face.npz. Did you mean 'faces.npz'\?"):
        data.load(str(tmp_path / "face.npz"))
    data.load(str(tmp_path / "faces.npz"))
    with pytest.raises(InputError, match=r"There is no file .*nowhere/face.npz. Its folder holds no .npy or .npz"):
        data.load(str(tmp_path / "nowhere" / "face.npz"))


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text("1,2\n")
    with pytest.raises(InputError, match=r"faces.csv is neither .npy nor .npz; .*numpy.save or numpy.savez\(x=...\)"):
        data.load(str(path))
    np.save(tmp_path / "faces.npy", GOOD)
    assert len(data.load(str(tmp_path / "faces.npy")).train.x) == len(data.load(save(tmp_path, x=GOOD)).train.x) == 8


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_unreadable_files(tmp_path, suffix):
    path = tmp_path / f"faces{suffix}"
    path.touch()
    with pytest.raises(InputError, match=r"is empty \(0 bytes\)"):
        data.load(str(path))
    path.write_text("not an array, whatever its name says")
    with pytest.raises(InputError, match=rf"cannot be read .*not be a {suffix} file"):
        data.load(str(path))
    if suffix == ".npy":
        np.save(path, np.ones((100, 20)))
    else:
        np.savez(path, x=np.ones((100, 20)))
    whole = path.read_bytes()
    for length in (5, 60, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            InputError, match=r"cannot be read .*may be cut short.*; write it again with numpy.savez?\.$"
        ):
            data.load(str(path))
    np.save(path, GOOD) if suffix == ".npy" else np.savez(path, x=GOOD)
    assert len(data.load(str(path)).train.x) == 8


def test_a_flipped_bit_in_an_archive_is_noticed(tmp_path):
    path = tmp_path / "faces.npz"
    np.savez(path, x=np.ones((100, 20)))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot be read .*CRC"):
        data.load(str(path))


def test_size_is_checked_before_anything_is_read(tmp_path, monkeypatch):
    path = tmp_path / "faces.npy"
    np.save(path, GOOD)
    header = path.read_bytes()[:128].replace(b"(10, 4)", b"(10000000, 40000)").replace(b" " * 10 + b"\n", b"\n")
    path.write_bytes(header)  # a header that promises 1.5 TiB
    monkeypatch.setattr(aejax.data.arrays, "memory_bytes", lambda: 2**34)
    with pytest.raises(InputError, match=r"x of faces.npy takes 1490\.1 GiB as float32.* this machine has 16\.0 GiB"):
        data.load(str(path))


def test_pickles_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    path = tmp_path / "faces.npy"
    np.save(path, np.array([[Bomb()], [Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="dtype object"):
        data.load(str(path))
