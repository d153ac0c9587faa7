"""Scores of disentanglement by images that share a factor, after beta-VAE and FactorVAE; and all five scores at once.

Both take the codes and the factors of a whole set, such as `aejax.data.load_factors` loads, and draw rows among those
that have the same value. Where each combination is there once, that is what a sampler of images with a factor held
fixed does; each image is encoded once, not a hundred times. Codes are those of an encoder without noise, of a VAE the
posterior means.

Sizes are those of `disentanglement_lib`, as in `aejax.evaluation.factor_tables`, where the other scores are. All of
them vary more with the seed of the training than with the method (Locatello et al., 2019): one run says little.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError, check_count
from aejax.evaluation.factor_tables import check_factors, dci, mig, numbered, sap

COLLAPSED = 0.05  # standard deviation below which a unit says nothing
_AT_ONCE = 2**22  # codes that are gathered together, one unit of one image each


def beta_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    key: jax.Array,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_test: int = 5_000,
) -> float:
    """Whether it can be told which factor images share: accuracy of logistic regression. The metric `beta_vae_score`.

    A point is the mean of `|z - z'|` over pairs of images. All pairs of a point share the same factor, drawn at random;
    its value is drawn for each pair, and the other factors are free.

    Args:
      codes: `[N, Z]`, of all images of the set.
      factors: `[N, K]` integers, K at least 2.
      key: consumed.
      batch_size: pairs to a point.
      num_train: points to fit on.
      num_test: points to score on.

    Returns:
      In [0, 1]: 1 where each factor has a unit of its own, 1 / K at random. Codes that mix factors come near 1 too,
      where the pattern of their differences tells which one is shared.

    Raises:
      InputError: codes and factors do not fit, there is one factor, or one that never changes.

    Reference: Higgins et al., beta-VAE (2017), section 3. The linear classifier is, as in `disentanglement_lib`,
    scikit-learn's logistic regression with its unit ridge and at most 100 iterations.
    """
    extras.need("beta_vae_score", "sklearn", extra="sklearn")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    z, kinds = _check(codes, factors, num_train, num_test, batch_size=batch_size)

    def differences(sharing: "_Sharing", count: int, rng: np.random.Generator) -> np.ndarray:
        first = rng.integers(len(z), size=(count, batch_size))
        return np.abs(z[first] - z[sharing.draw(first, rng)]).mean(axis=1)

    train, test = _points(differences, kinds, key, (num_train, num_test), z.shape[1], batch_size)
    classifier = LogisticRegression()
    with warnings.catch_warnings(), threadpool_limits(1):  # as in probes.linear_probe
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train.x, train.shared)
    return float(classifier.score(test.x, test.shared))


def factor_vae_score(
    codes: ArrayLike,
    factors: ArrayLike,
    key: jax.Array,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_test: int = 5_000,
) -> float:
    """Whether the unit that varies least tells which factor is fixed: accuracy of a vote. `factor_vae_score`.

    A point is the number of the unit that varies least over images that share one value of one factor, its variance
    divided by that over the set. Such a number stands for the factor that was fixed most often when it came out. Units
    whose standard deviation over the set is below 0.05 are left out.

    Args:
      codes, factors, key, num_train, num_test: as in `beta_vae_score`.
      batch_size: images to a point, at least 2.

    Returns:
      In [0, 1]: 1 where each factor has a unit of its own, 1 / K at random, 0 where all units are left out.

    Raises:
      InputError: as in `beta_vae_score`.

    Reference: Kim & Mnih, Disentangling by factorising (2018), section 4. The variance over the set is that of all
    images; `disentanglement_lib` has 10,000 draws.
    """
    z, kinds = _check(codes, factors, num_train, num_test, batch_size=batch_size)
    if batch_size == 1:
        raise InputError("batch_size=1; one image has no variance, and at least 2 are needed.")
    deviations = z.std(axis=0)
    z = z[:, deviations >= COLLAPSED] / deviations[deviations >= COLLAPSED]
    if not z.shape[1]:
        return 0.0

    def variances(sharing: "_Sharing", count: int, rng: np.random.Generator) -> np.ndarray:
        like = np.broadcast_to(rng.integers(len(z), size=(count, 1)), (count, batch_size))
        return z[sharing.draw(like, rng)].var(axis=1)

    parts = _points(variances, kinds, key, (num_train, num_test), z.shape[1], batch_size)
    votes, found = np.zeros((2, z.shape[1], kinds.shape[1]), np.int64)
    for table, part in zip((votes, found), parts, strict=True):
        np.add.at(table, (part.x.argmin(axis=1), part.shared), 1)
    return float(found[np.arange(len(votes)), votes.argmax(axis=1)].sum() / num_test)


def disentanglement_scores(
    codes: ArrayLike,
    factors: ArrayLike,
    key: jax.Array,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_test: int = 5_000,
    num_for_trees: int | None = None,
) -> dict[str, float]:
    """All scores of the codes of a whole set.

    MIG sees `num_train` of the images, or all where there are no more; SAP and DCI learn on as many and are tested on
    `num_test` others, or on parts of the set in that proportion. The published draws are with replacement, of sets so
    large that few images come twice; here they would be tested on what they have learned.

    Args:
      codes, factors, key, batch_size, num_train, num_test: as in `beta_vae_score`, of at least two units.
      num_for_trees: DCI, which takes longer than all the rest, learns on the first so many of its images only.

    Returns:
      `beta_vae_score`, `factor_vae_score`, `mig`, `sap`, `dci_disentanglement`, `dci_completeness`,
      `dci_informativeness`.

    Raises:
      InputError: as the scores do.
    """
    z, kinds = _check(codes, factors, num_train, num_test, batch_size=batch_size)
    check_count(num_for_trees=num_train if num_for_trees is None else num_for_trees)
    beta_key, factor_key, rows_key = jax.random.split(key, 3)
    sizes = {"batch_size": batch_size, "num_train": num_train, "num_test": num_test}
    rows = _generator(rows_key).permutation(len(z))
    count = min(num_train, len(rows) * num_train // (num_train + num_test))
    few, train, test = rows[:count][:num_for_trees], rows[:count], rows[count : count + num_test]
    trees = dci(z[few], kinds[few], z[test], kinds[test])
    return {
        "beta_vae_score": beta_vae_score(z, kinds, beta_key, **sizes),
        "factor_vae_score": factor_vae_score(z, kinds, factor_key, **sizes),
        "mig": mig(z[rows[:num_train]], kinds[rows[:num_train]]),
        "sap": sap(z[train], kinds[train], z[test], kinds[test]),
        "dci_disentanglement": trees.disentanglement,
        "dci_completeness": trees.completeness,
        "dci_informativeness": trees.informativeness,
    }


class _Sharing:
    """Draws rows that have the value of others in one factor."""

    def __init__(self, column: np.ndarray):
        self.column, self.order = column, np.argsort(column, kind="stable")
        self.counts = np.bincount(column)
        self.starts = np.cumsum(self.counts) - self.counts

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each row one with the same value, evenly among all of them, itself too; of any shape."""
        values = self.column[rows]
        return self.order[self.starts[values] + rng.integers(self.counts[values])]


class _Part(NamedTuple):
    """Points and which factor each of them shares."""

    x: np.ndarray  # [P, Z]
    shared: np.ndarray  # [P] int


def _points(
    measure: Callable[[_Sharing, int, np.random.Generator], np.ndarray],
    factors: np.ndarray,
    key: jax.Array,
    sizes: tuple[int, int],
    width: int,
    batch_size: int,
) -> list[_Part]:
    """Points to train and to test on, by `measure(sharing, count, rng) -> [count, width]`; the key is consumed."""
    rng, total = _generator(key), sum(sizes)
    shared = rng.integers(factors.shape[1], size=total)
    x = np.empty((total, width))
    for k, column in enumerate(numbered(factors)):
        sharing, rows = _Sharing(column), np.flatnonzero(shared == k)
        for some in np.array_split(rows, 1 + len(rows) * width * batch_size // _AT_ONCE):
            x[some] = measure(sharing, len(some), rng)
    return [_Part(x[some], shared[some]) for some in (slice(sizes[0]), slice(sizes[0], None))]


def _generator(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


def _check(
    codes: ArrayLike, factors: ArrayLike, num_train: int, num_test: int, *, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    check_count(num_train=num_train, num_test=num_test, batch_size=batch_size)
    codes, factors = check_factors(codes, factors)
    if factors.shape[1] < 2:
        raise InputError("Which factor is shared is asked here; there is one factor, and at least two are needed.")
    return codes, factors
