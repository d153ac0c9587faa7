"""Bits back as a study: what other coders make of images, counted from their files, and a small run."""

import bz2
import io
import json
import lzma

import numpy as np
import pytest
from PIL import Image

from aejax.runner import launch, study
from experiments.studies import bits_back, publish


def test_a_sheet_is_rows_of_images():
    images = np.random.default_rng(0).random((5, 2, 3)) > 0.5
    found = bits_back.sheet(images)
    assert found.shape == (6, 9)
    np.testing.assert_array_equal(found[:2], np.concatenate(images[:3], axis=1))
    np.testing.assert_array_equal(found[2:4, :6], np.concatenate(images[3:], axis=1))
    assert not found[2:, 6:].any()
    assert not found[4:].any()


def test_the_published_table_is_that_of_its_summary():
    summary = json.loads((publish.DOCS / "bits_back.json").read_text())
    start, end = publish.marks("bits_back")
    page = (publish.DOCS / "bits_back.md").read_text()
    assert page.split(start)[1].split(end)[0] == bits_back.table(summary)
    assert np.abs(summary["metrics"]["bits_back"]["overhead_10"]).max() < 0.01


@pytest.mark.slow
def test_the_example_of_the_page_reads_what_it_wrote(capsys):
    example = (publish.DOCS / "bits_back.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(example.replace("num_epochs=30", "num_epochs=2"), "bits_back.md", "exec"), {})
    assert capsys.readouterr().out.startswith("True ")


def test_other_coders_are_counted_from_files_that_hold_the_images(tmp_path):
    images = np.random.default_rng(0).random((9, 8, 16)).cumsum(axis=2) % 5 > 2.5
    sizes = bits_back.pictures(images)
    for name, count in (("png", 9), ("webp", 9), ("png_sheet", 1), ("webp_sheet", 1)):
        total = 0
        for each in images if count == 9 else [images.reshape(3, 3, 8, 16).swapaxes(1, 2).reshape(24, 48)]:
            options = {"optimize": True} if "png" in name else {"lossless": True, "quality": 100}
            file = tmp_path / f"x.{name.partition('_')[0]}"
            Image.fromarray(each).save(file, **options)
            total += file.stat().st_size
            with Image.open(io.BytesIO(file.read_bytes())) as read:
                np.testing.assert_array_equal(np.asarray(read.convert("L")) > 127, each)
        assert sizes[name] == total
    bits = bytes(int("".join(map(str, row)), 2) for row in images.astype(int).reshape(-1, 8))
    assert bits_back.packed(images) == {"bz2": len(bz2.compress(bits)), "lzma": len(lzma.compress(bits))}


@pytest.mark.slow
def test_a_small_study(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = (rng.random((600, 4, 4)) < rng.choice([0.1, 0.9], (600, 1, 4))).astype(np.float32)
    np.savez("bars.npz", x=x[:300], x_test=x[300:])
    flags = (
        "--dataset",
        "bars.npz",
        "--hidden-dims",
        "8",
        "--latent-dim",
        "4",
        "--num-epochs",
        "30",
        "--num-seeds",
        "2",
    )
    launch.command_line("bits_back", bits_back.Config, "", study.body(bits_back.STUDY), (*flags, "--workdir", "run"))
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    own = metrics["bits_back"]
    assert len(set(own["bits_per_pixel"])) == 2
    np.testing.assert_allclose(own["bits_per_pixel"], np.array(own["message_nats"]) / np.log(2) / 16)
    np.testing.assert_allclose(own["overhead_10"], np.array(own["message_nats"]) / own["test_bound_nats"] - 1)
    assert np.abs(own["overhead_10"]).max() < 0.04  # 300 images of one code each
    header_and_rest = 8 * 29 + own["initial_bits"][0] + 64
    assert (np.array(own["file_bits_per_pixel"]) - own["bits_per_pixel"]).max() * 300 * 16 <= header_and_rest
    assert metrics["png"]["bits_per_pixel"][0] > metrics["png_sheet"]["bits_per_pixel"][0] > own["bits_per_pixel"][0]
    shown = capsys.readouterr().out
    assert "| bits back |" in shown
    assert "| WebP, lossless, all images in one |" in shown
