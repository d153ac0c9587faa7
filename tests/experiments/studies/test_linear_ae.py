"""The study of linear autoencoders, small: closed forms are met, runs can be opened again."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from aejax import runner
from aejax.checks import InputError
from aejax.data import load
from aejax.methods.mdae import linear_dae
from aejax.runner import launch, study
from experiments.studies import linear_ae

FLAGS = (
    "--latent-dims", "4", "--latent-dim", "4", "--num-directions", "4", "--num-epochs", "400", "--batch-size", "400",
    "--denoising-epochs", "400", "--hparams.lr", "0.02", "--workdir", "run",
)  # fmt: skip


@pytest.mark.slow
def test_every_row_meets_its_closed_form(tmp_path, capsys):
    launch.command_line("linear_ae", linear_ae.Config, "", study.body(linear_ae.STUDY), FLAGS)
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert list(rows) == ["plain_4", "no_bias", "tied", "decayed", "gaussian", "masking"]
    for name in ("plain_4", "no_bias", "tied"):
        assert rows[name]["test_sse"][0] == pytest.approx(rows[name]["pca_test_sse"][0], rel=0.001)
        assert rows[name]["principal_angle"][0] < 2
    assert rows["plain_4"]["pca_test_sse"][0] == pytest.approx(_pca_by_sklearn(4), rel=1e-5)
    assert rows["decayed"]["direction_angle"][0] < 1
    assert rows["decayed"]["variance_error"][0] < 0.02
    for name in ("gaussian", "masking"):
        assert 0 <= rows[name]["denoising_excess"][0] < 0.01
        assert rows[name]["map_error"][0] < 0.06
    out = capsys.readouterr().out
    assert all(f"| {head} |" in out for head in ("plain", "squared weights", "denoising"))
    assert {p.name for p in (tmp_path / "run" / "figures").iterdir()} == {
        "directions.png",
        "gaussian.png",
        "masking.png",
    }
    config, model, state = runner.load(tmp_path / "run" / "decayed-0")
    assert config.hparams.weight_decay == linear_ae.HParams().weight_decay
    assert model.apply({"params": state.params}, np.zeros((1, 64))).shape == (1, 64)


def _pca_by_sklearn(k):
    from sklearn.decomposition import PCA

    dataset = load("digits", validation=0.0)
    train, test = (np.asarray(split.x, np.float64).reshape(-1, 64) for split in (dataset.train, dataset.test))
    pca = PCA(k, svd_solver="full").fit(train)
    return np.square(test - pca.inverse_transform(pca.transform(test))).sum(axis=1).mean()


def test_the_best_map_is_off_by_nothing_and_another_by_its_outputs():
    """`map_error` against draws of the noise, for a map that is not the best."""
    name, (experiment, config) = next(
        item for item in linear_ae.runs(linear_ae.Config(latent_dim=3)).items() if item[0].startswith("masking")
    )
    ready = runner.prepare(experiment, config)
    x, level = ready.dataset.train.x, config.hparams.level
    best = linear_dae(x, "masking", level, latent_dim=3)
    measured = lambda params: experiment.measure(
        runner.Trained(config, ready.model, ready.algorithm, ready.state._replace(params=params), ready.dataset, [],
                       jax.random.key(0), jax.random.key(1), {})
    )  # fmt: skip
    found = measured(best)
    assert (found["map_error"], found["denoising_excess"]) == (0, 0)
    rng = np.random.default_rng(0)
    other = jax.tree.map(lambda v: v + 0.05 * rng.normal(size=v.shape).astype(v.dtype), best)
    matrices = [each["encoder"]["dense_0"]["kernel"] @ each["decoder"]["dense_0"]["kernel"] for each in (best, other)]
    x_tilde = np.concatenate([x * (rng.random(x.shape) >= level) for _ in range(40)]).astype(np.float64)
    spread = lambda matrix: (x_tilde @ matrix).var(axis=0).sum() ** 0.5
    expected = spread(matrices[1] - matrices[0]) / spread(matrices[0])
    assert measured(other)["map_error"] == pytest.approx(expected, rel=0.02)
    assert name == "masking-0"


def test_what_cannot_be_run_is_refused():
    config = linear_ae.Config()
    for changed, message in (
        ({"latent_dims": ()}, "At least one of --latent-dims"),
        ({"latent_dims": (4, 4)}, "names a size twice"),
        ({"num_seeds": 0}, "--num-seeds"),
        ({"hparams": linear_ae.HParams(weight_decay=0.0)}, r"weight_decay is 0\.0"),
    ):
        with pytest.raises(InputError, match=message):
            linear_ae.runs(dataclasses.replace(config, **changed))


def test_the_published_error_is_shown_for_mnist_alone():
    plain = {
        "test_sse": [13.86, 13.88],
        "pca_test_sse": [13.8663] * 2,
        "principal_angle": [1.0, 2.0],
        "seconds": [9.0, 9.0],
    }
    decayed = {"direction_angle": [0.3], "variance_error": [0.002], "transpose_error": [0.001]}
    noisy = {"denoised_sse": [20.0], "best_denoised_sse": [19.9], "denoising_excess": [0.005], "map_error": [0.01]}
    summary = {
        "dataset": "mnist", "latent_dims": [30], "latent_dim": 30, "num_directions": 10,
        "hparams": linear_ae.HParams()._asdict(),
        "metrics": {"plain_30": plain, "no_bias": plain, "tied": plain, "decayed": decayed, "gaussian": noisy,
                    "masking": noisy},
    }  # fmt: skip
    lines = linear_ae.table(summary).splitlines()
    assert [line.count("|") for line in lines] == [6] * 5 + [0] + [6] * 3 + [0] + [7] * 4
    assert lines[2] == "| 30 units | 13.870 ± 0.014 | 13.866 (13.87) | 1.50 ± 0.71 | 2, 9 |"
    assert "(13.87)" not in linear_ae.table(summary | {"dataset": "digits"})
    assert any(line.startswith("| 30 units, masking of 0.5 | 20 | 19.900 | 0.5 | 1 |") for line in lines)
