"""The study of generators: who draws how, the scores of what is known, refusals before training, and a whole run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.likelihoods import Categorical
from aejax.methods.ae import AE
from aejax.methods.pixel_cnn import PixelCNN
from aejax.methods.pixel_vae import PixelVAE
from aejax.methods.vae import VAE
from aejax.methods.vq_vae import VQVAE
from aejax.nets import init_params
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments import ae, pixel_cnn, rae, vq_vae
from experiments.studies import generators

KEY = jax.random.key(0)


def test_a_plain_autoencoder_draws_from_a_gaussian_like_its_codes():
    """z = A x exactly, decoded by the identity: draws have the mean and the covariance of A x."""
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(500, 2)) * [1.0, 3.0] + [5.0, -1.0]).astype(np.float32)
    model = AE.dense(2, 2, hidden_dims=(), likelihood="gaussian")
    a = np.array([[1.0, 0.5], [0.0, 2.0]])
    layer = lambda kernel: {"dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(2)}}
    found = generators.drawn(model, {"encoder": layer(a.T), "decoder": layer(np.eye(2))}, train, KEY, 40_000)
    codes = train.astype(np.float64) @ a.T
    np.testing.assert_allclose(found.mean(axis=0), codes.mean(axis=0), atol=0.12)
    np.testing.assert_allclose(np.cov(found.T), np.cov(codes.T), rtol=0.04)


def test_a_model_with_a_prior_draws_by_itself():
    model = VAE.dense(6, 2, hidden_dims=())
    x = np.full((4, 6), 0.5, np.float32)
    params = init_params(model, KEY, x)
    own = model.apply({"params": params}, KEY, 5, method="sample")
    np.testing.assert_array_equal(generators.drawn(model, params, x, KEY, 5), own)


def as_a_run(monkeypatch, own, model, params):
    state = type("State", (), {"params": params})
    monkeypatch.setattr(generators.runner, "load", lambda folder: (own, model, state))


def test_of_the_rae_draws_come_from_ten_clusters_of_its_codes_and_of_the_ae_from_between_them(tmp_path, monkeypatch):
    """Ten clusters on a circle, of known sizes, encoder and decoder the identity."""
    rng, share = np.random.default_rng(0), np.arange(1, 11) / 55
    angle = 2 * np.pi * np.repeat(np.arange(10), 10 * np.arange(1, 11)) / 10
    centres = 20 * np.stack([np.cos(2 * np.pi * np.arange(10) / 10), np.sin(2 * np.pi * np.arange(10) / 10)], axis=1)
    train = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.5, (550, 2))
    model = AE.dense(2, 2, hidden_dims=(), likelihood="gaussian")
    same = {"dense_0": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    params = {"encoder": same, "decoder": same}
    far = {}
    for module in (rae, ae):
        as_a_run(monkeypatch, module.Config(seed=1), model, params)
        x = generators.of_run(tmp_path, "row-1", train.astype(np.float32), 5000)[2]
        distance = np.linalg.norm(x[:, None] - centres, axis=2)
        far[module] = np.mean(distance.min(axis=1) > 2)
        if module is rae:
            found = np.bincount(distance.argmin(axis=1), minlength=10) / len(x)
            np.testing.assert_allclose(found, share, atol=5 * np.sqrt(0.25 * 0.75 / len(x)))
            assert np.sqrt(np.square(distance.min(axis=1)).mean() / 2) == pytest.approx(0.5, rel=0.1)
    assert far[rae] < 0.005  # exp(-8) within a cluster
    assert far[ae] > 0.5


def test_drawn_tokens_become_the_images_of_their_entries(tmp_path, monkeypatch):
    """By hand: an entry is its sum over its count, and pixels the sigmoid of an affine map of the entries in order."""
    rng = np.random.default_rng(0)
    model = VQVAE.dense(3, 4, hidden_dims=(), num_entries=8, entry_dim=2)
    params = init_params(model, KEY, np.zeros((1, 3), np.float32))
    sums, counts, kernel, bias = rng.normal(size=(8, 2)), rng.uniform(1, 3, (8, 1)), rng.normal(size=(4, 3)), [1, 0, -1]
    params["codebook"] = {"sums": np.float32(sums), "counts": np.float32(counts)}
    params["decoder"] = {"dense_0": {"kernel": np.float32(kernel), "bias": np.float32(bias)}}
    as_a_run(monkeypatch, vq_vae.Config(), model, params)
    tokens = np.array([[0, 7], [3, 3], [7, 0]])
    np.save(tmp_path / "prior-vq_vae-0.npy", tokens)
    z = (sums / counts)[tokens].reshape(3, 4)
    x = generators.of_run(tmp_path, "vq_vae-0", np.zeros((2, 3)), 3)[2]
    np.testing.assert_allclose(x, 1 / (1 + np.exp(-(z @ kernel + bias))), rtol=1e-5)


@pytest.mark.parametrize("module", [PixelCNN, PixelVAE])
def test_pixels_are_drawn_as_levels_of_grey(module, monkeypatch, tmp_path):
    """All parameters 0 but the last bias: each pixel is k / 16 with the softmax of the bias, independently."""
    model = module.dense(3, 2, hidden_dims=(2,), likelihood=Categorical(17))
    shapes = jax.eval_shape(lambda: init_params(model, KEY, np.zeros((1, 3), np.float32)))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    bias = np.linspace(-1, 1, 17)
    head = params["decoder"] if module is PixelCNN else params["decoder"]["head"]
    head["dense"]["bias"] = jnp.asarray(bias, jnp.float32)
    as_a_run(monkeypatch, pixel_cnn.Config(seed=2), model, params)
    n = 6000
    x = generators.of_run(tmp_path, "pixel_cnn-2", np.zeros((2, 3)), n)[2]
    np.testing.assert_array_equal(x, model.apply({"params": params}, jax.random.key(2), n, method="sample"))
    found = np.stack([np.bincount(np.round(16 * column).astype(int), minlength=17) for column in x.T]) / n
    p = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(found, np.tile(p, (3, 1)), atol=5 * np.sqrt(p.max() / n))
    np.testing.assert_allclose(np.corrcoef(x.T), np.eye(3), atol=5 / np.sqrt(n))
    np.testing.assert_array_equal(16 * x, np.round(16 * x))


def test_levels_of_grey_are_those_of_the_images():
    """The digits are counts of 0 to 16 in scikit-learn; bytes over 255 are not."""
    digits = data.load("digits").train.x
    assert generators.grey_levels(digits) == len(np.unique(digits)) == 17
    assert generators.grey_levels(np.float32(np.arange(256) / 255)) == 256
    own = pixel_cnn.Config(net="dense", binarize="none", levels=17, features=(2,))
    for net, shape in (("dense", (64,)), ("conv", (8, 8, 1))):
        built = pixel_cnn.build_model(dataclasses.replace(own, net=net), Spec(shape, None))
        assert built.likelihood == Categorical(17)
    with pytest.raises(InputError, match="--levels is for --binarize none"):
        pixel_cnn.build_model(pixel_cnn.Config(levels=17), Spec((8, 8, 1), None))


def test_test_images_score_as_real_and_copies_are_seen():
    rng = np.random.default_rng(1)
    train, test = (rng.random((n, 64), np.float32) for n in (300, 100))
    known = data.Dataset("x", Batch(train), None, Batch(test), (8, 8, 1))
    features = lambda x: np.asarray(x, np.float64)[:, :3]
    against = generators.Real.of(known, features)
    real, copies = (generators.scores(x, against) for x in (test, train[:100]))
    assert real["nearest"] == 1
    assert copies["nearest"] == 0
    assert copies["precision"] == 1
    grey = generators.scores(np.full_like(test, 0.5), against)
    assert grey["frechet"] > 10 * real["frechet"]
    assert grey["recall"] <= grey["coverage"] < 0.1
    assert grey["sharpness"] == 0
    for shape in (None, (3, 3, 1)):  # vectors, and images too small for it
        assert "sharpness" not in generators.scores(test, against._replace(dataset=known._replace(image_shape=shape)))


def test_every_row_trains_the_same_network_with_the_settings_of_its_experiment():
    config = dataclasses.replace(generators.Config(), num_seeds=2, seed=3, num_epochs=7)
    runs = generators.runs(config)
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in generators.TITLES]
    assert {(own.net, own.hidden_dims, own.num_epochs, own.validation) for _, own in runs.values()} == {
        ("dense", (256,), 7, 0.0)
    }
    sizes = {row: runs[f"{row}-3"][1].latent_dim for row in generators.TITLES}
    others = {"fsq": 12, "pixel_cnn": 32}  # four tokens of three numbers; features of a place
    assert sizes == {row: others.get(row, 8) for row in generators.TITLES}
    for row in generators.TOKENS:
        model = runs[f"{row}-3"][0].build_model(runs[f"{row}-3"][1], Spec((64,), None))
        x = np.zeros((2, 64), np.float32)
        params = jax.eval_shape(lambda model=model, x=x: init_params(model, KEY, x))
        tokens = jax.eval_shape(lambda p, model=model, x=x: model.apply({"params": p}, x, method="tokens"), params)
        assert (tokens.shape, model.num_entries) == ((2, 4), 64)
    for row in generators.PIXELS:
        assert (runs[f"{row}-3"][1].binarize, runs[f"{row}-3"][1].levels) == ("none", 17)
    assert runs["ebgan-3"][1].hparams.margin == 1.0


def test_what_cannot_be_scored_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((40, 16))
    for name, y in (("none", None), ("one", np.zeros(40, int))):
        np.savez(f"{name}.npz", **({"x": x} if y is None else {"x": x, "y": y}))
        with pytest.raises(InputError, match="labels"):
            generators.runs(generators.Config(dataset=f"{name}.npz"))
    np.savez("few.npz", x=x, y=np.arange(40) % 2)  # of which 4 are the test part
    with pytest.raises(InputError, match="has 4 test images; more than 5"):
        generators.runs(generators.Config(dataset="few.npz"))
    with pytest.raises(InputError, match="no row 'gann'"):
        generators.runs(generators.Config(rows=("gann",)))


def test_the_table_begins_with_the_test_images():
    row = {name: [float(i)] for i, name in enumerate(generators.SCORES)}
    metrics = {generators.REAL: row, "vae": {**row, "test_sse": [9.0], "seconds": [30.0]}}
    lines = generators.table({"rows": ["vae"], "metrics": metrics}).splitlines()
    assert lines[2] == "| test images | 0 | 1 | 2 | 3 | 4 | 5 | 6 | | |"
    assert lines[3] == "| VAE | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 9 | 1, 30 |"
    assert lines[0].count("|") == lines[3].count("|")


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--latent-dim", "3"]
    rows = ["ae", "ebgan", "rae", "vq_vae", "pixel_vae", "pixel_cnn"]
    flags += ["--rows", *rows, "--workdir", str(tmp_path / "run")]
    launch.command_line("generators", generators.Config, "", study.body(generators.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == [*rows, "test"]
    assert all({*generators.SCORES} <= {*found} for found in summary["metrics"].values())
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples", "reconstructions"}
    assert runner.load(tmp_path / "run" / "ebgan-0")[1].generator is not None
    assert np.load(tmp_path / "run" / "prior-vq_vae-0.npy").shape == (180, 1)
    assert summary["metrics"]["vq_vae"]["code_nats"][0] < 1.1 * np.log(64)
    train = data.flatten(data.load("digits", validation=0.0)).train.x
    greys = generators.of_run(tmp_path / "run", "pixel_vae-0", train, 180)[2]
    np.testing.assert_array_equal(16 * greys, np.round(16 * greys))
