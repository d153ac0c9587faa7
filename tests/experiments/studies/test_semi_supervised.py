"""The study of few labels: whose they are, what M2 is told of the codes of M1, its table, and one from end to end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import contents, read

from aejax import evaluation, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.m2 import SemiBatch
from aejax.methods.vae import VAE
from aejax.nets import init_params
from aejax.posteriors import DiagonalGaussian
from aejax.runner import launch, study, units
from experiments import m2
from experiments.studies import semi_supervised
from experiments.studies.semi_supervised import Codes, Config
from experiments.studies.units import METRICS

KEY = jax.random.key(0)
FLAGS = (
    "--dataset", "faces.npz", "--num-labels", "6", "12", "--hidden-dims", "8", "--latent-dim", "2",
    "--batch-size", "20", "--label-batch-size", "10", "--m1.hidden-dims", "8", "--m1.latent-dim", "3",
    "--m1.num-epochs", "60", "--m1.batch-size", "20", "--m1.lr", "0.01",
)  # fmt: skip


def call(*flags):
    launch.command_line("semi_supervised", Config, "", study.body(semi_supervised.STUDY), [*FLAGS, *flags])


@pytest.fixture(scope="module")
def faces():
    """Three kinds of images with noise, 60 to train and 30 to test, that pixels tell apart."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    means = np.where(rng.random((3, 4, 4)) < 0.5, 0.1, 0.9)
    x = np.clip(means[y] + 0.1 * rng.normal(size=(90, 4, 4)), 0, 1).astype(np.float32)
    return {"x": x[:60], "y": y[:60], "x_test": x[60:], "y_test": y[60:]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, faces):
    """The folder of a study of two passes; look, do not touch."""
    path = tmp_path_factory.mktemp("runs")
    np.savez(path / "faces.npz", **faces)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        call("--workdir", "run", "--num-epochs", "2")
    return path / "run"


def test_labels_are_drawn_evenly_by_the_seed():
    y = np.array([0] * 50 + [1] * 7 + [2] * 13)
    first = m2.balanced(y, 8)
    assert sorted(first) == [0, 1, 2, 50, 51, 52, 57, 58]  # the first of each class; two classes have one more
    drawn = [m2.balanced(y, 9, seed=seed) for seed in range(400)]
    assert all(np.bincount(y[rows]).tolist() == [3, 3, 3] and len({*rows}) == 9 for rows in drawn)
    assert np.array_equal(m2.balanced(y, 9, seed=3), drawn[3])
    assert np.bincount(y[m2.balanced(y, 30, seed=0)]).tolist() == [12, 7, 11]  # a class that has no more
    kept = np.bincount(np.concatenate(drawn), minlength=70)  # each of 50 in 3 of 50 draws, ...
    share = 3 / np.bincount(y)[y]
    assert np.all(np.abs(kept - 400 * share) < 5 * np.sqrt(400 * share * (1 - share)))
    assert sorted(m2.balanced(y, 70, seed=1)) == list(range(70))


def test_a_row_for_every_number_of_labels_and_seed(tmp_path, faces):
    np.savez("faces.npz", **faces)
    config = Config(dataset="faces.npz", num_labels=(6, 12), num_seeds=2, seed=4, label_batch_size=10)
    images, codes = semi_supervised.runs(config), semi_supervised.runs_of_codes(config, tmp_path)
    assert [*images] == ["m1-4", "m2_6-4", "m2_12-4", "m1-5", "m2_6-5", "m2_12-5"]
    assert [*codes] == ["m1_m2_6-4", "m1_m2_12-4", "m1_m2_6-5", "m1_m2_12-5"]
    dataset = runner.load_data(images["m1-4"][1])
    rows = {name: m2.labelled(own, dataset).tolist() for name, (_, own) in images.items() if name.startswith("m2")}
    assert rows["m2_6-4"] != rows["m2_6-5"]
    assert set(rows["m2_6-4"]) < set(rows["m2_12-4"])  # more labels are further ones
    assert images["m2_12-4"][1].hparams.labelled == pytest.approx(12 / 60)  # a labelled image counts as any other
    feed = semi_supervised.feed(images["m2_6-4"][1], dataset)
    np.testing.assert_array_equal(feed.train.labelled.x, dataset.train.x[rows["m2_6-4"]])
    np.testing.assert_array_equal(feed.train.labelled.y, dataset.train.y[rows["m2_6-4"]])
    assert feed.train.unlabelled == Batch(dataset.train.x)
    sizes = [semi_supervised.feed(images[f"m2_{count}-4"][1], dataset).batch_size.labelled for count in (6, 12)]
    assert sizes == [6, 10]  # 10 are asked for, and of 6 it is all
    assert semi_supervised.feed(images["m1-4"][1], dataset).train == Batch(dataset.train.x)


@pytest.fixture
def encoded(tmp_path, faces, monkeypatch):
    """Codes of a linear M1 of which one dimension is dead, in a file; and the layer that they are made by."""
    np.savez("faces.npz", **faces)
    config = Config(dataset="faces.npz", num_labels=(6,), seed=7, batch_size=20)
    images = {name: own for name, (_, own) in semi_supervised.runs(config).items()}
    model = VAE.dense(16, 3, hidden_dims=())
    params = init_params(model, KEY, jnp.zeros((1, 16)))
    kernel = params["encoder"]["dense_0"]["kernel"].at[:, 1].mul(1e-3)
    bias = jnp.array([0.5, 9.0, 0.0, -1.0, 0.0, 1.0])
    params = params | {"encoder": {"dense_0": {"kernel": kernel, "bias": bias}}}
    state = type("State", (), {"params": params})
    monkeypatch.setattr(runner, "load", lambda path: (images[path.name], model, state))
    codes = semi_supervised.then(config, tmp_path)["m1_m2_6-7"][1]
    return images["m2_6-7"], codes, lambda x: np.float64(x).reshape(-1, 16) @ np.float64(kernel) + np.float64(bias)


def test_m2_sees_the_codes_of_m1_without_its_dead_dimensions(encoded, faces):
    """Those of the images that M2 of pixels sees, and those with labels of the same images."""
    images, codes, outputs = encoded
    assert (outputs(faces["x"])[:, :3].std(axis=0) > 0.1).tolist() == [True, False, True]
    pixels, ready = (runner.prepare(semi_supervised.EXPERIMENT, own, shapes_only=True) for own in (images, codes))
    close = lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    means, logvars = [0, 2], [3, 5]
    for found, wanted in zip(ready.feed.train, pixels.feed.train, strict=True):
        close(found.posterior.mean, outputs(wanted.x)[:, means])
        close(found.posterior.logvar, outputs(wanted.x)[:, logvars])
    few, many = ready.feed.train
    np.testing.assert_array_equal(few.y, pixels.feed.train.labelled.y)
    assert many.y is None
    close(ready.dataset.test.x, outputs(faces["x_test"])[:, means])  # on which it is judged
    np.testing.assert_array_equal(ready.dataset.test.y, faces["y_test"])
    assert ready.model.decoder.net.features[-1] == 4  # a mean and a log-variance of each


def test_logistic_regression_sees_what_has_labels(encoded, faces, monkeypatch):
    images, codes, outputs = encoded
    seen = []
    monkeypatch.setattr(evaluation, "linear_probe", lambda *arrays: seen.append(arrays) or 0.75)
    found = [semi_supervised.probe(own, None) for own in (images, codes)]
    assert found == [{"probe_error": 0.25, "dimensions": 16}, {"probe_error": 0.25, "dimensions": 2}]
    (x, y, test_x, test_y), (z, of_codes, test_z, _) = seen
    np.testing.assert_allclose(z, outputs(x)[:, [0, 2]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(test_z, outputs(test_x)[:, [0, 2]], rtol=1e-5, atol=1e-5)
    assert y.tolist() == of_codes.tolist()
    assert sorted(y) == [0, 0, 1, 1, 2, 2]
    assert test_y.tolist() == faces["y_test"].tolist()


@pytest.mark.slow
def test_a_step_takes_new_draws_of_the_codes(encoded):
    _, codes, _ = encoded
    ready = runner.prepare(semi_supervised.EXPERIMENT, codes, shapes_only=True)
    state, evaluate = ready.fresh(), jax.jit(ready.algorithm.evaluate)
    terms = [float(evaluate(state, ready.feed.train, key)["elbo/class_nats"]) for key in jax.random.split(KEY)]
    assert terms[0] != terms[1]  # it has no noise of its own


def test_codes_are_drawn_from_their_posteriors():
    wide = SemiBatch(*(Codes(DiagonalGaussian(jnp.full((20_000, 1), m), jnp.full((20_000, 1), 2 * np.log(s))), y)
                       for m, s, y in ((2.0, 3.0, jnp.arange(20_000)), (-1.0, 0.5, None))))  # fmt: skip
    drawn = semi_supervised.drawn(KEY, wide)
    for (x, y), m, s in zip(drawn, (2.0, -1.0), (3.0, 0.5), strict=True):
        assert abs(float(x.mean()) - m) < 5 * s / np.sqrt(20_000)
        assert abs(float(x.std()) - s) < 5 * s / np.sqrt(40_000)
        assert y is None or y.tolist() == list(range(20_000))
    assert abs(np.corrcoef(drawn.labelled.x[:, 0], drawn.unlabelled.x[:, 0])[0, 1]) < 5 / np.sqrt(20_000)


def test_codes_that_are_there_stay_unless_m1_has_other_parameters(encoded, tmp_path, monkeypatch):
    """Runs may have begun on these very bits, which another machine does not make again."""
    own, model, state = runner.load(tmp_path / "m1-7")
    file = tmp_path / "codes-7.npz"
    arrays = dict(np.load(file))
    np.savez(file, **arrays | {"x": arrays["x"] + 1e-7})  # as rounded elsewhere
    kept = file.read_bytes()
    semi_supervised.write_codes(tmp_path, 7)
    assert file.read_bytes() == kept
    other = type("State", (), {"params": jax.tree.map(lambda v: 1.5 * v, state.params)})
    monkeypatch.setattr(runner, "load", lambda path: (own, model, other))
    semi_supervised.write_codes(tmp_path, 7)
    np.testing.assert_allclose(np.load(file)["x"], 1.5 * arrays["x"], rtol=1e-5, atol=1e-5)
    assert [*contents(tmp_path)] == ["codes-7.npz", "faces.npz"]


def test_a_dead_m1_is_refused(encoded, tmp_path, monkeypatch):
    (tmp_path / "codes-7.npz").unlink()
    monkeypatch.setattr(semi_supervised, "LEAST", 100.0)
    with pytest.raises(InputError, match=r"All 3 dimensions of M1, seed 7, are dead.*--m1\.num-epochs"):
        semi_supervised.write_codes(tmp_path, 7)


def test_the_table_has_published_figures_for_their_set_and_size_alone():
    rows = {
        "pixels_100": {"probe_error": [0.28, 0.3], "dimensions": [784, 784], "seconds": [1.0, 1.0]},
        "codes_100": {"probe_error": [0.2, 0.22], "dimensions": [30, 32], "seconds": [1.0, 3.0]},
        "m2_100": {"test_error": [0.07, 0.09], "seconds": [100.0, 300.0]},
        "m1_m2_100": {"test_error": [0.04, 0.04], "seconds": [10.0, 30.0]},
        "m1": {"test_bound_nats": [100.0, 100.0], "seconds": [10.0, 30.0]},
    }
    m1 = {"latent_dim": 50, "hidden_dims": [500, 500]}
    summary = {
        "dataset": "mnist",
        "m1": m1,
        "latent_dim": 50,
        "hidden_dims": [500],
        "num_labels": [100],
        "metrics": rows,
    }
    head, _, *lines = semi_supervised.table(summary).splitlines()
    assert head == "| test error, % | 100 labels | seeds, seconds a run |"
    assert lines == [
        "| logistic regression on pixels | 29.0 ± 1.4 | 2, 1 |",
        "| logistic regression on M1, 31.0 ± 1.4 dimensions | 21.0 ± 1.4 | 2, 2 |",
        "| M2 | 8.0 ± 1.4 (6.81) | 2, 200 |",
        "| M1+M2 | 4 ± 0 (3.33) | 2, 20 |",
    ]
    for other in ({"dataset": "digits"}, {"latent_dim": 20}, {"hidden_dims": [300]}):
        assert "(" not in semi_supervised.table(summary | other)
    other = semi_supervised.table(summary | {"m1": m1 | {"hidden_dims": [600, 600]}})
    assert "(6.81)" in other
    assert "(3.33)" not in other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-labels", "6", "6"], "none twice"),
        (["--num-labels", "61"], "--num-labels is 61; 1 to 60"),
        (["--num-labels", "0"], "--num-labels is 0"),
        (["--label-batch-size", "0"], "--label-batch-size is 0"),
        (["--m1.latent-dim", "0"], "--latent-dim is 0"),
        (["--alpha", "-1"], "alpha is -1.0"),
        (["--num-seeds", "0"], "--num-seeds is 0"),
    ],
)
def test_refused_before_it_begins(tmp_path, faces, capsys, flags, message):
    np.savez("faces.npz", **faces)
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call("--workdir", "run", *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_the_study_ends_with_a_table_and_is_not_run_twice(finished, faces, capsys, monkeypatch):
    metrics = read(finished / "summary.json")["metrics"]
    kinds = ("pixels", "codes", "m2", "m1_m2")
    assert {*metrics} == {"m1", *(f"{kind}_{count}" for kind in kinds for count in (6, 12))}
    names = {name for row in metrics.values() for name in row}
    assert [name for name in names if units.find(name, METRICS) is None] == []
    assert metrics["pixels_12"]["probe_error"][0] < 0.2  # guessing is wrong in two of three
    config, model, state = runner.load(finished / "m1_m2_12-0")
    assert config.kind == "m1_m2"
    x = np.load(finished / "codes-0.npz")["x_test"]
    logits = model.apply({"params": state.params}, x, method="classify")
    assert metrics["m1_m2_12"]["test_error"] == [pytest.approx(np.mean(logits.argmax(axis=1) != faces["y_test"]))]
    before = contents(finished)
    assert {"figures/errors.png", "figures/styles.png"} <= {*before}
    assert json.loads(before["config.json"])["runs"] == [
        "m1-0", "m2_6-0", "m2_12-0", "m1_m2_6-0", "m1_m2_12-0",
    ]  # fmt: skip
    monkeypatch.chdir(finished.parent)
    call("--workdir", "run", "--num-epochs", "2")
    assert "| M1+M2 |" in capsys.readouterr().out
    assert contents(finished) == before


@pytest.mark.slow
def test_a_longer_study_keeps_m1_and_goes_on_with_the_others(tmp_path, faces, finished):
    np.savez("faces.npz", **faces)
    call("--workdir", "run", "--num-epochs", "1")
    kept = contents(tmp_path / "run" / "m1-0")
    call("--workdir", "run", "--num-epochs", "2", "--resume")
    assert contents(tmp_path / "run" / "m1-0") == kept
    for name in ("m2_6-0", "m1_m2_6-0"):
        longer, whole = (runner.load(folder / name)[2] for folder in (tmp_path / "run", finished))
        assert int(longer.step) == int(whole.step) == 6
        jax.tree.map(np.testing.assert_array_equal, longer.params, whole.params)
