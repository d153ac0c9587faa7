"""The run folder: config.json, environment.json, metrics.jsonl, summary.json, figures/, checkpoints/.

Files are written to a temporary name and renamed, so that whatever is there is whole. A summary is written last: a
folder with one is finished, unless it says that a measurement or a picture failed.

Files and their checks, no training and no printing.
"""

import dataclasses
import errno
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aejax import data
from aejax.checks import InputError, expanded, nearest
from aejax.runner.config import module_of, to_dict
from aejax.runner.environment import environment

GROWING = ("num_epochs", "num_seeds", "rows")  # what a run or a study may have more of when it is resumed


class FolderWarning(UserWarning):
    """What could not be checked of a folder."""


class AnotherRun(InputError):
    """A folder holds a run with another configuration.

    Attributes:
      path: of the folder.
      differs: by name, what is in the folder and what was asked for.
    """

    def __init__(self, message: str, path: Path, differs: dict[str, tuple[Any, Any]]):
        super().__init__(message)
        self.path, self.differs = path, differs


@dataclasses.dataclass
class RunFolder:
    """A folder that belongs to one configuration of one experiment; looked at until `start` makes it."""

    path: Path
    experiment: str
    config: dict[str, Any]
    module: str = ""  # that has the experiment
    formerly: tuple[str, ...] = ()  # other names of the experiment, in older folders
    digest: str | None = None  # of the data set, as in `aejax.data.digest`
    origin: dict[str, Any] | None = None  # the run with whose parameters it begins, as in `aejax.runner.origin`
    _lock: int | None = None

    @property
    def summary(self) -> Any:
        """The summary of a finished run, perhaps of a shorter or smaller one than this; None where there is none."""
        return read_json(self.path / "summary.json")

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        summary = self.summary
        if summary is None or summary.get("failed"):
            return False
        return all(_has(summary.get(name), self.config[name]) for name in GROWING if name in self.config)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def claim(self) -> None:
        """Makes the folder and keeps other processes from training in it, until `release` or the end of this one.

        Raises:
          InputError: another one is at it.
        """
        import fcntl

        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        for is_last in (False, True):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    break  # some network file systems have no locks; there it goes without
                if is_last:
                    os.close(descriptor)
                    raise InputError(f"Another process is training in {self.path}. Wait for it, or stop it.") from None
                time.sleep(0.1)  # `aejax.runner.table` takes the lock for a moment, to see whether it is free
        self._lock = descriptor

    def release(self) -> None:
        """Lets other processes in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def start(self, **known: Any) -> None:
        """Writes config.json, with what else is known before the first step, and environment.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "summary.json").unlink(missing_ok=True)  # that of a shorter run
        write_json(self.path / "config.json", {**self._own(), **known})
        begun = {} if self.origin is None else {"from": os.path.abspath(expanded(self.origin["folder"]))}
        write_json(self.path / "environment.json", {**environment(), **begun})

    def _own(self) -> dict[str, Any]:
        own = {
            "experiment": self.experiment, "module": self.module, "config": self.config, "data_digest": self.digest
        }  # fmt: skip
        return own if self.origin is None else {**own, "from": self.origin}

    def write_rows(self, rows: Sequence[dict[str, float]]) -> None:
        """Makes these the rows of metrics.jsonl, whatever it holds."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def append_row(self, row: dict[str, float]) -> None:
        """Adds a row to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def open_folder(
    name: str,
    config: Any,
    workdir: Path | None,
    *,
    resume: bool,
    formerly: tuple[str, ...] = (),
    origin: dict[str, Any] | None = None,
    digest: Callable[[str], str] = data.digest,
) -> RunFolder:
    """The folder of a run. Writes nothing.

    Args:
      name, config, workdir, resume, formerly, origin: as the command line and the folder have them.
      digest: of `config.dataset`, where that is no data set of `aejax.data`.

    Raises:
      InputError: it holds another run, or one on other data, or an unfinished one without `resume`, or none with it, or
        cannot be written.
    """
    path = expanded(workdir or default_path(name, config, None if origin is None else origin["folder"]))
    folder = RunFolder(path, name, to_dict(config), module_of(type(config)), formerly, origin=origin)
    there = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise InputError(f"--workdir {path}: {there} is not a folder.")
    if there != path and resume:
        runs = [str(p.parent) for p in path.parent.glob("*/config.json")]
        hint = f" {nearest(str(path), runs, what='runs there')}" if runs else ""
        raise InputError(f"There is nothing to resume: {path} does not exist.{hint}")
    entries = sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) if there == path else []
    saved = _check_same(folder, resume) if "config.json" in entries else None
    if saved is not None:
        if not folder.is_finished and not resume:
            raise InputError(f"{path} holds an unfinished run of this configuration. Add --resume to go on with it.")
    elif entries:
        raise InputError(f"{path} is not empty and holds no run ({', '.join(entries[:4])}). Give {elsewhere(resume)}.")
    if not folder.is_finished and not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written. Give {elsewhere(resume)}.")
    folder.digest = _check_data(folder, saved, getattr(config, "dataset", None), resume, digest)
    return folder


def elsewhere(resume: bool) -> str:
    """What to give where a folder is taken: there is nothing to resume in another one."""
    return "another --workdir" + (", without --resume" if resume else "")


def default_path(name: str, config: Any, origin: str | Path | None = None) -> Path:
    """runs/NAME-DATASET-HASH8, the hash being of the configuration, and of the folder with whose run it begins."""
    text = json.dumps([name, to_dict(config), *([] if origin is None else [str(origin)])], sort_keys=True)
    dataset = Path(getattr(config, "dataset", "")).stem
    return Path("runs") / "-".join(filter(None, (name, dataset, hashlib.sha256(text.encode()).hexdigest()[:8])))


def _check_same(folder: RunFolder, resume: bool) -> dict[str, Any]:
    """What config.json holds, which has to be this run."""
    path, experiment, wanted = folder.path, folder.experiment, json.loads(json.dumps(folder.config))
    saved = read_json(path / "config.json")
    if not isinstance(saved, dict) or not {"experiment", "config"} <= saved.keys():
        raise InputError(f"{path}/config.json is damaged, or of something else. Give {elsewhere(resume)}.")
    if saved["experiment"] not in (experiment, *folder.formerly):
        other = saved["experiment"]
        raise InputError(f"{path} holds a run of {other}, not of {experiment}. Give {elsewhere(resume)}.")
    config = saved["config"]
    differs = sorted(name for name in {*config, *wanted} if config.get(name) != wanted.get(name))
    grown = all(name in GROWING and _has(wanted.get(name), config.get(name)) for name in differs)
    grown = grown and not any(_has(config.get(name), wanted.get(name)) for name in differs)
    if differs and not (grown and resume):
        what = ", ".join(f"{name} {config.get(name)} there and {wanted.get(name)} here" for name in differs)
        grow = " It may grow with --resume." if grown else ""
        values = {name: (config.get(name), wanted.get(name)) for name in differs}
        raise AnotherRun(f"{path} holds another run: {what}.{grow} Give {elsewhere(resume)}.", path, values)
    _check_origin(path, saved.get("from"), folder.origin, resume)
    return saved


def _has(there: Any, wanted: Any) -> bool:
    """Whether as many epochs or seeds are there, or all rows, before any others."""
    if there is None or wanted is None:
        return there is wanted
    return list(there)[: len(wanted)] == list(wanted) if isinstance(wanted, (list, tuple)) else bool(wanted <= there)


def _check_origin(path: Path, there: dict[str, Any] | None, here: dict[str, Any] | None, resume: bool) -> None:
    if (there and there["digest"]) == (here and here["digest"]):
        return
    began = "fresh parameters" if there is None else f"the parameters of step {there['step']} of {there['folder']}"
    wanted = "fresh ones" if here is None else f"those of step {here['step']} of {here['folder']}"
    message = f"{path} holds a run that began with {began}, not with {wanted}."
    do = "Leave --from out" if there is None else f"Add --from {there['folder']}" if here is None else ""
    raise InputError(f"{message} {do + ', or give' if do else 'Give'} {elsewhere(resume)}.")


def _check_data(
    folder: RunFolder, saved: dict[str, Any] | None, dataset: str | None, resume: bool, of: Callable[[str], str]
) -> str | None:
    """The digest of the data, which has to be that of the run, if there is one; a finished run may outlive its data."""
    if dataset is None:
        return None
    try:
        digest = of(dataset)
    except InputError as error:
        if not folder.is_finished:
            raise
        warnings.warn(f"Whether the data are still those of {folder.path} cannot be told. {error}", FolderWarning, 2)
        return None
    if saved is None:
        return digest
    if saved.get("data_digest") is None:
        if resume:
            warnings.warn(
                f"{folder.path} is of an older version and holds no digest of its data: that {dataset} is still what it"
                " was trained on is not checked.",
                FolderWarning,
                2,
            )
    elif saved["data_digest"] != digest:
        raise InputError(
            f"{folder.path} holds a run on other data: {dataset} has changed since it began. Put the old data back, or"
            f" give {elsewhere(resume)}."
        )
    return digest


def read_json(file: Path) -> Any:
    """What a JSON file holds; None where there is none, or it is damaged."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replaces a file as a whole."""
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
