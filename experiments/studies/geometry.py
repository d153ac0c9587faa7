"""The geometry that a decoder gives a 2-D code: magnification, and straight against shortest paths.

A VAE with tanh units, whose metric is smooth. Distances are those of the images that `generate` makes, the means of the
likelihood. Where no data lie its decoder is flat as well, so that shortest paths may go round the data rather than
along them; Arvanitidis, Hansen & Hauberg (2018) give the decoder a variance that grows there.

On the digits, 5 seeds (2026-11-21, docs/geometry.json; about 25 s a seed on 2 busy cores), shortest paths have 0.942 +-
0.014 of the length of straight ones, mean over 50 pairs, and 0.78 +- 0.07 at best. On MNIST after 10 epochs, one seed,
0.955 and 0.848; some leave the range of the codes, as said.
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aejax import evaluation, jacobian, runner
from aejax.checks import InputError
from aejax.runner import Trained
from aejax.runner.inputs import Spec
from experiments import vae
from experiments.studies.units import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.nets import Autoencoder

_GRID = 100  # points of the map along each side
_SHOWN = 5  # pairs
_IMAGES = 9  # along each path


@dataclasses.dataclass(frozen=True)
class Config(runner.Config):
    num_epochs: int = 500
    """Passes over the training examples, in all; may grow with --resume, on the schedule of the longer run."""
    schedule: str = "cosine"
    """How the learning rates change: constant, cosine, ..."""
    hparams: vae.method.HParams = vae.method.HParams(lr=2e-3)
    """Real-valued knobs."""
    num_pairs: int = 50
    """Pairs of test examples between which paths are measured."""
    num_points: int = 32
    """Points of a path, both ends included."""
    num_steps: int = 100
    """Of L-BFGS, for each path."""


class Paths(NamedTuple):
    """Two paths between each of P pairs of codes, and their lengths in data space."""

    straight: np.ndarray
    """`[P, T, 2]`."""
    shortest: np.ndarray
    """`[P, T, 2]`."""
    straight_length: np.ndarray
    """`[P]`."""
    shortest_length: np.ndarray
    """`[P]`, likewise."""
    unevenness: np.ndarray
    """`[P]`, energy over squared length of the shortest polygon, less 1: zero where it has settled."""


def build_model(config: Config, spec: Spec) -> Any:
    if config.latent_dim != 2:
        raise InputError(f"--latent-dim is {config.latent_dim}; maps are of codes of 2 numbers.")
    if config.num_pairs < 1:
        raise InputError(f"--num-pairs is {config.num_pairs}; it has to be at least 1.")
    if config.num_points < 3 or config.num_steps < 1:
        raise InputError(f"--num-points is {config.num_points}, --num-steps {config.num_steps}; at least 3, and 1.")
    return runner.build_model(config, spec, vae.method.VAE, activation=nn.tanh)


def measure(trained: Trained) -> dict[str, float]:
    found = paths(trained)
    ratios = found.shortest_length / found.straight_length
    return {
        "test_sse": evaluation.reconstruction_sse(trained.model, trained.state.params, trained.dataset.test.x),
        "straight_length": float(found.straight_length.mean()),
        "shortest_length": float(found.shortest_length.mean()),
        "length_ratio": float(ratios.mean()),
        "length_ratio_min": float(ratios.min()),
        "length_ratio_max": float(ratios.max()),
        "path_unevenness": float(found.unevenness.max()),
    }


def paths(trained: Trained) -> Paths:
    """Between the codes of random pairs of test examples, which the key for measuring chooses."""
    config = trained.config
    z = evaluation.embed(trained.model, trained.state.params, trained.dataset.test.x)
    draw = lambda key: jax.random.choice(key, len(z), (2,), replace=False)
    ends = z[np.asarray(jax.vmap(draw)(jax.random.split(trained.measure_key, config.num_pairs)))]
    size = {"num_points": config.num_points, "num_steps": config.num_steps}
    return Paths(*map(np.asarray, _paths(trained.state.params, ends, model=trained.model, **size)))


@partial(jax.jit, static_argnames=("model", "num_points", "num_steps"))
def _paths(params: Any, ends: jax.Array, *, model: "Autoencoder", num_points: int, num_steps: int) -> Any:
    generate = model.bind({"params": params}).generate
    decode = lambda z: generate(z[None])[0]

    def between(ends: jax.Array) -> tuple[jax.Array, ...]:
        straight = jnp.linspace(ends[0], ends[1], num_points)
        path = jacobian.shortest_path(decode, ends[0], ends[1], num_points=num_points, num_steps=num_steps)
        lengths = [jacobian.path_length(decode, refined(points)) for points in (straight, path.points)]
        return straight, path.points, *lengths, path.energy / path.length**2 - 1

    return jax.vmap(between)(ends)


def refined(points: jax.Array, times: int = 8) -> jax.Array:
    """A polygon `[T, Z]` with its sides cut into that many: the path is the same, chords of its image are shorter."""
    at = jnp.linspace(0, len(points) - 1, (len(points) - 1) * times + 1)
    return jax.vmap(lambda z: jnp.interp(at, jnp.arange(len(points)), z), in_axes=1, out_axes=1)(points)


def magnification(trained: Trained, z: np.ndarray) -> Any:
    """On a grid over the codes z `[N, 2]`, with a margin of a tenth of their range."""
    from aejax import plots

    low, high = z.min(axis=0), z.max(axis=0)
    across, up = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), _GRID).T.astype(np.float32)
    values = _magnification(trained.state.params, across, up, model=trained.model)
    return plots.Magnification(np.asarray(values), across, up)


@partial(jax.jit, static_argnames="model")
def _magnification(params: Any, across: jax.Array, up: jax.Array, *, model: "Autoencoder") -> jax.Array:
    generate = model.bind({"params": params}).generate
    at = lambda z: jacobian.magnification(lambda z: generate(z[None])[0], z)
    row = lambda z_2: jax.vmap(at)(jnp.stack(jnp.broadcast_arrays(across, z_2), axis=1))
    return jax.lax.map(row, up)


def draw(trained: Trained) -> "dict[str, Figure]":
    from aejax import plots

    dataset = trained.dataset
    z = evaluation.embed(trained.model, trained.state.params, dataset.test.x)
    found = paths(trained)
    chosen = np.argsort(found.shortest_length / found.straight_length)[:_SHOWN]
    found = Paths(*(each[chosen] for each in found))
    generate = partial(_generate, trained.state.params, model=trained.model)
    shown = np.linspace(0, trained.config.num_points - 1, _IMAGES).round().astype(int)
    images = lambda points: np.asarray(generate(points[shown]))
    connections = [
        plots.Connection(a, b, images(a), images(b), float(straight), float(shortest))
        for a, b, straight, shortest, _ in zip(*found, strict=True)
    ]
    title = f"straight and shortest paths: the {len(chosen)} of {trained.config.num_pairs} pairs that gain most"
    beneath = magnification(trained, np.concatenate([z, found.shortest.reshape(-1, 2)]))
    return {
        "magnification": plots.magnification_map(magnification(trained, z), z, dataset.test.y),
        "paths": plots.paths(beneath, connections, dataset.image_shape, title=title),
    }


@partial(jax.jit, static_argnames="model")
def _generate(params: Any, z: jax.Array, *, model: "Autoencoder") -> jax.Array:
    return model.bind({"params": params}).generate(z)


EXPERIMENT = runner.of_method(
    "vae", Config, build_model=build_model, measure=measure, draw=draw, units=METRICS
)._replace(name="geometry")


if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
