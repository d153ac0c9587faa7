"""Posteriors that are flows, of several depths, beside the Gaussian one: what is gained in the bound, at which price.

All rows see the same images as often, with the same decoder. The difference between the bound and the likelihood is
what the posterior lacks: its KL divergence from the true one. On the digits, binarised anew in each pass, one step
takes it from 0.43 +- 0.08 to 0.28 +- 0.10 nats, two and four steps to 0.27; the bound gains 0.12, 500 importance
samples are worth 254 in place of 210, and -log p stays at 22.8 (3 seeds, 2026-11-26, 80 s in all on two shared CPU
cores): a code of 8 numbers of these images has a posterior that is nearly Gaussian.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from aejax.checks import InputError
from aejax.data import Dataset
from aejax.methods.vae import HParams
from aejax.runner import Trained, study
from aejax.runner.study import Runs, Study
from experiments import iaf_vae, vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits, a prepared TFDS image set such as mnist, or a path to .npy or .npz (x, optional y)."""
    latent_dim: int = 8
    """Size of the code."""
    hidden_dims: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    depths: tuple[int, ...] = (1, 2, 4)
    """Steps of the flow, one row each."""
    flow_dims: tuple[int, ...] = (64,)
    """Widths of the hidden layers of the network of a step."""
    num_epochs: int = 200
    """Passes over the training examples, which are binarised anew in each."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    lr: float = 1e-3
    """Learning rate of Adam, its peak; it falls along a cosine."""
    nll_samples: int = 500
    """Importance samples per test image for test_nll_nats."""
    num_seeds: int = 3
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """The Gaussian posterior and each depth, with every seed."""
    if config.nll_samples < 1 or len(set(config.depths)) != len(config.depths):
        raise InputError("--nll-samples has to be at least 1, and each of --depths another.")
    names = {field.name for field in dataclasses.fields(config)} - {"lr", "num_seeds", "seed", "depths", "flow_dims"}
    shared: dict[str, Any] = {name: getattr(config, name) for name in names}
    shared |= {"binarize": "stochastic", "schedule": "cosine", "hparams": HParams(config.lr)}
    gaussian, flow = (each.EXPERIMENT._replace(measure=measure, draw=lambda _: {}) for each in (vae, iaf_vae))
    rows: dict[str, Any] = {"gaussian": (gaussian, vae.Config(**shared))}
    for depth in config.depths:
        rows[f"iaf{depth}"] = flow, iaf_vae.Config(**shared, num_steps=depth, flow_dims=config.flow_dims)
    return study.seeded(rows, config.seed, config.num_seeds)


def measure(trained: Trained) -> dict[str, float]:
    """The bound, the likelihood, active units, codes against the prior, and the number of parameters."""
    sizes = [leaf.size for leaf in jax.tree.leaves(trained.state.params)]
    return vae.of_posterior(trained) | {"num_params": float(sum(sizes))}


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    head = (
        "posterior", "parameters", "bound, nats", "-log p(x)", "their difference", "effective samples", "active units",
        "seeds, seconds a run",
    )  # fmt: skip
    rows = []
    for name, found in summary["metrics"].items():
        gap = [a - b for a, b in zip(found["test_bound_nats"], found["test_nll_nats"], strict=True)]
        rows.append((
            "Gaussian" if name == "gaussian" else f"flow of {name.removeprefix('iaf')}",
            f"{found['num_params'][0]:,.0f}",
            *(study.spread(values) for values in (found["test_bound_nats"], found["test_nll_nats"], gap)),
            *(study.spread(found[key]) for key in ("nll_ess", "active_units")),
            study.cost(found),
        ))  # fmt: skip
    return study.table(head, rows) + f"\n{summary['nll_samples']} importance samples a test image.\n"


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    return {}


STUDY = Study("flows", Config, runs, table, draw)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
