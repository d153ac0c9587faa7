"""Normalising flows: invertible maps of codes whose volume change is known.

A flow is a Linen module: `flow(u, *context) -> (z, log |det dz/du|)`, `[..., Z] -> [..., Z], [...]`, and
`flow.inverse(z, *context) -> (u, log |det du/dz|)`. All here are chains of affine steps, `z = shift + scale * u`
component by component, and start as the identity.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aejax.checks import InputError
from aejax.nets.masked import MaskedMLP
from aejax.precision import sum_last

Array = jax.Array

_LOG_SCALE = 2.0  # a step stretches or shrinks by at most exp of it


class Autoregressive(nn.Module):
    """Steps in which shift and scale of a component depend on the components before it, before the step.

    Forward, all components move at once. The inverse knows a component after those before it, so it takes Z passes
    through the network for each step. Every second step goes through the components from the last to the first.

    Attributes:
      num_steps: how many steps.
      hidden_dims: widths of the hidden layers of the network of a step, a `MaskedMLP`.
      activation: between these.

    Call: `[..., Z]` and contexts `[..., C]` `-> [..., Z], [...]`.

    Reference: Kingma et al., "Improved variational inference with inverse autoregressive flow", NIPS 2016, equation 10.
    Departures: the scale is `exp(2 tanh(a / 2))` of the network's output a, between 1/7.4 and 7.4, and the shift is not
    weighed with it, where algorithm 1 has a sigmoid `s` and `s z + (1 - s) m`, which cannot be the identity.
    """

    num_steps: int = 4
    hidden_dims: tuple[int, ...] = (64,)
    activation: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        self.steps = [MaskedMLP(self.hidden_dims, 2, self.activation, zero_output=True) for _ in range(self.num_steps)]

    def __call__(self, u: Array, *context: Array) -> tuple[Array, Array]:
        z, log_det = u, jnp.zeros_like(u[..., 0])
        for step, backwards in zip(self.steps, _turns(self.num_steps), strict=True):
            z = z[..., ::-1] if backwards else z
            shift, log_scale = _affine(step(z, *context))
            z, log_det = shift + jnp.exp(log_scale) * z, log_det + sum_last(log_scale)
            z = z[..., ::-1] if backwards else z
        return z, log_det

    def inverse(self, z: Array, *context: Array) -> tuple[Array, Array]:
        u, log_det = z, jnp.zeros_like(z[..., 0])
        for step, backwards in reversed(list(zip(self.steps, _turns(self.num_steps), strict=True))):
            moved = u[..., ::-1] if backwards else u
            network, variables = step.unbind()

            def once(found: Array, moved=moved, network=network, variables=variables) -> tuple[Array, Array]:
                shift, log_scale = _affine(network.apply(variables, found, *context))
                return (moved - shift) * jnp.exp(-log_scale), log_scale

            # Pass i is right in the first i components, whatever the others are.
            u = jax.lax.fori_loop(0, z.shape[-1], lambda _, found, once=once: once(found)[0], moved)
            log_det = log_det - sum_last(once(u)[1])
            u = u[..., ::-1] if backwards else u
        return u, log_det


class Couplings(nn.Module):
    """Steps in which every second component stays, and tells shift and scale of the others; the next moves those.

    Both directions take one pass.

    Attributes:
      num_steps: how many steps; two move every component once.
      hidden_dims: widths of the hidden layers of the network of a step.
      activation: between these.

    Call: `[..., Z]`, Z at least 2, and contexts `[..., C]` `-> [..., Z], [...]`.

    Reference: Dinh, Sohl-Dickstein & Bengio, "Density estimation using Real NVP", ICLR 2017, equations 7 and 8. Of one
    scale, without batch normalisation, and with the scale of `Autoregressive`.
    """

    num_steps: int = 6
    hidden_dims: tuple[int, ...] = (64,)
    activation: Callable[[Array], Array] = nn.relu

    def setup(self) -> None:
        self.steps = [_Conditioner(self.hidden_dims, self.activation) for _ in range(self.num_steps)]

    def __call__(self, u: Array, *context: Array) -> tuple[Array, Array]:
        z, log_det = _of_several(u), jnp.zeros_like(u[..., 0])
        for i, step in enumerate(self.steps):
            kept, moved = z[..., i % 2 :: 2], z[..., 1 - i % 2 :: 2]
            shift, log_scale = _affine(step(kept, moved.shape[-1], *context))
            z = z.at[..., 1 - i % 2 :: 2].set(shift + jnp.exp(log_scale) * moved)
            log_det = log_det + sum_last(log_scale)
        return z, log_det

    def inverse(self, z: Array, *context: Array) -> tuple[Array, Array]:
        u, log_det = _of_several(z), jnp.zeros_like(z[..., 0])
        for i, step in reversed(list(enumerate(self.steps))):
            kept, moved = u[..., i % 2 :: 2], u[..., 1 - i % 2 :: 2]
            shift, log_scale = _affine(step(kept, moved.shape[-1], *context))
            u = u.at[..., 1 - i % 2 :: 2].set((moved - shift) * jnp.exp(-log_scale))
            log_det = log_det - sum_last(log_scale)
        return u, log_det


class Rescaled(nn.Module):
    """Another flow, and then `z = shift + exp(log_scale) u`, component by component.

    Attributes:
      flow: the other one.

    Parameters: those of `flow`; `shift` and `log_scale`, `[Z]` each, 0 at the start.

    Call: as of `flow`.
    """

    flow: nn.Module

    @nn.compact
    def __call__(self, u: Array, *context: Array) -> tuple[Array, Array]:
        z, log_det = self.flow(u, *context)
        own = [self.param(name, nn.initializers.zeros, z.shape[-1:]) for name in ("shift", "log_scale")]
        shift, log_scale = (jnp.broadcast_to(v, z.shape) for v in own)
        return shift + jnp.exp(log_scale) * z, log_det + sum_last(log_scale)

    def inverse(self, z: Array, *context: Array) -> tuple[Array, Array]:
        own: list[Array] = [self.get_variable("params", name) for name in ("shift", "log_scale")]
        shift, log_scale = (jnp.broadcast_to(v, z.shape) for v in own)
        u, log_det = self.flow.inverse((z - shift) * jnp.exp(-log_scale), *context)
        return u, log_det - sum_last(log_scale)


class _Conditioner(nn.Module):
    """Dense layers, the last of them zero at the start: `[..., D] -> [..., size, 2]`."""

    hidden_dims: tuple[int, ...]
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, size: int, *context: Array) -> Array:
        x = jnp.concatenate([x, *context], axis=-1)
        for i, width in enumerate(self.hidden_dims):
            x = self.activation(nn.Dense(width, name=f"dense_{i}")(x))
        last = nn.Dense(2 * size, kernel_init=nn.initializers.zeros, name=f"dense_{len(self.hidden_dims)}")
        return last(x).reshape(*x.shape[:-1], size, 2)


def _affine(output: Array) -> tuple[Array, Array]:
    """Shift and log-scale `[..., Z]` from the two numbers that a network has for each component."""
    return output[..., 0], _LOG_SCALE * jnp.tanh(output[..., 1] / _LOG_SCALE)


def _turns(num_steps: int) -> list[bool]:
    """Which steps go backwards."""
    return [i % 2 == 1 for i in range(num_steps)]


def _of_several(z: Array) -> Array:
    if z.shape[-1] < 2:
        raise InputError("A coupling moves some components by the others, so it needs codes of at least 2 numbers.")
    return z
