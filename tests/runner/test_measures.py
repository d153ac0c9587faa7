import dataclasses
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sklearn.decomposition import PCA

from aejax import runner
from aejax.algorithm import TrainState
from aejax.checks import InputError
from aejax.data import Batch, Dataset
from aejax.runner import measures, pictures, units
from aejax.runner.inputs import Spec
from experiments import aae, ae, cae, cae_h, dae, k_sparse, rcae, scae, sparse_ae, vae
from experiments.studies import compare


def test_principal_angle_of_a_rotated_direction():
    x = np.random.default_rng(0).normal(size=(500, 3)) * [5.0, 1.0, 0.1]
    x = np.concatenate([x, -x])  # exact mean 0
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1]
    for degrees in (0.0, 10.0, 90.0):
        angle = math.radians(degrees)
        direction = math.cos(angle) * axes[:, [0]] + math.sin(angle) * axes[:, [1]]
        assert measures.principal_angle(3.0 * direction, x) == pytest.approx(degrees, abs=1e-5)


def test_pca_sse_is_that_of_scikit_learn(digits):
    train, test = digits[:1500], digits[1500:]
    fitted = PCA(10, svd_solver="full").fit(train.astype(np.float64))
    error = fitted.inverse_transform(fitted.transform(test)) - test
    expected = np.square(error).sum(axis=1).mean()
    assert measures.pca_sse(train, test, 10) == pytest.approx(expected, rel=1e-6)
    assert measures.pca_sse(train, test, 64) == pytest.approx(0.0, abs=1e-6)


def test_uncentred_pca_sse_by_hand():
    x = np.array([[3.0, 4.0], [6.0, 8.0]])  # one direction through the origin
    test = np.array([[3.0, 4.0], [-4.0, 3.0]])  # on it, and at a right angle to it
    assert measures.pca_sse(x, test, 1, centred=False) == pytest.approx(12.5)


def test_final_mean_weighs_the_last_tenth_of_the_steps():
    rows = [{"step": 50, "loss": 9.0}, {"step": 95, "loss": 2.0}, {"step": 100, "loss": 4.0}]
    # Steps 91 to 95 at 2, steps 96 to 100 at 4.
    assert measures.final_mean(SimpleNamespace(history=rows), "loss") == pytest.approx(3.0)


def test_the_jacobian_norm_of_pca_is_that_of_its_components(digits):
    from aejax import data

    dataset = data.flatten(data.load("digits"))
    metrics, z, x_hat = compare.pca(dataset, 5)
    assert metrics["jacobian_norm"] == pytest.approx(np.linalg.norm(PCA(5).fit(dataset.train.x).components_))
    assert metrics["test_sse"] == pytest.approx(measures.pca_sse(dataset.train.x, dataset.test.x, 5), rel=1e-4)
    assert np.square(dataset.test.x - x_hat).sum(axis=1).mean() == pytest.approx(metrics["test_sse"])
    assert z.shape == (180, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        *(ae, vae, sparse_ae),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (dae, cae, scae, cae_h, rcae, k_sparse, aae)),
    ],
    ids=lambda module: module.__name__,
)
def test_whatever_a_run_reports_is_in_the_table_of_units(module):
    fields = {vae: {"hidden_dims": (8,), "nll_samples": 2}, sparse_ae: {}, k_sparse: {}}.get(
        module, {"hidden_dims": (8,)}
    )
    result = runner.run(module.EXPERIMENT, module.Config(num_epochs=1, **fields))
    terms = set(result.history[-1]) - {"step", "epoch"}
    assert [name for name in {*result.metrics, *terms} if units.find(name) is None] == []
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_published_figures_stand_beside_their_own_recipe_only():
    flax = vae.Config(
        dataset="mnist", hidden_dims=(500,), latent_dim=20, num_epochs=10, binarize="stochastic", validation=0.0, seed=7
    )
    assert vae.reference(flax)["test_bound_nats"].value == 104
    for change in ({"num_epochs": 20}, {"likelihood": "gaussian"}, {"hparams": vae.method.HParams(beta=4.0)}):
        assert vae.reference(dataclasses.replace(flax, **change)) == {}
    linear = ae.Config(dataset="mnist", hidden_dims=(), latent_dim=30, likelihood="gaussian")
    assert ae.reference(linear)["test_sse"].value == 13.87
    for change in ({"use_bias": False}, {"latent_dim": 10}, {"binarize": "threshold"}, {"dataset": "digits"}):
        assert ae.reference(dataclasses.replace(linear, **change)) == {}


def test_codes_drawn_from_the_prior_pass_and_narrower_ones_do_not():
    z = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    model, key = vae.method.VAE.dense(4, 2), jax.random.key(0)
    trained = runner.Trained(None, model, None, TrainState(None, {}, {}), None, [], key, key, notes={})
    assert measures.against_prior(trained, z, key)["code_mmd_p"] > 0.05
    assert measures.against_prior(trained, 0.7 * z, key)["code_mmd_p"] < 0.01  # as posterior means are
    assert measures.against_prior(trained, z[:1], key) == {}
    assert "at least 2" in trained.notes["code_mmd"]


@pytest.mark.parametrize("change", [{"hidden_dims": (8,)}, {"tied": True}, {"code": "sigmoid"}, {"use_bias": False}])
def test_flags_of_dense_networks_are_refused_with_convolutions(change):
    with pytest.raises(InputError, match="leave it out with --net conv"):
        ae.EXPERIMENT.build_model(ae.Config(net="conv", **change), Spec((8, 8, 1)))
    ae.EXPERIMENT.build_model(ae.Config(net="conv"), Spec((8, 8, 1)))


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40), (5, 300)])
def test_principal_directions_come_from_the_smaller_side(n, d):
    """NumPy's singular vectors, of wide data too; the matrix that is taken apart has the smaller size."""
    x = np.random.default_rng(0).normal(size=(n, d)) * np.linspace(3, 1, d)
    found, values = measures.principal(x, 3)
    _, scales, rows = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(values, scales[:3] ** 2 / n, rtol=1e-10)
    np.testing.assert_allclose(np.abs((found * rows[:3].T).sum(axis=0)), np.ones(3), rtol=1e-10)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-10)


def test_wide_images_take_little_memory_and_what_takes_too_much_is_refused():
    x = np.random.default_rng(0).normal(size=(6, 200_000)).astype(np.float32)  # D x D would be 320 GB
    assert measures.pca_sse(x, x, 6, centred=False) < 1e-3
    assert measures.principal(x, 9)[0].shape == (200_000, 6)
    with pytest.raises(InputError, match=r"PCA of x \(10001, 10002\) takes a matrix of 10001 rows"):
        measures.principal(np.broadcast_to(np.float32(0), (10_001, 10_002)), 2)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.arange(60), "60 training labels of 60 kinds look like identifiers"),
        (np.arange(60) // 2, None),
        (np.zeros(60, int), "at least two kinds"),
    ],
)
def test_probes_of_labels_that_are_none_are_left_out(labels, why, monkeypatch):
    x = np.random.default_rng(0).random((60, 4), np.float32)
    batch = Batch(x, labels.astype(np.int32))
    monkeypatch.setattr(measures, "codes", lambda trained, split: split.x)
    trained = runner.Trained(None, None, None, None, Dataset("x", batch, None, batch, None), [], None, None, {})
    metrics = measures.probes(trained)
    assert ("probe_accuracy" in metrics) == (why is None)
    assert why is None or why in trained.notes["probe_accuracy"]
    monkeypatch.setattr(measures, "_PROBE", 100)
    assert "probe_accuracy" not in measures.probes(trained)


NORMAL = np.random.default_rng(0).normal(size=(50, 4, 4, 3))


@pytest.mark.parametrize(
    ("x", "note"),
    [
        (np.random.default_rng(0).random((50, 4, 4, 3)), None),
        (
            np.random.default_rng(0).normal(size=(50, 4, 4, 3)),
            "values from -2.37 to 2.23 are shown from black to white",
        ),
        (np.full((50, 4, 4, 1), 7.0), None),  # one grey, whichever
    ],
)
def test_pixels_of_another_range_are_scaled_and_it_is_noted(x, note):
    low, high = np.percentile(x, (1, 99))
    batch = Batch(x.astype(np.float32))
    trained = runner.Trained(None, None, None, None, Dataset("x", batch, None, batch, None), [], None, None, {})
    shown = pictures.shown(trained)(batch.x)
    assert trained.notes == ({} if note is None else {"images": note})
    np.testing.assert_allclose(shown, x if note is None else (x - low) / (high - low), rtol=1e-4, atol=1e-6)
    assert note is None or np.mean((shown < 0) | (shown > 1)) < 0.025  # what is cut off


@pytest.mark.slow
def test_a_run_in_double_precision_ends_as_another(call):
    with jax.enable_x64(True):
        assert call("--workdir", "run", "--num-epochs", 2).code == 0
    _, _, state = runner.load("run")
    assert jax.tree.all(jax.tree.map(lambda leaf: bool(np.isfinite(leaf).all()), state.params))
