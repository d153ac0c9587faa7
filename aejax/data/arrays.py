"""The checks that everything a user brings passes, and the conversion to float32."""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax import likelihoods
from aejax.checks import InputError
from aejax.likelihoods import Likelihood, Support
from aejax.precision import widen

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_BLOCK = 2**22  # values that are looked at together, so that no copy of a large set is made


class Arrays(NamedTuple):
    """A set as it is stored, before splitting and scaling."""

    x: np.ndarray  # [N, H, W, C] or [N, D]
    y: np.ndarray | None  # [N] integers
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    x_valid: np.ndarray | None = None  # a validation split of its own
    y_valid: np.ndarray | None = None


def check(x: Any, likelihood: str | Likelihood, *, name: str = "x") -> None:
    """Refuses examples that cannot be trained on.

    Args:
      x: `[N, D]` or `[N, H, W, C]`, real numbers; a JAX array is looked at on its device.
      likelihood: the one asked for, a name or an object; decides the range.
      name: what to call x in the message.

    Raises:
      InputError: the dtype, the shape, no examples, NaN or infinity, a value outside the support of the likelihood,
        or more than the memory of the machine; with what came, what was wanted, and what to do.

    Example:
      >>> check(np.array([[0.0, 255.0]]), "bernoulli", name="faces.npy")
      Traceback (most recent call last):
        ...
      aejax.checks.InputError: faces.npy holds values from 0 to 255; ...
    """
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    check_kind(x.shape, x.dtype, name, dims=(2, 4))
    check_memory(4 * x.size, name)
    check_values(x, likelihood, name)


def check_examples(data: Any, likelihood: str | Likelihood) -> None:
    """Refuses data that a model with that likelihood cannot be trained on as they are.

    Unlike `check` it takes examples of any shape, and refuses integers and bool, which have no gradient.

    Args:
      data: x, a `Batch`, or a tree of them. Labels are not looked at, and traced values pass.
      likelihood: a name or an object.

    Raises:
      InputError: as `check` does; the name is that of the part, such as `x` or `data.labelled.x`.

    Example:
      >>> check_examples(np.zeros((2, 4), bool), "bernoulli")
      Traceback (most recent call last):
        ...
      aejax.checks.InputError: x has dtype bool; floats are needed. Use x.astype(np.float32).
    """
    parts = jax.tree_util.tree_leaves_with_path(data, is_leaf=lambda part: "x" in getattr(part, "_fields", ()))
    for path, part in parts:
        is_batch = hasattr(part, "_fields")
        x = part.x if is_batch else part
        name = f"data{jax.tree_util.keystr(path)}" + (".x" if is_batch else "") if path else "x"
        if isinstance(x, jax.core.Tracer):
            continue
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        check_kind(x.shape, x.dtype, name, dims=None)
        high = check_values(x, likelihood, name)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            grey = x.dtype == np.uint8 and high > 1 and likelihoods.get(likelihood).support.step != 1
            advice = f"{name}.astype(np.float32)" + (", divided by 255 if these are pixels" if grey else "")
            raise InputError(f"{name} has dtype {x.dtype}; floats are needed. Use {advice}.")


def check_kind(shape: tuple[int, ...], dtype: Any, name: str, dims: tuple[int, ...] | None = (2, 3, 4)) -> None:
    """Refuses a dtype that is not a real number, a wrong number of dimensions, and emptiness."""
    if dtype.kind not in "buif" and not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"{name} has dtype {dtype}; real numbers are needed (uint8, bool, float or int).")
    wanted = {2: "[N, D]", 3: "[N, H, W]", 4: "[N, H, W, C]"}
    if (dims is None and len(shape) < 2) or (dims is not None and len(shape) not in dims):
        forms = " or ".join(wanted[n] for n in dims or (2, 4))
        raise InputError(f"{name} has shape {shape}; {forms} is needed, the examples along the first axis.")
    if 0 in shape:
        what = "no examples" if shape[0] == 0 else "examples without a value"
        raise InputError(f"{name} has shape {shape}: {what}.")


def check_values(x: Any, likelihood: str | Likelihood, name: str) -> float:
    """Refuses NaN (unless x may be missing), infinity, and values outside of the support; returns the largest."""
    support = likelihoods.get(likelihood).support
    if support.missing:
        x = _filled(x, name)
    called = f"the {likelihood} likelihood" if isinstance(likelihood, str) else str(likelihood)
    low, high = _extent(x)
    if not max(abs(low), abs(high)) <= _FLOAT32_MAX:
        check_finite(np.asarray(x), name)
    if low < support.low or high > support.high:
        wanted = "counts, integers from 0 up" if support.step == 1 else f"[{support.low:g}, {support.high:g}]"
        are_counts = support.step != 1 and low >= 0 and x.ndim == 2 and x.dtype != np.uint8 and not _off_step(x, 1)
        raise InputError(
            f"{name} holds values from {low:g} to {high:g}; {called} needs {wanted}."
            f" {_rescaling(x.dtype, low, high, support)}"
            + (" Counts are for the method count_vae, as they are." if are_counts else "")
        )
    if support.step is None:
        return high
    steps = round(1 / support.step)  # of a unit
    slack = steps * (_eps(x.dtype) + 3 * _eps(np.float32)) if steps > 1 else 0.0  # k / 255 is not exact
    if _off_step(x, steps) > slack:
        wanted = "counts, which are integers" if support.high > 1 else f"its {steps + 1} levels, k / {steps}"
        advice = "np.round(x)" if steps == 1 else f"np.round(x * {steps}) / {steps}"
        was_divided = steps == 1 and high <= 1 and _off_step(x, 255) < 1e-3
        raise InputError(
            f"{name} holds values from {low:g} to {high:g}, and some between the steps; {called} needs {wanted}."
            f" Round them, {advice}, or {_gaussian(x.dtype)}."
            + (" Of dtype uint8 they were taken for grey values, and divided by 255: use int32." if was_divided else "")
        )
    return high


def _filled(x: Any, name: str) -> np.ndarray:
    """x with a value that was observed in place of what was not; refuses that there is none."""
    x = np.asarray(x)
    is_missing = np.isnan(x)
    if is_missing.all():
        raise InputError(f"{name} holds nothing but NaN, which stands for what was not observed.")
    return np.where(is_missing, x.flat[is_missing.argmin()], x)


def _rescaling(dtype: Any, low: float, high: float, support: Support) -> str:
    """What to do with values that are out of range."""
    top = 255 if support.step is None else round(1 / support.step)
    if support.step == 1:
        return f"Give the counts as they were before any scaling, or {_gaussian(dtype)}."
    if low >= 0 and 1 < high <= top and (dtype.kind in "ui" or high > top / 2):
        return f"Rescale with x / {top}, or {_gaussian(dtype)}."
    if not 0 < high - low <= _FLOAT32_MAX:
        return f"U{_gaussian(dtype)[1:]}."
    first = "" if dtype in (np.float32, np.float64) else "x = x.astype(np.float32), then "  # others overflow
    return f"Rescale with {first}(x - x.min()) / (x.max() - x.min()), or {_gaussian(dtype)}."


def _gaussian(dtype: Any) -> str:
    """The way out that leaves the values as they are; models take floats alone."""
    return "use the gaussian likelihood" + ("" if jnp.issubdtype(dtype, jnp.floating) else " and x.astype(np.float32)")


def _extent(x: Any) -> tuple[float, float]:
    """The smallest and the largest value; NaN where there is one."""
    if isinstance(x, jax.Array):
        low, high = jax.device_get(_extent_on_device(x))
    else:
        low, high = x.min(), x.max()
    return float(low) + 0.0, float(high) + 0.0  # not -0


@jax.jit
def _extent_on_device(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x.min(), x.max()


def _off_step(x: Any, steps: int) -> float:
    """How far the worst value is from a multiple of `1 / steps`, in such steps."""
    if isinstance(x, jax.Array):
        return float(jax.device_get(_off_step_on_device(x, steps)))
    parts = np.array_split(x.reshape(-1), -(-x.size // _BLOCK))
    scaled = (part.astype(np.float64) * steps for part in parts)
    return max(float(np.abs(part - np.rint(part)).max()) for part in scaled)


@partial(jax.jit, static_argnames="steps")
def _off_step_on_device(x: jax.Array, steps: int) -> jax.Array:
    scaled = widen(x) * steps
    return jnp.abs(scaled - jnp.round(scaled)).max()


def _eps(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0


def check_finite(x: np.ndarray, name: str) -> None:
    """Refuses NaN and infinity, also what becomes infinite in float32, naming the first bad example."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
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
