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
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.nets import init_params
from aejax.runner import launch, study
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
    assert {(own.latent_dim, own.hidden_dims, own.num_epochs, own.validation) for _, own in runs.values()} == {
        (8, (256,), 7, 0.0)
    }
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
    flags += ["--rows", "ae", "vae", "ebgan", "--workdir", str(tmp_path / "run")]
    launch.command_line("generators", generators.Config, "", study.body(generators.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == ["ae", "vae", "ebgan", "test"]
    assert all({*generators.SCORES} <= {*found} for found in summary["metrics"].values())
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples", "reconstructions"}
    assert runner.load(tmp_path / "run" / "ebgan-0")[1].generator is not None
