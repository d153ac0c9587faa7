"""Learning-rate schedules whose peak may be traced, so that `vmap` sweeps it.

Each is `(peak, num_steps) -> schedule`, and a schedule goes where optax takes a learning rate:
`ae(model, hparams, tx=lambda lr: optax.adam(cosine(lr, num_steps)))`. `num_steps` counts the updates of that
optimiser: a player that moves five times a step passes through its schedule five times as fast.
"""

from collections.abc import Callable

import jax
import optax

from aejax.checks import InputError, nearest

Peak = float | jax.Array


def constant(peak: Peak, num_steps: int) -> optax.Schedule:
    """The peak at every step.

    Args:
      peak: the learning rate; may be traced.
      num_steps: not used; there so that all schedules are called alike.

    Example:
      >>> constant(0.1, 100)(50)
      0.1
    """
    return optax.constant_schedule(peak)


def linear(peak: Peak, num_steps: int) -> optax.Schedule:
    """From the peak in a straight line to zero after `num_steps` steps, and zero from then on.

    Args:
      peak: the learning rate of the first step; may be traced.
      num_steps: positive.

    Raises:
      InputError: `num_steps` is not positive.

    Example:
      >>> float(linear(1.0, 4)(1))
      0.75
    """
    _check_steps(num_steps)
    return optax.linear_schedule(peak, 0.0, num_steps)


def cosine(peak: Peak, num_steps: int) -> optax.Schedule:
    """From the peak along half a cosine to zero after `num_steps` steps, and zero from then on.

    Args:
      peak: the learning rate of the first step; may be traced.
      num_steps: positive.

    Raises:
      InputError: `num_steps` is not positive.

    Example:
      >>> round(float(cosine(1.0, 4)(2)), 6)
      0.5

    Reference: Loshchilov & Hutter (2017), SGDR, equation 5 with one period and a minimum of zero.
    """
    _check_steps(num_steps)
    return optax.cosine_decay_schedule(peak, num_steps)


def warmup_cosine(peak: Peak, num_steps: int, *, warmup_steps: int | None = None) -> optax.Schedule:
    """From zero in a straight line to the peak, then along half a cosine to zero after `num_steps` steps in all.

    Equals `optax.warmup_cosine_decay_schedule`, which refuses a traced peak.

    Args:
      peak: the highest learning rate, reached at step `warmup_steps`; may be traced.
      num_steps: positive, warm-up included.
      warmup_steps: below `num_steps`; a twentieth of them by default.

    Raises:
      InputError: `num_steps` is not positive, or the warm-up leaves no step for the decay.

    Example:
      >>> schedule = warmup_cosine(1.0, 12, warmup_steps=4)
      >>> [round(float(schedule(step)), 6) for step in (0, 2, 4, 8, 12)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    _check_steps(num_steps)
    warmup_steps = num_steps // 20 if warmup_steps is None else warmup_steps
    if not 0 <= warmup_steps < num_steps:
        raise InputError(f"warmup_steps={warmup_steps}; 0 to {num_steps - 1} fit into num_steps={num_steps}.")
    if warmup_steps == 0:
        return cosine(peak, num_steps)
    pieces = [optax.linear_schedule(0.0, peak, warmup_steps), cosine(peak, num_steps - warmup_steps)]
    return optax.join_schedules(pieces, [warmup_steps])


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
}


def get(name: str) -> Callable[..., optax.Schedule]:
    """The schedule of that name, `(peak, num_steps) -> optax schedule`; `InputError` names the known ones."""
    if name not in SCHEDULES:
        raise InputError(f"Unknown schedule {name!r}. {nearest(name, SCHEDULES, what='schedules')}")
    return SCHEDULES[name]


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise InputError(f"num_steps={num_steps}; a schedule needs at least 1.")
