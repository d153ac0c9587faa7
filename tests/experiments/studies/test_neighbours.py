"""The study of nearest neighbours: equal rows, what is looked at, refusals, the table, and a whole run."""

import json

import jax
import numpy as np
import pytest

from aejax import data, runner
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods import METHODS
from aejax.nets import init_params
from aejax.runner import launch, study
from aejax.runner.inputs import Spec
from experiments.studies import neighbours
from experiments.studies.neighbours import Config


def test_rows_have_equal_networks_rates_and_passes_and_games_the_uniform_prior():
    runs = neighbours.runs(Config(num_seeds=2, seed=5, hidden_dims=(7, 6), latent_dim=3, lr=0.25))
    assert list(runs) == [f"{row}-{seed}" for seed in (5, 6) for row in neighbours.TITLES]
    for name, (experiment, config) in runs.items():
        model = experiment.build_model(config, Spec((64,), None))
        assert model.encoder.features[:2] == (7, 6), name
        assert model.decoder.features == (6, 7, 64), name
        judge = getattr(model, "discriminator", None)
        assert judge is None or judge.features == (7, 6, 1), name
        assert model.latent_dim == 3, name
        assert {v for k, v in config.hparams._asdict().items() if k.endswith("lr")} == {0.25}, name
        assert (config.num_epochs, config.schedule, config.validation) == (100, "cosine", 0.0), name
        assert (model.prior == "uniform") == (experiment.name in ("gan", "ali", "alice")), name
        assert experiment.optimizer.keywords == {"b1": 0.5}, name
    assert {name for name, (_, config) in runs.items() if config.likelihood == "gaussian"} == {"ae-5", "ae-6"}
    assert runs["ae_bernoulli-5"][0].name == "ae"


def test_the_hidden_layer_is_the_last_one_behind_its_activation():
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    model = METHODS["ali"].model.dense(4, 2, hidden_dims=(6, 3))
    params = init_params(model, jax.random.key(0), x)
    layers = [{k: np.float64(v) for k, v in params["encoder"][f"dense_{i}"].items()} for i in range(2)]
    for layer in layers:
        layer["kernel"] += 0.1  # so that biases and signs matter
    params["encoder"] |= {f"dense_{i}": {k: np.float32(v) for k, v in layer.items()} for i, layer in enumerate(layers)}
    h = np.float64(x)
    for layer in layers:
        h = np.maximum(h @ layer["kernel"] + layer["bias"], 0)
    np.testing.assert_allclose(neighbours.hidden(model, params, x), h, rtol=1e-5, atol=1e-6)
    assert (h > 0).any()
    assert (h == 0).any()


def test_a_test_image_takes_the_label_of_the_nearest_training_image():
    train, test = (
        Batch(np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 1])),
        Batch(np.zeros((4, 1)), np.array([0, 1, 0, 0])),
    )
    dataset = Dataset("hand", train, None, test, None)
    features = np.array([[0.4], [0.6], [2.9], [-3.0]])
    assert neighbours.accuracy(dataset, train.x, features) == 0.75  # by the vote of all three it is 0.25


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"rows": ("alli",)}, "no row 'alli'"),
        ({"rows": ("ali", "ali")}, "none twice"),
        ({"lr": 0.0}, "--lr"),
        ({"hidden_dims": ()}, "names no layer"),
        ({"dataset": "plain.npz"}, "no labels"),
    ],
)
def test_what_cannot_be_run_is_refused_first(own, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((20, 9))
    np.savez("plain.npz", x=x, x_test=x)
    with pytest.raises(InputError, match=said):
        neighbours.runs(Config(**own))


def test_the_table_by_hand_has_published_figures_for_their_set_alone():
    ali = {"knn1_accuracy": [0.96, 0.98], "hidden_knn1_accuracy": [0.975], "test_sse": [3.0], "seconds": [4.0, 6.0]}
    metrics = {"pixels": {"knn1_accuracy": [0.9691], "seconds": [24.0]}, "ali": ali, "vae": {}}
    summary = {"rows": ["ali", "vae"], "metrics": metrics, "dataset": "mnist"}
    lines = neighbours.table(summary).splitlines()
    assert lines[2] == "| pixels | 96.91 | | | | 1, 24 |"
    assert lines[3] == "| ALI, BiGAN | 97.0 ± 1.4 | 97.5 | 97.39 | 3 | 2, 5 |"
    assert "97.39" not in neighbours.table(summary | {"dataset": "digits"})


@pytest.mark.slow
def test_a_study_ends_with_a_table_and_its_picture(tmp_path):
    flags = ["--num-epochs", "2", "--hidden-dims", "16", "--latent-dim", "8", "--workdir", str(tmp_path / "run")]
    flags += ["--rows", "ae", "ali"]
    launch.command_line("neighbours", Config, "", study.body(neighbours.STUDY), flags)
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    digits = data.flatten(data.load("digits", validation=0.0))
    assert found["pixels"]["knn1_accuracy"] == [neighbours.accuracy(digits, digits.train.x, digits.test.x)]
    assert found["pixels"]["knn1_accuracy"][0] > 0.98
    _, model, state = runner.load(tmp_path / "run" / "ae-0")
    codes = [
        np.asarray(model.apply({"params": state.params}, part.x, method="embed"))
        for part in (digits.train, digits.test)
    ]
    assert found["ae"]["knn1_accuracy"] == [neighbours.accuracy(digits, *codes)]
    assert 0.3 < found["ali"]["hidden_knn1_accuracy"][0] < 1
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"nearest.png"}
