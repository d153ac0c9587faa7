"""The denoising autoencoder as an estimate of the score, against a density that is known.

Alain & Bengio (2014): trained with Gaussian noise of deviation sigma on its input and the squared error, the best
reconstruction is `r(x) = x + sigma^2 grad log p_sigma(x)`, with p_sigma the density of the data after the noise
(Miyasawa 1961), so `(r(x) - x) / sigma^2` tends to the score, the gradient of log p, as sigma tends to zero. Here p is
a mixture of Gaussians in the plane, whose score is known with and without noise; all levels and seeds are trained as
one sweep. Claimed is that the error against the true score falls with sigma over the default levels. Beside it stands
what the noise itself costs (the score of p_sigma against that of p), and what is missed in training (the field against
the score of p_sigma), which grows as it is divided by a smaller sigma^2.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from aejax import schedules, training
from aejax.checks import InputError, check_positive
from aejax.data import Batch
from aejax.methods import dae as method
from aejax.methods.ae import AE
from aejax.nets import MLP, init_params
from aejax.priors import GaussianMixture
from aejax.runner import study
from aejax.runner.config import to_dict
from aejax.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

MIXTURE = GaussianMixture(
    weights=(0.4, 0.3, 0.3),
    means=((-1.5, 0.0), (1.2, 1.3), (1.0, -1.4)),
    covariances=(((0.4, 0.0), (0.0, 1.0)), ((0.7, 0.3), (0.3, 0.5)), ((0.7, -0.3), (-0.3, 0.5))),
)
ERRORS = ("score_error", "smoothing_error", "fit_error")
_EXAMPLES = 10_000  # that errors are averaged over, drawn anew
_SIDE = 24  # points of the drawn grid
_DATA = 2**31 - 1  # the fold that data are drawn from; splits are folds of 0, 1, 2, ...


@dataclasses.dataclass(frozen=True)
class Config:
    levels: tuple[float, ...] = (0.8, 0.5, 0.3, 0.2)
    """Standard deviations of the noise, each trained by itself."""
    hidden_dim: int = 64
    """Width of the two hidden layers."""
    num_examples: int = 400_000
    """Drawn from the mixture."""
    num_epochs: int = 5
    """Passes over them."""
    batch_size: int = 500
    """Examples per step."""
    lr: float = 1e-2
    """Learning rate of Adam, its peak."""
    num_seeds: int = 2
    """Runs of every level."""
    seed: int = 0
    """The first one."""


def build_model(hidden_dim: int) -> AE:
    """2-H-H-2, the code being the second hidden layer; silu, which is smooth as the field is."""
    encoder, decoder = MLP((hidden_dim, hidden_dim), nn.silu, nn.silu), MLP((2,))
    return AE(encoder=encoder, decoder=decoder, latent_dim=hidden_dim, likelihood="gaussian")


def smoothed(prior: GaussianMixture, sigma: float) -> GaussianMixture:
    """The density of its draws plus Gaussian noise: every covariance grows by sigma^2 I."""
    noise = sigma**2 * np.eye(prior.latent_dim)
    covariances = tuple(tuple(map(tuple, (np.asarray(cov) + noise).tolist())) for cov in prior.covariances)
    return dataclasses.replace(prior, covariances=covariances)


@partial(jax.jit, static_argnames=("prior",))
def score(x: jax.Array, *, prior: GaussianMixture) -> jax.Array:
    """The gradient of the log-density at each point: `[N, 2] -> [N, 2]`."""
    return jax.vmap(jax.grad(prior.log_prob))(x)


@partial(jax.jit, static_argnames=("model",))
def field(params: Any, x: jax.Array, sigma: float, *, model: AE) -> jax.Array:
    """What a denoising autoencoder takes the score to be, `(r(x) - x) / sigma^2`: `[N, 2] -> [N, 2]`."""
    return (model.bind({"params": params}).reconstruct(x) - x) / sigma**2


def errors(params: Any, x: jax.Array, sigma: float, *, model: AE, prior: GaussianMixture) -> dict[str, float]:
    """Root mean squares over draws x of the prior, relative to that of the true score.

    Returns:
      `score_error`, of the field against the true score; `smoothing_error`, of the score of the density with noise
      against the true one, which the best autoencoder has; `fit_error`, of the field against the score with noise.
    """
    found, true, best = (
        field(params, x, sigma, model=model),
        score(x, prior=prior),
        score(x, prior=smoothed(prior, sigma)),
    )
    size = lambda v: float(np.sqrt(np.square(np.asarray(v, np.float64)).sum(axis=1).mean()))
    return {
        name: size(off) / size(true)
        for name, off in zip(ERRORS, (found - true, best - true, found - best), strict=True)
    }


def data_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Of the training and of the test draws; `sweep` splits the key of the seed itself."""
    train_key, test_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), _DATA))
    return train_key, test_key


def train(config: Config, x: jax.Array) -> Any:
    """The states of all levels and seeds, every leaf `[H, S, ...]`."""
    model = build_model(config.hidden_dim)
    num_steps = config.num_epochs * training.count_steps(x, config.batch_size)
    tx = lambda lr: optax.adam(schedules.cosine(lr, num_steps))
    return sweep(
        lambda hparams: method.dae(model, hparams, tx),
        lambda key: init_params(model, key, x),
        Batch(x),
        hparams=[method.HParams(config.lr, level) for level in config.levels],
        seeds=range(config.seed, config.seed + config.num_seeds),
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
    )


def check(config: Config) -> None:
    """Refuses what cannot be run."""
    if not config.levels or config.num_seeds < 1:
        raise InputError("At least one of --levels and a --num-seeds of at least 1 are needed.")
    for name in ("hidden_dim", "num_examples", "num_epochs", "batch_size"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}; it has to be at least 1.")
    check_positive(lr=config.lr, **{f"level {level}": level for level in config.levels})
    training.count_steps(np.empty(config.num_examples), config.batch_size)


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Trains everything, measures, draws, and writes the summary last."""
    from aejax import plots
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    check(config)
    folder = open_folder("score", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        folder.start()
        bars.say(f"training {len(config.levels)} levels of noise, {config.num_seeds} seeds each")
        train_key, test_key = data_keys(config.seed)
        result = train(config, MIXTURE.sample(train_key, config.num_examples))
        x, model = MIXTURE.sample(test_key, _EXAMPLES), build_model(config.hidden_dim)
        rows = [
            [errors(result.state(i, j).params, x, level, model=model, prior=MIXTURE) for j in range(config.num_seeds)]
            for i, level in enumerate(config.levels)
        ]
        metrics = {name: [[run[name] for run in row] for row in rows] for name in ERRORS}
        folder.figures.mkdir(exist_ok=True)
        for name, figure in draw(config, result, metrics).items():
            plots.save(figure, folder.figures / f"{name}.png")
        summary = {"experiment": "score", **to_dict(config), **provenance(), "metrics": metrics}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        from aejax.runner.console import list_figures

        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


def draw(config: Config, result: Any, metrics: dict[str, list[list[float]]]) -> "dict[str, Figure]":
    """The fields of the largest and the smallest noise beside the true one, and the errors."""
    from aejax import plots

    model, across = build_model(config.hidden_dim), np.linspace(-4, 4, _SIDE)
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(across), jnp.asarray(across)), axis=-1).reshape(-1, 2)
    on_grid = lambda v: np.asarray(v).reshape(_SIDE, _SIDE, -1)
    fields = {"true score": on_grid(score(grid, prior=MIXTURE))}
    for i in sorted({int(np.argmax(config.levels)), int(np.argmin(config.levels))}):
        level = config.levels[i]
        found = field(result.state(i, 0).params, grid, level, model=model)
        fields[f"denoising autoencoder, noise of {level:g}"] = on_grid(found)
    density = on_grid(jnp.exp(MIXTURE.log_prob(grid)))[..., 0]
    title = "the score of a mixture of Gaussians, and what reconstruction makes of it; shaded: the density"
    names = ("field against the true score", "smoothed score against the true score", "field against smoothed score")
    curves = dict(zip(names, (np.array(metrics[name]) for name in ERRORS), strict=True))
    return {
        "fields": plots.vector_fields(fields, across, across, density, title=title),
        "errors": plots.level_errors(
            curves,
            np.array(config.levels),
            title="how far the field is from the score",
            y_label="root mean square, relative",
        ),
    }


def table(summary: dict[str, Any]) -> str:
    """Errors in per cent by level, in Markdown."""
    found, best, missed = (summary["metrics"][name] for name in ERRORS)
    rows = [
        # The second knows no training: it is the same for all seeds.
        [f"{level:g}", study.spread(found[i], scale=100), f"{100 * best[i][0]:.3g}", study.spread(missed[i], scale=100)]
        for i, level in enumerate(summary["levels"])
    ]
    head = ("noise", "field against score, %", "smoothed score against score, %", "field against smoothed score, %")
    return study.table(head, rows)


if __name__ == "__main__":
    study.command_line("score", Config, __doc__, body)
