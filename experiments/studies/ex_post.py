"""Samples of autoencoders without a prior: what is fitted to the codes afterwards decides, beside what trained them.

Every row trains the same encoder and decoder for as many passes: the plain AE, the RAE with each of its three
regularizers, the VAE and the WAE-MMD. A density is then fitted to the codes of the training images, draws of it are
decoded, as many as there are test images, and held against the training images by Frechet distance in the features of a
classifier that is trained on these (`evaluation.samples.classifier_features`); it is no FID, whose features are others.
Densities are the model's own prior, where it has one, one Gaussian, a mixture of Gaussians, and a flow. Codes of the
VAE are drawn from their posteriors, as its decoder has them in training. In the first row are the test images, and
beside the samples the reconstructions of these. Published on MNIST for the AE, by FID: 58.73 with one Gaussian and
10.66 with ten (Ghosh et al. 2020, table 1). In these features it is 10.5 and 1.9 on MNIST (one seed,
docs/adversarial.md), and on the digits 1.16 +- 0.05 and 0.81 +- 0.23 (3 seeds, 2026-11-27, 330 s in all on two shared,
busy CPU cores).
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from aejax import data, evaluation, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.evaluation import samples
from aejax.methods.rae import HParams
from aejax.methods.vae import VAE
from aejax.priors import GaussianMixture
from aejax.runner import study
from aejax.runner.study import Metrics, Once, Runs, Study
from experiments import ae, rae, vae, wae_mmd
from experiments.studies.generators import REAL, checked, sampled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "ae": "AE", "rae_weights": "RAE-L2", "rae_gradient": "RAE-GP", "rae_spectral": "RAE-SN, penalty", "vae": "VAE",
    "wae_mmd": "WAE-MMD",
}  # fmt: skip
_PLAIN: dict[str, Any] = {"ae": ae, "vae": vae, "wae_mmd": wae_mmd}
PENALTIES = {"weights": 1e-3, "gradient": 0.1, "spectral": 1e-2}
DENSITIES = {
    "frechet_prior": "own prior", "frechet_gaussian": "one Gaussian", "frechet_mixture": "{} Gaussians",
    "frechet_flow": "flow",
}  # fmt: skip
HEAD = {"frechet_reconstructed": "reconstructions", **DENSITIES, "test_sse": "test SSE"}
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another labelled image set, such as mnist, or a path to .npz (x, y) with x in [0, 1]."""
    rows: tuple[str, ...] = tuple(TITLES)
    """Methods."""
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_components: int = 10
    """Gaussians of the mixture."""
    flow_epochs: int = 50
    """Passes of the flow over the codes."""
    num_epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step, over all devices."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Every row with every seed."""
    shared = checked(config, TITLES, neighbours=1)
    if min(config.num_components, config.flow_epochs) < 1 or config.latent_dim < 2:
        raise InputError("--num-components and --flow-epochs have to be at least 1, --latent-dim 2 for the flow.")
    size = len(data.load(config.dataset, validation=0.0).train.x)
    if size < config.num_components:
        raise InputError(f"{config.dataset} has {size} training images, fewer than --num-components.")
    known: dict[str, Any] = {row: (each.EXPERIMENT, each.Config(**shared)) for row, each in _PLAIN.items()}
    for kind, penalty in PENALTIES.items():
        own = rae.Config(**shared, regularizer=kind, hparams=HParams(penalty=penalty))  # type: ignore[arg-type]
        known[f"rae_{kind}"] = rae.EXPERIMENT, own
    return study.seeded({row: known[row] for row in config.rows}, config.seed, config.num_seeds)


def densities(config: Config, folder: Path, train: data.Batch, seed: int) -> dict[str, tuple[Any, Any]]:
    """Of a run, the models with each density as their prior, and their parameters."""
    _, model, state = runner.load(folder)
    params, key = state.params, jax.random.key(seed)
    code_key, flow_key = jax.random.split(key)
    if isinstance(model, VAE):
        z = vae.drawn_codes(model, params, train, code_key)
    else:
        z = evaluation.embed(model, params, train.x)
    found = {} if model.prior is None else {"frechet_prior": (model, params)}
    for name, count in (("gaussian", 1), ("mixture", config.num_components)):
        found[f"frechet_{name}"] = model.clone(prior=GaussianMixture.of(z, count, seed=seed)), params
    flow = evaluation.with_flow(model, params, z, flow_key, num_epochs=config.flow_epochs, batch_size=config.batch_size)
    return found | {"frechet_flow": flow}


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """Frechet distances of the test images, and of every run those of its reconstructions and its samples."""
    dataset = data.flatten(data.load(config.dataset, validation=0.0))
    train, test = dataset.train, dataset.test.x
    assert train.y is not None
    features = samples.classifier_features(train.x, train.y, seed=0)
    known = features(train.x)
    distance = lambda x: samples.frechet_distance(known, features(x))
    found: Metrics = {REAL: {"frechet_reconstructed": [distance(test)]}}
    for row in config.rows:
        for seed in range(config.seed, config.seed + config.num_seeds):
            folder = path / f"{row}-{seed}"
            _, own, state = runner.load(folder)
            scores = {"frechet_reconstructed": distance(evaluation.reconstruct(own, state.params, test))}
            for name, (model, params) in densities(config, folder, train, seed).items():
                scores[name] = distance(sampled(model, params, jax.random.key(seed), len(test)))
            for name, value in scores.items():
                found.setdefault(row, {}).setdefault(name, []).append(value)
    return found


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown, the test images first, among the reconstructions."""
    head = [title.format(summary["num_components"]) for title in HEAD.values()]
    rows = []
    for row in (REAL, *summary["rows"]):
        found = summary["metrics"][row]
        cells = [study.spread(found[key]) if key in found else "" for key in HEAD]
        rows.append(["test images" if row == REAL else TITLES[row], *cells, study.cost(found)])
    return study.table(("", *head, "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Samples of the first seed, of every row by every density."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    flat, figures = data.flatten(dataset), {}
    for row in config.rows:
        made = {"test images": flat.test.x[:_SHOWN]}
        for name, own in densities(config, path / f"{row}-{config.seed}", flat.train, config.seed).items():
            made[DENSITIES[name].format(config.num_components)] = sampled(*own, jax.random.key(config.seed), _SHOWN)
        title = f"{dataset.name}, {TITLES[row]}: samples by density of the codes"
        figures[f"samples_{row}"] = plots.image_rows(made, dataset.image_shape, title=title)
    return figures


STUDY = Study("ex_post", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
