"""Which modes generators find: a ring of 8 Gaussians and a grid of 25, whose samples can be judged exactly.

Every method gets the same data, networks, steps and rate, and all its seeds are one program. Samples are means of the
decoder, without the noise of a likelihood. A sample within three deviations of its nearest mode is of that mode, and a
mode with one of 2,000 samples is found. The rate was looked for on the ring, for `wgan_gp` and `ali`, with
three seeds of three settings each; nothing was for the grid.

`--settings random` is the experiment of Dumoulin et al. (2017): each run has a rate, a `b1` of Adam and a deviation of
its first weights of its own, drawn by the seed, alike for all methods, and runs are trained in turn. The paper does not
say from what; here rates are from 1e-4 to 1e-2 and deviations from 0.01 to 1, evenly in their logarithms, and `b1` from
0 to 0.9. Of 10,000 samples each is assigned to its nearest mode, however far, and a mode is found if any is. Theirs are
trained on 100,000 examples; how far apart the modes are, it does not say either.

Four times the default passes are published in docs/adversarial.md; the default takes 25, some four minutes on two
cores. The energy of EBGAN and BEGAN says little here: an autoencoder with as many codes as data have numbers need not
fail anywhere.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import training
from aejax.algorithm import Algorithm
from aejax.checks import InputError, check_positive
from aejax.data import Batch
from aejax.evaluation.modes import GRID, RING, mode_coverage
from aejax.methods import METHODS, wgan_gp
from aejax.nets import Autoencoder, init_params
from aejax.priors import GaussianMixture
from aejax.runner import study
from aejax.runner.config import later
from aejax.runner.pieces import check_counts, check_rows
from aejax.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIXTURES = {"ring": RING, "grid": GRID}
TRUTH = "the mixture itself"
MEASURED = ("modes", "high_quality", "assigned")
PUBLISHED = {"gan": "10.4 ± 9.2", "ali": "13.4 ± 5.8"}  # Dumoulin et al. (2017), assigned, of the grid
Settings = Literal["equal", "random"]
_DRAWS = {"equal": 2000, "random": 10_000}  # of each generator, by which it is judged
_SHOWN = 1000  # of the first seed, which are drawn
_DATA = 2**31 - 1  # the fold that data are drawn from; `sweep` splits the key of a seed


class Row(NamedTuple):
    """One method, as it is asked here."""

    optimiser: Callable[..., optax.GradientTransformation] = optax.adam
    likelihood: str = "gaussian"


_STEADY = partial(optax.adam, b1=0.5)  # a game is steadier without the usual 0.9
ROWS = {
    "gan": Row(_STEADY),
    "wgan_gp": Row(wgan_gp.adam),
    "ali": Row(_STEADY),
    "alice": Row(_STEADY),
    "vae_gan": Row(_STEADY),
    "ebgan": Row(_STEADY),
    "began": Row(_STEADY),
    "vae": Row(likelihood="gaussian_learned"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    rows: tuple[str, ...] = tuple(ROWS)
    """Methods, of those that are here."""
    latent_dim: int = 2
    """Size of the code, and of the generator's noise."""
    hidden_dims: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of all networks."""
    num_examples: int = 10_000
    """Drawn from each mixture."""
    num_epochs: int = 25
    """Passes over them."""
    batch_size: int = 100
    """Examples per step; a multiple of 5, among whose parts the critic of wgan_gp moves."""
    settings: Settings = later("equal")
    """All runs alike, or drawn for each run, as in the experiment of ALI."""
    lr: float = 3e-3
    """Learning rate of all players; with --settings random it is not used."""
    num_seeds: int = 10
    """Runs of each method."""
    seed: int = 0
    """The first one."""


class Drawn(NamedTuple):
    """The settings of one run, of those that are drawn."""

    lr: float
    b1: float
    std: float  # of the first weights


def drawn_settings(seed: int) -> Drawn:
    """Those of a seed, whatever the method."""
    rng = np.random.default_rng(seed)
    return Drawn(10 ** rng.uniform(-4, -2), rng.uniform(0, 0.9), 10 ** rng.uniform(-2, 0))


def redrawn(params: Any, data: Any, key: jax.Array, *, std: float | jax.Array) -> Any:
    """The parameters with all kernels drawn anew, from N(0, std^2); all else stays, biases at zero."""
    keys = jax.tree.unflatten(jax.tree.structure(params), jax.random.split(key, len(jax.tree.leaves(params))))

    def draw(path: Any, leaf: jax.Array, own: jax.Array) -> jax.Array:
        return std * jax.random.normal(own, leaf.shape, leaf.dtype) if path[-1].key == "kernel" else leaf

    return jax.tree.map_with_path(draw, params, keys)


@lru_cache(maxsize=16)  # the same functions are the same program
def functions(name: str, latent_dim: int, hidden_dims: tuple[int, ...], kind: Settings) -> tuple[Autoencoder, Any, Any]:
    """The model of a row, and what a sweep takes: how the algorithm is built, and its parameters begin."""
    row, method = ROWS[name], METHODS[name]
    model = method.model.dense(2, latent_dim, hidden_dims=hidden_dims, likelihood=row.likelihood)

    def build(hparams: Any) -> Algorithm:
        if kind == "equal":
            return method.build(model, hparams, row.optimiser)
        algo = method.build(model, settings(name, hparams.lr), partial(optax.adam, b1=hparams.b1))
        return algo._replace(start=partial(redrawn, std=hparams.std))

    def init(key: jax.Array) -> Any:
        return init_params(model, key, np.zeros((1, 2), np.float32))

    return model, build, init


def settings(name: str, lr: Any) -> Any:
    """The knobs of a row, all rates alike."""
    default = METHODS[name].hparams()
    return default._replace(**{field: lr for field in default._fields if field.endswith("lr")})


def check(config: Config) -> None:
    """Refuses what cannot be run, before anything is written."""
    check_counts(config, "latent_dim", "num_examples", "num_epochs", "batch_size")
    check_positive(**{"--lr": config.lr})
    check_rows(config.rows, ROWS)
    for name in config.rows:
        fits = METHODS[name].batch_size(config.batch_size)
        if fits != config.batch_size:
            raise InputError(f"--batch-size is {config.batch_size}, which {name} cannot divide; {fits} would be.")
    training.count_steps(np.empty(config.num_examples), config.batch_size)


def samples(config: Config, name: str, mixture: GaussianMixture) -> np.ndarray:
    """Trains a method with all seeds; `[S, draws, 2]` samples, of each the generator's own."""
    model, build, init = functions(name, config.latent_dim, config.hidden_dims, config.settings)
    x = mixture.sample(jax.random.fold_in(jax.random.key(config.seed), _DATA), config.num_examples)
    seeds = range(config.seed, config.seed + config.num_seeds)
    train = partial(
        sweep, build, init, Batch(x), batch_size=config.batch_size, num_epochs=config.num_epochs, strategy="vmap"
    )
    if config.settings == "equal":
        runs = [train(hparams=settings(name, config.lr), seeds=seeds)]
    else:
        runs = [train(hparams=drawn_settings(seed), seeds=[seed]) for seed in seeds]
    of_seeds = [jax.tree.map(lambda leaf: leaf[0], run.states.params) for run in runs]  # of the only setting: [S, ...]
    params = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_seeds)
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), 3)[2])(np.array(seeds))
    draw = lambda params, key: model.apply({"params": params}, key, _DRAWS[config.settings], method="sample")
    return np.asarray(jax.vmap(draw)(params, keys))


def measure(x: np.ndarray, mixture: GaussianMixture) -> dict[str, list[float]]:
    """`modes`, `high_quality` and `assigned` of each seed."""
    found = jax.vmap(partial(mode_coverage, mixture=mixture))(x)
    return {name: np.asarray(getattr(found, name), np.float64).tolist() for name in MEASURED}


def draw(drawn: dict[str, dict[str, np.ndarray]], metrics: dict[str, Any]) -> "dict[str, Figure]":
    """The samples of the first seed of each row, over the data."""
    from aejax import plots

    figures = {}
    for where, rows in drawn.items():
        truth = rows[TRUTH][:_SHOWN]
        panels = {
            name: plots.Embedding(
                np.concatenate([truth, x[:_SHOWN]]),
                f"{found['modes'][0]:.0f} modes, {100 * found['high_quality'][0]:.0f} % within 3 deviations",
            )
            for (name, x), found in zip(rows.items(), metrics[where].values(), strict=True)
        }
        y = np.repeat(["data", "samples"], [len(truth), _SHOWN])
        figures[where] = plots.embeddings(panels, y, title=f"{where}: samples over the data", columns=3, names=False)
    return figures


def make(config: Config, say: Callable[[str], None]) -> "tuple[dict[str, Any], dict[str, Figure]]":
    """Trains and measures all rows on both mixtures."""
    metrics: dict[str, Any] = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for where, mixture in MIXTURES.items():
        key = jax.random.fold_in(jax.random.key(config.seed), _DATA - 1)
        truth = np.asarray(mixture.sample(key, _DRAWS[config.settings]))
        drawn[where], metrics[where] = {TRUTH: truth}, {TRUTH: measure(truth[None], mixture)}
        for name in config.rows:
            say(f"{where}: training {config.num_seeds} runs of {name}")
            x = samples(config, name, mixture)
            drawn[where][name], metrics[where][name] = x[0], measure(x, mixture)
    return {"metrics": metrics}, draw(drawn, metrics)


def table(summary: dict[str, Any]) -> str:
    """Modes and shares of all rows over the seeds, in Markdown; of drawn settings the extremes too."""
    random = summary.get("settings") == "random"
    head = ["method"]
    for where, mixture in MIXTURES.items():
        head += [f"{where}: modes of {len(mixture.means)}", f"{where}: within 3 deviations, %"]
        head += [f"{where}: assigned (fewest, most)"] * random
    rows = []
    for name in (TRUTH, *summary["rows"]):
        cells = [name]
        for where in MIXTURES:
            found = summary["metrics"][where][name]
            cells += [study.spread(found["modes"]), study.spread(found["high_quality"], scale=100)]
            if random:
                assigned = found["assigned"]
                cells.append(f"{study.spread(assigned)} ({min(assigned):g}, {max(assigned):g})")
        rows.append([*cells, *[PUBLISHED.get(name, "")] * random])
    return study.table([*head, *["grid: assigned, published"] * random], rows)


body = study.at_once("modes", check, make, table)


if __name__ == "__main__":
    study.command_line("modes", Config, __doc__, body)
