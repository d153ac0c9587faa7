"""Bad input: a short message on stderr, exit code 2, no traceback, and the disk as it was."""

import os

import numpy as np
import pytest
from small_run import EXPERIMENT, contents

from aejax.runner import launch
from experiments import aae, cae, dae, vae
from experiments.studies import compare


@pytest.fixture
def refused(call, tmp_path):
    """`refused(*flags)` is the message that they are refused with."""

    def refused(*flags, experiment=EXPERIMENT):
        before = contents(tmp_path), sorted(tmp_path.rglob("*"))
        outcome = call(*flags, experiment=experiment)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        assert len(outcome.err) < 1200
        assert outcome.out == ""
        assert (contents(tmp_path), sorted(tmp_path.rglob("*"))) == before
        return outcome.err

    return refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "fashion_mnits"], "Did you mean 'fashion_mnist'"),
        (["--dataset", "digit"], "Did you mean 'digits'"),
        (["--dataset", "mnist"], "python -m aejax.data prepare mnist"),
        (["--dataset", "nowhere.npy"], "There is no file nowhere.npy."),
        (["--batch-size", "1456"], "batch_size=1456 exceeds the 1455 examples"),
        (["--batch-size", "0"], "--batch-size is 0; it has to be at least 1."),
        (["--batch-size", "100", "--devices", "8"], "100 is not divided by 8 devices; 96 and 104 would be."),
        (["--devices", "9"], "9 devices were asked for and 8"),
        (["--devices", "0"], "0 devices were asked for"),
        (["--latent-dim", "0"], "--latent-dim is 0"),
        (["--latent-dim", "-3"], "--latent-dim is -3"),
        (["--hidden-dims", "8", "0"], "--hidden-dims are (8, 0); each has to be at least 1."),
        (["--num-epochs", "0"], "--num-epochs is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", str(2**32)], "--seed is 4294967296; it has to be at least 0 and below 2^32."),
        (["--validation", "1"], "--validation is 1.0"),
        (["--validation", "-0.1"], "--validation is -0.1"),
        (["--validation", "nan"], "--validation is nan"),
        (["--num-train", "1456"], "--num-train is 1456; digits has 1455 of them"),
        (["--num-train", "600", "--batch-size", "601"], "batch_size=601 exceeds the 600 examples"),
        (["--num-test", "0"], "--num-test is 0; digits has 180 of them, and at least 1 is needed."),
        (["--checkpoint-seconds", "-1"], "--checkpoint-seconds is -1.0"),
        (["--checkpoint-seconds", "nan"], "--checkpoint-seconds is nan"),
        (["--schedule", "cosin"], "Did you mean 'cosine'"),
        (["--hparams.lr", "0"], "lr is 0.0; it has to be positive and finite."),
        (["--hparams.lr", "-1e-3"], "lr is -0.001; it has to be positive"),
        (["--hparams.lr", "inf"], "lr is inf; it has to be positive and finite."),
        (["--hparams.lr", "nan"], "lr is nan; it has to be positive and finite."),
        (["--likelihood", "bernouli"], "Did you mean 'bernoulli'?"),
        (["--clip", "0"], "--clip is 0.0; it has to be positive and finite."),
        (["--clip", "nan"], "--clip is nan"),
        (["--latent-dim", "two"], "Error parsing --latent-dim"),
        (["--latent_dims", "2"], "--latent-dim"),
        (["--laten-dim", "2"], "--latent-dim"),
        (["--lr", "0.1"], "--hparams.lr"),
        (["--workdir", "/dev/null"], "/dev/null is not a folder"),
        (["--workdir", "/dev/null/run"], "/dev/null is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags(refused, monkeypatch, tmp_path_factory, flags, message):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("nothing-prepared")))
    assert message in refused(*flags)


@pytest.mark.parametrize(
    ("experiment", "flags", "message"),
    [
        (vae, ["--hparams.beta", "-1"], "beta is -1.0"),
        (vae, ["--beta", "4"], "--hparams.beta"),
        (vae, ["--nll-samples", "-1"], "--nll-samples is -1"),
        (vae, ["--warmup-epochs", "-1"], "--warmup-epochs is -1; it has to be 0 or more."),
        (aae, ["--prior", "mixtur"], "Did you mean 'mixture'?"),
        (dae, ["--corruption", "masking", "--hparams.level", "1.5"], "level is 1.5"),
        (dae, ["--hparams.level", "-0.1"], "level is -0.1"),
        (cae, ["--hparams.contraction", "-1"], "contraction is -1.0"),
        (cae, ["--jacobian", "backward"], "invalid choice"),
        (aae, ["--prior", "swiss_roll", "--latent-dim", "3"], "'swiss_roll' has 2 dimensions; latent_dim is 3"),
        (aae, ["--hparams.disc-lr", "0"], "disc_lr is 0.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_the_methods(refused, experiment, flags, message):
    assert message in refused(*flags, experiment=experiment.EXPERIMENT)


@pytest.fixture
def save(tmp_path):
    """`save(x)` is a file of these examples."""

    def save(x):
        np.save(tmp_path / "faces.npy", x)
        return "faces.npy"

    return save


IMAGES = np.random.default_rng(0).random((600, 6, 6))


def with_value(value):
    x = IMAGES.copy()
    x[7, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (IMAGES[0, 0], "has shape (6,); [N, D] or [N, H, W] or [N, H, W, C] is needed"),
        (IMAGES[:0], "no examples"),
        (IMAGES[:1], "too few"),
        (IMAGES[:, :0], "examples without a value"),
        (with_value(np.nan), "holds NaN or infinity (in float32) in 1 of its 600 examples, first in row 7"),
        (with_value(np.inf), "holds NaN or infinity (in float32) in 1 of its 600 examples"),
        (with_value(2.0), "faces.npy holds values from 3.25754e-05 to 2; the bernoulli likelihood needs [0, 1]"),
        (255 * IMAGES, "Rescale with x / 255"),
        (IMAGES.astype(complex), "dtype complex128"),
        (np.array(["a", "b"]), "dtype <U1"),
    ],
    ids=["shape", "none", "one", "empty", "nan", "inf", "above", "bytes", "complex", "text"],
)
def test_data(refused, save, x, message):
    assert message in refused("--dataset", save(x), "--batch-size", "1")


def test_binarisation_needs_values_between_0_and_1_whatever_the_likelihood(refused, save):
    flags = ("--dataset", save(with_value(-1.0)), "--likelihood", "gaussian", "--binarize", "stochastic")
    assert "needs [0, 1]" in refused(*flags, "--batch-size", "1")


def test_vectors_are_no_images(refused, save):
    flags = ("--dataset", save(IMAGES.reshape(600, 36)), "--net", "conv", "--batch-size", "1")
    assert "--net conv needs images; faces.npy holds vectors" in refused(*flags)


@pytest.mark.parametrize("name", ["faces.npy", "faces.npz"])
def test_files_that_cannot_be_read(refused, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"")
    assert f"{name} is empty" in refused("--dataset", name)
    file.write_bytes(b"JPEG")
    assert f"{name} cannot be read" in refused("--dataset", name)
    file.unlink()
    file.mkdir()
    assert refused("--dataset", name).startswith(f"error: There is no file {name}.")


def test_a_truncated_file(refused, save, tmp_path):
    file = tmp_path / save(IMAGES)
    os.truncate(file, file.stat().st_size // 2)
    assert "faces.npy cannot be read" in refused("--dataset", "faces.npy")


@pytest.mark.slow
def test_a_folder_of_another_run(refused, finished, tmp_path):
    before = contents(finished)
    for flags in (["--seed", "1"], ["--seed", "1", "--resume"], ["--latent-dim", "3"]):
        assert "holds another run" in refused("--workdir", finished, *flags)
    assert "holds a run of ae, not of vae" in refused("--workdir", finished, experiment=vae.EXPERIMENT)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("In the beginning")
    assert "not empty and holds no run" in refused("--workdir", "thesis")
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--batch-size", "9999"], "exceeds"), (["--latent-dim", "0"], "--latent-dim"), (["--devices", "9"], "9 devices")],
)
def test_compare_refuses_before_it_begins(capsys, tmp_path, flags, message):
    with pytest.raises(SystemExit) as end:
        launch.command_line("compare", compare.Config, "What it is.", compare.body, flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
