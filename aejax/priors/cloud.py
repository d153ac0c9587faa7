"""A prior of one's own: points that are given, each with Gaussian noise about it."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError, check_positive
from aejax.precision import sum_last, widen
from aejax.priors.fixed import Prior
from aejax.priors.points import check_points, mix, per_component

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class PointCloud(Prior):
    """A point that is drawn from given ones, each as likely, plus Gaussian noise: a kernel density.

    `PointCloud.of` takes arrays. Fields are tuples, so that a cloud is a static argument as other priors are, part of
    the compiled program: it is meant for up to some thousands of points. Those of a class are its part; the part of a
    place is that of the nearest point.

    Attributes:
      points: K tuples of Z numbers.
      noise: standard deviation of the noise, in units of the code.
      classes: K integers from 0 up, whose part each point belongs to; none by default.

    Raises:
      InputError: no points, other sizes than these, or numbers that are not finite; no positive noise.

    Example:
      >>> two = PointCloud.of(np.array([[-1.0], [1.0]]), noise=0.5, y=[0, 1])
      >>> round(float(two.log_prob(jnp.zeros(1))), 4)  # of either the normal density two deviations out
      -2.2258
      >>> two.part_of(jnp.array([[-0.2], [7.0]]), 2).tolist()
      [0, 1]
    """

    points: tuple[tuple[float, ...], ...]
    noise: float
    classes: tuple[int, ...] | None = None

    def __post_init__(self):
        check_positive(noise=self.noise)
        if len({len(point) for point in self.points}) > 1:
            raise InputError("The points have different lengths; [K, Z] numbers are wanted.")
        _check(np.asarray(self.points), self.classes)

    @classmethod
    def of(cls, points: ArrayLike, *, noise: float, y: ArrayLike | None = None) -> "PointCloud":
        """The cloud of an array `[K, Z]`, and integer classes `[K]` if it is to have parts."""
        points = np.asarray(points)
        classes = None if y is None else np.asarray(y)
        _check(points, classes)
        rows = tuple(map(tuple, points.astype(np.float64).tolist()))
        return cls(rows, float(noise), None if classes is None else tuple(classes.tolist()))

    @property
    def latent_dim(self) -> int:  # type: ignore[override]
        return len(self.points[0])

    def sample(self, key: Array, n: int) -> Array:
        point_key, noise_key = jax.random.split(key)
        return self._draws(noise_key, jax.random.randint(point_key, (n,), 0, len(self.points)))

    def log_prob(self, z: Array) -> Array:
        check_points(z, self.latent_dim)
        offsets = per_component(z, np.asarray(self.points))
        constant = -math.log(len(self.points)) - self.latent_dim * (math.log(self.noise) + 0.5 * math.log(2 * math.pi))
        return mix(sum_last(jnp.square(offsets / self.noise)), np.full(len(self.points), constant))

    def check_parts(self, num_classes: int) -> None:
        found = sorted(set(self.classes or ()))
        if found != list(range(num_classes)):
            raise InputError(
                f"The points have the classes {found}, and parts of {num_classes} are wanted: give"
                f" PointCloud.of(points, noise=..., y=y), with each of 0 to {num_classes - 1} in y."
            )

    def _draw_parts(self, key: Array, y: Array, num_classes: int) -> Array:
        classes = np.asarray(self.classes)
        order, counts = np.argsort(classes, kind="stable"), np.bincount(classes)
        starts = np.cumsum(counts) - counts
        point_key, noise_key = jax.random.split(key)
        within = jax.random.randint(point_key, (len(y),), 0, jnp.asarray(counts)[y])
        return self._draws(noise_key, jnp.asarray(order)[jnp.asarray(starts)[y] + within])

    def part_of(self, z: Array, num_classes: int) -> Array:
        self.check_parts(num_classes)
        check_points(z, self.latent_dim)
        gaps = sum_last(jnp.square(per_component(widen(z), np.asarray(self.points))))
        return jnp.asarray(self.classes, jnp.int32)[gaps.argmin(axis=-1)]

    def _draws(self, key: Array, rows: Array) -> Array:
        noise = jax.random.normal(key, (len(rows), self.latent_dim))
        return jnp.asarray(self.points, noise.dtype)[rows] + self.noise * noise


def _check(points: np.ndarray, classes: Any) -> None:
    """Refuses what are no points `[K, Z]` and, where there are classes, an integer from 0 up for each."""
    if points.ndim != 2 or not points.size or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        raise InputError(
            f"The points are an array {points.shape} of {points.dtype}; finite numbers [K, Z] are wanted, K at least 1."
        )
    if classes is None:
        return
    y = np.asarray(classes)
    if y.shape != points.shape[:1] or y.dtype.kind not in "iu" or y.min() < 0:
        raise InputError(f"y is {y.dtype} {y.shape}; for {len(points)} points as many integers from 0 up are wanted.")
