"""Pictures as files, by hand and from the command line."""

import jax
import numpy as np
import pytest
from PIL import Image

import aejax
from aejax import compress, runner
from aejax.checks import InputError
from aejax.evaluation import reconstruct
from aejax.methods.compressive_ae import CompressiveAE
from aejax.runner import compress as command


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)


MODEL = CompressiveAE.images(3, 2, features=(4,), strides=(2, 2), kernels=(3, 3))


@pytest.fixture(scope="module")
def params():
    return aejax.init_params(MODEL, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_a_picture_comes_back_as_the_decoder_has_it_in_8_bits(params, picture, tmp_path):
    size = compress.encode_file(MODEL, params, picture, tmp_path / "a.axc")
    assert size == (tmp_path / "a.axc").stat().st_size
    compress.decode_file(MODEL, params, tmp_path / "a.axc", tmp_path / "out.png")
    x = opened(picture)[None] / np.float32(255)
    wanted = np.floor(255 * np.clip(reconstruct(MODEL, params, x), 0, 1) + 0.5)
    np.testing.assert_array_equal(opened(tmp_path / "out.png"), wanted[0])


def test_what_is_no_such_picture_is_refused_and_the_advice_works(params, picture, tmp_path):
    with Image.open(picture) as image:
        image.convert("L").save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"mode L; this model takes RGB: save Image.open\(...\).convert\('RGB'\)"):
        compress.encode_file(MODEL, params, tmp_path / "grey.png", tmp_path / "b.axc")
    with Image.open(tmp_path / "grey.png") as image:
        image.convert("RGB").save(tmp_path / "rgb.png")
    assert compress.encode_file(MODEL, params, tmp_path / "rgb.png", tmp_path / "b.axc")
    with pytest.raises(InputError, match="no picture that Pillow can read"):
        compress.encode_file(MODEL, params, tmp_path / "text.png", tmp_path / "c.axc")
    with pytest.raises(InputError, match=r"ending \.png"):
        compress.decode_file(MODEL, params, tmp_path / "b.axc", tmp_path / "out.jpg")
    with pytest.raises(InputError, match=r"CompressiveAE\.images"):
        compress.encode_file(CompressiveAE.dense(4, 2), params, picture, tmp_path / "c.axc")


def test_a_grey_picture_and_one_that_is_turned(params, picture, tmp_path):
    model = CompressiveAE.images(1, 2, features=(4,), strides=(2, 2), kernels=(3, 3))
    own = aejax.init_params(model, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    turned = Image.Exif()
    turned[0x112] = 6  # a quarter turn
    with Image.open(picture) as image:
        grey = image.convert("L")
        grey.save(tmp_path / "turned.png", exif=turned)
    compress.encode_file(model, own, tmp_path / "turned.png", tmp_path / "g.axc")
    compress.decode_file(model, own, tmp_path / "g.axc", tmp_path / "out.png")
    x = np.rot90(np.asarray(grey), -1)[None, ..., None] / np.float32(255)
    wanted = np.floor(255 * np.clip(reconstruct(model, own, x), 0, 1) + 0.5)
    np.testing.assert_array_equal(opened(tmp_path / "out.png"), wanted[0, ..., 0])
    (tmp_path / "two.axc").write_bytes(compress.compress(model, own, np.concatenate([x, x])))
    with pytest.raises(InputError, match="holds 2 pictures"):
        compress.decode_file(model, own, tmp_path / "two.axc", tmp_path / "out.png")
    ramp = np.linspace(0, 65535, 9 * 14).reshape(9, 14).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="bring its values to 8 bits first"):
        compress.encode_file(model, own, tmp_path / "deep.png", tmp_path / "g.axc")
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "deep.png")
    assert compress.encode_file(model, own, tmp_path / "deep.png", tmp_path / "g.axc")
    assert not list(tmp_path.glob(".part-*"))


def test_the_command_line_writes_reads_and_ends_with_the_right_code(params, picture, tmp_path, monkeypatch, capsys):
    class State:
        pass

    State.params = params
    monkeypatch.setattr(command, "load", lambda folder: (None, MODEL, State))
    call = lambda *args: command.main([*map(str, args), "--model", "a_run"])
    call("encode", picture, tmp_path / "a.axc")
    assert f"a.axc: {(tmp_path / 'a.axc').stat().st_size} bytes" in capsys.readouterr().out
    call("decode", tmp_path / "a.axc", tmp_path / "out.png")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:150])
    assert opened(tmp_path / "out.png").shape == (9, 14, 3)
    for args, code, text in (
        (("encode", tmp_path / "none.png", tmp_path / "a.axc"), 1, "No such file"),
        (("encode", tmp_path / "cut.png", tmp_path / "a.axc"), 2, "is damaged, or too large for Pillow"),
        (("decode", picture, tmp_path / "out.png"), 2, "no file of aejax.compress"),
    ):
        with pytest.raises(SystemExit) as end:
            call(*args)
        assert end.value.code == code
        assert text in capsys.readouterr().err
    monkeypatch.setattr(command, "load", lambda folder: (None, aejax.AE.dense(4, 2), State))
    with pytest.raises(SystemExit):
        call("encode", picture, tmp_path / "a.axc")
    assert "a_run holds a AE; a run of compressive_ae is needed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_the_experiment_writes_pictures_of_other_sizes_than_it_was_trained_on(picture, tmp_path):
    from experiments import compressive_ae

    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8))
    flags = ["--dataset", str(tmp_path / "x.npz"), "--net", "images", "--latent-dim", "2", "--num-epochs", "1"]
    runner.main(compressive_ae.EXPERIMENT, "", [*flags, "--batch-size", "8", "--workdir", str(tmp_path / "run")])
    model = ["--model", str(tmp_path / "run")]
    command.main(["encode", str(picture), str(tmp_path / "a.axc"), *model])
    command.main(["decode", str(tmp_path / "a.axc"), str(tmp_path / "out.png"), *model])
    assert opened(tmp_path / "out.png").shape == (9, 14, 3)
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"curves.png", "reconstructions.png"}
