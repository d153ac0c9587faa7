"""Clusters by an AAE: losses by hand with their noise, who moves what, heads, and the rule that names clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import evaluation
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae_cluster import (
    ClusterAAE,
    HParams,
    aae_cluster,
    aae_cluster_disc_loss,
    aae_cluster_gen_loss,
)
from aejax.methods.ae import ae_loss
from aejax.nets import MLP, init_params
from aejax.priors import ClassAndStyle

KEY = jax.random.key(0)
MODEL = ClusterAAE.dense(
    6, 2, num_clusters=3, hidden_dims=(), discriminator=MLP((1,)), class_discriminator=MLP((1,))
)  # all maps affine, but for the softmax
X = np.random.default_rng(0).random((5, 6)).astype(np.float32)
NOISE = 0.7


@pytest.fixture(scope="module")
def params():
    moved = lambda v: v + 0.3 * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)  # biases too
    return jax.tree.map(moved, init_params(MODEL, KEY, X))


def affine(group, v):
    layer = jax.tree.map(lambda p: np.asarray(p, np.float64), group["dense_0"])
    return v @ layer["kernel"] + layer["bias"]


def code(params):
    """Shares and style in float64."""
    found = affine(params["encoder"], X.astype(np.float64))
    shares = np.exp(found[:, :3])
    return np.concatenate([shares / shares.sum(axis=1, keepdims=True), found[:, 3:]], axis=1)


def surprise(logits):
    return np.log1p(np.exp(-logits))


def test_the_losses_by_hand(params):
    keys = jax.random.split(KEY, 3)
    real = np.asarray(ClassAndStyle(3, 5).sample(keys[0], 5), np.float64)
    real = real + NOISE * np.asarray(jax.random.normal(keys[1], (5, 5)))
    fake = code(params) + NOISE * np.asarray(jax.random.normal(keys[2], (5, 5)))
    groups = {False: ("discriminator", slice(3, 5)), True: ("class_discriminator", slice(0, 3))}
    for of_clusters, (group, part) in groups.items():
        loss, terms = aae_cluster_disc_loss(params, Batch(X), KEY, model=MODEL, of_clusters=of_clusters, noise=NOISE)
        told = [affine(params[group], v[:, part]) for v in (real, fake)]
        np.testing.assert_allclose(loss, surprise(told[0]).mean() + surprise(-told[1]).mean(), rtol=1e-5)
        np.testing.assert_allclose(terms["accuracy"], np.concatenate([told[0] > 0, told[1] < 0]).mean())
    seen = code(params) + NOISE * np.asarray(jax.random.normal(KEY, (5, 5)))
    style, share = (surprise(affine(params[group], seen[:, part])).mean() for group, part in groups.values())
    loss, terms = aae_cluster_gen_loss(params, Batch(X), KEY, model=MODEL, noise=NOISE)
    np.testing.assert_allclose(
        [terms["style_nats"], terms["share_nats"], loss], [style, share, style + share], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("rate", "groups"),
    [(0.1, {"encoder", "decoder"}), (0.2, {"discriminator", "class_discriminator"}), (0.3, {"encoder"})],
)
def test_each_player_moves_exactly_its_groups(params, rate, groups):
    only = lambda lr: optax.sgd(lr) if lr == rate else optax.set_to_zero()
    algo = aae_cluster(MODEL, HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3), only)
    after = algo.step(algo.init(params), Batch(X), KEY)[0].params
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert {group for group in params if not same(params[group], after[group])} == groups


def test_phases_see_what_those_before_them_moved_and_the_noise_of_the_knob(params):
    def stepped(*rates):
        hparams = HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3, noise=NOISE)
        algo = aae_cluster(MODEL, hparams, lambda lr: optax.sgd(lr if lr in rates else 0.0))
        return algo.step(algo.init(params), Batch(X), KEY)

    _, terms = stepped(0.1, 0.2, 0.3)
    key = lambda phase: jax.random.fold_in(jax.random.fold_in(KEY, 0), phase)
    after = stepped(0.1)[0].params
    for name, of_clusters in (("disc", False), ("class_disc", True)):
        loss, _ = aae_cluster_disc_loss(after, Batch(X), key(1), model=MODEL, of_clusters=of_clusters, noise=NOISE)
        np.testing.assert_allclose(terms[f"{name}/loss"], loss, rtol=1e-5)
    loss, _ = aae_cluster_gen_loss(stepped(0.1, 0.2)[0].params, Batch(X), key(2), model=MODEL, noise=NOISE)
    np.testing.assert_allclose(terms["gen/loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(terms["recon/loss"], ae_loss(params, Batch(X), KEY, model=MODEL)[0], rtol=1e-6)


def test_heads_are_the_clusters_alone():
    assert np.asarray(MODEL.heads()).tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_another_prior_and_a_single_cluster_are_refused():
    with pytest.raises(InputError, match="ClusterAAE needs num_clusters of 2 or more; got 1"):
        ClusterAAE.dense(6, 2, num_clusters=1)
    for other in ("normal", ClassAndStyle(2, 5), None):
        with pytest.raises(InputError, match=r"need ClassAndStyle\(num_classes=3, latent_dim=5\)"):
            aae_cluster(MODEL.clone(prior=other))
    aae_cluster(MODEL.clone(prior=ClassAndStyle(3, 5)))  # as it says
    with pytest.raises(InputError, match="noise"):
        aae_cluster(MODEL, HParams(noise=-0.1))


def test_a_cluster_is_named_by_its_most_typical_member():
    """The member of the largest share in it, even if most of its own are of another label."""
    shares = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.9, 0.0, 0.1], [0.1, 0.3, 0.6], [0.2, 0.1, 0.7]])
    assert evaluation.typical_labels([5, 5, 2, 2, 9], shares).tolist() == [2, 2, 9]
    for y, own, message in (
        ([0, 1], shares, "Labels"),
        ([0, 1, -1, 0, 1], shares, "lowest label is -1"),
        ([0.5] * 5, shares, "integers"),
        ([0] * 5, shares[:, 0], r"\(5,\)"),
        ([0] * 5, np.where(shares > 0.8, np.nan, shares), "finite"),
    ):
        with pytest.raises(InputError, match=message):
            evaluation.typical_labels(y, own)
