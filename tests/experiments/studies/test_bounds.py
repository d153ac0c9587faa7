"""The study of bounds: the recipe of the paper, its rows and its tables, and one small study from end to end."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import contents, read

from aejax import data, evaluation, nets, runner
from aejax.methods.vae import vae_loss
from aejax.runner import launch, study, units
from aejax.runner.inputs import Spec
from experiments.studies import bounds
from experiments.studies.units import METRICS

FLAGS = (
    "--dataset", "bits.npz", "--rows", "dreg_2", "--hidden-dims", "6", "--latent-dim", "2", "--batch-size", "10",
    "--rates", "stages", "--nll-samples", "60",
)  # fmt: skip


def call(*flags):
    launch.command_line("bounds", bounds.Config, "", study.body(bounds.STUDY), [*FLAGS, *flags])


@pytest.fixture(scope="module")
def bits():
    """Two kinds of binary images with noise, 60 to train, 20 to validate, 30 to test."""
    rng = np.random.default_rng(0)
    x = (rng.random((110, 4, 4)) < np.where(np.arange(110) % 2, 0.9, 0.2)[:, None, None]).astype(np.uint8)
    return {"x": x[:60], "x_valid": x[60:80], "x_test": x[80:]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, bits):
    """The folder of a study of two passes; look, do not touch."""
    path = tmp_path_factory.mktemp("runs")
    np.savez(path / "bits.npz", **bits)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        call("--workdir", "bounds", "--num-epochs", "2", "--validation", "0.1")
    return path / "bounds"


def test_the_stages_are_those_of_the_paper_and_the_other_rate_ends_at_a_tenth():
    steps = 7  # in a pass
    rates = bounds.stages(1e-3, None, steps)
    passes = jax.vmap(rates)(steps * jnp.arange(3280))
    wanted = np.concatenate([np.full(3**i, 1e-3 * 10 ** (-i / 7)) for i in range(8)])
    np.testing.assert_allclose(passes, wanted, rtol=1e-5)
    np.testing.assert_allclose([rates(4 * steps - 1), rates(10**6)], [1e-3 * 10 ** (-1 / 7), 1e-4], rtol=1e-5)
    np.testing.assert_allclose(
        [bounds.even(1e-3, 100, steps)(i) for i in (0, 50, 100)], [1e-3, 10**-3.5, 1e-4], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "second"), [pytest.param("stages", 10 ** (-1 / 7), marks=pytest.mark.slow), ("even", 10**-0.5)]
)
def test_the_recipe_is_what_trains(tmp_path, bits, rates, second):
    """From outputs at the log-odds of the images, by Adam with epsilon 1e-4, at the rate of its step: the sixth."""
    np.savez("bits.npz", **bits)
    config = bounds.Config(dataset="bits.npz", rows=("vae_3",), hidden_dims=(6, 5), latent_dim=2, num_epochs=4,
                           rates=rates, hparams=bounds.HParams(2e-3))  # fmt: skip
    experiment, own = bounds.runs(config)["vae_3-0"]
    ready = runner.prepare(experiment, own, shapes_only=True)
    state, x = ready.fresh(), jnp.asarray(ready.dataset.train.x[:20])
    mean = np.float64(bits["x"].reshape(60, 16).mean(axis=0))
    np.testing.assert_allclose(state.params["decoder"]["dense_2"]["bias"], np.log(mean / (1 - mean)), rtol=1e-5)

    def encoded(h):
        layers = [jax.tree.map(np.float64, state.params["encoder"][f"dense_{i}"]) for i in range(3)]
        for layer in layers[:2]:
            h = np.tanh(h @ layer["kernel"] + layer["bias"])
        return h @ layers[2]["kernel"] + layers[2]["bias"]

    np.testing.assert_allclose(
        evaluation.embed(ready.model, state.params, x), encoded(np.float64(x))[:, :2], rtol=1e-4, atol=1e-5
    )
    count = 6  # of twelve steps, three in a pass: half of the way, or the beginning of the second stage's second pass
    opt_states = optax.tree_utils.tree_set(state.opt_states, count=jnp.asarray(count, jnp.int32))
    key = jax.random.key(5)
    after, _ = jax.jit(ready.algorithm.step)(state._replace(opt_states=opt_states), data.Batch(x), key)
    noise = jax.random.fold_in(jax.random.fold_in(key, 0), 0)
    grads = jax.grad(lambda p: vae_loss(p, data.Batch(x), noise, model=ready.model, num_samples=3)[0])(state.params)

    def moved(before, grad):
        g = np.float64(grad)
        m, v = 0.1 * g / (1 - 0.9 ** (count + 1)), 0.001 * g**2 / (1 - 0.999 ** (count + 1))
        return before - 2e-3 * second * m / (np.sqrt(v) + 1e-4)

    close = lambda found, before, grad: np.testing.assert_allclose(found, moved(before, grad), rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after.params, state.params, grads)


def test_a_row_is_a_method_and_its_draws():
    config = dataclasses.replace(bounds.Config(), rows=("vae_1", "iwae_50", "stl_2", "dreg_7"), num_seeds=2)
    found = bounds.runs(config)
    assert list(found) == [f"{row}-{seed}" for seed in (0, 1) for row in config.rows]
    assert [(own.kind, own.num_samples) for _, own in found.values()][:4] == [
        ("vae", 1), ("iwae", 50), ("stl", 2), ("dreg", 7)
    ]  # fmt: skip
    assert {own.binarize for _, own in found.values()} == {"stochastic"}
    fixed = bounds.runs(dataclasses.replace(config, dataset="binarized_mnist"))
    assert {own.binarize for _, own in fixed.values()} == {"none"}


def test_two_layers_are_the_larger_net_of_the_paper():
    config = dataclasses.replace(bounds.Config(), rows=("iwae_5",), layers=2)
    ((experiment, own),) = bounds.runs(config).values()
    model = experiment.build_model(own, Spec((784,)))
    shapes = jax.eval_shape(lambda: nets.init_params(model, jax.random.key(0), jnp.zeros((1, 784))))
    widths = {name: [layer["bias"].shape[0] for layer in group.values()] for name, group in shapes.items()}
    assert widths == {
        "encoder": [200, 200, 200], "upper_encoder": [100, 100, 100],
        "upper_decoder": [100, 100, 200], "decoder": [200, 200, 784],
    }  # fmt: skip
    assert {net.activation for net in (model.encoder, model.upper_encoder, model.upper_decoder)} == {nn.tanh}


@pytest.mark.slow
def test_each_row_trains_its_own_loss(tmp_path, bits):
    """By its terms, and by how far the encoder moves where the gradients differ."""
    np.savez("bits.npz", **bits)
    config = bounds.Config(
        dataset="bits.npz", rows=("vae_2", "iwae_2", "stl_2", "dreg_2"), hidden_dims=(6,), latent_dim=2
    )
    moved, params = {}, None
    for name, (experiment, own) in bounds.runs(config).items():
        ready = runner.prepare(experiment, own, shapes_only=True)
        params = params or ready.fresh().params
        before = ready.algorithm.init(params)
        state, metrics = jax.jit(ready.algorithm.step)(before, ready.feed.train, jax.random.key(0))
        moved[name] = float(metrics[next(iter(ready.state.opt_states)) + "/loss"]), state.params
    losses = {name.partition("_")[0]: loss for name, (loss, _) in moved.items()}
    assert losses["vae"] > losses["iwae"] == losses["stl"] == losses["dreg"]
    kernels = {name: np.asarray(params["encoder"]["dense_0"]["kernel"]) for name, (_, params) in moved.items()}
    assert len({kernel.tobytes() for kernel in kernels.values()}) == 4


@pytest.mark.slow
def test_the_study_ends_with_a_table_and_is_not_run_twice(finished, capsys, monkeypatch):
    summary = read(finished / "summary.json")
    found = summary["metrics"]["dreg_2"]
    assert set(found) == {
        "test_l1_nats", "test_l5_nats", "test_l50_nats", "test_nll_nats", "nll_std_error", "nll_ess", "nll_samples",
        "active_units", "best_epoch", "best_test_nll_nats", "best_active_units", "seconds",
    } | {f"snr_{estimator}_{k}" for estimator in ("plain", "stl", "dreg") for k in (1, 2, 5, 10, 20, 50)}  # fmt: skip
    assert found["snr_dreg_50"] > found["snr_plain_50"]
    assert [name for name in found if units.find(name, METRICS) is None] == []
    assert found["test_l1_nats"] > found["test_l5_nats"] > found["test_l50_nats"]
    rows = [json.loads(line) for line in (finished / "dreg_2-0" / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val/bound/loss"])
    assert found["best_epoch"] == [best["epoch"]]
    _, model, state = runner.load(finished / "dreg_2-0", best=True)
    own = bounds.runs(bounds.Config(dataset=str(finished.parent / "bits.npz"), rows=("dreg_2",)))["dreg_2-0"][1]
    nll = evaluation.nll(model, state.params, runner.load_data(own).test.x, jax.random.key(9), num_samples=60)
    assert abs(nll.nll_nats - found["best_test_nll_nats"][0]) < 5 * nll.std_error
    before = contents(finished)
    assert {"figures/bounds.png", "figures/gradients.png"} <= set(before)
    monkeypatch.chdir(finished.parent)
    call("--workdir", "bounds", "--num-epochs", "2", "--validation", "0.1")
    assert "| IWAE, DReG, k = 2 |" in capsys.readouterr().out
    assert contents(finished) == before


@pytest.mark.slow
def test_a_longer_run_goes_on_where_the_shorter_one_ended(finished, tmp_path, bits):
    """For the stages do not depend on the number of passes: bit for bit."""
    np.savez("bits.npz", **bits)
    flags = ("--workdir", "longer", "--validation", "0.1")
    call(*flags, "--num-epochs", "1")
    call(*flags, "--num-epochs", "2", "--resume")
    longer, whole = (runner.load(folder / "dreg_2-0")[2] for folder in (tmp_path / "longer", finished))
    assert int(longer.step) == int(whole.step) == 12
    jax.tree.map(np.testing.assert_array_equal, longer.params, whole.params)
    assert read(tmp_path / "longer" / "summary.json")["metrics"]["dreg_2"].keys() >= {"best_epoch"}


def test_the_table_has_published_figures_for_their_set_and_size_alone():
    row = {
        "test_l1_nats": [88.0, 90.0], "test_l5_nats": [87.0, 87.0], "test_l50_nats": [86.5, 86.5],
        "test_l500_nats": [86.2, 86.2], "test_nll_nats": [86.0, 87.0], "nll_ess": [100.0, 300.0],
        "active_units": [19, 21], "seconds": [10.0, 30.0], "best_epoch": [3.0, 4.0], "best_test_nll_nats": [85.0, 85.0],
    }  # fmt: skip
    summary = {
        "dataset": "mnist", "hidden_dims": [200, 200], "latent_dim": 50, "nll_samples": 5000, "validation": 0.0,
        "rows": ["vae_1", "iwae_5"], "metrics": {"vae_1": row, "iwae_5": row},
    }  # fmt: skip
    head, _, *lines = bounds.table(summary).splitlines()
    assert head == "| | -L_1 | -L_5 | -L_50 | -L_500 | -L_5,000 | ESS | active units | seeds, seconds a run |"
    numbers = "89.0 ± 1.4 | 87 ± 0 | 86.5 ± 0 | 86.2 ± 0 | 86.50 ± 0.71"
    assert lines == [
        f"| VAE, k = 1 | {numbers} (86.76) | 200 ± 141 | 20.0 ± 1.4 (19) | 2, 20 |",
        f"| IWAE, k = 5 | {numbers} (85.54) | 200 ± 141 | 20.0 ± 1.4 (22) | 2, 20 |",
    ]
    assert "(88.71)" in bounds.table(summary | {"dataset": "binarized_mnist"})
    for split in ("omniglot28", "omniglot28_drawings"):
        assert "(108.11) | 200 ± 141 | 20.0 ± 1.4 |" in bounds.table(summary | {"dataset": split})
    assert "(85.33) | 200 ± 141 | 20.0 ± 1.4 (21) |" in bounds.table(summary | {"layers": 2})
    assert "3.50 ± 0.71 | 85 ± 0" in bounds.table(summary | {"validation": 0.1})
    for other in ({"dataset": "digits"}, {"latent_dim": 20}, {"hidden_dims": [200]}):
        assert "(" not in bounds.table(summary | other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "vea_1"], "There is no row 'vea_1'; rows are vae_K, iwae_K, stl_K, dreg_K, such as vae_5"),
        (["--rows", "vae"], "There is no row 'vae'"),
        (["--rows", "vae_05"], "There is no row 'vae_05'"),
        (["--rows", "iwae_0"], "num_samples is 0"),
        (["--rows", "vae_1", "vae_1"], "none twice"),
        (["--nll-samples", "0"], "--nll-samples is 0"),
        (["--num-seeds", "0"], "--num-seeds is 0"),
        (["--hparams.lr", "0"], "lr is 0.0"),
        (["--batch-size", "61"], "61"),
    ],
)
def test_refused_before_it_begins(tmp_path, bits, capsys, flags, message):
    np.savez("bits.npz", **bits)
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as end:
        call("--workdir", "run", *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
