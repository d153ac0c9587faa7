"""The rest of an image from a part of it: numbers by hand, what can be reached where pixels go together, the stop."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, xlogy
from scipy.stats import multivariate_normal

from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.methods.cvae import CVAE, cvae
from aejax.nets import init_params
from aejax.runner import launch
from experiments.studies import conditional as study

KEY = jax.random.key(0)


def test_the_nn_has_the_cross_entropy_of_the_pixels_not_seen():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(6, 5)).astype(np.float32), rng.uniform(size=(6, 3)).astype(np.float32)
    net, row = study.nn_row(5, (4,), 1e-3)
    params = row.init(KEY, Batch(x[:1], y[:1]))
    first, last = (jax.tree.map(np.float64, params["net"][name]) for name in ("dense_0", "dense_1"))
    p = expit(np.maximum(y @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"])
    by_hand = -(xlogy(x, p) + xlogy(1 - x, 1 - p)).sum(axis=1).mean()
    assert float(study.nn_loss(params, Batch(x, y), KEY, net=net)[0]) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.slow
def test_the_estimate_from_the_prior_is_of_the_likelihood():
    """A linear decoder and unit variance, whatever the encoder says: p(x|y) = N(W_y'y + b, W_z'W_z + I)."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32))
    model = CVAE.dense(3, 2, num_classes=None, hidden_dims=(), likelihood="gaussian")
    params = init_params(model, KEY, batch)
    layer = jax.tree.map(np.float64, params["decoder"]["net"]["dense_0"])
    mean, cov = batch.y @ layer["kernel"][2:] + layer["bias"], layer["kernel"][:2].T @ layer["kernel"][:2] + np.eye(3)
    exact = -np.mean([multivariate_normal.logpdf(x, m, cov) for x, m in zip(batch.x, mean, strict=True)])
    row = study.Row(cvae(model), partial(init_params, model))
    found = study.measure(model, params, row, batch, 4000, KEY)
    assert found["prior_nats"] == pytest.approx(exact, abs=0.1)
    assert found["nll_nats"] == pytest.approx(exact, abs=0.1)
    assert found["prior_ess"] < 0.9 * 4000
    worse = jax.tree.map(lambda v: v, params)
    worse["encoder"]["net"]["dense_0"] = jax.tree.map(lambda v: v + 1.0, params["encoder"]["net"]["dense_0"])
    moved = study.measure(model, worse, row, batch, 4000, KEY)
    assert moved["prior_nats"] == pytest.approx(found["prior_nats"], abs=1e-5)  # the encoder has no say
    assert moved["bound_nats"] > found["bound_nats"] + 0.1


def test_it_ends_when_validation_has_not_fallen_and_returns_the_lowest():
    """`w` goes to 1 by halves, 1/2, 3/4, 7/8, ...; the validation loss (w - 0.7)^2 is lowest after two epochs."""

    def loss(params, batch, key):
        return jnp.square(params["w"] - batch.x.mean()), {}

    algo = play({"p": Player(loss, ("w",), optax.sgd(0.25))}, [["p"]])
    row = study.Row(algo, lambda key, example: {"w": jnp.zeros(())})
    data, held_out = Batch(np.ones((8, 1), np.float32)), Batch(np.full((4, 1), 0.7, np.float32))
    said = []
    config = study.Config(batch_size=8, patience=3, num_epochs=50)
    params, epochs = study.train(row, data, held_out, config, 0, said.append)
    assert float(params["w"]) == 0.75
    assert epochs == len(said) == 5
    cut = study.Config(batch_size=8, patience=3, num_epochs=1)
    assert float(study.train(row, data, held_out, cut, 0)[0]["w"]) == 0.5


def toy(count, rng):
    """2x2 images of which the lower left pixel is a coin, the upper left its image nine times of ten; the right ones
    are one other coin, both times."""
    coin, other = rng.integers(0, 2, (2, count))
    noisy = np.where(rng.uniform(size=count) < 0.9, coin, 1 - coin)
    return Batch(np.stack([noisy, other, coin, other], axis=1).reshape(-1, 2, 2, 1).astype(np.float32))


@pytest.mark.slow
def test_each_row_reaches_what_it_can():
    """H(0.1) for the pixel that depends on the one seen; two equal coins are log 2 for who knows that, else 2 log 2."""
    rng = np.random.default_rng(0)
    dataset = Dataset("toy", toy(8000, rng), toy(2000, rng), toy(4000, rng), (2, 2, 1))
    config = study.Config(hidden_dims=(32,), latent_dim=1, num_epochs=20, batch_size=100, lr=1e-2, patience=20)
    metrics, images = study.piece(config, dataset, 1, 0, lambda text: None)
    noise = -0.1 * np.log(0.1) - 0.9 * np.log(0.9)
    assert metrics["pixels"] == 3
    assert metrics["nn_nats"] == pytest.approx(noise + 2 * np.log(2), abs=0.03)
    assert noise + np.log(2) - 0.03 < metrics["nll_nats"] < noise + 1.2 * np.log(2)  # a step takes a steep decoder
    assert metrics["prior_nats"] == pytest.approx(metrics["nll_nats"], abs=0.03)
    assert metrics["bound_nats"] > metrics["nll_nats"]
    drawn = np.concatenate([images[f"CVAE, draw {i + 1}"] for i in range(study.DRAWN)])
    assert np.abs(drawn[:, 0, 1] - drawn[:, 1, 1]).mean() < 0.1  # both right pixels at once
    np.testing.assert_array_equal(images["NN"][:, 1, 0], dataset.test.x[: study.SHOWN, 1, 0])  # what is seen stays


def test_published_figures_stand_beside_their_recipe_alone():
    found = {"nn_nats": [100.0], "bound_nats": [72.0], "prior_nats": [71.0], "nll_nats": [70.0], "prior_ess": [2.0],
             "nll_ess": [5.0]}  # fmt: skip
    recipe = study.Config("mnist", latent_dim=200, hidden_dims=(500, 500), patience=3)
    lines = study.table(study.to_dict(recipe) | {"hidden_dims": [500, 500], "metrics": {"1": found}}).splitlines()
    assert lines[-1] == "| 1 | 100 | 72 | 71 (2) | 70 (5) | 30 | 100.4 | 71.8 |"
    other = study.table(study.to_dict(study.Config()) | {"metrics": {"1": found}})
    assert "100.4" not in other


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quadrants": (4,)}, "of four 1, 2 or 3 can be seen"),
        ({"quadrants": ()}, "of four 1, 2 or 3 can be seen"),
        ({"patience": 0}, "--patience=0; at least 1"),
        ({"num_samples": 0}, "--num-samples=0; at least 1"),
        ({"lr": 0.0}, "--lr is 0"),
    ],
)
def test_refused_before_it_begins(fields, message):
    with pytest.raises(InputError, match=message):
        study.load(study.Config(**fields))


def test_vectors_have_no_quadrants(tmp_path):
    np.savez(tmp_path / "v.npz", x=np.zeros((40, 16), np.float32))
    with pytest.raises(InputError, match="holds vectors; quadrants are of images"):
        study.load(study.Config(dataset=str(tmp_path / "v.npz")))


@pytest.mark.slow
def test_the_command_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    flags = ["--quadrants", "1", "3", "--num-epochs", "2", "--hidden-dims", "8", "--latent-dim", "2",
             "--num-samples", "5", "--workdir", "run"]  # fmt: skip
    run = lambda *more: launch.command_line("conditional", study.Config, "", study.body, [*flags, *more])
    run()
    assert "| 3 |" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["1"]["pixels"] == [48]
    assert summary["metrics"]["3"]["pixels"] == [16]
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"quadrants_1-0.png", "quadrants_3-0.png"}
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "quadrants_3-0.json").unlink()
    pieces = []
    own = study.piece
    monkeypatch.setattr(study, "piece", lambda *args: pieces.append(args[2]) or own(*args))
    run("--resume")
    assert pieces == [3]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"] == summary["metrics"]
