"""How to run an experiment, beside what to run: the flags that decide no numbers, and the parsing of all flags.

Whatever decides a number belongs into a Config.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aejax.checks import InputError

if TYPE_CHECKING:
    import tyro


@dataclasses.dataclass(frozen=True)
class Launch:
    """How to run it; decides no numbers."""

    workdir: Path | None = None
    """Run folder; runs/NAME-DATASET-HASH by default."""
    resume: bool = False
    """Go on with an unfinished run, or with a finished one for more epochs."""
    origin: 'Annotated[Path | None, tyro.conf.arg(name="from")]' = None
    """Begin with the last parameters of the run in this folder."""
    devices: int | None = 1
    """How many devices share a batch; None for all."""
    parallel: Literal["jit", "pmap", "shard_map"] = "jit"
    """How; jit gives the numbers of one device."""
    checkpoint_seconds: float = 15.0
    """Save at most this often; the end and an interruption are always saved."""
    tensorboard: bool = False
    """Write an event file for TensorBoard too."""


def refuse_for_sweeps(launch: Launch) -> None:
    """For what is trained by `aejax.sweep`, which has no runs in folders either."""
    if launch.devices != 1 or launch.parallel != "jit":
        raise InputError("Sweeps run on one device; leave --devices and --parallel out.")
    if launch.tensorboard:
        raise InputError("Sweeps write no event files; leave --tensorboard out.")


def refuse_origin(launch: Launch) -> None:
    """For what has several runs, or none."""
    if launch.origin is not None:
        raise InputError("--from is for a single run; leave it out here.")


def parse(module: str, config_type: type[Any], description: str | None, argv: Sequence[str]) -> tuple[Any, Launch]:
    """The configuration and the launch options on a command line; what cannot be parsed ends with exit code 2."""
    global tyro  # the annotation of `origin` is read here
    import tyro

    @dataclasses.dataclass(frozen=True)
    class Arguments:
        config: Annotated[config_type, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        launch: Annotated[Launch, tyro.conf.arg(name="")]

    arguments = tyro.cli(
        Arguments,
        prog=f"python -m {module}",
        description=description,
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return arguments.config, arguments.launch
