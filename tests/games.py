"""Losses that can be followed by hand, and a run of them, for the tests of games."""

import jax
import jax.numpy as jnp
import optax

from aejax import training
from aejax.algorithm import Player, play

KEY = jax.random.key(0)


def pull(params, batch, key, weight=1.0):
    """The mean of the batch is the minimum."""
    return weight * 0.5 * jnp.mean((params["w"] - batch) ** 2), {"weight": jnp.asarray(weight, jnp.float32)}


def still(params, batch, key):
    return 0.0 * params["w"], {}


def one_player(loss, lr=1.0, **options):
    algo = play({"p": Player(loss, ("w",), optax.sgd(lr))}, [["p"]], **options)
    return algo, algo.init({"w": jnp.ones(())})


def last(algo, params, data, **options):
    options = {"batch_size": 8, "num_epochs": 3} | options
    return list(training.train(algo, algo.init(params), data, KEY, **options))[-1].state
