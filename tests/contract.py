"""What the contract gives to each method, and which methods stand for the others."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from aejax import algorithm, likelihoods
from aejax.algorithm import Player, Rule
from aejax.data import Batch
from aejax.data.streams import streams, take
from aejax.methods import METHODS
from aejax.nets import init_params

KEY = jax.random.key(0)
SIZE, BATCH = 64, 16  # four steps in an epoch


@cache
def make_model(name, kind="dense"):
    model, fields = METHODS[name].model, METHODS[name].fields
    if kind == "conv":
        own = inspect.signature(model.conv).parameters
        halved = {} if "features" in own and "strides" not in own else {"strides": (2,)}  # or all in full size
        return model.conv((8, 8, 1), 8, features=(4,), **halved, **fields)
    return model.dense(64, 8, **fields)


@cache
def digits(name, kind="dense", first=0):
    """64 of them, with their labels: grey values in [0, 1], or where the likelihood is of counts, 0 to 4 of them."""
    x, y = (jnp.asarray(v[first : first + SIZE]) for v in load_digits(return_X_y=True))
    counts = likelihoods.get(METHODS[name].model.likelihood).support.step == 1
    x = (jnp.round(x / 4) if counts else x / 16).astype(jnp.float32)
    return Batch(x.reshape(SIZE, 8, 8, 1) if kind == "conv" else x, y.astype(jnp.int32))


def make_data(name, kind="dense", examples=None):
    return METHODS[name].batch(*(examples or digits(name, kind)))


def batch_size(name, size=BATCH):
    return METHODS[name].batch_size(size)


def first_rows(whole, sizes):
    counts = streams(whole, sizes)
    rows = (jnp.arange(count) % size for count, size in zip(counts.batch_sizes, counts.sizes, strict=True))
    return take(whole, counts.structure.unflatten(list(rows)))


def make_batch(name, kind="dense", examples=None):
    return first_rows(make_data(name, kind, examples), batch_size(name))


def fresh(name, kind="dense"):
    """Parameters as a run begins with them."""
    model, examples = make_model(name, kind), digits(name, kind)
    params = init_params(model, KEY, examples if model.takes_labels else examples.x)
    return make_algo(name, kind).start(params, make_data(name, kind), jax.random.key(1))


make_params = cache(fresh)


@cache
def knobs(name):
    """The HParams of a short run, with rates large enough for SGD to move by more than rounding."""
    default = METHODS[name].hparams(**METHODS[name].knobs)
    return default._replace(**{field: 1e-2 for field in default._fields if field.endswith("lr")})


def make_algo(name, kind="dense", axis_name=None):
    return METHODS[name].build(make_model(name, kind), knobs(name), optax.sgd, axis_name=axis_name)


TRACES = []


@cache
def jitted_step(name, kind="dense"):
    def step(state, batch, key):
        TRACES.append((name, kind))
        return make_algo(name, kind).step(state, batch, key)

    return jax.jit(step)


def initial(name, kind="dense"):
    return make_algo(name, kind).init(make_params(name, kind))


@cache
def the_game(name, axis_name=None):
    """The players, rules and phases that the method's factory hands to `play`."""
    seen = []

    def spy(players, phases, refreshes):
        seen.append((players, check_game(players, phases, refreshes)))
        return seen[-1][1]

    check_game = algorithm.check_game
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algorithm, "check_game", spy)
        METHODS[name].build(make_model(name), knobs(name), lambda lr: optax.sgd(lr), axis_name=axis_name)
    return seen[-1]


DIFFERENCES = {"total_correlation_nats"}  # of numbers that may be a hundred times as large


def assert_close(actual, expected, rtol=1e-5):
    """To `rtol` of the largest entry of the group, metric or player that a leaf belongs to, or to 1e-9.

    One of `DIFFERENCES` may also be off by one rounding of the largest of its player's metrics.
    """

    def group(path):
        names = [i for i, key in enumerate(path) if isinstance(key, jax.tree_util.DictKey)]
        return jax.tree_util.keystr(path[: names[0] + 1] if names else path)

    size = lambda leaf: np.abs(np.asarray(leaf, np.float64)).max()
    scales: dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        for name in {group(path), group(path).partition("/")[0]}:
            scales[name] = max(scales.get(name, 0.0), size(leaf))

    def check(path, a, b):
        error = size(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        player, _, metric = group(path).partition("/")
        scale = scales[group(path)]
        rounding = np.finfo(np.float32).eps * scales[player] if metric.rstrip("']") in DIFFERENCES else 0.0
        allowed = max(rtol * scale, rounding, 1e-9)
        assert error <= allowed, f"{jax.tree_util.keystr(path)}: off by {error:.2e} of {scale:.2e}"

    jax.tree_util.tree_map_with_path(check, actual, expected)


def assert_same_bits(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def run(name, hparams, key, params, batch, *, num_steps=3):
    """A short run as a pure function of everything that can be swept."""
    algo = METHODS[name].build(make_model(name), hparams, optax.sgd)
    state, metrics = jax.lax.scan(lambda s, _: algo.step(s, batch, key), algo.init(params), length=num_steps)
    return state.params, metrics


@cache
def single_run(name):
    return jax.jit(partial(run, name))


# --- which methods stand for the others ------------------------------------------------------------------------------


def traits(name):
    players, phases = the_game(name)
    method = METHODS[name]
    has = {
        "streams": len(streams(make_data(name), batch_size(name)).sizes) > 1,
        "refresh": bool(make_algo(name).refreshes),
        "rule": any(isinstance(player, Rule) for player in players.values()),
        "labels": method.model.takes_labels,
        "coupled": any(isinstance(player, Player) and player.coupled for player in players.values()),
        "phases": len(phases) > 1 or any(phase.times > 1 for phase in phases),
        "noise": not method.noise_free,
        "noise-free": method.noise_free,
    }
    return [trait for trait in has if has[trait]]


def representatives():
    """Methods that have every trait between them: for the rarest that is left, one with few others, and few players."""
    chosen: list = []
    having = {name: traits(name) for name in METHODS}
    size = lambda name: (len(having[name]), len(the_game(name)[0]))
    for trait in ("streams", "refresh", "rule", "labels", "coupled", "phases", "noise", "noise-free"):
        candidates = [name for name in METHODS if trait in having[name]]
        if candidates and not set(candidates) & set(chosen):
            chosen.append(min(candidates, key=size))
    return chosen


def reduces(name):
    """Whether the method itself has to reduce over devices: a loss couples examples, or a rule measures them."""
    return any(isinstance(entry, Rule) or entry.coupled for entry in the_game(name)[0].values())
