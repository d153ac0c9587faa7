"""Where a run begins that does not begin afresh: `--from FOLDER`, with the last parameters of another run.

How parameters are trained on is not decided here.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from aejax import nets
from aejax.checkpoint import Checkpoints
from aejax.checks import InputError, expanded
from aejax.runner.differing import differences, shapes
from aejax.runner.experiment import Experiment
from aejax.runner.folder import AnotherRun, default_path, read_json
from aejax.runner.loading import load
from aejax.runner.options import Launch
from aejax.runner.running import Ready

_TRAINING = {"hparams", "num_epochs", "batch_size", "schedule", "clip"}  # parts of a Config that may change on the way
_PLACE = {"--workdir": 1, "--from": 1, "--resume": 0}  # flags that say which folder is meant, and their values


class Origin(NamedTuple):
    """The last parameters of a run, with which another one begins."""

    folder: str  # as it was given
    step: int
    digest: str  # of the parameters
    model: nets.Autoencoder | None = None
    params: Any = None  # None where the folder has lost them

    def record(self) -> dict[str, Any]:
        """What the folder of the new run keeps of it."""
        return {"folder": self.folder, "step": self.step, "digest": self.digest}


def find(experiment: Experiment, config: Any, launch: Launch) -> Origin | None:
    """What `--from` names; None without it.

    A run that is resumed needs its first parameters no more. So its origin may be gone, or trained further, by then.

    Raises:
      InputError: the folder holds no run that can be opened, or no checkpoint.
    """
    if launch.origin is None:
        return None
    recorded = None
    if launch.resume:
        path = expanded(launch.workdir or default_path(experiment.name, config, launch.origin))
        saved = read_json(path / "config.json")
        recorded = saved.get("from") if isinstance(saved, dict) else None
    if recorded is not None and _absolute(recorded["folder"]) != _absolute(launch.origin):
        recorded = None
    try:
        found = _open(experiment, launch.origin)
    except InputError as error:
        if recorded is None:
            raise InputError(f"--from: {error}") from None
        return Origin(**recorded)
    return found if recorded is None or recorded["digest"] == found.digest else Origin(**recorded)


def _absolute(folder: str | Path) -> str:
    return os.path.abspath(expanded(folder))


def _open(experiment: Experiment, given: Path) -> Origin:
    folder = expanded(given)
    saved = read_json(folder / "config.json")
    is_its_own = isinstance(saved, dict) and saved.get("experiment") in (experiment.name, *experiment.formerly)
    _, model, state = load(folder, experiment=experiment if is_its_own else None)
    return Origin(str(given), int(state.step), digest(state.params), model, state.params)


def digest(params: Any) -> str:
    """A short SHA-256 of parameters: names, shapes and bits."""
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(params):
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape} ".encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]


def check_model(origin: Origin, ready: Ready) -> None:
    """Refuses the parameters of another model, and says what differs.

    A model of another class fits where its networks do, as those of an autoencoder do in one with clusters.
    """
    there, here = origin.model, ready.model
    differ = [*differences(there, here)]
    params = ready.state.params
    if type(there) is not type(here) and _has_its_networks(here, there):
        differ, params = [], {group: own for group, own in params.items() if group in origin.params}
    differ = differ or [*differences(shapes(origin.params), shapes(params))]  # of a network of the user's
    if differ:
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise InputError(
            f"--from {origin.folder}: that run is of another model: {'; '.join(differ[:3])}{more}. Give the flags that"
            " make its model, or leave --from out."
        )


def _has_its_networks(here: nets.Autoencoder, there: Any) -> bool:
    names = (*there.networks, "latent_dim", "likelihood")
    return not any([*differences(getattr(there, n), getattr(here, n, None), n)] for n in names)


def instead(argv: Sequence[str], refused: AnotherRun, command: Callable[[Sequence[str]], str]) -> str:
    """What to do where a run cannot be resumed with other settings of its training, for the end of the message.

    Args:
      argv: the flags that were refused.
      refused: why.
      command: makes a command line of flags.
    """
    is_trained = bool(Checkpoints(refused.path / "checkpoints").steps())
    if "--resume" not in argv or not is_trained or not refused.differs.keys() <= _TRAINING:
        return ""
    there, here = refused.differs.get("num_epochs", (0, 0))
    more = here - there
    words = _without(argv, {**_PLACE, **({"--num-epochs": 1} if more > 0 else {})})
    words += ["--num-epochs", str(more)] if more > 0 else []
    length = f", for the {more} epochs that are left" if more > 0 else ""
    return f" Or begin a new run with its last parameters{length}:\n  {command([*words, '--from', str(refused.path)])}"


def _without(argv: Sequence[str], flags: dict[str, int]) -> list[str]:
    """The words of a command line but those flags, which take so many values."""
    kept, words = [], iter(argv)
    for word in words:
        name, _, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in flags:
            kept.append(word)
        elif not value:
            for _ in range(flags[name]):
                next(words, None)
    return kept
