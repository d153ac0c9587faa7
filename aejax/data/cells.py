"""Cells: counts of genes whose means and dispersions are known, drawn when they are asked for.

Like a set of single cells, and smaller: kinds of cell of unequal size, which differ in a few factors; libraries that
are log-normal; and counts that are negative binomial, each gene with a dispersion of its own.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

_CELLS, _GENES, _FACTORS = 2000, 200, 4
_KINDS = (0.3, 0.25, 0.2, 0.15, 0.1)  # their shares


class Cells(NamedTuple):
    """Counts, and what they were drawn from; all read-only."""

    x: np.ndarray  # [2000, 200] int32: counts of genes in cells
    kind: np.ndarray  # [2000] int32, 0 to 4
    mean: np.ndarray  # [2000, 200] float64, expected counts: the library of the cell, times a share for each gene
    dispersion: np.ndarray  # [200] float64, of each gene: variances are mean + mean^2 / dispersion


@cache
def cells() -> Cells:
    """All of them.

    Example:
      >>> found = cells()
      >>> found.x.shape, bool(0.1 < found.dispersion.min() < found.dispersion.max() < 20)
      ((2000, 200), True)
    """
    rng = np.random.default_rng(0)
    kind = rng.choice(len(_KINDS), _CELLS, p=_KINDS).astype(np.int32)
    factors = rng.normal(0, 1, (len(_KINDS), _FACTORS))[kind] + rng.normal(0, 0.5, (_CELLS, _FACTORS))
    shares = np.exp(rng.normal(0, 1, _GENES) + factors @ rng.normal(0, 0.5, (_FACTORS, _GENES)))
    library = np.exp(rng.normal(np.log(800), 0.4, (_CELLS, 1)))
    mean = library * shares / shares.sum(axis=1, keepdims=True)
    dispersion = np.exp(rng.normal(np.log(1.5), 0.7, _GENES))
    x = rng.poisson(rng.gamma(dispersion, mean / dispersion)).astype(np.int32)
    for array in (x, kind, mean, dispersion):
        array.setflags(write=False)  # for they are kept
    return Cells(x, kind, mean, dispersion)
