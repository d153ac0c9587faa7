"""Users a second in training Mult-VAE, against RecBole's MultiVAE: the same network, users and batches.

Users have random items, which changes no time. Both keep them sparse and make a batch of them dense, RecBole by its own
data loader and trainer, without its validation and files. The two take turns, each in a process of its own; quoted are
medians. RecBole 1.2.1 asks for a version of ray that newer Pythons lack; it trains without:
`pip install --no-deps recbole`, and what it then misses. Without it its rows are left out.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from aejax import training
from aejax.algorithm import transform_batch
from aejax.checks import InputError
from aejax.data import sparse
from aejax.methods.mult_vae import MultVAE, mult_vae
from aejax.nets import init_params
from experiments.benchmarks.timing import Candidate, installed, machine, race, ratio

HIDDEN, CODE = 600, 64


@dataclasses.dataclass(frozen=True)
class Config:
    num_users: int = 5000
    """Users."""
    num_items: int = 2000
    """Items."""
    each: int = 60
    """Items of a user."""
    batch_size: int = 100
    """Users per step."""
    rounds: int = 5
    """How often each candidate has its turn, an epoch each."""
    out: Path | None = None
    """Writes the figures as JSON."""


def liked(config: Config) -> np.ndarray:
    """Items of each user, all different: `[U, each]`."""
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(config.num_items, config.each, replace=False) for _ in range(config.num_users)])


def ours(config: Config) -> Candidate:
    """Seconds of an epoch of `training.train`."""
    items = liked(config)
    row = np.repeat(np.arange(config.num_users), config.each)
    shape = (config.num_users, config.num_items)
    rows = sparse.rows(row, items.ravel(), np.ones(items.size, np.float32), shape)
    model = MultVAE.dense(config.num_items, CODE, hidden_dims=(HIDDEN,))
    algo = mult_vae(model)
    state = algo.init(init_params(model, jax.random.key(0), np.zeros((1, config.num_items), np.float32)))
    algo = transform_batch(algo, sparse.Dense(config.num_items))
    sizes: dict[str, Any] = {"batch_size": config.batch_size, "num_epochs": 10**6}
    for chunk in training.train(algo, state, rows, jax.random.key(1), **sizes):
        steps = len(next(iter(chunk.metrics.values())))
        if chunk.seconds > 0.3 and steps > 1:  # the first chunks compile, or are too short to be timed
            yield chunk.seconds / steps * (config.num_users / config.batch_size)


def recbole(config: Config) -> Candidate:
    """Seconds of an epoch of RecBole's trainer."""
    for name, kind in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        setattr(np, name, kind)  # names of NumPy 1, which it asks for
    from recbole.config import Config as TheirConfig
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender.multivae import MultiVAE
    from recbole.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # its logs go where it stands
        lines = [f"{user}\t{item}" for user, items in enumerate(liked(config)) for item in items]
        Path(folder, "made").mkdir()
        Path(folder, "made", "made.inter").write_text("\n".join(["user_id:token\titem_id:token", *lines]))
        settings = {
            "data_path": folder, "load_col": {"inter": ["user_id", "item_id"]}, "mlp_hidden_size": [HIDDEN],
            "latent_dimension": 2 * CODE, "train_batch_size": config.batch_size, "train_neg_sample_args": None,
            "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "group_by": "user", "order": "RO", "mode": "full"},
            "checkpoint_dir": folder, "show_progress": False, "state": "ERROR",
        }  # fmt: skip
        theirs = TheirConfig(model="MultiVAE", dataset="made", config_dict=settings)
        dataset = create_dataset(theirs)
        train_data, *_ = data_preparation(theirs, dataset)
        model = MultiVAE(theirs, train_data.dataset).to(theirs["device"])
        trainer = Trainer(theirs, model)
        while True:
            start = time.perf_counter()
            trainer._train_epoch(train_data, 0)
            yield time.perf_counter() - start


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    from aejax.runner.folder import write_json

    config = tyro.cli(Config, prog="python -m experiments recommender", description=__doc__)
    if config.num_users % config.batch_size:
        raise InputError(f"--batch-size {config.batch_size} has to divide --num-users {config.num_users}.")
    console, starts = Console(), {"aejax": partial(ours, config)}
    if installed("recbole"):
        starts["RecBole"] = partial(recbole, config)
    turns = race(starts, config.rounds)
    shown, figures = Table("seconds a pass", "median", "least", "most", "times ours", "users a second"), {}
    for name, values in turns.items():
        seconds = [value / 1e3 for value in (statistics.median(values), min(values), max(values))]
        times, rate = ratio(values, turns["aejax"]), config.num_users / seconds[0]
        figures[name] = {"seconds": seconds, "times_ours": times, "users_per_second": rate}
        shown.add_row(name, *(f"{value:.3f}" for value in seconds), f"{times:.2f}", f"{rate:,.0f}")
    console.print(shown)
    if "RecBole" not in turns:
        console.print("recbole is not installed, and its row left out.")
    if config.out is not None:
        sizes = {name: value for name, value in dataclasses.asdict(config).items() if name != "out"}
        write_json(config.out, {"machine": machine(), "config": sizes, "passes": figures})


if __name__ == "__main__":
    main()
