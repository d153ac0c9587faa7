"""Data of which some are missing: a component that is NaN was not observed."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.likelihoods.base import Likelihood, Support
from aejax.likelihoods.continuous import Gaussian
from aejax.likelihoods.counts import Multinomial

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Observed(Likelihood):
    """Another likelihood of the components that were observed; the others, NaN in x, say nothing.

    Where x is NaN the negative log-likelihood is zero, and so is its gradient, whatever the decoder returns there.

    Attributes:
      likelihood: of an observed component; not one that goes by the whole batch.

    Raises:
      InputError: a likelihood that goes by the whole batch, or whose components depend on each other, `Multinomial`:
        it would have to know the missing ones.

    Example:
      >>> x = jnp.array([[1.0, jnp.nan]])
      >>> round(float(Observed(Gaussian(0.5 / math.pi)).nll(jnp.array([[3.0, 8.0]]), x)[0]), 2)  # 4 pi
      12.57
    """

    likelihood: Likelihood = Gaussian()

    def __post_init__(self) -> None:
        own = self.likelihood
        if not isinstance(own, Likelihood) or own.coupled or isinstance(own, Multinomial):
            raise InputError(
                f"Observed takes a likelihood whose components are independent, such as Gaussian(); got"
                f" {self.likelihood!r}."
            )

    @property
    def support(self) -> Support:
        return self.likelihood.support._replace(missing=True)

    @property
    def numbers(self) -> int:
        return self.likelihood.numbers

    @property
    def own_parameter(self) -> str | None:
        return self.likelihood.own_parameter

    def attach(self, output: Array, parameter: Array) -> Array:
        return self.likelihood.attach(output, parameter)

    def nll_components(self, output: Array, x: Array) -> Array:
        is_missing = jnp.isnan(x)
        low = self.support.low
        # A value that is allowed, whatever it is, since the gradient of what is not chosen would be NaN at NaN.
        filled = jnp.where(is_missing, low if math.isfinite(low) else 0.0, x)
        nats = self.likelihood.nll_components(output, filled)
        return jnp.where(is_missing, 0.0, nats)

    def mean(self, output: Array) -> Array:
        """The mean of every component, observed or not."""
        return self.likelihood.mean(output)

    def sample(self, key: Array, output: Array) -> Array:
        """A draw of every component, observed or not; the key is consumed."""
        return self.likelihood.sample(key, output)
