"""What was saved comes back bit for bit, whatever happens to the files."""

import asyncio
import errno
import math
import random
import shutil
import struct
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from saved_states import assert_same, content_of, make_state, restored_step, save_steps

from aejax import parallel as par
from aejax.algorithm import TrainState
from aejax.checkpoint import Checkpoints, CheckpointWarning
from aejax.checks import InputError


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
    save_steps(tmp_path / "run", {10: 0.0})  # which goes on from there
    assert restored_step(tmp_path / "run") == 10


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


@pytest.mark.slow
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
    for step in (5, 9):  # those that it names, with the configuration that made them
        assert int(Checkpoints(two_steps).restore(state, step=step)[0].step) == step


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


@pytest.mark.slow
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
