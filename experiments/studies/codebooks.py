"""Discrete codes side by side: one network and as many bits, by learned codebooks, by a grid, and by signs.

Every row writes an image as four tokens of 64 values each, 24 bits, from an encoder and a decoder with the same hidden
layers. The codebooks of VQ-VAE begin at k-means centres and are moved by running means or by a gradient, with and
without the revival of entries that hardly anything chooses; FSQ rounds each of three numbers to four levels; LFQ takes
the signs of six, with its entropy term and without. Codes are as long as that takes, 8 numbers for VQ, 12 and 24.

Perplexity is how many tokens the test images use, were they used evenly, of all four places together.

Afterwards an autoregressive prior learns the tokens of the training images, each given those before it, which see it
as a name: `pixel_cnn` on vectors; a tenth of the images only tells when to end. What it needs for the tokens of a test
image is the cost of the code, `code_nats`, 24 log 2 = 16.64 if all tokens were alike; `code_apart_nats` is what the
tokens cost by how often each stands at its place, in all training images and one more of each. Draws of the prior,
decoded, are samples of the whole.

With `--net conv` tokens stand in a grid, of a quarter of the height and width of the image: 4 of the digits, 49 of
MNIST. Encoder and decoder are convolutions, and the prior is one of gated convolutions, as in the paper of VQ-VAE.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aejax import Fitted, data, evaluation, learn, runner
from aejax.checks import InputError
from aejax.data import Dataset
from aejax.evaluation import call, over_batches
from aejax.likelihoods import Categorical
from aejax.nets.conv import ConvEncoder, strided_sizes
from aejax.runner import study
from aejax.runner.config import later
from aejax.runner.pieces import check_rows
from aejax.runner.study import Metrics, Once, Runs, Study
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
    """Widths of the hidden layers of a dense encoder; the decoder mirrors them."""
    net: Literal["dense", "conv"] = later("dense")
    """Dense networks, or convolutions with a grid of tokens and a prior that sees it as one."""
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
    shared = {name: getattr(config, name) for name in ("dataset", "num_epochs", "batch_size", "net")}
    shared |= {"grid": True} if config.net == "conv" else {"hidden_dims": config.hidden_dims}
    shared |= {"validation": 0.0}
    shape = grid(config)
    words = _WORDS if shape is None else math.prod(shape)
    by = lambda way, revival: vq_vae.Config(
        latent_dim=2 * words, num_entries=64, entry_dim=2, codebook_by=way, revival=revival, **shared
    )
    signs = lfq.Config(latent_dim=6 * words, bits=6, **shared)
    alone = dataclasses.replace(signs, hparams=signs.hparams._replace(entropy=0.0))
    known = {
        "means": (vq_vae.EXPERIMENT, by("means", 0.0)),
        "means_revived": (vq_vae.EXPERIMENT, by("means", _REVIVAL)),
        "gradient": (vq_vae.EXPERIMENT, by("gradient", 0.0)),
        "gradient_revived": (vq_vae.EXPERIMENT, by("gradient", _REVIVAL)),
        "fsq": (fsq.EXPERIMENT, fsq.Config(latent_dim=3 * words, levels=(4, 4, 4), **shared)),
        "lfq": (lfq.EXPERIMENT, signs),
        "lfq_alone": (lfq.EXPERIMENT, alone),
    }
    return study.seeded({row: known[row] for row in config.rows}, config.seed, config.num_seeds)


def grid(config: Config) -> tuple[int, int] | None:
    """Height and width of the grid of tokens; None for tokens without one."""
    if config.net == "dense":
        return None
    dataset = data.load(config.dataset, validation=0.0)
    if dataset.image_shape is None:
        raise InputError(f"--net conv needs images; {config.dataset} holds vectors.")
    return strided_sizes(dataset.image_shape, ConvEncoder.strides)[-1]


def of_folders(config: Config, path: Path, once: Once) -> Metrics:
    """What the tokens of every run cost by a prior that has learnt those of its training images."""
    found = {}
    for name in runs(config):
        metrics = once(f"prior-{name}", partial(by_prior, path, name, grid(config), _SHOWN))
        found[name] = {key: value for key, value in metrics.items() if key != "seconds"}
    return study.by_row(found)


def by_prior(
    path: Path, name: str, shape: tuple[int, int] | None, n: int, say: Callable[[str], None]
) -> dict[str, float]:
    """`code_nats` and `code_apart_nats` of a run; the tokens of n images, drawn from its prior, are kept beside it."""
    own, model, state = runner.load(path / name)
    dataset = runner.load_data(own)
    of = partial(over_batches, partial(call, model, state.params, "tokens"))
    train, test = of(dataset.train.x), of(dataset.test.x)
    say("a prior of its tokens")
    prior = learn_prior(train, model.num_entries, own.seed, shape)
    drawn = as_tokens(prior.sample(n, own.seed), model.num_entries)
    np.save(path / f"prior-{name}.npy", drawn.reshape(n, -1))
    x = as_levels(test, model.num_entries).reshape(-1, *prior.model.data_shape)
    nats = over_batches(partial(call, prior.model, prior.params, "nll"), *known(prior, x))
    return {"code_nats": float(nats.mean()), "code_apart_nats": apart(train, test, model.num_entries)}


def decoded(path: Path, name: str, model: Any, params: Any) -> np.ndarray:
    """The images `[n, ...]` of the tokens that `by_prior` has kept."""
    codes = call(model, params, "entries", np.load(path / f"prior-{name}.npy"))
    return np.asarray(call(model, params, "generate", codes))


def learn_prior(tokens: np.ndarray, num_entries: int, seed: int, shape: tuple[int, int] | None = None) -> Fitted:
    """A `pixel_cnn` of tokens `[N, slots]`, which ends where every tenth row, held out, is foretold no better.

    Of a grid of that shape it is one of gated convolutions.
    """
    x = as_levels(tokens, num_entries)
    held_out = np.arange(len(x)) % 10 == 9
    net: dict[str, Any] = {"hidden_dims": (256,)}
    if shape is not None:
        x, net = x.reshape(-1, *shape, 1), {"net": "conv", "features": (64, 64, 64), "kernel_size": 3}
    return learn(
        "pixel_cnn", x[~held_out], validation=x[held_out], latent_dim=64, one_hot=True, **net,
        likelihood=Categorical(num_entries), num_epochs=200, patience=10, seed=seed,
    )  # fmt: skip


def as_levels(tokens: np.ndarray, num_entries: int) -> np.ndarray:
    """Tokens as a likelihood of so many levels has them, in [0, 1]."""
    return (tokens / (num_entries - 1)).astype(np.float32)


def as_tokens(x: np.ndarray, num_entries: int) -> np.ndarray:
    return np.round(x * (num_entries - 1)).astype(np.int32)


def known(prior: Fitted, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `nll` takes: the features of each place, and x."""
    return over_batches(partial(call, prior.model, prior.params, "encode"), x), x


def apart(train: np.ndarray, test: np.ndarray, num_entries: int) -> float:
    """The mean nats of the tokens of a test row, each by how often it stands at its place in training, plus one."""
    nats = 0.0
    for own, asked in zip(train.T, test.T, strict=True):
        counts = np.bincount(own, minlength=num_entries) + 1.0
        nats -= np.log(counts / counts.sum())[asked].mean()
    return float(nats)


def table(summary: dict[str, Any]) -> str:
    """The table in Markdown."""
    keys = ("test_perplexity", "used_entries", "test_sse", "probe_accuracy", "code_nats", "code_apart_nats")
    rows = []
    for row in summary["rows"]:
        found = summary["metrics"][row]
        cells = [study.spread(found[key]) if key in found else "" for key in keys]
        rows.append([TITLES[row], *cells, study.cost(found)])
    head = ("", "perplexity of 64", "used", "test SSE", "probe", "nats by a prior", "nats apart")
    return study.table((*head, "seeds, seconds a run"), rows)


def draw(config: Config, path: Path, dataset: Dataset) -> "dict[str, Figure]":
    """Reconstructions of the same test images, and draws of the priors, of the first seed."""
    from aejax import plots

    if dataset.image_shape is None:
        return {}
    few = (dataset if config.net == "conv" else data.flatten(dataset)).test.x[:_SHOWN]
    rows, drawn = {"test images": np.asarray(few)}, {}
    for row in config.rows:
        name = f"{row}-{config.seed}"
        _, model, state = runner.load(path / name)
        rows[TITLES[row]] = np.asarray(evaluation.reconstruct(model, state.params, few))
        drawn[TITLES[row]] = decoded(path, name, model, state.params)
    shape = grid(config)
    title = f"{dataset.name}, {_WORDS if shape is None else math.prod(shape)} tokens of 64"
    return {
        "reconstructions": plots.image_rows(rows, dataset.image_shape, title=title),
        "samples": plots.image_rows(drawn, dataset.image_shape, title=f"{title}, drawn from a prior of tokens"),
    }


STUDY = Study("codebooks", Config, runs, table, draw, of_folders=of_folders)


if __name__ == "__main__":
    study.main(STUDY, __doc__)
