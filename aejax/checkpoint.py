"""Checkpoints that are either whole or not there: saved by Orbax, sealed by the SHA-256 of every file.

Orbax writes a step under a temporary name and renames it; it does not flush to the disk, notices no flipped bit, and
does not fall back. So each step gets a manifest, written last, with the sums of its files: a step without a valid
manifest does not count, and one whose files disagree with it is passed over for the step before.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aejax.checks import InputError

_MANIFEST = "manifest.json"
_UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax appends to the name of a step that it is writing


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged; another one, or none, is used in its place."""


class _Damaged(Exception):
    """Why a step cannot be trusted."""


class Checkpoints:
    """The checkpoints of one run: the two latest and the best.

    Reading changes nothing on the disk, so a run can be looked at while it is being written. The first save removes
    what an interrupted save left behind, and the steps that are damaged.

    Args:
      folder: holds one folder a step; made at the first save.
      every_seconds: `save` does nothing until this many seconds have passed since the last one.

    Example:
      >>> import tempfile
      >>> from aejax.algorithm import TrainState
      >>> state = TrainState(jnp.int32(3), {"w": jnp.arange(2.0)}, {})
      >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
      ...     saved = checkpoints.save(state, extra={"best": 0.1}, metric=0.1)
      ...     restored, extra = checkpoints.restore(state)
      >>> saved, restored.params["w"].tolist(), extra
      (True, [0.0, 1.0], {'best': 0.1})
    """

    def __init__(self, folder: str | Path, *, every_seconds: float = 15.0):
        self.folder = Path(folder).absolute()
        self.every_seconds = every_seconds
        self._manager: Any = None
        self._last = -math.inf

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder; every save is on the disk already."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with _quiet():
                manager.close()

    def save(self, state: Any, *, extra: dict[str, Any], metric: float | None = None, force: bool = False) -> bool:
        """Saves a state under its step; when it returns, the checkpoint is whole and on the disk.

        A checkpoint of the same step is replaced. Of the others, the two latest and the best are kept.

        Args:
          state: a pytree of arrays with `.step`; on any devices, replicated. It stays usable.
          extra: whatever else a resumed run needs, in JSON types; floats come back bit for bit.
          metric: lower is better; None, or not a number, where it was not measured: such a step is never the best.
          force: saves even if `every_seconds` have not passed.

        Returns:
          Whether it saved.

        Raises:
          InputError: the folder holds a later step, which this one would have to give way to.
          OSError: the disk is full, or cannot be written; the other checkpoints are as they were.
        """
        if not force and time.monotonic() - self._last < self.every_seconds:
            return False
        step = int(state.step)
        metric = None if metric is None or math.isnan(metric) else float(metric)
        content = {"step": step, "metric": metric, "extra": extra, "leaves": _describe(state)}
        json.dumps(content)  # what JSON cannot hold is refused before anything is written
        host = jax.device_get(state)
        try:
            with _quiet():
                self._write(step, host, content)
        except InputError:
            raise
        except BaseException as error:
            self._abandon(step)
            number = _os_error(error)
            if number is None:
                raise
            message = f"The checkpoint of step {step} could not be saved ({os.strerror(number)})"
            raise OSError(number, message, str(self.folder)) from error
        self._last = time.monotonic()
        return True

    def steps(self) -> list[int]:
        """The finished steps, ascending. Whether they are intact is found out when one is restored."""
        return [step for step in self._found() if (self._path(step) / _MANIFEST).exists()]

    def restore(self, like: Any, *, step: int | None = None, best: bool = False) -> tuple[Any, dict[str, Any]] | None:
        """The latest intact checkpoint; each damaged one that it passes over is named in a `CheckpointWarning`.

        Args:
          like: the state wanted: arrays or `jax.ShapeDtypeStruct`s. Arrays come back with the sharding that they
            have here, and on the default device where they have none.
          step: this one; where it is damaged, the latest intact one before it.
          best: the one of the lowest metric (of equal ones the latest) among those that were measured.

        Returns:
          The state and its `extra`; None where there is no checkpoint to be had.

        Raises:
          InputError: there is no such step, or the checkpoint holds other arrays than `like`.
        """
        damaged: list[tuple[int, str]] = []
        manifest = None
        for candidate in self._candidates(step, best, damaged):
            try:
                manifest = _read(self._path(candidate))
                break
            except _Damaged as damage:
                damaged.append((candidate, str(damage)))
        for number, why in damaged:
            instead = f"step {manifest['step']} is used instead" if manifest else "there is no other to use instead"
            # With the folder as its place, the warning is one line on a console, and says where to look.
            where = str(self._path(number))
            warnings.warn_explicit(f"Step {number} is damaged: {why}; {instead}.", CheckpointWarning, where, 0)
        if manifest is None:
            return None
        self._check_fits(manifest, like)
        return self._load(manifest["step"], like), manifest["extra"]

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _found(self) -> list[int]:
        """Every step that has a folder, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def _candidates(self, step: int | None, best: bool, damaged: list[tuple[int, str]]) -> list[int]:
        """The steps to try, in order of preference."""
        found = self._found()
        if step is not None:
            if step not in found:
                raise InputError(f"{self.folder} has no checkpoint of step {step}; it has {found}.")
            found = [s for s in found if s <= step]
        if not best:
            return found[::-1]
        measured = []
        for s in found[::-1]:
            try:
                metric = _read_manifest(self._path(s))["metric"]
            except _Damaged as damage:
                damaged.append((s, str(damage)))
                continue
            if metric is not None:
                measured.append((metric, -s))
        return [-s for _, s in sorted(measured)]

    def _check_fits(self, manifest: dict[str, Any], like: Any) -> None:
        saved, wanted = manifest["leaves"], _describe(like)
        if saved == wanted:
            return
        differ = [
            f"{name} is {saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
            for name in {**wanted, **saved}
            if saved.get(name) != wanted.get(name)
        ]
        more = f", and {len(differ) - 3} more differences" if len(differ) > 3 else ""
        raise InputError(
            f"The checkpoint of step {manifest['step']} in {self.folder} is of another model:"
            f" {'; '.join(differ[:3])}{more}. Use the configuration that it was made with."
        )

    def _load(self, step: int, like: Any) -> Any:
        import orbax.checkpoint as ocp

        # Restored on the host, then placed here: Orbax warns about shardings that it has to guess.
        host = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            host = reader.restore(self._path(step) / "state", args=ocp.args.StandardRestore(host))
        return jax.tree.map(_place, host, like)

    def _open(self) -> Any:
        import orbax.checkpoint as ocp

        for step in self._found():  # Orbax fails to open where the files of any step are damaged
            try:
                _read(self._path(step))
            except _Damaged:
                shutil.rmtree(self._path(step))
        keep = ocp.checkpoint_managers
        best = keep.BestN(
            get_metric_fn=_metric, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )  # reversed, for it keeps the last of the sorted
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep.AnyPreservationPolicy([keep.LatestN(2), best]),
            best_fn=_metric,  # without it Orbax writes no metrics, and a resumed run would lose its best
            best_mode="min",
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _write(self, step: int, host: Any, content: dict[str, Any]) -> None:
        import orbax.checkpoint as ocp

        if self._manager is None:
            self._manager = self._open()
        there = self._manager.all_steps()
        if there and step < max(there):
            raise InputError(
                f"Step {step} cannot be saved: {self.folder} holds step {max(there)}. Go on from there, or elsewhere."
            )
        if step in there:
            self._manager.delete(step)
        metrics = None if content["metric"] is None else {"metric": content["metric"]}
        args = ocp.args.Composite(state=ocp.args.StandardSave(host))
        self._manager.save(step, args=args, metrics=metrics, force=True)
        _seal(self._path(step), content)

    def _abandon(self, step: int) -> None:
        """Removes all traces of a save that failed; the next one starts afresh."""
        with contextlib.suppress(Exception):
            self.close()
        for path in [self._path(step), *self.folder.glob(f"*{_UNFINISHED}*")]:
            shutil.rmtree(path, ignore_errors=True)


def _metric(metrics: dict[str, float]) -> float:
    return metrics["metric"]


def _describe(state: Any) -> dict[str, str]:
    """`float32[64,32]` for each leaf, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): f"{v.dtype}[{','.join(map(str, v.shape))}]" for path, v in leaves}


def _place(value: np.ndarray, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    return jax.device_put(value, sharding, may_alias=False)


def _seal(folder: Path, content: dict[str, Any]) -> None:
    """Flushes the files of a step to the disk and writes their sums, which makes it count."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[path.relative_to(folder).as_posix()] = _sum(path, flush=True)
    unsealed = folder / f"{_MANIFEST}.tmp"
    unsealed.write_text(_compose({**content, "files": files}))
    _flush(unsealed)
    unsealed.rename(folder / _MANIFEST)
    for path in [*(p for p in folder.rglob("*") if p.is_dir()), folder, folder.parent]:
        _flush(path)


def _compose(content: dict[str, Any]) -> str:
    """The text of a manifest: its content and the sum of it."""
    body = json.dumps(content)
    return f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}", "content": {body}}}\n'


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / _MANIFEST).read_text()
        content = json.loads(text)["content"]
    except FileNotFoundError:
        raise _Damaged(f"{_MANIFEST} is missing, so it was not saved to the end") from None
    except (OSError, ValueError, KeyError, TypeError):
        content = text = None
    if text is None or _compose(content) != text:
        raise _Damaged(f"{_MANIFEST} is not what was saved")
    return content


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a step, all of whose files are as they were saved; raises `_Damaged`."""
    manifest = _read_manifest(folder)
    for name, saved in manifest["files"].items():
        try:
            if _sum(folder / name) != saved:
                raise _Damaged(f"{name} is not what was saved")
        except FileNotFoundError:
            raise _Damaged(f"{name} is missing") from None
        except OSError as error:
            raise _Damaged(f"{name} cannot be read ({error.strerror})") from None
    return manifest


def _sum(path: Path, flush: bool = False) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error(error: BaseException | None) -> int | None:
    """The number of the operating system's error that lies behind an exception; TensorStore tells it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if told := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Orbax, which logs through absl, off the console."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
