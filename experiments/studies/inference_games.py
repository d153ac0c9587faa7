"""What a posterior of another shape is worth where the true one is known: AVB beside a Gaussian and a flow.

The model is given: two codes of N(0, 1), and each number of an example is the square of one code, with noise. So a
posterior has four modes, at the two signs of either root, which a Gaussian cannot have. Only encoders are trained.
`log p(x)` comes by quadrature, for the codes are independent given x, and the gap is what is left between it and the
bound, nats per example:

    log p(x) - E_q log p(x, z) - H(q),

with the entropy of the draws of q by the distances to their neighbours (Kozachenko & Leonenko 1987), alike for all
rows, since the posterior of AVB has no density. Its own estimate of the bound goes by its discriminator.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial import cKDTree
from scipy.special import digamma, gammaln, logsumexp

from aejax import training
from aejax.algorithm import Algorithm
from aejax.checks import check_positive
from aejax.data import Batch
from aejax.likelihoods import Gaussian
from aejax.methods import METHODS
from aejax.nets import Autoencoder, init_params
from aejax.runner import study
from aejax.runner.pieces import check_counts, check_rows
from aejax.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {"vae": "VAE, a Gaussian", "iaf_vae": "VAE, a flow", "avb": "AVB, functions of noise"}
VARIANCE = 0.25  # of the noise
TESTED, DRAWS = 100, 4000  # examples by which an encoder is judged, and draws of each of their posteriors
_SHOWN, _POINTS = ((1.0, 1.0), (2.0, 0.0), (0.2, 1.5)), 500
_DATA = 2**31 - 1  # the fold that data are drawn from; `sweep` splits the key of a seed
_GRID = np.linspace(-6.0, 6.0, 4801)


class Square(nn.Module):
    """The decoder: `[B, 2] -> [B, 2]`, the square times a scale that stays what it is, 1."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(self.param("scale", nn.initializers.ones, ())) * jnp.square(z)


@dataclasses.dataclass(frozen=True)
class Config:
    rows: tuple[str, ...] = tuple(ROWS)
    """Methods, of those that are here."""
    hidden_dims: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of encoders and discriminators."""
    num_examples: int = 25_600
    """Drawn from the model."""
    num_epochs: int = 80
    """Passes over them."""
    batch_size: int = 256
    """Examples per step."""
    lr: float = 3e-3
    """Learning rate of all players, which falls to zero as a cosine."""
    num_seeds: int = 3
    """Runs of each method, all in one program."""
    seed: int = 0
    """The first one."""


def check(config: Config) -> None:
    """Refuses what cannot be run, before anything is written."""
    check_counts(config, "num_examples", "num_epochs", "batch_size")
    check_positive(**{"--lr": config.lr})
    check_rows(config.rows, ROWS)
    training.count_steps(np.empty(config.num_examples), config.batch_size)


def examples(key: jax.Array, n: int) -> jax.Array:
    """Draws from the model, `[n, 2]`."""
    code_key, noise_key = jax.random.split(key)
    return jnp.square(jax.random.normal(code_key, (n, 2))) + VARIANCE**0.5 * jax.random.normal(noise_key, (n, 2))


def log_joint(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """log p(x_i, z_i) of each number by itself, in float64: any shapes that go together."""
    return -0.5 * (z**2 + (x - z**2) ** 2 / VARIANCE + math.log(VARIANCE)) - math.log(2 * math.pi)


def log_evidence(x: np.ndarray) -> np.ndarray:
    """log p(x), by the trapezoidal rule: `[N, 2] -> [N]`, nats."""
    return (logsumexp(log_joint(x[..., None], _GRID), axis=-1) + math.log(_GRID[1] - _GRID[0])).sum(axis=-1)


def posterior_draws(rng: np.random.Generator, x: np.ndarray, n: int) -> np.ndarray:
    """Draws from p(z|x), on a grid of 0.0025: `[2] -> [n, 2]`."""
    weights = np.exp(log_joint(np.asarray(x)[:, None], _GRID))
    return np.stack([rng.choice(_GRID, n, p=own / own.sum()) for own in weights], axis=1)


def entropy(z: np.ndarray, k: int = 4) -> float:
    """The entropy of what z are draws of, `[N, D]`, by the distance of each from its k-th neighbour, in nats.

    Example:
      >>> z = np.random.default_rng(0).standard_normal((4000, 2))
      >>> bool(abs(entropy(z) - np.log(2 * np.pi * np.e)) < 0.1)
      True

    Reference: Kozachenko & Leonenko (1987), in the form of Kraskov, Stogbauer & Grassberger (2004), equation 20.
    """
    n, d = z.shape
    reach = np.maximum(cKDTree(z).query(z, k + 1)[0][:, k], np.finfo(float).tiny)
    ball = 0.5 * d * math.log(math.pi) - gammaln(0.5 * d + 1)
    return float(digamma(n) - digamma(k) + ball + d * np.log(reach).mean())


@lru_cache(maxsize=16)  # the same functions are the same program
def functions(name: str, hidden_dims: tuple[int, ...], num_steps: int) -> tuple[Autoencoder, Any, Any]:
    """The model of a row, and what a sweep takes: how the algorithm is built, and its parameters begin."""
    method = METHODS[name]
    options: dict[str, Any] = {"hidden_dims": hidden_dims, "activation": nn.tanh, "likelihood": Gaussian(VARIANCE)}
    model = method.model.dense(2, 2, **options).clone(decoder=Square())
    tx = lambda lr: optax.adam(lambda step: lr * optax.cosine_decay_schedule(1.0, num_steps)(step))

    def build(hparams: Any) -> Algorithm:
        return method.build(model, hparams, tx)

    def init(key: jax.Array) -> Any:
        return init_params(model, key, np.zeros((1, 2), np.float32))

    return model, build, init


def trained(config: Config, name: str) -> tuple[Autoencoder, Any]:
    """The model of a row, and its parameters by seed."""
    num_steps = config.num_epochs * training.count_steps(np.empty(config.num_examples), config.batch_size)
    model, build, init = functions(name, config.hidden_dims, num_steps)
    default = METHODS[name].hparams()
    hparams = default._replace(**{field: config.lr for field in default._fields if field.endswith("lr")})
    x = examples(jax.random.fold_in(jax.random.key(config.seed), _DATA), config.num_examples)
    result = sweep(
        build, init, Batch(x), hparams=hparams, seeds=range(config.seed, config.seed + config.num_seeds),
        batch_size=config.batch_size, num_epochs=config.num_epochs, strategy="vmap",
    )  # fmt: skip
    return model, [result.state(0, i).params for i in range(config.num_seeds)]


@partial(jax.jit, static_argnames=("model", "n"))
def draws(params: Any, x: jax.Array, key: jax.Array, *, model: Autoencoder, n: int) -> jax.Array:
    """n draws of the posterior of each example: `[n, N, 2]`."""
    return jax.vmap(model.bind({"params": params}).encode(x).sample)(jax.random.split(key, n))


def gap(x: np.ndarray, z: np.ndarray) -> float:
    """Between log p(x) and the bound of the posteriors that z are drawn from, `[n, N, 2]`: mean nats per example."""
    x, z = np.asarray(x, np.float64), np.asarray(z, np.float64)
    of_draws = np.array([entropy(z[:, i]) for i in range(len(x))])
    return float((log_evidence(x) - log_joint(x, z).sum(axis=-1).mean(axis=0) - of_draws).mean())


def make(config: Config, say: Callable[[str], None]) -> "tuple[dict[str, Any], dict[str, Figure]]":
    """Trains and measures all rows, and draws the posteriors of the first seed."""
    from aejax import plots

    key = jax.random.fold_in(jax.random.key(config.seed), _DATA - 1)
    data_key, draw_key = jax.random.split(key)
    x, shown = np.asarray(examples(data_key, TESTED)), np.array(_SHOWN, np.float32)
    rng = np.random.default_rng(config.seed)
    metrics: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    for name in config.rows:
        say(f"training {config.num_seeds} runs of {name}")
        model, each = trained(config, name)
        metrics[name] = {"gap_nats": [gap(x, draws(params, x, draw_key, model=model, n=DRAWS)) for params in each]}
        drawn[name] = np.asarray(draws(each[0], shown, draw_key, model=model, n=_POINTS))
    panels = {}
    for i, point in enumerate(shown):
        truth = posterior_draws(rng, point, _POINTS)
        for name, z in drawn.items():
            title = f"{ROWS[name]}; x = ({point[0]:g}, {point[1]:g})"
            panels[title] = plots.Embedding(np.concatenate([truth, z[:, i]]))
    y = np.repeat(["true posterior", "encoder"], _POINTS)
    title = "draws of the encoder's posterior over those of the true one"
    figure = plots.embeddings(panels, y, title=title, columns=len(config.rows), names=False)
    return {"metrics": metrics}, {"posteriors": figure}


def table(summary: dict[str, Any]) -> str:
    """The gaps, mean and deviation over the seeds, in Markdown."""
    rows = [[ROWS[name], study.spread(found["gap_nats"])] for name, found in summary["metrics"].items()]
    return study.table(["posterior", "log p(x) above the bound, nats"], rows)


body = study.at_once("inference_games", check, make, table)


if __name__ == "__main__":
    study.command_line("inference_games", Config, __doc__, body)
