"""Encoders and decoders as files that run without aejax, and parameters as safetensors.

A program file holds one map of a model together with its parameters, as StableHLO by `jax.export`. To run it takes JAX
and flatbuffers. flatbuffers and safetensors come with `pip install "aejax[export]"`.
"""

from pathlib import Path
from typing import Any

import flax.errors
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from aejax import extras
from aejax.checks import InputError, nearest
from aejax.evaluation import call
from aejax.nets import Autoencoder

MAPS = ("embed", "reconstruct", "generate")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def to_file(
    path: str | Path,
    model: Autoencoder,
    params: Any,
    *,
    what: str = "embed",
    y: Any = None,
    platforms: tuple[str, ...] | None = None,
) -> None:
    """Writes one map of a model with its parameters, for batches of any size.

    Run it with `jax.export.deserialize(Path(path).read_bytes()).call(x)`, or `.call(x, y)` where the model is
    conditioned. It takes float32, and NumPy arrays as well. A convolutional network is exported with the convolutions
    of `lax`, also for CPU, so that its numbers agree with those of the model to rounding. JAX reads a file for at least
    six months after the version that wrote it.

    Args:
      path: of the file, which is replaced.
      model: any `Autoencoder`.
      params: by group.
      what: `embed` (x to codes), `reconstruct` (x to x_hat) or `generate` (codes to x_hat).
      y: one row or more of a condition `[B, ...]` that is no class, whose shape and dtype are taken; of a model with
        `num_classes` it is known, `[B]` int32.
      platforms: where it shall run, of `cpu`, `cuda`, `rocm`, `tpu`; by default where it is written.

    Raises:
      InputError: an unknown map or platform, parameters of another model, a condition of unknown shape, a decoder that
        takes no codes `[B, latent_dim]`, a network that goes by the number of examples; flatbuffers is not installed.

    Example:
      >>> import tempfile
      >>> model = aejax.AE.dense(3, 2)
      >>> params = aejax.init_params(model, jax.random.key(0), np.ones((1, 3), np.float32))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     to_file(f"{folder}/encoder", model, params)
      ...     encoder = jax.export.deserialize(Path(f"{folder}/encoder").read_bytes())
      >>> encoder.call(np.ones((5, 3), np.float32)).shape
      (5, 2)
    """
    if what not in MAPS:
        raise InputError(f"Unknown what={what!r}. {nearest(what, MAPS, what='maps')}")
    for platform in platforms or ():
        if platform not in PLATFORMS:
            raise InputError(f"Unknown platform {platform!r}. {nearest(platform, PLATFORMS, what='platforms')}")
    extras.need("jax.export", "flatbuffers", extra="export")
    if set(params) == {"params"}:
        raise InputError('The parameters came inside {"params": ...}; give what is inside, by group.')
    program, name = jax.jit(lambda *arrays: call(model, params, what, *arrays)), type(model).__name__
    try:
        example = _example(model, params, what, y)
        jax.eval_shape(program, *example)
    except flax.errors.FlaxError as error:
        raise InputError(f"These are not the parameters of this {name}: {error}") from error
    rows = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((*rows, *part.shape[1:]), part.dtype) for part in example]
    try:
        exported = jax.export.export(program, platforms=platforms)(*shapes)
    except (TypeError, jax.errors.InconclusiveDimensionOperation) as error:
        raise InputError(
            f"A network of this {name} goes by the number of examples: {str(error).strip().splitlines()[0]}. Write"
            " x.shape[0] in place of len(x), and let nothing else depend on it."
        ) from error
    Path(path).write_bytes(exported.serialize())


def save_safetensors(path: str | Path, params: Any) -> None:
    """Writes parameters as a safetensors file; the names are those of the tree, `encoder/dense_0/kernel`.

    Args:
      path: of the file, which is replaced.
      params: a dict of dicts of arrays, such as `state.params`; bfloat16 stays bfloat16.

    Raises:
      InputError: safetensors is not installed, a name that is no string or holds a "/", a part without arrays.
    """
    flat = flatten_dict(params, keep_empty_nodes=True)
    for names, leaf in flat.items():
        if not all(isinstance(name, str) and "/" not in name for name in names):
            raise InputError(f"Parameters are named {names}; strings without a '/' are wanted, which joins them.")
        if not hasattr(leaf, "dtype"):
            raise InputError(f"{'/'.join(names)} is {leaf!r}, not an array, and a safetensors file holds only arrays.")
    _safetensors().save_file({"/".join(names): jnp.asarray(leaf) for names, leaf in flat.items()}, path)


def load_safetensors(path: str | Path) -> dict[str, Any]:
    """The parameters in a safetensors file, with the bits that were saved.

    Args:
      path: of a file by `save_safetensors`, or any other, whose names are cut at each "/".

    Returns:
      A dict of dicts of JAX arrays on the default device.

    Raises:
      InputError: safetensors is not installed.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_safetensors(f"{folder}/params", {"encoder": {"bias": jnp.arange(2.0)}})
      ...     load_safetensors(f"{folder}/params")
      {'encoder': {'bias': Array([0., 1.], dtype=float32)}}
    """
    return unflatten_dict(_safetensors().load_file(path), sep="/")


def _safetensors() -> Any:
    extras.need("A safetensors file", "safetensors", extra="export")
    import safetensors.flax

    return safetensors.flax


def _example(model: Autoencoder, params: Any, what: str, y: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes that the map takes for one example; x has that of what the decoder makes of a code."""
    codes = jax.ShapeDtypeStruct((1, model.latent_dim), np.float32)
    condition: tuple[jax.ShapeDtypeStruct, ...] = ()
    if model.takes_labels:
        if y is None and not hasattr(model, "num_classes"):
            raise InputError(f"{type(model).__name__} is conditioned: give a row of its condition, such as y=y[:1].")
        row = np.zeros(1, np.int32) if y is None else jnp.asarray(y)[:1]
        condition = (jax.ShapeDtypeStruct(row.shape, row.dtype),)
    if what == "generate":
        return (codes, *condition)
    x_hat = jax.eval_shape(lambda *arrays: call(model, params, "generate", *arrays), codes, *condition)
    return (jax.ShapeDtypeStruct(x_hat.shape, np.float32), *condition)
