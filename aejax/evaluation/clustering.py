"""What a clustering is worth against labels that it did not see, and the k-means that every other one is held against.

None of the scores changes where clusters or labels are numbered otherwise.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError, check_count


class Clustering(NamedTuple):
    """Scores of a clustering against labels; all are 1 where the two are the same but for their numbers."""

    cluster_accuracy: float  # share of examples whose cluster stands for their label, clusters and labels being paired
    nmi: float  # mutual information over the mean of the two entropies
    ari: float  # adjusted Rand index: pairs that are together in both or in neither; 0 on average at random


def matched(y: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    """The label that the cluster of each example stands for: `[N], [N] -> [N]` int64, by the best one-to-one pairing.

    Clusters and labels are paired so that most examples agree (the Hungarian algorithm, by scipy). A cluster that is
    left without a label, where there are more clusters than labels, has -1.

    Args:
      y: `[N]` integers, any from 0 up.
      clusters: `[N]` integers, any.

    Raises:
      InputError: shapes disagree or are no vectors, values are no integers, there are none, or a label is below 0.

    Example:
      >>> matched([0, 0, 1, 1, 1], [7, 7, 3, 3, 5]).tolist()
      [0, 0, 1, 1, -1]

    Reference: Xie, Girshick & Farhadi (2016) for the score, Kuhn (1955) for the pairing.
    """
    from scipy.optimize import linear_sum_assignment

    y, clusters = _check(y, clusters)
    labels, own = np.unique(y, return_inverse=True)
    names, chosen = np.unique(clusters, return_inverse=True)
    together = np.zeros((len(names), len(labels)), np.int64)
    np.add.at(together, (chosen, own), 1)
    rows, columns = linear_sum_assignment(together, maximize=True)
    stands_for = np.full(len(names), -1, np.int64)
    stands_for[rows] = labels[columns]
    return stands_for[chosen]


def typical_labels(y: ArrayLike, shares: ArrayLike) -> np.ndarray:
    """The label of each cluster's most typical member: `[N], [N, K] -> [K]`, which all of the cluster then take.

    Several clusters may take one label, so more clusters than labels flatter the score; it does not compare with
    `cluster_scores`, which pairs them one to one.

    Args:
      y: `[N]` integers, any from 0 up, of examples that the clusters may be named by.
      shares: `[N, K]`, how typical each is of each cluster, such as log q(cluster|x); shares near 1 round to ties, of
        which the first counts.

    Raises:
      InputError: shapes disagree, there are none, a share is not finite, or labels are no integers from 0 up.

    Example:
      >>> typical_labels([7, 7, 4], [[0.9, 0.1, 0.0], [0.5, 0.2, 0.3], [0.2, 0.7, 0.1]]).tolist()
      [7, 4, 7]

    Reference: Makhzani et al., "Adversarial autoencoders", 2015, section 6.
    """
    y, shares = np.asarray(y), np.asarray(shares)
    if shares.ndim != 2 or not shares.size or not np.isfinite(shares).all():
        raise InputError(f"The shares are an array {shares.shape}; finite numbers [N, K] are wanted, of at least one.")
    y, _ = _check(y, np.zeros(len(shares), int))
    return y[shares.argmax(axis=0)]


def cluster_scores(y: ArrayLike, clusters: ArrayLike) -> Clustering:
    """Accuracy by the best pairing, normalised mutual information and adjusted Rand index.

    Args:
      y, clusters: as of `matched`.

    Example:
      >>> cluster_scores([0, 0, 1, 1], [1, 1, 0, 0])
      Clustering(cluster_accuracy=1.0, nmi=1.0, ari=1.0)

    Reference: Hubert & Arabie (1985) for the adjusted index; the last two are computed by scikit-learn, whose mean of
    the entropies is the arithmetic one.
    """
    extras.need("cluster_scores", "sklearn", extra="sklearn")
    from sklearn import metrics

    y, clusters = _check(y, clusters)
    return Clustering(
        float(np.mean(matched(y, clusters) == y)),
        float(metrics.normalized_mutual_info_score(y, clusters)),
        float(metrics.adjusted_rand_score(y, clusters)),
    )


class KMeans(NamedTuple):
    """The best of several runs."""

    clusters: np.ndarray  # [N] int32
    centres: np.ndarray  # [K, Z]


def k_means(z: ArrayLike, num_clusters: int, *, num_starts: int = 20, seed: int = 0) -> KMeans:
    """Lloyd's algorithm from several starts by k-means++, the one of least inertia, by scikit-learn on one core.

    Args:
      z: `[N, ...]` codes, or data.
      num_clusters: K, N at most.
      num_starts: how many; a single one moves results as much as a method does, so say it beside a figure.
      seed: of the starts.

    Raises:
      InputError: a number is not finite, a count is below 1, or there are more clusters than codes.

    Example:
      >>> found = k_means([[0.0], [1.0], [8.0], [9.0]], 2)
      >>> sorted(found.centres.ravel().tolist()), len(set(found.clusters[:2].tolist()))
      ([0.5, 8.5], 1)
    """
    extras.need("k_means", "sklearn", extra="sklearn")
    from sklearn import cluster
    from threadpoolctl import threadpool_limits

    z = np.asarray(z)
    z = z.reshape(len(z), -1)
    check_count(num_clusters=num_clusters, num_starts=num_starts)
    if not np.isfinite(z).all():
        raise InputError(f"{int((~np.isfinite(z).all(axis=1)).sum())} of {len(z)} codes are not finite.")
    if len(z) < num_clusters:
        raise InputError(f"num_clusters={num_clusters} of {len(z)} codes; there are as many clusters at most.")
    with threadpool_limits(1):
        found = cluster.KMeans(num_clusters, n_init=num_starts, random_state=seed).fit(z)
    return KMeans(found.labels_, found.cluster_centers_)


def _check(y: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, clusters = np.asarray(y), np.asarray(clusters)
    if y.ndim != 1 or y.shape != clusters.shape or not len(y):
        raise InputError(f"Labels {y.shape} and clusters {clusters.shape}; both are [N], N at least 1.")
    if y.dtype.kind not in "iu" or clusters.dtype.kind not in "iu":
        raise InputError(f"Labels of {y.dtype} and clusters of {clusters.dtype}; both are integers.")
    if y.min() < 0:
        raise InputError(f"The lowest label is {y.min()}; labels are from 0 up, and examples without one are left out.")
    return y, clusters
