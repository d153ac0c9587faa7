"""Priors without parameters: standard normal, the cube, mixtures of Gaussians, the swiss roll.

Each is a frozen dataclass of plain numbers, so it is hashable and may be a static argument of `jit`. Some have parts,
one for each class: the Gaussians of a mixture, stretches of a roll.
"""

import abc
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError, check_classes, check_count
from aejax.precision import sum_last, widen
from aejax.priors.points import check_points, mix, per_component

Array = jax.Array

_NODES = 512  # of the quadrature along the swiss roll
_PLACES = 2000  # along it, of which the nearest one is found


class Prior(abc.ABC):
    """Abstract base: what can be sampled, and has a density.

    Attributes:
      latent_dim: Z.
    """

    latent_dim: int

    @abc.abstractmethod
    def sample(self, key: Array, n: int) -> Array:
        """Independent draws, `[n, Z]`; the key is consumed."""

    @abc.abstractmethod
    def log_prob(self, z: Array) -> Array:
        """Log-density in nats: `[..., Z] -> [...]`."""

    def check_parts(self, num_classes: int) -> None:
        """Refuses, by `InputError`, a prior without one part for each class."""
        raise InputError(
            f"{type(self).__name__} has no parts, one for each of {num_classes} classes; use"
            f" GaussianMixture.ring({num_classes}, latent_dim={self.latent_dim}), or in the plane the swiss roll."
        )

    def sample_parts(self, key: Array, y: Array, num_classes: int) -> Array:
        """Draws from the parts of classes: `[N]` integers from 0 to `num_classes - 1` `-> [N, Z]`; key consumed."""
        self.check_parts(num_classes)
        check_classes(y, num_classes, type(self).__name__, has="was asked for", more="it takes parts and")
        return self._draw_parts(key, jnp.asarray(y), num_classes)

    def _draw_parts(self, key: Array, y: Array, num_classes: int) -> Array:
        raise NotImplementedError

    def part_of(self, z: Array, num_classes: int) -> Array:
        """The class whose part a point is in: `[N, Z] -> [N]` int32."""
        self.check_parts(num_classes)
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class StandardNormal(Prior):
    """N(0, I).

    Example:
      >>> round(float(StandardNormal(2).log_prob(jnp.zeros(2))), 4)  # -log(2 pi)
      -1.8379
    """

    latent_dim: int

    def sample(self, key: Array, n: int) -> Array:
        return jax.random.normal(key, (n, self.latent_dim))

    def log_prob(self, z: Array) -> Array:
        check_points(z, self.latent_dim)
        return -0.5 * sum_last(jnp.square(widen(z))) - 0.5 * self.latent_dim * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Uniform(Prior):
    """The cube [-1, 1]^Z, the noise of many generators.

    Example:
      >>> Uniform(2).log_prob(jnp.array([[0.5, -1.0], [0.5, 1.5]])).tolist()  # -log 4, and outside
      [-1.3862943649291992, -inf]
    """

    latent_dim: int

    def sample(self, key: Array, n: int) -> Array:
        return jax.random.uniform(key, (n, self.latent_dim), minval=-1.0, maxval=1.0)

    def log_prob(self, z: Array) -> Array:
        check_points(z, self.latent_dim)
        inside = jnp.abs(z).max(axis=-1) <= 1
        return jnp.where(inside, -self.latent_dim * math.log(2), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class ClassAndStyle(Prior):
    """A class as the corner of a simplex, each as likely, and beside it N(0, I).

    The density is one in the style, times the probability of the class; of what is no corner it is 0.

    Attributes:
      num_classes: K, the first components of z.
      latent_dim: K and the dimensions of the style, at least one.

    Raises:
      InputError: fewer than two classes, or no style.

    Example:
      >>> z = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
      >>> ClassAndStyle(2, 3).log_prob(z).round(4).tolist()  # -log 2 - log(2 pi) / 2
      [-1.6121000051498413, -inf]
    """

    num_classes: int
    latent_dim: int

    def __post_init__(self):
        if self.num_classes < 2 or self.latent_dim <= self.num_classes:
            raise InputError(
                f"A code of {self.latent_dim} numbers has to hold {self.num_classes} classes and at least one number of"
                " style; use two classes or more, and a larger latent_dim."
            )

    def sample(self, key: Array, n: int) -> Array:
        class_key, style_key = jax.random.split(key)
        classes = jax.random.randint(class_key, (n,), 0, self.num_classes)
        style = jax.random.normal(style_key, (n, self.latent_dim - self.num_classes))
        return jnp.concatenate([jax.nn.one_hot(classes, self.num_classes), style], axis=1)

    def log_prob(self, z: Array) -> Array:
        check_points(z, self.latent_dim)
        shares, style = z[..., : self.num_classes], z[..., self.num_classes :]
        corner = ((shares == 0) | (shares == 1)).all(axis=-1) & (shares.sum(axis=-1) == 1)
        normal = StandardNormal(self.latent_dim - self.num_classes).log_prob(style)
        return jnp.where(corner, normal - math.log(self.num_classes), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class GaussianMixture(Prior):
    """A mixture of K Gaussians with full covariances. Its parts are these, the most probable one that of a point.

    Attributes:
      weights: K positive numbers; they are divided by their sum.
      means: K tuples of Z numbers.
      covariances: K symmetric positive definite matrices, each a tuple of Z tuples of Z numbers.

    Raises:
      InputError: sizes disagree, a weight is not positive, or a covariance is not symmetric positive definite.

    Example:
      >>> two = GaussianMixture((1.0, 1.0), ((-1.0,), (1.0,)), (((0.25,),), ((0.25,),)))
      >>> round(float(two.log_prob(jnp.zeros(1))), 4)  # log of the normal density two deviations out
      -2.2258
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    covariances: tuple[tuple[tuple[float, ...], ...], ...]

    def __post_init__(self):
        k, z = len(self.weights), self.latent_dim
        shapes = np.shape(self.means), np.shape(self.covariances)
        if shapes != ((k, z), (k, z, z)):
            raise InputError(f"{k} weights ask for means [{k}, Z] and covariances [{k}, Z, Z]; got {shapes}.")
        if not all(0 < w < math.inf for w in self.weights):
            raise InputError(f"weights are {self.weights}; each has to be positive and finite.")
        covariances = np.asarray(self.covariances, np.float64)
        if not np.array_equal(covariances, covariances.swapaxes(1, 2)):
            raise InputError("A covariance is not symmetric.")
        try:
            np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError:
            raise InputError("A covariance is not positive definite.") from None

    @property
    def latent_dim(self) -> int:  # type: ignore[override]
        return len(self.means[0])

    @classmethod
    def ring(
        cls,
        num_modes: int = 10,
        radius: float = 1.4,
        radial_std: float = 0.5,
        tangential_std: float = 0.1,
        *,
        latent_dim: int = 2,
    ) -> "GaussianMixture":
        """Modes in the plane like the petals of a flower, each elongated along its radius; N(0, 1) in more dimensions.

        The AAE paper shows ten in its figures and gives no numbers; these are those of its best-known
        reimplementation, `hwalsuklee/tensorflow-mnist-AAE`.

        Raises:
          InputError: no plane to lie in, or no mode.
        """
        check_count(num_modes=num_modes)
        if latent_dim < 2:
            raise InputError(f"A ring lies in the plane; latent_dim is {latent_dim}, and 2 or more are needed.")
        angles = 2 * np.pi * np.arange(num_modes) / num_modes
        along = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        means, covariances = np.zeros((num_modes, latent_dim)), np.tile(np.eye(latent_dim), (num_modes, 1, 1))
        means[:, :2] = radius * along
        covariances[:, :2, :2] = radial_std**2 * _outer(along) + tangential_std**2 * _outer(across)
        return cls((1.0,) * num_modes, _tuples(means), _tuples(covariances))

    @classmethod
    def of(cls, codes: ArrayLike, num_components: int, *, seed: int = 0) -> "GaussianMixture":
        """The mixture that is fitted to codes by maximum likelihood: a density for an autoencoder that has none.

        Of one component it is the mean and the covariance. More are found by scikit-learn's `GaussianMixture`, once,
        from k-means; variances have 1e-6 added, in either case.

        Args:
          codes: `[N, Z]`, such as `evaluation.embed` of the training part.
          num_components: K, at most N.
          seed: of k-means.

        Raises:
          InputError: scikit-learn is not installed, codes of another shape or that are not finite, or fewer than K.

        Example:
          >>> one = GaussianMixture.of([[0.0], [2.0]], 1)  # N(1, 1)
          >>> round(float(one.log_prob(jnp.ones(1))), 4)  # -log(2 pi) / 2
          -0.9189
        """
        check_count(num_components=num_components)
        codes = np.asarray(codes, np.float64)
        if codes.ndim != 2 or len(codes) < max(2, num_components) or not np.isfinite(codes).all():
            raise InputError(
                f"The codes are an array {codes.shape}, for {num_components} Gaussians; finite numbers [N, Z] are"
                " wanted, N at least 2 and as many as there are Gaussians."
            )
        extras.need("A mixture fitted to codes", "sklearn", extra="sklearn")
        from sklearn import mixture

        found = mixture.GaussianMixture(num_components, random_state=seed).fit(codes)
        covariances = (found.covariances_ + found.covariances_.swapaxes(1, 2)) / 2
        return cls(_tuples(found.weights_), _tuples(found.means_), _tuples(covariances))

    def sample(self, key: Array, n: int) -> Array:
        mode_key, noise_key = jax.random.split(key)
        modes = jax.random.categorical(mode_key, jnp.log(jnp.asarray(self.weights)), shape=(n,))
        return self._draws(noise_key, modes)

    def check_parts(self, num_classes: int) -> None:
        if len(self.weights) != num_classes:
            raise InputError(
                f"The mixture has {len(self.weights)} Gaussians for {num_classes} classes; one for each is wanted, such"
                f" as GaussianMixture.ring({num_classes}, latent_dim={self.latent_dim})."
            )

    def _draw_parts(self, key: Array, y: Array, num_classes: int) -> Array:
        return self._draws(key, y)

    def part_of(self, z: Array, num_classes: int) -> Array:
        self.check_parts(num_classes)
        sq_distances, constants = self._terms(z)
        return (constants - 0.5 * sq_distances).argmax(axis=-1)

    def _draws(self, key: Array, modes: Array) -> Array:
        noise = jax.random.normal(key, (len(modes), self.latent_dim))
        scales = jnp.asarray(np.linalg.cholesky(np.asarray(self.covariances)), noise.dtype)
        return jnp.asarray(self.means)[modes] + jnp.einsum("nij,nj->ni", scales[modes], noise, precision="highest")

    def log_prob(self, z: Array) -> Array:
        return mix(*self._terms(z))

    def _terms(self, z: Array) -> tuple[Array, Array]:
        """Squared whitened distances from each Gaussian, `[..., K]`, and log-factors, `[K]`."""
        check_points(z, self.latent_dim)
        scales = np.linalg.cholesky(np.asarray(self.covariances, np.float64))
        log_dets = np.log(np.diagonal(scales, axis1=1, axis2=2)).sum(axis=1)
        weights = np.asarray(self.weights) / np.sum(self.weights)
        constants = np.log(weights) - log_dets - 0.5 * self.latent_dim * math.log(2 * math.pi)
        offsets = per_component(z, np.asarray(self.means))
        whitened = jnp.einsum(
            "kij,...kj->...ki", jnp.asarray(np.linalg.inv(scales), offsets.dtype), offsets, precision="highest"
        )
        sq_distances = sum_last(jnp.square(whitened))
        return sq_distances, jnp.broadcast_to(jnp.asarray(constants, sq_distances.dtype), sq_distances.shape)


@dataclasses.dataclass(frozen=True)
class SwissRoll(Prior):
    """A spiral in the plane with Gaussian thickness.

    A point is `r (cos a, sin a) + noise` with `r = radius s`, `a = 2 pi turns s`, and s in [0, 1] of density 2 s
    (the square root of a uniform draw), which spreads the points evenly along the outer turns.

    `log_prob` is the integral over s, by Gauss-Legendre quadrature at 512 nodes. At the default sizes these lie at
    most 0.76 standard deviations of the noise apart, where the error is below float32 rounding; a roll so long or so
    thin that they would lie more than 1.2 apart (a relative error of 2e-6) is refused.

    Its parts are stretches, from the centre outwards, equally probable and so equally large; that of a point is the one
    of the nearest place of the spiral.

    Attributes:
      radius: of the outer end.
      turns: how often it goes round.
      noise: standard deviation of the thickness.

    Raises:
      InputError: a size is not positive, or the roll is too long for its noise.
    """

    radius: float = 3.0
    turns: float = 2.0
    noise: float = 0.1

    def __post_init__(self):
        if min(self.radius, self.turns, self.noise) <= 0:
            raise InputError(f"{self}: every size has to be positive.")
        # The nodes lie pi sqrt(s (1 - s)) / 512 apart in s, where the roll moves 2 pi turns radius s per unit of s.
        gap = 2 * math.pi * self.turns * self.radius * math.pi / _NODES * 0.325
        if gap > 1.2 * self.noise:
            raise InputError(f"{self} is too thin for its length; use a noise of at least {gap / 1.2:.2g}.")

    @property
    def latent_dim(self) -> int:  # type: ignore[override]
        return 2

    def sample(self, key: Array, n: int) -> Array:
        place_key, noise_key = jax.random.split(key)
        return self._draws(noise_key, jax.random.uniform(place_key, (n,)))

    def check_parts(self, num_classes: int) -> None:
        check_count(num_classes=num_classes)

    def _draw_parts(self, key: Array, y: Array, num_classes: int) -> Array:
        place_key, noise_key = jax.random.split(key)
        within = jax.random.uniform(place_key, (len(y),))
        return self._draws(noise_key, (y.astype(within.dtype) + within) / num_classes)

    def part_of(self, z: Array, num_classes: int) -> Array:
        check_points(z, 2)
        shares = (np.arange(_PLACES) + 0.5) / _PLACES
        gaps = sum_last(jnp.square(per_component(z, self._centre(np.sqrt(shares)))))
        return jnp.minimum(gaps.argmin(axis=-1) * num_classes // _PLACES, num_classes - 1)

    def _draws(self, key: Array, shares: Array) -> Array:
        """Points of which so large a share of the roll is further in."""
        return self._centre(jnp.sqrt(shares)) + self.noise * jax.random.normal(key, (len(shares), 2))

    def log_prob(self, z: Array) -> Array:
        check_points(z, 2)
        nodes, weights = _legendre(_NODES)
        offsets = per_component(z, np.asarray(self._centre(nodes))) / self.noise
        constants = np.log(weights * 2 * nodes) - math.log(2 * math.pi * self.noise**2)
        return mix(sum_last(jnp.square(offsets)), constants)

    def _centre(self, s):
        xp = np if isinstance(s, np.ndarray) else jnp
        angle = 2 * math.pi * self.turns * s
        return self.radius * xp.stack([s * xp.cos(angle), s * xp.sin(angle)], axis=-1)


@functools.cache
def _legendre(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    return (nodes + 1) / 2, weights / 2


def _outer(v: np.ndarray) -> np.ndarray:
    return v[:, :, None] * v[:, None, :]


def _tuples(values: np.ndarray):
    """Nested tuples of floats, as hashable fields want them."""
    return tuple(map(_tuples, values)) if np.ndim(values) else float(values)
