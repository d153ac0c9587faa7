"""Errors that a person can act on, and the checks that raise them: what came, what was wanted, what to do."""

import difflib
from collections.abc import Iterable

import jax


class InputError(ValueError):
    """Something the caller gave is wrong. The experiments turn it, and nothing else, into exit code 2."""


class DivergedError(ArithmeticError):
    """Training met a loss or a parameter that is not finite.

    Attributes:
      step: the first step, counted from 1, whose loss is not finite.
      term: the losses that said so, `player/loss`; or `params`, which the step before it left not finite.
    """

    def __init__(self, step: int, term: str):
        super().__init__(
            f"{term} is not finite at step {step}: lower the learning rate,"
            " or clip the gradients (optax.clip_by_global_norm)."
        )
        self.step, self.term = step, term


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """A sentence that names the known alternatives closest to `name`, for the end of an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known {what}: {shown}."


def check_positive(**values: float | jax.Array) -> None:
    """Refuses the first named value that is not positive and finite; traced values pass, for they have no value yet."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not 0 < float(value) < float("inf"):
            raise InputError(f"{name} is {value}; it has to be positive and finite.")


def check_non_negative(**values: float | jax.Array) -> None:
    """Refuses the first named value that is negative or not finite; traced values pass."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not 0 <= float(value) < float("inf"):
            raise InputError(f"{name} is {value}; it has to be zero or more, and finite.")


def check_probability(**values: float | jax.Array) -> None:
    """Refuses the first named value outside [0, 1]; traced values pass."""
    for name, value in values.items():
        if not isinstance(value, jax.core.Tracer) and not 0 <= float(value) <= 1:
            raise InputError(f"{name} is {value}; it is a probability and has to be between 0 and 1.")
