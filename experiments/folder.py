"""The run folder: config.json, environment.json, metrics.jsonl, summary.json, figures/, checkpoints/.

Files are written to a temporary name and renamed, so that whatever is there is whole.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from aejax.checks import InputError, nearest
from experiments.common import to_dict


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one configuration of one experiment."""

    path: Path
    experiment: str
    config: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run."""
        file = self.path / "summary.json"
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def start(self, **known: Any) -> None:
        """Writes what is known before the first step; a summary of a shorter run goes."""
        (self.path / "summary.json").unlink(missing_ok=True)
        write_json(self.path / "config.json", {"experiment": self.experiment, "config": self.config, **known})
        write_json(self.path / "environment.json", environment())

    def rows(self, step: int) -> list[dict[str, float]]:
        """The rows of metrics.jsonl up to a step; later ones, and a torn last line, are cut from the file."""
        file, kept = self.path / "metrics.jsonl", []
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if row["step"] > step:
                break
            kept.append(row)
        write_text(file, "".join(json.dumps(row) + "\n" for row in kept))
        return kept

    def append(self, row: dict[str, float]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def open_folder(name: str, config: Any, workdir: Path | None, *, resume: bool) -> RunFolder:
    """The folder of a run, made if it is new.

    Raises:
      InputError: it holds another run, or an unfinished one without `resume`, or none with it, or cannot be written.
    """
    wanted = to_dict(config)
    path = workdir or default_path(name, config)
    folder = RunFolder(path, name, wanted)
    if path.exists() and not path.is_dir():
        raise InputError(f"--workdir {path} is a file; give a folder.")
    entries = sorted(p.name for p in path.iterdir()) if path.exists() else []
    if "config.json" in entries:
        _check_same(path, name, wanted, resume)
        if folder.summary is None and not resume:
            raise InputError(f"{path} holds an unfinished run of this configuration. Add --resume to go on with it.")
        return folder
    if entries:
        raise InputError(f"{path} is not empty and holds no run ({', '.join(entries[:4])}). Give another --workdir.")
    if resume and not path.exists():
        runs = [str(p) for p in path.parent.glob("*/") if (p / "config.json").exists()]
        hint = f" {nearest(str(path), runs, what='runs')}" if runs else ""
        raise InputError(f"There is nothing to resume: {path} does not exist.{hint}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "metrics.jsonl", "")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}). Give another --workdir.") from None
    return folder


def default_path(name: str, config: Any) -> Path:
    """runs/NAME-DATASET-HASH8."""
    text = json.dumps([name, to_dict(config)], sort_keys=True)
    return Path("runs") / f"{name}-{Path(config.dataset).stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _check_same(path: Path, experiment: str, wanted: dict[str, Any], resume: bool) -> None:
    try:
        saved = json.loads((path / "config.json").read_text())
        name, config = saved["experiment"], saved["config"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{path}/config.json cannot be read. Give another --workdir.") from None
    if name != experiment:
        raise InputError(f"{path} holds a run of {name}, not of {experiment}. Give another --workdir.")
    wanted = json.loads(json.dumps(wanted))
    differs = sorted(k for k in {*config, *wanted} if config.get(k) != wanted.get(k))
    if resume and differs == ["num_epochs"] and wanted["num_epochs"] > config["num_epochs"]:
        return
    if differs:
        what = ", ".join(f"{k} {config.get(k)!r} there and {wanted.get(k)!r} here" for k in differs)
        grow = " With --resume, num_epochs may grow, and nothing else may change." if resume else ""
        raise InputError(f"{path} holds another run: {what}.{grow} Give another --workdir.")


def environment() -> dict[str, Any]:
    """Versions, devices, commit and command: what it takes to run the same again."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "chex", "orbax-checkpoint", "numpy", "tensorflow-datasets")
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": git.stdout.strip() or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(file)
