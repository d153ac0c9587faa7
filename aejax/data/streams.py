"""In which order a run sees its examples: one data set, or several of different lengths side by side.

A batch size is a tree prefix of the data: an integer for one data set, whose arrays have one length, or a tree of
integers, such as `SemiBatch(labelled=16, unlabelled=128)`, with one data set for each.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import InputError, is_count

_SIDE = 2**31 - 1  # the folds of the other streams count down from here; epochs count up from 0


class Streams(NamedTuple):
    """Data sets that are gone through together; an epoch is a pass over the one of most steps, the main one."""

    sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    structure: Any  # of the batch size

    @property
    def batch_size(self) -> Any:
        """As it was given."""
        return self.structure.unflatten(self.batch_sizes)

    @property
    def steps(self) -> tuple[int, ...]:
        """Whole batches of each stream."""
        return tuple(size // batch for size, batch in zip(self.sizes, self.batch_sizes, strict=True))

    @property
    def main(self) -> int:
        return _longest(self.steps, self.sizes)

    @property
    def steps_per_epoch(self) -> int:
        return self.steps[self.main]

    def parts(self, least: int = 1) -> list[Any]:
        """Rows of every stream for an evaluation: each example of the main one once, the others over and over.

        Of the main one, a last batch below `least` joins the one before. What has its size and batches is cut alike.
        """
        counts = [-(-size // batch) for size, batch in zip(self.sizes, self.batch_sizes, strict=True)]
        main = _longest(counts, self.sizes)
        if counts[main] > 1 and (self.sizes[main] - 1) % self.batch_sizes[main] + 1 < least:
            counts[main] -= 1

        def rows(i: int, k: int) -> np.ndarray:
            size, batch = self.sizes[i], self.batch_sizes[i]
            stop = (k + 1) * batch if k < counts[main] - 1 else size
            alike = (size, batch) == (self.sizes[main], self.batch_sizes[main])
            stop = stop if alike else k * batch + min(batch, size)
            return np.arange(k * batch, stop, dtype=np.int32) % size

        return [
            (len(rows(main, k)), self.structure.unflatten([rows(i, k) for i in range(len(counts))]))
            for k in range(counts[main])
        ]


def _longest(counts: Sequence[int], sizes: Sequence[int]) -> int:
    """The stream of most batches; of equal ones that of most examples."""
    return max(range(len(counts)), key=lambda i: (counts[i], sizes[i]))


def streams(data: Any, batch_size: Any) -> Streams:
    """The streams of data for a batch size that is a tree prefix of it.

    Raises:
      InputError: the arrays of a stream have no length in common or are empty, a batch size is not an integer of at
        least 1, or is not a prefix of the data.

    Example:
      >>> found = streams({"few": np.zeros((10, 2)), "many": np.zeros((70, 2))}, {"few": 4, "many": 16})
      >>> found.sizes, found.steps_per_epoch
      ((10, 70), 4)
    """
    batch_sizes, structure = jax.tree.flatten(batch_size)
    try:
        sizes = jax.tree.leaves(jax.tree.map(lambda _, part: num_examples(part), batch_size, data))
    except InputError:
        raise
    except ValueError:
        raise InputError(
            f"batch_size={batch_size} is not made as the data are: {jax.tree.structure(data)}. Give the same tuple with"
            " an integer for each stream, or one integer where all have one length."
        ) from None
    if not all(is_count(size) for size in batch_sizes):
        raise InputError(f"batch_size={batch_size}; at least 1 is needed, a whole number.")
    return Streams(tuple(sizes), tuple(map(int, batch_sizes)), structure)


def count_steps(data: Any, batch_size: Any) -> int:
    """Steps of a training epoch; `InputError` where there is none, and as in `streams`."""
    found = streams(data, batch_size)
    if found.steps_per_epoch == 0:
        sizes = " and ".join(map(str, found.sizes))
        raise InputError(f"batch_size={batch_size} exceeds the {sizes} examples of the training data.")
    return found.steps_per_epoch


def num_examples(data: Any) -> int:
    """The common length of the arrays of a pytree; `InputError` where they disagree or are empty."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise InputError(
            f"The arrays of the data have shapes {shapes}; they need one length in common."
            " Sets of different lengths are streams: give each a batch size, in a tuple like that of the data."
        )
    if (0,) in sizes:
        raise InputError(f"The data hold no examples: their shapes are {shapes}.")
    return shapes[0][0]


@partial(jax.jit, static_argnames="found")
def epoch_order(data_key: jax.Array, epoch: int | jax.Array, found: Streams) -> Any:
    """Which rows the steps of one epoch see: `[steps, batch_size]` int32, in the tree of the batch size.

    The main stream is permuted by a draw from `fold_in(data_key, epoch)`, and its last partial batch is dropped. The
    others run through permutations without end, each drawn anew; batches cross their ends, and nothing is dropped, so
    that the numbers of times that two examples were seen differ by one at most.
    """
    steps = found.steps_per_epoch

    def rows(i: int) -> jax.Array:
        size, batch = found.sizes[i], found.batch_sizes[i]
        if i == found.main:
            order = jax.random.permutation(jax.random.fold_in(data_key, epoch), size)
            return order[: steps * batch].reshape(steps, batch).astype(jnp.int32)
        side_key = jax.random.fold_in(data_key, _SIDE - i)
        first = epoch * (steps * batch)
        passes = first // size + jnp.arange(-(-steps * batch // size) + 1)
        orders = jax.vmap(lambda p: jax.random.permutation(jax.random.fold_in(side_key, p), size))(passes)
        within = first % size + jnp.arange(steps * batch)
        return orders.reshape(-1)[within].reshape(steps, batch).astype(jnp.int32)

    return found.structure.unflatten([rows(i) for i in range(len(found.sizes))])


def take(data: Any, rows: Any) -> Any:
    """The examples of those rows, an array or one for each stream."""
    return jax.tree.map(lambda rows, part: jax.tree.map(lambda v: jnp.asarray(v)[rows], part), rows, data)


class Order:
    """Which examples each step of a run sees; the order of the current epoch is kept."""

    def __init__(self, data_key: jax.Array, found: Streams):
        self.data_key, self.found, self.epoch, self.order = data_key, found, -1, None

    def rows(self, step: int) -> Any:
        """`[batch_size]` int32, in the tree of the batch size."""
        epoch, i = divmod(step, self.found.steps_per_epoch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, jax.device_get(epoch_order(self.data_key, epoch, self.found))
        return jax.tree.map(lambda order: order[i], self.order)
