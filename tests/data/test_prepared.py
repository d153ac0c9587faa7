"""Prepared TFDS sets, the cache, and the command that prepares them; on sets that TFDS writes here, and MNIST."""

import functools
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from aejax import data, extras
from aejax.checks import InputError
from aejax.data import __main__ as command
from aejax.data import prepared

SPLITS = {"train": 30, "test": 7}


def picture(i):
    """The i-th image, 4x5 RGB: every pixel different, and different in every image."""
    return (np.arange(60) * 4 + i).astype(np.uint8).reshape(4, 5, 3)


@functools.cache
def builder_class(name, kind):
    """A real TFDS builder; the images are given as PNG, so that it prepares without TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image

    features = {
        "validated": {"image": tfds.features.Image(shape=(4, 5, 3)), "label": tfds.features.ClassLabel(num_classes=99)},
        "labelled": {"image": tfds.features.Image(shape=(4, 5, 3)), "label": tfds.features.ClassLabel(num_classes=99)},
        "unlabelled": {"image": tfds.features.Image(shape=(4, 5, 3))},
        "ragged": {"image": tfds.features.Image(shape=(None, None, 3))},
        "text": {"text": tfds.features.Text()},
    }[kind]

    def example(i):
        png = io.BytesIO()
        Image.fromarray(picture(i)).save(png, "PNG")
        png.seek(0)
        return {k: {"image": png, "label": i, "text": "words"}[k] for k in features}

    def examples(numbers):
        return ((i, example(i)) for i in numbers)

    def split_generators(self, _):
        train = {"train": examples(range(30))}
        if kind == "validated":
            return {**train, "test": examples(range(30, 37)), "validation": examples(range(37, 40))}
        return train if kind == "unlabelled" else {**train, "test": examples(range(30, 37))}

    members = {
        "VERSION": tfds.core.Version("1.2.3"),
        "_info": lambda self: tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features)),
        "_split_generators": split_generators,
        "_generate_examples": lambda self, numbers: examples(numbers),
        "__module__": __name__,
    }
    return type(name, (tfds.core.GeneratorBasedBuilder,), members)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with five small sets, as TFDS prepares them."""
    folder = tmp_path_factory.mktemp("tfds")
    kinds = {"ToyFaces": "labelled", "ToyBare": "unlabelled", "ToyRagged": "ragged", "ToyText": "text"}
    for name, kind in {**kinds, "ToyValidated": "validated"}.items():
        builder_class(name, kind)(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def sets(written, tmp_path, monkeypatch):
    """A copy of them to damage, with a cache of its own and no network."""
    folder = tmp_path / "tfds"
    shutil.copytree(written, folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / "cache"))
    no_network(monkeypatch)
    return folder


def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def assert_toy_faces(loaded):
    """Every image is there once, in its split, under its own label."""
    train = [*loaded.train.y, *loaded.validation.y]
    assert sorted(train) == list(range(30))
    assert sorted(loaded.test.y) == list(range(30, 37))
    for part in (loaded.train, loaded.validation, loaded.test):
        np.testing.assert_array_equal(np.round(part.x * 255), np.stack([picture(i) for i in part.y]))


def cache_files(tmp_path):
    return sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_a_prepared_set_is_read_and_cached(sets, tmp_path, monkeypatch):
    first = data.load("toy_faces")
    assert_toy_faces(first)
    assert first.image_shape == (4, 5, 3)
    assert [p.name for p in cache_files(tmp_path)] == ["test.npz", "train.npz"]
    monkeypatch.setattr(prepared, "_decode", lambda *args: pytest.fail("decoded again"))
    again = data.load("toy_faces")
    np.testing.assert_array_equal(first.train.x, again.train.x)
    np.testing.assert_array_equal(first.test.y, again.test.y)


def test_a_validation_split_of_a_set_is_its_own(sets):
    loaded = data.load("toy_validated")
    assert sorted(loaded.train.y) == list(range(30))
    assert sorted(loaded.test.y) == list(range(30, 37))
    assert sorted(loaded.validation.y) == [37, 38, 39]
    np.testing.assert_array_equal(np.round(loaded.validation.x[0] * 255), picture(loaded.validation.y[0]))


def test_a_set_with_neither_labels_nor_test_split(sets):
    loaded = data.load("toy_bare", seed=5)
    assert [len(part.x) for part in (loaded.train, loaded.validation, loaded.test)] == [24, 3, 3]
    assert loaded.train.y is loaded.test.y is None
    found = sorted(round(float(x[0, 0, 0] * 255)) for part in loaded[1:4] for x in part.x)
    assert found == list(range(30))  # the first pixel of picture i is i


@pytest.mark.parametrize("damage", [b"", b"garbage", "half", "bit"])
def test_a_damaged_cache_is_written_anew(sets, tmp_path, damage):
    data.load("toy_faces")
    path = cache_files(tmp_path)[1]
    whole = path.read_bytes()
    if damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "bit":
        path.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    else:
        path.write_bytes(damage)
    assert_toy_faces(data.load("toy_faces"))
    with np.load(path) as arrays:
        assert sorted(arrays["y"]) == list(range(30))


def test_a_cache_that_cannot_be_written_costs_a_warning(sets, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be cached, and are decoded at every run: .*Not a directory"):
        assert_toy_faces(data.load("toy_faces"))


def test_a_set_prepared_again_is_not_taken_from_the_old_cache(sets, tmp_path):
    data.load("toy_faces")
    info = sets / "toy_faces" / "1.2.3" / "dataset_info.json"
    info.write_text(info.read_text().replace('"name": "toy_faces"', '"description": "anew", "name": "toy_faces"'))
    assert_toy_faces(data.load("toy_faces"))
    assert len(cache_files(tmp_path)) == 4


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    x = np.arange(10**6, dtype=np.uint8)
    barrier, results = threading.Barrier(8), []

    def decode():
        barrier.wait()  # all find the cache empty, and all write
        return x, x[:5].astype(np.int32)

    def run():
        results.append(prepared._cached(tmp_path / "cache", "train", decode))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result[0], x) for result in results)
    assert [p.name for p in cache_files(tmp_path)] == ["train.npz"]
    cached = prepared._cached(tmp_path / "cache", "train", lambda: pytest.fail("not cached"))
    np.testing.assert_array_equal(cached[0], x)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("AEJAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert prepared.cache_dir() == tmp_path / ".cache" / "aejax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepared.cache_dir() == tmp_path / "xdg" / "aejax"
    monkeypatch.setenv("AEJAX_CACHE", "~/own")
    assert prepared.cache_dir() == tmp_path / "own"


def test_the_newest_version_is_taken(sets):
    for version in ("1.10.0", "1.9.0", "incomplete.ABC_2.0.0"):
        shutil.copytree(sets / "toy_faces" / "1.2.3", sets / "toy_faces" / version)
    assert prepared.find("toy_faces") == sets / "toy_faces" / "1.10.0"


def test_configurations(sets):
    shutil.copytree(sets / "toy_faces" / "1.2.3", sets / "toys" / "small" / "1.2.3")
    assert prepared.find("toys/small") == sets / "toys" / "small" / "1.2.3"
    assert prepared.find("toys") is None
    (sets / "toys" / ".config").mkdir()
    (sets / "toys" / ".config" / "metadata.json").write_text(json.dumps({"default_config_name": "small"}))
    assert prepared.find("toys") == sets / "toys" / "small" / "1.2.3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fashion_mnist",
            r"'fashion_mnist' is not prepared in .*tfds\. .*: python -m aejax.data prepare fashion_mnist$",
        ),
        ("emnist/letters", r"python -m aejax.data prepare emnist/letters$"),
        ("mnits", r"There is no data set 'mnits'. Did you mean 'mnist'"),
        ("MNIST", r"There is no data set 'MNIST'. Did you mean 'mnist'"),
        ("digit", r"There is no data set 'digit'. Did you mean 'digits'"),
        ("emnist/leters", r"emnist has no configuration 'leters'. Did you mean 'letters'"),
        ("mnist/letters", r"mnist has no configuration 'letters'. Use mnist."),
        ("../mnist", r"There is no data set '../mnist'"),
        ("qqqqqqqqqq", r"There is no data set 'qqqqqqqqqq'. Wanted: digits, a TFDS image set .* or a path to .npy"),
        ("", r"There is no data set ''. Wanted: digits"),
        ("toy_text", r"toy_text has no image feature; it has text"),
        ("toy_ragged", r"The images of toy_ragged are \?x\?x3 uint8; uint8 images of one size"),
    ],
)
def test_sets_that_cannot_be_used_end_at_once(sets, name, message):
    start = time.perf_counter()
    with pytest.raises(InputError, match=message):
        data.load(name)
    assert time.perf_counter() - start < 20  # tfds would retry its network for 200 s


@pytest.mark.parametrize(
    ("name", "meant"),
    [("mnits", "mnist"), ("MNIST", "mnist"), ("emnist/leters", "emnist/letters"), ("mnist/letters", "mnist")],
)
def test_the_set_that_was_meant_is_known(name, meant):
    with pytest.raises(InputError, match=f"Did you mean '{meant.rpartition('/')[2]}'|Use {meant}\\."):
        prepared.check_known(name)
    prepared.check_known(meant)


def test_other_configurations_are_named(sets):
    shutil.copytree(sets / "toy_faces" / "1.2.3", sets / "emnist" / "letters" / "3.1.0")
    with pytest.raises(InputError, match=r"'emnist' is not prepared in .*tfds \(there is emnist/letters\)\."):
        data.load("emnist")


def edit_info(**changes):
    def edit(folder):
        path = folder / "dataset_info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "dataset_info.json").write_text('{"name'), r"is damaged \(JSONDecodeError"),
        (lambda folder: (folder / "features.json").unlink(), r"is damaged \(FileNotFoundError"),
        (lambda folder: next(folder.glob("*train*")).unlink(), r"is damaged \(RuntimeError: .*No such file"),
        (lambda folder: next(folder.glob("*train*")).write_bytes(b""), r"is damaged \(RuntimeError"),
        (edit_info(fileFormat="tfrecord"), r"holds toy_faces as tfrecord, .*; array_record is needed"),
    ],
)
def test_damaged_sets(sets, damage, message):
    damage(sets / "toy_faces" / "1.2.3")
    with pytest.raises(InputError, match=message) as error:
        data.load("toy_faces")
    assert str(error.value).endswith("Move that folder away, then: python -m aejax.data prepare toy_faces")


def test_a_set_that_nobody_else_could_bring_back_is_to_be_written_again(sets, tmp_path, monkeypatch):
    (sets / "toy_faces").rename(sets / "my_cells")
    edit_info(fileFormat="tfrecord")(sets / "my_cells" / "1.2.3")
    with pytest.raises(
        InputError, match=r"tfds build --file_format=array_record, or save its examples as .npz \(x, y\)"
    ):
        data.load("my_cells")
    monkeypatch.chdir(tmp_path)
    np.savez("my_cells.npz", x=np.zeros((9, 2, 2)), y=np.arange(9))
    assert data.load("my_cells.npz").train.x.shape == (7, 2, 2, 1)


def test_a_set_that_can_be_prepared_again_is_to_be_moved_not_deleted(sets, tmp_path):
    (sets / "toy_faces").rename(sets / "mnist")
    (sets / "mnist" / "1.2.3" / "features.json").unlink()
    with pytest.raises(InputError, match=r"Move that folder away, then: python -m aejax.data prepare mnist$"):
        data.load("mnist")
    (sets / "mnist" / "1.2.3").rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"not prepared in .*Prepare it once, .*: python -m aejax.data prepare mnist$"):
        data.load("mnist")


def test_a_set_without_training_split(sets):
    info = sets / "toy_faces" / "1.2.3" / "dataset_info.json"
    info.write_text(info.read_text().replace('"train"', '"extra"'))
    with pytest.raises(InputError, match=r"toy_faces has no train split; it has .*extra"):
        data.load("toy_faces")


def test_prepare_then_load(sets, tmp_path, monkeypatch, capsys):
    """Of a damaged set, by the words of its refusal."""
    builder_class("ToyFaces", "labelled")
    (sets / "toy_faces" / "1.2.3" / "features.json").unlink()
    with pytest.raises(InputError, match="Move that folder away, then: python -m") as error:
        data.load("toy_faces")
    (sets / "toy_faces" / "1.2.3").rename(tmp_path / "away")
    monkeypatch.setattr(extras, "need", lambda *_, **__: None)
    assert command.main(str(error.value).rpartition("python -m aejax.data ")[2].split()) == 0
    assert f"toy_faces is prepared, in {sets / 'toy_faces' / '1.2.3'}" in capsys.readouterr().out
    assert_toy_faces(data.load("toy_faces"))
    assert command.main(["prepare", "toy_faces"]) == 0
    assert "toy_faces is prepared already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "There is no data set 'mnits'. Did you mean 'mnist'"),
        ("mnist", "Preparing a set needs tensorflow, which is not installed: pip install 'aejax[prepare]'"),
    ],
)
def test_prepare_refuses_in_one_line(sets, monkeypatch, capsys, name, message):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert command.main(["prepare", name]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_prepare_refuses_sets_without_images(sets, monkeypatch, capsys):
    shutil.rmtree(sets / "toy_text")
    monkeypatch.setattr(extras, "need", lambda *_, **__: None)
    assert command.main(["prepare", "toy_text"]) == 2
    assert capsys.readouterr().err == "toy_text has no image feature; it has text. Use a set of images.\n"
    assert not (sets / "toy_text").exists()


def test_a_failed_download_is_one_line_and_exit_code_1(sets, monkeypatch, capsys):
    def fail(self, **_):
        raise ConnectionError("no route to host")

    shutil.rmtree(sets / "toy_faces")
    monkeypatch.setattr(extras, "need", lambda *_, **__: None)
    monkeypatch.setattr(builder_class("ToyFaces", "labelled"), "download_and_prepare", fail)
    assert command.main(["prepare", "toy_faces"]) == 1
    assert capsys.readouterr().err == "toy_faces could not be prepared. ConnectionError: no route to host\n"


def test_digits_need_no_preparing(capsys):
    assert command.main(["prepare", "digits"]) == 0
    assert "nothing to prepare" in capsys.readouterr().out


def test_the_command_line_ends_with_code_2(sets):
    done = subprocess.run([sys.executable, "-m", "aejax.data", "prepare", "mnits"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("There is no data set 'mnits'. Did you mean 'mnist'")
    assert done.stderr.count("\n") == 1


needs_mnist = pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="MNIST in $TFDS_DATA_DIR is needed")


@pytest.mark.slow
@needs_mnist
def test_mnist_is_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path))
    mnist = data.load("mnist", validation=0)
    assert mnist.train.x.shape == (60_000, 28, 28, 1)
    assert mnist.test.x.shape == (10_000, 28, 28, 1)
    assert round(float(mnist.train.x.mean(dtype=np.float64)), 4) == 0.1307  # the constants everybody normalises with
    assert round(float(mnist.train.x.std(dtype=np.float64)), 4) == 0.3081
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.train.y).tolist() == counts
    assert np.bincount(mnist.test.y)[0] == 980

    parted = data.load("mnist")
    np.testing.assert_array_equal(parted.validation.x, mnist.train.x[54_000:])
    np.testing.assert_array_equal(parted.train.y, mnist.train.y[:54_000])


@pytest.mark.slow
@needs_mnist
def test_cached_mnist_is_ready_in_a_second_without_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv("AEJAX_CACHE", str(tmp_path))
    data.load("mnist")
    code = """
import sys, time
from aejax import data
start = time.process_time()
data.load("mnist")
print(time.process_time() - start, "tensorflow_datasets" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, imported = done.stdout.split()
    assert float(seconds) < 1  # of CPU, which other work on the machine does not lengthen
    assert imported == "False"
