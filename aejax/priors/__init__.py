"""Prior distributions of codes: standard normal, mixtures of Gaussians, the swiss roll, points; and learned ones."""

from collections.abc import Callable
from typing import overload

from aejax.checks import InputError, nearest
from aejax.priors.cloud import PointCloud
from aejax.priors.fixed import ClassAndStyle, GaussianMixture, Prior, StandardNormal, SwissRoll, Uniform
from aejax.priors.learned import FlowPrior, LearnedMixture, LearnedPrior, VampPrior

__all__ = [
    "PRIORS",
    "ClassAndStyle",
    "FlowPrior",
    "GaussianMixture",
    "LearnedMixture",
    "LearnedPrior",
    "PointCloud",
    "Prior",
    "StandardNormal",
    "SwissRoll",
    "Uniform",
    "VampPrior",
    "get",
]

PRIORS: dict[str, Callable[[int], Prior]] = {
    "normal": StandardNormal,
    "uniform": Uniform,
    "mixture": lambda latent_dim: GaussianMixture.ring(),
    "swiss_roll": lambda latent_dim: SwissRoll(),
}


@overload
def get(prior: str | Prior, latent_dim: int) -> Prior: ...
@overload
def get(prior: LearnedPrior, latent_dim: int) -> LearnedPrior: ...
def get(prior: str | Prior | LearnedPrior, latent_dim: int) -> Prior | LearnedPrior:
    """The prior of that name over codes of that size, a `Prior`; priors themselves pass as they are.

    Raises:
      InputError: unknown, or not to be had in this size (`mixture` and `swiss_roll` live in the plane).
    """
    if isinstance(prior, LearnedPrior):
        return prior
    found: Prior
    if isinstance(prior, Prior):
        found = prior
    elif isinstance(prior, str) and prior in PRIORS:
        found = PRIORS[prior](latent_dim)
    elif isinstance(prior, str):
        raise InputError(f"Unknown prior {prior!r}. {nearest(prior, PRIORS, what='priors')}")
    else:
        raise InputError(
            f"The prior is a {type(prior).__name__}; give one of {sorted(PRIORS)}, or one of aejax.priors."
        )
    if found.latent_dim != latent_dim:
        raise InputError(
            f"The prior {prior!r} has {found.latent_dim} dimensions; latent_dim is {latent_dim}: change one."
        )
    return found
