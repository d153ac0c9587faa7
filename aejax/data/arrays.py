"""The checks that everything a user brings passes, and the conversion to float32."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aejax import likelihoods
from aejax.checks import InputError


class Arrays(NamedTuple):
    """A set as it is stored, before splitting and scaling."""

    x: np.ndarray  # [N, H, W, C] or [N, D]
    y: np.ndarray | None  # [N] integers
    x_test: np.ndarray | None
    y_test: np.ndarray | None


def check(x: Any, likelihood: str, *, name: str = "x") -> None:
    """Refuses examples that cannot be trained on.

    Args:
      x: `[N, D]` or `[N, H, W, C]`, real numbers.
      likelihood: the name of the one asked for; decides the range.
      name: what to call x in the message.

    Raises:
      InputError: the dtype, the shape, no examples, NaN or infinity, a value outside the range of the likelihood,
        or more than the memory of the machine; with what came, what was wanted, and what to do.

    Example:
      >>> check(np.array([[0.0, 255.0]]), "bernoulli", name="faces.npy")
      Traceback (most recent call last):
        ...
      aejax.checks.InputError: faces.npy holds values from 0 to 255; ...
    """
    x = np.asarray(x)
    check_kind(x.shape, x.dtype, name, dims=(2, 4))
    check_memory(4 * x.size, name)
    check_finite(x, name)
    bounds = likelihoods.get(likelihood)
    low, high = float(x.min()), float(x.max())
    if low < bounds.low or high > bounds.high:
        advice = "x / 255" if low >= 0 and 1 < high <= 255 else "(x - x.min()) / (x.max() - x.min())"
        raise InputError(
            f"{name} holds values from {low:g} to {high:g}; the {likelihood} likelihood needs"
            f" [{bounds.low:g}, {bounds.high:g}]. Rescale with {advice}, or use the gaussian likelihood."
        )


def check_kind(shape: tuple[int, ...], dtype: np.dtype, name: str, dims: tuple[int, ...] = (2, 3, 4)) -> None:
    """Refuses a dtype that is not a real number, a wrong number of dimensions, and emptiness."""
    if dtype.kind not in "buif":
        raise InputError(f"{name} has dtype {dtype}; real numbers are needed (uint8, bool, float or int).")
    wanted = {2: "[N, D]", 3: "[N, H, W]", 4: "[N, H, W, C]"}
    if len(shape) not in dims:
        forms = " or ".join(wanted[n] for n in dims)
        raise InputError(f"{name} has shape {shape}; {forms} is needed, the examples along the first axis.")
    if 0 in shape:
        what = "no examples" if shape[0] == 0 else "examples without a value"
        raise InputError(f"{name} has shape {shape}: {what}.")


def check_finite(x: np.ndarray, name: str) -> None:
    """Refuses NaN and infinity, also what becomes infinite in float32, naming the first bad example."""
    if x.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        good = np.isfinite(x.astype(np.float32, copy=False)).reshape(len(x), -1).all(axis=1)
    if not good.all():
        raise InputError(
            f"{name} holds NaN or infinity (in float32) in {int((~good).sum())} of its {len(x)} examples, first in row"
            f" {int(good.argmin())}, counted from 0. Fill or drop them."
        )


def check_memory(num_bytes: int, name: str) -> None:
    """Refuses what the machine cannot hold twice, on the host and on the device."""
    have = memory_bytes()
    if have is not None and 2 * num_bytes > have:
        raise InputError(
            f"{name} takes {num_bytes / 2**30:.1f} GiB as float32, and is held twice (host and device); this machine"
            f" has {have / 2**30:.1f} GiB. Use fewer examples or smaller ones."
        )


def memory_bytes() -> int | None:
    """The memory of this machine, or of the container that we are in; None where it cannot be told."""
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return min(sizes)


def as_float32(x: np.ndarray, binary: bool) -> np.ndarray:
    """uint8 divided by 255, unless the set is binary; everything else as it is."""
    if x.dtype == np.uint8 and not binary:
        return np.divide(x, np.float32(255), dtype=np.float32)
    return x.astype(np.float32, copy=False)
