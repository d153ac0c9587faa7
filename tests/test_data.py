"""Splits, binarisation and the checks. Files and prepared sets are in tests/data."""

import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aejax.data.arrays
from aejax import data
from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Bernoulli, Categorical, NegativeBinomial
from aejax.methods.count_vae import CountVAE, count_vae

CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of the digits, from scikit-learn's user guide


def sorted_rows(*parts):
    """The examples of some splits in an order of their own, to compare as sets."""
    rows = np.concatenate([part.x.reshape(len(part.x), -1) for part in parts])
    return rows[np.lexsort(rows.T)]


def test_digits_are_scikit_learns_digits(digits):
    loaded = data.load("digits")
    parts = (loaded.train, loaded.validation, loaded.test)
    assert [len(part.x) for part in parts] == [1455, 162, 180]  # 180 of 1797, then 162 of the remaining 1617
    np.testing.assert_array_equal(sorted_rows(*parts), sorted_rows(Batch(digits)))
    np.testing.assert_array_equal(np.bincount(np.concatenate([part.y for part in parts])), CLASS_COUNTS)
    assert loaded.name == "digits"
    assert loaded.image_shape == (8, 8, 1)
    assert {part.x.dtype for part in parts} == {np.dtype(np.float32)}
    assert {part.y.dtype for part in parts} == {np.dtype(np.int32)}


def test_labels_stay_with_their_images(digits):
    from sklearn.datasets import load_digits

    label = {x.tobytes(): y for x, y in zip(digits, load_digits().target, strict=True)}
    loaded = data.flatten(data.load("digits", seed=3))
    for part in (loaded.train, loaded.validation, loaded.test):
        assert [label[x.tobytes()] for x in part.x] == part.y.tolist()


def test_the_seed_decides_the_split():
    first, again, other = (data.load("digits", seed=seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first[1:4], again[1:4])
    assert not np.array_equal(first.test.x, other.test.x)


def test_validation_is_the_end_of_the_training_split():
    whole, parted = data.load("digits", validation=0), data.load("digits", validation=0.25)
    assert whole.validation is None
    np.testing.assert_array_equal(whole.train.x, np.concatenate([parted.train.x, parted.validation.x]))
    np.testing.assert_array_equal(whole.test.x, parted.test.x)
    assert len(parted.validation.x) == 404  # a quarter of 1617


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 1.0}, r"validation=1.0; a fraction from 0 up to, not including, 1"),
        ({"validation": -0.1}, r"validation=-0.1"),
        ({"validation": float("nan")}, r"validation=nan"),
        ({"seed": -1}, r"seed=-1; it has to be zero or more"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        data.load("digits", **arguments)


def test_flatten_keeps_values_and_how_to_draw_them():
    images = data.load("digits", validation=0)
    vectors = data.flatten(images)
    assert vectors.train.x.shape == (1617, 64)
    assert vectors.validation is None
    np.testing.assert_array_equal(vectors.test.x.reshape(-1, *vectors.image_shape), images.test.x)


def test_binarize_draws_each_pixel_with_its_own_probability():
    p = jnp.array([0.0, 0.1, 0.5, 0.9, 1.0])
    n = 20_000
    batch = Batch(jnp.broadcast_to(p, (n, 5)), jnp.arange(n))
    drawn = jax.jit(data.binarize)(jax.random.key(0), batch)
    assert drawn.x.dtype == jnp.float32
    assert set(np.unique(drawn.x)) == {0.0, 1.0}
    # Five standard errors of a frequency; exact at probabilities 0 and 1.
    np.testing.assert_array_less(np.abs(drawn.x.mean(0) - p), 5 * np.sqrt(p * (1 - p) / n) + 1e-9)
    np.testing.assert_array_equal(drawn.y, batch.y)


def test_threshold_is_one_above_a_half():
    half = np.float32(0.5)
    x = np.array([[0, half, np.nextafter(half, np.float32(1)), 1]], np.float32)
    np.testing.assert_array_equal(data.threshold(Batch(x)).x, [[0, 0, 1, 1]])
    np.testing.assert_array_equal(data.threshold(Batch(jnp.asarray(x))).x, [[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("x", "likelihood", "message"),
    [
        (np.full((3, 4), 255.0), "bernoulli", r"from 255 to 255; the bernoulli likelihood needs \[0, 1\].* x / 255"),
        (np.array([[-0.5, 1.0]]), "bernoulli", r"from -0.5 to 1; .*\(x - x.min\(\)\) / \(x.max\(\) - x.min\(\)\)"),
        (np.array([[0.0, 1.0 + 1e-6]]), "bernoulli", r"\[0, 1\]"),
        (np.array([[0.0], [0.0], [np.nan], [np.inf]]), "gaussian", r"NaN or infinity .* 2 of its 4 .* row 2"),
        (np.zeros((3, 4, 5)), "gaussian", r"shape \(3, 4, 5\); \[N, D\] or \[N, H, W, C\] is needed"),
        (np.zeros(3), "gaussian", r"shape \(3,\)"),
        (np.zeros((0, 4)), "gaussian", r"shape \(0, 4\): no examples"),
        (np.zeros((4, 0)), "gaussian", r"examples without a value"),
        (np.array([["a"]]), "gaussian", r"dtype <U1; real numbers are needed"),
        (np.zeros((2, 2), complex), "gaussian", r"dtype complex128; real numbers"),
        (np.zeros((2, 2)), "bernouli", r"Unknown likelihood 'bernouli'. Did you mean 'bernoulli'"),
    ],
)
def test_check_says_what_came_and_what_to_do(x, likelihood, message):
    with pytest.raises(InputError, match=message) as error:
        data.check(x, likelihood, name="faces")
    assert "faces" in str(error.value) or "likelihood" in str(error.value)


def test_check_lets_good_data_pass():
    data.check(np.array([[0.0, 1.0], [0.5, 0.25]]), "bernoulli")
    data.check(np.zeros((2, 2), bool), "bernoulli")
    data.check(jnp.array([[-3e38, 3e38]]), "gaussian")


BYTES = np.arange(256, dtype=np.uint8).reshape(4, 64)


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
    ("x", "likelihood", "message", "advice"),
    [
        (BYTES, "bernoulli", r"x holds values from 0 to 255; .* \[0, 1\]. Rescale with x / 255,", lambda x: x / 255),
        (BYTES, Bernoulli(), r"Bernoulli\(\) needs \[0, 1\]. Rescale with x / 255,", lambda x: x / 255),
        (BYTES, "categorical", r"Rescale with x / 255,", lambda x: x / 255),
        (BYTES, "gaussian", r"uint8; floats .* Use x.astype\(np.float32\), divided", lambda x: x.astype(np.float32)),
        (BYTES, "gaussian", r"divided by 255 if these are pixels", lambda x: x.astype(np.float32) / 255),
        (BYTES, "poisson", r"x has dtype uint8; .* Use x.astype\(np.float32\)\.$", lambda x: x.astype(np.float32)),
        (BYTES > 9, "bernoulli", r"x has dtype bool; .* x.astype\(np.float32\)\.$", lambda x: x.astype(np.float32)),
        (
            np.float32(BYTES) / 80, "bernoulli", r"from 0 to 3.1875; .* Rescale with \(x - x.min",  # not / 255: black
            lambda x: (x - x.min()) / (x.max() - x.min()),
        ),
        (np.float32(BYTES) - 0.5 * (BYTES > 0), "bernoulli", r"from 0 to 254.5; .* x / 255,", lambda x: x / 255),
        (BYTES % 17, Categorical(17), r"from 0 to 16; .* Rescale with x / 16,", lambda x: x / 16),
        (
            BYTES.astype(np.int8), "bernoulli", r"from -128 to 127; .* x = x.astype\(np.float32\), then \(x - x.min",
            lambda x: (lambda x: (x - x.min()) / (x.max() - x.min()))(x.astype(np.float32)),
        ),
        (
            (BYTES * 400.0 - 5e4).astype(np.float16), "bernoulli", r"x = x.astype\(np.float32\), then \(x - x.min",
            lambda x: (lambda x: (x - x.min()) / (x.max() - x.min()))(x.astype(np.float32)),
        ),
        (
            np.float32(BYTES) / 255, Categorical(17), r"between the steps; .* 17 levels.* np.round\(x \* 16\) / 16",
            lambda x: np.round(x * 16) / 16,
        ),
        (np.float32(BYTES) / 2, "poisson", r"which are integers. Round them, np.round\(x\)", lambda x: np.round(x)),
        (np.float32(BYTES) - 9, NegativeBinomial(), r"from -9 to 246; .* integers from 0 up", lambda x: x + 9),
        (
            np.float32(BYTES) / 255, "negative_binomial", r"uint8 they were taken for grey .*: use int32\.$",
            lambda x: np.round(x * 255),
        ),
    ],
)  # fmt: skip
def test_python_data_are_checked_and_the_advice_ends_well(place, x, likelihood, message, advice):
    with pytest.raises(InputError, match=message):
        data.check_examples(Batch(place(x)), likelihood)
    data.check_examples(Batch(advice(place(x))), likelihood)


@pytest.mark.parametrize(
    ("x", "likelihood", "advice"),
    [
        (
            np.full((2, 2), 300.0),
            "bernoulli",
            r"\[0, 1\]. Use the gaussian likelihood\. Counts are",
        ),  # cannot be rescaled
        (np.float32(BYTES) / 80, "bernoulli", r"x.min\(\)\), or use the gaussian likelihood\.$"),
        (BYTES, "bernoulli", r"x / 255, or use the gaussian likelihood and x.astype\(np.float32\)\.$"),
        (BYTES.astype(np.int64) - 9, "poisson", r"or use the gaussian likelihood and x.astype\(np.float32\)\.$"),
        (np.float32(BYTES) / 2, "poisson", r"np.round\(x\), or use the gaussian likelihood\.$"),
        (np.float32(BYTES) / 250, "poisson", r"np.round\(x\), or use the gaussian likelihood\.$"),
    ],
)
def test_the_gaussian_likelihood_takes_whatever_is_told_to_use_it(x, likelihood, advice):
    with pytest.raises(InputError, match=advice):
        data.check_examples(x, likelihood)
    data.check_examples(x.astype(np.float32) if "astype" in advice else x, "gaussian")


def test_counts_are_told_of_the_method_for_them():
    """Whole numbers in rows; images, bytes, fractions and what is below zero are no counts."""
    counts = np.float32(BYTES) * 7
    for x, told in ((counts, 1), (counts + 0.5, 0), (counts - 1, 0), (BYTES, 0), (counts.reshape(4, 8, 8, 1), 0)):
        with pytest.raises(InputError, match="needs") as error:
            data.check_examples(x, "bernoulli")
        assert str(error.value).count(" Counts are for the method count_vae, as they are.") == told
    assert count_vae(CountVAE.dense(64, 2)).check(Batch(counts)) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_what_is_not_finite_is_found_on_host_and_device(place, bad):
    x = place(np.array([[0, 1], [1, 0], [bad, 0]], np.float32))
    for likelihood in ("bernoulli", "gaussian", "poisson"):
        with pytest.raises(InputError, match=r"NaN or infinity \(in float32\) in 1 of its 3 examples, first in row 2"):
            data.check_examples(x, likelihood)
    with pytest.raises(InputError, match="NaN or infinity"):
        data.check(np.array([[0.0, 1e39]]), "gaussian")  # finite in float64


def test_every_part_of_a_tree_is_checked_and_named():
    class Pair(NamedTuple):
        labelled: Batch
        unlabelled: Batch

    good, bad = Batch(jnp.zeros((2, 3)), jnp.array([7, -1])), Batch(np.full((5, 3), 2.0, np.float32))
    data.check_examples(Pair(good, good), "bernoulli")
    with pytest.raises(InputError, match=r"data\.unlabelled\.x holds values from 2 to 2"):
        data.check_examples(Pair(good, bad), "bernoulli")
    with pytest.raises(InputError, match=r"data\['b'\] holds"):
        data.check_examples({"a": good.x, "b": bad.x}, "bernoulli")
    with pytest.raises(InputError, match=r"x has shape \(3,\)"):
        data.check_examples(np.zeros(3, np.float32), "gaussian")
    data.check_examples(np.zeros((3, 4, 5), np.float32), "gaussian")  # a sequence, say
    jax.jit(lambda x: data.check_examples(Batch(x), "bernoulli"))(bad.x)  # has no values yet


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
def test_levels_are_recognised_in_any_precision(levels, dtype):
    x = (np.arange(levels)[None] / (levels - 1)).astype(dtype)
    for place in (np.asarray, jnp.asarray):
        if place is np.asarray or dtype != np.float64:
            data.check_examples(place(x), Categorical(levels))
    if levels < 256:  # half precision itself is hardly finer than bytes
        with pytest.raises(InputError, match="between the steps"):
            data.check_examples((np.array([[0.0, 0.27, 1.0]])).astype(dtype), Categorical(levels))


def test_data_larger_than_memory_are_refused(monkeypatch):
    monkeypatch.setattr(aejax.data.arrays, "memory_bytes", lambda: 2**30)
    with pytest.raises(InputError, match=r"x takes 1\.0 GiB as float32, and is held twice.* has 1\.0 GiB. Use fewer"):
        data.check(np.broadcast_to(np.float32(0), (2**11, 2**17)), "gaussian")
    data.check(np.broadcast_to(np.float32(0), (2**3, 2**17)), "gaussian")
    data.check(np.broadcast_to(np.float32(0), (2**11, 2**9)), "gaussian")


def test_importing_data_brings_nothing_heavy():
    heavy = ["tensorflow", "tensorflow_datasets", "sklearn", "matplotlib", "orbax", "torch", "PIL"]
    code = f"import sys, aejax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
