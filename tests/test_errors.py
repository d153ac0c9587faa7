"""What errors advise, taken as it stands: the name that was meant, the rate that is lowered, the whole path."""

import re
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from games import KEY, last, one_player

import aejax
from aejax import corruption, data, divergences, jacobian, likelihoods, priors, recipe, schedules, training
from aejax.algorithm import Player, play
from aejax.checks import DivergedError, InputError, nearest
from aejax.methods.aae import AAE, aae
from aejax.methods.ae import AE
from aejax.methods.cae import CAE, cae
from aejax.methods.dae import dae
from aejax.methods.sparse_ae import SparseAE, sparse_ae
from aejax.nets.conv import conv
from aejax.sweep import STRATEGIES

X = jnp.ones(3)
MAPPED, STATE = one_player(lambda params, batch, key: (0.0 * params["w"], {}), axis_name=aejax.parallel.AXIS)
SETTINGS = {"batch_size": 2, "num_epochs": 1}

# A name that is nearly one -> what takes it.
NAMES = {
    "lern": partial(getattr, aejax),
    "maskin": corruption.get,
    "img": lambda name: divergences.mmd_sq(jnp.ones((2, 1)), jnp.ones((2, 1)), kernel=name),
    "dics_lr": lambda name: aae(AAE.dense(6, 2), **{name: 1.0}),
    "gne": lambda name: aae(AAE.dense(6, 2), tx={"recon": optax.sgd, "disc": optax.sgd, name: optax.adam}),
    "revers": lambda name: jacobian.frobenius_sq(jnp.sin, X, mode=name),
    "Forward": lambda name: jacobian.hutchinson_sq(jnp.sin, X, KEY, mode=name),
    "gausian": lambda name: jacobian.hutchinson_sq(jnp.sin, X, KEY, probe=name),
    "hutchinsn": lambda name: cae(CAE.dense(6, 2), jacobian=name),
    "salt_and_peper": lambda name: dae(AE.dense(6, 2), corruption=name),
    "bernouli": likelihoods.get,
    "optimum": likelihoods.Gaussian,
    "swissroll": lambda name: priors.get(name, 2),
    "l2": lambda name: sparse_ae(SparseAE.dense(6, 4), penalty=name),
    "cosin": schedules.get,
    "slice": lambda name: conv(jnp.ones((1, 1, 3, 1)), jnp.ones((3, 3, 1, 1)), 1, name),
    "shardmap": lambda name: training.train(MAPPED, STATE, np.zeros(4, np.float32), KEY, parallel=name, **SETTINGS),
    "VAE": lambda name: recipe.check(name, "dense", 2, {}),
    "convolution": lambda name: recipe.check("vae", name, 2, {}),
    "hiden_dims": lambda name: recipe.check("vae", "dense", 2, {name: (8,)}),
    "digit": data.load,
}


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_name_that_was_meant_is_taken(name):
    with pytest.raises((InputError, AttributeError), match="Did you mean") as error:
        NAMES[name](name)
    meant = re.search(r"Did you mean '(.*?)'", str(error.value))[1]
    NAMES[name](meant)


def test_where_nothing_is_near_all_are_named_and_each_is_one():
    said = nearest("qqq", STRATEGIES, what="strategies")
    assert re.fullmatch(r"Known strategies: (.*)\.", said)[1].split(", ") == sorted(STRATEGIES)


# --- divergence -------------------------------------------------------------------------------------------------------


def descent(tx):
    """Minus the square: SGD at the rate 1 grows w 2^16-fold a step, and w^2 leaves float32 at the fifth."""
    algo = play({"p": Player(lambda p, batch, key: (-0.5 * 65535.0 * p["w"] ** 2, {}), ("w",), tx)}, [["p"]])
    return last(algo, {"w": jnp.ones(())}, np.zeros(9, np.float32), batch_size=3, num_epochs=4)


def test_a_lower_rate_and_clipped_gradients_end_a_divergence():
    with pytest.raises(DivergedError, match=r"lower the learning rate \(lr\), or clip .*optax.clip_by_global_norm"):
        descent(optax.sgd(1.0))
    for advised in (optax.sgd(1e-6), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))):
        assert np.isfinite(descent(advised).params["w"])


# --- paths ------------------------------------------------------------------------------------------------------------


def test_without_a_home_the_whole_path_is_read(tmp_path, monkeypatch):
    def nobody(path):
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", nobody)
    np.save(tmp_path / "faces.npy", np.zeros((9, 4), np.float32))
    with pytest.raises(InputError, match="give the whole path"):
        data.load("~/faces.npy")
    assert len(data.load(f"{tmp_path}/faces.npy").train.x) == 7
