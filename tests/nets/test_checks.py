"""Which modules are refused: by their fields, and by what they do with a batch."""

from functools import cache, partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.aae import AAE
from aejax.methods.ae import AE
from aejax.methods.began import BEGAN
from aejax.methods.k_sparse import KSparseAE
from aejax.methods.m2 import M2
from aejax.nets import MLP, check_module, check_rows, init_params

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((6, 8)).astype(np.float32)

COUPLINGS = {
    "mean": lambda h: h - h.mean(axis=0, keepdims=True),
    "max": lambda h: h / jnp.max(jnp.abs(h), axis=0, keepdims=True),
    "attention": lambda h: jax.nn.softmax(h @ h.T, axis=-1) @ h,
    "neighbour": lambda h: h + jnp.roll(h, 1, axis=0),
    "faint": lambda h: h + 1e-4 * h.mean(axis=0, keepdims=True),
}


class Coupled(nn.Module):
    how: str
    width: int

    @nn.compact
    def __call__(self, x, *condition):
        return COUPLINGS[self.how](nn.Dense(self.width)(x))


class Joined(nn.Module):
    """Returns one row for the whole batch."""

    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x).mean(axis=0, keepdims=True)


class Gated(nn.Module):
    """Couples only once its gate, which begins at zero, has opened."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(2)(x)
        return h + self.param("gate", nn.initializers.zeros, (1, 1)) * h.mean(axis=0, keepdims=True)


class Squashed(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(1, -1))


class Honest(nn.Module):
    """In bfloat16, with a step that amplifies rounding: no two batch sizes give the same numbers."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(dtype=jnp.bfloat16)(nn.Dense(16, dtype=jnp.bfloat16)(x)).reshape(len(x), 4, 4)
        h = jax.nn.softmax(h @ h.mT) @ h
        return nn.Dense(self.width)(jnp.round(8 * h.reshape(len(x), -1)).astype(jnp.float32))


class Conditioned(AE):
    takes_labels: ClassVar[bool] = True


class Shifted(nn.Module):
    """A conditioned network; `coupled` by its labels alone."""

    width: int
    coupled: bool = False

    @nn.compact
    def __call__(self, x, y):
        shift = y.astype(jnp.float32)
        return nn.Dense(self.width)(x) + (shift.mean(keepdims=True) if self.coupled else shift)[:, None]


def make(encoder=None, decoder=None, cls=AE):
    return cls(encoder=encoder or MLP((2,)), decoder=decoder or MLP((8,)), latent_dim=2, likelihood="gaussian")


@cache
def coupled_params():
    return init_params(make(Coupled("mean", 2)), KEY, X[:1])


@pytest.mark.parametrize("how", COUPLINGS)
def test_an_encoder_that_couples_examples_is_found(how):
    with pytest.raises(InputError, match=r"The encoder of AE couples examples.*within an example"):
        check_rows(make(Coupled(how, 2)), coupled_params(), X)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (make(decoder=Coupled("mean", 8)), "The decoder of AE couples examples"),
        (make(Gated()), "The encoder of AE couples examples"),
        (make(Squashed()), "takes one example, and fails on two.*first axis as the batch"),
    ],
)
def test_what_else_couples(model, message):
    with pytest.raises(InputError, match=message):
        init_params(model, KEY, X)


def test_labels_that_couple_are_found_and_those_that_do_not_pass():
    data = Batch(X, np.arange(6))
    model = make(Shifted(2), Shifted(8), Conditioned)
    params = init_params(model, KEY, data)
    bound = model.bind({"params": params})
    shifts = bound.embed(X, jnp.arange(6)) - bound.embed(X, jnp.zeros(6))
    np.testing.assert_allclose(shifts, np.stack([np.arange(6)] * 2, axis=1), rtol=1e-5)
    with pytest.raises(InputError, match="The decoder of Conditioned couples examples"):
        check_rows(make(Shifted(2), Shifted(8, coupled=True), Conditioned), params, data)
    with pytest.raises(InputError, match=r"Conditioned is conditioned on labels, and none came: give Batch\(x, y\)"):
        init_params(model, KEY, X)


@pytest.mark.first(7)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (M2(MLP((4,)), MLP((8,)), 2), "This M2 has no classifier: build it with M2.dense or M2.conv, or give one"),
        (M2.dense(8, 2).clone(classifier=MLP), "M2.classifier is the class MLP, not yet called"),
        (BEGAN.dense(8, 2).clone(generator="mlp"), "BEGAN.generator is str; a Linen module is wanted"),
        (
            M2.dense(8, 2).clone(classifier=MLP((3,))),
            r"The classifier returns \(3,\) for an example; \(10,\) is wanted",
        ),
        (
            BEGAN.dense(8, 2).clone(generator=MLP((7,))),
            r"The generator returns \(7,\) for an example; \(8,\) is wanted",
        ),
        (
            AAE.dense(8, 2, discriminator=MLP((2,))),
            r"The discriminator returns \(2,\) for an example; \(1,\) is wanted",
        ),
        (AAE.dense(8, 2, discriminator=Joined(1)), r"The discriminator returns 1 rows for 2 examples"),
        (M2.dense(8, 2).clone(classifier=Coupled("mean", 10)), "The classifier of M2 couples examples"),
        (BEGAN.dense(8, 2).clone(generator=Coupled("mean", 8)), "The generator of BEGAN couples examples"),
        (AAE.dense(8, 2, discriminator=Coupled("mean", 1)), "The discriminator of AAE couples examples"),
    ],
)
def test_the_other_networks_of_a_model_are_looked_at_too(model, message):
    data = Batch(X, np.arange(6)) if model.takes_labels else X
    with pytest.raises(InputError, match=message):
        init_params(model, KEY, data)


class Flattened(nn.Module):
    """What `Squashed` is told: the first axis is the batch."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(len(x), -1))


class Within(nn.Module):
    """What `Coupled` is told: attention and a mean within an example, along the axes behind the first."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(8)(x).reshape(len(x), 4, 2)
        h = jax.nn.softmax(h @ h.mT, axis=-1) @ h
        return nn.Dense(self.width)((h - h.mean(axis=1, keepdims=True)).reshape(len(x), -1))


@pytest.mark.parametrize(
    "model",
    [
        make(Flattened()),
        make(Within(2), Within(8)),
        M2.dense(8, 2),  # for want of a classifier
        M2.conv((2, 4, 1), 2),
        M2.dense(8, 2).clone(classifier=MLP((256, 10))),  # or with one, that returns (10,)
        BEGAN.dense(8, 2).clone(generator=MLP((256, 8))),
        AAE.dense(8, 2, discriminator=MLP((256, 1))),
        make(nn.Sequential((MLP((4,)), MLP((2,))))),  # a tuple, not a list
    ],
    ids=["rows", "within", "dense", "conv", "classifier", "generator", "discriminator", "tuple"],
)
def test_the_networks_that_refusals_advise_are_taken(model):
    x = X.reshape(6, 2, 4, 1) if model == M2.conv((2, 4, 1), 2) else X
    data = Batch(x, np.arange(6)) if model.takes_labels else x
    params = jax.eval_shape(lambda: init_params(model, KEY, data))
    if isinstance(model.encoder, Flattened | Within):  # the others are of this library, and compared elsewhere
        check_rows(model, jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), params), x)


class Committee(AE):
    """Networks in an order of their own, a stack of critics among them."""

    critics: tuple[nn.Module, ...] = ()
    networks: ClassVar[tuple[str, ...]] = ("critics", "encoder", "decoder")

    def __call__(self, x, *condition):
        z = self.embed(x)
        for critic in self.critics:
            critic(z)
        return self.decode(z)


@pytest.mark.slow
def test_networks_stand_in_any_order_and_may_be_stacks():
    critics = (MLP((1,)), Coupled("mean", 1))
    init_params(Committee.dense(8, 2, critics=critics[:1] * 2), KEY, X)
    with pytest.raises(InputError, match="The critics_1 of Committee couples examples"):
        init_params(Committee.dense(8, 2, critics=critics), KEY, X)
    with pytest.raises(InputError, match="The encoder of Committee couples examples"):
        init_params(Committee(Coupled("mean", 2), MLP((8,)), 2, critics=critics), KEY, X)


class Sower(nn.Module):
    """Keeps a number of the whole batch for whoever looks, and returns what is honest."""

    width: int

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(self.width)(x)
        self.sow("intermediates", "mean", h.mean())
        return h


@pytest.mark.slow
def test_what_a_network_sows_is_not_what_it_returns():
    for model in (AAE(Sower(2), MLP((8,)), 2), AAE(MLP((2,)), MLP((8,)), 2, discriminator=Sower(1))):
        init_params(model, KEY, X)


def test_networks_that_are_given_stay_and_others_end_without_an_activation():
    assert M2.dense(8, 2, classifier=MLP((9, 10))).classifier.features == (9, 10)
    assert BEGAN.dense(8, 2, generator=MLP((9, 8))).generator.features == (9, 8)
    assert M2.dense(8, 2, code_activation=nn.sigmoid).classifier.final_activation is None


@pytest.mark.slow
def test_honest_networks_pass():
    cases = ((make(Honest(2), Honest(8)), jnp.float32), (KSparseAE.dense(8, 4, k=2), jnp.bfloat16))
    for model, dtype in cases:
        params = jax.tree.map(partial(jnp.asarray, dtype=dtype), init_params(model, KEY, X[:1]))
        check_rows(model, params, jnp.asarray(X, dtype))


def test_rows_that_are_alike_tell_nothing_and_two_that_differ_are_enough():
    model = make(Coupled("mean", 2))
    params = coupled_params()
    check_rows(model, params, np.ones((5, 8), np.float32))
    with pytest.raises(InputError, match="couples"):
        check_rows(model, params, np.concatenate([X[:1]] * 40 + [X[1:2]]))


def test_within_a_trace_only_shapes_are_looked_at():
    params = jax.jit(lambda key, x: init_params(make(Coupled("mean", 2)), key, x))(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, params, coupled_params())


def leaky(x):
    return nn.leaky_relu(x, negative_slope=0.2)


class Listed(nn.Module):
    """A field that cannot be hashed, where Flax does not freeze it."""

    widths: object

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.widths[0])(x)


PARTIAL = partial(nn.leaky_relu, negative_slope=0.2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (MLP((2,), activation=lambda x: x), "MLP.activation is a lambda.*module-level function"),
        (MLP((2,), activation=jax.jit(lambda x: x)), "MLP.activation is a lambda"),
        (MLP((2,), activation=PARTIAL), r"MLP.activation is a functools.partial.*leaky_relu\(x, negative_slope=0.2\)"),
        (Listed((2, (3, PARTIAL))), "Listed.widths is a functools.partial"),
        (Listed((2, (3, lambda x: x))), "Listed.widths is a lambda"),
        (Listed((2, [3])), "Listed.widths is a list; use a tuple"),
        (Listed(FrozenDict({"a": [3]})), "Listed.widths is a FrozenDict"),
        (Listed(np.array([2])), "Listed.widths is a ndarray; use a tuple"),
        (nn.Sequential((MLP((2,)), MLP((2,), final_activation=lambda x: x))), "MLP.final_activation is a lambda"),
        (nn.Sequential([MLP((2,))]), "Sequential.layers is a list; use a tuple"),
    ],
)
def test_fields_that_are_refused(module, message):
    with pytest.raises(InputError, match=message):
        check_module(make(module))


def test_modules_that_are_not_refused():
    for activation in (nn.gelu, leaky, jnp.tanh, jax.nn.silu, None):  # leaky is what the refusal of a partial advises
        check_module(MLP((4,), final_activation=activation))
    for module in (AE.dense(4, 2, tied=True), AE.conv((4, 4, 1), 2), Listed((2, (3, "a"))), Listed(jnp.float32)):
        check_module(module)
