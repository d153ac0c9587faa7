"""Whatever is reported is in the table of units: every name, from the functions that make it."""

import jax
import numpy as np
import pytest

from aejax import data, nets, runner
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.runner import units
from aejax.runner.inputs import seen
from experiments.studies import (
    beta_vae,
    bits_back,
    bounds,
    clustering,
    collapse,
    compression,
    contractive,
    conv_ae,
    counts,
    deep_ae,
    denoising,
    disentangle,
    energy,
    feature_losses,
    flows,
    generate,
    generators,
    likelihood_view,
    linear_ae,
    manifold,
    modes,
    pages,
    pretraining,
    priors,
    recommendation,
    retrieval,
    score,
    sparse_codes,
    spectra,
    stability,
    wae_penalties,
)
from experiments.studies.units import METRICS

KEY = jax.random.key(0)
STUDIES = {
    linear_ae: {"latent_dims": (3,), "latent_dim": 3, "num_directions": 3},
    sparse_codes: {"latent_dim": 4, "ks": (2,), "alphas": (1.0,),
                   "probe": sparse_codes.Probe(num_epochs=1, batch_size=20)},
    manifold: {"hidden_dims": (8,), "k": 4, "graph_k": 4},
    pretraining: {"hidden_dims": (), "latent_dim": 4, "finetune": pretraining.FineTune(num_epochs=1, batch_size=20)},
    contractive: {"methods": ("ae", "ae_wd", "scae", "cae_h", "rcae"), "latent_dim": 4,
                  "finetune": contractive.FineTune(num_epochs=1, batch_size=20)},
    bounds: {"rows": ("vae_2", "dreg_2"), "hidden_dims": (8,), "latent_dim": 2, "nll_samples": 600},
    clustering: {"hidden_dims": (8,), "latent_dim": 2, "pretrain_epochs": 1},
    deep_ae: {"hidden_dims": (8,), "latent_dim": 2},
    conv_ae: {},
    bits_back: {"hidden_dims": (8,), "latent_dim": 2},
    priors: {"hidden_dims": (8,), "latent_dim": 2, "nll_samples": 2, "num_components": 3, "num_seeds": 1},
    flows: {"hidden_dims": (8,), "latent_dim": 2, "nll_samples": 2, "depths": (1,), "num_seeds": 1},
    generate: {"hidden_dims": (8,), "latent_dim": 2, "walk_between": (0, 1), "num_seeds": 1},
    collapse: {
        "hidden_dims": (8,), "latent_dim": 2, "large_dim": 3, "decoder_dims": (8, 8), "num_seeds": 1, "num_epochs": 4,
    },
}  # fmt: skip


def undocumented(names):
    return sorted(name for name in names if units.find(name, METRICS) is None)


def test_the_page_is_that_of_the_table():
    assert pages.UNITS.read_text() == pages.units_page(), "run python -m experiments pages"
    assert "| `sparsity` |" in pages.units_page()
    assert units.find("val/elbo/loss") == units.find("loss")


@pytest.mark.first(9)
@pytest.mark.parametrize("name", METHODS)
def test_every_term_of_every_method_is_in_the_table(name):
    """And where a loss couples examples, the table says of which term."""
    found = METHODS[name]
    model = found.model.dense(9, 30, **{"hidden_dims": (5,), **getattr(found, "fields", {})})
    x, y = np.full((8, 9), 0.5, np.float32), np.zeros(8, np.int32)
    algo = found.build(model)
    batch = getattr(found, "batch", lambda x, y: Batch(x))(x, y)
    state = jax.eval_shape(lambda: algo.init(nets.init_params(model, KEY, seen(model, Batch(x, y)))))
    terms = jax.eval_shape(algo.evaluate, state, batch, KEY)
    assert undocumented(terms) == []
    assert any(units.find(term).coupled for term in terms) or not algo.coupled


@pytest.fixture
def faces(tmp_path):
    """Three kinds of image, 90 in all."""
    x, y = np.random.default_rng(0).random((90, 4, 4)), np.arange(90) % 3
    np.savez(tmp_path / "faces.npz", x=x, y=y, x_test=x[:30], y_test=y[:30])
    return "faces.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [each if each in (linear_ae, sparse_codes) else pytest.param(each, marks=pytest.mark.slow) for each in STUDIES],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_whatever_a_study_reports_is_in_the_table_of_units(module, faces, monkeypatch):
    """The terms of every row, by shapes; what is measured of fresh parameters, once for all rows that measure alike."""
    monkeypatch.setattr(conv_ae, "_DENSE", {"dense": (), "deep": ()})
    config = module.Config(dataset=faces, batch_size=20, **{"num_epochs": 1} | STUDIES[module])
    names, measured = {"seconds"}, {}
    for experiment, own in module.runs(config).values():
        ready = runner.prepare(experiment, own, shapes_only=True)
        terms = jax.eval_shape(ready.algorithm.evaluate, ready.state, Batch(ready.dataset.train.x[:20]), KEY)
        names |= {name.rpartition("/")[2] for name in terms}
        if own.net == "dense":  # convolutions take longest to compile, and are measured as the others are
            measure = getattr(experiment.measure, "func", experiment.measure)
            measured[measure, own.hparams, str(getattr(experiment.measure, "keywords", ""))] = experiment, own
    for experiment, own in measured.values():
        ready = runner.prepare(experiment, own)
        trained = runner.Trained(own, ready.model, ready.algorithm, ready.state, ready.dataset, [], KEY, KEY, {})
        names |= set(experiment.measure(trained))
    if module in (deep_ae, conv_ae, manifold, bits_back, generate):
        dataset = runner.load_data(own)
        names |= {name for row in module.beside(config, dataset, None).values() for name in row}
    assert len(names) > 5
    assert undocumented(names) == []


def test_whatever_the_other_experiments_report_is_in_the_table_of_units():
    x = np.random.default_rng(0).random((90, 16), np.float32)
    readings = likelihood_view.readings(data.Dataset("x", Batch(x), None, Batch(x), None))
    names = {
        *counts.COLUMNS,
        *recommendation.COLUMNS["ratings"],
        *recommendation.COLUMNS["lists"],
        *compression.METRICS,
        *(f"{name}_{bits}" for name in ("precision", "ball", "empty") for bits in retrieval.Config.bits),
        "cosine",
        *denoising.METRICS,
        *generators.SCORES,
        *feature_losses.SCORES,
        *energy.SCORES,
        *wae_penalties.SCORES,
        *score.ERRORS,
        *spectra.METRICS,
        *modes.MEASURED,
        *disentangle.SCORES,
        *disentangle.TRAINED,
        *beta_vae.MEASURED,
        *beta_vae.EXACT,
        "noise_nats",
        *(row.metric for row in stability.ROWS.values()),
        "samples_apart",
        "knn1_accuracy",
        "hidden_knn1_accuracy",
    }
    assert undocumented(names.union(*readings.values())) == []
    assert undocumented(["no_such_name"]) == ["no_such_name"]
