"""The semi-supervised AAE: codes and losses by hand, who moves what and in which order, and labels that it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import learn, runner
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae_semi import (
    HParams,
    SemiAAE,
    aae_semi,
    aae_semi_class_loss,
    aae_semi_disc_loss,
    aae_semi_gen_loss,
    aae_semi_recon_loss,
)
from aejax.methods.ae import ae_loss
from aejax.methods.m2 import SemiBatch
from aejax.nets import MLP, init_params
from aejax.priors import ClassAndStyle
from experiments.aae_semi import EXPERIMENT, Config

KEY = jax.random.key(0)
MODEL = SemiAAE.dense(
    6, 2, num_classes=3, hidden_dims=(), discriminator=MLP((1,)), class_discriminator=MLP((1,))
)  # all maps affine, but for the softmax
RNG = np.random.default_rng(0)
FEW, MANY = RNG.random((4, 6)).astype(np.float32), RNG.random((5, 6)).astype(np.float32)
Y = np.array([0, 2, 1, 2], np.int32)
BATCH = SemiBatch(Batch(FEW, Y), Batch(MANY))


@pytest.fixture(scope="module")
def params():
    moved = lambda v: v + 0.3 * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)  # biases too
    return jax.tree.map(moved, init_params(MODEL, KEY, MANY))


def affine(group, v):
    layer = jax.tree.map(lambda p: np.asarray(p, np.float64), group["dense_0"])
    return v @ layer["kernel"] + layer["bias"]


def parts(params, x):
    """Shares and style in float64."""
    found = affine(params["encoder"], x.astype(np.float64))
    shares = np.exp(found[:, :3])
    return shares / shares.sum(axis=1, keepdims=True), found[:, 3:]


def surprise(logits):
    return np.log1p(np.exp(-logits))


def test_a_code_is_shares_and_a_style_and_the_decoder_sees_both(params):
    z = MODEL.apply({"params": params}, MANY, method="embed")
    np.testing.assert_allclose(z, np.concatenate(parts(params, MANY), axis=1), rtol=1e-5)
    x_hat = MODEL.apply({"params": params}, MANY, method="reconstruct")
    np.testing.assert_allclose(x_hat, 1 / (1 + np.exp(-affine(params["decoder"], np.asarray(z)))), rtol=1e-5)
    clusters = MODEL.apply({"params": params}, MANY, method="clusters")
    np.testing.assert_array_equal(clusters, parts(params, MANY)[0].argmax(axis=1))


def test_the_losses_by_hand(params):
    shares, style = parts(params, MANY)
    class_key, style_key = jax.random.split(KEY)
    classes = np.eye(3)[np.asarray(jax.random.randint(class_key, (5,), 0, 3))]
    normal = np.asarray(jax.random.normal(style_key, (5, 2)), np.float64)
    of_style, of_class = params["discriminator"], params["class_discriminator"]
    for group, real, fake, of_classes in ((of_style, normal, style, False), (of_class, classes, shares, True)):
        loss, terms = aae_semi_disc_loss(params, BATCH, KEY, model=MODEL, of_classes=of_classes)
        real, fake = affine(group, real), affine(group, fake)
        np.testing.assert_allclose(loss, surprise(real).mean() + surprise(-fake).mean(), rtol=1e-5)
        np.testing.assert_allclose(terms["accuracy"], np.concatenate([real > 0, fake < 0]).mean())
    loss, terms = aae_semi_gen_loss(params, BATCH, KEY, model=MODEL)
    expected = surprise(affine(of_style, style)).mean(), surprise(affine(of_class, shares)).mean()
    np.testing.assert_allclose([terms["style_nats"], terms["share_nats"], loss], [*expected, sum(expected)], rtol=1e-5)
    loss, terms = aae_semi_class_loss(params, BATCH, KEY, model=MODEL)
    labelled = parts(params, FEW)[0]
    np.testing.assert_allclose(loss, -np.log(labelled[np.arange(4), Y]).mean(), rtol=1e-5)
    np.testing.assert_allclose(terms["error"], (labelled.argmax(axis=1) != Y).mean())
    loss, _ = aae_semi_recon_loss(params, BATCH, KEY, model=MODEL)
    np.testing.assert_allclose(loss, ae_loss(params, Batch(MANY), KEY, model=MODEL)[0], rtol=1e-6)


RATES = HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3, class_lr=0.4)


def only(*rates):
    return lambda lr: optax.sgd(lr) if lr in rates else optax.set_to_zero()


@pytest.mark.parametrize(
    ("rate", "groups"),
    [(0.1, {"encoder", "decoder"}), (0.2, {"discriminator", "class_discriminator"}), (0.3, {"encoder"}),
     (0.4, {"encoder"})],
)  # fmt: skip
def test_each_player_moves_exactly_its_groups(params, rate, groups):
    algo = aae_semi(MODEL, RATES, only(rate))
    after = algo.step(algo.init(params), BATCH, KEY)[0].params
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert {group for group in params if not same(params[group], after[group])} == groups


def test_the_phases_are_reconstruction_regularisation_and_classification(params):
    """Each player sees what those before it have moved, and nothing of those behind it."""

    def stepped(*rates):
        algo = aae_semi(MODEL, RATES, only(*rates))
        return algo.step(algo.init(params), BATCH, KEY)

    state, terms = stepped(0.1, 0.2, 0.3, 0.4)
    moves = {"recon": (0.1,), "disc": (0.1, 0.2), "gen": (0.1, 0.2, 0.3)}
    after = {name: stepped(*rates)[0].params for name, rates in moves.items()}
    gen, _ = aae_semi_gen_loss(after["disc"], BATCH, KEY, model=MODEL)
    few, _ = aae_semi_class_loss(after["gen"], BATCH, KEY, model=MODEL)
    np.testing.assert_allclose([terms["gen/loss"], terms["class/loss"]], [gen, few], rtol=1e-5)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 1)  # step and phase
    for name, of_classes in (("disc", False), ("class_disc", True)):
        loss, _ = aae_semi_disc_loss(after["recon"], BATCH, key, model=MODEL, of_classes=of_classes)
        np.testing.assert_allclose(terms[f"{name}/loss"], loss, rtol=1e-5)
    slope = jax.grad(lambda p: aae_semi_class_loss(p, BATCH, KEY, model=MODEL)[0])(after["gen"])["encoder"]
    moved = jax.tree.map(lambda v, g: v - 0.4 * g, after["gen"]["encoder"], slope)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params["encoder"], moved)


def test_samples_are_decoded_classes_and_styles(params):
    z = MODEL.apply({"params": params}, KEY, 7, method="sample_prior")
    assert MODEL.latent_dim == z.shape[1] == 5
    np.testing.assert_array_equal(np.sort(z[:, :3], axis=1), np.tile([0.0, 0.0, 1.0], (7, 1)))
    drawn = MODEL.apply({"params": params}, KEY, 7, method="sample")
    np.testing.assert_allclose(drawn, MODEL.apply({"params": params}, z, method="generate"), rtol=1e-6)


def test_labels_that_it_does_not_know_are_refused_before_the_first_step():
    check = aae_semi(MODEL).check
    check(BATCH)
    for y, says in (
        (np.array([0, 1, 2, 3]), "num_classes=4"),
        (np.array([0, -1, 2, 1]), "below 0"),
        (None, "no labels"),
        (Y.astype(float), "integers"),
    ):
        with pytest.raises(InputError, match=says):
            check(SemiBatch(Batch(FEW, y), Batch(MANY)))
    with pytest.raises(InputError, match="two classes or more"):
        SemiAAE.dense(6, 2, num_classes=1)
    for other in ("normal", ClassAndStyle(2, 5), None):
        with pytest.raises(InputError, match=r"need ClassAndStyle\(num_classes=3, latent_dim=5\)"):
            aae_semi(MODEL.clone(prior=other))
    aae_semi(MODEL.clone(prior=ClassAndStyle(3, 5)))  # as it says


def test_learning_without_known_labels_is_refused_by_the_name_of_the_method(tmp_path, monkeypatch):
    x = RNG.random((8, 6)).astype(np.float32)
    with pytest.raises(InputError, match="None of the 8 labels is known"):
        learn("aae_semi", x, np.full(8, -1), num_epochs=1)
    with pytest.raises(InputError, match="needs labels of two classes or more"):
        learn("aae_semi", x, np.array([0, -1] * 4), num_epochs=1)
    with pytest.raises(InputError, match="goes by labels"):
        learn("aae_semi", x, num_epochs=1)
    monkeypatch.chdir(tmp_path)
    y = np.arange(8) % 2
    for name, arrays in {
        "none": {"x": x}, "no_test": {"x": x, "y": y, "x_test": x},
        "unknown": {"x": x, "y": y, "x_test": x, "y_test": y + 1}, "far": {"x": x, "y": 50_000 * y},
    }.items():  # fmt: skip
        np.savez(f"{name}.npz", **arrays)
        with pytest.raises(InputError, match="labels"):
            runner.run(EXPERIMENT, Config(dataset=f"{name}.npz", num_epochs=1, batch_size=2, num_labels=2))
