"""Binary codes: real codes cut into bits, bits packed into words, and the exact nearest of them by Hamming distance.

Distances are few small integers, so ties are the rule: codes of equal distance come in the order of their rows. A
search goes over all codes. They lie in groups of 64 neighbours; one pass takes the least distance in every group, and
only the k groups with the smallest are looked at, for the k nearest codes lie in them. What is sorted is thus a few
thousand numbers of a million.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from aejax.checks import InputError, check_count

__all__ = ["HammingIndex", "Neighbours", "cut", "medians", "pack"]

_WORD = 32
_GROUP = 64  # codes; of 32, 64, 128 and 256 the fastest for 100 of 10^6
_QUERIES = 8  # that share a pass over the codes
_CALL = 256  # queries of one call of a compiled program, which holds for each all that it may have to look at
_PAIRS = 4096  # of a query and a group, likewise
_EXACT = 2**24  # integers up to here are exact in float32, of which `top_k` is ten times as fast as of int32 on CPU


class Neighbours(NamedTuple):
    """What was found: by distance, and at equal distance by index."""

    distances: np.ndarray  # [..., k] int32, in bits
    indices: np.ndarray  # [..., k] int64, rows of the codes


def medians(z: ArrayLike) -> np.ndarray:
    """Where real codes are cut, so that each bit is set in half of them: `[N, Z] -> [Z]`, of the training codes.

    Where many are equal to the median, fewer are above it.

    Raises:
      InputError: z is no table of finite numbers.

    Example:
      >>> medians([[0.0, 5.0], [1.0, 7.0], [4.0, 6.0]]).tolist()
      [1.0, 6.0]
    """
    return np.median(_real(z), axis=0)


def cut(z: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """The bits of real codes: whether each is above its threshold.

    Args:
      z: `[N, Z]` float.
      thresholds: `[Z]`, such as `medians` of the codes of the training data; not of the data that are cut.

    Returns:
      `[N, Z]` bool; False at the threshold.

    Raises:
      InputError: shapes that do not go together, or codes that are not finite.

    Example:
      >>> cut([[0.0, 5.0], [2.0, 6.0]], [1.0, 6.0]).tolist()
      [[False, False], [True, False]]
    """
    codes, places = _real(z), _real(np.asarray(thresholds)[None])[0]
    if places.shape != codes.shape[1:]:
        raise InputError(f"Codes of {codes.shape[1]} numbers are cut at as many thresholds; got shape {places.shape}.")
    return codes > places


def pack(bits: ArrayLike) -> np.ndarray:
    """Bits as words of 32, the first the least significant; what is missing to a whole word is 0.

    Args:
      bits: `[N, Z]`, bool or integers 0 and 1.

    Returns:
      `[N, ceil(Z / 32)]` uint32.

    Raises:
      InputError: another shape or dtype, other values, or no bits.

    Example:
      >>> pack([[True, False, True], [False, False, False]]).tolist()
      [[5], [0]]
    """
    bits = np.asarray(bits)
    if bits.ndim != 2 or not bits.size:
        raise InputError(f"Bits have shape {bits.shape}; [N, Z] is wanted, not empty.")
    if bits.dtype.kind not in "bui" or bits.min() < 0 or bits.max() > 1:
        raise InputError(
            f"Bits of dtype {bits.dtype}; wanted are bool, or integers 0 and 1: `cut` makes them of codes."
        )
    octets = np.packbits(bits.astype(bool), axis=1, bitorder="little")
    octets = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 4)))
    return np.ascontiguousarray(octets).view("<u4").astype(np.uint32)


class HammingIndex:
    """Packed codes, and the exact nearest of them.

    The codes lie on the device twice, in two orders. A search holds beside them, for 8 queries at a time, the distances
    of `N / 64` groups and of `64 k` codes (at most N). Programs are compiled once for each k, and for each power of two
    of the number of queries, up to 256.

    Args:
      codes: `[N, W]` uint32, as of `pack`.

    Raises:
      InputError: codes that are not of uint32, or none.

    Example:
      >>> index = HammingIndex(pack([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]]))
      >>> found = index.search(pack([[0, 0, 0]]), 3)
      >>> found.distances.tolist(), found.indices.tolist()
      ([[0, 1, 1]], [[0, 2, 3]])
      >>> index.within(pack([[1, 1, 0]]), 1)[0].indices.tolist()
      [1, 2]
    """

    def __init__(self, codes: ArrayLike):
        words = _packed(codes, "Codes")
        self.num_codes, self.num_words = words.shape
        num_groups = -(-len(words) // _GROUP)
        last = np.repeat(words[-1:], num_groups * _GROUP - len(words), axis=0)  # moves no least distance of a group
        rows = np.concatenate([words, last]).reshape(num_groups, _GROUP, self.num_words)
        self._rows = jnp.asarray(rows)
        self._columns = jnp.asarray(np.ascontiguousarray(rows.transpose(2, 1, 0)))

    def __len__(self) -> int:
        return self.num_codes

    def search(self, queries: ArrayLike, k: int) -> Neighbours:
        """The k nearest codes of each query; of equally near ones those that come first.

        Args:
          queries: `[Q, W]` uint32, packed as the codes are.
          k: from 1 to N.

        Returns:
          Distances and indices, `[Q, k]`, ascending.

        Raises:
          InputError: queries of other words than the codes, or a k that is out of range.
        """
        queries = self._queries(queries)
        check_count(k=k)
        if k > self.num_codes:
            raise InputError(f"k is {k}; the index has {self.num_codes} codes.")
        search = partial(_search, self._rows, self._columns, k=int(k), num_codes=self.num_codes)
        parts = [jax.device_get(search(part)) for _, part in _calls(queries)]
        distances, indices = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Neighbours(distances[: len(queries)], indices[: len(queries)].astype(np.int64))

    def within(self, queries: ArrayLike, radius: int) -> list[Neighbours]:
        """All codes within a Hamming ball around each query.

        Groups without a code that near are passed over, so that small balls cost one pass over the codes.

        Args:
          queries: as in `search`.
          radius: in bits, 0 or more; a code at that distance is in the ball.

        Returns:
          For each query its neighbours, `[n]`, ascending; n may be 0.

        Raises:
          InputError: queries of other words than the codes, or a radius that is no whole number from 0 on.
        """
        queries = self._queries(queries)
        if not (isinstance(radius, int | np.integer) and not isinstance(radius, bool) and radius >= 0):
            raise InputError(f"radius is {radius!r}; a whole number of bits, 0 or more, is needed.")
        found = []
        for i, part in _calls(queries):
            near = np.asarray(_least(self._columns, part))[: len(queries) - i] <= radius
            found += self._in_groups(part, near, int(radius))
        return found

    def _in_groups(self, queries: np.ndarray, near: np.ndarray, radius: int) -> list[Neighbours]:
        """What is in the ball of each query, of the groups that are marked: `near` `[Q, groups]`."""
        of_query, group = np.nonzero(near)
        query, distance, index = [], [], []
        for start in range(0, len(group), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            here, padding = of_query[pairs], (0, -len(of_query[pairs]) % _PAIRS)
            each = _of_pairs(self._rows, queries[np.pad(here, padding)], np.pad(group[pairs], padding))
            pair, place = np.nonzero(np.asarray(each)[: len(here)] <= radius)
            query.append(here[pair])
            distance.append(np.asarray(each)[pair, place])
            index.append(group[pairs][pair] * _GROUP + place)
        if not query:
            query, distance, index = [np.zeros(0, int)], [np.zeros(0, np.int32)], [np.zeros(0, int)]
        of, d, i = (np.concatenate(each) for each in (query, distance, index))
        order = np.lexsort((i, d, of))
        order = order[i[order] < self.num_codes]
        ends = np.searchsorted(of[order], np.arange(len(near) + 1))
        parts = (order[a:b] for a, b in pairwise(ends))
        return [Neighbours(d[part], i[part].astype(np.int64)) for part in parts]

    def _queries(self, queries: ArrayLike) -> np.ndarray:
        queries = _packed(queries, "Queries")
        if queries.shape[1] != self.num_words:
            raise InputError(f"Queries have {queries.shape[1]} words; the codes have {self.num_words}.")
        return queries


def _calls(queries: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Where each call begins, and its queries, the last one repeated: 8, 16, ... or 256 of them."""
    parts = []
    for i in range(0, len(queries), _CALL):
        part = queries[i : i + _CALL]
        size = _QUERIES
        while size < len(part):
            size *= 2
        parts.append((i, np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])))
    return parts


def _distances(words: jax.Array, queries: jax.Array) -> jax.Array:
    """`[..., W], [..., W] -> [...]` int32."""
    counts = [jax.lax.population_count(words[..., w] ^ queries[..., w]) for w in range(words.shape[-1])]
    return sum(counts[1:], counts[0]).astype(jnp.int32)


def _of_groups(columns: jax.Array, queries: jax.Array) -> jax.Array:
    """The least distance in each group: `[W, G, S], [8, W] -> [8, S]` int32."""
    one = lambda g: _distances(jnp.moveaxis(columns[:, g], 0, -1)[None], queries[:, None])
    return jax.lax.fori_loop(1, columns.shape[1], lambda g, least: jnp.minimum(least, one(g)), one(0))


@jax.jit
def _least(columns: jax.Array, queries: jax.Array) -> jax.Array:
    blocks = queries.reshape(-1, _QUERIES, queries.shape[1])
    return jax.lax.map(partial(_of_groups, columns), blocks).reshape(len(queries), -1)


@jax.jit
def _of_pairs(rows: jax.Array, queries: jax.Array, groups: jax.Array) -> jax.Array:
    """`[groups, G, W], [P, W], [P] -> [P, G]`."""
    return _distances(rows[groups], queries[:, None])


def _first(distances: jax.Array, k: int, most: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of each row of integers up to `most`, and their places; of equal ones the first: `[B, k]` each."""
    places = jnp.broadcast_to(jnp.arange(distances.shape[1], dtype=jnp.int32), distances.shape)
    if (most + 1) * distances.shape[1] <= _EXACT:  # as one number, distance before place
        place = jax.lax.top_k(-(distances * distances.shape[1] + places).astype(jnp.float32), k)[1]
        return jnp.take_along_axis(distances, place, 1), place.astype(jnp.int32)
    ordered, place = jax.lax.sort((distances, places), is_stable=True, num_keys=1)
    return ordered[:, :k], place[:, :k]


@partial(jax.jit, static_argnames=("k", "num_codes"))
def _search(
    rows: jax.Array, columns: jax.Array, queries: jax.Array, *, k: int, num_codes: int
) -> tuple[jax.Array, jax.Array]:
    num_groups, size, num_words = rows.shape
    most = _WORD * num_words

    def block(queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        group = _first(_of_groups(columns, queries), min(k, num_groups), most)[1]
        group = jnp.sort(group, axis=1)  # so that places are in the order of the codes
        index = (group[..., None] * size + jnp.arange(size)[None, None]).reshape(len(queries), -1)
        distance = _distances(rows[group], queries[:, None, None]).reshape(len(queries), -1)
        distance = jnp.where(index < num_codes, distance, most + 1)  # those that were added
        nearest, place = _first(distance, k, most + 1)
        return nearest, jnp.take_along_axis(index, place, 1)

    found = jax.lax.map(block, queries.reshape(-1, _QUERIES, num_words))
    return tuple(each.reshape(len(queries), k) for each in found)


def _packed(codes: ArrayLike, name: str) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size:
        raise InputError(f"{name} have shape {codes.shape}; [N, W] is wanted, not empty.")
    if codes.dtype != np.uint32:
        raise InputError(f"{name} have dtype {codes.dtype}; words of uint32 are wanted, as `aejax.hamming.pack` makes.")
    return codes


def _real(z: ArrayLike) -> np.ndarray:
    z = np.asarray(z)
    if z.ndim != 2 or not z.size or z.dtype.kind not in "fiu" or not np.isfinite(z).all():
        raise InputError(
            f"Codes of shape {z.shape} and dtype {z.dtype}; wanted is [N, Z], numbers that are all finite."
        )
    return z
