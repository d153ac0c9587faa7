"""Programs in a process that cannot import aejax, against the module; parameters through safetensors, bit for bit."""

import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from contract import representatives
from safetensors import safe_open

from aejax import export
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.methods.ae import AE
from aejax.methods.cvae import CVAE
from aejax.nets import init_params

DOCS = (Path(__file__).parents[1] / "docs" / "export.md").read_text()

# Runs every program on three sizes of batch, where aejax can be neither found nor imported.
SERVE = """
import sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("aejax", "flax"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 1)

try:
    import aejax
except ModuleNotFoundError:
    pass
assert "aejax" not in sys.modules
for name in sys.argv[1:]:
    program = jax.export.deserialize(Path(name + ".bin").read_bytes())
    with np.load(name + ".npz") as arrays:
        given = [array for _, array in sorted(arrays.items())]
    results = {str(n): program.call(*(array[:n] for array in given)) for n in (1, 7, 256)}
    np.savez(name + "_out.npz", **results)
"""


def model_of(kind):
    if kind == "conv":
        return AE.conv((9, 8, 1), 3, features=(4, 6), strides=(1, 2)), (9, 8, 1)
    return (CVAE.dense(5, 3, hidden_dims=(7,)), (5,)) if kind == "cvae" else (AE.dense(5, 3, hidden_dims=(7,)), (5,))


@pytest.mark.slow
def test_files_run_without_aejax_on_batches_of_any_size_as_the_model_does(tmp_path):
    rng, expected = np.random.default_rng(0), {}
    for kind, what in [("dense", "embed"), ("conv", "embed"), ("conv", "generate"), ("cvae", "reconstruct")]:
        (model, shape), name = model_of(kind), str(tmp_path / f"{kind}_{what}")
        y = [np.arange(256, dtype=np.int32) % 10] if model.takes_labels else []
        x = rng.random((256, *shape), np.float32)
        params = init_params(model, jax.random.key(0), Batch(x, *y))
        given = [rng.standard_normal((256, 3)).astype(np.float32) if what == "generate" else x, *y]
        export.to_file(f"{name}.bin", model, params, what=what)
        np.savez(f"{name}.npz", **{str(i): array for i, array in enumerate(given)})
        expected[name] = model.apply({"params": params}, *given, method=what)
    subprocess.run([sys.executable, "-c", SERVE, *expected], check=True, cwd=tmp_path)
    for name, whole in expected.items():
        with np.load(f"{name}_out.npz") as arrays:
            results = dict(arrays)
        assert set(results) == {"1", "7", "256"}
        for size, result in results.items():
            np.testing.assert_allclose(result, whole[: int(size)], rtol=0, atol=1e-6, err_msg=f"{name} {size}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vq_vae", "dense"),
        *(pytest.param(name, "conv", marks=pytest.mark.slow) for name in representatives()),
        *(pytest.param(name, "dense", marks=pytest.mark.slow) for name in METHODS if name != "vq_vae"),
    ],
)
def test_every_method_is_exported(name, kind, tmp_path):
    cls, fields = METHODS[name].model, METHODS[name].fields
    model, shape = cls.dense(64, 8, **fields), (64,)
    if kind == "conv":
        model, shape = cls.conv((8, 8, 1), 8, features=(4,), strides=(2,), **fields), (8, 8, 1)
    x, y = np.random.default_rng(0).random((3, *shape), np.float32), np.arange(3, dtype=np.int32)
    params = init_params(model, jax.random.key(0), Batch(x, y))
    given = (x, y) if model.takes_labels else (x,)
    export.to_file(tmp_path / "file", model, params, what="reconstruct")
    program = jax.export.deserialize((tmp_path / "file").read_bytes())
    whole = model.apply({"params": params}, *given, method="reconstruct")
    np.testing.assert_allclose(program.call(*given), whole, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_slices_that_are_asked_for_are_exported_too(tmp_path):
    model, _ = model_of("conv")
    x = np.random.default_rng(0).random((20, 9, 8, 1), np.float32)
    params = init_params(model, jax.random.key(0), x)
    sliced = model.clone(
        encoder=model.encoder.clone(implementation="slices"), decoder=model.decoder.clone(implementation="slices")
    )
    export.to_file(tmp_path / "file", sliced, params, what="reconstruct")
    program = jax.export.deserialize((tmp_path / "file").read_bytes())
    assert "convolution" not in program.mlir_module()
    whole = model.apply({"params": params}, x, method="reconstruct")
    np.testing.assert_allclose(program.call(x), whole, rtol=0, atol=1e-6)


def test_a_file_for_other_platforms_names_them(tmp_path):
    model, _ = model_of("conv")
    params = init_params(model, jax.random.key(0), np.ones((1, 9, 8, 1), np.float32))
    export.to_file(tmp_path / "file", model, params, platforms=("cpu", "cuda", "tpu"))
    program = jax.export.deserialize((tmp_path / "file").read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    # The convolutions of the library of each platform, not the slices that are fast on CPU alone.
    assert "convolution" in program.mlir_module()


# --- what is refused --------------------------------------------------------------------------------------------------


class ByLength(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(len(x), -1))


class ByShape(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def test_a_network_that_goes_by_the_number_of_examples_is_refused_and_the_advice_helps(tmp_path):
    x = np.random.default_rng(0).random((4, 5), np.float32)
    model = AE.dense(5, 3).clone(encoder=ByLength())
    params = init_params(model, jax.random.key(0), x)
    with pytest.raises(
        InputError, match=r"AE goes by the number of examples.*Write x\.shape\[0\] in place of len\(x\)"
    ):
        export.to_file(tmp_path / "file", model, params)
    assert not (tmp_path / "file").exists()
    export.to_file(tmp_path / "file", model.clone(encoder=ByShape()), params)


class Beside(nn.Module):
    """Takes a vector beside its input."""

    @nn.compact
    def __call__(self, x, y):
        return nn.Dense(5)(jnp.concatenate([x, y], axis=1))


class Told(AE):
    takes_labels = True


def test_a_condition_that_is_no_class_is_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 5), np.float32), rng.random((4, 2), np.float32)
    model = Told(Beside(), Beside(), 5)
    params = init_params(model, jax.random.key(0), Batch(x, y))
    with pytest.raises(InputError, match=r"Told is conditioned: give a row of its condition, such as y=y\[:1\]"):
        export.to_file(tmp_path / "file", model, params)
    export.to_file(tmp_path / "file", model, params, y=y[:1])
    program = jax.export.deserialize((tmp_path / "file").read_bytes())
    whole = model.apply({"params": params}, x, y, method="embed")
    np.testing.assert_allclose(program.call(x, y), whole, rtol=0, atol=1e-6)


def test_refuses_unknown_maps_and_platforms_and_the_parameters_of_another_model(tmp_path, monkeypatch):
    (model, _), file = model_of("dense"), tmp_path / "file"
    params = init_params(model, jax.random.key(0), np.ones((1, 5), np.float32))
    for options, message in [
        ({"what": "embedd"}, "what='embedd'. Did you mean 'embed'"),
        ({"platforms": ("gpu", "cpu")}, "Unknown platform 'gpu'"),
    ]:
        with pytest.raises(InputError, match=message):
            export.to_file(file, model, params, **options)
    with pytest.raises(InputError, match="give what is inside"):
        export.to_file(file, model, {"params": params})
    with pytest.raises(InputError, match="not the parameters of this AE"):
        export.to_file(file, AE.dense(5, 3, hidden_dims=(7, 7)), params)
    with pytest.raises(InputError, match="not the parameters of this AE"):
        export.to_file(file, model, {"decoder": params["decoder"]})
    assert not file.exists()
    for module, function in [
        ("flatbuffers", lambda: export.to_file(file, model, params)),
        ("safetensors", lambda: export.save_safetensors(file, params)),
        ("safetensors", lambda: export.load_safetensors(file)),
    ]:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            patch.setitem(sys.modules, f"{module}.flax", None)
            with pytest.raises(
                InputError, match=rf"needs {module}, which is not installed: pip install 'aejax\[export\]'$"
            ):
                function()


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_parameters_come_back_with_their_bits(tmp_path):
    rng = np.random.default_rng(0)
    params = {
        "encoder": {"dense_0": {"kernel": rng.standard_normal((3, 4)).astype(np.float32)}},
        "decoder": {"half": rng.standard_normal(5).astype(ml_dtypes.bfloat16), "empty": np.zeros((0, 2), np.float32)},
        "logvar": jnp.float32(-0.0),
        "count": np.int32([-1, 2**31 - 1]),
        "odd": np.array([np.nan, -np.inf, 1e-45], np.float32),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    export.save_safetensors(tmp_path / "file", params)
    back = export.load_safetensors(tmp_path / "file")
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for (path, a), b in zip(jax.tree.leaves_with_path(params), jax.tree.leaves(back), strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (b.dtype, b.shape, np.asarray(b).tobytes()), path
    with safe_open(tmp_path / "file", framework="numpy") as file:  # another reader
        assert "encoder/dense_0/kernel" in set(file.keys())
        np.testing.assert_array_equal(file.get_tensor("turned"), params["turned"])


def test_refuses_names_that_cannot_be_told_apart_and_what_is_no_array(tmp_path):
    for params, message in [
        ({"a": {"b/c": np.ones(1)}}, "named .'a', 'b/c'.; strings without a '/'"),
        ({"a": {0: np.ones(1)}}, "strings without a '/'"),
        ({"a": {"b": 1.0}}, "a/b is 1.0, not an array"),
        ({"a": {}, "b": np.ones(1)}, "a is .*, not an array"),
    ]:
        with pytest.raises(InputError, match=message):
            export.save_safetensors(tmp_path / "file", params)
    assert not (tmp_path / "file").exists()


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL):
        exec(compile(code.replace("num_epochs=20", "num_epochs=1"), "docs/export.md", "exec"), names)
    np.testing.assert_allclose(names["served"], names["codes"], rtol=0, atol=1e-6)
