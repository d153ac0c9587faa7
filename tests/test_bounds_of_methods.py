"""Of every method with a bound: its loss and `evaluation.nll` mean the same bound, which more samples only tighten."""

import jax
import numpy as np
import pytest
from contract import KEY, SIZE, batch_size, digits, knobs, make_data, make_model, make_params

from aejax import evaluation, training
from aejax.methods import METHODS
from aejax.methods.vae import VAE

TERMS = {"iwae": "bound/elbo_nats", "m2": "elbo/labelled_bound_nats"}  # of m2 that is the bound of x and its label
OTHERS = {"avb", "dfc_vae", "hali", "ms_ssim_vae", "vae_gan"}  # a posterior without a density, losses of no pixels
BOUNDED = [name for name in METHODS if issubclass(METHODS[name].model, VAE) and name not in OTHERS]
SAMPLES = (1, 5, 50, 5000)
RUNS = 6


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_the_loss_has_the_first_of_bounds_that_grow_with_the_samples(name):
    """On examples that it was not trained on; each bound has draws of its own: nothing but its size orders them."""
    own = knobs(name)
    own = own._replace(dropout=0.0) if "dropout" in own._fields else own  # of what the encoder sees in training alone
    algo, model = METHODS[name].build(make_model(name), own), make_model(name)
    chunks = training.train(
        algo, algo.init(make_params(name)), make_data(name), KEY, batch_size=batch_size(name), num_epochs=40
    )
    state, test = list(chunks)[-1].state, jax.tree.map(lambda v: v[:16], digits(name, first=SIZE))

    bounds = {}
    for k, keys in zip(SAMPLES, jax.random.split(jax.random.key(1), (len(SAMPLES), RUNS)), strict=True):
        number = max(k, 500)
        curves = [evaluation.nll(model, state.params, test, key, num_samples=number).curve for key in keys]
        bounds[k] = mean_and_error([-curve[k] for curve in curves])
    for (low, low_error), (high, high_error) in zip(list(bounds.values())[:-1], list(bounds.values())[1:], strict=True):
        assert low <= high + 3 * np.hypot(low_error, high_error)
    assert bounds[1][0] < bounds[SAMPLES[-1]][0] - 5 * np.hypot(bounds[1][1], bounds[SAMPLES[-1]][1])

    whole = METHODS[name].batch(*test)
    of_the_loss = jax.jit(jax.vmap(lambda key: algo.evaluate(state, whole, key), 0))
    terms = of_the_loss(jax.random.split(jax.random.key(2), 200))
    loss, error = mean_and_error(-terms[TERMS.get(name, "elbo/bound_nats")])
    loss += np.log(10) if name == "m2" else 0.0
    assert abs(loss - bounds[1][0]) < 4 * np.hypot(error, bounds[1][1])
