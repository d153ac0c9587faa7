"""What was saved comes back bit for bit, whatever happens to the files, the process or the disk."""

import asyncio
import errno
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import parallel as par
from aejax.algorithm import TrainState
from aejax.checkpoint import Checkpoints, CheckpointWarning
from aejax.checks import InputError


def make_state(step: int) -> TrainState:
    """Every leaf is a known function of the step."""
    params = {"encoder": {"kernel": jnp.full((3, 4), step, jnp.float32)}, "scale": jnp.float32(step)}
    return TrainState(jnp.int32(step), params, {"recon": optax.adam(1e-3).init(params)})


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save_steps(folder: Path, metrics: dict[int, float | None]) -> None:
    with Checkpoints(folder, every_seconds=0) as checkpoints:
        for step, metric in metrics.items():
            assert checkpoints.save(make_state(step), extra={"step": step}, metric=metric)


def restored_step(folder: Path, **kwargs) -> int:
    """Restores, and checks that all parts are of one and the same step."""
    state, extra = Checkpoints(folder).restore(make_state(0), **kwargs)
    assert_same(state, make_state(extra["step"]))
    return extra["step"]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory) -> Path:
    """A folder with the steps 5 and 9, of which 9 is the better. Copy it before you touch it."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    save_steps(folder, {5: 2.0, 9: 1.0})
    return folder


TRANSFORMS = {
    "sgd": optax.sgd(0.1),
    "adam with a schedule and clipping": optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1.0, 10))
    ),
    "injected": optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9),
    "partitioned": optax.partition(
        {"a": optax.adam(0.1), "b": optax.set_to_zero()}, {"encoder": "a", "decoder": "b", "other/dotted.näme": "a"}
    ),
}


@pytest.mark.parametrize("tx", TRANSFORMS.values(), ids=TRANSFORMS)
def test_states_come_back_bit_for_bit(tmp_path, tx):
    bits = jax.random.bits(jax.random.key(0), (7, 5), jnp.uint32)  # any bits: NaNs with payloads, subnormals, -0.0
    params = {
        "encoder": {"kernel": jax.lax.bitcast_convert_type(bits, jnp.float32), "dotted.name": jnp.zeros(1)},
        "decoder": {"kernel": jnp.linspace(0, 1, 6, dtype=jnp.bfloat16), "empty": jnp.zeros((0, 3))},
        "other/dotted.näme": jnp.array([1.5, -0.0], jnp.float16),
    }
    held = {"mask": jnp.array([True, False]), "codes": jnp.arange(3, dtype=jnp.uint8), "nothing": None}
    state = TrainState(jnp.int32(4), params, {"recon": tx.init(params), "held": held})
    with Checkpoints(tmp_path / "new" / "folder") as checkpoints:
        assert checkpoints.save(state, extra={})
        assert checkpoints.steps() == [4]
        restored, extra = checkpoints.restore(jax.eval_shape(lambda: state))
    assert_same(restored, state)
    assert extra == {}


def test_float64_comes_back(tmp_path):
    with jax.enable_x64(True):
        state = TrainState(jnp.int32(1), {"w": jnp.array([0.1, 1e-300])}, {})
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, extra={})
            assert_same(checkpoints.restore(state)[0], state)


def test_floats_of_extra_come_back_bit_for_bit(tmp_path):
    draws = random.Random(0)
    values = [struct.unpack("<d", draws.randbytes(8))[0] for _ in range(200)] + [0.1, 5e-324, -0.0, math.inf, math.nan]
    values = [v for v in values if v == v] + [math.nan]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1), extra={"sums": values, "nested": {"é": [1, None, "x"]}})
        extra = checkpoints.restore(make_state(0))[1]
    assert struct.pack(f"<{len(values)}d", *extra["sums"]) == struct.pack(f"<{len(values)}d", *values)
    assert extra["nested"] == {"é": [1, None, "x"]}


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints, pytest.raises(TypeError, match="float32"):
        checkpoints.save(make_state(1), extra={"loss": np.float32(1)})
    assert not (tmp_path / "run").exists()


def test_the_three_latest_and_the_two_best_are_kept_across_sessions(tmp_path):
    save_steps(tmp_path, {1: 3.0, 2: 9.0, 3: 7.0, 4: 4.0, 5: 8.0})
    assert Checkpoints(tmp_path).steps() == [1, 3, 4, 5]
    save_steps(tmp_path, {6: None, 7: 8.0, 8: math.nan})  # unmeasured ones are never the best
    assert Checkpoints(tmp_path).steps() == [1, 4, 6, 7, 8]
    assert restored_step(tmp_path) == 8
    assert restored_step(tmp_path, best=True) == 1
    assert restored_step(tmp_path, step=4) == 4
    save_steps(tmp_path, {9: 3.0, 10: 3.0, 11: 5.0})  # of equal ones the latest
    assert Checkpoints(tmp_path).steps() == [9, 10, 11]
    assert restored_step(tmp_path, best=True) == 10


def test_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "never").restore(make_state(0)) is None
    assert Checkpoints(tmp_path / "never").steps() == []
    assert not (tmp_path / "never").exists()
    save_steps(tmp_path, {1: None})
    assert Checkpoints(tmp_path).restore(make_state(0), best=True) is None


def test_saves_are_spaced_unless_forced(tmp_path, monkeypatch):
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    with Checkpoints(tmp_path, every_seconds=15) as checkpoints:
        saved = []
        for step, clock in [(1, 100.0), (2, 114.9), (3, 115.1), (4, 130.0), (5, 130.2)]:  # noqa: B007
            saved.append(checkpoints.save(make_state(step), extra={"step": step}))
        assert saved == [True, False, True, False, True]
        assert not checkpoints.save(make_state(6), extra={"step": 6})
        assert checkpoints.save(make_state(6), extra={"step": 6}, force=True)
    assert restored_step(tmp_path) == 6


def test_a_step_saved_again_is_replaced(tmp_path):
    save_steps(tmp_path, {1: 5.0, 2: None})
    for session in range(2):
        with Checkpoints(tmp_path, every_seconds=0) as checkpoints:
            for extra in ("first", "second"):
                checkpoints.save(make_state(2), extra={"step": 2, "from": extra + str(session)}, metric=1.0)
            assert checkpoints.restore(make_state(0), best=True)[1] == {"step": 2, "from": f"second{session}"}
    assert Checkpoints(tmp_path).steps() == [1, 2]


def test_going_back_is_refused(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path / "run")
    before = content_of(tmp_path / "run")
    with pytest.raises(InputError, match="Step 7 comes before step 9"):
        save_steps(tmp_path / "run", {7: 0.0})
    assert content_of(tmp_path / "run") == before


def test_reading_changes_nothing_on_the_disk(two_steps, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    (folder / "12.orbax-checkpoint-tmp").mkdir()  # another process is at it
    (folder / "9" / "manifest.json").write_bytes(b"{}")
    before = content_of(folder)
    with pytest.warns(CheckpointWarning, match="Step 9"):
        assert restored_step(folder) == 5
    assert content_of(folder) == before
    assert (folder / "12.orbax-checkpoint-tmp").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path, bit: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    bit = 8 * (len(data) // 2) if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, Path.unlink, flip], ids=["truncated", "missing", "flipped"])
def test_a_damaged_file_is_named_and_the_step_before_is_used(two_steps, tmp_path, damage):
    files = [p.relative_to(two_steps / "9") for p in (two_steps / "9").rglob("*") if p.is_file()]
    assert len(files) > 8
    for i, file in enumerate(files):
        folder = tmp_path / str(i)
        shutil.copytree(two_steps, folder)
        damage(folder / "9" / file)
        for kwargs in ({}, {"best": True}, {"step": 9}):
            with pytest.warns(CheckpointWarning) as caught:
                assert restored_step(folder, **kwargs) == 5
            (message,) = {str(w.message) for w in caught}
            assert "Step 9 is damaged" in message
            assert file.as_posix() in message
            assert "step 5 is used instead" in message
        assert restored_step(folder, step=5) == 5  # nothing to say
        save_steps(folder, {9: 1.0})  # the run comes by again
        assert restored_step(folder) == 9
        assert restored_step(folder, best=True) == 9
        assert Checkpoints(folder).steps() == [5, 9]


def test_any_bit_of_the_manifest_matters(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path / "run")
    manifest = tmp_path / "run" / "9" / "manifest.json"
    intact = manifest.read_bytes()
    for bit in random.Random(1).sample(range(8 * len(intact)), 40):
        flip(manifest, bit)
        with pytest.warns(CheckpointWarning, match=r"Step 9 is damaged: manifest.json is not what was saved"):
            assert restored_step(tmp_path / "run") == 5
        manifest.write_bytes(intact)


def test_unfinished_steps_are_passed_over(two_steps, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    (folder / "9" / "manifest.json").unlink()
    (folder / "11").mkdir()
    (folder / "12").write_text("not a folder")
    with pytest.warns(CheckpointWarning) as caught:
        assert restored_step(folder) == 5
    assert [str(w.message)[:18] for w in caught] == ["Step 11 is damaged", "Step 9 is damaged:"]
    assert Checkpoints(folder).steps() == [5]


def test_where_all_are_damaged_there_is_none(two_steps, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    for manifest in folder.rglob("manifest.json"):
        flip(manifest)
    with pytest.warns(CheckpointWarning, match="there is no other"):
        assert Checkpoints(folder).restore(make_state(0)) is None
    save_steps(folder, {1: 0.0})  # the run starts over
    assert restored_step(folder) == 1
    assert Checkpoints(folder).steps() == [1]


def test_another_model_is_refused(two_steps):
    state = make_state(0)
    other = state._replace(params={"encoder": {"kernel": jnp.zeros((3, 5))}, "shift": jnp.zeros(())})
    with pytest.raises(InputError) as caught:
        Checkpoints(two_steps).restore(other)
    message = str(caught.value)
    assert ".params['encoder']['kernel'] is float32[3,4] there, float32[3,5] here" in message
    assert ".params['shift'] is absent there, float32[] here" in message
    assert ".params['scale'] is float32[] there, absent here" in message
    with pytest.raises(InputError, match=r"float32\[\] there, float16\[\] here"):
        Checkpoints(two_steps).restore(jax.tree.map(lambda v: v.astype(jnp.float16) if v.ndim == 0 else v, state))
    with pytest.raises(InputError, match=r"no checkpoint of step 7; it has \[5, 9\]"):
        Checkpoints(two_steps).restore(state, step=7)


def test_a_folder_may_be_moved(two_steps, tmp_path):
    shutil.copytree(two_steps, tmp_path / "a" / "b")
    assert restored_step(tmp_path / "a" / "b") == 9


def test_devices(tmp_path):
    mesh = par.make_mesh(8)
    state = make_state(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(par.place(state, par.replicated(mesh)), extra={})
        for like in (par.place(state, par.replicated(mesh)), jax.device_put(state, jax.devices()[5]), state):
            restored, _ = checkpoints.restore(like)
            assert_same(restored, state)
            for got, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(like), strict=True):
                assert got.sharding == wanted.sharding
                assert got.committed == wanted.committed
        like = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=par.replicated(mesh)), state)
        assert checkpoints.restore(like)[0].step.sharding == par.replicated(mesh)


def test_donation_reaches_neither_side(tmp_path):
    donate = jax.jit(lambda state: jax.tree.map(lambda v: v + 1, state), donate_argnums=0)
    state = make_state(3)
    with Checkpoints(tmp_path, every_seconds=0) as checkpoints:
        checkpoints.save(state, extra={})
        assert_same(state, make_state(3))
        donate(state)
        restored, _ = checkpoints.restore(make_state(0))
        assert_same(donate(restored), jax.tree.map(lambda v: v + 1, make_state(3)))
        assert_same(checkpoints.restore(make_state(0))[0], make_state(3))


def test_inside_a_running_event_loop(tmp_path):
    async def notebook_cell():
        save_steps(tmp_path, {1: 1.0, 2: 2.0})
        return restored_step(tmp_path)

    assert asyncio.run(notebook_cell()) == 2


def test_a_full_disk_at_the_very_end_keeps_the_older_ones(two_steps, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    before = content_of(folder)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(folder, every_seconds=0) as checkpoints:
        for step in (10, 10, 9):
            with monkeypatch.context() as patch:
                patch.setattr("aejax.checkpoint._flush", full)
                with pytest.raises(OSError, match=f"step {step} could not be saved") as caught:
                    checkpoints.save(make_state(step), extra={"step": step}, metric=0.5)
            assert caught.value.errno == errno.ENOSPC
            assert "\n" not in str(caught.value)
            kept = {name: data for name, data in before.items() if not name.startswith(f"{step}/")}
            assert content_of(folder) == kept
        checkpoints.save(make_state(10), extra={"step": 10}, metric=0.5)
    assert restored_step(folder) == 10


def test_an_unwritable_folder_keeps_what_is_there(two_steps, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(two_steps, folder)
    before = content_of(folder)
    monkeypatch.setattr(Checkpoints, "_open", lambda self: (folder / "9" / "manifest.json" / "x").mkdir())
    with pytest.raises(NotADirectoryError, match="step 9 could not be saved"):
        save_steps(folder, {9: 1.0})
    assert content_of(folder) == before


SMALL_DISK = """
import resource, sys
from aejax.checkpoint import Checkpoints
assert not any(name.split(".")[0] in ("orbax", "tensorstore") for name in sys.modules)
import logging, jax, jax.numpy as jnp
from aejax.algorithm import TrainState
handlers, level = list(logging.root.handlers), logging.root.level
def state(step):
    return TrainState(jnp.int32(step), {str(i): jax.random.normal(jax.random.key(i), (9999,)) for i in range(8)}, {})
with Checkpoints(sys.argv[1], every_seconds=0) as checkpoints:
    checkpoints.save(state(1), extra={}, metric=1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    for _ in range(5):
        try:
            checkpoints.save(state(2), extra={}, metric=0.0)
        except OSError as error:
            print(error.errno, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(checkpoints.steps(), int(checkpoints.restore(state(0))[0].step))
    checkpoints.save(state(2), extra={}, metric=0.0)
    print(checkpoints.steps(), int(checkpoints.restore(state(0))[0].step))
    (checkpoints.folder / "2" / "_CHECKPOINT_METADATA").unlink()
    checkpoints.restore(state(0))
assert (handlers, level) == (logging.root.handlers, logging.root.level)
"""


def test_the_console_of_a_full_disk(tmp_path):
    done = subprocess.run([sys.executable, "-c", SMALL_DISK, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = f"27 [Errno 27] The checkpoint of step 2 could not be saved (File too large): '{tmp_path}'"
    assert done.stdout.splitlines() == [*[line] * 5, "[1] 1", "[1, 2] 2"]
    (warning,) = done.stderr.splitlines()  # one line, nothing of Orbax
    assert warning.startswith(f"{tmp_path}/2:")
    assert warning.endswith(
        "Step 2 is damaged: _CHECKPOINT_METADATA cannot be read (No such file or directory); step 1 is used instead."
    )


class _Snapshots:
    """Copies a folder whenever Python is about to change something in it: what a kill at that moment would leave."""

    def __init__(self):
        self.source: Path | None = None
        self.target: Path | None = None
        self.count = 0
        sys.addaudithook(self._hook)  # for good, hence the switch

    def _hook(self, event, args):
        if self.source is None or event not in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "open"):
            return
        if event == "open" and args[1] is not None and args[1][0] not in "wax":  # None: to flush it
            return
        source, self.source = self.source, None  # the copying is not looked at
        try:
            shutil.copytree(source, self.target / str(self.count), copy_function=self._copy, dirs_exist_ok=True)
            self.count += 1
        except (shutil.Error, FileNotFoundError):
            pass  # another thread removed a folder under our hands; the next moment will do
        finally:
            self.source = source

    @staticmethod
    def _copy(source, target):
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return  # in the hands of another thread


@pytest.fixture(scope="module")
def snapshots():
    return _Snapshots()


@pytest.mark.parametrize("again", [False, True], ids=["new step", "the same step"])
def test_a_kill_at_any_moment_of_a_save_leaves_a_state_that_was_saved(snapshots, tmp_path, again):
    save_steps(tmp_path / "run", {1: 1.0, 2: 5.0, 3: 4.0, 4: 3.0})
    with Checkpoints(tmp_path / "run", every_seconds=0) as checkpoints:
        checkpoints.save(make_state(5), extra={"step": 5}, metric=None)
        snapshots.source, snapshots.target, snapshots.count = tmp_path / "run", tmp_path / "at", 0
        step = 5 if again else 6
        checkpoints.save(make_state(step), extra={"step": step}, metric=0.0)  # makes others go
        snapshots.source = None
    assert snapshots.count > 20
    seen = set()
    for i in range(snapshots.count):
        folder = tmp_path / "at" / str(i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)  # a step that was not finished
            seen.add(restored_step(folder))
            assert restored_step(folder, best=True) in ((1, 5) if again else (1, 6))
        if i % 5 == 0:
            save_steps(folder, {step: 0.0})
            assert restored_step(folder) == step
            assert not list(folder.glob("*tmp*"))
    assert seen == ({4, 5} if again else {5, 6})


SAVE_ON_AND_ON = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import Checkpoints, make_state
with Checkpoints(sys.argv[1], every_seconds=0) as checkpoints:
    found = checkpoints.restore(make_state(0))
    step = int(found[0].step) if found else 0
    print("ready", flush=True)
    while True:
        step += 1
        checkpoints.save(make_state(step), extra={"step": step}, metric=abs(step % 7 - 3))
        print(step, flush=True)
"""


def test_kill_9_in_the_middle_of_saving(tmp_path):
    draws, last = random.Random(0), 0
    for _ in range(3):
        command = [sys.executable, "-W", "ignore", "-c", SAVE_ON_AND_ON, tmp_path / "run", Path(__file__).parent]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            saved = [int(process.stdout.readline())]
            time.sleep(draws.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            saved += [int(line) for line in process.stdout.read().splitlines()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CheckpointWarning)
            step = restored_step(tmp_path / "run")
        assert step in (saved[-1], saved[-1] + 1)  # whatever `save` returned from is there
        assert step > last
        last = step
