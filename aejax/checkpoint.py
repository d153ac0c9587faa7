"""Checkpoints that are whole or do not count: saved by Orbax, sealed by the SHA-256 of every file.

Orbax writes a step under a temporary name and renames it, but it notices no flipped bit and never falls back. So each
step gets a manifest, written last: a step without a valid one does not count, and one whose files disagree with it is
passed over. The state is kept by path, `{".params['encoder']['kernel']": array, ...}`.
"""

import contextlib
import gc
import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aejax import extras
from aejax.checks import InputError

_MANIFEST = "manifest.json"
_UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax appends to the name of what it is writing


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged; another one, or none, is used in its place."""


class _Damaged(Exception):
    """Why a step cannot be trusted."""


class Checkpoints:
    """The checkpoints of one run: the three latest and the two best, so that there is always one to fall back on.

    Reading changes nothing on the disk, so a run can be looked at while another process trains it. The first save
    removes what an interrupted one left behind, and the steps that are damaged. One process saves, and holds all of
    the state.

    Args:
      folder: gets one folder a step; made at the first save.
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
        extras.need("A checkpoint", "orbax", extra="runner")  # Flax brings it, at present
        self.folder = Path(folder).absolute()
        self.every_seconds = every_seconds
        self._manager: Any = None
        self._last = -math.inf

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the folder; whatever was saved is on the disk already."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with _quiet():
                manager.close()

    def save(self, state: Any, *, extra: dict[str, Any], metric: float | None = None, force: bool = False) -> bool:
        """Saves a state under its step; when it returns, the checkpoint is whole and on the disk.

        A checkpoint of the same step is replaced.

        Args:
          state: a pytree of arrays with `.step`, on one device or replicated. It stays usable.
          extra: whatever else a resumed run needs, in JSON types; floats come back bit for bit.
          metric: lower is better; None or NaN where it was not measured: such a step is never the best.
          force: saves even if `every_seconds` have not passed.

        Returns:
          Whether it saved.

        Raises:
          InputError: the folder holds a later step.
          OSError: the disk is full or cannot be written; the checkpoints of other steps are as they were.
        """
        if not force and time.monotonic() - self._last < self.every_seconds:
            return False
        step = int(state.step)
        metric = None if metric is None or math.isnan(metric) else float(metric)
        content = {"step": step, "metric": metric, "extra": extra, "leaves": _describe(state)}
        json.dumps(content)  # what JSON cannot hold is refused before anything is written
        failure = None
        with _quiet():
            try:
                self._write(step, _named(jax.device_get(state)), content)
            except InputError:
                raise
            except BaseException as error:
                number = _os_error(error) if isinstance(error, Exception) else None
                if number is None:
                    self._abandon(step)
                    raise
                message = f"The checkpoint of step {step} could not be saved ({os.strerror(number)})"
                failure = OSError(number, message, str(self.folder))
            if failure is not None:
                self._abandon(step)
                raise failure
        self._last = time.monotonic()
        return True

    def steps(self) -> list[int]:
        """The finished steps, ascending. Whether they are intact is found out when they are restored."""
        return [step for step in self._found() if (self._path(step) / _MANIFEST).exists()]

    def latest_extra(self) -> dict[str, Any]:
        """`extra` of the latest step, as it was saved; empty where there is none. No array is read."""
        for step in reversed(self._found()):
            with contextlib.suppress(_Damaged):
                return _read_manifest(self._path(step))["extra"]
        return {}

    def restore(self, like: Any, *, step: int | None = None, best: bool = False) -> tuple[Any, dict[str, Any]] | None:
        """The latest intact checkpoint; a `CheckpointWarning` names each damaged one that it passes over, and why.

        Args:
          like: the state wanted, of arrays or `jax.ShapeDtypeStruct`s. Arrays come back with the sharding that they
            have here, and on the default device where they have none.
          step: this one; where it is damaged, the latest intact one before it.
          best: the one of the lowest metric, of equal ones the latest; those without a metric are left out.

        Returns:
          The state and its `extra`; None where there is no such checkpoint.

        Raises:
          InputError: `step` is not there, or the checkpoint holds other arrays than `like`.
        """
        damaged: dict[int, str] = {}
        manifest = None
        for candidate in self._candidates(step, best, damaged):
            try:
                manifest = _read(self._path(candidate))
                break
            except _Damaged as damage:
                damaged[candidate] = str(damage)
        for number, why in damaged.items():
            instead = f"step {manifest['step']} is used instead" if manifest else "there is no other to use instead"
            # With the folder as its place it is one line on a console, and says where to look.
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
        return sorted(int(p.name) for p in self.folder.iterdir() if re.fullmatch("[0-9]+", p.name) and p.is_dir())

    def _candidates(self, step: int | None, best: bool, damaged: dict[int, str]) -> list[int]:
        """The steps to try, in order of preference."""
        found = self._found()[::-1]
        if step is not None:
            if step not in found:
                raise InputError(f"{self.folder} has no checkpoint of step {step}; it has {found[::-1]}.")
            found = found[found.index(step) :]
        if not best:
            return found
        measured = []
        for number in found:
            try:
                measured.append((_read_manifest(self._path(number))["metric"], number))
            except _Damaged as damage:
                damaged[number] = str(damage)
        return [number for _, number in sorted((m for m in measured if m[0] is not None), key=lambda m: m[0])]

    def _check_fits(self, manifest: dict[str, Any], like: Any) -> None:
        saved, wanted = manifest["leaves"], _describe(like)
        names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
        if names:
            differ = [f"{n} is {saved.get(n, 'absent')} there, {wanted.get(n, 'absent')} here" for n in names[:3]]
            more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"The checkpoint of step {manifest['step']} in {self.folder} is of another model:"
                f" {'; '.join(differ)}{more}. Open it with the configuration that made it."
            )

    def _load(self, step: int, like: Any) -> Any:
        # Restored on the host and placed here, since Orbax warns about shardings that it has to guess.
        host = {n: np.broadcast_to(np.zeros((), v.dtype), v.shape) for n, v in _named(like).items() if v.size}
        with _quiet():
            import orbax.checkpoint as ocp

            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                saved = reader.restore(self._path(step) / "state", args=ocp.args.StandardRestore(host))
        leaves = [_place(saved.get(name), leaf) for name, leaf in _named(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _open(self) -> Any:
        import orbax.checkpoint as ocp

        for step in self._found():  # Orbax cannot open a folder where it cannot read the metric of a step
            try:
                _read(self._path(step))
            except _Damaged:
                shutil.rmtree(self._path(step))
        keep = ocp.checkpoint_managers
        # One more of each than is wanted: they are chosen before the new step has its manifest and counts.
        latest = keep.LatestN(3)
        best = keep.BestN(get_metric_fn=_metric, reverse=True, n=2, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep.AnyPreservationPolicy([latest, best]),
            best_fn=_metric,  # without it Orbax writes no metrics, and a resumed run would forget its best
            best_mode="min",
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _write(self, step: int, leaves: dict[str, np.ndarray], content: dict[str, Any]) -> None:
        import orbax.checkpoint as ocp

        if self._manager is None:
            self._manager = self._open()
        there = self._manager.all_steps()
        if step < max(there, default=step):
            raise InputError(
                f"Step {step} comes before step {max(there)}, which {self.folder} holds: go on from there."
            )
        if step in there:
            self._manager.delete(step)
        metrics = None if content["metric"] is None else {"metric": content["metric"]}
        args = ocp.args.Composite(state=ocp.args.StandardSave({n: v for n, v in leaves.items() if v.size}))
        self._manager.save(step, args=args, metrics=metrics, force=True)
        _seal(self._path(step), content)

    def _abandon(self, step: int) -> None:
        """Removes what a failed save left; the next one opens the folder afresh."""
        with contextlib.suppress(Exception):
            self.close()
        time.sleep(0.1)  # TensorStore gives up at the first failure, with other writes still under way;
        gc.collect()  # that nobody asked for their outcome is logged when they are collected
        unsealed = [] if (self._path(step) / _MANIFEST).exists() else [self._path(step)]
        for path in [*unsealed, *self.folder.glob(f"*{_UNFINISHED}*")]:
            shutil.rmtree(path, ignore_errors=True)


def _metric(metrics: dict[str, float]) -> float:
    return metrics["metric"]


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _describe(tree: Any) -> dict[str, str]:
    """By path, such as `float32[64,32]`."""
    return {name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for name, leaf in _named(tree).items()}


def _place(value: np.ndarray | None, like: Any) -> jax.Array:
    value = np.zeros(like.shape, like.dtype) if value is None else value  # Orbax keeps no arrays without elements
    sharding = getattr(like, "sharding", None) if getattr(like, "committed", True) else None
    return jax.device_put(value, sharding, may_alias=False)


def _seal(folder: Path, content: dict[str, Any]) -> None:
    """Brings the files of a step to the disk and writes their sums, which makes it count."""
    paths = list(folder.rglob("*"))
    files = sorted(path for path in paths if path.is_file())
    with ThreadPoolExecutor(16) as pool:  # flushes that run at once share the work: 20 ms in place of 80
        sums = dict(zip([path.relative_to(folder).as_posix() for path in files], pool.map(_sum, files), strict=True))
        unsealed = folder / f"{_MANIFEST}.tmp"
        unsealed.write_text(_compose({**content, "files": sums}))
        list(pool.map(_flush, [unsealed, *paths]))
    unsealed.rename(folder / _MANIFEST)
    _flush(folder)
    _flush(folder.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compose(content: dict[str, Any]) -> str:
    """The text of a manifest: its content, behind the sum of it."""
    body = json.dumps(content)
    return f'{{"sha256": "{hashlib.sha256(body.encode()).hexdigest()}", "content": {body}}}\n'


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / _MANIFEST).read_text()
        content = json.loads(text)["content"]
        if _compose(content) == text:
            return content
    except FileNotFoundError:
        raise _Damaged(f"{_MANIFEST} is missing, so it was not saved to the end") from None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise _Damaged(f"{_MANIFEST} is not what was saved")


def _read(folder: Path) -> dict[str, Any]:
    """The manifest of a step whose files are all as they were saved."""
    manifest = _read_manifest(folder)
    for name, saved in manifest["files"].items():
        try:
            if _sum(folder / name) != saved:
                raise _Damaged(f"{name} is not what was saved")
        except OSError as error:
            raise _Damaged(f"{name} cannot be read ({error.strerror})") from None
    return manifest


def _os_error(error: BaseException | None) -> int | None:
    """The number of the system's error that lies behind an exception; TensorStore tells it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if told := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the console what Orbax logs, and what is said of the other writes when one has failed."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before, hook, null = [logger.disabled for logger in loggers], sys.unraisablehook, logging.NullHandler()
    logging.root.addHandler(null)  # where there is none, absl sets up one that stays
    for logger in loggers:
        logger.disabled = True
    sys.unraisablehook = lambda report: None if "Event loop is closed" in str(report.exc_value) else hook(report)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
        logging.root.removeHandler(null)
