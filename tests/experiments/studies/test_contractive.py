"""The contractive family as one experiment: its runs, its search, its limit figure, and what happens on the disk."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import contents

from aejax.data import Batch
from aejax.methods.ae import AE
from aejax.methods.cae import CAE, cae_loss
from aejax.nets import init_params
from aejax.runner import launch, study
from experiments import ae
from experiments.studies import contractive, contractive_search, contractive_sheets

KEY = jax.random.key(0)
SMALL = contractive.Config(
    methods=("ae", "cae"), latent_dim=16, num_epochs=2, batch_size=500,
    finetune=contractive.FineTune(num_epochs=1, batch_size=500),
)  # fmt: skip


def test_every_method_gets_its_seeds_and_only_its_own_knobs():
    config = dataclasses.replace(contractive.Config(), methods=tuple(contractive.METHODS), num_seeds=5, seed=3)
    runs = contractive.runs(config)
    count = {name: sum(run.rpartition("-")[0] == name for run in runs) for name in contractive.METHODS}
    assert count == {name: 5 if name in ("ae", "dae_b", "cae") else 2 for name in contractive.METHODS}
    assert list(runs)[:2] == ["ae-3", "ae_wd-3"]
    assert runs["cae-7"][1].seed == 7
    for _, own in runs.values():
        assert (own.hidden_dims, own.code, own.tied, own.latent_dim) == ((), "sigmoid", True, 1000)
    assert runs["dae_b-3"][1].corruption == "masking"
    assert runs["dae_g-3"][1].hparams.level == config.hparams.noise


def test_weight_decay_is_the_contraction_of_a_linear_code():
    """Rifai et al. (2011): the Jacobian of a linear encoder is its weights."""
    model = AE.dense(6, 4, hidden_dims=(), tied=True)
    x = jax.random.uniform(KEY, (5, 6))
    params = init_params(model, KEY, x)
    decayed = contractive.build_decayed(ae.Config(), model, _sgd, None, weight_decay=0.3)
    metrics = decayed.evaluate(decayed.init(params), Batch(x), KEY)
    linear = CAE(encoder=model.encoder, decoder=model.decoder, latent_dim=4)
    loss, terms = cae_loss(params, Batch(x), KEY, model=linear, contraction=0.3)
    np.testing.assert_allclose(metrics["recon/loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["recon/weights_sq"], terms["jacobian_sq"], rtol=1e-6)


def _sgd(lr):
    import optax

    return optax.sgd(lr)


@pytest.mark.slow
def test_a_point_of_the_search_is_what_its_run_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"latent_dim": 16, "num_epochs": 2, "batch_size": 500, "finetune": SMALL.finetune}
    config = contractive_search.Config(**own, methods=("cae",), num_points=2)
    flags = ["--methods", "cae", *FLAGS[3:-1], "search", "--num-points", "2"]
    call(contractive_search, config, *flags)
    tried = json.loads((tmp_path / "search" / "summary.json").read_text())["points"]["cae"]
    points = contractive_search.points(config)
    assert sorted(point["lr"] for point in tried) == sorted(point["lr"] for point in points)
    for i, point in enumerate(points):
        own = json.loads((tmp_path / "search" / f"cae-{i}" / "config.json").read_text())["config"]
        assert own["hparams"] == {"lr": point["lr"], "contraction": point["contraction"]}
        assert contractive_search.runs(config)[f"cae-{i}"][0].measure.keywords["finetune"].lr == point["finetune_lr"]
    errors = [point["finetuned_validation_error"] for point in tried]
    assert errors == sorted(errors)
    with pytest.raises(SystemExit):
        call(contractive_search, config, *flags, "--num-seeds", "2")


def test_the_search_tries_every_step_of_every_knob_once():
    points = contractive_search.points(contractive_search.Config(num_points=15, seed=4))
    for name, (low, high) in contractive_search.SPACE.items():
        steps = np.log([point[name] / low for point in points]) / np.log(high / low) * 15
        np.testing.assert_allclose(np.sort(steps), np.arange(15) + 0.5, atol=0.05)  # to the three digits kept
    assert contractive_search.points(contractive_search.Config(num_points=15, seed=4)) == points
    assert contractive_search.points(contractive_search.Config(num_points=15, seed=5)) != points
    ranked = contractive_search.ranked([{"finetuned_validation_error": value} for value in (0.3, 0.1, 0.2)])
    assert [point["finetuned_validation_error"] for point in ranked] == [0.1, 0.2, 0.3]


def test_the_limit_by_quadrature_is_that_of_draws_and_its_slope_that_of_richardson():
    model = CAE.dense(5, 3)
    x = np.asarray(jax.random.uniform(KEY, (4, 5)))
    params = init_params(model, jax.random.key(1), x)
    layer = params["encoder"]["dense_0"]
    layer["kernel"] = 3 * layer["kernel"]
    found = contractive_sheets.limit(params, x, np.array([0.02, 0.04, 0.5]))
    exact = jnp.square(jax.vmap(jax.jacfwd(lambda row: model.bind({"params": params}).encode(row[None])[0]))(x))
    assert found.jacobian_sq == pytest.approx(float(exact.sum() / 4), rel=1e-5)
    rates = (found.expected[:2] - found.jacobian_sq) / np.array([0.02, 0.04]) ** 2
    assert (4 * rates[0] - rates[1]) / 3 == pytest.approx(found.slope, rel=1e-4)
    kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
    noise = 0.5 * np.random.default_rng(0).normal(size=(100_000, 4, 5))
    h = lambda x: 1 / (1 + np.exp(-(x @ kernel + bias)))
    shifts = np.square(h(x + noise) - h(x)).sum(axis=2).mean(axis=1) / 0.25
    assert abs(shifts.mean() - found.expected[2]) < 4.4 * shifts.std() / 100_000**0.5  # wrong once in 10^5 seeds


def test_the_table_is_in_per_cent_and_published_figures_are_for_mnist():
    found = {
        "finetuned_error": [0.011, 0.013], "jacobian_norm": [4.0, 6.0], "saturation": [0.5, 0.5],
        "test_sse": [3.0, 3.0], "seconds": [10.0, 20.0],
    }  # fmt: skip
    summary = {"dataset": "mnist", "metrics": {"cae": found, "scae": found}}
    *_, cae, scae = contractive.table(summary).splitlines()
    assert cae == "| CAE | 1.20 ± 0.14 (1.14) | 5.0 ± 1.4 (0.73e-4) | 50 ± 0 (86) | 3 ± 0 | 2, 15 |"
    assert scae == "| SCAE | 1.20 ± 0.14 | 5.0 ± 1.4 | 50 ± 0 | 3 ± 0 | 2, 15 |"
    assert "(1.14)" not in contractive.table(summary | {"dataset": "digits"})


def test_the_published_table_is_that_of_the_runs():
    root = Path(contractive.__file__).parents[2]
    summary = json.loads((root / "docs" / "contractive.json").read_text())
    assert contractive.table(summary) in (root / "docs" / "contractive.md").read_text()
    for name, points in summary["search"].items():
        values = [point["finetuned_validation_error"] for point in points]
        assert len(values) == 15
        assert values == sorted(values)
        rate = "plain_lr" if name in contractive.PLAIN else "lr"
        assert (summary["hparams"][rate], summary["finetune"][rate]) == (points[0]["lr"], points[0]["finetune_lr"])


def call(module, config, *flags):
    """The command line of a module, in process."""
    body = study.body(module.STUDY) if module is contractive else module.body
    launch.command_line(module.__name__.rpartition(".")[2], type(config), "", body, flags)


FLAGS = (
    "--methods", "ae", "cae", "--latent-dim", "16", "--num-epochs", "2", "--batch-size", "500",
    "--finetune.num-epochs", "1", "--finetune.batch-size", "500", "--workdir", "run",
)  # fmt: skip


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_the_rest_is_the_same(tmp_path, monkeypatch, capsys):
    """Ended by a full disk in the fine-tuning of the second run, and resumed: the first run is not touched."""
    call(contractive, SMALL, *FLAGS)
    whole = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert {name: len(values["finetuned_error"]) for name, values in whole.items()} == {"ae": 1, "cae": 1}
    documented = (Path(contractive.__file__).parents[2] / "docs" / "units.md").read_text()
    assert all(f"`{name}`" in documented for name in whole["cae"])
    assert "| CAE |" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {"filters.png", "limit.png"}

    (tmp_path / "run").rename(tmp_path / "whole")
    measure, calls = contractive.measure, []

    def broken(trained, **kwargs):
        calls.append(trained.config.seed)
        if len(calls) == 2:
            raise OSError("the disk is full")
        return measure(trained, **kwargs)

    monkeypatch.setattr(contractive, "measure", broken)
    with pytest.raises(SystemExit):
        call(contractive, SMALL, *FLAGS)
    monkeypatch.setattr(contractive, "measure", measure)
    before = contents(tmp_path / "run" / "ae-0")
    call(contractive, SMALL, *FLAGS, "--resume")
    assert contents(tmp_path / "run" / "ae-0") == before
    resumed = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    for values in (*whole.values(), *resumed.values()):
        del values["seconds"]
    assert resumed == whole


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "cea"], "Did you mean 'cae'"),
        (["--num-seeds", "0"], "--num-seeds of at least 1"),
        (["--finetune.num-epochs", "0"], "--finetune.num-epochs"),
        (["--finetune.lr", "0"], "finetune.lr is 0.0"),
        (["--dataset", "faces.npy"], "faces has no labels to fine-tune on"),
        (["--hparams.contraction", "-1"], "contraction is -1.0"),  # of the last method, before the first is trained
        (["--finetune.batch-size", "5000"], "5000"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, flags, message):
    np.save(tmp_path / "faces.npy", np.random.default_rng(0).random((700, 4, 4)))
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call(contractive, SMALL, *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
