"""Do single units of a code stand for single factors? The VAEs that are to see to it, by five published scores.

VAE, beta-VAE, beta-TC-VAE, FactorVAE and DIP-VAE learn the sprites, 9,216 images of five known factors, all seeds of a
method in one program (`aejax.sweep`). Codes are posterior means, scores those of `aejax.evaluation.disentanglement`.
Beside them stand the factors themselves, which say how high a score can be on this set, and PCA. Locatello et al.
(2019) found that scores vary with the seed more than with the method; hence five seeds, and the spread in the table.
A VAE of 50 epochs took 26 seconds of a core, the scores of a run 12 (2026-11-26, on a busy machine).
`--dataset cmu_faces` takes 624 faces of person, pose, expression and eyes in `$AEJAX_DATA`; with grey pixels the
likelihood is a cross-entropy.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from aejax import data, evaluation, training
from aejax.checks import InputError, check_count
from aejax.factory import check_knobs
from aejax.methods import METHODS
from aejax.nets import MLP, init_params
from aejax.runner import study
from aejax.runner.config import to_dict
from aejax.sweep import sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

TITLES = {
    "factors": "the factors themselves",
    "pca": "PCA",
    "vae": "VAE",
    "beta_vae": "beta-VAE",
    "beta_tc_vae": "beta-TC-VAE",
    "factor_vae": "FactorVAE",
    "dip_vae": "DIP-VAE-II",
}
SCORES = {
    "beta_vae_score": "BetaVAE score",
    "factor_vae_score": "FactorVAE score",
    "mig": "MIG",
    "sap": "SAP",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "completeness",
    "dci_informativeness": "informativeness",
}
TRAINED = ("active_units", "train_recon_nats", "train_kl_nats")
# The discriminator of the paper has 5 million weights; codes have ten units here.
FIELDS: dict[str, dict[str, Any]] = {"factor_vae": {"discriminator": MLP((256, 256, 256, 1), nn.leaky_relu)}}
_DATA = 2**31 - 1  # the fold of a seed's key by which it is measured; `sweep` splits the key itself


class HParams(NamedTuple):
    """Weights, and the rate of Adam."""

    lr: float = 1e-3
    """Of all networks, the discriminator too."""
    beta: float = 4.0
    """Of the KL term, beta-VAE."""
    tc_beta: float = 6.0
    """Of the total correlation, beta-TC-VAE."""
    gamma: float = 10.0
    """Of the total correlation beside the KL term, FactorVAE."""
    lambda_od: float = 10.0
    """Of the squared covariances, DIP-VAE-II."""
    lambda_d: float = 10.0
    """Of the squared gaps of variances from 1, likewise."""


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "sprites"
    """sprites or cmu_faces."""
    latent_dim: int = 10
    """Units of the code."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 50
    """Passes over all images."""
    batch_size: int = 64
    """Examples per step."""
    num_seeds: int = 5
    """Runs of each method."""
    seed: int = 0
    """The first one."""
    num_train: int = 10_000
    """Points or images that scores learn on."""
    num_test: int = 5_000
    """Points or images that scores are of."""
    num_for_trees: int = 500
    """Images that the trees of DCI learn on, which is what scoring takes its time for."""
    hparams: HParams = HParams()
    """Weights, and the rate."""


def settings(config: Config) -> dict[str, tuple[str, Any]]:
    """By row: the key of the method, where there is one, and its hyper-parameters."""
    own = config.hparams
    knobs: dict[str, tuple[str, dict[str, float]]] = {
        "vae": ("vae", {"beta": 1.0}),
        "beta_vae": ("vae", {"beta": own.beta}),
        "beta_tc_vae": ("beta_tc_vae", {"beta": own.tc_beta}),
        "factor_vae": ("factor_vae", {"gamma": own.gamma, "disc_lr": own.lr}),
        "dip_vae": ("dip_vae", {"lambda_od": own.lambda_od, "lambda_d": own.lambda_d}),
    }
    return {row: (name, METHODS[name].hparams(lr=own.lr, **each))
            for row, (name, each) in knobs.items() if name in METHODS}  # fmt: skip


def check(config: Config) -> None:
    """Refuses what cannot be run, before anything is written."""
    for name in ("num_epochs", "num_seeds", "num_train", "num_test", "num_for_trees"):
        check_count(**{f"--{name.replace('_', '-')}": getattr(config, name)})
    if config.latent_dim < 2:
        raise InputError(f"--latent-dim is {config.latent_dim}; scores compare units, and at least 2 are needed.")
    for _, hparams in settings(config).values():
        check_knobs(hparams)
    training.count_steps(data.load_factors(config.dataset).x, config.batch_size)


@lru_cache(maxsize=8)  # the same functions are the same program
def functions(
    name: str, data_dim: int, latent_dim: int, hidden_dims: tuple[int, ...]
) -> tuple[Any, Callable, Callable]:
    """The model of a method, hyper-parameters -> algorithm, and key -> parameters."""
    model = METHODS[name].model.dense(data_dim, latent_dim, hidden_dims=hidden_dims, **FIELDS.get(name, {}))
    example = np.zeros((1, data_dim), np.float32)
    return model, partial(METHODS[name].build, model), lambda key: init_params(model, key, example)


def train(config: Config, name: str, rows: dict[str, Any], found: data.Factored) -> tuple[Any, Any]:
    """The model, and a sweep of all rows of that method, with all seeds."""
    x = found.x.reshape(len(found.x), -1)
    model, build, init = functions(name, x.shape[1], config.latent_dim, config.hidden_dims)
    seeds = range(config.seed, config.seed + config.num_seeds)
    sizes: dict[str, Any] = {"batch_size": config.batch_size, "num_epochs": config.num_epochs}
    return model, sweep(build, init, data.Batch(x), hparams=list(rows.values()), seeds=seeds, **sizes)


def score(config: Config, codes: np.ndarray, found: data.Factored, seed: int) -> dict[str, float]:
    """All scores of the codes of the whole set."""
    key = jax.random.fold_in(jax.random.key(seed), _DATA)
    return evaluation.disentanglement_scores(
        codes, found.factors, key,
        num_train=config.num_train, num_test=config.num_test, num_for_trees=config.num_for_trees,
    )  # fmt: skip


def measure(
    config: Config, name: str, rows: dict[str, Any], found: data.Factored, say: Callable[[str], None]
) -> "tuple[dict[str, dict[str, list[float]]], dict[str, Figure]]":
    """Trains a method; by row each metric of every seed, and the picture of the first one."""
    say(f"{name}: training {len(rows) * config.num_seeds} runs")
    model, result = train(config, name, rows, found)
    last = {term.rpartition("/")[2]: each[:, :, -1].mean(axis=-1) for term, each in result.metrics.items()}
    metrics, figures = {}, {}
    for i, row in enumerate(rows):
        runs = []
        for j in range(config.num_seeds):
            say(f"{TITLES[row]}, seed {config.seed + j}: scoring")
            params = result.state(i, j).params
            codes = evaluation.embed(model, params, found.x.reshape(len(found.x), -1))
            trained = (evaluation.active_units(codes), *(float(last[term][i, j]) for term in ("recon_nats", "kl_nats")))
            runs.append(score(config, codes, found, config.seed + j) | dict(zip(TRAINED, trained, strict=True)))
            if not j:
                figures[f"{row}_units"] = draw(row, partial(evaluation.call, model, params, "generate"), codes, found)
        metrics[row] = {metric: [run[metric] for run in runs] for metric in runs[0]}
    return metrics, figures


def beside(config: Config, found: data.Factored) -> dict[str, dict[str, list[float]]]:
    """The factors as codes, and the principal components, as many as there are units."""
    x = found.x.reshape(len(found.x), -1)
    centred = x - x.mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, : -config.latent_dim - 1 : -1]
    codes = {"factors": found.factors.astype(np.float32), "pca": centred @ directions}
    return {row: {name: [value] for name, value in score(config, z, found, config.seed).items()}
            for row, z in codes.items()}  # fmt: skip


def draw(row: str, generate: Callable[[np.ndarray], Any], codes: np.ndarray, found: data.Factored) -> "Figure":
    """One unit a line, from its lowest to its highest code; the others are those of one image of middling factors.

    The widest come first. Behind the number of a unit stands the factor that it knows most of, and the share of the
    factor's entropy.
    """
    from aejax import plots

    information = evaluation.mutual_information(codes, found.factors)
    known = information / evaluation.mutual_information(found.factors, found.factors).diagonal()
    middle = np.abs(found.factors - found.factors.max(axis=0) / 2).sum(axis=1).argmin()
    lines = {}
    for unit in np.argsort(-codes.var(axis=0)):
        z = np.tile(codes[middle], (9, 1))
        z[:, unit] = np.linspace(codes[:, unit].min(), codes[:, unit].max(), len(z))
        best = int(known[unit].argmax())
        lines[f"unit {unit}: {found.factor_names[best]} {100 * known[unit, best]:.0f} %"] = np.asarray(generate(z))
    return plots.image_rows(lines, found.x.shape[1:], title=f"{TITLES[row]}: the code, unit by unit")


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Method by method; what is done is kept, and not repeated with `--resume`."""
    from aejax.runner.console import list_figures
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    check(config)
    folder = open_folder("disentangle", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        folder.start()
        folder.figures.mkdir(exist_ok=True)
        found = data.load_factors(config.dataset)
        keep = partial(kept, config, folder.path)
        metrics = keep("beside", lambda: (beside(config, found), {}))
        by_row = settings(config)
        for name in dict.fromkeys(name for name, _ in by_row.values()):
            rows = {row: hparams for row, (other, hparams) in by_row.items() if other == name}
            metrics |= keep(name, partial(measure, config, name, rows, found, bars.say))
        summary = {"experiment": "disentangle", **to_dict(config), **provenance(), "metrics": metrics}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


def kept(config: Config, path: Path, name: str, make: Callable[[], Any]) -> dict[str, Any]:
    """The metrics of a part of the study, from its file, or made; then its figures are written first."""
    from aejax import plots
    from aejax.runner.folder import read_json, write_json

    piece, sizes = read_json(path / f"{name}.json"), {"num_epochs": config.num_epochs, "num_seeds": config.num_seeds}
    if piece is None or any(piece.get(size) != value for size, value in sizes.items()):
        metrics, figures = make()
        for title, figure in figures.items():
            plots.save(figure, path / "figures" / f"{title}.png")
        piece = {**sizes, "metrics": metrics}
        write_json(path / f"{name}.json", piece)
    return piece["metrics"]


def table(summary: dict[str, Any]) -> str:
    """Scores by method: mean and deviation over the seeds, in Markdown."""
    head = ["", *SCORES.values(), "active units", "reconstruction, KL, nats", "seeds"]
    rows = []
    for row, found in summary["metrics"].items():
        trained = ["", ""]
        if TRAINED[0] in found:
            units, *nats = (study.spread(found[name]) for name in TRAINED)
            trained = [units, ", ".join(nats)]
        scores = [study.spread(found[name]) for name in SCORES]
        rows.append([TITLES[row], *scores, *trained, str(len(found["mig"]))])
    return study.table(head, rows)


if __name__ == "__main__":
    study.command_line("disentangle", Config, __doc__, body)
