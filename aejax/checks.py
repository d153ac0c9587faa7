"""Errors that a person can act on, and the checks that raise them: what came, what was wanted, what to do."""

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np


class InputError(ValueError):
    """Something the caller gave is wrong. The experiments turn it, and nothing else, into exit code 2."""


class DivergedError(ArithmeticError):
    """Training met a loss, a metric, a parameter or an optimiser's state that is not finite.

    Attributes:
      step: counted from 1, the first one whose loss or metric is not finite, or that left a state which is not.
      term: the losses and metrics that said so, `player/term`; or `params`, or `the optimiser's state`.
    """

    def __init__(self, step: int, term: str, ranges: str = "", at_start: bool = False):
        clip = "clip the gradients (--clip 1 on the command line, optax.clip_by_global_norm in Python)"
        if "/" not in term:
            text = f"{term} is not finite after step {step}: lower the learning rate (lr), or {clip}."
        elif at_start:
            text = (
                f"{term} is not finite at step 1, before anything was learned: the data or the parameters that it began"
                " with are at fault, not the learning rate."
            )
        else:
            text = f"{term} is not finite at step {step}: lower the learning rate (lr), or {clip}."
        if ranges:
            text += f" The data: {ranges}."
        if at_start:
            text += (
                " Numbers far beyond 1 are best brought to [0, 1] first: (x - x.min()) / (x.max() - x.min()); counts"
                " are for the method count_vae, as they are."
            )
        super().__init__(text)
        self.step, self.term = step, term


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """A sentence that names the known alternatives closest to `name`, for the end of an error message."""
    names = sorted(known)
    plain = {re.sub("[^a-z0-9]", "", each.lower()): each for each in reversed(names)}
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    same = plain.get(re.sub("[^a-z0-9]", "", name.lower()))  # but for case and underscores
    if same or close:
        return f"Did you mean {' or '.join(repr(c) for c in ([same] if same else close))}?"
    shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return f"Known {what}: {shown}."


def check_positive(**values: Any) -> None:
    """Refuses the first named value that is not positive and finite; traced values pass, for they have no value yet.

    Of a schedule, the ends are looked at.
    """
    for name, value in _known(values):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {value}; it has to be positive and finite.")


def check_non_negative(**values: Any) -> None:
    """Refuses the first named value that is negative or not finite; likewise."""
    for name, value in _known(values):
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} is {value}; it has to be zero or more, and finite.")


def check_probability(**values: Any) -> None:
    """Refuses the first named value outside [0, 1]; likewise."""
    for name, value in _known(values):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; it is a probability and has to be between 0 and 1.")


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder; `InputError` where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path} begins with ~, and this user has no home folder; give the whole path.") from None


def check_count(**values: Any) -> None:
    """Refuses the first named value that is not a whole number of at least 1."""
    for name, value in values.items():
        if not is_count(value):
            raise InputError(f"{name}={value!r}; at least 1 is needed, a whole number.")


def check_classes(y: Any, num_classes: int, name: str, *, has: str = "has", more: str = "build it with") -> None:
    """Refuses labels of `name` other than integers `[B]` below `num_classes`; traced ones pass, having no value yet.

    Raises:
      InputError: the shape, the dtype, or a label outside of the classes; it says that `name` `has` so many, and what
        has `more`.
    """
    if isinstance(y, jax.core.Tracer):
        return
    y = np.asarray(y)
    if y.ndim != 1:
        is_one_hot = y.ndim == 2 and y.shape[1] == num_classes > 1
        advice = ": y.argmax(axis=1)" if is_one_hot else ": y.ravel()" if y.ndim and y.size == len(y) else ""
        raise InputError(f"y has shape {y.shape}; {name} takes one integer for each example, [B]{advice}.")
    if y.dtype.kind not in "iu":
        raise InputError(
            f"y has dtype {y.dtype}; {name} takes integers from 0 to {num_classes - 1}:"
            " np.unique(y, return_inverse=True)[1] numbers labels of any kind (those of all splits together)."
        )
    if len(y) and not (y.min() >= 0 and y.max() < num_classes):
        advice = f"{more} num_classes={int(y.max()) + 1}" if y.min() >= 0 else "drop the rows below 0"
        raise InputError(
            f"y holds labels from {y.min()} to {y.max()}; {name} {has} num_classes={num_classes}, so labels from 0 to"
            f" {num_classes - 1}: {advice}."
        )


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def is_schedule(value: Any) -> bool:
    """Whether it is a schedule of a weight, as in `aejax.schedules`: callable, with `start`, `stop`, `check`."""
    wanted = callable(value) and not isinstance(value, type)
    return wanted and all(hasattr(value, name) for name in ("start", "stop", "check"))


def ends_of(value: Any) -> tuple[Any, ...]:
    """Start and stop of a schedule, or the number itself."""
    return (value.start, value.stop) if is_schedule(value) else (value,)


def _known(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        for end in ends_of(value):
            if not isinstance(end, jax.core.Tracer):
                yield name, float(end)
