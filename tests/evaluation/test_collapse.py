"""Each finding in a model that was built to have it, none in sound ones, and the numbers by hand."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from conditioned import linear_model

from aejax import data, training
from aejax.algorithm import begin
from aejax.checks import InputError
from aejax.data import Batch
from aejax.evaluation import call, collapse, perplexity
from aejax.methods.ae import AE, ae
from aejax.methods.count_vae import CountVAE
from aejax.methods.vae import VAE, vae
from aejax.methods.vq_vae import VQVAE, vq_vae
from aejax.nets import init_params
from aejax.priors import GaussianMixture

KEY = jax.random.key(0)
DEAD, POSTERIOR, OUTPUTS = "units of the code are 0", "dimensions of the posterior", "The reconstructions vary"
SAMPLES, CODEBOOK, ERROR = "The decoded draws from the prior vary", "entries of the codebook", "The squared error is"
POISSON = "The Poisson error is"


@pytest.fixture(scope="module")
def digits():
    return data.flatten(data.load("digits"))


def trained(build, model, x):
    """Parameters before and after some training."""
    algo = build(model, lr=3e-3)
    state = begin(algo, partial(init_params, model, data=x[:1]), Batch(x), jax.random.key(1))
    run = jax.jit(partial(training.fit, algo, batch_size=100, num_epochs=20))
    return state.params, run(state, Batch(x), jax.random.key(2))[0].params


@pytest.fixture(scope="module")
def sound(digits):
    """A model, its parameters before and after training, and the test images."""
    model = VAE.dense(64, 4, hidden_dims=(32,))
    return model, *trained(vae, model, digits.train.x), digits.test.x


def changed(params, group, layer, name, value):
    """The parameters with one array replaced, or made from the old one."""
    old = params[group][layer]
    new = value(old[name]) if callable(value) else jnp.full_like(old[name], value)
    return {**params, group: {**params[group], layer: {**old, name: new}}}


def check(found, *expected):
    """Asserts that these are the beginnings of the findings, in any order, and nothing else."""
    assert len(found.findings) == len(expected), found.findings
    for text in expected:
        assert any(text in finding for finding in found.findings), (text, found.findings)


@pytest.mark.slow
def test_nothing_is_found_in_sound_models(sound, digits):
    model, fresh, params, x = sound
    found = collapse(model, params, x, KEY, untrained=fresh)
    check(found)
    assert found.numbers["active_units"] == 4
    assert found.numbers["sse"] < found.numbers["mean_sse"] < found.numbers["untrained_sse"]
    for build, other in (
        (ae, AE.dense(64, 4, hidden_dims=(32,))),
        (vq_vae, VQVAE.dense(64, 8, hidden_dims=(32,), num_entries=16, entry_dim=2)),
    ):
        fresh, params = trained(build, other, digits.train.x)
        check(collapse(other, params, x, KEY, untrained=fresh))


@pytest.mark.slow
def test_an_encoder_without_weights_is_a_collapsed_posterior(sound):
    model, _, params, x = sound
    for name in ("kernel", "bias"):
        params = changed(params, "encoder", "dense_1", name, 0.0)
    found = collapse(model, params, x, KEY)
    check(found, POSTERIOR, OUTPUTS, ERROR, DEAD)
    assert "0 of 4 dimensions of the posterior depend on the data (4 have a KL to the prior below 0.01" in str(found)
    assert {name: found.numbers[name] for name in ("kl_nats", "active_units")} == {"kl_nats": 0, "active_units": 0}
    assert found.numbers["output_variance"] == pytest.approx(0, abs=1e-12)


def test_a_decoder_that_ignores_the_code_has_identical_outputs(sound):
    model, _, params, x = sound
    found = collapse(model, changed(params, "decoder", "dense_0", "kernel", 0.0), x, KEY)
    check(found, OUTPUTS, SAMPLES, ERROR)
    assert "vary 0.00 % as much as the data; below 1 % they are all the same." in str(found.findings)


def test_a_generator_of_one_picture_is_found_though_the_reconstructions_differ(sound):
    """Codes far from the prior: the draws are all decoded alike."""
    model, _, params, x = sound
    far = changed(params, "decoder", "dense_0", "kernel", lambda kernel: kernel / 1000)
    for layer in ("kernel", "bias"):
        far = changed(far, "encoder", "dense_1", layer, lambda v: v.at[..., :4].multiply(1000))
    check(collapse(model, far, x, KEY), SAMPLES)


def test_unused_dimensions_are_no_finding_before_three_quarters(sound):
    model, _, params, x = sound
    few = params
    for name in ("kernel", "bias"):  # of the means and the log-variances of three dimensions
        few = changed(few, "encoder", "dense_1", name, lambda v: v.at[..., jnp.array([1, 2, 3, 5, 6, 7])].set(0.0))
    found = collapse(model, few, x, KEY)
    assert POSTERIOR not in str(found.findings)
    assert (found.numbers["active_units"], found.numbers["collapsed_units"]) == (1, 3)


def test_parameters_that_were_never_trained_are_found(sound):
    model, fresh, _, x = sound
    mean, untrained = (each for each in collapse(model, fresh, x, KEY, untrained=fresh).findings if ERROR in each)
    assert mean.endswith("of the mean of the data by 1 %.")
    assert untrained.endswith("with the untrained parameters by 1 %.")


def test_one_entry_of_a_codebook_is_found(digits):
    model = VQVAE.dense(64, 8, hidden_dims=(), num_entries=16, entry_dim=2)
    params = init_params(model, KEY, digits.test.x[:1])
    found = collapse(model, changed(params, "encoder", "dense_0", "kernel", 0.0), digits.test.x, KEY)
    assert "Of 16 entries of the codebook the codes use 1, by perplexity; 2.5 are expected." in found.findings
    assert found.numbers["perplexity"] == 1


def test_perplexity_by_hand():
    assert perplexity([[0, 0, 0], [7, 7, 7]]) == pytest.approx(2)
    assert perplexity([0, 0, 0, 2]) == pytest.approx(4 / 3**0.75)  # exp(-(3/4) log(3/4) - (1/4) log(1/4))
    with pytest.raises(InputError, match="integers from 0 on"):
        perplexity([0.5])


def test_dead_units_are_told_from_rare_ones():
    """Unit i answers example i alone; a fifth never answers, which four examples cannot tell from rare."""
    model = AE.dense(4, 5, hidden_dims=(), code_activation=nn.relu, likelihood="gaussian")
    params = init_params(model, KEY, np.zeros((1, 4), np.float32))
    params = changed(params, "encoder", "dense_0", "kernel", lambda kernel: jnp.eye(4, 5))
    params = changed(params, "decoder", "dense_0", "kernel", lambda kernel: jnp.eye(5, 4))
    params = changed(params, "encoder", "dense_0", "bias", lambda bias: bias.at[4].set(-1.0))
    x = np.eye(4, dtype=np.float32)
    check(collapse(model, params, x, KEY))  # 0.75^4 = 32 % of silence by chance
    found = collapse(model, params, np.tile(x, (20, 1)), KEY)
    assert found.findings == ("1 of 5 units of the code are 0 for all of 80 examples; up to 10 % may be.",)
    assert (found.numbers["dead_units"], found.numbers["sse"]) == (0.2, 0.0)


def gaussian(means, logvars, **fields):
    """A VAE on x `[N, D]` whose posterior has the means `x * means` and these log-variances, and x for its output."""
    size = len(means)
    encoder = {"kernel": np.concatenate([np.diag(means), np.zeros((size, size))], axis=1), "bias": [0] * size + logvars}
    decoder = {"kernel": np.diag(1 / np.array(means)), "bias": np.zeros(size)}
    model = VAE(nn.Dense(2 * size), nn.Dense(size), latent_dim=size, likelihood="gaussian", **fields)
    is_leaf = lambda v: isinstance(v, list)
    return model, jax.tree.map(
        partial(jnp.asarray, dtype=float), {"encoder": encoder, "decoder": decoder}, is_leaf=is_leaf
    )


@pytest.mark.parametrize(
    ("others", "value", "collapsed", "active"),
    [(2, 1.0, 1, 0), (3, 1.0, 0, 1), (2, 2.0, 1, 1), (200, 3.0, 0, 0)],
)
def test_a_dimension_is_used_where_one_of_100_examples_has_a_kl_and_its_mean_a_variance(
    others, value, collapsed, active
):
    x = np.zeros((200, 1), np.float32)
    x[:others] = value
    found = collapse(*gaussian([1.0], [0.0]), x, KEY)
    share = others / 200
    variance = share * (1 - share) * value**2
    assert found.numbers["kl_nats"] == pytest.approx(0.5 * value**2 * share)  # of N(m, 1) from N(0, 1), m^2 / 2
    assert (found.numbers["collapsed_units"], found.numbers["active_units"]) == (collapsed, active)
    assert (variance > 0.01) == active
    assert found.numbers["mean_sse"] == pytest.approx(variance)
    check(found, *[POSTERIOR] * (collapsed == 1 or active == 0))


def test_under_another_prior_the_scale_of_the_code_means_nothing():
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    prior = GaussianMixture((1.0,), ((0.0, 0.0),), (((1e-6, 0.0), (0.0, 1e-6)),))
    found = collapse(*gaussian([1e-3, 1e-3], [-16.0, -16.0], prior=prior), x, KEY)
    check(found)
    assert found.numbers["active_units"] == 2
    assert "kl_nats" not in found.numbers
    check(collapse(*gaussian([1e-3, 1e-3], [-4.0, -4.0], prior=prior), x, KEY), POSTERIOR)


@pytest.mark.parametrize(("factor", "is_found"), [(0.006, False), (0.004, True), (2.1, True), (np.nan, True)])
def test_the_mean_is_beaten_by_one_per_cent_or_not_at_all(factor, is_found):
    """Outputs `f x` of x around 0: the error is `(1 - f)^2` of that of the mean, the variance `f^2` of that of x."""
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [-3.0, 0.0]], np.float32)
    model, params = gaussian([1.0, 1.0], [-9.0, -9.0])
    params["decoder"]["kernel"] = factor * jnp.eye(2)
    found = collapse(model, params, x, KEY)
    np.testing.assert_allclose(found.numbers["mean_sse"], 5)  # (1 + 1 + 9 + 9) / 4
    np.testing.assert_allclose(found.numbers["sse"], 5 * (1 - factor) ** 2, rtol=1e-6)
    np.testing.assert_allclose(found.numbers["output_variance"], factor**2, rtol=1e-5)
    assert any(ERROR in each for each in found.findings) == is_found
    assert any(OUTPUTS in each for each in found.findings) == (not factor > 0.1)


def test_conditioned_models_are_looked_at_with_their_labels():
    model, params, batch, *_ = linear_model()
    check(collapse(model, params, batch, KEY))
    with pytest.raises(InputError, match="conditioned on labels, and none came"):
        collapse(model, params, batch.x, KEY)
    with pytest.raises(InputError, match="at least 2 do"):
        collapse(model, params, Batch(batch.x[:1], batch.y[:1]), KEY)


def counts(slope, bias):
    """A `CountVAE` of four genes, whose code is `log(1 + x_0) - log(1 + x_1)`, and its logits affine in it."""
    encoder = {"kernel": jnp.array([[1.0, 0], [-1, 0], [0, 0], [0, 0]]), "bias": jnp.array([0.0, -4.0])}
    decoder = {"kernel": jnp.array([[slope, -slope, 0, 0]]), "bias": jnp.asarray(bias)}
    params = {"encoder": {"dense_0": encoder}, "decoder": {"dense_0": decoder}}
    return CountVAE.dense(4, 1, hidden_dims=(), likelihood="poisson"), params


OTHERS = (0.0, 0.0, np.log(0.1 / 0.12**0.5), np.log(0.1 / 0.12**0.5))  # with a slope of 0.5 those of `cells`


def cells():
    """Two kinds of cells, with libraries of 40, or of 20,000."""
    shares = np.array([[0.6, 0.2, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1]])[np.arange(200) % 2]
    library = np.where(np.arange(200) % 20 < 2, 20_000, 40)
    return np.random.default_rng(0).poisson(shares * library[:, None]).astype(np.float32)


def test_counts_are_compared_as_those_of_a_poisson_and_to_know_the_library_is_no_merit():
    x = cells()
    found = collapse(*counts(0.5, OTHERS), x, KEY)
    check(found)
    mean = x.sum(axis=1, keepdims=True) * x.sum(axis=0) / x.sum()
    best = np.where(x > 0, scipy.stats.poisson(np.maximum(x, 1)).logpmf(x), 0.0)
    wanted = (best - scipy.stats.poisson(mean).logpmf(x)).sum(axis=1).mean()
    assert found.numbers["mean_poisson_nats"] == pytest.approx(wanted, rel=1e-5)
    assert "sse" not in found.numbers
    assert 0.1 < found.numbers["sample_variance"] < 2  # of shares, whatever the library that a sample has
    alike = counts(0.0, (0.0, 0.0, -1.386, -1.386))  # shares of 0.4 and 0.1
    assert np.corrcoef(call(*alike, "reconstruct", x).ravel(), x.ravel())[0, 1] > 0.5
    check(collapse(*alike, x, KEY), OUTPUTS, SAMPLES, POISSON)


def test_one_count_out_of_all_reason_is_no_collapse_though_the_squared_error_hangs_on_it():
    x = np.where(np.arange(1000)[:, None] % 2, [24.0, 8, 4, 4], [8.0, 24, 4, 4]).astype(np.float32)
    x[0, 2] = 6000
    found, x_hat = collapse(*counts(0.5, OTHERS), x, KEY), call(*counts(0.5, OTHERS), "reconstruct", x)
    shares = x.sum(axis=1, keepdims=True) * x.sum(axis=0) / x.sum()
    assert np.square(x_hat - x).sum() > np.square(shares - x).sum()
    assert POISSON not in str(found.findings)


def test_a_mean_of_0_for_what_was_counted_is_found():
    found = collapse(*counts(0.0, (0.0, 0.0, -1e6, 0.0)), cells(), KEY)
    assert found.numbers["poisson_nats"] == np.inf
    assert POISSON in str(found.findings)
