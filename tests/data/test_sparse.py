"""Sparse rows against SciPy's, and what is refused."""

import jax
import numpy as np
import pytest
import scipy.sparse

from aejax.checks import InputError
from aejax.data import sparse

RNG = np.random.default_rng(0)
TABLE = scipy.sparse.random_array((7, 5), density=0.4, rng=RNG, format="coo")


def listed():
    order = RNG.permutation(TABLE.nnz)
    row, column = TABLE.coords
    return row[order], column[order], TABLE.data[order]


@pytest.mark.parametrize("absent", [0.0, np.nan])
def test_rows_made_dense_are_the_table_of_scipy(absent):
    found = sparse.rows(*listed(), TABLE.shape)
    assert found.columns.shape[1] == np.diff(TABLE.tocsr().indptr).max()
    dense = TABLE.toarray().astype(np.float32)
    wanted = np.where(dense != 0, dense, np.float32(absent))
    transform = sparse.Dense(5, absent)
    whole = jax.jit(transform)(jax.random.key(0), found)
    np.testing.assert_array_equal(whole.x, wanted)
    some = jax.tree.map(lambda leaf: leaf[[4, 1]], found)
    np.testing.assert_array_equal(transform(jax.random.key(0), some).x, wanted[[4, 1]])
    transform.check(found)
    jax.jit(transform.check)(found)  # as in a sweep, where the data are traced


def test_a_table_without_an_entry_has_rows_of_padding():
    empty = np.zeros(0, int)
    found = sparse.rows(empty, empty, empty.astype(float), (2, 3))
    np.testing.assert_array_equal(sparse.Dense(3)(jax.random.key(0), found).x, np.zeros((2, 3)))


def test_what_cannot_be_is_refused():
    row, column, value = listed()
    with pytest.raises(InputError, match="shapes"):
        sparse.rows(row[1:], column, value, TABLE.shape)
    with pytest.raises(InputError, match=r"column goes from 0 to 4; the table \(7, 4\) has 0 to 3"):
        sparse.rows(row, column, value, (7, 4))
    with pytest.raises(InputError, match=r"row 1, column 2, is there twice"):
        sparse.rows(np.array([1, 0, 1]), np.array([2, 0, 2]), np.ones(3), (2, 3))
    found = sparse.rows(row, column, value, TABLE.shape)
    with pytest.raises(InputError, match="have a column 4; the table has 4"):
        sparse.Dense(4).check(found)
    with pytest.raises(InputError, match=r"sparse\.Rows are wanted"):
        sparse.Dense(4).check(TABLE.toarray())
