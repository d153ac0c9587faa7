"""The figures of the README's table: every row with its seeds. Writes docs/figures.json and the table itself.

A run that is finished in runs/ is not repeated, and an unfinished one goes on, so this may be interrupted.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aejax.runner import Experiment, study
from aejax.runner.config import to_dict
from aejax.runner.study import spread
from experiments import aae, vae

if TYPE_CHECKING:
    from aejax.runner.console import Bars
    from aejax.runner.options import Launch

ROOT = Path(__file__).parents[2]
START, END = "<!-- figures: written by python -m experiments figures -->\n", "<!-- end of figures -->\n"


class Row(NamedTuple):
    """One row of the table."""

    title: str
    experiment: Experiment
    config: Any
    num_seeds: int
    shown: dict[str, str]  # metric -> the published or exact figure beside it


MNIST: dict[str, Any] = {"dataset": "mnist", "validation": 0.0}
VAE = vae.Config(**MNIST, hidden_dims=(500,), latent_dim=20, num_epochs=10)
ROWS = {
    "vae": Row(
        "VAE 784-500-20, binarised", vae.EXPERIMENT, dataclasses.replace(VAE, binarize="stochastic"), 3,
        {"test_bound_nats": "about 104 (Flax, fixed binarisation)", "test_nll_nats": "", "active_units": ""},
    ),
    "vae_real": Row("VAE 784-500-20, real-valued", vae.EXPERIMENT, VAE, 2, {"test_bound_nats": ""}),
    "aae_digits": Row(
        "AAE, 2-D code, digits", aae.EXPERIMENT, aae.Config(), 5,
        {"disc_loss": "1.386 (2 log 2)", "code_mmd_p": "", "code_mean_max": "0", "code_var_dev": "0"},
    ),
    "aae": Row(
        "AAE, 2-D code", aae.EXPERIMENT, aae.Config(**MNIST, num_epochs=30), 5,
        {"disc_loss": "1.386 (2 log 2)", "code_mmd_p": "", "code_mean_max": "0", "code_var_dev": "0"},
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows to run; the others keep what docs/figures.json has of them."""


def body(config: Config, launch: "Launch", bars: "Bars") -> Callable[[], None]:
    from aejax.checks import InputError, nearest
    from aejax.runner.environment import provenance
    from aejax.runner.folder import default_path, write_json
    from aejax.runner.launch import execute

    unknown = [name for name in config.rows if name not in ROWS]
    if unknown:
        raise InputError(f"Unknown row {unknown[0]!r}. {nearest(unknown[0], ROWS, what='rows')}")
    file = ROOT / "docs" / "figures.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in config.rows:
        row, summaries = ROWS[name], []
        for seed in range(row.num_seeds):
            own = dataclasses.replace(row.config, seed=seed)
            path = default_path(row.experiment.name, own)
            begun = dataclasses.replace(launch, resume=path.exists())
            _, summary = execute(row.experiment, own, begun, bars, quiet=True)
            summaries.append(summary)
        results[name] = {
            "config": {key: value for key, value in to_dict(row.config).items() if key != "seed"},
            "metrics": {key: [s["metrics"][key] for s in summaries] for key in summaries[0]["metrics"]},
            "seconds": [s["wall_seconds"] for s in summaries],
            "steps_per_second": [s["steps_per_second"] for s in summaries],
            **provenance(),
        }
        write_json(file, results)
    write_table(results)
    return lambda: bars.console.print(table(results), markup=False, highlight=False)


def table(results: dict[str, Any]) -> str:
    """The table in Markdown: mean and standard deviation over seeds."""
    lines = [
        "| MNIST unless said | measured | published or exact | seeds, seconds a run |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in ROWS.items():
        if name not in results:
            continue
        result = results[name]
        measured = [f"{metric} {spread(result['metrics'][metric])}" for metric in row.shown]
        published = [f"{metric} {figure}" for metric, figure in row.shown.items() if figure]
        cost = f"{len(result['seconds'])}, {np.mean(result['seconds']):.0f}"
        cells = (row.title, "<br>".join(measured), "<br>".join(published), cost)
        lines.append(f"| {' | '.join(cells)} |")
    dates = sorted({result["date"] for result in results.values()})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    lines.append(f"\nMean and standard deviation over seeds. `make figures`, {when}; settings in docs/figures.json.")
    return "\n".join(lines) + "\n"


def write_table(results: dict[str, Any]) -> None:
    """Puts the table between its marks in the README."""
    from aejax.runner.folder import write_text

    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    write_text(readme, before + START + table(results) + END + rest.split(END)[1])


if __name__ == "__main__":
    study.command_line("figures", Config, __doc__, body)
