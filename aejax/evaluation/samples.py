"""What samples are worth beside real examples, in a space of features; no weights of anybody else are needed.

Frechet distance; precision, recall, density and coverage; how sharp images are; and of each sample the nearest training
example, so that memory is seen. Figures compare only in the same features: `classifier_features` is the recipe of this
project, a small classifier trained on the set itself. They are not the published ones, which are of Inception-v3.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from aejax import extras
from aejax.checks import InputError, check_count

_BLOCK = 2**24  # distances that exist at a time


class Manifold(NamedTuple):
    """How two clouds overlap, by balls that reach to the k-th neighbour; they compare at equal numbers and k alone.

    Of N real examples and M samples of the same distribution density has the mean 1, and coverage
    `1 - (N - 1) ... (N - k) / ((N + M - 1) ... (N + M - k))`; precision and recall depend on the dimension too.
    """

    precision: float  # share of samples that lie in the ball of some real example
    recall: float  # share of real examples that lie in the ball of some sample
    density: float  # mean number of real balls that a sample lies in, over k; may exceed 1
    coverage: float  # share of real examples whose ball holds a sample


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """The squared Frechet distance of two Gaussians with the moments of two samples, in squared units of the features.

    `|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))`, in float64, with covariances over n - 1. It is biased upwards for few
    examples: compare at equal numbers, and beside the distance of held-out real ones.

    Args:
      real: `[N, F]`, N at least 2.
      fake: `[M, F]`, M at least 2.

    Raises:
      InputError: no matrices of equal width, too few rows, or values that are not finite.

    Example:
      >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]), 6)
      9.0

    Reference: Heusel et al., "GANs trained by a two time-scale update rule", 2017, equation 6.
    """
    real, fake = _clouds(real, fake)
    gap = real.mean(axis=0) - fake.mean(axis=0)
    # The root's trace is the nuclear norm of the product of the centred samples, without a root of a singular matrix.
    a, b = ((v - v.mean(axis=0)) / np.sqrt(len(v) - 1) for v in (real, fake))
    root = np.linalg.svd(_triangle(a) @ _triangle(b).T, compute_uv=False).sum()
    return float(max(0.0, gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * root))


def manifold(real: ArrayLike, fake: ArrayLike, k: int = 5, *, reach: np.ndarray | None = None) -> Manifold:
    """Precision and recall, density and coverage.

    Args:
      real: `[N, F]`.
      fake: `[M, F]`.
      k: neighbours, the example itself not counted, fewer than N and M. Density and coverage have 5 in their paper,
        precision and recall 3 in theirs.
      reach: `reaches(real, k)`, where several samples are held against the same.

    Raises:
      InputError: as in `frechet_distance`; k is not below both numbers.

    Example:
      >>> manifold([[0.0], [1.0], [10.0], [11.0]], [[0.5], [0.6], [0.7], [99.0]], k=1)
      Manifold(precision=0.75, recall=0.75, density=1.5, coverage=0.5)

    Reference: Kynkaanniemi et al., 2019 (precision, recall); Naeem et al., 2020 (density, coverage).
    """
    real, fake = _clouds(real, fake)
    check_count(k=k)
    if k >= min(len(real), len(fake)):
        raise InputError(f"k is {k}, of {len(real)} real examples and {len(fake)} samples; fewer than both are needed.")
    reach, own = reaches(real, k) if reach is None else reach, reaches(fake, k)
    inside, covered, recalled = [], np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, gaps in _distances(fake, real):
        within = gaps <= reach[None]
        inside.append(within.sum(axis=1))
        covered |= within.any(axis=0)
        recalled |= (gaps <= own[rows, None]).any(axis=0)
    count = np.concatenate(inside)
    return Manifold(float((count > 0).mean()), float(recalled.mean()), float(count.mean() / k), float(covered.mean()))


def reaches(x: ArrayLike, k: int = 5) -> np.ndarray:
    """The distance of each row from its k-th nearest other: `[N, F] -> [N]`, of k below N.

    Example:
      >>> reaches([[0.0], [1.0], [3.0]], k=1).tolist()
      [1.0, 1.0, 2.0]
    """
    x, _ = _clouds(x, x)
    check_count(k=k)
    if k >= len(x):
        raise InputError(f"k is {k}, of {len(x)} examples; fewer are needed.")
    return np.concatenate([np.partition(gaps, k, axis=1)[:, k] for _, gaps in _distances(x, x)])


def nearest(samples: ArrayLike, known: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Of each sample the nearest known example: its number, `[M]` int, and its distance, `[M]`.

    Samples that are copies have distances near 0. Means of several examples are nearer than held-out ones are, too.

    Example:
      >>> which, gap = nearest([[0.9], [5.0]], [[0.0], [1.0], [7.0]])
      >>> which.tolist(), gap.round(4).tolist()
      ([1, 2], [0.1, 2.0])
    """
    samples, known = _clouds(samples, known, least=1)
    found = [(gaps.argmin(axis=1), gaps.min(axis=1)) for _, gaps in _distances(samples, known)]
    which, gap = (np.concatenate(part) for part in zip(*found, strict=True))
    return which, gap


def mean_distance(x: ArrayLike) -> float:
    """The mean distance between two different rows, `[N, F]`, N at least 2: 0 where all are one point.

    Example:
      >>> mean_distance([[0.0], [0.0], [3.0]])  # 0, 3 and 3
      2.0
    """
    x, _ = _clouds(x, x)
    return float(sum(gaps.sum() for _, gaps in _distances(x, x)) / (len(x) * (len(x) - 1)))


def sharpness(images: ArrayLike) -> float:
    """The share of an image's squared deviation from its mean that is of high frequencies, mean over the images.

    High are those of more than a quarter cycle a pixel along either axis. White noise has about 3/4 if it is
    large, blurred images less than real ones.

    Args:
      images: `[N, H, W]` or `[N, H, W, C]`, H and W at least 4. A constant image counts as 0.

    Raises:
      InputError: another shape.

    Example:
      >>> board = np.indices((8, 8)).sum(axis=0) % 2
      >>> sharpness(board[None]), sharpness(np.ones((1, 8, 8)))
      (1.0, 0.0)
    """
    x = _finite(images, "The images hold")
    if x.ndim not in (3, 4) or min(x.shape[1:3]) < 4 or not len(x):
        raise InputError(f"The images have shape {x.shape}; [N, H, W] or [N, H, W, C] of 4 pixels and more are wanted.")
    power = np.square(np.abs(np.fft.fft2(x, axes=(1, 2)))).reshape(*x.shape[:3], -1).sum(axis=3)
    power[:, 0, 0] = 0
    down, across = (np.abs(np.fft.fftfreq(n)) for n in x.shape[1:3])
    high = np.maximum(down[:, None], across[None])
    total = power.sum(axis=(1, 2))
    floor = 1e-20 * np.square(x).reshape(len(x), -1).sum(axis=1)  # what rounding leaves of a constant image
    share = power[:, high > 0.25].sum(axis=1) / np.where(total > floor, total, 1.0)
    return float(np.where(total > floor, share, 0.0).mean())


def classifier_features(
    x: ArrayLike, y: ArrayLike, *, width: int = 128, seed: int = 0
) -> Callable[[ArrayLike], np.ndarray]:
    """Features of the project's own recipe: the hidden layer of a classifier that is trained on the set itself.

    scikit-learn's `MLPClassifier` with one layer of ReLU units, Adam, batches of 200, until ten passes without gain on
    a held-out tenth, at most 100; the seed fixes it.

    Args:
      x: `[N, ...]`, flattened.
      y: `[N]` integers.
      width: F.
      seed: of its start, its batches and its tenth.

    Returns:
      A function `[M, ...] -> [M, F]` float64.

    Raises:
      InputError: scikit-learn is not installed, or what `check_classes` refuses.
    """
    extras.need("The features of a classifier", "sklearn", extra="sklearn")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    flat = _flat(x)
    check_classes(y, len(flat))
    net = MLPClassifier((width,), early_stopping=True, max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(flat, np.asarray(y))
    kernel, bias = net.coefs_[0], net.intercepts_[0]
    return lambda images: np.maximum(_flat(images) @ kernel + bias, 0)


def check_classes(y: ArrayLike, count: int) -> None:
    """Refuses labels that such a classifier cannot learn: not one for each example, no integers, too few of a class."""
    y = np.asarray(y)
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise InputError(
            f"y has shape {y.shape} and dtype {y.dtype}; one integer for each of the {count} examples is wanted."
        )
    classes, sizes = np.unique(y, return_counts=True)
    if len(classes) < 2 or sizes.min() < 2 or count < 10 * len(classes):
        raise InputError(
            f"The {count} labels are of {len(classes)} classes, the smallest of {sizes.min()}; wanted are two classes"
            " or more of two examples each, and ten examples for each class on average."
        )


def _finite(x: ArrayLike, what: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all():
        raise InputError(f"{what} values that are not finite real numbers; take those examples out, or mend the model.")
    return x.astype(np.float64)


def _flat(x: ArrayLike) -> np.ndarray:
    x = _finite(x, "The examples hold")
    return x.reshape(len(x), -1)


def _clouds(real: ArrayLike, fake: ArrayLike, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    real, fake = _finite(real, "The first cloud holds"), _finite(fake, "The second cloud holds")
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or min(len(real), len(fake)) < least:
        raise InputError(
            f"The two clouds have shapes {real.shape} and {fake.shape}; [N, F] and [M, F] of the same F are wanted, of"
            f" {least} rows and more."
        )
    return real, fake


def _triangle(v: np.ndarray) -> np.ndarray:
    """R of `v = Q R`, of which `R'R` is the covariance."""
    return np.linalg.qr(v).R


def _distances(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Of slices of rows of a their distances from all of b: `(slice, [n, N])`.

    By a matrix product about the mean of b; below a millionth of the size of the two points a distance is 0.
    """
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    of_a, of_b = (np.square(v).sum(axis=1) for v in (a, b))
    size = max(1, _BLOCK // len(b))
    for start in range(0, len(a), size):
        rows = slice(start, start + size)
        sq = a[rows] @ b.T
        sq *= -2
        sq += of_a[rows, None]
        sq += of_b[None]
        sq[sq < 1e-12 * (of_a[rows, None] + of_b[None])] = 0
        yield rows, np.sqrt(sq, out=sq)
