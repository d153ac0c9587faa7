"""Whether a loss couples the examples of its batch: found out, not believed."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

CLEAR, NOTHING = 1e-5, 1e-11  # relative: float32 rounds to about 1e-7, float64 to 1e-16


def second_differences(metrics: Callable[[Any], dict[str, Any]], batch: Any, others: Sequence[Any]) -> dict[str, float]:
    """How far each metric of a batch is from a sum over its rows; the worst that was found.

    For a sum of functions of one row each, whatever is drawn for a row, replacing some of the rows, the rest, or all
    has `L + L_all - L_some - L_rest = 0`. The rows are parted by each binary digit of their number, so that every two
    of them are apart once.

    Args:
      metrics: pure, one noise for all; in float64.
      batch: arrays `[B, ...]`, B may differ among them.
      others: batches of the same shapes; the rows that replace. Some should be far off, to cross the kinks of a loss.

    Returns:
      The difference by name, relative to the largest of the four values.
    """
    digits = (max(map(len, jax.tree.leaves(batch))) - 1).bit_length()
    worst: dict[str, float] = {}
    for other in others:
        old, new = metrics(batch), metrics(other)
        for digit in range(digits):
            some, rest = metrics(_mixed(other, batch, digit)), metrics(_mixed(batch, other, digit))
            for name in old:
                values = [float(terms[name]) for terms in (old, new, some, rest)]
                ratio = abs(values[0] + values[1] - values[2] - values[3]) / (max(map(abs, values)) or 1.0)
                worst[name] = ratio if math.isnan(ratio) else max(worst.get(name, 0.0), ratio)
    return worst


def _mixed(ones: Any, zeros: Any, digit: int) -> Any:
    """Rows whose number has a 1 at that binary digit from the first, the others from the second."""

    def pick(one: Any, zero: Any) -> Any:
        chosen = (jnp.arange(len(one)) >> digit) % 2 == 1
        return jnp.where(chosen.reshape(-1, *[1] * (one.ndim - 1)), one, zero)

    return jax.tree.map(pick, ones, zeros)


def is_coupled(differences: dict[str, float]) -> bool:
    """The verdict; an AssertionError where there is none, as for sums that were rounded to float32."""
    if any(value > CLEAR for value in differences.values()):
        return True
    assert all(value < NOTHING for value in differences.values()), f"cannot tell from {differences}"
    return False
