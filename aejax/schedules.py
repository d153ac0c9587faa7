"""Schedules of learning rates, and of the weights in a loss; their numbers may be traced, so that `vmap` sweeps them.

Of learning rates: each is `(peak, num_steps) -> schedule`, and a schedule goes where optax takes a learning rate:
`ae(model, hparams, tx=lambda lr: optax.adam(cosine(lr, num_steps)))`. Steps are those of the game, also where a player
moves several times in one.

Of weights: `Ramp`, `Cycle` and `Decay` stand where a knob of `HParams` is a number, `vae.HParams(beta=Ramp(0.0, 1.0,
1000))`. They are tuples of numbers that are called with the step. Evaluation uses `stop`. Lengths are in
steps, so a longer run is the continuation of a shorter one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aejax.checks import InputError, check_non_negative, check_positive, check_probability, nearest

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


class Ramp(NamedTuple):
    """In a straight line from `start` at step 0 to `stop` at step `num_steps`, and `stop` from then on.

    KL warm-up is `Ramp(0.0, 1.0, 1000)`, a growing capacity (Burgess et al. 2018) `Ramp(0.0, 25.0, 100_000)`.

    Example:
      >>> [float(Ramp(0.0, 1.0, 4)(step)) for step in (0, 1, 4, 9)]
      [0.0, 0.25, 1.0, 1.0]

    Reference: Bowman et al. (2016), section 3.1; Sonderby et al. (2016), section 2.3 (linear warm-up).
    """

    start: float = 0.0
    stop: float = 1.0
    num_steps: float = 1000.0

    def check(self, name: str) -> None:
        """Refuses lengths that cannot be; the name is that of the knob."""
        check_positive(**{f"{name}.num_steps": self.num_steps})

    def __call__(self, step: Any) -> jax.Array:
        return self.start + (self.stop - self.start) * jnp.clip(step / self.num_steps, 0.0, 1.0)


class Cycle(NamedTuple):
    """A `Ramp` over the first part of each period, `stop` for the rest of it, and so on without end.

    Attributes:
      start, stop: values.
      period: steps.
      share: of the period that rises, in (0, 1].

    Example:
      >>> [float(Cycle(0.0, 1.0, 4, 0.5)(step)) for step in range(6)]
      [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]

    Reference: Fu et al. (2019), equations 6 and 7; their R is `share`.
    """

    start: float = 0.0
    stop: float = 1.0
    period: float = 1000.0
    share: float = 0.5

    def check(self, name: str) -> None:
        """As in `Ramp`."""
        check_positive(**{f"{name}.period": self.period, f"{name}.share": self.share})
        check_probability(**{f"{name}.share": self.share})

    def __call__(self, step: Any) -> jax.Array:
        return Ramp(self.start, self.stop, self.share * self.period)(jnp.mod(step, self.period))


class Decay(NamedTuple):
    """`start exp(-rate step)`, but not below `stop`: the temperature of a relaxed discrete code.

    Example:
      >>> [round(float(Decay(1.0, 0.5, 0.1)(step)), 4) for step in (0, 1, 50)]
      [1.0, 0.9048, 0.5]

    Reference: Jang, Gu & Poole (2017), section 4.1: max(0.5, exp(-r t)) with r of 1e-5 to 1e-4.
    """

    start: float = 1.0
    stop: float = 0.5
    rate: float = 1e-4

    def check(self, name: str) -> None:
        """As in `Ramp`."""
        check_non_negative(**{f"{name}.rate": self.rate})

    def __call__(self, step: Any) -> jax.Array:
        return jnp.maximum(self.start * jnp.exp(-self.rate * step), self.stop)


WEIGHTS = (Ramp, Cycle, Decay)

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
