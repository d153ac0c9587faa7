"""EBGAN: both losses and the pulling-away term by hand, its equilibrium, and who sees whom."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import pdist

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import AE
from aejax.methods.ebgan import EBGAN, ebgan, ebgan_disc_loss, ebgan_gen_loss, pulling_away
from aejax.nets import init_params

KEY = jax.random.key(0)
MODEL = EBGAN.dense(6, 2, hidden_dims=(5,))
X = np.random.default_rng(0).random((4, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return init_params(MODEL, KEY, X)


def net(group, v):
    first, second = (jax.tree.map(lambda p: np.asarray(p, np.float64), group[f"dense_{i}"]) for i in range(2))
    return np.maximum(v @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]


def decoded(group, v):
    return 1 / (1 + np.exp(-net(group, v)))


def energy(params, x):
    return np.square(x - decoded(params["decoder"], net(params["encoder"], x))).sum(axis=1)


def imagined(params, key):
    return decoded(params["generator"], np.asarray(jax.random.normal(key, (4, 2)), np.float64))


def test_the_losses_by_hand(params):
    first, second = (imagined(params, key) for key in jax.random.split(KEY))
    real, fake = energy(params, X.astype(np.float64)), energy(params, first)
    for margin in (0.0, np.median(fake), 10.0):  # none, some and all of the generated images are within it
        loss, terms = ebgan_disc_loss(params, Batch(X), KEY, model=MODEL, margin=margin)
        assert float(loss) == pytest.approx(real.mean() + np.maximum(margin - fake, 0).mean(), rel=1e-5)
    assert float(terms["sse"]) == pytest.approx(real.mean(), rel=1e-5)
    assert float(terms["fake_sse"]) == pytest.approx(fake.mean(), rel=1e-5)
    z = net(params["encoder"], second)
    cosines = 1 - pdist(z, "cosine")
    loss, terms = ebgan_gen_loss(params, Batch(X), KEY, model=MODEL, repelling=3.0)
    assert float(terms["pulling_away"]) == pytest.approx(np.square(cosines).mean(), rel=1e-4)
    assert float(loss) == pytest.approx(energy(params, second).mean() + 3 * np.square(cosines).mean(), rel=1e-5)


def test_where_generated_images_are_as_images_are_the_loss_is_the_margin(params):
    """Theorem 1: of any autoencoder whose energies there are below it."""
    same = imagined(params, jax.random.split(KEY)[0])
    assert energy(params, same).max() < 5
    for scale in (0.3, 1.0):
        scaled = params | {"decoder": jax.tree.map(lambda v, s=scale: s * v, params["decoder"])}
        loss, _ = ebgan_disc_loss(scaled, Batch(jnp.asarray(same, jnp.float32)), KEY, model=MODEL, margin=5.0)
        assert float(loss) == pytest.approx(5.0, rel=1e-6)


def test_codes_that_point_one_way_pull_fully_and_orthogonal_ones_not_at_all():
    assert float(pulling_away(jnp.array([[1.0, 2.0], [-2.0, -4.0], [0.1, 0.2]]))) == pytest.approx(1.0, rel=1e-6)
    assert float(pulling_away(jnp.diag(jnp.array([1.0, -2.0, 3.0])))) == pytest.approx(0.0, abs=1e-6)
    nothing = jnp.zeros((3, 2)).at[0].set(1.0)
    assert float(pulling_away(nothing)) == 0.0
    assert jnp.isfinite(jax.grad(pulling_away)(nothing)).all()


@pytest.mark.parametrize(("loss", "group"), [(ebgan_disc_loss, "decoder"), (ebgan_gen_loss, "generator")])
def test_gradients_are_those_of_finite_differences(params, loss, group):
    """In float64, along one direction: the autoencoder learns from generated images, the generator through it."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64) + 0.1, params)  # away from the kinks at zero
        way = jax.tree.map(lambda v: jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape), wide[group])
        batch = Batch(jnp.asarray(X, jnp.float64))

        def along(t):
            moved = jax.tree.map(lambda v, w: v + t * w, wide[group], way)
            return loss(wide | {group: moved}, batch, KEY, model=MODEL)[0]

        slope = (along(1e-6) - along(-1e-6)) / 2e-6
        assert float(jax.grad(along)(0.0)) == pytest.approx(float(slope), rel=1e-6)


def test_the_pulling_away_term_is_of_the_codes_of_all_devices(params):
    """Two shards under one name, each with noise of its own, against all their codes together."""
    keys, batch = jax.random.split(jax.random.key(5)), Batch(jnp.zeros((2, 4, 6)))
    own = lambda x, key: ebgan_gen_loss(params, Batch(x), key, model=MODEL, repelling=3.0, axis_name="d")
    loss, terms = jax.vmap(own, axis_name="d")(batch.x, keys)
    fake = np.concatenate([imagined(params, jax.random.split(key)[1]) for key in keys])
    together = np.square(1 - pdist(net(params["encoder"], fake), "cosine")).mean()
    np.testing.assert_allclose(terms["pulling_away"], [together, together], rtol=1e-4)
    np.testing.assert_allclose(loss.mean(), energy(params, fake).mean() + 3 * together, rtol=1e-5)
    assert ebgan(MODEL).coupled


@pytest.mark.parametrize(("rate", "groups"), [(1.0, {"encoder", "decoder"}), (2.0, {"generator"})])
def test_each_player_moves_exactly_its_groups(params, rate, groups):
    only = lambda lr: optax.sgd(1.0) if lr == rate else optax.set_to_zero()
    algo = ebgan(MODEL, lr=1.0, gen_lr=2.0, tx=only)
    after = algo.step(algo.init(params), Batch(X), KEY)[0].params
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
    assert {group for group in params if not same(params[group], after[group])} == groups


def test_samples_are_those_of_the_generator(params):
    drawn = MODEL.apply({"params": params}, KEY, 4, method="sample")
    np.testing.assert_allclose(drawn, imagined(params, KEY), rtol=1e-5)


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(InputError, match="margin"):
        ebgan(MODEL, margin=0.0)
    with pytest.raises(InputError, match="which has a generator beside"):
        ebgan(AE.dense(6, 2))
    with pytest.raises(InputError, match="at least 2 examples"):
        ebgan_gen_loss(params, Batch(X[:1]), KEY, model=MODEL)
    with pytest.raises(InputError, match="use bernoulli or gaussian"):
        ebgan(EBGAN.dense(6, 2, likelihood="gaussian_learned"))
    ebgan(EBGAN.dense(6, 2, likelihood="gaussian"))
