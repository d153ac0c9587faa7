"""Codes of vectors from a codebook or a grid: the nearest entry, its straight-through gradient, numbers of entries."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.precision import wide


class Codebook(nn.Module):
    """K vectors, each a sum of vectors that chose it divided by their number, both running (`moved`).

    Attributes:
      num_entries: K.
      dim: of an entry.
      running: False: the sums are the entries themselves, which a gradient moves, and the counts tell their use alone.
    """

    num_entries: int
    dim: int
    running: bool = True

    def setup(self) -> None:
        self.sums = self.param("sums", nn.initializers.normal(1.0), (self.num_entries, self.dim))
        self.counts = self.param("counts", nn.initializers.ones, (self.num_entries, 1))

    def __call__(self) -> jax.Array:
        """The entries, `[K, dim]`."""
        return self.sums / self.counts if self.running else self.sums

    def nearest(self, vectors: jax.Array) -> jax.Array:
        """The number of the entry nearest to each vector, of equal ones the first: `[..., dim] -> [...]` int32."""
        return nearest(vectors.reshape(-1, self.dim), self()).reshape(vectors.shape[:-1])


def nearest(vectors: jax.Array, entries: jax.Array) -> jax.Array:
    """The row of `entries` `[K, dim]` nearest to each of `vectors` `[N, dim]`, `[N]` int32."""
    centre = entries.mean(axis=0, keepdims=True)  # about which the squares lose no digits
    vectors, entries = vectors - centre, entries - centre
    products = jnp.matmul(vectors, entries.T, precision="highest")
    return (jnp.square(entries).sum(axis=1)[None] - 2 * products).argmin(axis=1)  # |v|^2 is the same for all


def straight_through(vectors: jax.Array, entries: jax.Array) -> jax.Array:
    """The entries, with the gradient of the vectors that they stand for."""
    return jax.lax.stop_gradient(entries) + (vectors - jax.lax.stop_gradient(vectors))


def choices(vectors: jax.Array, chosen: jax.Array, num_entries: int) -> dict[str, jax.Array]:
    """How many vectors chose each entry, `[K, 1]`, and their sums, `[K, dim]`."""
    one_hot = jax.nn.one_hot(chosen.reshape(-1), num_entries, dtype=wide(vectors.dtype))
    return {"counts": one_hot.sum(axis=0)[:, None], "sums": one_hot.T @ vectors.reshape(-1, vectors.shape[-1])}


def moved(codebook: dict[str, jax.Array], seen: dict[str, jax.Array], decay: float | jax.Array) -> dict[str, jax.Array]:
    """The running counts and sums after a batch: `decay` times the old ones, plus the rest times what was seen.

    An entry that nothing chooses keeps its place; its count stops at 1e-6, so that the ratio stays exact.

    Reference: van den Oord et al. (2017), equations 6 to 8.
    """
    mixed = {name: decay * codebook[name] + (1 - decay) * seen[name] for name in seen}
    is_dead = mixed["counts"] < 1e-6
    return {name: jnp.where(is_dead, codebook[name], mixed[name]) for name in mixed}


def revived(
    codebook: dict[str, jax.Array], vectors: jax.Array, key: jax.Array, share: float, *, running: bool
) -> dict[str, jax.Array]:
    """The codebook with its dead entries begun anew, each at another of the vectors, with the mean count of all.

    Args:
      codebook: running `counts` `[K, 1]`, and `sums` `[K, dim]`.
      vectors: `[N, dim]`, those of a batch; where N is smaller than K, some are taken twice.
      key: consumed.
      share: of the mean count, below which an entry is dead.
      running: as in `Codebook`.

    Reference: the random restarts of Dhariwal et al., "Jukebox" (2020).
    """
    counts, size = codebook["counts"], len(codebook["counts"])
    mean = counts.mean(axis=0, keepdims=True)
    order = jax.random.permutation(key, jnp.tile(jnp.arange(len(vectors)), -(-size // len(vectors))))
    new = {"counts": jnp.broadcast_to(mean, counts.shape), "sums": vectors[order[:size]] * (mean if running else 1.0)}
    return {name: jnp.where(counts < share * mean, new[name], codebook[name]) for name in codebook}


def to_tokens(digits: jax.Array, levels: Sequence[int]) -> jax.Array:
    """The number of a point of a grid, the first digit being the fastest: `[..., d] -> [...]` int32.

    Example:
      >>> to_tokens(jnp.array([[1, 0], [0, 1], [2, 1]]), (3, 2)).tolist()
      [1, 3, 5]
    """
    steps = jnp.array([math.prod(levels[:i]) for i in range(len(levels))], jnp.int32)
    return (digits.astype(jnp.int32) * jnp.broadcast_to(steps, digits.shape)).sum(axis=-1)


def to_digits(tokens: jax.Array, levels: Sequence[int]) -> jax.Array:
    """The digits of a number, of which digit i is below `levels[i]`: `[...] -> [..., d]` int32.

    Example:
      >>> to_digits(jnp.array([1, 3, 5]), (3, 2)).tolist()
      [[1, 0], [0, 1], [2, 1]]
    """
    steps = [math.prod(levels[:i]) for i in range(len(levels))]
    return jnp.stack([tokens // step % size for step, size in zip(steps, levels, strict=True)], axis=-1)


def k_means(vectors: jax.Array, num_entries: int, *, num_rounds: int = 10) -> jax.Array:
    """Centres of vectors by Lloyd's rounds from the first of them; one that no vector chooses stays where it is.

    Args:
      vectors: `[N, dim]` float, in random order.
      num_entries: K; where N is smaller, vectors are repeated.
      num_rounds: of assignment and mean.

    Returns:
      `[K, dim]`.

    Example:
      >>> k_means(jnp.array([[0.0], [8.0], [2.0], [10.0]]), 2).tolist()
      [[1.0], [9.0]]
    """

    def closer(_: int, centres: jax.Array) -> jax.Array:
        seen = choices(vectors, nearest(vectors, centres), num_entries)
        return jnp.where(seen["counts"] > 0, seen["sums"] / jnp.maximum(seen["counts"], 1), centres)

    first = jnp.tile(vectors, (-(-num_entries // len(vectors)), 1))[:num_entries]
    return jax.lax.fori_loop(0, num_rounds, closer, first)
