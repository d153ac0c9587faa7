"""Discrete codes side by side: one network and as many bits, by learned codebooks, by a grid, and by signs.

Every row writes an image as four tokens of 64 values each, 24 bits, from an encoder and a decoder with the same hidden
layers. The codebooks of VQ-VAE begin at k-means centres and are moved by running means or by a gradient, with and
without the revival of entries that hardly anything chooses; FSQ rounds each of three numbers to four levels; LFQ takes
the signs of six, with its entropy term and without. Codes are as long as that takes, 8 numbers for VQ, 12 and 24.

Perplexity is how many tokens the test images use, were they used evenly, of all four places together.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax import data, evaluation, runner
from aejax.data import Dataset
from aejax.runner import study
from aejax.runner.pieces import check_rows
from aejax.runner.study import Runs, Study
from experiments import fsq, lfq, vq_vae

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "means": "VQ, running means",
    "means_revived": "VQ, running means, revival",
    "gradient": "VQ, gradient",
    "gradient_revived": "VQ, gradient, revival",
    "fsq": "FSQ, 4 x 4 x 4",
    "lfq": "LFQ, 6 bits",
    "lfq_alone": "LFQ, 6 bits, no entropy term",
}
_WORDS, _REVIVAL, _SHOWN = 4, 0.1, 12


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    """digits or another set, or a path to .npz (x, y) with x in [0, 1]."""
    rows: tuple[str, ...] = tuple(TITLES)
    """Which codes."""
    hidden_dims: tuple[int, ...] = (256,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""
    num_epochs: int = 100
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    num_seeds: int = 1
    """Runs of each row."""
    seed: int = 0
    """The first one."""


def runs(config: Config) -> Runs:
    """Every code with every seed."""
    check_rows(config.rows, TITLES)
    shared = {name: getattr(config, name) for name in ("dataset", "hidden_dims", "num_epochs", "batch_size")}
    shared |= {"validation": 0.0}
    by = lambda way, revival: vq_vae.Config(
        latent_dim=2 * _WORDS, num_entries=64, entry_dim=2, codebook_by=way, revival=revival, **shared
    )
    signs = lfq.Config(latent_dim=6 * _WORDS, bits=6, **shared)
    alone = dataclasses.replace(signs, hparams=signs.hparams._replace(entropy=0.0))
    known = {
        "means": (vq_vae.EXPERIMENT, by("means", 0.0)),
        "means_revived": (vq_vae.EXPERIMENT, by("means", _REVIVAL)),
        "gradient": (vq_vae.EXPERIMENT, by("gradient", 0.0)),
        "gradient_revived": (vq_vae.EXPERIMENT, by("gradient", _REVIVAL)),
        "fsq": (fsq.EXPERIMENT, fsq.Config(latent_dim=3 * _WORDS, levels=(4, 4, 4), **shared)),
        "lfq": (lfq.EXPERIMENT, signs),
        "lfq_alone": (lfq.EXPERIMENT, alone),
    }
    return study.seeded({row: known[row] for row in config.rows}, config.seed, config.num_seeds)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    keys = ("test_perplexity", "used_entries", "test_sse", "probe_accuracy")
    rows = []
    for row in summary["rows"]:
        found = summary["metrics"][row]
        cells = [study.spread(found[key]) if key in found else "" for key in keys]
        rows.append([TITLES[row], *cells, study.cost(found)])
    return study.table(("", "perplexity of 64", "used", "test SSE", "probe", "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Reconstructions of the same test images, of the first seed."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    few = data.flatten(dataset).test.x[:_SHOWN]
    rows = {"test images": np.asarray(few)}
    for row in config.rows:
        _, model, state = runner.load(path / f"{row}-{config.seed}")
        rows[TITLES[row]] = np.asarray(evaluation.reconstruct(model, state.params, few))
    title = f"{dataset.name}, {_WORDS} tokens of 64"
    return {"reconstructions": plots.image_rows(rows, dataset.image_shape, title=title)}


STUDY = Study("codebooks", Config, runs, table, draw)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
