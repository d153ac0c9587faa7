"""What the refusals of factories and of models advise, taken as it stands."""

import re
from functools import partial
from importlib import import_module
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax
from aejax import likelihoods, priors
from aejax.algorithm import Phase, Player, Refresh, Rule, play
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods import METHODS
from aejax.methods.aae import AAE, aae
from aejax.methods.ae import AE, ae
from aejax.methods.began import BEGAN, began
from aejax.methods.cvae import CVAE
from aejax.methods.m2 import M2, SemiBatch, m2
from aejax.methods.sparse_ae import SparseAE, sparse_ae
from aejax.methods.vae import VAE, vae
from aejax.methods.vq_vae import VQVAE, vq_vae
from aejax.nets import init_params
from aejax.priors import LearnedMixture

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((8, 6)).astype(np.float32)
Y = np.arange(8, dtype=np.int32) % 2
MODEL = VAE.dense(6, 2, hidden_dims=())
OPTIMAL = VAE.dense(6, 2, likelihood="gaussian_optimal")


class Told(VQVAE):
    takes_labels: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("refused", "advised"),
    [
        (partial(vae, MODEL, tx=optax.adam(1e-3)), partial(vae, MODEL, tx=optax.adam, lr=1e-3)),
        (partial(vae, MODEL, tx=1e-3), partial(vae, MODEL, tx=lambda lr: optax.adam(1e-3))),
        (partial(vae, MODEL, tx=lambda lr: lr), partial(vae, MODEL, tx=lambda lr: optax.adam(lr))),
        (
            partial(aae, AAE.dense(6, 2), tx={"recon": optax.sgd, "gen": optax.sgd}),
            partial(aae, AAE.dense(6, 2), tx={"recon": optax.sgd, "gen": optax.sgd, "disc": lambda lr: optax.adam(lr)}),
        ),
        (partial(vae, OPTIMAL, axis_name="devices"), partial(vae, OPTIMAL)),
        (partial(m2, CVAE.dense(6, 2)), partial(m2, M2.dense(6, 2))),
        (partial(began, AE.dense(6, 2)), lambda: began(type("Own", (BEGAN,), {}).dense(6, 2))),
        (partial(ae, AE.dense(6, 2, prior=LearnedMixture(3))), partial(ae, AE.dense(6, 2, prior="normal"))),
        (partial(ae, AE.dense(6, 2, prior=LearnedMixture(3))), partial(vae, VAE.dense(6, 2, prior=LearnedMixture(3)))),
        (partial(vq_vae, Told.dense(6, 4, entry_dim=2)), partial(vae, CVAE.dense(6, 2))),
        (partial(BEGAN.dense, 6, 2, tied=True), partial(BEGAN.dense, 6, 2, tied=False)),
        *(
            (
                partial(began, BEGAN.dense(6, 2, likelihood="gaussian_learned")),
                partial(began, BEGAN.dense(6, 2, likelihood=name)),
            )
            for name in ("bernoulli", "gaussian")
        ),
        (
            partial(m2, M2.dense(6, 2, likelihood="gaussian_optimal")),
            partial(m2, M2.dense(6, 2, likelihood=likelihoods.Gaussian(0.1))),
        ),
        (
            partial(sparse_ae, SparseAE.dense(6, 4, code_activation=None)),
            partial(sparse_ae, SparseAE.dense(6, 4, code_activation=jax.nn.sigmoid)),
        ),
        (partial(likelihoods.get, likelihoods.Gaussian), partial(likelihoods.get, likelihoods.Gaussian(variance=0.1))),
        *((partial(priors.get, 3.0, 2), partial(priors.get, name, 2)) for name in sorted(priors.PRIORS)),
        (partial(priors.get, 3.0, 2), partial(priors.get, priors.StandardNormal(2), 2)),
        (partial(priors.get, "swiss_roll", 3), partial(priors.get, "swiss_roll", 2)),
        (partial(priors.get, "swiss_roll", 3), partial(priors.get, "normal", 3)),
        (
            partial(m2(M2.dense(6, 2)).check, Batch(X, Y)),
            lambda: m2(M2.dense(6, 2)).check(SemiBatch(Batch(X, Y), Batch(X))),
        ),
        (partial(vae(CVAE.dense(6, 2)).check, Batch(X)), lambda: vae(CVAE.dense(6, 2)).check(Batch(X, Y))),
    ],
)
def test_the_advice_of_a_refusal_is_accepted(refused, advised):
    with pytest.raises(InputError):
        refused()
    advised()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_the_model_and_the_knobs_that_it_advises(name):
    """`VAE.dense(784, 20)`, `aejax.methods.vae.HParams(lr, beta)`, `lr=1e-3`."""
    build = METHODS[name].build
    with pytest.raises(InputError, match=r"such as \w+\.dense\(784, 20\)") as error:
        build(METHODS[name].model)
    kind = re.search(r"such as (\w+)\.dense", str(error.value))[1]
    model = getattr(aejax, kind).dense(36, 26)  # of more units than the k of the sparse ones
    with pytest.raises(InputError, match="each knob by its name, such as lr=1e-3") as error:
        build(model, {"lr": 1e-3})
    module, knobs = re.search(r"takes (aejax\.methods\.\w+)\.HParams\((.*?)\)", str(error.value)).groups()
    defaults = METHODS[name].hparams()._asdict()
    given = import_module(module).HParams(*(defaults[knob] for knob in knobs.split(", ")))
    assert build(model, given) is build(model)
    build(model, lr=1e-3)


def test_many_numbers_at_once_are_mapped():
    """What a sweep makes of them is in `test_sweep`."""
    beta = np.array([0.5, 2.0], np.float32)
    with pytest.raises(InputError, match=r"are for aejax\.sweep\.sweep or jax\.vmap"):
        vae(MODEL, beta=beta)
    assert callable(aejax.sweep.sweep)
    state = vae(MODEL).init(init_params(MODEL, KEY, X))
    evaluate = lambda b: vae(MODEL, beta=b).evaluate(state, Batch(X), KEY)["elbo/loss"]
    assert jax.eval_shape(jax.vmap(evaluate), beta).shape == (2,)


def test_a_knob_may_be_each_of_the_schedules_that_are_named():
    with pytest.raises(InputError, match=r"one of aejax\.schedules: Ramp, Cycle, Decay") as error:
        vae(MODEL, beta=optax.linear_schedule(0.0, 1.0, 5))
    for name in str(error.value).partition("aejax.schedules: ")[2].rstrip(".").split(", "):
        vae(MODEL, beta=getattr(aejax.schedules, name)())


# --- games ------------------------------------------------------------------------------------------------------------


def mean(params, batch, key):
    return params["w"].sum(), {}


def weighed(params, batch, key, weight):
    return weight * params["w"].sum(), {}


def player(**fields):
    return Player(**{"loss": mean, "groups": ("w",), "tx": optax.sgd(1.0)} | fields)


def refreshed(groups, every):
    return partial(play, {"p": player()}, [["p"]], refreshes=[Refresh(lambda p, d, k: {"w": p["w"]}, groups, every)])


TWO = {"p": player(), "rival": player()}


@pytest.mark.parametrize(
    ("refused", "advised"),
    [
        (partial(play, {"p": player(groups="w")}, [["p"]]), partial(play, {"p": player(groups=("w",))}, [["p"]])),
        (partial(play, {"p": player(groups=())}, [["p"]]), partial(play, {"p": player()}, [["p"]])),
        (
            partial(play, {"p": player(tx=optax.adam)}, [["p"]]),
            partial(play, {"p": player(tx=optax.adam(1e-3))}, [["p"]]),
        ),
        (partial(play, {"p": player()}, ["p"]), partial(play, {"p": player()}, [["p"]])),
        (partial(play, {"p": player()}, [Phase("p", 2)]), partial(play, {"p": player()}, [Phase(["p"], 2)])),
        (partial(play, TWO, [["p", "rival"]]), partial(play, TWO, [["p"], ["rival"]])),
        (refreshed("w", 1), refreshed(("w",), 1)),
        (refreshed(("w",), 0), refreshed(("w",), 1)),
        *(
            (
                partial(play, {"p": player(knobs={"weight": optax.linear_schedule(0, 1, 2)})}, [["p"]]),
                partial(play, {"p": player(loss=weighed, knobs={"weight": weight})}, [["p"]]),
            )
            for weight in (0.5, aejax.schedules.Ramp(), aejax.schedules.Cycle(), aejax.schedules.Decay())
        ),
        (
            partial(play, TWO, [Phase(("p",), 2), Phase(("rival",), 3)]),
            partial(play, TWO, [Phase(("p",), 2), Phase(("rival",), 1)]),
        ),
    ],
)
def test_the_advice_about_a_game_makes_one(refused, advised):
    with pytest.raises(InputError):
        refused()
    algo = advised()
    algo.step(algo.init({"w": jnp.ones(2)}), jnp.zeros(8), KEY)


def test_what_a_loss_is_told_to_return_is_taken():
    def step(loss, batch=8, phases=(("p",),), params=None):
        algo = play({"p": player(loss=loss)}, phases)
        return algo.step(algo.init(params or {"w": jnp.ones(2)}), jnp.zeros(batch), KEY)[1]

    with pytest.raises(InputError, match="take its mean"):
        step(lambda p, batch, key: (p["w"].sum(), {"each": batch}))
    assert step(lambda p, batch, key: (p["w"].sum(), {"each": batch.mean()}))["p/each"] == 0
    with pytest.raises(InputError, match=r"wanted is \(scalar, metrics\)"):
        step(lambda p, batch, key: p["w"].sum())
    assert step(mean)["p/loss"] == 2
    with pytest.raises(InputError, match="give what is inside, by group"):
        step(mean, params={"params": {"w": jnp.ones(2)}})
    with pytest.raises(InputError, match="5 or 10 would be"):
        step(mean, batch=7, phases=[Phase(("p",), 5)])
    for size in (5, 10):
        step(mean, batch=size, phases=[Phase(("p",), 5)])


def test_what_a_rule_is_told_to_return_is_taken():
    def step(measure, update):
        rule = Rule(measure, update, ("w",))
        algo = play({"r": rule}, [["r"]])
        return algo.step(algo.init({"w": jnp.ones(())}), jnp.ones(4), KEY)[0].params["w"]

    sums = lambda params, batch, key: (batch.sum(), {})
    with pytest.raises(InputError, match=r"wanted is \(sums, metrics\)"):
        step(lambda params, batch, key: batch.sum(), lambda params, total, key: {"w": total})
    with pytest.raises(InputError, match=r"wanted is a dict of its groups, \['w'\]"):
        step(sums, lambda params, total, key: total)
    with pytest.raises(InputError, match=r"its groups are \['w'\]"):
        step(sums, lambda params, total, key: {"v": total})
    assert step(sums, lambda params, total, key: {"w": total}) == 4
