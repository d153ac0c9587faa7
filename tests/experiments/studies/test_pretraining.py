"""The study of stacks: stage after stage, what each of them moves, its table, and one small study from end to end."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_run import contents

from aejax import evaluation, nets, runner
from aejax.checks import DivergedError, InputError
from aejax.evaluation import FineTuned
from aejax.runner import launch, study
from experiments.studies import finetuning, pretraining

FLAGS = (
    "--hidden-dims", "12", "--latent-dim", "6", "--num-epochs", "2", "--batch-size", "500",
    "--finetune.num-epochs", "2", "--finetune.batch-size", "500", "--finetune.lrs", "0.1",
)  # fmt: skip


def call(*flags):
    launch.command_line("pretraining", pretraining.Config, "", study.body(pretraining.STUDY), [*FLAGS, *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study; look, do not touch."""
    path = tmp_path_factory.mktemp("runs") / "stacked"
    call("--workdir", str(path))
    return path


def test_a_stage_is_a_run_and_begins_after_the_one_below():
    runs = pretraining.runs(dataclasses.replace(pretraining.Config(), hidden_dims=(9, 8), num_seeds=2, seed=5))
    assert list(runs)[:6] == ["sdae_0-5", "sdae_1-5", "sdae_2-5", "sae_0-5", "sae_1-5", "sae_2-5"]
    assert len(runs) == 12
    before = {name: pretraining.after(name) for name in runs}
    assert before == {name: f"{name[:-3]}{int(name[-3]) - 1}{name[-2:]}" if name[-3] > "0" else None for name in runs}
    assert before["sdae_2-6"] == "sdae_1-6"
    order = list(runs)
    assert all(order.index(first) < order.index(name) for name, first in before.items() if first is not None)
    for name, (experiment, own) in runs.items():
        assert (own.layer, experiment.monitor) == (int(name[-3]), f"layer_{name[-3]}/loss")
        assert own.corruption == ("masking" if name.startswith("sdae") else "none")


@pytest.mark.slow
def test_a_stage_moves_its_own_layer_only(finished):
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))
    for method in ("sae", "sdae"):
        config, model, first = runner.load(finished / f"{method}_0-0")
        second = runner.load(finished / f"{method}_1-0")[2]
        key, *_ = jax.random.split(jax.random.key(0), 3)
        fresh = nets.init_params(model, key, runner.load_data(config).train.x[:1])
        for params, before, layer in ((first.params, fresh, 0), (second.params, first.params, 1)):
            moved = {group for group in params if not same(params[group], before[group])}
            assert moved == {f"encoder_{layer}", f"decoder_{layer}"}
        assert int(second.step) == int(first.step)  # counted anew: the schedule of a stage is its own


@pytest.mark.slow
def test_without_pretraining_there_are_as_many_passes(monkeypatch):
    asked, named = [], []

    def fine_tuned(model, params, dataset, key, finetune, *, lrs, say):
        say("half way")
        asked.append((finetune.num_epochs, lrs, model.latent_dim, len(model.encoder)))
        return {"finetuned_validation_error": 1 - lrs[0], "finetuned_error": 0.1, "finetuned_lr": lrs[0]}

    def once(name, measure):
        return measure(lambda text: named.append(f"{name}: {text}")) | {"seconds": 3.0}

    monkeypatch.setattr(finetuning, "fine_tuned", fine_tuned)
    config = dataclasses.replace(
        pretraining.Config(), hidden_dims=(9, 8), latent_dim=7, num_epochs=5, num_seeds=2,
        finetune=pretraining.FineTune(lrs=(0.1, 0.2), num_epochs=4),
    )  # fmt: skip
    dataset = runner.load_data(pretraining.stage(config, "none", 0))
    found = pretraining.beside(config, dataset, once)["none"]
    assert (found["finetuned_lr"], found["seconds"]) == ([0.2, 0.2], [6.0, 6.0])
    assert asked == [(4 + 3 * 5, (lr,), 7, 3) for lr in (0.1, 0.2)] * 2
    assert named == [f"none-{seed}_{lr}: half way" for seed in (0, 1) for lr in (0.1, 0.2)]


def test_every_row_keeps_the_rate_of_the_lowest_validation_error(monkeypatch):
    errors = {0.1: (0.03, 0.01), 0.3: (0.02, 0.04), 0.9: (0.9, 0.9), 99.0: None}  # validation, test: it decides nothing
    tried = iter(errors)
    dataset = runner.load_data(runner.Config(dataset="digits"))

    def fine_tune(model, params, data, key, *, tx, num_epochs, batch_size, say):
        say("epoch 1")
        assert (num_epochs, batch_size) == (7, 20)
        lr = next(tried)
        assert tx is finetuning.descent(lr, 0.5, 7 * (len(data.train.x) // 20))
        if errors[lr] is None:
            raise DivergedError(5, "classifier/loss")
        validation, test = errors[lr]
        return FineTuned({}, 3, validation, test, ())

    said = []
    monkeypatch.setattr(evaluation, "fine_tune", fine_tune)
    finetune = pretraining.FineTune(momentum=0.5, num_epochs=7, batch_size=20)
    keys = {"lrs": tuple(errors), "say": said.append}
    found = finetuning.fine_tuned(None, None, dataset, jax.random.key(0), finetune, **keys)
    assert found == {
        "finetuned_lr": 0.3, "finetuned_epoch": 3, "finetuned_validation_error": 0.02, "finetuned_error": 0.04,
    }  # fmt: skip
    assert said == [f"rate {lr:g}: epoch 1" for lr in errors]
    tried = iter([99.0])
    with pytest.raises(DivergedError) as caught:
        finetuning.fine_tuned(None, None, dataset, jax.random.key(0), finetune, lrs=(99.0,))
    assert "at the rate 99, one of --finetune" in caught.value.__notes__[0]


@pytest.mark.slow
def test_the_study_ends_with_a_table_and_is_not_run_twice(finished, capsys):
    metrics = json.loads((finished / "summary.json").read_text())["metrics"]
    assert list(metrics) == ["none", "sdae_0", "sdae_1", "sae_0", "sae_1"]
    assert set(metrics["none"]) == {
        "finetuned_epoch", "finetuned_validation_error", "finetuned_error", "finetuned_lr", "seconds",
    }  # fmt: skip
    assert set(metrics["sae_0"]) == {"seconds"}  # the classifier comes after the last stage
    assert 0 < metrics["sae_1"]["finetuned_error"][0] < 1
    before = contents(finished)
    assert "figures/filters.png" in before
    kept = json.loads((finished / "none-0_0.1.json").read_text())["metrics"]
    assert study.by_row({"none-0": kept})["none"] == metrics["none"]
    call("--workdir", str(finished))
    out = capsys.readouterr().out
    assert "| SDAE-2, masking |" in out
    assert "(1.28)" not in out
    assert contents(finished) == before


def test_the_table_adds_the_seconds_of_the_stages_and_has_published_errors_for_their_size_alone():
    top = {
        "finetuned_error": [0.014, 0.016], "finetuned_validation_error": [0.02, 0.02], "saturation": [0.5, 0.7],
        "seconds": [10.0, 30.0], "finetuned_lr": [0.1, 0.3],
    }  # fmt: skip
    first, second = {"seconds": [1.0, 2.0]}, {"seconds": [0.5, 1.0]}
    none = {name: values for name, values in top.items() if name != "saturation"}
    stages = {f"{name}_{i}": each for name in ("sdae", "sae") for i, each in enumerate((first, second, top))}
    summary = {"dataset": "mnist", "hidden_dims": [1000, 1000], "latent_dim": 1000, "metrics": {"none": none, **stages}}
    _, _, *lines = pretraining.table(summary).splitlines()
    assert lines == [
        "| no pre-training | 1.50 ± 0.14 | 2 ± 0 | 0.1, 0.3 | | 2, 20 |",
        "| SAE-3 | 1.50 ± 0.14 (1.40) | 2 ± 0 | 0.1, 0.3 | 60 ± 14 | 2, 22 |",  # the median of 11.5 and 33
        "| SDAE-3, masking | 1.50 ± 0.14 (1.28) | 2 ± 0 | 0.1, 0.3 | 60 ± 14 | 2, 22 |",
    ]
    shallow = {**summary, "hidden_dims": [1000], "metrics": {"none": none, "sdae_0": first, "sdae_1": top,
                                                             "sae_0": first, "sae_1": top}}  # fmt: skip
    assert "| SAE-2 |" in pretraining.table(shallow)
    for other in (summary | {"dataset": "digits"}, summary | {"latent_dim": 500}, shallow):
        assert "(1." not in pretraining.table(other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-seeds", "0"], "--num-seeds"),
        (["--finetune.num-epochs", "0"], "--finetune.num-epochs"),
        (["--finetune.lrs", "0.1", "0"], "finetune.lrs[1] is 0.0"),
        (["--finetune.momentum", "-1"], "finetune.momentum is -1.0"),
        (["--finetune.batch-size", "5000"], "5000"),
        (["--hparams.lr", "-1"], "lr is -1.0"),
        (["--hparams.level", "2"], "2.0"),  # of the denoising stack alone
        (["--dataset", "faces.npy"], "faces has no labels to fine-tune on"),
    ],
)
def test_refused_before_it_begins(tmp_path, capsys, flags, message):
    np.save(tmp_path / "faces.npy", np.random.default_rng(0).random((700, 4, 4)))
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call("--workdir", "run", *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_layers_that_are_not_there_are_refused():
    config = pretraining.LayerConfig(hidden_dims=(9,), layer=2)
    with pytest.raises(InputError, match=r"the stack has the layers \[0, 1\]"):
        runner.prepare(pretraining.EXPERIMENT, config, shapes_only=True)
