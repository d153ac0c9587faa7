"""Photographs: read as they lie, those of packages that are there, and what is missing is named."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from aejax.checks import InputError
from aejax.data import photographs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "kodak").mkdir()
    for i in range(1, 25):
        Image.fromarray(np.full((2, 3, 3), i, np.uint8)).save(tmp_path / "kodak" / f"kodim{i:02}.png")
    monkeypatch.setenv("AEJAX_DATA", str(tmp_path))
    return tmp_path / "kodak"


def test_kodak_is_read_in_its_order_and_its_digest_tells_a_pixel(folder):
    found = photographs.kodak()
    assert [int(pixels[0, 0, 0]) for pixels in found.values()] == list(range(1, 25))
    assert list(found)[::23] == ["kodim01", "kodim24"]
    before = photographs.digest()
    Image.fromarray(np.full((2, 3, 3), 99, np.uint8)).save(folder / "kodim07.png")
    assert photographs.digest() != before
    (folder / "kodim07.png").write_bytes(b"PNG")
    with pytest.raises(InputError, match="kodim07"):
        photographs.kodak()
    (folder / "kodim07.png").unlink()
    with pytest.raises(InputError, match=r"Put kodak/kodim01\.png to kodim24\.png there"):
        photographs.kodak()


def test_without_scikit_image_those_of_scikit_learn_are_left(monkeypatch):
    def without(name):
        if name == "scikit-image":
            raise PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr(photographs, "distribution", without)
    found = photographs.of_packages()
    assert list(found) == ["china", "flower"]
    for pixels, wanted in zip(found.values(), load_sample_images().images, strict=True):
        np.testing.assert_array_equal(pixels, wanted)
