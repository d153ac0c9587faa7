"""Gated convolutions that see, of an image, only what comes before a place: the network of a PixelCNN.

Places come row by row, from the left, and the channels of a place one after the other. One stack of layers sees the
rows above, all columns of them; the other the places to the left in the row itself, and what the first has made of the
rows above. So nothing that comes before is left out, as it is by one stack of masked squares, and nothing else is seen.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax import likelihoods
from aejax.checks import InputError
from aejax.nets.conv import conv, in_chunks
from aejax.nets.masked import MaskedDense, as_names, each, mask

Array = jax.Array
Emit = Callable[[Array, Array], Array]


def spread(width: int, channels: int) -> tuple[int, ...]:
    """To which channel each of `width` features belongs: evenly, so that features of channel c see channels up to c.

    Raises:
      InputError: there are fewer features than channels.

    Example:
      >>> spread(6, 3)
      (0, 0, 1, 1, 2, 2)
    """
    if width < channels:
        raise InputError(f"A layer has {width} features for {channels} channels; give at least one to each channel.")
    return tuple(k * channels // width for k in range(width))


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Attributes:
      in_degrees: the channel of each feature that comes in.
      degrees: of each that it returns.
      reach: rows and columns that it sees on each side; the kernel of the paper has `2 reach + 1`.
      is_first: whether it sees the image itself, and so must not see the component that it stands for.
      context_dim: numbers told for each place beside the image; 0 for none.
      implementation: as in the function `conv`.

    Call: `above [B, H, W, I], before [B, H, W, I], context [B, H, W, N] -> [B, H, W, F], [B, H, W, F]`.

    Reference: figure 2, and equation 4 where there is a context; the vertical stack goes to the horizontal one before
    its gate, as there. Departures: the first layer of the vertical stack sees only rows above its own, and so does the
    whole stack, where the paper shifts what the stack returns; the context reaches the horizontal stack by the
    vertical one.
    """

    in_degrees: tuple[int, ...]
    degrees: tuple[int, ...]
    reach: int
    is_first: bool = False
    context_dim: int = 0
    implementation: str = "auto"

    def setup(self) -> None:
        size, width, init = len(self.in_degrees), len(self.degrees), nn.initializers.lecun_normal()
        rows = self.reach + (not self.is_first)
        self.above = self.param("above", init, (rows, 2 * self.reach + 1, size, 2 * width))
        self.above_bias = self.param("above_bias", nn.initializers.zeros, (2 * width,))
        self.before = self.param("before", init, (1, self.reach + 1, size, 2 * width))
        self.across = nn.Dense(2 * width)
        self.last = MaskedDense(self.degrees, self.degrees)
        if self.context_dim:
            self.told = nn.Dense(2 * width, use_bias=False)

    def __call__(self, above: Array, before: Array, context: Array) -> tuple[Array, Array]:
        vertical, across = self.vertical(self.causal(above, self.above, (self.reach, 0)), context)
        seen = self.causal(before, self.masked(), (0, self.reach))
        return vertical, self.horizontal(seen, across, before)

    def causal(self, x: Array, kernel: Array, reach: tuple[int, int]) -> Array:
        """The convolution whose kernel begins so many rows above each place, and so many columns before it."""
        # Padded there, and cut where the kernel of a `SAME` convolution, which begins at half its length, does so.
        (up, left), sizes = reach, zip(kernel.shape[:2], reach, strict=True)
        y = conv(jnp.pad(x, [(0, 0), (up, 0), (left, 0), (0, 0)]), kernel, implementation=self.implementation)
        i, j = ((size - 1) // 2 if n else 0 for size, n in sizes)
        return y[:, i : i + x.shape[1], j : j + x.shape[2]]

    def masked(self) -> Array:
        """The kernel of the horizontal stack, whose last column sees the place itself, lower channels of it."""
        seen = mask(self.in_degrees, 2 * self.degrees, strict=self.is_first)
        return self.before.at[:, -1].multiply(jnp.asarray(seen, self.before.dtype)[None])

    def vertical(self, seen: Array, context: Array) -> tuple[Array, Array]:
        """Of the rows above, through their kernel: what the vertical stack returns, and what the horizontal gets."""
        y = seen + jnp.broadcast_to(self.above_bias, seen.shape)
        if self.context_dim:
            y = y + self.told(context)
        return _gate(y), self.across(y)

    def horizontal(self, seen: Array, across: Array, before: Array) -> Array:
        """Of the row itself, through its kernel: what the horizontal stack returns, beside what came in."""
        y = self.last(_gate(seen + across))
        return y if self.is_first or self.in_degrees != self.degrees else y + before

    def row(self, above: Array, context: Array) -> tuple[Array, Array]:
        """`vertical` of one row, from `above [B, rows, W, I]`, what its kernel sees."""
        (rows, columns), width = self.above.shape[:2], above.shape[2]
        padded = jnp.pad(above, [(0, 0), (0, 0), (self.reach, self.reach), (0, 0)])
        slices = [padded[:, i, j : j + width] for i in range(rows) for j in range(columns)]
        kernel = self.above.reshape(-1, self.above.shape[-1])
        return self.vertical(jnp.concatenate(slices, axis=-1) @ kernel, context)

    def place(self, before: Array, across: Array) -> Array:
        """`horizontal` of one place, from `before [B, reach + 1, I]`, the place itself last: `[B, F]`."""
        kernel = self.masked()
        seen = before.reshape(before.shape[0], -1) @ kernel.reshape(-1, kernel.shape[-1])
        return self.horizontal(seen, across, before[:, -1])


class GatedPixels(nn.Module):
    """Features of each place of an image that have not seen it: of channel c, but lower channels of it.

    Attributes:
      channels: C, of the image.
      code_dim: Z, features that it returns; at least C.
      features: of both stacks behind each layer; at least C. A layer of as many as the one before adds to these.
      kernel_size: odd, at least 3.
      context_dim: numbers told for each place; 0 for none.
      implementation: as in the function `conv`.
      levels: as of `nets.MaskedMLP`, where x holds names, such as tokens.

    Call: `[B, H, W, C]`, and with a context `[B, H, W, N]`, `-> [B, H, W, Z]`, for any H and W.

    Reference: van den Oord et al., "Conditional image generation with PixelCNN decoders", NIPS 2016; two linear maps of
    each place follow the layers (table 1 of van den Oord et al., "Pixel recurrent neural networks", ICML 2016), of
    which this ends with the first.
    """

    channels: int
    code_dim: int
    features: tuple[int, ...] = (32, 32, 32, 32)
    kernel_size: int = 5
    context_dim: int = 0
    implementation: str = "auto"
    levels: int | None = None

    def setup(self) -> None:
        if not self.features or self.kernel_size < 3 or self.kernel_size % 2 == 0:
            raise InputError(
                f"features={self.features} and kernel_size={self.kernel_size}; at least one layer is needed, and an odd"
                " kernel of at least 3."
            )
        degrees = [each(self.channels, self.levels or 1), *(spread(width, self.channels) for width in self.features)]
        self.layers = [
            GatedLayer(seen, own, self.kernel_size // 2, i == 0, self.context_dim, self.implementation)
            for i, (seen, own) in enumerate(pairwise(degrees))
        ]
        self.last = MaskedDense(degrees[-1], spread(self.code_dim, self.channels))

    def __call__(self, x: Array, *context: Array) -> Array:
        if x.ndim != 4 or x.shape[3] != self.channels:
            raise InputError(f"Images `[B, H, W, {self.channels}]` are needed; what came has the shape {x.shape}.")
        x = jnp.concatenate([x, *context], axis=-1)
        return in_chunks(GatedPixels._convolve, self, x, x.shape[1] * x.shape[2], self.implementation)

    def _convolve(self, x: Array) -> Array:
        x, context = x[..., : self.channels], x[..., self.channels :]
        above = before = as_names(x, self.levels)
        for layer in self.layers:
            above, before = layer(above, before, context)
        return self.code(before)

    def code(self, before: Array) -> Array:
        """The map behind the layers, `[..., F] -> [..., Z]`."""
        return self.last(nn.relu(before))

    def row(self, above: tuple[Array, ...], context: Array) -> tuple[tuple[Array, ...], list[Array]]:
        """The vertical stack of the next row, from what each layer has seen of the rows before.

        Args:
          above: for each layer `[B, reach, W, I]`, what came in for the last rows.
          context: `[B, W, N]`.

        Returns:
          `above` of the row after, but for the image itself; and what each layer adds to this row, `[B, W, 2 F]`.
        """
        seen, found, across = above[0], [above[0]], []
        for i, layer in enumerate(self.layers):
            vertical, own = layer.row(seen, context)
            across.append(own)
            if i + 1 < len(above):
                seen = jnp.concatenate([above[i + 1], vertical[:, None]], axis=1)
                found.append(seen[:, 1:])
        return tuple(found), across

    def place(self, before: tuple[Array, ...], across: list[Array]) -> tuple[tuple[Array, ...], Array]:
        """The features of the next place of a row.

        Args:
          before: for each layer `[B, reach, I]`, what came in for the last places; of the first layer one more, the
            place itself as far as it is known.
          across: of `row`, at this place.

        Returns:
          `before` of the place after; and the features, `[B, Z]`.
        """
        seen, found = before[0], [before[0][:, 1:]]
        for i, (layer, own) in enumerate(zip(self.layers, across, strict=True)):
            horizontal = layer.place(seen, own)
            if i + 1 < len(before):
                seen = jnp.concatenate([before[i + 1], horizontal[:, None]], axis=1)
                found.append(seen[:, 1:])
        return tuple(found), self.code(horizontal)


class PixelHead(nn.Module):
    """What a likelihood takes, from the features of a place: of channel c those of channels up to c.

    Attributes:
      channels: C.
      numbers: that the likelihood takes for each.

    Call: `[..., Z] -> [..., numbers * C]`, first numbers first.
    """

    channels: int
    numbers: int

    @classmethod
    def of(cls, channels: int, likelihood: str | likelihoods.Likelihood) -> Self:
        """The head for a likelihood."""
        return cls(channels, likelihoods.get(likelihood).numbers)

    @nn.compact
    def __call__(self, z: Array) -> Array:
        seen = spread(z.shape[-1], self.channels)
        return MaskedDense(seen, tuple(range(self.channels)) * self.numbers, name="dense")(nn.relu(z))


def draw(network: GatedPixels, variables: Any, emit: Emit, key: Array, shape: tuple[int, ...], context: Array) -> Array:
    """Draws images, row by row and place by place, each layer at each place once for each channel.

    What a place adds to later ones is kept, so all images cost about what one pass through the network costs for each
    channel, where drawing each component by a pass of its own takes `H W` times as much.

    Args:
      network: whose features tell the next component.
      variables: of the network.
      emit: a draw of a place, all channels, `[n, C]`, from a key and the features of the place, `[n, Z]`.
      key: consumed.
      shape: `(n, H, W, C)`.
      context: `[n, H, W, N]`, of no numbers where the network takes none.

    Returns:
      `[n, H, W, C]`.
    """
    keys = jax.random.split(key, shape[1:])
    row = lambda above, told: draw_row(network, variables, emit, above, *told)
    _, rows = jax.lax.scan(row, blank(network, shape), (keys, jnp.moveaxis(context, 1, 0)))
    return jnp.moveaxis(rows, 0, 1)


def blank(network: GatedPixels, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """What the layers have seen above the first row: nothing, `[n, reach, W, I]` each."""
    n, _, width, channels = shape
    sizes = (channels * (network.levels or 1), *network.features[:-1])
    return tuple(jnp.zeros((n, network.kernel_size // 2, width, size)) for size in sizes)


def draw_row(
    network: GatedPixels, variables: Any, emit: Emit, above: tuple[Array, ...], keys: Array, context: Array
) -> tuple[tuple[Array, ...], Array]:
    """Draws the next row: what the layers have seen above the one after, and the row, `[n, W, C]`.

    Args:
      network, variables, emit: as of `draw`.
      above: of `blank`, or of the row before.
      keys: `[W, C]`, consumed.
      context: `[n, W, N]`.
    """
    found: Any = network.apply(variables, above, context, method="row")
    known, across = found
    before = tuple(jnp.zeros_like(level[:, :, 0]) for level in above)
    place = lambda before, told: draw_place(network, variables, emit, before, *told)
    _, places = jax.lax.scan(place, before, (keys, [jnp.moveaxis(own, 1, 0) for own in across]))
    row = jnp.moveaxis(places, 0, 1)
    seen = as_names(row, network.levels)[:, None]
    return (jnp.concatenate([above[0], seen], axis=1)[:, 1:], *known[1:]), row


def draw_place(
    network: GatedPixels, variables: Any, emit: Emit, before: tuple[Array, ...], keys: Array, across: list[Array]
) -> tuple[tuple[Array, ...], Array]:
    """Draws the next place of a row: what the layers have seen before the one after, and the place, `[n, C]`."""
    x, known = jnp.zeros((len(before[0]), network.channels), before[0].dtype), before
    with_own = lambda x: jnp.concatenate([before[0], as_names(x, network.levels)[:, None]], axis=1)
    for channel in range(network.channels):
        seen = with_own(x)
        found: Any = network.apply(variables, (seen, *before[1:]), across, method="place")
        known, z = found
        x = x.at[:, channel].set(emit(keys[channel], z)[:, channel])
    return (with_own(x)[:, 1:], *known[1:]), x


def draw_saying(
    network: GatedPixels,
    variables: Any,
    emit: Emit,
    key: Array,
    shape: tuple[int, ...],
    context: Array,
    say: Callable[[str], None],
) -> np.ndarray:
    """`draw`, with the same bits, a compiled row at a time, so that `say` tells how far it is; on the host."""
    step = jax.jit(lambda above, keys, told: draw_row(network, variables, emit, above, keys, told))
    above, rows = blank(network, shape), []
    for i, keys in enumerate(jax.random.split(key, shape[1:])):
        above, row = step(above, keys, context[:, i])
        rows.append(np.asarray(row))
        say(f"sampling: row {i + 1} of {shape[1]}")
    return np.stack(rows, axis=1)


def draw_naively(features: Callable[[Array], Array], emit: Emit, key: Array, shape: tuple[int, ...]) -> Array:
    """Draws component by component, each by a pass through the whole network, whatever that is.

    Args:
      features: `[n, ...] -> [n, H, W, Z]`, of vectors `[n, D, Z]`; of a place they have not seen it.
      emit: as of `draw`; of vectors `[n, 1]`.
      key: consumed.
      shape: `(n, H, W, C)` or `(n, D)`.
    """
    channels = shape[3] if len(shape) == 4 else 1
    places = math.prod(shape[1:]) // channels
    keys = jax.random.split(key, (places, channels))

    def component(i: Array, x: Array) -> Array:
        place, channel = i // channels, i % channels
        z = features(x.reshape(shape)).reshape(shape[0], places, -1)
        z = jax.lax.dynamic_index_in_dim(z, place, axis=1, keepdims=False)
        return x.at[:, place, channel].set(emit(keys[place, channel], z)[:, channel])

    x = jnp.zeros((shape[0], places, channels))
    return jax.lax.fori_loop(0, places * channels, component, x).reshape(shape)


def _gate(y: Array) -> Array:
    """Equation 2: `tanh` of one half of the features times `sigmoid` of the other."""
    first, second = jnp.split(y, 2, axis=-1)
    return jnp.tanh(first) * nn.sigmoid(second)
