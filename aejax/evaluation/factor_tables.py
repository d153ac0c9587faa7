"""Scores of disentanglement by a table of units against factors: MIG, DCI and SAP.

Factors are integers of few kinds, `[N, K]`. A code is what an encoder without noise returns, of a VAE the posterior
mean. Protocols are those of Locatello et al., "Challenging common assumptions in the unsupervised learning of
disentangled representations" (2019), whose library `disentanglement_lib` is what later figures were made with; each
score says where the paper that it is from has it otherwise.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError, check_count


class DCI(NamedTuple):
    """The scores of a table of importances, and how well the factors are predicted."""

    disentanglement: float  # 1 where each unit serves one factor
    completeness: float  # 1 where each factor is in one unit
    informativeness: float  # accuracy on test codes, mean over factors
    importance: np.ndarray  # [Z, K]


def mig(codes: ArrayLike, factors: ArrayLike, *, num_bins: int = 20) -> float:
    """The mutual information gap: how much more the best unit knows of a factor than the second. The metric `mig`.

    Args:
      codes: `[N, Z]`, Z at least 2. Published: 10,000 draws.
      factors: `[N, K]` integers.
      num_bins: of equal width, from the least to the largest code of a unit.

    Returns:
      The mean over factors of the gap, divided by the entropy of the factor, in [0, 1]. Of codes that know nothing a
      histogram finds about `(num_bins - 1) (values - 1) / (2 N)` nats, nearly the same for all units.

    Raises:
      InputError: codes and factors do not fit, there is one unit, or a factor that never changes.

    Example:
      >>> mig([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [[0], [0], [1], [1]])
      1.0

    Reference: Chen et al., Isolating sources of disentanglement in VAEs (2018), section 4.1. The histogram of codes is
    that of `disentanglement_lib`; the paper takes the information of draws from the posterior.
    """
    information = mutual_information(codes, factors, num_bins=num_bins)
    if len(information) < 2:
        raise InputError("A gap is between the best and the second unit; the codes have one.")
    entropy = np.array([_information(column, column) for column in numbered(factors)])
    return float((top_gaps(information) / entropy).mean())


def mutual_information(codes: ArrayLike, factors: ArrayLike, *, num_bins: int = 20) -> np.ndarray:
    """Of each unit, by its histogram, with each factor: `[N, Z], [N, K] -> [Z, K]` nats.

    Args:
      codes, factors, num_bins: as in `mig`; one unit will do.
    """
    codes, factors = check_factors(codes, factors)
    check_count(num_bins=num_bins)
    columns = numbered(factors)
    binned = (np.digitize(unit, np.histogram_bin_edges(unit, num_bins)[1:-1]) for unit in codes.T)
    return np.array([[_information(unit, column) for column in columns] for unit in binned])


def dci(train_codes: ArrayLike, train_factors: ArrayLike, test_codes: ArrayLike, test_factors: ArrayLike) -> DCI:
    """Disentanglement, completeness and informativeness, by the importances of gradient boosted trees.

    Deterministic, on one core. There are 100 trees for each value of each factor: for the sprites, 10 units and the
    published 10,000 draws that takes minutes.

    Args:
      train_codes: `[N, Z]`, Z at least 2. Published: 10,000 draws.
      train_factors: `[N, K]` integers, K at least 2.
      test_codes: `[M, Z]`. Published: 5,000 draws.
      test_factors: `[M, K]`.

    Returns:
      `DCI`; `importance_scores` says what the first two are.

    Raises:
      InputError: shapes disagree, there is one unit or one factor, or a factor that never changes.

    Reference: Eastwood & Williams, A framework for the quantitative evaluation of disentangled representations (2018),
    section 2. The trees, scikit-learn's with its defaults, are those of `disentanglement_lib`, and so is accuracy for
    informativeness; the paper has lasso and random forests, and the error of prediction.
    """
    extras.need("dci", "sklearn", extra="sklearn")
    from sklearn.ensemble import GradientBoostingClassifier

    train, test = _check_splits(train_codes, train_factors, test_codes, test_factors)
    importance, accuracy = np.empty((train[0].shape[1], train[1].shape[1])), []
    if min(importance.shape) < 2:
        raise InputError(f"{importance.shape[0]} units and {importance.shape[1]} factors; two of each are needed.")
    for k, column in enumerate(train[1].T):
        trees = GradientBoostingClassifier(random_state=0).fit(train[0], column)
        importance[:, k] = np.maximum(trees.feature_importances_, 0)  # but for rounding they are
        accuracy.append(trees.score(test[0], test[1][:, k]))
    return DCI(*importance_scores(importance), float(np.mean(accuracy)), importance)


def importance_scores(importance: ArrayLike) -> tuple[float, float]:
    """Disentanglement and completeness of a table of importances.

    The disentanglement of a unit is 1 less the entropy of its row to the base K, the completeness of a factor 1 less
    that of its column to the base Z. Each is a mean, rows and columns weighted by their share in the sum of the table.

    Args:
      importance: `[Z, K]`, not negative, Z and K at least 2.

    Returns:
      Both in [0, 1], and 0 for a table of zeros.

    Raises:
      InputError: it is no such table.

    Example:
      >>> importance_scores([[1.0, 0.0], [0.0, 1.0]]), importance_scores([[1.0, 1.0], [1.0, 1.0]])
      ((1.0, 1.0), (0.0, 0.0))

    Reference: Eastwood & Williams (2018), section 2.
    """
    table = np.asarray(importance, np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.all(table >= 0):
        raise InputError(f"Importances of shape {table.shape}; [Z, K], at least 2 each and none negative, are wanted.")
    return _concentration(table), _concentration(table.T)


def sap(train_codes: ArrayLike, train_factors: ArrayLike, test_codes: ArrayLike, test_factors: ArrayLike) -> float:
    """How much better the best unit predicts a factor than the second: separated attribute predictability. `sap`.

    The prediction is that of a linear support vector machine on the one unit, each value against the rest; it is scored
    by its accuracy on test codes. A line puts few of many values right, so that a factor with many of them cannot come
    near 1, even where the unit is the factor.

    Args:
      train_codes, train_factors, test_codes, test_factors: as in `dci`; one factor will do.

    Returns:
      The mean over factors, in [0, 1].

    Raises:
      InputError: as in `dci`.

    Reference: Kumar, Sattigeri & Balakrishnan, DIP-VAE (2018), section 3, for discrete factors. The machine is that of
    `disentanglement_lib`: C = 0.01, classes balanced, and no unit left out.
    """
    extras.need("sap", "sklearn", extra="sklearn")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    train, test = _check_splits(train_codes, train_factors, test_codes, test_factors)
    scores = np.empty((train[0].shape[1], train[1].shape[1]))
    if len(scores) < 2:
        raise InputError("A gap is between the best and the second unit; the codes have one.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound on the time is the point
        for z, k in np.ndindex(scores.shape):
            machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            scores[z, k] = machine.fit(train[0][:, [z]], train[1][:, k]).score(test[0][:, [z]], test[1][:, k])
    return float(top_gaps(scores).mean())


def top_gaps(scores: ArrayLike) -> np.ndarray:
    """The largest of each column less the second largest: `[Z, K] -> [K]`, Z at least 2.

    Example:
      >>> top_gaps([[3.0, 1.0], [5.0, 1.0], [1.0, 0.0]]).tolist()
      [2.0, 0.0]
    """
    *_, second, first = np.sort(np.asarray(scores), axis=0)
    return first - second


def check_factors(codes: ArrayLike, factors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Codes as float64 and factors as integers; `InputError` where they are not such, or do not fit."""
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or not codes.size or not factors.size:
        raise InputError(f"Codes {codes.shape} and factors {factors.shape}; wanted are [N, Z] and [N, K], none empty.")
    if not np.isfinite(codes).all():
        raise InputError(f"{int((~np.isfinite(codes).all(axis=1)).sum())} of {len(codes)} codes are not finite.")
    if factors.dtype.kind not in "bui":
        raise InputError(f"Factors have dtype {factors.dtype}; integers are wanted. Cut them into few kinds.")
    constant = np.flatnonzero((factors == factors[0]).all(axis=0))
    if constant.size:
        raise InputError(f"Factors {constant.tolist()}, counted from 0, have one value each; leave them out.")
    return codes, factors


def numbered(factors: ArrayLike) -> list[np.ndarray]:
    """Each factor by itself, its values numbered from 0."""
    return [np.unique(column, return_inverse=True)[1] for column in np.asarray(factors).T]


_Split = tuple[np.ndarray, np.ndarray]  # codes and factors


def _check_splits(*arrays: ArrayLike) -> tuple[_Split, _Split]:
    train = check_factors(*arrays[:2])
    test = np.asarray(arrays[2], np.float64), np.asarray(arrays[3])
    if (
        test[0].shape[1:] != train[0].shape[1:]
        or test[1].shape != (len(test[0]), train[1].shape[1])
        or not len(test[0])
    ):
        raise InputError(f"Test codes {test[0].shape} and factors {test[1].shape}; those to train on are"
                         f" {train[0].shape} and {train[1].shape}.")  # fmt: skip
    if not np.isfinite(test[0]).all():
        raise InputError(f"Of {len(test[0])} test codes some are not finite.")
    return train, test


def _information(a: np.ndarray, b: np.ndarray) -> float:
    """The mutual information of two columns of integers from 0 on, in nats; of a column with itself its entropy."""
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / independent[there])).sum())


def _concentration(table: np.ndarray) -> float:
    """1 less the entropy of each row to the base of its length; the mean over rows, weighted by their sums."""
    sums = table.sum(axis=1)
    if not sums.any():
        return 0.0
    shares = table[sums > 0] / sums[sums > 0, None]
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1) / np.log(table.shape[1])
    return float((1 - entropy) @ sums[sums > 0] / sums.sum())
