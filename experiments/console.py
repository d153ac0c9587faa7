"""What a person sees: the progress of a run and its closing table."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

UNITS = {
    "test_sse": "squared error per image, summed over pixels",
    "test_bound_nats": "nats per image",
    "test_nll_nats": "nats per image, importance sampled",
    "nll_samples": "importance samples per image",
    "nll_ess": "effective importance samples per image",
    "probe_accuracy": "logistic regression on the codes",
    "knn5_accuracy": "5 nearest neighbours on the codes",
    "jacobian_norm": "mean Frobenius norm of the encoder's Jacobian",
    "active_units": "code units whose mean varies by more than 0.01",
    "code_mmd": "unbiased MMD^2 of test codes to the prior",
    "code_mmd_p": "p-value of its permutation test",
    "code_mean_max": "largest |mean| of a code unit, test images",
    "code_var_dev": "largest |variance - 1| of a code unit, test images",
    "disc_loss": "nats, last 10 % of steps; 2 log 2 is 1.386",
    "pca_test_sse": "the same of PCA, in closed form",
    "principal_angle": "degrees, largest, to the PCA subspace",
}


class Bars:
    """Progress bars with the latest loss terms and the time left; lines now and then where there is no terminal."""

    def __init__(self, console: Console):
        self.console = console
        self.progress = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeRemainingColumn(), TextColumn("{task.fields[terms]}"), console=console,
        )  # fmt: skip
        self._last_line = time.monotonic()

    def __enter__(self) -> "Bars":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def add(self, name: str, num_steps: int) -> TaskID:
        return self.progress.add_task(name, total=num_steps, terms="")

    def update(self, task: TaskID, step: int, terms: dict[str, float]) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.progress.update(task, completed=step, terms=shown)
        if not self.console.is_terminal and time.monotonic() - self._last_line > 5:
            self._last_line = time.monotonic()
            bar = self.progress.tasks[task]
            left = "" if bar.time_remaining is None else f"  {bar.time_remaining:.0f} s left"
            self.console.print(f"{bar.description}: step {step} of {bar.total:.0f}{left}  {shown}", highlight=False)


def closing_table(summary: dict[str, Any]) -> Table:
    """The metrics of a run, each held against its published figure where there is one."""
    seconds, rate = summary["wall_seconds"], summary["steps_per_second"]
    title = f"{summary['experiment']} on {summary['dataset']}, seed {summary['seed']}"
    table = Table(title=title, caption=f"{seconds:.1f} s, {rate:.0f} steps/s" if rate else f"{seconds:.1f} s")
    for name, align in (("metric", "left"), ("value", "right"), ("published", "right"), ("difference", "right")):
        table.add_column(name, justify=align)  # type: ignore[arg-type]
    table.add_column("unit, source")
    for name, value in summary["metrics"].items():
        reference = summary["reference"].get(name)
        published, difference, source = "", "", ""
        if reference is not None:
            published = f"{reference['value']:g}"
            difference = f"{value - reference['value']:+.3g}"
            source = f"; {reference['source']}"
        table.add_row(name, f"{value:.5g}", published, difference, UNITS.get(name, "") + source)
    return table


def list_figures(console: Console, folder: Path) -> None:
    """Names the pictures that a run left."""
    names = sorted(p.name for p in (folder / "figures").glob("*.png"))
    console.print(f"{folder}/figures: {', '.join(names)}", highlight=False, soft_wrap=True)
