"""Bits back: messages read again to the bit, their length against the bound and against probabilities by scipy."""

import pickle
import subprocess
import sys
from functools import cache, partial

import constriction
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_expit

import aejax
from aejax import evaluation, likelihoods, priors
from aejax.evaluation import bits_back

KEY = jax.random.key(0)
MODEL = aejax.VAE.dense(64, 8, hidden_dims=(32,))


@cache
def codec_of(latent_bits):
    return bits_back._Codec(MODEL, aejax.init_params(MODEL, KEY, np.zeros((1, 64), np.float32)), latent_bits)


@pytest.fixture(scope="module")
def x(digits):
    return (digits > 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def fresh(x):
    """Untrained, with posteriors wider than the prior: codes that hang on those before would run away."""
    params = aejax.init_params(MODEL, KEY, x[:1])
    head = params["encoder"]["dense_1"]
    return params | {"encoder": params["encoder"] | {"dense_1": head | {"bias": head["bias"].at[8:].set(0.3)}}}


@pytest.fixture(scope="module")
def trained(x):
    algo = aejax.vae(MODEL, lr=3e-3)
    run = partial(aejax.fit, algo, batch_size=100, num_epochs=20)
    return jax.jit(run)(algo.init(aejax.init_params(MODEL, KEY, x[:1])), aejax.Batch(x), KEY)[0].params


def log2_weights(params, x, bins, latent_bits):
    """Of each image, bits of `-log p(x|z) - log p(z) + log q(z|x)` at the medians of the bins of its code, by scipy."""
    edges = stats.norm.ppf(np.arange(2**latent_bits + 1) / 2**latent_bits)
    z = stats.norm.ppf((bins + 0.5) / 2**latent_bits)
    step = lambda values, n: np.round(np.asarray(values, np.float64) * n) / n
    posterior = MODEL.apply({"params": params}, x, method="encode")
    mean, std = step(posterior.mean, 1024), np.exp(step(posterior.logvar, 64) / 2)
    upper, lower = stats.norm.cdf(edges[bins + 1], mean, std), stats.norm.cdf(edges[bins], mean, std)
    logits = step(MODEL.apply({"params": params}, z.astype(np.float32), method="decode"), 64)
    log_x = log_expit(np.where(x == 1, logits, -logits)).sum(axis=1) / np.log(2)
    return -log_x + latent_bits * bins.shape[1] + np.log2(upper - lower).sum(axis=1)


def appended(params, x, latent_bits, seed=0):
    """The codes of images, from the moves that `encode` is made of, and the bits that they took."""
    codec = bits_back._Codec(MODEL, params, latent_bits)
    words, masks = bits_back._random(seed, len(x), 8, latent_bits)
    coder = bits_back._coder(words)
    bins = np.stack([codec.append(coder, image, mask) for image, mask in zip(x, masks, strict=True)])
    return bins, coder.num_valid_bits() - 32 * len(words)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["fresh", "trained"])
def test_the_message_is_the_bound_and_comes_back_bit_for_bit(which, request, x):
    """On half of the digits, with an estimate of the bound of the test's own, of 16 codes of each image."""
    params, x = request.getfixturevalue(which), x[::2]
    message = bits_back.encode(MODEL, params, x)
    read = bits_back.decode(MODEL, params, message.data)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, x)

    posterior = MODEL.apply({"params": params}, x, method="encode")
    z = jax.vmap(posterior.sample)(jax.random.split(KEY, 16))
    log_q = stats.norm.logpdf(z, posterior.mean, np.exp(posterior.logvar / 2)).sum(axis=2)
    nll = jax.vmap(lambda z: MODEL.apply({"params": params}, z, x, method="nll"))(z)
    each = np.asarray(nll) - stats.norm.logpdf(z).sum(axis=2) + log_q  # [16, N]
    error = np.sqrt(np.square(each.std(axis=0)).sum() * (1 + 1 / 16)) / len(x)  # the message has one code of each
    assert abs(message.nats_per_image - each.mean()) < min(4 * error, 0.01 * each.mean())
    assert message.num_images == len(x)
    assert message.initial_bits == 32 * (8 + 2)
    assert 0 <= 8 * len(message.data) - 8 * 29 - message.initial_bits - message.net_bits <= 64


@pytest.mark.slow
@pytest.mark.parametrize("latent_bits", [4, 12, 16])
def test_every_image_takes_the_bits_of_its_probabilities(trained, x, latent_bits):
    bins, bits = appended(trained, x[:50], latent_bits)
    message = bits_back.encode(MODEL, trained, x[:50], latent_bits=latent_bits)
    assert message.net_bits == bits
    leak = 50 * 8 * 2**latent_bits / 2**24 * np.log2(np.e)  # what the bins get so that none is impossible
    assert bits == pytest.approx(log2_weights(trained, x[:50], bins, latent_bits).sum() - 0.5 * leak, abs=3 + leak)


def test_codes_are_drawn_from_the_posterior(trained, x):
    """Of one image, over and over: its codes are independent normal draws."""
    bins, _ = appended(trained, np.repeat(x[:1], 3000, axis=0), 12)
    posterior = MODEL.apply({"params": trained}, x[:1], method="encode")
    scores = (stats.norm.ppf((bins + 0.5) / 4096) - posterior.mean) / np.exp(posterior.logvar / 2)
    assert min(stats.kstest(column, "norm").pvalue for column in scores.T) > 1e-4
    assert np.abs((scores[1:] * scores[:-1]).mean(axis=0)).max() < 4 / np.sqrt(3000)  # not those of the image before


def test_bins_have_equal_prior_mass_and_their_medians():
    codec = bits_back._Codec(MODEL, aejax.init_params(MODEL, KEY, np.zeros((1, 64), np.float32)), 6)
    np.testing.assert_allclose(stats.norm.cdf(codec.edges), np.arange(65) / 64, atol=1e-12)
    np.testing.assert_allclose(stats.norm.cdf(codec.medians), (np.arange(64) + 0.5) / 64, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_taken_off_the_stack_and_put_back_leaves_it_as_it_was(data):
    """Whatever the distributions, narrow and far out ones too, and however little there is on the stack."""
    latent_bits, size = data.draw(st.sampled_from([1, 5, 12, 16])), data.draw(st.integers(1, 9))
    codec = codec_of(latent_bits)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    mean, std = rng.normal(0, rng.choice([1, 30]), size), np.exp(rng.uniform(-16, 16, size))
    words = rng.integers(0, 2**32, data.draw(st.integers(0, 12)), dtype=np.uint32)
    coder = bits_back._coder(words)
    bins = coder.decode(codec.posterior, mean, std)
    assert bins.min() >= 0
    assert bins.max() < 2**latent_bits
    coder.encode_reverse(bins, codec.posterior, mean, std)
    np.testing.assert_array_equal(coder.get_compressed(True), words)

    chosen = rng.integers(0, 2**latent_bits, size, dtype=np.int32)  # a bin of no mass costs bits, and comes back
    coder.encode_reverse(chosen, codec.posterior, mean, std)
    assert coder.num_valid_bits() <= 32 * len(words) + 24 * size + 32
    np.testing.assert_array_equal(coder.decode(codec.posterior, mean, std), chosen)
    np.testing.assert_array_equal(coder.get_compressed(True), words)


@pytest.mark.parametrize("seed", range(3))
def test_the_coder_takes_the_entropy_of_what_it_codes(seed):
    """Alphabets of any size, and bits of probabilities from 1e-6 to 1: within a bit, and a millionth."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(rng.integers(2, 300), 0.5))
    symbols = rng.choice(len(p), 20_000, p=p).astype(np.int32)
    chances = 1 / (1 + np.exp(rng.uniform(-14, 14, 20_000)))
    bits = (rng.random(20_000) < chances).astype(np.int32)
    model = constriction.stream.model.Categorical(p, perfect=False)
    for values, used, ideal in (
        (symbols, (model,), -np.log2(p[symbols]).sum()),
        (bits, (codec_of(1).likelihood, chances), -np.log2(np.where(bits, chances, 1 - chances)).sum()),
    ):
        coder = bits_back._coder(np.arange(9, dtype=np.uint32))
        coder.encode_reverse(values, *used)
        assert coder.num_valid_bits() - 9 * 32 == pytest.approx(ideal, abs=2, rel=1e-6)


def test_pixels_that_the_model_has_for_impossible_cost_24_bits_each():
    model = aejax.VAE.dense(16, 2, hidden_dims=())
    x = np.float32([[1] * 16, [0] * 16])
    params = jax.tree.map(jnp.zeros_like, aejax.init_params(model, KEY, x))
    params["decoder"]["dense_0"]["bias"] = jnp.where(jnp.arange(16) < 8, 1e4, -1e4)
    message = bits_back.encode(model, params, x)
    np.testing.assert_array_equal(bits_back.decode(model, params, message), x)
    assert message.net_bits == pytest.approx(16 * 24, abs=2)


@pytest.mark.parametrize("logvar", [-1e4, -80.0, 80.0, 1e4])
def test_posteriors_of_no_width_and_of_any(x, logvar):
    """A posterior within one bin gives no bits back; one far wider than the prior is in the first and the last bin."""
    params = jax.tree.map(jnp.zeros_like, aejax.init_params(MODEL, KEY, x[:1]))
    params["encoder"]["dense_1"]["bias"] = jnp.concatenate([jnp.full(8, 0.3), jnp.full(8, logvar)])
    message = bits_back.encode(MODEL, params, x[:20], latent_bits=6)
    np.testing.assert_array_equal(bits_back.decode(MODEL, params, message), x[:20])
    returned = 0 if logvar < 0 else 1  # which of the two it is
    assert message.bits_per_image == pytest.approx(64 + 8 * (6 - returned), abs=0.1)


def test_one_image_and_seeds(trained, x):
    first, other = (bits_back.encode(MODEL, trained, x[3:4], seed=seed) for seed in (0, 2**64 - 1))
    for message in (first, other):
        np.testing.assert_array_equal(bits_back.decode(MODEL, trained, message), x[3:4])
    assert first.data[29:] != other.data[29:]
    assert bits_back.encode(MODEL, trained, x[3:4]).data == first.data


def test_measure_is_the_length_over_the_bound(trained, x):
    found = bits_back.measure(MODEL, trained, x[:40], KEY, seed=5, num_samples=4)
    assert found.message == bits_back.encode(MODEL, trained, x[:40], seed=5)
    assert found.bound_nats == evaluation.nll(MODEL, trained, x[:40], KEY, num_samples=4).curve[1]
    nats = found.message.net_bits * np.log(2) / 40
    assert found.overhead == pytest.approx(nats / found.bound_nats - 1)


@pytest.mark.slow
def test_images_keep_their_shape(x):
    model = aejax.VAE.conv((8, 8, 1), 3, features=(4, 4), strides=(2, 2))
    images = x[:6].reshape(-1, 8, 8, 1)
    params = aejax.init_params(model, KEY, images)
    np.testing.assert_array_equal(bits_back.decode(model, params, bits_back.encode(model, params, images)), images)


SCRIPT = """
import pickle, sys
import numpy as np
from aejax.evaluation import bits_back
import aejax
params, x, data = pickle.load(open(sys.argv[1], "rb"))
model = aejax.VAE.dense(64, 8, hidden_dims=(32,))
assert bits_back.encode(model, params, x).data == data
assert np.array_equal(bits_back.decode(model, params, data), x)
"""


@pytest.mark.slow
def test_another_process_writes_the_same_bytes_and_reads_them(trained, x, tmp_path):
    data = bits_back.encode(MODEL, trained, x[:200]).data
    file = tmp_path / "message"
    file.write_bytes(pickle.dumps((jax.device_get(trained), x[:200], data)))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_no_message_is_refused(trained, x):
    data = bits_back.encode(MODEL, trained, x[:5]).data
    refused(f"{len(data) - 4} bytes that are no|checksum", trained, data[:-4])
    refused("no message", trained, data[:-1])
    refused("no message", trained, b"")
    refused("no message", trained, b"PNG " + data[4:])
    for place in (4, 8, 9, 13, 21, 29, len(data) - 1):  # each field of the header, and the stack
        damaged = bytearray(data)
        damaged[place] ^= 1
        refused("checksum", trained, bytes(damaged))


def refused(match, params, data, model=MODEL):
    with pytest.raises(aejax.InputError, match=match):
        bits_back.decode(model, params, data)


def test_other_parameters_are_refused_and_another_model_is_found_out(trained, x):
    data = bits_back.encode(MODEL, trained, x[:5]).data
    bias = trained["decoder"]["dense_1"]["bias"]
    near = trained | {
        "decoder": trained["decoder"] | {"dense_1": trained["decoder"]["dense_1"] | {"bias": bias + 1e-6}}
    }
    refused("other parameters", near, data)
    refused("or by another model", trained, data, aejax.VAE.dense(64, 8, hidden_dims=(32,), activation=jnp.tanh))


def test_numbers_that_differ_are_found_out(trained, x, monkeypatch):
    """One logit of one image, by the least step: what another machine might do."""
    data = bits_back.encode(MODEL, trained, x[:5]).data
    right = bits_back._Codec._probabilities
    calls = []

    def wrong(self, bins):
        calls.append(bins)
        p = right(self, bins)
        if len(calls) == 3:
            p[20] = 1 / (1 + np.exp(-(np.log(p[20] / (1 - p[20])) + 2**-6)))
        return p

    monkeypatch.setattr(bits_back._Codec, "_probabilities", wrong)
    refused("gives other numbers", trained, data)


def test_small_differences_of_the_networks_rarely_matter(trained, x, monkeypatch):
    """In the seventh digit of every output, they move none of these."""
    data = bits_back.encode(MODEL, trained, x[:5]).data
    rng, right = np.random.default_rng(0), bits_back.call

    def near(*args):
        return jax.tree.map(lambda leaf: leaf * rng.uniform(1 - 1e-7, 1 + 1e-7, leaf.shape), right(*args))

    monkeypatch.setattr(
        bits_back, "call", lambda *args: (right if isinstance(args[3], jax.core.Tracer) else near)(*args)
    )
    np.testing.assert_array_equal(bits_back.decode(MODEL, trained, data), x[:5])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"likelihood": "gaussian"}, "likelihood gaussian"),
        ({"likelihood": likelihoods.Gaussian(0.5)}, "likelihood Gaussian"),
        ({"prior": priors.GaussianMixture.ring()}, "has the prior"),
    ],
)
def test_other_models_are_refused(x, fields, match):
    model = aejax.VAE.dense(64, 2, hidden_dims=(), **fields)
    params = aejax.init_params(model, KEY, x[:1])
    with pytest.raises(aejax.InputError, match=match):
        bits_back.encode(model, params, x[:2])


def test_models_without_a_gaussian_posterior_or_with_labels_are_refused(x):
    plain = aejax.AE.dense(64, 2, hidden_dims=(), prior="normal")
    params = aejax.init_params(plain, KEY, x[:1])
    with pytest.raises(aejax.InputError, match=r"AE\.encode returns no DiagonalGaussian"):
        bits_back.encode(plain, params, x[:2])
    with pytest.raises(aejax.InputError, match="conditioned on labels"):
        bits_back.encode(aejax.CVAE.dense(64, 2, num_classes=3), {}, x[:2])


def test_what_cannot_be_coded_is_refused(trained, x):
    encode = partial(bits_back.encode, MODEL, trained)
    for wrong, match in (
        (x[:0], "no examples"),
        (x[:2, :63], "shape \\(63,\\); this model decodes to \\(64,\\)"),
        (0.5 * x[:2], "values between 0 and 1"),
        (2 * x[:2], "x"),
        (x[:2] * np.nan, "x"),
    ):
        with pytest.raises(aejax.InputError, match=match):
            encode(wrong)
    for wrong in ({"latent_bits": 0}, {"latent_bits": 17}, {"seed": -1}, {"seed": 2**64}):
        with pytest.raises(aejax.InputError, match=next(iter(wrong))):
            encode(x[:2], **wrong)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, trained)
    with pytest.raises(aejax.InputError, match="not a number"):
        bits_back.encode(MODEL, broken, x[:2])
