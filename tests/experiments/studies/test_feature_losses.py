"""The study of feature losses: equal networks, what is measured of reconstructions by hand, the table, a whole run."""

import json

import numpy as np
import pytest

from aejax import data
from aejax.checks import InputError
from aejax.data import Batch
from aejax.runner import launch, study, units
from aejax.runner.inputs import Spec
from experiments.studies import feature_losses, generators
from experiments.studies.feature_losses import ROWS, Config
from experiments.studies.units import METRICS


def test_every_row_has_the_same_encoder_and_decoder():
    runs = feature_losses.runs(Config(num_seeds=2, seed=3, hidden_dims=(7, 5)))
    assert list(runs) == [f"{row}-{seed}" for seed in (3, 4) for row in ROWS]
    models = {name: experiment.build_model(own, Spec((64,), 10)) for name, (experiment, own) in runs.items()}
    for model in models.values():
        assert (model.encoder, model.decoder) == (models["vae-3"].encoder, models["vae-3"].decoder)
    assert models["dfc_vae-3"].classifier.features == (7, 5, 10)
    assert models["vae_gan-3"].hidden_layers.features == (7, 5)
    assert models["ms_ssim_vae-3"].image_shape == (8, 8, 1)


def test_images_of_colours_are_compared_in_their_shape(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((60, 4, 6, 3))
    np.savez("colours.npz", x=x, y=np.arange(60) % 3)
    experiment, own = feature_losses.runs(Config(dataset="colours.npz", rows=("ms_ssim_vae",)))["ms_ssim_vae-0"]
    assert experiment.build_model(own, Spec((72,), 3)).image_shape == (4, 6, 3)


def test_reconstructions_are_held_against_their_own_images():
    """Corners of a simplex are all a side apart; a shift of a third of it is a third of the way to another image."""
    corners = np.zeros((20, 64), np.float32)
    corners[np.arange(20), np.arange(20)] = 3 / np.sqrt(2)
    faces = data.Dataset("x", Batch(corners), None, Batch(corners), (8, 8, 1))
    real = generators.Real.of(faces, lambda x: np.asarray(x, np.float64))
    shifted = corners + np.eye(64, dtype=np.float32)[63]
    found = feature_losses.rebuilt(shifted, real)
    assert found["feature_distance"] == pytest.approx(1 / 3, rel=1e-6)
    same = feature_losses.rebuilt(corners, real)
    assert same["feature_distance"] == 0
    # A single bright pixel is white: of the 63 frequencies but the mean, 25 - 1 are at most a quarter cycle
    assert same["rebuilt_sharpness"] == pytest.approx(39 / 63, rel=1e-6)
    turned = feature_losses.rebuilt(np.roll(corners, 1, axis=0), real)
    assert turned["feature_distance"] == pytest.approx(1, rel=1e-6)


def test_what_cannot_be_measured_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("none.npz", x=np.random.default_rng(0).random((40, 16)))
    with pytest.raises(InputError, match="labels"):
        feature_losses.runs(Config(dataset="none.npz"))
    with pytest.raises(InputError, match="no row 'dfc'"):
        feature_losses.runs(Config(rows=("dfc",)))


def test_the_table_by_hand():
    values = dict(zip(feature_losses.SCORES, ([2.0], [0.5], [0.1], [0.2], [3.0], [0.9], [0.95]), strict=True))
    metrics = {"test": {"sharpness": [0.16], "frechet": [0.5], "recall": [1.0]}, "vae": {**values, "seconds": [7.0]}}
    lines = feature_losses.table({"rows": ["vae"], "metrics": metrics}).splitlines()
    assert lines[2] == "| test images | | | 0.16 | 0.16 | 0.5 | 1 | | |"
    assert lines[3] == "| VAE, pixels | 2 | 0.5 | 0.1 | 0.2 | 3 | 0.9 | 0.95 | 1, 7 |"


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_pictures(tmp_path):
    flags = ["--num-epochs", "2", "--batch-size", "400", "--hidden-dims", "8", "--workdir", str(tmp_path / "run")]
    launch.command_line("feature_losses", Config, "", study.body(feature_losses.STUDY), flags)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary["metrics"]) == [*ROWS, "test"]
    for row in ROWS:
        found = summary["metrics"][row]
        assert {*feature_losses.SCORES, "knn5_accuracy", "seconds"} <= {*found}
        assert [name for name in found if units.find(name, METRICS) is None] == []
        assert found["feature_distance"][0] > 0.5  # nothing is learnt in two passes
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"samples", "reconstructions"}
