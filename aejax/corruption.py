"""The noise of denoising autoencoders: `(key, x, level) -> x_tilde`, pure, the level traceable and so sweepable."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import InputError, check_non_negative, check_probability, nearest

Array = jax.Array


def gaussian(key: Array, x: Array, sigma: float | Array) -> Array:
    """x plus isotropic Gaussian noise. The result is not clipped to the range of the data.

    Args:
      key: consumed.
      x: `[...]` float.
      sigma: standard deviation, in the units of x.

    Returns:
      `[...]`, the dtype of x.

    Example:
      >>> gaussian(jax.random.key(0), jnp.ones(3), 0.0).tolist()
      [1.0, 1.0, 1.0]
    """
    return x + jnp.asarray(sigma, x.dtype) * jax.random.normal(key, x.shape, x.dtype)


def masking(key: Array, x: Array, rate: float | Array) -> Array:
    """x with each component set to zero with probability `rate`, independently of the others.

    Args:
      key: consumed.
      x: `[...]` float.
      rate: in [0, 1].

    Returns:
      `[...]`, the dtype of x.

    Example:
      >>> masking(jax.random.key(0), jnp.ones(3), 1.0).tolist()
      [0.0, 0.0, 0.0]

    Reference: Vincent et al. (2008), section 2.3, who destroy a fixed number of components instead; their own code,
    and this, draw one coin a component.
    """
    # float32 whatever x is: bfloat16 would round the rate to three digits. Likewise below.
    u = jax.random.uniform(key, x.shape, jnp.float32)
    return jnp.where(u < jnp.asarray(rate, u.dtype), jnp.zeros_like(x), x)


def salt_and_pepper(key: Array, x: Array, rate: float | Array) -> Array:
    """x with each component replaced, with probability `rate`, by 0 or 1 on a fair coin.

    Args:
      key: consumed.
      x: `[...]` float in [0, 1]: 0 and 1 are taken to be its extremes.
      rate: in [0, 1].

    Returns:
      `[...]`, the dtype of x.

    Example:
      >>> sorted(set(salt_and_pepper(jax.random.key(0), jnp.full(99, 0.5), 1.0).tolist()))
      [0.0, 1.0]

    Reference: Vincent et al. (2010), section 3.3.
    """
    u = jax.random.uniform(key, x.shape, jnp.float32)
    rate = jnp.asarray(rate, u.dtype)
    return jnp.where(u < rate, (u < rate / 2).astype(x.dtype), x)


def moments(name: str, x: Array | np.ndarray, level: float | Array) -> tuple[Any, Any]:
    """Mean and variance of each component of x_tilde given x; the components are independent.

    Args:
      name: of `CORRUPTIONS`.
      x: `[...]` float; a NumPy array gives NumPy arrays.
      level: as the corruption has it.

    Returns:
      `[...]` and `[...]`, the dtype of x.

    Raises:
      InputError: unknown corruption.

    Example:
      >>> mean, variance = moments("masking", np.array([1.0, 2.0]), 0.5)
      >>> mean.tolist(), variance.tolist()
      ([0.5, 1.0], [0.25, 1.0])
    """
    corrupt = get(name)
    xp: Any = np if isinstance(x, np.ndarray) else jnp
    level = xp.asarray(level, x.dtype)
    if corrupt is gaussian:
        return x, xp.full_like(x, level**2)
    keep = 1 - level
    if corrupt is masking:
        return keep * x, level * keep * x**2
    mean = keep * x + level / 2
    spread = keep * (x - mean) ** 2 + level / 2 * (mean**2 + (1 - mean) ** 2)
    return mean, spread


CORRUPTIONS = {"gaussian": gaussian, "masking": masking, "salt_and_pepper": salt_and_pepper}


def get(name: str) -> Callable[[Array, Array, float | Array], Array]:
    """The corruption of that name; `InputError` names the known ones."""
    if name not in CORRUPTIONS:
        raise InputError(f"Unknown corruption {name!r}. {nearest(name, CORRUPTIONS, what='corruptions')}")
    return CORRUPTIONS[name]


def hits(name: str, key: Array, x: Array, level: float | Array) -> Array:
    """Which components the corruption of that name hits with that key, bool `[...]`; Gaussian noise hits all.

    Masking hits a component that is 0 already too, though nothing shows.
    """
    if get(name) is gaussian:
        return jnp.ones(x.shape, bool)
    grey = jnp.full_like(x, 0.5)  # a key hits the same components of any x, and grey ones show it
    return get(name)(key, grey, level) != grey


def check_level(name: str, level: float | Array) -> None:
    """Refuses a level that the corruption of that name cannot have: sigma is not negative, a rate is in [0, 1]."""
    if get(name) is gaussian:
        check_non_negative(level=level)
    else:
        check_probability(level=level)
