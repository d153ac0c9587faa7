"""Meshes, placements, and two processes that are one."""

import os
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from aejax import parallel, training
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.vae import VAE, vae
from aejax.nets import init_params


@pytest.mark.parametrize(("devices", "size"), [(None, 8), (3, 3), (1, 1)])
def test_a_mesh_takes_as_many_devices_as_it_is_asked_to(devices, size):
    mesh = parallel.make_mesh(devices)
    assert list(mesh.devices.flat) == jax.devices()[:size]
    assert mesh.axis_names == (parallel.AXIS,)
    assert mesh.axis_types == (AxisType.Auto,)


def test_a_mesh_of_given_devices():
    chosen = [jax.devices()[5], jax.devices()[2]]
    assert list(parallel.make_mesh(chosen).devices.flat) == chosen


@pytest.mark.parametrize("devices", [0, -1, 9])
def test_devices_that_do_not_exist_are_refused(devices):
    with pytest.raises(InputError, match=rf"{devices} devices were asked for and 8 of kind \w+ exist"):
        parallel.make_mesh(devices)


def test_more_devices_are_simulated_as_the_refusal_says():
    with pytest.raises(InputError, match="On CPU, set JAX_NUM_CPU_DEVICES to simulate more"):
        parallel.make_mesh(9)
    code = "import jax; print(jax.device_count())"  # of which there have to be nine
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "9\n"


def test_where_the_parts_lie():
    mesh, x = parallel.make_mesh(4), np.arange(24.0).reshape(2, 12)
    whole = parallel.place(x, parallel.replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(2, 12)] * 4
    parts = parallel.place(x, parallel.split(mesh, axis=1))
    np.testing.assert_array_equal(parts.addressable_shards[2].data, x[:, 6:9])


def test_placing_copies_what_others_can_write_to_and_shares_the_rest():
    where = parallel.replicated(parallel.make_mesh(1))
    memory = np.ones(100_016, np.float32)
    theirs = memory[-memory.ctypes.data % 64 // 4 :][:100_000]  # on a boundary of 64 bytes, where JAX would share it
    placed = parallel.place(theirs, where)
    theirs[:] = 2.0
    assert float(placed[0]) == 1.0
    fixed = jnp.ones(100_000)
    assert parallel.place(fixed, where).unsafe_buffer_pointer() == fixed.unsafe_buffer_pointer()


@pytest.mark.parametrize("way", ["pmap", "shard_map", "unchecked shard_map"])
def test_what_is_gathered_is_all_rows_in_order_and_has_the_gradient_of_one_device(way):
    """z = w x for x = 0, ..., 7, of weights 1, ..., 8: the loss (sum of weight z / 36 - 1)^2, by hand."""

    def loss(params, x, key):
        z = parallel.gather(params["w"] * x, parallel.AXIS)
        weights = jnp.arange(1.0, 9.0)
        return jnp.square((weights * z).sum() / 36 - 1), {"first": z[0]}

    algo = play({"fit": Player(loss, ("w",), optax.sgd(0.1))}, [["fit"]], axis_name=parallel.AXIS)
    state, x, key = algo.init({"w": jnp.float32(2.0)}), jnp.arange(8.0), jax.random.key(0)
    if way == "pmap":
        devices = jax.devices()[:4]
        step = jax.pmap(algo.step, parallel.AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices)
        state, metrics = step(state, x.reshape(4, 2), key)
    else:
        mesh, spec = parallel.make_mesh(4), PartitionSpec
        specs = {"in_specs": (spec(), spec(parallel.AXIS), spec()), "out_specs": spec()}
        step = jax.shard_map(algo.step, mesh=mesh, check_vma=way == "shard_map", **specs)
        state, metrics = jax.jit(step)(state, x, key)
    mean = 168 / 36  # of x under the weights
    np.testing.assert_allclose(metrics["fit/loss"], (2 * mean - 1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(state.params["w"], 2 - 0.1 * 2 * (2 * mean - 1) * mean, rtol=1e-6)
    np.testing.assert_array_equal(parallel.gather(x, None), x)


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "fits"),
    [(100, 8, "96 and 104 would be"), (5, 8, "; 8 would be"), (9, 2, "8 and 10 would be")],
)
def test_a_batch_that_devices_do_not_divide_names_the_two_nearest(batch_size, num_devices, fits):
    with pytest.raises(InputError, match=f"batch_size={batch_size} is not divided by {num_devices} devices.*{fits}"):
        parallel.check_batch(batch_size, num_devices)
    for size in re.findall(r"\d+", fits):
        parallel.check_batch(int(size), num_devices)


def test_a_batch_that_devices_divide_passes():
    parallel.check_batch(104, 8)


def test_one_process_agrees_with_itself():
    assert parallel.agree(0.1) == 0.1


# --- two processes ----------------------------------------------------------------------------------------------------


def train_vae(devices):
    """Metrics and parameters of a short run, noise and all; the program of every process."""
    x = np.random.default_rng(0).random((64, 16)).astype(np.float32)
    model = VAE.dense(16, 2, hidden_dims=(8,))
    algo = vae(model, tx=optax.sgd)
    state = algo.init(init_params(model, jax.random.key(0), x))
    key = jax.random.key(1)
    chunks = list(training.train(algo, state, Batch(x), key, batch_size=16, num_epochs=3, devices=devices))
    loss = np.concatenate([chunk.metrics["elbo/loss"] for chunk in chunks])
    final = training.evaluate(algo, chunks[-1].state, Batch(x), key)["elbo/loss"]
    return {
        "loss": loss,
        "final": final,
        "params": np.concatenate([v.ravel() for v in jax.tree.leaves(chunks[-1].state.params)]),
    }


def process(index, port, path):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=index)
    assert jax.device_count() == 4
    np.savez(path, **train_vae(devices=None))
    assert parallel.agree(float(index)) == 0.0
    x = np.zeros((4, 1))
    with pytest.raises(InputError, match="pmap' runs in one process"):
        training.train(None, None, x, jax.random.key(0), batch_size=4, num_epochs=1, parallel="pmap", devices=None)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    if jax.default_backend() != "cpu":
        pytest.skip("two processes of two CPU devices")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    paths = [tmp_path / f"{i}.npz" for i in range(2)]
    commands = [[sys.executable, __file__, str(i), str(port), str(path)] for i, path in enumerate(paths)]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    try:
        outputs = [each.communicate(timeout=400)[0] for each in running]
    finally:
        for each in running:
            each.kill()
    assert [each.returncode for each in running] == [0, 0], "\n".join(outputs)
    expected = train_vae(devices=1)
    for path in paths:
        actual = np.load(path)
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2], sys.argv[3])
