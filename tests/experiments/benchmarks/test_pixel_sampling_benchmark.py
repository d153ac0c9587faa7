"""The benchmark of drawing pixel by pixel: both ways draw the same images, and its operations are those by hand."""

import numpy as np
import pytest

from aejax.checks import InputError
from experiments.benchmarks import pixel_sampling

SMALL = pixel_sampling.Config(num_images=3, naive_images=2, size=4, features=(4, 4), kernel_size=3)


def test_both_ways_draw_the_same_images_and_figures_are_of_one_image(monkeypatch):
    turns = {pixel_sampling.KEPT: [30.0, 60.0], pixel_sampling.FEW: [20.0, 40.0], pixel_sampling.NAIVE: [400.0, 200.0]}
    found = {}

    def interleave(calls, rounds, seconds):
        found.update({name: call() for name, call in calls.items()})
        return turns

    monkeypatch.setattr(pixel_sampling, "interleave", interleave)
    monkeypatch.setattr(pixel_sampling, "flops", lambda config: {})
    figures = pixel_sampling.measure(SMALL)
    np.testing.assert_array_equal(found[pixel_sampling.FEW], found[pixel_sampling.NAIVE])
    assert {name: len(images) for name, images in found.items()} == figures["images"]
    assert figures["pixels_that_differ"] == 0
    assert figures["seconds"][pixel_sampling.KEPT] == pytest.approx([0.015, 0.01, 0.02])
    assert figures["seconds"][pixel_sampling.NAIVE] == pytest.approx([0.15, 0.1, 0.2])
    assert figures["speed"][pixel_sampling.NAIVE] == pytest.approx((20 + 5) / 2)
    assert figures["speed_as_few"] == pytest.approx((20 + 5) / 2)


def test_operations_are_those_of_the_products_and_not_many_more():
    """Of 784 places: two operations for each weight that a place meets, and for a pass for each place that squared."""
    config = pixel_sampling.Config(features=(32, 32))
    found = pixel_sampling.flops(config)
    first = (2 * 5 * 1 + 3 * 1) * 64 + 64 * 64 + 32 * 32
    layer = (3 * 5 + 3) * 32 * 64 + 64 * 64 + 32 * 32
    products = 2 * 784 * (first + layer + 32 * 32 + 32)
    assert products < found[pixel_sampling.KEPT] < 1.35 * products
    assert 784 * products < found[pixel_sampling.NAIVE] < 1.35 * 784 * products


def test_no_images_are_refused():
    with pytest.raises(InputError, match="naive-images"):
        pixel_sampling.measure(pixel_sampling.Config(naive_images=0))
