"""The study of densities afterwards: rows, what each density is fitted to, refusals, the table, a whole run."""

import json

import jax
import numpy as np
import pytest
import scipy.linalg
from sklearn.datasets import load_digits

from aejax import data, runner
from aejax.checks import InputError
from aejax.methods.ae import AE
from aejax.methods.vae import VAE
from aejax.nets import init_params
from aejax.priors import FlowPrior
from aejax.runner import launch, study
from experiments.studies import ex_post, publish

KEY = jax.random.key(0)


def test_every_row_trains_the_same_network_and_the_raes_differ_in_what_they_ask():
    runs = ex_post.runs(ex_post.Config(num_seeds=2, seed=3, hidden_dims=(7,), num_epochs=9))
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ex_post.TITLES]
    assert {(own.latent_dim, own.hidden_dims, own.num_epochs, own.validation) for _, own in runs.values()} == {
        (8, (7,), 9, 0.0)
    }
    asked = {kind: runs[f"rae_{kind}-3"][1] for kind in ("weights", "gradient", "spectral")}
    assert {kind: (own.regularizer, own.hparams.penalty) for kind, own in asked.items()} == {
        "weights": ("weights", 1e-3), "gradient": ("gradient", 0.1), "spectral": ("spectral", 1e-2),
    }  # fmt: skip


@pytest.mark.first(1)
@pytest.mark.parametrize("module", [VAE, AE])
def test_densities_are_of_the_codes_of_the_run(module, monkeypatch):
    """Moments of the Gaussian are those of codes A x; of a VAE with the variance of its posteriors on top."""
    x = np.float32(load_digits().data[:300] / 16)
    model = module.dense(64, 2, hidden_dims=())
    params = init_params(model, KEY, x)
    kernel = np.random.default_rng(0).normal(0, 0.3, (64, 2))
    wide, bias = (kernel, np.zeros(2)) if module is AE else (np.hstack([kernel, 0 * kernel]), [0, 0, 1.0, -1.0])
    params["encoder"]["dense_0"] = {"kernel": np.float32(wide), "bias": np.float32(bias)}
    state = type("State", (), {"params": params})
    monkeypatch.setattr(ex_post.runner, "load", lambda folder: (None, model, state))
    config = ex_post.Config(num_components=3, flow_epochs=1, batch_size=300)
    found = ex_post.densities(config, "folder", data.Batch(x), seed=1)
    own = [] if module is AE else ["frechet_prior"]
    assert list(found) == [*own, "frechet_gaussian", "frechet_mixture", "frechet_flow"]
    gaussian, mixture, flow = (found[f"frechet_{name}"][0].prior for name in ("gaussian", "mixture", "flow"))
    codes = x.astype(np.float64) @ kernel
    extra = np.zeros((2, 2)) if module is AE else np.diag(np.exp([1.0, -1.0]))
    covariance, slack = np.cov(codes.T, bias=True) + extra, 1e-4 if module is AE else 0.5
    np.testing.assert_allclose(gaussian.covariances[0], covariance, atol=slack)
    np.testing.assert_allclose(gaussian.means[0], codes.mean(axis=0), atol=slack)
    assert len(mixture.weights) == 3
    assert isinstance(flow, FlowPrior)
    if module is VAE:
        assert found["frechet_prior"][0] is model
        assert model.has_normal_prior
    shown = ex_post.sampled(*found["frechet_flow"], KEY, 5)
    assert shown.shape == (5, 64)


def test_what_cannot_be_scored_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((40, 16))
    np.savez("none.npz", x=x)
    with pytest.raises(InputError, match=r"none\.npz has no labels"):
        ex_post.runs(ex_post.Config(dataset="none.npz"))
    np.savez("few.npz", x=x, y=np.arange(40) % 2)  # of which 36 are trained on
    with pytest.raises(InputError, match="has 36 training images, fewer than --num-components"):
        ex_post.runs(ex_post.Config(dataset="few.npz", num_components=37))
    ex_post.runs(ex_post.Config(dataset="few.npz", num_components=36))
    with pytest.raises(InputError, match="no row 'rae'"):
        ex_post.runs(ex_post.Config(rows=("rae",)))
    for bad in ({"latent_dim": 1}, {"num_components": 0}, {"flow_epochs": 0}):
        with pytest.raises(InputError, match="--latent-dim 2 for the flow"):
            ex_post.runs(ex_post.Config(**bad))


def test_the_table_by_hand():
    row = {name: [float(i)] for i, name in enumerate(ex_post.HEAD)}
    plain = {name: values for name, values in row.items() if name != "frechet_prior"}
    metrics = {"test": {"frechet_reconstructed": [0.5]}, "ae": {**plain, "seconds": [3.0]}, "vae": row}
    lines = ex_post.table({"rows": ["ae", "vae"], "metrics": metrics, "num_components": 7}).splitlines()
    assert lines[0].split("|")[2:7] == [" reconstructions ", " own prior ", " one Gaussian ", " 7 Gaussians ", " flow "]
    assert lines[2:] == [
        "| test images | 0.5 | | | | | | |", "| AE | 0 | | 2 | 3 | 4 | 5 | 1, 3 |", "| VAE | 0 | 1 | 2 | 3 | 4 | 5 | |",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    """The distance of reconstructions is that of scipy's root of a matrix, in the features of the study."""
    flags = ["--num-epochs", "2", "--flow-epochs", "1", "--batch-size", "400", "--hidden-dims", "8", "--latent-dim"]
    flags += ["3", "--rows", "ae", "vae", "--workdir", str(tmp_path / "run")]
    launch.command_line("ex_post", ex_post.Config, "", study.body(ex_post.STUDY), flags)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(found) == ["ae", "vae", "test"]
    assert {*ex_post.HEAD} - {*found["ae"]} == {"frechet_prior"}
    assert {*ex_post.HEAD} <= {*found["vae"]}
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples_ae", "samples_vae"}
    digits = data.flatten(data.load("digits", validation=0.0))
    features = ex_post.samples.classifier_features(digits.train.x, digits.train.y, seed=0)
    _, model, state = runner.load(tmp_path / "run" / "vae-0")
    rebuilt = model.apply({"params": state.params}, digits.test.x, method="reconstruct")
    a, b = (features(x) for x in (digits.train.x, np.asarray(rebuilt)))
    root = np.trace(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T) + 1e-10 * np.eye(128)).real)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * root
    assert found["vae"]["frechet_reconstructed"][0] == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_the_example_of_the_page_runs():
    page = (publish.DOCS / "adversarial.md").read_text()
    names: dict = {}
    exec(compile(page.split("```python\n")[1].split("```")[0], "adversarial.md", "exec"), names)
    assert names["images"].shape == names["others"].shape == (16, 64)
    assert names["mixture"].prior.latent_dim == 4
