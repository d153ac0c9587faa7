"""Files: codes that come back bit for bit, tables by scipy, sizes by the estimate, and whatever is refused."""

import math
import struct
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import aejax
from aejax import compress
from aejax.checks import InputError
from aejax.compress import codec, tables
from aejax.evaluation import call, reconstruct
from aejax.methods.compressive_ae import CompressiveAE
from aejax.nets.entropy import LogisticMixtures

MODEL = CompressiveAE.dense(64, 6, hidden_dims=(16,))
IMAGES = CompressiveAE.images(1, 3, features=(4,), strides=(2, 2), kernels=(3, 3))


def params_of(model, x, gain=2.5):
    """Fresh ones, of codes that are so much larger."""
    params = aejax.init_params(model, jax.random.key(0), x)
    return params | {"encoder": jax.tree.map(lambda v: gain * v, params["encoder"])}


@pytest.fixture(scope="module")
def x(digits):
    return digits[:700]


@pytest.fixture(scope="module")
def params(x):
    return params_of(MODEL, x)


@pytest.fixture(scope="module")
def data(params, x):
    return compress.compress(MODEL, params, x[:50])


def test_frequencies_are_the_shares_of_scipy_and_have_one_sum():
    rng = np.random.default_rng(0)
    own = {
        "logits": rng.normal(size=(3, 5)),
        "means": 9 * rng.normal(size=(3, 5)),
        "log_scales": rng.normal(size=(3, 5)),
    }
    found = tables.of_model(LogisticMixtures(5), own)
    weights = np.exp(own["logits"]) / np.exp(own["logits"]).sum(axis=0)
    for c, table in enumerate(found):
        assert table.frequencies.sum() == tables.TOTAL
        assert table.frequencies.min() >= 1
        n = table.low + np.arange(len(table.frequencies) - 1)
        cdf = lambda t, c=c: (
            weights[:, c] @ stats.logistic.cdf(t, own["means"][:, [c]], np.exp(own["log_scales"][:, [c]]))
        )
        shares = cdf(n + 0.5) - cdf(n - 0.5)
        np.testing.assert_allclose(table.frequencies[:-1] / tables.TOTAL, shares, atol=3e-4)
        np.testing.assert_allclose(table.frequencies[-1] / tables.TOTAL, 1 - shares.sum(), atol=2e-5)
        assert 1 - shares.sum() < 2.0**-16


def test_codes_come_back_and_the_picture_is_the_decoders(params, x, data):
    code, shape = compress.codes_of(MODEL, params, data)
    np.testing.assert_array_equal(code, np.round(call(MODEL, params, "encode", x[:50])))
    assert shape == (50, 64)
    assert len(np.unique(code)) > 5
    np.testing.assert_array_equal(compress.decompress(MODEL, params, data), reconstruct(MODEL, params, x[:50]))


def test_a_file_is_as_long_as_the_model_says(params, x):
    """Within 1 % and a word of 32 bits, beside the header, by an estimate of the test's own in float64."""
    data = compress.compress(MODEL, params, x)
    code = np.round(np.asarray(call(MODEL, params, "encode", x), np.float64))
    own = {name: np.asarray(v, np.float64) for name, v in params["entropy"].items()}
    cdf = lambda t: stats.logistic.cdf(t[:, None], own["means"], np.exp(own["log_scales"])).mean(axis=1)
    bits = -np.log2(cdf(code + 0.5) - cdf(code - 0.5)).sum()
    net = 8 * (len(data) - (17 + 4 * 2))
    assert abs(net - bits) < 0.01 * bits + 32
    assert compress.estimated_bits(MODEL, params, x) == pytest.approx(bits, rel=1e-4)


@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=40), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_integers_that_no_table_holds_come_back_too(values, seed):
    rng = np.random.default_rng(seed)
    own = {name: rng.normal(size=(2, 2)) for name in ("logits", "means", "log_scales")}
    known = tables.of_model(LogisticMixtures(2, 2), own)
    code = np.stack([values, rng.integers(-3, 4, len(values))], axis=1).astype(np.int32)
    np.testing.assert_array_equal(codec._read(codec._written(code, known), known, code.shape), code)


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (2, 7, 13, 1), (1, 1, 1, 1), (1, 5, 4, 1)])
def test_images_of_any_size(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    params = params_of(IMAGES, np.zeros((1, 8, 8, 1), np.float32), 3.0)
    data = compress.compress(IMAGES, params, x)
    x_hat = compress.decompress(IMAGES, params, data)
    np.testing.assert_array_equal(x_hat, reconstruct(IMAGES, params, x))
    assert x_hat.shape == shape
    assert compress.codes_of(IMAGES, params, data)[0].shape == (shape[0], -(-shape[1] // 4), -(-shape[2] // 4), 3)


def sealed(data):
    """With the checksum that its rest has."""
    return data[:4] + struct.pack("<I", zlib.crc32(data[8:])) + data[8:]


def test_other_bytes_and_other_models_are_refused(params, x, data):
    nearly = [params | {group: jax.tree.map(lambda v: v + 1e-6, params[group])} for group in params]
    for own, written, match in (
        *((other, data, "written with other parameters") for other in nearly),
        (params, b"", "0 bytes that are no file"),
        (params, b"PNG" + data[3:], "no file of aejax.compress"),
        (params, data[:3] + b"\2" + data[4:], "version 2"),
        (params, data[:-1], "damaged or cut off"),
        (params, data[:40] + bytes([data[40] ^ 1]) + data[41:], "damaged or cut off"),
        (params, sealed(data[:-1]), "words are not of four bytes"),
        ({"encoder": params["encoder"]}, data, "The parameters lack decoder, entropy"),
        (params, sealed(data[:17] + struct.pack("<II", 50, 63) + data[25:]), r"shape \(50, 63\)"),
        (params, sealed(data[:17] + struct.pack("<II", 2**31, 64) + data[25:]), "does not take"),
    ):
        with pytest.raises(InputError, match=match):
            compress.decompress(MODEL, own, written)
    for model, values, match in (
        (IMAGES, x, "takes images"),
        (MODEL, x[:, :9], r"These are examples of shape \(700, 9\), which this model does not take"),
        (MODEL, np.ones((3, 64), np.int32), "int32"),
        (aejax.AE.dense(64, 6), x, "This is a AE; a CompressiveAE is needed"),
    ):
        with pytest.raises(InputError, match=match):
            compress.compress(model, params, values)
    broken = params | {"encoder": jax.tree.map(lambda v: v * np.nan, params["encoder"])}
    with pytest.raises(InputError, match="not finite, or beyond"):
        compress.compress(MODEL, broken, x)
    with pytest.raises(InputError, match="means beyond"):
        compress.compress(MODEL, params | {"entropy": params["entropy"] | {"means": np.full((3, 6), 1e30)}}, x)


def test_the_same_parameters_in_another_model_and_other_tables_are_refused(params, data, monkeypatch):
    for other in (
        CompressiveAE.dense(64, 6, hidden_dims=(16,), activation=jax.numpy.tanh),
        CompressiveAE.dense(64, 6, hidden_dims=(16,), likelihood="bernoulli"),
    ):
        with pytest.raises(InputError, match="or another model"):
            compress.decompress(other, params, data)
    x = np.zeros((1, 8, 8, 1), np.float32)
    small = CompressiveAE.images(1, 3, features=(4,), strides=(2, 1), kernels=(3, 3))
    own = params_of(IMAGES, x)
    with pytest.raises(InputError, match="or another model"):
        compress.decompress(small, own, compress.compress(IMAGES, own, x))
    same = CompressiveAE.dense(64, 6, hidden_dims=(16,))
    np.testing.assert_array_equal(compress.decompress(same, params, data), compress.decompress(MODEL, params, data))
    known = tables.of_model(MODEL.entropy, params["entropy"])
    moved = known[2].frequencies.copy()
    moved[:2] += [1, -1]
    monkeypatch.setattr(
        tables, "of_model", lambda *args: [*known[:2], known[2]._replace(frequencies=moved), *known[3:]]
    )
    with pytest.raises(InputError, match="tables of frequencies differ"):
        compress.decompress(MODEL, params, data)


@pytest.mark.parametrize(
    ("weights", "means", "log_scale"), [((1.0, 0.0), (0, 0), 7.0), ((0.99, 0.01), (0, -300_000), 1.0)]
)
def test_wide_channels_and_stray_components_cost_what_the_model_says(weights, means, log_scale):
    """Within 1 %, of 20,000 integers drawn from the first component."""
    rng = np.random.default_rng(0)
    own = {
        "logits": np.log(np.array(weights)[:, None] + 1e-30),
        "means": np.array(means, float)[:, None],
        "log_scales": np.full((2, 1), log_scale),
    }
    known = tables.of_model(LogisticMixtures(1, 2), own)
    values = np.round(rng.logistic(means[0], np.exp(log_scale), 20_000)).astype(np.int32)
    cdf = lambda t: np.array(weights) @ stats.logistic.cdf(t, own["means"], np.exp(log_scale))
    bits = -np.log2(cdf(values + 0.5) - cdf(values - 0.5)).sum()
    assert 8 * len(codec._written(values[:, None], known)) == pytest.approx(bits, rel=0.01)


PROGRAM = """
import sys
import jax, numpy as np, aejax
from aejax import compress
model = aejax.CompressiveAE.images(1, 3, features=(4,), strides=(2, 2), kernels=(3, 3))
x = np.random.default_rng(0).random((1, 21, 30, 1)).astype(np.float32)
params = aejax.init_params(model, jax.random.key(0), x)
params = params | {"encoder": jax.tree.map(lambda v: 4 * v, params["encoder"])}
sys.stdout.buffer.write(compress.compress(model, params, x))
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_and_either_reads_them():
    first, second = (
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout for _ in "ab"
    )
    assert first == second
    x = np.random.default_rng(0).random((1, 21, 30, 1)).astype(np.float32)
    params = aejax.init_params(IMAGES, jax.random.key(0), x)
    params = params | {"encoder": jax.tree.map(lambda v: 4 * v, params["encoder"])}
    np.testing.assert_array_equal(compress.decompress(IMAGES, params, first), reconstruct(IMAGES, params, x))
    assert math.isclose(8 * (len(first) - 33), compress.estimated_bits(IMAGES, params, x), rel_tol=0.01, abs_tol=32)
