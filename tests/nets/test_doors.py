"""Networks of NNX and of Equinox: each is its Linen twin with the same weights, in everything that is done with one."""

import functools
import itertools
import sys
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from aejax import jacobian, train
from aejax.checkpoint import Checkpoints
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods import cae
from aejax.nets import MLP, check_rows, from_equinox, from_nnx, init_params

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).random((8, 6)), jnp.float32)


class NNXNet(nnx.Module):
    def __init__(self, *widths: int, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(n, m, rngs=rngs) for n, m in itertools.pairwise(widths)])

    def __call__(self, x):
        return self.layers[1](jnp.tanh(self.layers[0](x)))


class Kept(nnx.Module):
    """Keeps whatever is asked for beside a layer."""

    def __init__(self, what: str, *, rngs: nnx.Rngs):
        self.layer = nnx.Linear(6, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs) if what == "dropout" else nnx.Dropout(0.5, deterministic=True)
        norms = {"norm": nnx.BatchNorm, "layer norm": nnx.LayerNorm, "group norm": partial(nnx.GroupNorm, num_groups=2)}
        self.norm = norms[what](6, rngs=rngs) if what in norms else None
        self.order = (jnp if what == "array" else np).arange(6)[::-1]

    def __call__(self, x):
        return self.layer(self.drop(x[..., self.order]))


class EquinoxKept(eqx.Module):
    layer: eqx.nn.Linear
    drop: eqx.nn.Dropout
    norm: eqx.Module | None
    order: np.ndarray

    def __init__(self, what: str, *, key: jax.Array):
        self.layer = eqx.nn.Linear(6, 2, key=key)
        self.drop = eqx.nn.Dropout(0.5, inference=what != "dropout")
        norms = {"norm": partial(eqx.nn.BatchNorm, 6, "batch", mode="ema"), "layer norm": partial(eqx.nn.LayerNorm, 6),
                 "group norm": partial(eqx.nn.GroupNorm, 2, 6)}  # fmt: skip
        self.norm = norms[what]() if what in norms else None
        self.order = (jnp if what == "array" else np).arange(6)[::-1]

    def __call__(self, x):
        return self.layer(self.drop(x[..., self.order]))


def equinox_pair(*, key):
    """A function as a constructor."""
    return eqx.nn.MLP(6, 2, 3, 1, activation=jnp.tanh, key=key)


def conditioned(*, rngs):
    return Conditioned(rngs=rngs)


def nothing(**key):
    return None


class Conditioned(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x, y):
        return self.layer(x) + y[:, None]


class EquinoxConditioned(eqx.nn.Linear):
    def __call__(self, x, y):
        return super().__call__(x) + y


class Library(NamedTuple):
    door: object
    net: object  # (widths) -> module
    kept: type
    weights: object  # of a Linen layer -> of its twin

    def params(self, twin):
        """The parameters of the twin, group by group; also of what has their structure, such as a gradient."""
        group = lambda layers: {"net": {"layers": {str(i): self.weights(layers[f"dense_{i}"]) for i in range(2)}}}
        return {name: group(layers) for name, layers in twin.items()}


def _nnx(n, hidden, m):
    return from_nnx(NNXNet, n, hidden, m)


def _equinox(n, hidden, m):
    return from_equinox(eqx.nn.MLP, n, m, hidden, depth=1, activation=jnp.tanh)


LIBRARIES = {
    "nnx": Library(from_nnx, _nnx, Kept, lambda layer: layer),
    "equinox": Library(
        from_equinox, _equinox, EquinoxKept, lambda layer: {"weight": layer["kernel"].T, "bias": layer["bias"]}
    ),
}
each = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
TWIN = cae.CAE(encoder=MLP((3, 2), jnp.tanh), decoder=MLP((3, 6), jnp.tanh), latent_dim=2)


def make_model(library):
    return cae.CAE(encoder=library.net(6, 3, 2), decoder=library.net(2, 3, 6), latent_dim=2)


@functools.cache
def make_algo(model):
    return cae.cae(model, cae.HParams(lr=0.1), optax.sgd)


def run(model, state, num_epochs):
    data = Batch(np.asarray(X))
    chunks = train(make_algo(model), state, data, jax.random.key(1), batch_size=4, num_epochs=num_epochs)
    return list(chunks)[-1].state


@pytest.fixture(scope="module")
def twin():
    """Start, loss and gradient at the start, and the parameters after two epochs, of the Linen module."""
    params = init_params(TWIN, KEY, X[:1])
    (loss, metrics), grads = jax.value_and_grad(cae.cae_loss, has_aux=True)(params, Batch(X), KEY, model=TWIN)
    return params, (loss, metrics), grads, run(TWIN, make_algo(TWIN).init(params), 2).params


def assert_close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.slow
@each
def test_loss_gradient_and_jacobian_are_those_of_the_twin(library, twin):
    params, results, wanted, _ = twin
    model = make_model(library)
    args = library.params(params), Batch(X), KEY
    found, grads = jax.value_and_grad(cae.cae_loss, has_aux=True)(*args, model=model)
    assert_close(found, results)
    assert_close(grads, library.params(wanted))
    plans = [
        jacobian.explain(lambda v, b=m.bind({"params": p}): b.embed(v[None])[0], X[0], batch_size=8)
        for m, p in ((TWIN, params), (model, args[0]))
    ]
    assert plans[0] == plans[1]


@each
def test_training_and_a_resumed_run_end_where_the_twin_does(library, twin, tmp_path):
    params, _, _, trained = twin
    model = make_model(library)
    algo = make_algo(model)
    start = algo.init(library.params(params))
    whole = run(model, start, 2)
    assert_close(whole.params, library.params(trained))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(run(model, start, 1), extra={})
    like = jax.eval_shape(lambda: algo.init(init_params(make_model(library), KEY, X[:1])))
    with Checkpoints(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(like)
    jax.tree.map(np.testing.assert_array_equal, run(model, state, 2), whole)


@each
def test_equal_networks_are_equal_and_another_key_is_another_start(library):
    model, again = make_model(library), make_model(library)
    assert model == again
    assert hash(model) == hash(again)
    assert model != model.clone(encoder=library.net(6, 4, 2))
    first, same, other = (library.net(6, 3, 2).init(jax.random.key(seed), X)["params"] for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    kernels = [max(jax.tree.leaves(params), key=jnp.size) for params in (first, other)]
    assert np.abs(kernels[0] - kernels[1]).min() > 0


def test_partials_are_taken_by_value():
    partial = functools.partial(NNXNet, 6)
    assert from_nnx(functools.partial(partial, 3), 2) == from_nnx(NNXNet, 6, 3, 2)
    assert from_equinox(functools.partial(eqx.nn.MLP, depth=1), 6, 2, 3) == from_equinox(eqx.nn.MLP, 6, 2, 3, depth=1)
    assert from_equinox(equinox_pair).init(KEY, X)["params"]["net"]["layers"]["0"]["weight"].shape == (3, 6)


def test_an_instance_gives_its_weights_of_now_to_every_start():
    net = NNXNet(6, 3, 2, rngs=nnx.Rngs(7))
    kernel = np.asarray(net.layers[0].kernel.get_value())
    with pytest.warns(UserWarning, match="A NNXNet that is made already gives its own weights to every start"):
        taken = from_nnx(net)
    net.layers[0].kernel.set_value(jnp.zeros((6, 3)))
    for seed in (0, 1):
        params = jax.jit(taken.init)(jax.random.key(seed), X)["params"]
        np.testing.assert_array_equal(params["net"]["layers"]["0"]["kernel"], kernel)
    linear = eqx.nn.Linear(6, 2, key=jax.random.key(7))
    with pytest.warns(UserWarning, match="A Linear that is made already"):
        taken = from_equinox(linear)
    variables = taken.init(KEY, X)
    np.testing.assert_array_equal(variables["params"]["net"]["weight"], linear.weight)
    np.testing.assert_allclose(taken.apply(variables, X), jax.vmap(linear)(X), rtol=1e-6)


@each
@pytest.mark.parametrize(
    ("what", "message"),
    [("dropout", "keeps .*(drop.rngs.count|Dropout).*make Dropout with"), ("norm", "LayerNorm or GroupNorm in place"),
     ("array", r"keeps (order \(int32\)|an array of int32) .*as NumPy arrays")],
)  # fmt: skip
def test_what_is_kept_beside_parameters_is_refused(library, what, message):
    with pytest.raises(InputError, match=message):
        library.door(library.kept, what)


@each
@pytest.mark.parametrize("what", ["layer norm", "group norm"])
def test_norms_within_an_example_are_taken_as_the_refusal_says(library, what):
    params = library.door(library.kept, what).init(KEY, X)["params"]["net"]
    assert set(params) == {"layer", "norm"}


@each
def test_a_constant_is_no_parameter(library):
    net = library.door(library.kept, "nothing")  # which is what the refusals advise
    variables = net.init(KEY, X)
    assert list(variables["params"]["net"]) == ["layer"]
    layer = variables["params"]["net"]["layer"]
    kernel = layer["kernel"] if library.door is from_nnx else layer["weight"].T
    np.testing.assert_allclose(net.apply(variables, X), X[:, ::-1] @ kernel + layer["bias"][None], rtol=1e-5, atol=1e-6)


def test_conditions_come_behind_x():
    y = jnp.arange(8.0)
    for net in (from_nnx(conditioned), from_equinox(EquinoxConditioned, 6, 2)):
        variables = net.init(KEY, X, y)
        moved = net.apply(variables, X, y) - net.apply(variables, X, 0 * y)
        np.testing.assert_allclose(moved, np.stack([y, y], axis=1), rtol=1e-6)


def test_what_else_is_refused(monkeypatch):
    net = NNXNet(6, 3, 2, rngs=nnx.Rngs(0))
    linear = eqx.nn.Linear(6, 2, key=KEY)
    for make, message in {
        lambda: from_nnx(lambda rngs: net): "NNXNet.constructor is a lambda.*module-level function",
        lambda: from_nnx(NNXNet, [6], 2): "NNXNet.args is a list; use a tuple",
        lambda: from_equinox(eqx.nn.MLP, 6, 2, 3, 1, activation=lambda x: x): "EquinoxNet.kwargs is a lambda",
        lambda: from_nnx(net, 6): "A NNXNet came with arguments; give its class",
        lambda: from_nnx(eqx.nn.Linear, 6, 2): "is called with what it was given and rngs=",
        lambda: from_equinox(eqx.nn.LayerNorm, 6): "is called with what it was given and key=",
        lambda: from_nnx(nothing): "made a NoneType; an NNX module is wanted",
        lambda: from_equinox(nothing): "made a NoneType; a callable Equinox module is wanted",
        lambda: cae.CAE(net, MLP((6,)), 2): r"CAE.encoder is an NNX module.*nets.from_nnx\(NNXNet, ...\)",
        lambda: cae.CAE(MLP((2,)), linear, 2): r"CAE.decoder is an Equinox module.*nets.from_equinox\(Linear, ...\)",
        lambda: cae.CAE(NNXNet, MLP((6,)), 2): "CAE.encoder is the class NNXNet, not yet called",
    }.items():
        with pytest.raises(InputError, match=message):
            init_params(make(), KEY, X[:1])
    with pytest.raises(
        InputError, match=r"of another network.*\['layers.0.bias', 'layers.0.kernel'.*'layers.1.kernel'"
    ):
        from_nnx(NNXNet, 6, 3, 2).apply({"params": {"net": {"w": jnp.ones(3)}}}, X)
    jax.eval_shape(from_nnx(NNXNet, 6, 3, 2).init, KEY, X)  # an instance with arguments: its class with them
    made = cae.CAE(from_nnx(NNXNet, 6, 3, 2), from_equinox(eqx.nn.Linear, 2, 6), 2)  # by the doors that are named
    jax.eval_shape(lambda: init_params(made, KEY, X[:1]))
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(InputError, match="Equinox is not installed: pip install equinox"):
        from_equinox(NNXNet, 6, 2)


def test_a_network_that_couples_examples_is_found_behind_a_door():
    model = cae.CAE(encoder=from_nnx(Coupled, rngs_seed=0), decoder=MLP((6,)), latent_dim=2)
    with pytest.raises(InputError, match="The encoder of CAE couples examples"):
        init_params(model, KEY, X)
    check_rows(make_model(LIBRARIES["nnx"]), LIBRARIES["nnx"].params(init_params(TWIN, KEY, X[:1])), X)


class Coupled(nnx.Module):
    def __init__(self, *, rngs_seed: int, rngs: nnx.Rngs):
        self.layer = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return self.layer(x - x.mean(axis=0, keepdims=True))
