"""What the labels say of a code: how well a linear model, and a vote of the neighbours, read them off."""

import warnings

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError


def linear_probe(train_z: ArrayLike, train_y: ArrayLike, test_z: ArrayLike, test_y: ArrayLike) -> float:
    """Test accuracy of multinomial logistic regression on standardised codes. The metric `probe_accuracy`.

    L-BFGS with the usual unit ridge, stopped after 100 iterations if it has not converged before, on one core.
    Deterministic.

    Args:
      train_z: `[N, Z]` codes to fit on; their means and deviations standardise the test codes too.
      train_y: `[N]` labels, at least two kinds.
      test_z: `[M, Z]`.
      test_y: `[M]`.

    Returns:
      The share of test codes whose label is right, in [0, 1].

    Raises:
      InputError: shapes disagree, a code is not finite, or there are fewer than two kinds of label.

    Example:
      >>> z = np.array([[-2.0], [-1.0], [1.0], [2.0]])
      >>> linear_probe(z, [0, 0, 1, 1], z, [0, 0, 1, 0])
      0.75
    """
    extras.need("linear_probe", "sklearn", extra="sklearn")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    train_z, train_y, test_z, test_y = _check(train_z, train_y, test_z, test_y)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    # Threads of small products wait for each other by spinning, which is slow beside other work.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound on the time is the point
        probe.fit(train_z, train_y)
    return float(probe.score(test_z, test_y))


def knn(train_z: ArrayLike, train_y: ArrayLike, test_z: ArrayLike, test_y: ArrayLike, *, k: int = 5) -> float:
    """Test accuracy of the vote of the k nearest training codes (Euclidean). `k=5` is the metric `knn5_accuracy`.

    Args:
      train_z, train_y, test_z, test_y: as in `linear_probe`; codes are not standardised.
      k: how many neighbours; at most N.

    Returns:
      The share of test codes whose label is right, in [0, 1].

    Raises:
      InputError: as in `linear_probe`, or k is not between 1 and N.

    Example:
      >>> z = np.array([[-2.0], [-1.0], [1.0], [2.0]])
      >>> knn(z, [0, 0, 1, 1], [[-3.0], [3.0]], [0, 1], k=1)
      1.0
    """
    extras.need("knn", "sklearn", extra="sklearn")
    from sklearn.neighbors import KNeighborsClassifier

    train_z, train_y, test_z, test_y = _check(train_z, train_y, test_z, test_y)
    if not 1 <= k <= len(train_z):
        raise InputError(f"k={k} neighbours among {len(train_z)} training codes; it has to be between 1 and that.")
    return float(KNeighborsClassifier(k).fit(train_z, train_y).score(test_z, test_y))


def _check(train_z: ArrayLike, train_y: ArrayLike, test_z: ArrayLike, test_y: ArrayLike) -> tuple[np.ndarray, ...]:
    arrays = tuple(np.asarray(a) for a in (train_z, train_y, test_z, test_y))
    for what, z, y in (("train", arrays[0], arrays[1]), ("test", arrays[2], arrays[3])):
        if z.ndim != 2 or y.shape != z.shape[:1] or not len(z):
            raise InputError(f"{what}: codes {z.shape} and labels {y.shape}; wanted are [N, Z] and [N], N at least 1.")
        if not np.isfinite(z).all():
            raise InputError(f"{what}: {int((~np.isfinite(z).all(axis=1)).sum())} of {len(z)} codes are not finite.")
    if arrays[0].shape[1] != arrays[2].shape[1]:
        raise InputError(f"Training codes have {arrays[0].shape[1]} dimensions, test codes {arrays[2].shape[1]}.")
    if len(np.unique(arrays[1])) < 2:
        raise InputError("A probe needs at least two kinds of label in the training set.")
    return arrays
