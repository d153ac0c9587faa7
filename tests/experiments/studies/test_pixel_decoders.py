"""The study of decoders that see pixels: what rows share, refusals, the table, and a whole run of known entropy."""

import json
import math

import jax
import numpy as np
import pytest

from aejax import runner
from aejax.checks import InputError
from aejax.nets import init_params
from aejax.runner import launch, study, units
from aejax.runner.inputs import Spec
from experiments.studies import pixel_decoders
from experiments.studies.units import METRICS


def shapes(config):
    """Of the parameters of every row, for images of 8 x 8 pixels."""
    found = {}
    for name, (experiment, own) in pixel_decoders.runs(config).items():
        model = experiment.build_model(own, Spec((8, 8, 1), None))
        params = jax.eval_shape(lambda model=model: init_params(model, jax.random.key(0), np.zeros((1, 8, 8, 1))))
        found[name] = jax.tree.map(lambda leaf: leaf.shape, params)
    return found


def test_rows_share_the_encoder_the_way_back_and_the_gated_layers():
    found = shapes(pixel_decoders.Config(features=(3, 5), pixel_features=(4, 4, 6), latent_dim=2))
    vae, one, two, three, alone = found.values()
    assert vae["encoder"] == one["encoder"] == two["encoder"] == three["encoder"]
    assert vae["encoder"]["dense"]["kernel"] == (4 * 4 * 5, 2 * 2)
    back = [row["decoder"]["upsample"] if row is not vae else row["decoder"] for row in (vae, one, two, three)]
    assert {way["dense"]["kernel"] for way in back} == {(2, 4 * 4 * 5)}
    assert back[1] == back[2] == back[3]
    assert vae["decoder"]["conv_0"] == back[1]["conv_0"]
    layers = lambda network: {name: each for name, each in network.items() if name.startswith("layers")}
    networks = [row["decoder"]["network"] for row in (one, two, three)]
    assert [len(layers(network)) for network in networks] == [1, 2, 3]
    assert len(layers(alone["encoder"])) == 3
    for name, each in layers(alone["encoder"]).items():  # but for what the code tells
        assert each.items() <= networks[2][name].items()
        assert networks[2][name].keys() - each.keys() == {"told"}


def test_the_parameters_of_pixel_cnn_by_hand():
    """Kernels of 1 x 3 and, behind the first layer, 2 x 3 above, 1 x 2 before; then the maps of each place."""
    config = pixel_decoders.Config(rows=("pixel_cnn",), pixel_features=(4, 4))
    first = 3 * 8 + 8 + 2 * 8 + 8 * 8 + 8 + 4 * 4 + 4
    second = 6 * 4 * 8 + 8 + 2 * 4 * 8 + 8 * 8 + 8 + 4 * 4 + 4
    (found,) = shapes(config).values()
    assert sum(math.prod(s) for s in jax.tree.leaves(found, is_leaf=lambda s: isinstance(s, tuple))) == (
        first + second + (4 * 4 + 4) + (4 + 1)
    )


def test_all_rows_are_trained_alike_and_a_binary_set_is_taken_as_it_is():
    config = pixel_decoders.Config(num_seeds=2, seed=3)
    found = pixel_decoders.runs(config)
    assert list(found) == [f"{row}-{seed}" for seed in (3, 4) for row in config.rows]
    for name in ("batch_size", "num_epochs", "schedule", "validation", "hparams", "dataset", "binarize"):
        assert len({getattr(own, name) for _, own in found.values()}) == 1, name
    assert found["vae-3"][1].binarize == "stochastic"
    fixed = pixel_decoders.runs(pixel_decoders.Config(dataset="binarized_mnist"))
    assert {own.binarize for _, own in fixed.values()} == {"none"}


def test_the_images_held_out_are_drawn_once_the_same_for_all_rows_and_stay_what_they_are():
    """So that two parameters that are equal have equal bounds, whatever the step."""
    config = pixel_decoders.Config(rows=("vae", "pixel_cnn"), features=(2,), pixel_features=(2,))
    readies = [runner.prepare(experiment, own) for experiment, own in pixel_decoders.runs(config).values()]
    one, other = (ready.feed.held_out.x for ready in readies)
    np.testing.assert_array_equal(one, other)
    assert set(np.unique(one)) == {0, 1}
    grey = readies[0].dataset.validation.x
    assert float(np.abs(one.mean() - grey.mean())) < 4 * np.sqrt((grey * (1 - grey)).sum()) / grey.size
    exact = readies[1]
    evaluate = jax.jit(lambda state: exact.algorithm.evaluate(state, exact.feed.held_out, jax.random.key(0)))
    later = exact.state._replace(step=exact.state.step + 100)
    assert evaluate(exact.state)["recon/loss"] == evaluate(later)["recon/loss"]


def test_test_images_are_drawn_by_the_seed_and_not_by_the_row(monkeypatch):
    """All that is measured of a row is of them; two rows differ by what they tell of the same pixels."""
    seen, Seen = [], type("Seen", (Exception,), {})

    def spy(method, state, batch, key):
        seen.append(np.asarray(batch.x))
        raise Seen

    monkeypatch.setattr(pixel_decoders.training, "evaluate", spy)
    for seed in (0, 1):
        config = pixel_decoders.Config(rows=("vae", "pixel_cnn"), features=(2,), pixel_features=(2,), seed=seed)
        for experiment, own in pixel_decoders.runs(config).values():
            ready = runner.prepare(experiment, own, shapes_only=True)
            monkeypatch.setattr(pixel_decoders, "chosen", lambda *args, own=own, ready=ready: (own, ready.model, None))
            with pytest.raises(Seen):
                pixel_decoders.measured(None, config, str)
    assert {value for x in seen for value in np.unique(x)} == {0, 1}
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[2], seen[3])
    assert (seen[0] != seen[2]).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ("pixel_rnn",)}, "no row 'pixel_rnn'"),
        ({"rows": ("pixel_vae_4",)}, "no row 'pixel_vae_4'"),  # there are four: that is pixel_vae
        ({"rows": ("pixel_vae_0",)}, "no row 'pixel_vae_0'"),
        ({"rows": ("vae", "vae")}, "none twice"),
        ({"nll_samples": 0}, "nll-samples"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        pixel_decoders.runs(pixel_decoders.Config(**fields))


def test_the_table_by_hand():
    vae = {"test_bound_nats": [90.0], "test_rate_nats": [25.0], "test_nll_nats": [87.5]}
    one = {"test_bound_nats": [85.0, 86.0], "test_rate_nats": [12.0, 14.0], "test_nll_nats": [84.0, 84.0]}
    exact = {"test_nll_nats": [82.0]}
    beside = {"best_epoch": [40], "best_val_nats": [81.5], "num_params": [136673.0], "seconds": [60.0]}
    metrics = {"vae": vae | beside, "pixel_vae_1": one | beside, "pixel_cnn": exact | beside}
    summary = {"dataset": "binarized_mnist", "rows": [*metrics], "metrics": metrics, "validation": 0.1,
               "num_epochs": 50, "nll_samples": 1000}  # fmt: skip
    head, _, *lines = pixel_decoders.table(summary).splitlines()
    assert head.count("|") == lines[0].count("|")
    assert "k = 1,000" in head
    assert lines[0] == "| VAE | 90 (≤ 87.41) | 25 | 87.5 | 40 | 81.5 | 50 | 136,673 | 1, 60 |"
    assert lines[1].startswith("| PixelVAE, 1 layer | 85.50 ± 0.71 | 13.0 ± 1.4 | 84 ± 0 | 40 |")
    assert lines[2] == "| PixelCNN | | | 82 (80.10) | 40 | 81.5 | 50 | 136,673 | 1, 60 |"
    last = pixel_decoders.table(summary | {"dataset": "digits", "validation": 0.0}).splitlines()[-1]
    assert last == "| PixelCNN | | | 82 | 50 | 136,673 | 1, 60 |"


@pytest.mark.slow
def test_of_two_images_all_rows_take_log_2_at_least_and_pixel_cnn_finds_it(tmp_path):
    """A line above, and all below it alike: one bit, of a pixel or, where pixels do not see each other, of the code."""
    x = np.ones((480, 3, 3), np.float32)
    x[::2, 1:] = 0
    np.savez(tmp_path / "two.npz", x=x[:400], x_test=x[400:])
    flags = ["--dataset", str(tmp_path / "two.npz"), "--rows", "vae", "pixel_vae_1", "pixel_cnn"]
    flags += ["--features", "6", "--pixel-features", "8", "8", "--latent-dim", "2", "--num-epochs", "40"]
    flags += ["--batch-size", "40", "--lr", "0.01", "--nll-samples", "30", "--workdir", str(tmp_path / "run")]
    launch.command_line("pixel_decoders", pixel_decoders.Config, "", study.body(pixel_decoders.STUDY), flags)
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    for row, found in metrics.items():
        assert found["test_nll_nats"][0] > math.log(2) - 1e-3, row
        passes = pixel_decoders.history(tmp_path / "run" / f"{row}-0")
        lowest = min(passes, key=lambda each: each[pixel_decoders.term(each, "val/")])
        assert found["best_epoch"] == [lowest["epoch"]]
        assert [name for name in found if units.find(name, METRICS) is None] == []
        assert np.load(tmp_path / "run" / f"{row}-0" / "drawn.npy").shape == (12, 3, 3, 1)
    assert metrics["pixel_cnn"]["test_nll_nats"][0] == pytest.approx(math.log(2), abs=0.1)
    assert metrics["vae"]["test_bound_nats"][0] > metrics["vae"]["test_nll_nats"][0]
    assert metrics["vae"]["test_rate_nats"][0] > math.log(2) - 0.1 > metrics["pixel_vae_1"]["test_rate_nats"][0]
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"curves", "samples"}
    drawn = np.load(tmp_path / "run" / "pixel_cnn-0" / "drawn.npy")
    wholes = np.stack([x[0], x[1]])[:, None, ..., None]
    assert (np.abs(wholes - drawn).sum(axis=(2, 3, 4)).min(axis=0) == 0).mean() > 0.8
