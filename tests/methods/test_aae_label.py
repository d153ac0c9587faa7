"""The AAE that is told labels: its losses by hand, who moves what, its default prior, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aejax import learn, priors
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import HParams
from aejax.methods.aae_label import LabelAAE, aae_label, aae_label_disc_loss, aae_label_gen_loss
from aejax.methods.ae import ae_loss
from aejax.methods.m2 import SemiBatch
from aejax.nets import MLP, init_params
from aejax.priors import GaussianMixture, PointCloud, StandardNormal

KEY = jax.random.key(0)
CORNERS = PointCloud.of(4.0 * np.eye(3)[:, :2], noise=1e-3, y=[0, 1, 2])  # draws that are known but for a thousandth
MODEL = LabelAAE.dense(6, 2, num_classes=3, hidden_dims=(), discriminator=MLP((1,)), prior=CORNERS)  # all maps affine
RNG = np.random.default_rng(0)
FEW, MANY = RNG.random((4, 6)).astype(np.float32), RNG.random((5, 6)).astype(np.float32)
Y = np.array([2, 0, 1, 1], np.int32)  # others than those of draws from anywhere by the same key
BATCH = SemiBatch(Batch(FEW, Y), Batch(MANY))


@pytest.fixture(scope="module")
def params():
    moved = lambda v: v + 0.3 * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)  # biases too
    return jax.tree.map(moved, init_params(MODEL, KEY, MANY))


def affine(layer, v):
    layer = jax.tree.map(lambda p: np.asarray(p, np.float64), layer["dense_0"])
    return v @ layer["kernel"] + layer["bias"]


def log_odds(params, z, y):
    """Of a code with one of four labels beside it, the last of which is none."""
    return affine(params["discriminator"]["net"], np.concatenate([z, np.eye(4)[y]], axis=1))


def surprise(logits):
    return np.log1p(np.exp(-logits))


def test_the_losses_by_hand(params):
    z = affine(params["encoder"], np.concatenate([FEW, MANY]).astype(np.float64))
    y = np.array([*Y, 3, 3, 3, 3, 3])
    _, many_key = jax.random.split(KEY)
    anywhere = np.asarray(CORNERS.sample(many_key, 5))
    draws = np.concatenate([4.0 * np.eye(3)[Y, :2], anywhere])
    real, fake = log_odds(params, draws, y), log_odds(params, z, y)
    loss, terms = aae_label_disc_loss(params, BATCH, KEY, model=MODEL)
    np.testing.assert_allclose(loss, surprise(real).mean() + surprise(-fake).mean(), rtol=1e-3)
    np.testing.assert_allclose(terms["accuracy"], np.concatenate([real > 0, fake < 0]).mean())
    assert not np.allclose(anywhere[:4], draws[:4], atol=1.0)  # the two streams would be told apart
    loss, _ = aae_label_gen_loss(params, BATCH, KEY, model=MODEL)
    np.testing.assert_allclose(loss, surprise(fake).mean(), rtol=1e-5)
    _, metrics = aae_label(MODEL).step(aae_label(MODEL).init(params), BATCH, KEY)
    np.testing.assert_allclose(metrics["recon/loss"], ae_loss(params, Batch(MANY), KEY, model=MODEL)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("rate", "groups"), [(0.1, {"encoder", "decoder"}), (0.2, {"discriminator"}), (0.3, {"encoder"})]
)
def test_each_player_moves_exactly_its_groups(params, rate, groups):
    only = lambda lr: optax.sgd(lr) if lr == rate else optax.set_to_zero()
    algo = aae_label(MODEL, HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3), only)
    after = algo.step(algo.init(params), BATCH, KEY)[0].params
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert {group for group in params if not same(params[group], after[group])} == groups


def test_phases_are_played_in_the_order_of_the_paper(params):
    """Each player sees what those before it have moved, and nothing of those behind it."""

    def stepped(*rates):
        algo = aae_label(
            MODEL, HParams(lr=0.1, disc_lr=0.2, gen_lr=0.3), lambda lr: optax.sgd(lr if lr in rates else 0.0)
        )
        return algo.step(algo.init(params), BATCH, KEY)

    state, terms = stepped(0.1, 0.2, 0.3)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 1)  # step and phase
    disc, _ = aae_label_disc_loss(stepped(0.1)[0].params, BATCH, key, model=MODEL)
    before = stepped(0.1, 0.2)[0].params
    loss = lambda p: aae_label_gen_loss(p, BATCH, KEY, model=MODEL)[0]
    gen, slope = jax.value_and_grad(loss)(before)
    np.testing.assert_allclose([terms["disc/loss"], terms["gen/loss"]], [disc, gen], rtol=1e-5)
    moved = jax.tree.map(lambda v, g: v - 0.3 * g, before["encoder"], slope["encoder"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params["encoder"], moved)


def test_a_class_has_a_petal_of_its_own_where_nothing_else_is_said():
    model = LabelAAE.dense(6, 3, num_classes=4, hidden_dims=())
    assert model.prior == GaussianMixture.ring(4, latent_dim=3)
    z = model.apply({}, KEY, jnp.arange(4), method="sample_parts")
    np.testing.assert_array_equal(z, model.prior.sample_parts(KEY, jnp.arange(4), 4))
    means = jnp.asarray(model.prior.means)
    assert model.apply({}, means, method="part_of").tolist() == model.part_of(means).tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_planted_classes_get_their_stretches_of_the_roll():
    """Pixels that tell the class, and one number beside: nearly every code lies in the stretch of its class."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    x = np.clip(np.eye(3)[y].repeat(2, axis=1) * 0.8 + 0.1 + 0.05 * rng.normal(size=(600, 6)), 0, 1)
    found = learn(
        "aae_label", x, y, latent_dim=2, prior="swiss_roll", hidden_dims=(64,), num_epochs=150, batch_size=100
    )
    parts = np.asarray(found.model.part_of(jnp.asarray(found.embed(x))))
    assert np.mean(parts == y) > 0.95


def test_what_cannot_be_is_refused_before_the_first_step():
    check = aae_label(MODEL).check
    check(BATCH)
    for y, says in (
        (np.array([0, 1, 2, 3]), "num_classes=4"),
        (np.array([0, -1, 2, 1]), "below 0"),
        (None, "no labels"),
    ):
        with pytest.raises(InputError, match=says):
            check(SemiBatch(Batch(FEW, y), Batch(MANY)))
    for count in (1, None):
        with pytest.raises(InputError, match="needs labels of two classes or more"):
            LabelAAE.dense(6, 2, num_classes=count)
    with pytest.raises(InputError, match="3 Gaussians for 4 classes"):
        aae_label(LabelAAE.dense(6, 2, num_classes=4, prior=GaussianMixture.ring(3)))
    with pytest.raises(InputError, match="StandardNormal has no parts"):
        aae_label(LabelAAE.dense(6, 2, prior=StandardNormal(2)))
    with pytest.raises(InputError, match="2 dimensions; latent_dim is 3"):
        aae_label(LabelAAE.dense(6, 3, prior="swiss_roll"))
    with pytest.raises(InputError, match=r"prior=None\. Use LabelAAE\.dense"):
        aae_label(MODEL.clone(prior=None))
    with pytest.raises(InputError, match="No loss here learns the prior"):
        aae_label(MODEL.clone(prior=priors.LearnedMixture(3)))
    with pytest.raises(InputError, match="2 or more are needed"):
        LabelAAE.dense(6, 1)


def test_unknown_labels_are_left_out_and_all_is_learnt_without():
    y = np.array([0, 1, 2, -1, -1])
    streams = learn_streams(MANY, y)
    np.testing.assert_array_equal(streams.labelled.y, [0, 1, 2])
    np.testing.assert_array_equal(streams.unlabelled.x, MANY)


def learn_streams(x, y):
    from aejax import METHODS

    return METHODS["aae_label"].batch(x, y)
