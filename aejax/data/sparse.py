"""Sparse rows: a table of which most is not there, kept as what is there, and made dense batch by batch.

`Dense` is a transform of batches (`aejax.algorithm.transform_batch`), so it is part of the compiled step: the whole
table lies on the device as rows of columns and values, and only a batch of it is dense at a time.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.checks import InputError
from aejax.data import Batch


class Rows(NamedTuple):
    """The entries of each row, which are as many as the longest row has; the rest is padding, of the column -1."""

    columns: Any  # [N, L] int32; -1 where there is nothing
    values: Any  # [N, L] float32; ignored there


def rows(row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int]) -> Rows:
    """The rows of a table whose entries are listed.

    Args:
      row, column: `[R]` integers, from 0 on; no entry twice.
      value: `[R]` float.
      shape: numbers of rows and of columns.

    Returns:
      `Rows` of NumPy arrays, the columns of each ascending; at least one place a row.

    Raises:
      InputError: arrays of different lengths, an entry outside of the table, or one that is there twice.

    Example:
      >>> found = rows(np.array([1, 0, 1]), np.array([2, 0, 1]), np.array([5.0, 3.0, 4.0]), (2, 3))
      >>> found.columns.tolist(), found.values.tolist()
      ([[0, -1], [1, 2]], [[3.0, 0.0], [4.0, 5.0]])
    """
    row, column, value = np.asarray(row), np.asarray(column), np.asarray(value)
    if not row.shape == column.shape == value.shape or row.ndim != 1:
        raise InputError(f"row, column and value have shapes {row.shape}, {column.shape}, {value.shape}; [R] each.")
    for name, index, size in (("row", row, shape[0]), ("column", column, shape[1])):
        if index.size and not (index.min() >= 0 and index.max() < size):
            raise InputError(f"{name} goes from {index.min()} to {index.max()}; the table {shape} has 0 to {size - 1}.")
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    twice = np.flatnonzero((row[1:] == row[:-1]) & (column[1:] == column[:-1]))
    if twice.size:
        raise InputError(f"The entry of row {row[twice[0]]}, column {column[twice[0]]}, is there twice.")
    lengths = np.bincount(row, minlength=shape[0])
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    longest = max(1, int(lengths.max(initial=0)))
    columns, values = np.full((shape[0], longest), -1, np.int32), np.zeros((shape[0], longest), np.float32)
    columns[row, place], values[row, place] = column, value[order]
    return Rows(columns, values)


@dataclasses.dataclass(frozen=True)
class Dense:
    """A transform of batches: `(key, Rows) -> Batch(x [B, num_columns])`; the key is not used.

    Attributes:
      num_columns: of the table.
      absent: what stands where there is no entry: 0, or NaN for what was not observed.

    Example:
      >>> some = Rows(jnp.array([[0, -1], [1, 2]]), jnp.array([[3.0, 9.0], [4.0, 5.0]]))
      >>> Dense(3)(jax.random.key(0), some).x.tolist()
      [[3.0, 0.0, 0.0], [0.0, 4.0, 5.0]]
    """

    num_columns: int
    absent: float = 0.0

    def __call__(self, key: jax.Array, batch: Rows) -> Batch:
        columns, values = batch
        columns = jnp.where(columns < 0, self.num_columns, columns)  # beyond the end, where a scatter drops them
        empty = jnp.full((len(columns), self.num_columns), self.absent, jnp.asarray(values).dtype)
        return Batch(empty.at[jnp.arange(len(columns))[:, None], columns].set(values, mode="drop"))

    def check(self, data: Any) -> None:
        """Refuses what is no `Rows`, or has columns that the table lacks; traced ones pass, they have no value yet."""
        if not isinstance(data, Rows):
            raise InputError(f"The data are a {type(data).__name__}; sparse.Rows are wanted, as `sparse.rows` makes.")
        if isinstance(data.columns, jax.core.Tracer):
            return
        if (last := int(np.max(data.columns))) >= self.num_columns:
            raise InputError(f"The rows have a column {last}; the table has {self.num_columns}, numbered from 0.")
