"""Recommendation: hidden ratings by AutoRec and biases, lists by Mult-VAE, Mult-DAE, EASE, item-kNN and popularity."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax.checks import InputError, check_count
from aejax.data import load_ratings
from aejax.runner import study
from aejax.runner.pieces import Found, Piece, PiecedStudy, main
from experiments.studies import recommendation_lists, recommendation_ratings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS: dict[str, Any] = {"ratings": recommendation_ratings, "lists": recommendation_lists}
COLUMNS = {
    "ratings": {"rmse": "RMSE, test ratings", "decay": "weight decay, a rating"},
    "lists": {
        "recall_20": "recall@20", "recall_50": "recall@50", "ndcg_100": "NDCG@100", "chosen": "chosen",
        "users_per_second": "users a second",
    },
}  # fmt: skip
_COUNTS = {"ratings": "times", "lists": "told"}  # the row that has no errors, but what its groups are


@dataclasses.dataclass(frozen=True)
class Config:
    dataset: str = "ratings"
    """ratings, made up with a known truth; movielens_small or jester5k in AEJAX_DATA."""
    ratings: recommendation_ratings.Options = recommendation_ratings.Options()
    """Hidden ratings."""
    lists: recommendation_lists.Options = recommendation_lists.Options()
    """Ranked lists."""
    num_seeds: int = 3
    """Splits, each with networks of its own."""
    seed: int = 0
    """The first one."""


def pieces(config: Config) -> Iterator[Piece]:
    """Part by part and seed by seed, all rows of a table at once; what cannot be run is refused first."""
    check_count(**{"--num-seeds": config.num_seeds})
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")
    recommendation_ratings.check(config.ratings)
    recommendation_lists.check(config.lists)
    found = load_ratings(config.dataset)
    for seed in range(config.seed, config.seed + config.num_seeds):
        recommendation_lists.held(found, seed)  # refuses a set that is too small
        for part, module in PARTS.items():
            yield Piece(f"{part}-{seed}", part, partial(module.measure, found, getattr(config, part), seed))


def metrics_of(config: Config, found: Found) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """By part, by row: each metric, of every seed."""
    metrics: dict[str, dict[str, dict[str, list[Any]]]] = {part: {} for part in PARTS}
    for seed in range(config.seed, config.seed + config.num_seeds):
        for part in PARTS:
            rows = {row: each for row, each in found[f"{part}-{seed}"][part].items() if isinstance(each, dict)}
            for row, values in rows.items():
                for name, value in values.items():
                    metrics[part].setdefault(row, {}).setdefault(name, []).append(value)
    return metrics


def table(summary: dict[str, Any]) -> str:
    """Both tables, mean and deviation over the seeds; what was chosen by validation as the list of its values."""
    texts = []
    for part, columns in COLUMNS.items():
        rows = []
        for row, title in PARTS[part].TITLES.items():
            found = summary["metrics"][part].get(row)
            if found is None:
                continue
            cells = [_cell(name, found[name]) if name in found else "" for name in columns]
            rows.append([title, *cells, str(len(next(iter(found.values()))))])
        texts.append(study.table((part, *columns.values(), "seeds"), rows))
    return "\n".join(texts)


def _cell(name: str, values: list[float]) -> str:
    if name in ("chosen", "decay"):
        return ", ".join(f"{value:g}" for value in sorted(set(values)))
    return study.spread(values)


def draw(config: Config, found: Found) -> "dict[str, Figure]":
    """RMSE by how often an item was rated, and NDCG by how many items a user told; a curve is the mean over seeds."""
    from aejax import plots

    metrics = metrics_of(config, found)
    heads = {
        "ratings": ("hidden ratings", "ratings of the item, mean of each fifth of the test ratings", "RMSE"),
        "lists": ("lists", "items that the user told, mean of each third of the users", "NDCG@100"),
    }
    panels = {}
    for part, (title, x_label, y_label) in heads.items():
        rows = {row: metrics[part][row] for row in PARTS[part].TITLES if row in metrics[part] and row != "mean"}
        x = np.nanmean(metrics[part][_COUNTS[part]]["grouped"], axis=0)
        curves = {
            PARTS[part].TITLES[row]: plots.Curve(x, np.array(values["grouped"]), i, row == "truth")
            for i, (row, values) in enumerate(rows.items())
        }
        panels[title] = plots.Lines(x_label, y_label, curves)
    return {"groups": plots.line_panels(panels, title=f"{config.dataset}: recommendation, by how much is known")}


STUDY = PiecedStudy("recommendation", Config, pieces, metrics_of, table, draw)


if __name__ == "__main__":
    main(STUDY, __doc__)
