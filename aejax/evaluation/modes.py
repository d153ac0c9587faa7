"""How many modes of a distribution a generator finds, where the distribution is known: mixtures of Gaussians."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aejax.priors import GaussianMixture
from aejax.priors.points import check_points, per_component

_DEVIATIONS = 3.0  # from a mode, up to which a sample is of it

RING = GaussianMixture.ring(8, 2.0, 0.02, 0.02)
"""Eight modes on a circle of radius 2, 76 of their deviations apart."""


def _grid(across: tuple[float, ...], deviation: float) -> GaussianMixture:
    means = tuple((a, b) for a in across for b in across)
    variance = deviation**2
    return GaussianMixture((1.0,) * len(means), means, (((variance, 0.0), (0.0, variance)),) * len(means))


GRID = _grid((-4.0, -2.0, 0.0, 2.0, 4.0), 0.05)
"""Five times five modes, 40 of their deviations apart."""


class ModeCoverage(NamedTuple):
    """What samples have of a mixture."""

    modes: jax.Array  # () int, those with a sample within three deviations
    high_quality: jax.Array  # () the share of samples that are within three deviations of the nearest mode
    assigned: jax.Array  # () int, modes that are the nearest of a sample, however far that is


@partial(jax.jit, static_argnames=("mixture",))
def mode_coverage(x: jax.Array, *, mixture: GaussianMixture) -> ModeCoverage:
    """Which modes of a mixture samples are of, and how many of the samples are of any.

    A sample is of the nearest mode, if it is within three deviations of it; distances are in deviations of the mode,
    whatever its covariance. Of the mixture itself 98.9 % of samples are so in the plane, 1 - exp(-9/2). A
    mode counts from one sample on, so that the more samples there are the more modes are found: compare equal numbers.
    `assigned` has no edge at three deviations, as in the experiment of Dumoulin et al. (2017): samples far from all
    modes are of the nearest one. By responsibilities, as there, it is the same where weights and covariances are equal.

    Args:
      x: `[N, Z]`.
      mixture: static; such as `RING` and `GRID`, whose `sample(key, n)` draws the data to be learnt.

    Returns:
      The numbers of modes, from 0 to all, and the share of samples, from 0 to 1.

    Example:
      >>> found = mode_coverage(jnp.array([[2.0, 0.0], [2.05, 0.0], [-1.0, 0.0]]), mixture=RING)
      >>> int(found.modes), round(float(found.high_quality), 3)
      (1, 0.667)

    Reference: Srivastava et al., VEEGAN (2017), for both numbers; the sizes of the mixtures differ from paper to paper.
    """
    check_points(x, mixture.latent_dim)
    scales = np.linalg.inv(np.linalg.cholesky(np.asarray(mixture.covariances, np.float64)))
    offsets = per_component(x, np.asarray(mixture.means))
    whitened = jnp.einsum("kij,nkj->nki", jnp.asarray(scales, offsets.dtype), offsets, precision="highest")
    sq = jnp.square(whitened).sum(axis=-1)
    near, nearest = sq.min(axis=1) <= _DEVIATIONS**2, sq.argmin(axis=1)
    found = lambda of: jnp.zeros(len(mixture.means), bool).at[nearest].max(of).sum()
    return ModeCoverage(found(near), near.mean(), found(jnp.isfinite(sq).all(axis=1)))
