"""The exact Jacobian penalty against the ways to compute it: time of value and gradient, and memory.

Each table is one run in which the candidates take turns; quoted are medians, and medians of the ratios of the rounds.
PyTorch (`torch.func`) is the extra `peers`; without it its rows are left out. `--curves` adds the cost against input
size, code size, batch and depth, and draws it.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from aejax import jacobian
from aejax.data import Batch
from aejax.jacobian import chain
from aejax.jacobian.segments import trace
from aejax.methods.ae import ae
from aejax.methods.cae import CAE, cae
from aejax.nets import MLP, ConvEncoder, init_params
from experiments.benchmarks.peers import torch_device
from experiments.benchmarks.timing import Candidate, installed, interleave, machine, race, ratio, repeat

MIB = 2**20
DEEP, DEEP_SHAPE = MLP((512, 16), nn.sigmoid, nn.sigmoid), (100, 784)
HOURGLASS = MLP((256, 32, 256, 784), nn.sigmoid)
CONV = ConvEncoder(16, (16, 32, 32), (2, 2, 2))


@dataclasses.dataclass(frozen=True)
class Config:
    rounds: int = 7
    """How often each candidate has its turn."""
    seconds: float = 0.5
    """Length of a turn, about."""
    shapes: int = 30
    """Random encoders on which auto is held against forward and reverse."""
    curves: bool = False
    """Measures the cost curves too, for some minutes, and draws them."""
    only: str | None = None
    """The one case whose title has this in it; the others stay as --out has them."""
    out: Path | None = None
    """Writes the figures as JSON, and the curves beside it as PNG."""


def example(module: nn.Module, shape: tuple[int, ...]) -> tuple[Any, jax.Array]:
    """Parameters, and a batch in [0, 1]."""
    x = jax.random.uniform(jax.random.key(0), shape)
    return jax.jit(module.init)(jax.random.key(1), x[:1])["params"], x


def penalty(module: nn.Module, shape: tuple[int, ...], mode: str, memory_limit: int | None = None) -> Any:
    """Value and gradient of the mean penalty, compiled: `(program, arguments)`."""
    params, x = example(module, shape)

    def mean(params: Any, x: jax.Array) -> jax.Array:
        if mode == "one probe":
            one = lambda key, v: jacobian.hutchinson_sq(lambda v: module.apply({"params": params}, v[None])[0], v, key)
            return jax.vmap(one)(jax.random.split(jax.random.key(2), len(x)), x).value.mean()
        return jacobian.encoder_sq(module, params, x, mode=mode, memory_limit=memory_limit).mean()

    return jax.jit(jax.value_and_grad(mean)).lower(params, x).compile(), (params, x)


def call(program: Any, arguments: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(program(*arguments))


def mebibytes(program: Any) -> float:
    return program.memory_analysis().temp_size_in_bytes / MIB


def deep_penalty(mode: str, seconds: float) -> Candidate:
    return repeat(call(*penalty(DEEP, DEEP_SHAPE, mode)), seconds)


def torch_penalty(mode: str, seconds: float) -> Candidate:
    """The same with `torch.func`: value and gradient of the mean over a vmapped batch."""
    import torch
    from torch import nn

    func, device = torch.func, torch_device()
    sizes = (DEEP_SHAPE[1], *DEEP.features)
    net = nn.Sequential(*(m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.Sigmoid()))).to(device)
    params, x = dict(net.named_parameters()), torch.rand(DEEP_SHAPE, device=device)
    transform = {"forward": func.jacfwd, "reverse": func.jacrev}[mode]

    def one(v: Any) -> Any:
        return transform(lambda v: func.functional_call(net, params, (v,)))(v).square().sum()

    def step() -> None:
        net.zero_grad()
        func.vmap(one)(x).mean().backward()
        net[0].weight.grad[0, 0].item()  # waits for it on a GPU

    return repeat(step, seconds)


def deep_encoder(config: Config) -> dict[str, Any]:
    """784-512-16 sigmoids, batch 100."""
    modes = ("auto", "reverse", "forward")
    starts = {mode: partial(deep_penalty, mode, config.seconds) for mode in modes}
    if installed("torch"):
        for mode in ("reverse", "forward"):
            starts[f"torch.func {mode}"] = partial(torch_penalty, mode, config.seconds)
    memory = {mode: mebibytes(penalty(DEEP, DEEP_SHAPE, mode)[0]) for mode in modes}
    return report(race(starts, config.rounds), memory)


def hourglass(config: Config) -> dict[str, Any]:
    """The reconstruction 784-256-32-256-784, batch 64."""
    found = {mode: penalty(HOURGLASS, (64, 784), mode) for mode in ("auto", "reverse", "forward")}
    turns = interleave({mode: call(*program) for mode, program in found.items()}, config.rounds, config.seconds)
    return report(turns, {mode: mebibytes(program) for mode, (program, _) in found.items()})


def one_layer(config: Config) -> dict[str, Any]:
    """Training steps of the published CAE and of the AE that it is without its penalty, 784-1000 tied sigmoids."""
    model, results = CAE.dense(784, 1000), {}
    params = init_params(model, jax.random.key(0), jnp.zeros((1, 784)))
    for batch_size in (20, 100):
        batch = Batch(jax.random.uniform(jax.random.key(1), (batch_size, 784)))
        calls: dict[str, Callable[[], Any]] = {}
        for name, algo in {"CAE step": cae(model, tx=optax.sgd), "AE step": ae(model, tx=optax.sgd)}.items():
            state = algo.init(params)
            program = jax.jit(algo.step).lower(state, batch, jax.random.key(2)).compile()
            calls[name] = call(program, (state, batch, jax.random.key(2)))
        results[f"batch {batch_size}"] = report(interleave(calls, config.rounds, config.seconds), {}, ours="AE step")
    return results


def bounded(config: Config) -> dict[str, Any]:
    """A convolutional encoder of 32x32x3 images, batch 256, without a bound and with three."""
    shape = (256, 32, 32, 3)
    limits = {"vmap, no limit": None, "1024 MiB": 1024 * MIB, "256 MiB": 256 * MIB, "64 MiB": 64 * MIB}
    found = {"default": penalty(CONV, shape, "auto")}
    for name, limit in limits.items():
        found[name] = penalty(CONV, shape, "auto" if limit else "reverse", limit)
    turns = interleave({name: call(*program) for name, program in found.items()}, config.rounds, config.seconds)
    return report(turns, {name: mebibytes(program) for name, (program, _) in found.items()}, ours="vmap, no limit")


def random_shapes(config: Config) -> dict[str, Any]:
    """Auto over the better of forward and reverse, on encoders of one to three layers; and how long planning takes."""
    rng = np.random.default_rng(0)
    draw = lambda low, high: int(np.exp(rng.uniform(np.log(low), np.log(high))))
    ratios, planning, cases = [], [], []
    for _ in range(config.shapes):
        widths = tuple(draw(8, 512) for _ in range(rng.integers(3)))
        size, code_dim, batch_size = draw(16, 512), draw(2, 256), draw(10, 128)
        module = MLP((*widths, code_dim), nn.tanh, nn.sigmoid if rng.integers(2) else None)
        found = {mode: penalty(module, (batch_size, size), mode) for mode in jacobian.MODES}
        turns = interleave({mode: call(*program) for mode, program in found.items()}, config.rounds, 0.02)
        ratios.append(1 / max(1e-9, min(ratio(turns[mode], turns["auto"]) for mode in ("forward", "reverse"))))
        params, x = found["auto"][1]
        f = lambda v, module=module, params=params: module.apply({"params": params}, v[None])[0]
        traced = trace(f, x[0])
        start = time.perf_counter()
        chain.plan(traced.segments, batch_size)
        planning.append(1e3 * (time.perf_counter() - start))
        cases.append([[size, *widths, code_dim], batch_size, round(ratios[-1], 3)])
    return {
        "auto over the best of forward and reverse": {"largest": max(ratios), "median": statistics.median(ratios)},
        "planning_ms": {"largest": max(planning), "median": statistics.median(planning)},
        "shapes": cases,
    }


CURVES: dict[str, tuple[int, ...]] = {
    "input size": (64, 128, 256, 512, 1024),
    "code size": (4, 16, 64, 256),
    "batch": (8, 32, 128),
    "hidden layers": (0, 1, 2, 4),
}


def cost_curves(config: Config) -> dict[str, Any]:
    """Time and memory around a sigmoid encoder 256-256-16, batch 32, one size changed at a time."""
    results: dict[str, Any] = {}
    for axis, values in CURVES.items():
        for value in values:
            size = {"input size": 256, "code size": 16, "batch": 32, "hidden layers": 1} | {axis: value}
            module = MLP((*[256] * size["hidden layers"], size["code size"]), nn.sigmoid, nn.sigmoid)
            modes = (*jacobian.MODES, "one probe")
            found = {mode: penalty(module, (size["batch"], size["input size"]), mode) for mode in modes}
            turns = interleave({mode: call(*program) for mode, program in found.items()}, config.rounds, 0.05)
            for mode, (program, _) in found.items():
                point = [value, statistics.median(turns[mode]), mebibytes(program)]
                results.setdefault(axis, {}).setdefault(mode, []).append(point)
    return results


def draw_curves(curves: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes = figure.subplots(2, len(curves), sharex="col", sharey="row")
    for column, (axis, modes) in enumerate(curves.items()):
        for mode, points in modes.items():
            x, milliseconds, memory = zip(*points, strict=True)
            for row, y in enumerate((milliseconds, memory)):
                axes[row, column].plot(x, y, marker="o", markersize=3, label=mode)
        for ax in axes[:, column]:
            ax.set_yscale("log")
            ax.spines[["top", "right"]].set_visible(False)
            if axis != "hidden layers":
                ax.set_xscale("log", base=2)
            ax.set_xticks(CURVES[axis], map(str, CURVES[axis]))
        axes[1, column].set_xlabel(axis)
    axes[0, 0].set_ylabel("value and gradient, ms")
    axes[1, 0].set_ylabel("temporary memory, MiB")
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.suptitle("Jacobian penalty of a sigmoid encoder 256-256-16, batch 32, one size changed at a time")
    return figure


def report(turns: dict[str, list[float]], memory: dict[str, float], ours: str = "auto") -> dict[str, Any]:
    """Median, least and most milliseconds; times the time of `ours`; MiB of temporaries, where JAX knows them."""
    return {
        name: {
            "ms": [statistics.median(values), min(values), max(values)],
            f"times {ours}": ratio(values, turns[ours]),
            **({"MiB": memory[name]} if name in memory else {}),
        }
        for name, values in turns.items()
    }


def show(console: Any, title: str, results: dict[str, Any]) -> None:
    from rich.table import Table

    if not all("ms" in row for row in results.values()):
        for name, rows in results.items():
            show(console, f"{title}, {name}", rows)
        return
    against = next(key for key in next(iter(results.values())) if key.startswith("times"))
    table = Table("", "ms, median", "least", "most", against, "MiB", title=title)
    for name, row in results.items():
        times = (f"{v:.2f}" for v in row["ms"])
        table.add_row(name, *times, f"{row[against]:.2f}", f"{row['MiB']:.1f}" if "MiB" in row else "")
    console.print(table)


CASES = {
    "deep encoder 784-512-16, batch 100": deep_encoder,
    "one layer 784-1000": one_layer,
    "reconstruction 784-256-32-256-784, batch 64": hourglass,
    "convolutional encoder of 32x32x3, batch 256": bounded,
}


def main() -> None:
    from rich.console import Console

    from aejax import plots
    from aejax.runner.folder import read_json, write_json

    config = tyro.cli(Config, prog="python -m experiments jacobian", description=__doc__)
    console, here = Console(), machine()
    console.print(", ".join(f"{name} {value}" for name, value in here.items()), highlight=False)
    if config.only is not None:
        title = next(title for title in CASES if config.only in title)
        found = CASES[title](config)
        show(console, title, found)
        if config.out is not None:
            kept = read_json(config.out)
            write_json(config.out, kept | {title: found, "later": kept.get("later", {}) | {title: here}})
        return
    figures: dict[str, Any] = {"machine": here}
    for title, case in CASES.items():
        figures[title] = case(config)
        show(console, title, figures[title])
    figures["random shapes"] = random_shapes(config)
    for name in ("auto over the best of forward and reverse", "planning_ms"):
        values = figures["random shapes"][name]
        console.print(f"{name}: largest {values['largest']:.3g}, median {values['median']:.3g}", highlight=False)
    if config.curves:
        figures["curves"] = cost_curves(config)
        if config.out is not None:
            plots.save(draw_curves(figures["curves"]), config.out.with_suffix(".png"))
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
