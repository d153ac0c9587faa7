"""Frequencies of integers from an entropy model: what a coder needs, to the last bit the same in writing and reading.

They are computed in float64 by NumPy, from the parameters alone, and rounded to parts of 2^20, so an error in the last
digit of an exponential moves hardly any. Where one moves all the same, the fingerprint in the header differs.
"""

from typing import Any, NamedTuple

import numpy as np

from aejax.checks import InputError
from aejax.nets.entropy import SCALE_FLOOR, LogisticMixtures

TOTAL = 2**20  # sum of the frequencies of a channel
_TAIL = 2.0**-18  # about what lies beyond either end of a table
_WIDEST = 2**14  # integers in a table
_FARTHEST = 2.0**30  # of a mean


class Table(NamedTuple):
    """The integers of one channel that have a frequency of their own: `low`, `low + 1`, ..., at most 2^14.

    The last frequency is that of an escape, which stands for all integers beyond either end.
    """

    low: int
    frequencies: np.ndarray  # [K + 1] int64, each at least 1; their sum is TOTAL


def of_model(entropy: Any, params: Any) -> list[Table]:
    """The table of each channel.

    Args:
      entropy: the module; `LogisticMixtures`.
      params: its own, `logits`, `means` and `log_scales`.

    Raises:
      InputError: another module, or parameters that are not finite, or means beyond 2^30.

    Example:
      >>> params = {name: np.zeros((1, 1)) for name in ("logits", "means", "log_scales")}
      >>> (table,) = of_model(LogisticMixtures(1, 1), params)
      >>> table.low, len(table.frequencies), int(table.frequencies.sum()) == TOTAL
      (-13, 28, True)
      >>> round(float(table.frequencies[13] / TOTAL), 3)  # sigmoid(1/2) - sigmoid(-1/2)
      0.245
    """
    if not isinstance(entropy, LogisticMixtures):
        raise InputError(f"The entropy model is a {type(entropy).__name__}; the coder takes LogisticMixtures.")
    logits, means, log_scales = (np.asarray(params[name], np.float64) for name in ("logits", "means", "log_scales"))
    if not all(np.isfinite(v).all() for v in (logits, means, log_scales)) or np.abs(means).max() > _FARTHEST:
        raise InputError("The entropy model has parameters that are not finite, or means beyond 2^30.")
    weights = np.exp(logits - logits.max(axis=0))
    weights /= weights.sum(axis=0)
    scales = np.exp(np.clip(log_scales, SCALE_FLOOR, 30))
    return [_table(weights[:, c], means[:, c], scales[:, c]) for c in range(means.shape[1])]


def _table(weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> Table:
    reach = scales * -np.log(_TAIL)
    low, high = int(np.floor((means - reach).min())), int(np.ceil((means + reach).max()))
    if high - low >= _WIDEST:  # then around the mean where most of the mass is near
        half = _WIDEST // 2
        near = [float(weights @ (_sigmoid((m + half - means) / scales) - _sigmoid((m - half - means) / scales)))
                for m in means]  # fmt: skip
        centre = round(float(means[int(np.argmax(near))]))
        low, high = max(low, centre - half), min(high, centre + half - 1)
    edges = (np.arange(low, high + 2) - 0.5)[:, None]
    below = (weights * _sigmoid((edges - means) / scales)).sum(axis=1)
    shares = np.append(np.diff(below), below[0] + 1 - below[-1]).clip(0, 1)
    frequencies = 1 + np.floor(shares / shares.sum() * (TOTAL - len(shares))).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()  # what flooring left, to where it matters least
    return Table(low, frequencies)


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * t)
