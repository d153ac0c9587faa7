"""The likelihood by 5,000 samples an image: time for 10,000 images, and the speed-up over loops image by image.

The net is that of the IWAE paper, 784-200-200-50, untrained, on random binary images: time does not depend on the
values. `evaluation.nll` takes blocks of images, and of samples so many that the decoder sees `max_rows` codes at once.
Beside it stand two loops that do the same for one image at a time: one jitted call with all of its samples, and 50
calls of 100 samples, each op by op, with the image repeated and encoded for each. They take turns; quoted are medians.
The time of 10,000 images is extrapolated: that of those measured, times what 10,000 are of them.
"""

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import linen as nn
from jax.scipy.special import logsumexp

from aejax import evaluation
from aejax.checks import InputError
from aejax.methods.vae import VAE
from aejax.nets import init_params
from experiments.benchmarks.timing import interleave, machine, ratio

OURS, JITTED, EAGER = "evaluation.nll", "an image a call, jitted", "an image, 100 samples at a time, op by op"
_STEP = 100  # samples of the last one


@dataclasses.dataclass(frozen=True)
class Config:
    num_images: int = 128
    """Measured, of the first two; of the loop op by op an eighth."""
    num_samples: int = 5000
    """Of each image, a multiple of 100."""
    rounds: int = 2
    """How often each candidate has its turn."""
    hidden_dims: tuple[int, ...] = (200, 200)
    """Widths of the tanh layers of the encoder; the decoder mirrors them."""
    latent_dim: int = 50
    """Size of the code."""
    data_dim: int = 784
    """Pixels."""
    whole: int = 10_000
    """Images of a whole test set."""
    out: Path | None = None
    """Writes the figures as JSON."""


def log_weights(params: Any, key: jax.Array, x: jax.Array, num_samples: int, model: VAE) -> jax.Array:
    """`[num_samples]` log p(x|z) + log p(z) - log q(z|x) of one image `[D]`, which is encoded as often."""
    bound, images = model.bind({"params": params}), jnp.tile(x, (num_samples, 1))
    posterior = bound.encode(images)
    z, log_q = posterior.sample_and_log_prob(jax.random.split(key, num_samples))
    return bound.log_prior(z) - bound.nll(z, images) - log_q


@partial(jax.jit, static_argnames=("num_samples", "model"))
def one_image(params: Any, key: jax.Array, x: jax.Array, *, num_samples: int, model: VAE) -> jax.Array:
    """-L_K of one image; it is encoded once."""
    bound = model.bind({"params": params})
    posterior = bound.encode(x[None])
    each = lambda key: posterior.sample_and_log_prob(key[None])
    z, log_q = (v[:, 0] for v in jax.vmap(each)(jax.random.split(key, num_samples)))
    weights = bound.log_prior(z) - bound.nll(z, jnp.broadcast_to(x, (num_samples, len(x)))) - log_q
    return jnp.log(num_samples) - logsumexp(weights)


def jitted(params: Any, x: np.ndarray, num_samples: int, model: VAE) -> float:
    keys = jax.random.split(jax.random.key(0), len(x))
    one = partial(one_image, num_samples=num_samples, model=model)
    return float(np.mean([one(params, key, image) for key, image in zip(keys, x, strict=True)]))


def eager(params: Any, x: np.ndarray, num_samples: int, model: VAE) -> float:
    found = []
    for i, image in enumerate(x):
        keys = jax.random.split(jax.random.key(i), num_samples // _STEP)
        weights = jnp.concatenate([log_weights(params, key, image, _STEP, model) for key in keys])
        found.append(float(jnp.log(num_samples) - logsumexp(weights)))
    return float(np.mean(found))


def candidates(config: Config) -> tuple[dict[str, Callable[[], float]], dict[str, int]]:
    """What takes turns, and the images of each."""
    model = VAE.dense(config.data_dim, config.latent_dim, hidden_dims=config.hidden_dims, activation=nn.tanh)
    x = np.random.default_rng(0).integers(2, size=(config.num_images, config.data_dim)).astype(np.float32)
    params = init_params(model, jax.random.key(0), x[:1])
    few = x[: max(1, config.num_images // 8)]
    ours = lambda: evaluation.nll(model, params, x, jax.random.key(0), num_samples=config.num_samples).nll_nats
    calls = {
        OURS: ours,
        JITTED: lambda: jitted(params, x, config.num_samples, model),
        EAGER: lambda: eager(params, few, config.num_samples, model),
    }
    return calls, {OURS: len(x), JITTED: len(x), EAGER: len(few)}


def measure(config: Config) -> dict[str, Any]:
    """Seconds for `whole` images: median, least and most; and how many times ours the others take."""
    if config.num_images < 1 or config.num_samples < 1 or config.num_samples % _STEP:
        raise InputError(f"--num-samples is {config.num_samples}; a multiple of {_STEP}, and at least one image.")
    calls, images = candidates(config)
    turns = interleave(calls, config.rounds, 0.0)
    whole = {name: [1e-3 * ms * config.whole / images[name] for ms in values] for name, values in turns.items()}
    return {
        "machine": machine(),
        "config": {name: value for name, value in dataclasses.asdict(config).items() if name != "out"},
        "seconds": {name: [statistics.median(values), min(values), max(values)] for name, values in whole.items()},
        "speed": {name: ratio(values, whole[OURS]) for name, values in whole.items()},
    }


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments nll", description=__doc__)
    console = Console()
    figures = measure(config)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False)
    title = f"{config.whole:,} images, {config.num_samples:,} samples each, from {config.num_images} images"
    table = Table("seconds", "median", "least", "most", "times ours", title=title)
    for name, values in figures["seconds"].items():
        table.add_row(name, *(f"{v:,.0f}" for v in values), f"{figures['speed'][name]:.2f}")
    console.print(table)
    if config.out is not None:
        write_json(config.out, figures)


if __name__ == "__main__":
    main()
