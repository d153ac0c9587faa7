"""A run in a folder: what an experiment is, its run, its command line, its measurements and pictures.

Nothing here knows a method by name: `of_method` finds it in the registry. Heavy imports wait for the command line.
"""

from collections.abc import Sequence

from aejax.runner.config import Config, check, is_recipe, later
from aejax.runner.experiment import Experiment, Optimizers, Reference, Result, Trained
from aejax.runner.inputs import Feed, Spec, load_data
from aejax.runner.loading import load
from aejax.runner.registered import build_model, of_method
from aejax.runner.running import Observer, Progress, Ready, prepare, run
from aejax.runner.units import Unit

__all__ = [
    "Config",
    "Experiment",
    "Feed",
    "Observer",
    "Optimizers",
    "Progress",
    "Ready",
    "Reference",
    "Result",
    "Spec",
    "Trained",
    "Unit",
    "build_model",
    "check",
    "is_recipe",
    "later",
    "load",
    "load_data",
    "main",
    "of_method",
    "prepare",
    "run",
]


def main(experiment: Experiment, description: str | None, argv: Sequence[str] | None = None) -> None:
    """The command line of an experiment: flags, run folder, progress, interruption, exit codes.

    Args:
      experiment: what to run.
      description: for --help, such as `__doc__` of its module.
      argv: the flags; those of the process by default.
    """
    from aejax.runner import launch

    launch.main(experiment, description, argv)
