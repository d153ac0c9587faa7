"""Linear autoencoders against their closed forms: PCA, its directions one by one, and the best linear denoisers.

Without hidden layers and with the squared error, what each of these learns is known. The plain one, tied or not, has
the error and the subspace of PCA, and without biases those of PCA about zero (Bourlard & Kamp 1988; Baldi & Hornik
1989). With the squared weights in its loss it has the principal directions themselves, and their variances (Kunin et
al. 2019). The denoising one has the Wiener filter for Gaussian noise, and for masking noise the map of the marginalised
denoising autoencoder (Chen et al. 2012), both cut to its rank. Claimed is: test errors within 0.1 % of PCA, every
principal direction within 1 degree, and denoisers whose map on the training examples is within 1 % of the best one. On
MNIST, 3 seeds in an hour of one busy core, `--dataset mnist --latent-dims 10 30 64 --latent-dim 30 --num-directions 10
--num-epochs 60 --denoising-epochs 480 --batch-size 500 --hparams.weight-decay 0.4 --num-seeds 3` gave errors within
0.01 % of PCA, directions within 0.5 degrees, and maps that are 0.93 % (Gaussian) and 0.75 % (masking) off (2026-11-21).
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from aejax import corruption, evaluation, runner
from aejax.checks import InputError, check_positive
from aejax.data import Dataset
from aejax.methods.mdae import linear_dae, linear_denoising_sse, second_moments
from aejax.runner import Experiment, Trained, measures, study
from experiments import ae, ae_l2, dae

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HParams(NamedTuple):
    """Real-valued knobs."""

    lr: float = 1e-2
    """Learning rate of Adam, its peak."""
    weight_decay: float = 0.05
    """Weight of the squared weights: directions of a variance below twice this are lost."""
    noise: float = 0.5
    """Standard deviation of the Gaussian noise."""
    masking: float = 0.5
    """Share of the pixels that are lost."""


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    latent_dims: tuple[int, ...] = (4, 10)
    """Sizes of the code of the plain one."""
    latent_dim: int = 10
    """Size of the code without biases, with tied weights, and of the denoising ones."""
    num_directions: int = 4
    """Size of the code with the squared weights in the loss."""
    num_epochs: int = 800
    """Passes over the training examples, for every row but the denoising ones."""
    denoising_epochs: int = 800
    """Passes of those: what is left of the noise of their gradients falls with the square root of it."""
    batch_size: int = 200
    """Examples per step, over all devices."""
    num_seeds: int = 1
    """Runs of every row."""
    seed: int = 0
    """The first one."""
    hparams: HParams = HParams()
    """Real-valued knobs."""


def runs(config: Config) -> study.Runs:
    """Every row with every seed.

    Raises:
      InputError: there is nothing to run, or a knob that cannot be.
    """
    if not config.latent_dims or config.num_seeds < 1:
        raise InputError("At least one of --latent-dims and a --num-seeds of at least 1 are needed.")
    if len(set(config.latent_dims)) < len(config.latent_dims):
        raise InputError(f"--latent-dims {config.latent_dims} names a size twice.")
    knobs = config.hparams
    check_positive(weight_decay=knobs.weight_decay)
    shared: dict[str, Any] = {
        "dataset": config.dataset, "hidden_dims": (), "likelihood": "gaussian", "schedule": "cosine",
        "num_epochs": config.num_epochs, "batch_size": config.batch_size, "validation": 0.0,
    }  # fmt: skip
    one = shared | {"latent_dim": config.latent_dim}
    longer = one | {"num_epochs": config.denoising_epochs}
    plain = lambda **own: (_plain, ae.Config(**own, hparams=ae.method.HParams(knobs.lr)))
    noisy = lambda name, level: (
        _denoising, dae.Config(**longer, corruption=name, hparams=dae.method.HParams(knobs.lr, level))
    )  # fmt: skip
    rows: dict[str, tuple[Experiment, Any]] = {
        **{f"plain_{k}": plain(**shared | {"latent_dim": k}) for k in config.latent_dims},
        "no_bias": plain(**one, use_bias=False),
        "tied": plain(**one, tied=True),
        "decayed": (
            _decayed,
            ae_l2.Config(
                **shared,
                latent_dim=config.num_directions,
                hparams=ae_l2.method.HParams(knobs.lr, knobs.weight_decay),
            ),
        ),
        "gaussian": noisy("gaussian", knobs.noise),
        "masking": noisy("masking", knobs.masking),
    }
    return study.seeded(rows, config.seed, config.num_seeds)


def measure_plain(trained: Trained) -> dict[str, float]:
    """The error against that of PCA, and the angle between the subspaces."""
    config, params, dataset = trained.config, trained.state.params, trained.dataset
    x, test_x = dataset.train.x, dataset.test.x
    kernel = np.asarray(params["encoder" if config.tied else "decoder"]["dense_0"]["kernel"], np.float64)
    centre = x.mean(axis=0) if config.use_bias else 0.0
    return {
        "test_sse": evaluation.reconstruction_sse(trained.model, params, test_x),
        "pca_test_sse": measures.pca_sse(x, test_x, config.latent_dim, centred=config.use_bias),
        "principal_angle": measures.principal_angle(kernel if config.tied else kernel.T, x - centre),
    }


def measure_denoising(trained: Trained) -> dict[str, float]:
    """What the learned map loses against the best one, and how far it is from it; expectations over noise are exact."""
    config, params, dataset = trained.config, trained.state.params, trained.dataset
    noise = config.corruption, config.hparams.level
    best = linear_dae(dataset.train.x, *noise, latent_dim=config.latent_dim)
    train, test = (second_moments(split.x, *noise) for split in (dataset.train, dataset.test))
    wanted = _matrix(best)
    off = _matrix(params) - wanted
    # As a root mean square of outputs: a pixel that is hardly ever lit may have any weight.
    size = lambda matrix: np.sqrt(np.vdot(matrix, train.cov_tilde @ matrix))
    return {
        "denoised_sse": linear_denoising_sse(params, test),
        "best_denoised_sse": linear_denoising_sse(best, test),
        "denoising_excess": linear_denoising_sse(params, train) / linear_denoising_sse(best, train) - 1,
        "map_error": float(size(off) / size(wanted)),
    }


def _matrix(params: Any) -> np.ndarray:
    first, second = (np.asarray(params[group]["dense_0"]["kernel"], np.float64) for group in ("encoder", "decoder"))
    return first @ second


_decayed = ae_l2.EXPERIMENT._replace(measure=ae_l2.directions, draw=lambda trained: {})
_plain = ae.EXPERIMENT._replace(measure=measure_plain, draw=lambda trained: {})
_denoising = dae.EXPERIMENT._replace(measure=measure_denoising, draw=lambda trained: {})


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Principal directions beside the learned ones, and denoised images beside what the best map makes of them."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    x = dataset.train.x
    wanted, _ = measures.principal(x - x.mean(axis=0, dtype=np.float64), config.num_directions)
    _, _, state = runner.load(path / f"decayed-{config.seed}")
    found, _ = ae_l2.method.principal_directions(state.params, weight_decay=config.hparams.weight_decay)
    rows = {"PCA": wanted, "squared weights": found * np.sign(np.sum(found * wanted, axis=0))}
    if config.num_directions in config.latent_dims:
        _, _, state = runner.load(path / f"plain_{config.num_directions}-{config.seed}")
        kernel = np.asarray(state.params["decoder"]["dense_0"]["kernel"]).T
        rows["plain"] = np.linalg.svd(kernel, full_matrices=False)[0]
    limit = max(np.abs(each).max() for each in rows.values())
    tiles = {name: 0.5 + 0.5 * each.T / limit for name, each in rows.items()}
    shown = tuple(dataset.image_shape)
    figures = {"directions": plots.image_rows(tiles, shown, title="left singular vectors of the decoder; grey is zero")}
    for name in ("gaussian", "masking"):
        own, model, state = runner.load(path / f"{name}-{config.seed}")
        best = linear_dae(dataset.train.x, name, own.hparams.level, latent_dim=own.latent_dim)
        x = dataset.test.x[:16]
        x_tilde = np.asarray(corruption.get(name)(jax.random.key(config.seed), x, own.hparams.level))
        apply = partial(evaluation.reconstruct, model)
        images = {"clean": x, "corrupted": x_tilde, "learned": apply(state.params, x_tilde),
                  "closed form": apply(best, x_tilde)}  # fmt: skip
        figures[name] = plots.image_rows(images, shown, title=f"denoised by a linear map of rank {own.latent_dim}")
    return figures


def table(summary: dict[str, Any]) -> str:
    """Three tables in Markdown: against PCA, direction by direction, and against the best denoisers."""
    rows, k = summary["metrics"], summary["latent_dim"]
    titles = {f"plain_{k}": f"{k} units" for k in summary["latent_dims"]}
    titles |= {"no_bias": f"{k} units, no biases", "tied": f"{k} units, tied"}
    is_published = lambda name: summary["dataset"] == "mnist" and name == "plain_30"
    plain = [
        [
            title,
            study.spread(rows[name]["test_sse"]),
            f"{rows[name]['pca_test_sse'][0]:.3f}" + (" (13.87)" if is_published(name) else ""),
            study.spread(rows[name]["principal_angle"]),
            study.cost(rows[name]),
        ]
        for name, title in titles.items()
    ]
    decayed = rows["decayed"]
    directions = [
        f"{summary['num_directions']} units, weight decay {summary['hparams']['weight_decay']}",
        study.spread(decayed["direction_angle"]),
        study.spread(decayed["variance_error"], scale=100),
        study.spread(decayed["transpose_error"], scale=100),
        study.cost(decayed),
    ]
    denoising = [
        [
            f"{k} units, {title}",
            study.spread(rows[name]["denoised_sse"]),
            f"{rows[name]['best_denoised_sse'][0]:.3f}",
            study.spread(rows[name]["denoising_excess"], scale=100),
            study.spread(rows[name]["map_error"], scale=100),
            study.cost(rows[name]),
        ]
        for name, title in (
            ("gaussian", f"Gaussian noise of {summary['hparams']['noise']}"),
            ("masking", f"masking of {summary['hparams']['masking']}"),
        )
    ]
    cost = "seeds, seconds a run"
    heads = (
        ("plain", "test SSE", "PCA", "largest principal angle, degrees", cost),
        ("squared weights", "largest angle of a direction, degrees", "variances off by, %", "encoder off by, %", cost),
        ("denoising", "expected test SSE", "closed form", "training excess, %", "map off by, %", cost),
    )
    return "\n".join(map(study.table, heads, (plain, [directions], denoising)))


STUDY = study.Study("linear_ae", Config, runs, table, draw)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
