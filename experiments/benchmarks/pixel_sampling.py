"""Drawing images pixel by pixel: what earlier pixels have computed kept, against a whole pass for every pixel.

The net is a PixelCNN of 7 gated layers, 32 features each, on binary 28x28 images, untrained: time does not depend on
the weights. `PixelCNN.sample` keeps, `nets.pixels.draw_naively` does not; each is one compiled program. They take turns
in one process; quoted are medians of seconds an image, and medians of the ratios of the rounds. The naive way draws
fewer images at once, for it takes long; beside it stands ours with as few, of which the same key draws the same images.
Operations are the compiler's count for one image, bodies of loops as often as they run.
"""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from aejax.checks import check_count
from aejax.methods.pixel_cnn import PixelCNN, emitter
from aejax.nets import init_params, pixels
from experiments.benchmarks.timing import interleave, machine, ratio

KEPT, FEW, NAIVE = "kept", "kept, as few images at once", "a pass for each pixel"
Draw = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    num_images: int = 100
    """Drawn at once."""
    naive_images: int = 2
    """Drawn at once by a pass for each pixel."""
    rounds: int = 2
    """How often each candidate has its turn."""
    size: int = 28
    """Height and width of the images."""
    features: tuple[int, ...] = (32,) * 7
    """Of both stacks behind each layer."""
    kernel_size: int = 5
    """Of the convolutions; odd."""
    out: Path | None = None
    """Writes the figures as JSON."""


def build(config: Config) -> tuple[PixelCNN, Any]:
    """The model and its parameters."""
    shape = (config.size, config.size, 1)
    model = PixelCNN.conv(shape, config.features[-1], features=config.features, kernel_size=config.kernel_size)
    return model, init_params(model, jax.random.key(0), jnp.zeros((1, *shape)))


def candidates(config: Config) -> tuple[dict[str, Draw], dict[str, int]]:
    """What takes turns, and how many images each draws."""
    model, params = build(config)
    images = {KEPT: config.num_images, FEW: config.naive_images, NAIVE: config.naive_images}

    def kept(n: int) -> Draw:
        draw = jax.jit(lambda params, key: model.apply({"params": params}, key, n, method="sample"))
        return lambda: np.asarray(draw(params, jax.random.key(1)))

    @jax.jit
    def naive(params: Any, key: jax.Array) -> jax.Array:
        variables = {"params": params}
        features: Any = lambda x: model.apply(variables, x, method="encode")
        return pixels.draw_naively(features, emitter(model, variables), key, (config.naive_images, *model.data_shape))

    last = lambda: np.asarray(naive(params, jax.random.key(1)))
    return {KEPT: kept(images[KEPT]), FEW: kept(images[FEW]), NAIVE: last}, images


def flops(config: Config) -> dict[str, float]:
    """Operations for one image: a pass through the network for each pixel; or a row for each row, a place for each."""
    model, params = build(config)
    variables, side = {"params": params}, config.size
    network: Any = model.encoder
    own, emit, key = {"params": params["encoder"]}, emitter(model, variables), jax.random.key(0)
    above = pixels.blank(network, (1, side, side, 1))
    before = tuple(level[:, :, 0] for level in above)
    across = [jnp.zeros((1, 2 * width)) for width in config.features]
    keys, none = jax.random.split(key, (side, 1)), jnp.zeros((1, side, 0))
    a_pass = _count(lambda x: model.apply(variables, x), jnp.zeros((1, *model.data_shape)))
    a_row = _count(lambda *a: pixels.draw_row(network, own, emit, *a), above, keys, none)  # and one place
    a_place = _count(lambda *a: pixels.draw_place(network, own, emit, *a), before, keys[0], across)
    return {KEPT: side * (a_row + (side - 1) * a_place), NAIVE: side**2 * a_pass}


def _count(function: Callable[..., Any], *arguments: Any) -> float:
    costs: Any = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return costs["flops"]


def measure(config: Config) -> dict[str, Any]:
    """Seconds an image: median, least and most; how many times ours the others take, and operations."""
    check_count(**{f"--{name.replace('_', '-')}": getattr(config, name)
                   for name in ("num_images", "naive_images", "rounds", "size")})  # fmt: skip
    calls, images = candidates(config)
    differ = int((calls[FEW]() != calls[NAIVE]()).sum())
    turns = interleave(calls, config.rounds, 0.0)
    each = {name: [1e-3 * ms / images[name] for ms in values] for name, values in turns.items()}
    return {
        "machine": machine(),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "out"},
        "images": images,
        "seconds": {name: [statistics.median(values), min(values), max(values)] for name, values in each.items()},
        "speed": {name: ratio(values, each[KEPT]) for name, values in each.items()},
        "speed_as_few": ratio(each[NAIVE], each[FEW]),
        "flops": flops(config),
        "pixels_that_differ": differ,
    }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments pixel_sampling", description=__doc__)
    console = Console()
    found = measure(config)
    console.print(", ".join(f"{name} {value}" for name, value in found["machine"].items()), highlight=False)
    table = Table("seconds an image", "at once", "median", "least", "most", "times ours", "Gflop an image")
    for name, values in found["seconds"].items():
        operations = f"{1e-9 * found['flops'][name]:,.2f}" if name in found["flops"] else ""
        cells = (f"{value:,.4f}" for value in values)
        table.add_row(name, str(found["images"][name]), *cells, f"{found['speed'][name]:,.1f}", operations)
    console.print(table)
    console.print(f"{found['speed_as_few']:,.1f} times with as few images at once; "
                  f"{found['pixels_that_differ']} pixels of the same key differ.", highlight=False)  # fmt: skip
    if config.out is not None:
        write_json(config.out, found)


if __name__ == "__main__":
    main()
