"""What decides how a run is trained, and which of its states is the best one: clipping, warm-up, validation."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from scipy.special import xlogy
from small_run import EXPERIMENT, read

from aejax import runner
from aejax.algorithm import Player, play
from aejax.checks import InputError
from aejax.runner import running
from experiments import ae, sparse_ae, vae


def rows(path):
    return [json.loads(line) for line in Path(path, "metrics.jsonl").read_text().splitlines()]


DESCENT = EXPERIMENT._replace(optimizer=optax.sgd)


@pytest.fixture
def outlier(tmp_path):
    """Images with a pixel whose gradient fits into float32, and its square does not."""
    x = np.random.default_rng(0).random((600, 16), np.float32)
    x[:, 3] *= 1e12
    np.save(tmp_path / "outlier.npy", x)
    return "outlier.npy"


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["a rate too high for SGD", pytest.param("a pixel of 1e12 under Adam", marks=pytest.mark.slow)]
)
def test_the_advice_of_a_run_that_diverged_ends_well(call, outlier, case):
    if case.endswith("SGD"):
        experiment, flags = DESCENT, ["--likelihood", "gaussian", "--hparams.lr", 5, "--schedule", "cosine"]
    else:
        experiment, flags = EXPERIMENT, ["--likelihood", "gaussian", "--dataset", outlier]
    flags += ["--batch-size", 128, "--num-epochs", 20]
    outcome = call("--workdir", "run", *flags, experiment=experiment)
    assert outcome.code == 1
    advice = re.search(r"clip the gradients \((--clip 1) on the command line", outcome.err).group(1).split()
    outcome = call("--workdir", "clipped", *flags, *advice, experiment=experiment)
    assert (outcome.code, outcome.err) == (0, "")
    assert "clip" not in read(Path("run/config.json"))["config"]
    assert read(Path("clipped/config.json"))["config"]["clip"] == 1.0
    assert all(np.isfinite(list(row.values())).all() for row in rows("clipped"))


def test_gradients_are_scaled_down_to_the_norm_and_smaller_ones_left_alone():
    """The step of SGD is the gradient: (3, 4) has norm 5."""

    def build(config, model, tx, axis_name):
        loss = lambda params, batch, key: (3 * params["a"].sum() + 4 * params["b"].sum(), {})
        return play({"fit": Player(loss, ("a", "b"), tx(1.0))}, [["fit"]])

    params = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    for clip, wanted in ((1.0, (-0.6, -0.8)), (10.0, (-3.0, -4.0)), (None, (-3.0, -4.0))):
        algo = running.build_algorithm(DESCENT._replace(build_algorithm=build), ae.Config(clip=clip), None, 200)
        state, _ = algo.step(algo.init(params), None, jax.random.key(0))
        np.testing.assert_allclose((state.params["a"][0], state.params["b"][0]), wanted, rtol=1e-6)


VAE = vae.EXPERIMENT._replace(
    measure=lambda trained: {"test_sse": float(trained.state.params["decoder"]["dense_1"]["bias"].sum())},
    draw=lambda trained: {},
)
WARM = ("--warmup-epochs", 3, "--hparams.beta", 2, "--batch-size", 485)  # 3 steps an epoch


@pytest.mark.slow
def test_beta_rises_over_the_epochs_asked_for_and_a_longer_run_is_the_continuation(call):
    for path, epochs in (("whole", (6,)), ("grown", (2, 6))):
        for i, num_epochs in enumerate(epochs):
            resume = ["--resume"] if i else []
            assert call("--workdir", path, "--num-epochs", num_epochs, *WARM, *resume, experiment=VAE).code == 0
    ours, theirs = runner.load("whole")[2], runner.load("grown")[2]
    assert jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))
    config = vae.Config(hidden_dims=(8,), batch_size=485, num_epochs=6, warmup_epochs=3)
    config = dataclasses.replace(config, hparams=vae.method.HParams(beta=2.0))
    ready = runner.prepare(VAE, config)
    batch = jax.tree.map(lambda v: v[:485], ready.feed.train)
    for step, beta in ((0, 0.0), (3, 2 / 3), (9, 2.0), (17, 2.0)):
        _, terms = ready.algorithm.step(ready.state._replace(step=np.int32(step)), batch, jax.random.key(0))
        assert weight_of_kl(terms) == pytest.approx(beta, abs=1e-3)
    terms = ready.algorithm.evaluate(ready.state, batch, jax.random.key(0))
    assert weight_of_kl(terms) == pytest.approx(2.0, abs=1e-3)  # the final one: the best state is the best by that


def weight_of_kl(terms):
    loss, recon, kl = (float(terms[f"elbo/{name}"]) for name in ("loss", "recon_nats", "kl_nats"))
    return (loss - recon) / kl


@pytest.mark.slow
def test_the_best_state_of_the_sparse_experiment_is_that_of_the_loss_that_is_trained(call):
    """Of the whole validation split, which is one batch: rates are means over it, by hand in float64."""
    measured = sparse_ae.EXPERIMENT._replace(measure=lambda trained: {}, draw=lambda trained: {})
    flags = ("--num-epochs", 60, "--latent-dim", 16, "--batch-size", 485, "--hidden-dims", "--hparams.lr", 0.01)
    assert call("--workdir", "run", *flags, experiment=measured).code == 0
    config, _, state = runner.load("run")
    x = runner.load_data(config).validation.x.astype(np.float64)
    encoder, decoder = (jax.tree.map(np.float64, state.params[group]["dense_0"]) for group in ("encoder", "decoder"))
    z = 1 / (1 + np.exp(-(x @ encoder["kernel"] + encoder["bias"])))
    x_hat = z @ decoder["kernel"] + decoder["bias"]
    rate, own = config.hparams.rate, z.mean(axis=0)
    divergence = (xlogy(rate, rate / own) + xlogy(1 - rate, (1 - rate) / (1 - own))).sum()
    weights = sum((layer["kernel"] ** 2).sum() for layer in (encoder, decoder))
    recon = 0.5 * ((x - x_hat) ** 2 + np.log(2 * np.pi)).sum(axis=1).mean()
    loss = recon + config.hparams.sparsity * divergence + config.hparams.weight_decay * weights
    (row,) = rows("run")
    assert row["val/recon/sparsity"] == pytest.approx(divergence, abs=1e-5)
    assert row["val/recon/loss"] == pytest.approx(loss, rel=1e-5)
    of_one = (xlogy(rate, rate / z) + xlogy(1 - rate, (1 - rate) / (1 - z))).sum(axis=1).mean()
    assert of_one > 1.5 * divergence  # what it would be, example by example


def test_the_loss_of_the_first_player_is_monitored_unless_another_metric_is():
    prepare = lambda experiment, config: runner.prepare(experiment, config, shapes_only=True).monitor
    assert prepare(vae.EXPERIMENT, vae.Config()) == "elbo/loss"
    other = runner.of_method("vae", vae.Config, monitor="elbo/kl_nats")
    assert prepare(other, vae.Config(validation=0.0)) == "elbo/kl_nats"
    with pytest.raises(InputError, match=r"vae monitors 'recon/loss'; its metrics are .*elbo/loss"):
        prepare(other._replace(monitor="recon/loss"), vae.Config())
