"""Recommendation: hidden ratings by AutoRec and biases, lists by Mult-VAE, Mult-DAE, EASE, item-kNN and popularity."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aejax.checks import InputError, check_count
from aejax.data import load_ratings
from aejax.runner import study
from aejax.runner.config import to_dict
from experiments.studies import recommendation_lists, recommendation_ratings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

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


def check(config: Config) -> None:
    """Refuses what cannot be run."""
    check_count(**{"--num-seeds": config.num_seeds})
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it has to be 0 or more.")
    recommendation_ratings.check(config.ratings)
    recommendation_lists.check(config.lists)


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    """Measures part by part and seed by seed; what is done is kept, and not repeated with `--resume`."""
    from aejax import plots
    from aejax.runner.console import list_figures
    from aejax.runner.environment import provenance
    from aejax.runner.folder import open_folder, read_json, write_json
    from aejax.runner.options import refuse_for_sweeps

    refuse_for_sweeps(launch)
    check(config)
    folder = open_folder("recommendation", config, launch.workdir, resume=launch.resume)
    if not folder.is_finished:
        found = load_ratings(config.dataset)
        for seed in range(config.seed, config.seed + config.num_seeds):
            recommendation_lists.held(found, seed)  # refuses a set that is too small
        folder.start()
        metrics: dict[str, dict[str, dict[str, list[Any]]]] = {part: {} for part in PARTS}
        for seed in range(config.seed, config.seed + config.num_seeds):
            for part, module in PARTS.items():
                file = folder.path / f"{part}-{seed}.json"
                piece = read_json(file)
                if piece is None:
                    piece = module.measure(found, getattr(config, part), seed, bars.say)
                    write_json(file, piece)
                for row, values in piece.items():
                    for name, value in values.items():
                        metrics[part].setdefault(row, {}).setdefault(name, []).append(value)
        folder.figures.mkdir(exist_ok=True)
        for name, figure in draw(config, metrics).items():
            plots.save(figure, folder.figures / f"{name}.png")
        summary = {"experiment": "recommendation", **to_dict(config), **provenance(), "metrics": metrics}
        write_json(folder.path / "summary.json", summary)

    def report() -> None:
        bars.console.print(table(folder.summary), markup=False, highlight=False)
        list_figures(bars.console, folder.path)

    return report


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


def draw(config: Config, metrics: dict[str, dict[str, dict[str, list[Any]]]]) -> "dict[str, Figure]":
    """RMSE by how often an item was rated, and NDCG by how many items a user told; a curve is the mean over seeds."""
    from aejax import plots

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


if __name__ == "__main__":
    study.command_line("recommendation", Config, __doc__, body)
