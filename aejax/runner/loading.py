"""Opening a run: its configuration, its model and its state, from the folder alone.

Nothing is trained, written or printed here.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import jax

from aejax import nets
from aejax.checks import InputError, expanded
from aejax.runner.config import from_dict
from aejax.runner.experiment import Experiment, build_algorithm
from aejax.runner.folder import read_json
from aejax.runner.inputs import Spec


def load(
    folder: str | Path, *, best: bool = False, experiment: Experiment | None = None
) -> tuple[Any, nets.Autoencoder, Any]:
    """Opens a run: `(config, model, state)`, ready for `model.apply({"params": state.params}, ...)`.

    Args:
      folder: a run folder.
      best: the checkpoint with the lowest validation loss in place of the last.
      experiment: whose run it is; by default `EXPERIMENT` of the module that the folder names.

    Raises:
      InputError: there is no run, no checkpoint in it, or no such module.
    """
    from aejax.checkpoint import Checkpoints

    folder = expanded(folder)
    saved = read_json(folder / "config.json")
    if saved is None:
        raise InputError(f"{folder} holds no run: config.json is missing or damaged.")
    if "runs" in saved:
        first, *_ = runs = saved["runs"]
        raise InputError(f"{folder} holds the runs {', '.join(runs)}; open one of them, as in {folder}/{first}.")
    experiment = experiment or find(saved)
    config = from_dict(experiment.config, saved["config"])
    spec = Spec(tuple(saved["data_shape"]), saved.get("num_classes"))
    model = experiment.build_model(config, spec)
    algo = build_algorithm(experiment, config, model, num_steps=config.num_epochs)
    like = jax.eval_shape(lambda: algo.init(nets.init_params(model, jax.random.key(0), spec.example(model))))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore(like, best=best)
    if restored is None:
        raise InputError(f"{folder} holds no checkpoint {'that was validated' if best else 'yet'}.")
    return config, model, restored[0]


def find(saved: dict[str, Any]) -> Experiment:
    """The experiment of a run, from what its config.json holds.

    Raises:
      InputError: its module cannot be imported, or has no `EXPERIMENT`.
    """
    name, module = saved["experiment"], saved.get("module")
    try:
        if module is None:  # from before folders told it
            module = import_module("experiments").FORMERLY.get(name, f"experiments.{name}")
        return import_module(module).EXPERIMENT
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The run is of the experiment {name}, EXPERIMENT of the module {module or 'experiments'}, which cannot be"
            f" imported here ({error}). Start Python where that module is, or give load(folder, experiment=...)."
        ) from error
