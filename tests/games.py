"""Losses that can be followed by hand, and a run of them, for the tests of games."""

import jax
import jax.numpy as jnp

from aejax import training

KEY = jax.random.key(0)


def pull(params, batch, key, weight=1.0):
    """The mean of the batch is the minimum."""
    return weight * 0.5 * jnp.mean((params["w"] - batch) ** 2), {"weight": jnp.asarray(weight, jnp.float32)}


def still(params, batch, key):
    return 0.0 * params["w"], {}


def last(algo, params, data, **options):
    options = {"batch_size": 8, "num_epochs": 3} | options
    return list(training.train(algo, algo.init(params), data, KEY, **options))[-1].state
