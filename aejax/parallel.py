"""Several devices: meshes, shardings, and the three ways to run a step on them.

The default is `jit` with the batch sharded and everything else replicated: the result equals that of one device,
noise included. `pmap` and `shard_map` run the step of an algorithm that was built with `axis_name=AXIS`; there each
device draws noise of its own.

Several processes, on one machine or many, run the same program, each with `jax.distributed.initialize(...)` before
anything touches a device. `training.train(..., devices=None)` then spans the devices of all. Every process passes the
same state, the same whole data and the same key, goes through the same chunks, and gets the same results; whatever
writes asks `jax.process_index() == 0` first, and whatever decides to stop asks `agree`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aejax.checks import InputError

AXIS = "devices"
WAYS = ("jit", "pmap", "shard_map")


def make_mesh(devices: int | Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh named `AXIS`.

    Args:
      devices: how many, or which; all of them by default.

    Raises:
      InputError: more devices than there are.
    """
    if devices is None:
        devices = jax.devices()
    elif isinstance(devices, int):
        if not 0 < devices <= jax.device_count():
            raise InputError(
                f"{devices} devices were asked for and {jax.device_count()} of kind {jax.default_backend()} exist."
                " On CPU, set JAX_NUM_CPU_DEVICES to simulate more."
            )
        devices = jax.devices()[:devices]
    # Auto: the default, Explicit, refuses gathers from sharded data and many modules that users bring.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Devices hold equal parts along `axis`."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts the arrays of a tree onto the devices of a sharding.

    JAX arrays that are there already are shared, for nobody can write to them. NumPy arrays are copied, for their
    owner can.
    """
    owned = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.array(leaf), tree)
    return jax.device_put(owned, sharding)


def check_batch(batch_size: int, num_devices: int) -> None:
    """Refuses a batch that the devices do not divide, naming the two nearest sizes that fit."""
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        fits = [str(size) for size in (below, below + num_devices) if size > 0]
        raise InputError(
            f"batch_size={batch_size} is not divided by {num_devices} devices; {' and '.join(fits)} would be."
        )


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """The rows of all devices, for a loss that couples the examples of a batch; or x itself where nothing is mapped.

    The gradient of a loss of what is gathered, averaged over the devices as `play` does it, is that of one device.

    Args:
      x: `[B, ...]`, the same B on every device.
      axis_name: the mapped axis, of n devices; or None.

    Returns:
      `[n B, ...]`, in the order of the devices.
    """
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def agree(value: float) -> float:
    """The value of process 0, on every process: for decisions that each would take by its own clock or signals."""
    return value if jax.process_count() == 1 else float(multihost_utils.broadcast_one_to_all(jnp.float32(value)))
