"""What a likelihood is: an object that says what a decoder's output means."""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.precision import sum_event, wide, widen

Array = jax.Array


class Support(NamedTuple):
    """The x that a likelihood is defined for."""

    low: float
    high: float
    step: float | None = None  # x is low, low + step, ... up to high; None: every number between
    missing: bool = False  # whether x may be NaN, which says that it was not observed


@dataclasses.dataclass(frozen=True)
class Likelihood(abc.ABC):
    """p(x | output) with independent components: frozen and hashable, so that a module may have it as a field.

    The first axis of x and of the output is the batch. Where a component of x takes several numbers, the last axis of
    the output holds them in blocks, first numbers first, as `jnp.split` cuts it: `[B, H, W, 2 C]` for means and
    log-variances of `[B, H, W, C]`. All is computed in float32 or wider, half precision included.

    One of your own is a frozen dataclass with `support`, `nll_components`, `mean` and `sample`, and `numbers` where a
    component takes more than one.
    """

    @property
    @abc.abstractmethod
    def support(self) -> Support:
        """The x for which it is defined."""

    @property
    def numbers(self) -> int:
        """How many numbers the decoder returns for each component of x."""
        return 1

    @property
    def own_parameter(self) -> str | None:
        """The lone parameter, a scalar, that the module has to keep and `attach` to the output; None for most."""
        return None

    @property
    def coupled(self) -> bool:
        """Whether the likelihood of an example depends on the others in its batch."""
        return False

    def outputs(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the decoder network returns for an example of that shape.

        Example:
          >>> from aejax.likelihoods import Gaussian
          >>> Gaussian("per_pixel").outputs((8, 8, 3))
          (8, 8, 6)
        """
        return shape if self.numbers == 1 else (*shape[:-1], self.numbers * shape[-1])

    def attach(self, output: Array, parameter: Array) -> Array:
        """What `decode` returns: the network's output together with the module's `own_parameter`."""
        return output

    def nll(self, output: Array, x: Array) -> Array:
        """Negative log-likelihood of x, in nats per example: `-> [B]`.

        Args:
          output: `[B, ...]` float, as `decode` returns it.
          x: `[B, ...]` within `support`.

        Raises:
          AssertionError: the shapes do not belong together.
          InputError: the last axis of the output cannot be divided into blocks.
        """
        return sum_event(self.nll_components(output, x))

    @abc.abstractmethod
    def nll_components(self, output: Array, x: Array) -> Array:
        """Negative log-likelihood of each component, in nats: the shape of x."""

    @abc.abstractmethod
    def mean(self, output: Array) -> Array:
        """x_hat: the mean of x, the shape of x."""

    @abc.abstractmethod
    def sample(self, key: Array, output: Array) -> Array:
        """A draw of x, the shape of x; the key is consumed."""


def blocks(likelihood: Likelihood, output: Array, count: int) -> Array:
    """The output in float32 or wider with its last axis cut into `count` blocks: `[..., count * C] -> [..., count, C]`.

    Raises:
      InputError: the last axis is no multiple of `count`.
    """
    if output.ndim < 2 or output.shape[-1] % count:
        raise InputError(
            f"The decoder returns {output.shape[1:]} for an example; {likelihood} wants {count} numbers for each"
            " component: a last axis that is as many times as long as that of x."
        )
    return widen(output).reshape(*output.shape[:-1], count, -1)


def joined(first: Array, second: Array) -> Array:
    """Two blocks as one output; the second one is broadcast: `[..., C], [] -> [..., 2 C]`."""
    dtype = wide(first.dtype)
    second = jnp.broadcast_to(second.astype(dtype), first.shape)
    return jnp.concatenate([first.astype(dtype), second], axis=-1)
