"""Random search over the pre-training of the contractive family and over the rate of fine-tuning.

Chosen by the error on the validation split after fine-tuning, as in Rifai et al. (2011); the test split is reported
and decides nothing. Every method searched gets the same points.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from aejax.checks import InputError
from aejax.runner import study
from aejax.runner.config import to_dict
from aejax.runner.study import Runs
from experiments.studies import contractive

if TYPE_CHECKING:
    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

SPACE = {"lr": (5e-4, 5e-3), "contraction": (0.1, 2.0), "finetune_lr": (0.05, 0.5)}  # searched on a logarithmic scale


@dataclasses.dataclass(frozen=True)
class Config(contractive.Config):
    methods: tuple[str, ...] = ("cae", "ae")
    """Which to search, each by itself; the plain autoencoder has no contraction, and ignores that knob."""
    num_points: int = 15
    """Settings to try, for each method; with one seed each."""


def points(config: Config) -> list[dict[str, float]]:
    """A Latin hypercube: of each knob every one of `num_points` steps is tried once, in an order of its own.

    The seed decides the orders; the range of each knob is divided evenly on a logarithmic scale.
    """
    if config.num_points < 1:
        raise InputError(f"--num-points is {config.num_points}; it has to be at least 1.")
    rng = np.random.default_rng(config.seed)
    steps = {name: (rng.permutation(config.num_points) + 0.5) / config.num_points for name in SPACE}
    values = {name: low * (high / low) ** steps[name] for name, (low, high) in SPACE.items()}
    return [{name: float(f"{values[name][i]:.3g}") for name in SPACE} for i in range(config.num_points)]


def runs(config: Config) -> Runs:
    """The experiment and the configuration of every point, by method and number: `cae-3`."""
    contractive.check(config)
    if config.num_seeds != 1:
        raise InputError(f"--num-seeds is {config.num_seeds}; a point is tried with one seed, and --seed says which.")
    found: Runs = {}
    for i, point in enumerate(points(config)):
        lr, finetune_lr = point["lr"], point["finetune_lr"]
        hparams = config.hparams._replace(lr=lr, plain_lr=lr, contraction=point["contraction"])
        finetune = config.finetune._replace(lr=finetune_lr, plain_lr=finetune_lr)
        own = dataclasses.replace(config, hparams=hparams, finetune=finetune)
        found |= {f"{name}-{i}": contractive.experiment(name, own) for name in config.methods}
    return found


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Tries every point and ranks them."""
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, write_json

    folder = open_folder("contractive_search", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        metrics = study.run_all(runs(config), folder, launch, bars)
        found = {
            name: [point | metrics[f"{name}-{i}"] for i, point in enumerate(points(config))] for name in config.methods
        }
        summary = {
            "experiment": "contractive_search",
            **to_dict(config),
            **provenance(),
            "points": {name: ranked(each) for name, each in found.items()},
        }
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        bars.console.print(table(folder.summary["points"]), markup=False, highlight=False)

    return report


def ranked(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """The points, the lowest validation error first."""
    return sorted(found, key=lambda point: point["finetuned_validation_error"])


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """The table in Markdown, best point first."""
    rows = [
        [
            contractive.METHODS[name].title,
            *(f"{point[knob]:.3g}" for knob in SPACE),
            *(f"{100 * point[error]:.2f}" for error in ("finetuned_validation_error", "finetuned_error")),
        ]
        for name, each in found.items()
        for point in each
    ]
    head = ("method", "lr", "contraction", "fine-tuning lr", "validation error, %", "test error, %")
    return study.table(head, rows)


if __name__ == "__main__":
    study.command_line("contractive_search", Config, __doc__, body)
