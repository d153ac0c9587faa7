"""Parts of images: the exact pixels, and both together again."""

import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import parts

A = np.arange(20).reshape(4, 5)  # its middle column, 2, is of the right half


@pytest.mark.parametrize(
    ("names", "pixels"),
    [
        (("lower_left",), [10, 11, 15, 16]),
        (("upper_left",), [0, 1, 5, 6]),
        (("upper_right",), [2, 3, 4, 7, 8, 9]),
        (("lower_right",), [12, 13, 14, 17, 18, 19]),
        (("left",), [0, 1, 5, 6, 10, 11, 15, 16]),
        (("right",), [2, 3, 4, 7, 8, 9, 12, 13, 14, 17, 18, 19]),
        (("upper",), list(range(10))),
        (("lower",), list(range(10, 20))),
        (("lower_left", "upper_left", "upper_right"), [i for i in range(20) if i not in (12, 13, 14, 17, 18, 19)]),
        (("left", "lower_left"), [0, 1, 5, 6, 10, 11, 15, 16]),
    ],
)
def test_the_pixels_of_a_region(names, pixels):
    seen = parts.region(A.shape, *names)
    assert A[seen].tolist() == pixels
    batch = parts.split(A[None], seen)
    assert batch.y.tolist() == [pixels]
    assert batch.x.tolist() == [[i for i in range(20) if i not in pixels]]


def test_the_parts_make_the_image_again_whatever_its_layout():
    x = np.random.default_rng(0).uniform(size=(3, 5, 4, 2)).astype(np.float32)
    seen = parts.region(x.shape[1:], "lower_left")
    assert np.flatnonzero(seen).tolist() == [
        16,
        17,
        18,
        19,
        24,
        25,
        26,
        27,
        32,
        33,
        34,
        35,
    ]  # rows 2 to 4, both channels
    batch = parts.split(x, seen)
    np.testing.assert_array_equal(parts.join(*batch, seen), x)
    np.testing.assert_array_equal(parts.split(x.reshape(3, -1), seen).x, batch.x)
    other = parts.join(np.zeros_like(batch.x), batch.y, seen)
    assert not other[:, ~seen].any()
    np.testing.assert_array_equal(other[:, seen], batch.y)


def test_what_is_no_part_is_refused():
    with pytest.raises(InputError, match=r"Unknown region 'lower left'\. Did you mean 'lower_left'"):
        parts.region((4, 4), "lower left")
    for names in ((), ("left", "right")):
        with pytest.raises(InputError, match=r"are (nothing|all) of an image"):
            parts.region((4, 4), *names)
    with pytest.raises(InputError, match="images have a shape"):
        parts.region((16,), "left")
    with pytest.raises(InputError, match="as many numbers"):
        parts.split(np.zeros((2, 15)), parts.region((4, 4), "left"))
    with pytest.raises(InputError, match=r"wanted are \(\(2, 8\), \(2, 8\)\)"):
        parts.join(np.zeros((2, 8)), np.zeros((2, 7)), parts.region((4, 4), "left"))
