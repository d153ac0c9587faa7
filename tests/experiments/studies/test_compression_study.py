"""The study of compression: PSNR and interpolation by hand, crops, the principal start, its table, and a whole run."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from aejax.checks import InputError
from aejax.data import photographs
from aejax.evaluation import reconstruct
from aejax.methods.compressive_ae import CompressiveAE
from aejax.nets import init_params
from aejax.runner import launch
from aejax.runner.pieces import body
from experiments.studies import compression
from experiments.studies import compression_codecs as codecs
from experiments.studies import compression_tasks as tasks

SMALL = tasks.Options((10.0, 100.0), 16, 60, 60, 64, 3e-3)


def test_psnr_and_bits_between_settings():
    x, x_hat = np.full((2, 2), 100, np.uint8), np.array([[101, 99], [103, 97]], np.uint8)
    assert codecs.psnr(x, x_hat) == pytest.approx(10 * np.log10(255**2 / 5))  # (1 + 1 + 9 + 9) / 4
    assert codecs.psnr(x, x) == float("inf")
    assert codecs.bits_at(32, [34, 30], [4, 1]) == pytest.approx(2)  # half-way in log bits
    assert np.isnan(codecs.bits_at(35, [34, 30], [4, 1]))


def test_a_sheet_has_its_images_where_they_belong_and_gives_them_back():
    images = np.arange(5 * 4 * 2, dtype=np.uint8).reshape(5, 4, 2)
    sheet = codecs.sheet(images)
    assert sheet.shape == (8, 6)
    np.testing.assert_array_equal(sheet[4:, 2:4], images[4])
    np.testing.assert_array_equal(codecs.unsheet(sheet, images.shape), images)


def test_the_bytes_of_a_codec_are_those_of_a_file_and_png_loses_nothing(tmp_path):
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    file = tmp_path / "a.jpg"
    Image.fromarray(picture).save(file, optimize=True, quality=30)
    saved = codecs.saved(picture, "jpeg", 30)
    assert saved.num_bytes == file.stat().st_size
    with Image.open(file) as image:
        np.testing.assert_array_equal(saved.pixels, np.asarray(image))
    np.testing.assert_array_equal(codecs.saved(picture, "png").pixels, picture)
    np.testing.assert_array_equal(codecs.saved(picture, "webp_lossless").pixels, picture)


def test_crops_are_parts_of_the_pictures_or_of_their_halves():
    picture = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    by_hand = picture.astype(float)
    by_hand = (by_hand[::2, ::2] + by_hand[1::2, ::2] + by_hand[::2, 1::2] + by_hand[1::2, 1::2]) / 4
    np.testing.assert_array_equal(tasks.halved(picture), np.round(by_hand))
    found = np.round(255 * tasks.crops([picture], 40, 8, 0)).astype(np.uint8)
    sources = [picture, tasks.halved(picture)]
    every = {
        each[i : i + 8, j : j + 8][:, ::step].tobytes()
        for each in sources for step in (1, -1)
        for i in range(each.shape[0] - 7) for j in range(each.shape[1] - 7)
    }  # fmt: skip
    assert {crop.tobytes() for crop in found} <= every
    assert len({crop.tobytes() for crop in found}) > 20


def test_photographs_begin_with_a_picture_where_random_kernels_have_none():
    """One layer is a principal transform: what it leaves out is what the other directions hold, and rounding."""
    x = tasks.crops([np.asarray(each) for each in photographs.of_packages().values()][:2], 60, 16, 0)
    model = CompressiveAE.images(3, 24, features=(), strides=(4,), kernels=(5,))
    fresh = init_params(model, jax.random.key(0), x[:1])
    params = tasks.started(model, fresh, x, 60_000.0)
    blocks = x.reshape(60, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(-1, 48).astype(np.float64) - 0.5
    left_out = np.linalg.eigvalsh(blocks.T @ blocks / len(blocks))[:24].sum() / 48
    error = lambda own: np.square(reconstruct(model, own, x) - x).mean()
    rounding = 24 / 48 / 12 / 10_000  # of steps of 1 / sqrt(60,000 / 6)
    assert error(params) == pytest.approx(left_out + rounding, rel=0.05)
    assert error(fresh) > 10 * error(params)


def test_what_jpeg_needs_is_asked_of_each_file_by_itself():
    points = {"5": {"psnr_db": [20.0, 30.0], "bits_per_pixel": [1.0, 1.0]},
              "9": {"psnr_db": [30.0, 40.0], "bits_per_pixel": [4.0, 4.0]}}  # fmt: skip
    own = {"psnr_db": [25.0, 35.0], "bits_per_pixel": [1.9, 2.1]}
    found = compression._against("jpeg", points, own)
    assert found["jpeg_bits_per_pixel"] == pytest.approx(2)
    assert found["smaller_than_jpeg"] == 1
    beyond = compression._against("jpeg", points, own | {"psnr_db": [25.0, 45.0]})
    assert beyond["jpeg_bits_per_pixel"] is None


def test_the_page_has_the_tables_of_its_files():
    docs = Path(__file__).parents[3] / "docs"
    files = sorted(docs.glob("compression*.json"))
    assert files
    for file in files:
        assert compression.table(json.loads(file.read_text())) in (docs / "compression.md").read_text()


def test_crops_larger_than_every_photograph_are_refused():
    with pytest.raises(InputError, match="Crops of 16 pixels are larger than every photograph"):
        compression.tasks.crops([np.zeros((12, 20, 3), np.uint8)], 2, 16, 0)


def test_what_cannot_be_run_is_refused(monkeypatch):
    for options, match in (
        ({"dataset": "kodim"}, "Did you mean 'kodak'"),
        ({"digits": SMALL._replace(distortions=())}, "distortions=0"),
        ({"digits": SMALL._replace(distortions=(0.0,))}, "distortions is 0"),
        ({"digits": SMALL._replace(distortions=(10.0, 10.0))}, "rising numbers, none twice"),
        ({"digits": SMALL._replace(batch_size=5000)}, "--digits.batch-size 5000, and there are 1,617 examples"),
        ({"crop_side": 12}, "multiple of 8"),
        ({"num_seeds": 0}, "num-seeds=0"),
    ):
        with pytest.raises(InputError, match=match):
            list(compression.pieces(compression.Config(**options)))
    monkeypatch.delenv("AEJAX_DATA", raising=False)
    with pytest.raises(InputError, match=r"Put kodak/kodim01\.png to kodim24\.png there"):
        list(compression.pieces(compression.Config(dataset="kodak")))


@pytest.mark.slow
def test_on_digits_more_weight_means_less_error_and_fewer_bits_than_jpeg(tmp_path, capsys):
    flags = ["--digits.distortions", "10", "100", "--digits.latent-dim", "16", "--digits.first-epochs", "60"]
    flags += ["--digits.num-epochs", "60", "--num-seeds", "1", "--workdir", str(tmp_path / "run")]
    launch.command_line("compression", compression.Config, "", body(compression.STUDY), flags)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    low, high = (found["compressive_ae"][weight] for weight in ("10", "100"))
    assert low["psnr_db"][0] < high["psnr_db"][0]
    assert low["bits_per_pixel"][0] < high["bits_per_pixel"][0]
    for row in (low, high):
        assert (
            abs(row["net_bits_per_pixel"][0] / row["estimated_bits_per_pixel"][0] - 1) < 0.02
        )  # a word of a small file
        assert row["bits_per_pixel"][0] < row["jpeg_bits_per_pixel"][0]
    assert (tmp_path / "run" / "figures" / "curves.png").is_file()
    assert "| JPEG, quality 50 |" in capsys.readouterr().out
