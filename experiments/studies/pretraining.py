"""Stacked autoencoders, plain and denoising, as the start of a deep classifier.

Vincent et al. (2010), table 3: layers of sigmoids are pre-trained one after the other, by SGD on the cross-entropy,
each on the code of the one below (SAE: as it is, SDAE: corrupted by masking noise); then a softmax is put on top and
everything is trained on the labels, and the epoch and the rate best on the validation split are kept, row by row.
Beside them the same network without pre-training, which sees as many passes over the data in fine-tuning alone. Stages
of a seed see the data in one order. On MNIST, `--dataset mnist --hidden-dims 1000 1000 --latent-dim 1000 --num-epochs 8
--finetune.num-epochs 12 --finetune.batch-size 50`, 40 minutes of a busy core, gave 1.49 % (SDAE-3), 1.80 % (SAE-3) and
2.18 % (no pre-training), one seed (2026-11-21).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from aejax import evaluation, nets, runner
from aejax.data import Dataset
from aejax.methods import stacked as method
from aejax.runner import Experiment, Trained, study
from aejax.runner.inputs import Spec, spec_of
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments.studies import finetuning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {  # the title, of a number of layers; published: MNIST test error in %, of three layers of 1,000 units
    "none": ("no pre-training", None),
    "sae": ("SAE-{}", 1.40),
    "sdae": ("SDAE-{}, masking", 1.28),
}


class FineTune(NamedTuple):
    """How the classifier is trained: SGD with momentum, its rate falling along a cosine."""

    lrs: tuple[float, ...] = (0.1, 0.3)
    """Every row keeps the one that is best on the validation images."""
    momentum: float = 0.9
    num_epochs: int = 20
    batch_size: int = 100


@dataclasses.dataclass(frozen=True)
class LayerConfig(runner.Config):
    """One stage: one layer of a stack."""

    corruption: Literal["none", "gaussian", "masking", "salt_and_pepper"] = "masking"
    """What happens to what the layer sees; how much is --hparams.level."""
    layer: int = 0
    """Which one is trained, counted from 0."""
    hparams: method.HParams = method.HParams()
    """Real-valued knobs."""


def build_model(config: LayerConfig, spec: Spec) -> Any:
    return runner.build_model(config, spec, method.StackedAE)


def build_algorithm(config: LayerConfig, model: Any, tx: Any, axis_name: str | None) -> Any:
    corruption = None if config.corruption == "none" else config.corruption
    layers = (config.layer,)
    return method.stacked(model, config.hparams, tx, corruption=corruption, layers=layers, axis_name=axis_name)


EXPERIMENT = Experiment(
    "stacked_layer", LayerConfig, build_model, build_algorithm, "layer_0/loss", lambda _: {}, lambda _: {},
    optimizer=optax.sgd, formerly=("stacked",),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npz (x, y)."""
    hidden_dims: tuple[int, ...] = (200, 200)
    """Sigmoid units of the layers but the last."""
    latent_dim: int = 200
    """Sigmoid units of the last layer."""
    num_epochs: int = 30
    """Passes over the training examples for each layer."""
    batch_size: int = 20
    """Examples per step of pre-training, over all devices."""
    hparams: method.HParams = method.HParams(lr=0.1)
    """Real-valued knobs of pre-training by SGD; the rate falls along a cosine within each stage."""
    finetune: FineTune = FineTune()
    """Of the classifier."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """A stage is a run: `sdae_1-0` trains layer 1 of seed 0."""
    dataset = runner.load_data(stage(config, "none", 0))
    finetuning.check(config.finetune, dataset, **{f"lrs[{i}]": lr for i, lr in enumerate(config.finetune.lrs)})
    count = len(config.hidden_dims) + 1
    rows = {}
    for name, corruption in (("sdae", "masking"), ("sae", "none")):
        for layer in range(count):
            each = EXPERIMENT._replace(monitor=f"layer_{layer}/loss")
            if layer == count - 1:
                each = each._replace(measure=partial(measure, finetune=config.finetune))
            rows[f"{name}_{layer}"] = each, stage(config, corruption, layer)
    return study.seeded(rows, config.seed, config.num_seeds)


def stage(config: Config, corruption: Any, layer: int) -> LayerConfig:
    return LayerConfig(
        dataset=config.dataset, hidden_dims=config.hidden_dims, latent_dim=config.latent_dim,
        num_epochs=config.num_epochs, batch_size=config.batch_size, schedule="cosine", validation=1 / 6,
        corruption=corruption, layer=layer, hparams=config.hparams,
    )  # fmt: skip


def after(name: str) -> str | None:
    """The stage from whose parameters a stage begins."""
    row, _, seed = name.rpartition("-")
    method, _, layer = row.partition("_")
    return f"{method}_{int(layer) - 1}-{seed}" if int(layer) else None


def measure(trained: Trained, *, finetune: FineTune) -> dict[str, float]:
    model, params, dataset = trained.model, trained.state.params, trained.dataset
    tuned = finetuning.fine_tuned(
        model, params, dataset, trained.measure_key, finetune, lrs=finetune.lrs, say=trained.say
    )
    codes = evaluation.embed(model, params, dataset.test.x)
    sse = evaluation.reconstruction_sse(model, params, dataset.test.x)
    return {"test_sse": sse, "saturation": evaluation.saturation(codes), **tuned}


def beside(config: Config, dataset: Dataset, once: Once) -> Metrics:
    """The network without pre-training, with the passes of pre-training added to those of fine-tuning."""
    passes = config.finetune.num_epochs + config.num_epochs * (len(config.hidden_dims) + 1)
    longer = config.finetune._replace(num_epochs=passes)
    model = build_model(stage(config, "none", 0), spec_of(dataset))

    def fine_tuned(seed: int, lr: float, say: Callable[[str], None]) -> dict[str, float]:
        init_key, key = jax.random.split(jax.random.key(seed))
        params = nets.init_params(model, init_key, dataset.train.x)
        return finetuning.fine_tuned(model, params, dataset, key, longer, lrs=(lr,), say=say)

    found = {}
    for seed in range(config.seed, config.seed + config.num_seeds):
        rates = [once(f"none-{seed}_{lr:g}", partial(fine_tuned, seed, lr)) for lr in longer.lrs]
        seconds = sum(each["seconds"] for each in rates)
        found[f"none-{seed}"] = finetuning.lowest(rates) | {"seconds": seconds}
    return study.by_row(found)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """First-layer filters of both stacks."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    kernels, count = {}, len(config.hidden_dims) + 1
    for name in ("sae", "sdae"):
        _, _, state = runner.load(path / f"{name}_0-{config.seed}")
        kernels[ROWS[name][0].format(count)] = np.asarray(state.params["encoder_0"]["dense_0"]["kernel"])
    return {"filters": plots.filter_panels(kernels, dataset.image_shape, num=64)}


def table(summary: dict[str, Any]) -> str:
    """Errors, mean and deviation over seeds, in brackets what was published; seconds are those of all stages."""
    rows, metrics = [], summary["metrics"]
    top = len(summary["hidden_dims"])
    sizes = summary["dataset"], summary["hidden_dims"], summary["latent_dim"]
    for name, (title, published) in ROWS.items():
        found = metrics[name if name == "none" else f"{name}_{top}"]
        beside = f" ({published:.2f})" if published and sizes == ("mnist", [1000, 1000], 1000) else ""
        stages = [name] if name == "none" else [f"{name}_{layer}" for layer in range(top + 1)]
        seconds = [sum(each) for each in zip(*(metrics[stage]["seconds"] for stage in stages), strict=True)]
        rows.append([
            title.format(top + 1),
            study.spread(found["finetuned_error"], scale=100) + beside,
            study.spread(found["finetuned_validation_error"], scale=100),
            ", ".join(f"{lr:g}" for lr in found["finetuned_lr"]),
            study.spread(found["saturation"], scale=100) if "saturation" in found else "",
            study.cost({"seconds": seconds}),
        ])  # fmt: skip
    head = ("", "test error, %", "validation error, %", "rate", "saturated, %", "seeds, seconds a run")
    return study.table(head, rows)


STUDY = Study("pretraining", Config, runs, table, draw, beside, after, formerly=("stacked",))


if __name__ == "__main__":
    study.main(STUDY, __doc__)
