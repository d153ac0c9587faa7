"""Where clusters begin: k-means with restarts, and a mixture of Gaussians by EM. Pure, so a `start` may call them.

What a fitted clustering is worth is measured in `aejax.evaluation`, with scikit-learn; this runs within a trace.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.nets.quantise import choices, nearest
from aejax.precision import sum_last

Array = jax.Array

_ROUNDS = 300  # of Lloyd at most, as in scikit-learn
_BLOCK = 1024  # examples at once


def in_blocks(function: Callable[[Array], Array], x: Array) -> Array:
    """`function(x)` of a function of rows, 1,024 rows at once, so that a whole data set needs no more memory.

    Example:
      >>> in_blocks(lambda rows: 2 * rows, jnp.arange(3000.0))[-1].item()
      5998.0
    """
    x = jnp.asarray(x)
    whole = len(x) // _BLOCK * _BLOCK
    parts = []
    if whole:
        found = jax.lax.map(function, x[:whole].reshape(-1, _BLOCK, *x.shape[1:]))
        parts.append(found.reshape(whole, *found.shape[2:]))
    if whole < len(x):
        parts.append(function(x[whole:]))
    return jnp.concatenate(parts)


def squared_distances(z: Array, centres: Array) -> Array:
    """Of every vector from every centre: `[N, Z], [K, Z] -> [N, K]`."""
    return sum_last(jnp.square(z[:, None] - centres[None]))


def k_means(key: Array, z: Array, num_clusters: int, *, num_starts: int = 20) -> Array:
    """The centres of the best of several runs of Lloyd's algorithm, each from a start by k-means++.

    A run ends where no centre moves, or after 300 rounds. A centre that no vector chooses stays where it is.

    Args:
      key: consumed.
      z: `[N, Z]` float.
      num_clusters: K; static.
      num_starts: how many runs, of which the one of least inertia is kept; static. 20 are those of DEC's paper.

    Returns:
      `[K, Z]`.

    Raises:
      InputError: there are more clusters than vectors.

    Example:
      >>> sorted(k_means(jax.random.key(0), jnp.array([[0.0], [8.0], [2.0], [10.0]]), 2).ravel().tolist())
      [1.0, 9.0]

    Reference: Arthur & Vassilvitskii, "k-means++" (2007), section 2.2.
    """

    if len(z) < num_clusters:
        raise InputError(f"{num_clusters} clusters of {len(z)} examples; there are as many as examples at most.")

    def run(key: Array) -> tuple[Array, Array]:
        def moves(carry: tuple[Array, Array, Array]) -> Array:
            _, moved, rounds = carry
            return moved & (rounds < _ROUNDS)

        def closer(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            centres, _, rounds = carry
            seen = choices(z, nearest(z, centres), num_clusters)
            means = jnp.where(seen["counts"] > 0, seen["sums"] / jnp.maximum(seen["counts"], 1), centres)
            return means, jnp.any(means != centres), rounds + 1

        centres, _, _ = jax.lax.while_loop(
            moves, closer, (_spread(key, z, num_clusters), jnp.array(True), jnp.array(0))
        )
        return centres, jnp.square(z - centres[nearest(z, centres)]).sum()

    centres, inertias = jax.lax.map(run, jax.random.split(key, num_starts))
    return centres[inertias.argmin()]


def _spread(key: Array, z: Array, num_clusters: int) -> Array:
    """K of the vectors: each is drawn with a probability in proportion to its squared distance from those before."""
    keys = jax.random.split(key, num_clusters)
    first = z[jax.random.randint(keys[0], (), 0, len(z))]
    gap = lambda centre: jnp.square(z - centre[None]).sum(axis=1)

    def drawn(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, gaps = carry
        centre = z[jax.random.categorical(keys[i], jnp.log(gaps))]
        return centres.at[i].set(centre), jnp.minimum(gaps, gap(centre))

    start = jnp.zeros((num_clusters, z.shape[1]), z.dtype).at[0].set(first), gap(first)
    return jax.lax.fori_loop(1, num_clusters, drawn, start)[0]


class Mixture(NamedTuple):
    """K Gaussians with diagonal covariances."""

    means: Array  # [K, Z]
    logvars: Array  # [K, Z]
    log_weights: Array  # [K]

    def log_joint(self, z: Array) -> Array:
        """log p(z, c), in nats: `[N, Z] -> [N, K]`."""
        scaled = jnp.square(z[:, None] - self.means[None]) * jnp.exp(-self.logvars)[None]
        return self.log_weights[None] - 0.5 * sum_last(scaled + (self.logvars + math.log(2 * math.pi))[None])


def gaussian_mixture(
    key: Array, z: Array, num_clusters: int, *, num_rounds: int = 100, least_variance: float = 1e-3
) -> Mixture:
    """A mixture by expectation and maximisation, from the clusters of `k_means`.

    Args:
      key: consumed.
      z: `[N, Z]` float.
      num_clusters: K; static.
      num_rounds: of EM; static.
      least_variance: is added to every variance, as a share of that of all vectors, so that none of them ends at zero.

    Raises:
      InputError: there are more clusters than vectors.

    Example:
      >>> found = gaussian_mixture(jax.random.key(0), jnp.array([[0.0], [2.0], [8.0], [10.0]]), 2)
      >>> sorted(found.means.round(2).ravel().tolist())
      [1.0, 9.0]
    """
    floor = least_variance * z.var(axis=0) + 1e-6

    def maximised(shares: Array) -> Mixture:
        total = shares.sum(axis=0)[:, None] + 1e-6
        means = shares.T @ z / total
        gaps = jnp.square(z[:, None] - means[None])
        variances = (shares[:, :, None] * gaps).sum(axis=0) / total + floor[None]
        return Mixture(means, jnp.log(variances), jnp.log(total[:, 0] / total.sum()))

    def closer(_: Array, mixture: Mixture) -> Mixture:
        return maximised(jax.nn.softmax(mixture.log_joint(z)))

    chosen = nearest(z, k_means(key, z, num_clusters))
    return jax.lax.fori_loop(0, num_rounds, closer, maximised(jax.nn.one_hot(chosen, num_clusters, dtype=z.dtype)))
