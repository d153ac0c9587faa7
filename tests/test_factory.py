"""What every factory does with what it is given: by name, by player, again, and wrong."""

import inspect
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aejax
from aejax import methods, training
from aejax.algorithm import Player, play, transform_batch
from aejax.checks import InputError
from aejax.data import Batch, binarize
from aejax.evaluation import fine_tune
from aejax.factory import NonNegative, Positive, check_data, check_knobs, one_player
from aejax.methods.aae import AAE, aae
from aejax.methods.ae import AE, ae
from aejax.methods.began import began
from aejax.methods.cae import CAE, cae, cae_loss
from aejax.methods.cvae import CVAE
from aejax.methods.dae import dae
from aejax.methods.m2 import M2, m2
from aejax.methods.vae import VAE, HParams, vae
from aejax.nets import MLP, init_params
from aejax.priors import LearnedMixture
from aejax.schedules import Decay, Ramp

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((8, 6)).astype(np.float32)
MODEL = VAE.dense(6, 2, hidden_dims=(), likelihood="gaussian")


# --- knobs -----------------------------------------------------------------------------------------------------------


def test_a_knob_by_name_is_that_knob_of_hparams_and_goes_before_it():
    assert vae(MODEL, beta=4.0) is vae(MODEL, HParams(beta=4.0))
    assert vae(MODEL, HParams(1e-2, 1.0), beta=4.0) is vae(MODEL, HParams(1e-2, 4.0))
    assert vae(MODEL, beta=4.0) is not vae(MODEL)


def test_a_knob_may_be_a_schedule_and_so_may_the_rate():
    params = init_params(MODEL, KEY, X)
    algo = vae(MODEL, beta=Ramp(0.0, 8.0, 4), lr=Ramp(0.5, 1e-30, 1), tx=optax.sgd)
    step, state = jax.jit(algo.step), algo.init(params)
    for beta in (0.0, 2.0, 4.0):
        before, (state, metrics) = state.params["decoder"], step(state, Batch(X), KEY)
        terms = {name: float(value) for name, value in metrics.items()}
        weighed = terms["elbo/recon_nats"] + beta * terms["elbo/kl_nats"]
        np.testing.assert_allclose(terms["elbo/loss"], weighed, rtol=1e-6)
        stands = jax.tree.all(jax.tree.map(np.array_equal, before, state.params["decoder"]))
        assert stands == (beta > 0)  # the rate is 1/2 at the first step, and next to nothing from then on


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (partial(vae, MODEL, betta=4.0), "vae has no keyword 'betta'. Did you mean 'beta'"),
        (partial(cae, CAE.dense(6, 2), jacobain="reverse"), "Did you mean 'jacobian'"),
        (partial(aae, AAE.dense(6, 2), dics_lr=1.0), "Did you mean 'disc_lr'"),
        (partial(vae, MODEL, beta=-1.0), "beta is -1"),
        (partial(vae, MODEL, beta=Ramp(0.0, -1.0, 5)), "beta is -1"),
        (partial(vae, MODEL, beta=float("nan")), "beta is nan"),
        (partial(vae, MODEL, lr=0.0), "lr is 0"),
        (partial(vae, MODEL, lr="0.1"), "lr is '0.1'; a number is wanted"),
        (partial(vae, MODEL, beta=None), "beta is None; a number is wanted"),
        (partial(vae, MODEL, beta=optax.linear_schedule(0.0, 1.0, 5)), "one of aejax.schedules: Ramp, Cycle, Decay"),
        (partial(vae, MODEL, beta=jnp.ones(3)), "Many numbers at once are for aejax.sweep"),
        (partial(vae, MODEL, 1e-3), r"hparams is a float; vae takes aejax\.methods\.vae\.HParams\(lr, beta\)"),
        (partial(vae, MODEL, optax.adam), "hparams is a function"),
        (partial(vae, MODEL, None), "hparams is a NoneType"),
        (partial(vae, MODEL, methods.METHODS["ae"].hparams()), r"hparams is a aejax\.methods\.ae\.HParams"),
        (partial(dae, AE.dense(6, 2), level=1.5, corruption="masking"), "level is 1.5"),
        (partial(cae, CAE.dense(6, 2), memory_limit=0), "memory_limit is 0"),
    ],
)
def test_what_is_no_knob_is_refused_by_name(build, says):
    with pytest.raises(InputError, match=says):
        build()


def test_ranges_are_read_off_the_types():
    class Knobs(NamedTuple):
        lr: Positive = 1e-3
        weight: NonNegative = 0.0
        shift: float = 0.0

    check_knobs(Knobs(shift=-3.0))
    for wrong in (Knobs(lr=0.0), Knobs(weight=-1e-9), Knobs(shift=[1.0])):
        with pytest.raises(InputError):
            check_knobs(wrong)


# --- what is made, and made once -------------------------------------------------------------------------------------


def test_help_and_signature_are_those_of_a_function_written_by_hand():
    signature = inspect.signature(cae)
    assert list(signature.parameters) == [
        *("model", "hparams", "tx", "jacobian", "memory_limit", "lr", "contraction", "axis_name")
    ]
    assert signature.parameters["model"].annotation is CAE
    assert signature.parameters["jacobian"].default == inspect.signature(cae_loss).parameters["jacobian"].default
    assert (cae.__name__, cae.__module__) == ("cae", "aejax.methods.cae")
    assert all(f"\n{part}:\n" in cae.__doc__ for part in ("Args", "Returns", "Raises"))
    with pytest.raises(TypeError, match="model"):
        cae()


@pytest.mark.parametrize("name", methods.METHODS)
def test_defaults_of_a_loss_are_those_of_its_factory(name):
    build = methods.METHODS[name].build
    offered = inspect.signature(build).parameters
    for other, value in vars(inspect.getmodule(build)).items():
        if not other.endswith("_loss") or value.__module__ != build.__module__:
            continue
        for keyword in inspect.signature(value).parameters.values():
            if keyword.name in offered and keyword.name != "model" and keyword.default is not keyword.empty:
                assert offered[keyword.name].default == keyword.default, (other, keyword.name)


def test_equal_calls_make_one_object_and_others_another():
    again = VAE.dense(6, 2, hidden_dims=(), likelihood="gaussian")
    assert vae(MODEL) is vae(again, HParams(), optax.adam, axis_name=None)
    assert vae(MODEL, beta=Ramp(0.0, 1.0, 5)) is vae(again, beta=Ramp(0.0, 1.0, 5))
    assert aae(AAE.dense(6, 2), tx={"recon": optax.sgd, "disc": optax.sgd, "gen": optax.adam}) is aae(
        AAE.dense(6, 2), tx={"gen": optax.adam, "disc": optax.sgd, "recon": optax.sgd}
    )
    apart = [
        vae(MODEL),
        vae(MODEL.clone(likelihood="bernoulli")),
        vae(MODEL, beta=2.0),
        vae(MODEL, beta=2),  # equal to 2.0, and another dtype to JAX
        vae(MODEL, tx=optax.sgd),
        vae(MODEL, axis_name="devices"),
        vae(MODEL, beta=Ramp(0.0, 1.0, 0.5)),
        vae(MODEL, beta=Decay(0.0, 1.0, 0.5)),  # as tuples, these are equal
        *(vae(MODEL, beta=jnp.float32(1.0)) for _ in range(2)),
    ]
    assert len({id(algo) for algo in apart}) == len(apart)


TRACED = []


def counted(v):
    TRACED.append(v)
    return jnp.tanh(v)


def test_the_second_train_of_an_equal_call_traces_nothing():
    counts = []
    for seed in range(3):
        model = AE(MLP((2,), final_activation=counted), MLP((6,)), 2)
        algo = ae(model, lr=0.01)
        state = algo.init({"encoder": params_of(6, 2), "decoder": params_of(2, 6)})
        list(training.train(algo, state, Batch(X), jax.random.key(seed), batch_size=4, num_epochs=2))
        counts.append(len(TRACED))
    assert counts[0] > 0
    assert counts == counts[:1] * 3


def params_of(n, m):
    return {"dense_0": {"kernel": jnp.full((n, m), 0.1), "bias": jnp.zeros(m)}}


def test_what_is_made_under_a_trace_can_be_used_outside_of_it():
    tx = lambda lr: optax.sgd(jnp.float32(0.5) * lr)  # an array, made by the factory

    def moved(scale):
        algo = vae(MODEL, tx=tx)
        params = init_params(MODEL, KEY, jnp.asarray(X))
        state, _ = algo.step(algo.init(params), Batch(scale * X), KEY)
        return state.params

    inside = jax.jit(moved)(1.0)
    assert vae(MODEL, tx=tx) is vae(MODEL, tx=tx)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), moved(1.0), inside)


# --- optimisers ------------------------------------------------------------------------------------------------------


def test_optimisers_by_player():
    model = AAE.dense(6, 2, hidden_dims=(), discriminator=MLP((1,)))
    still = lambda lr: optax.set_to_zero()
    algo = aae(model, tx={"recon": still, "disc": optax.sgd, "gen": still})
    params = init_params(model, KEY, X)
    after = jax.jit(algo.step)(algo.init(params), Batch(X), KEY)[0].params
    moved = {group for group in params if not jax.tree.all(jax.tree.map(np.array_equal, params[group], after[group]))}
    assert moved == {"discriminator"}


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (partial(vae, MODEL, tx=optax.adam(1e-3)), "tx is an optimiser; a function from the learning rate"),
        (partial(vae, MODEL, tx=1e-3), "tx is 0.001; a function"),
        (partial(vae, MODEL, tx=lambda lr: lr), "tx makes a float for player 'elbo'"),
        (partial(vae, MODEL, tx={"ebo": optax.sgd}), "tx names the player 'ebo'. Did you mean 'elbo'"),
        (partial(aae, AAE.dense(6, 2), tx={"recon": optax.sgd, "gen": optax.sgd}), r"the players \['disc'\]"),
        (partial(aae, AAE.dense(6, 2), tx={"gen": optax.sgd(0.1)}), "tx is an optimiser"),
        (partial(Player, None, ("a",), optax.adam), None),
    ],
)
def test_the_wrong_kind_of_optimiser_is_refused(build, says):
    if says is None:
        player = build()
        build, says = partial(play, {"a": player}, [["a"]]), "tx='adam'; an optimiser is wanted"
    with pytest.raises(InputError, match=says):
        build()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (VAE, r"vae takes a built model, such as VAE.dense\(784, 20\); got <class .*VAE"),
        ("vae", r"vae takes a built model, such as VAE.dense\(784, 20\); got 'vae'"),
        (AE, r"such as AE.dense\(784, 20\)"),
        (CVAE, r"such as CVAE.dense\(784, 20\)"),
    ],
)
def test_what_is_no_model_is_refused(model, says):
    with pytest.raises(InputError, match=says):
        vae(model)


@pytest.mark.parametrize(
    ("build", "model", "says"),
    [
        (m2, CVAE, "m2 takes a M2, which has a classifier beside; CVAE has the networks encoder, decoder: build a M2"),
        (aae, AE, "aae takes a AAE, which has a discriminator beside; AE has"),
        (began, AE, "began takes a BEGAN, which has a generator beside"),
    ],
)
def test_a_model_without_a_network_of_the_method_is_refused(build, model, says):
    with pytest.raises(InputError, match=says):
        build(model.dense(6, 2))


class ToldAAE(AAE):
    takes_labels: ClassVar[bool] = True


def test_labels_and_learned_priors_are_taken_by_the_methods_whose_losses_have_a_place_for_them():
    mixture = LearnedMixture(3)
    for build, model in ((aae, ToldAAE.dense(6, 2)), (m2, M2.dense(6, 2, prior=mixture)), (vae, CVAE.dense(6, 2))):
        build(model)
    for build, model in ((aae, AAE.dense(6, 2, prior=mixture)), (ae, AE.dense(6, 2, prior=mixture))):
        with pytest.raises(InputError, match="No loss here learns the prior LearnedMixture"):
            build(model)


def test_fine_tuning_takes_an_optimiser_and_says_so():
    batch = Batch(X, np.arange(8, dtype=np.int32) % 2)
    dataset = aejax.data.Dataset("eight", batch, batch, batch, None)
    model = AE.dense(6, 2, hidden_dims=())
    with pytest.raises(InputError, match=r"tx='adam'; an optimiser is wanted, such as optax\.adam\(1e-3\)"):
        fine_tune(model, init_params(model, KEY, X), dataset, KEY, tx=optax.adam, num_epochs=1, batch_size=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tx",
    [
        lambda lr: optax.lbfgs(),
        lambda lr: optax.chain(optax.sgd(lr), optax.contrib.reduce_on_plateau(patience=1, cooldown=0)),
    ],
    ids=["lbfgs", "reduce_on_plateau"],
)
def test_optimisers_that_want_the_loss_have_it(tx):
    """One batch and one draw of noise: L-BFGS goes down at every step, and a rate is cut where nothing improves."""
    algo = vae(MODEL, lr=1e-30, tx=tx)  # with plain gradients this stands still; L-BFGS finds its own rate
    step, state, losses = jax.jit(algo.step), algo.init(init_params(MODEL, KEY, X)), []
    for _ in range(5):
        state, metrics = step(state._replace(step=jnp.zeros((), jnp.int32)), Batch(X), KEY)
        losses.append(float(metrics["elbo/loss"]))
    plateaus = [leaf for leaf in jax.tree.leaves(state.opt_states, is_leaf=is_plateau) if is_plateau(leaf)]
    if plateaus:
        assert losses == losses[:1] * 5
        assert float(plateaus[0].scale) < 0.1
    else:
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0] - 0.1


def is_plateau(leaf):
    return isinstance(leaf, optax.contrib.ReduceLROnPlateauState)


# --- data ------------------------------------------------------------------------------------------------------------


def refused(model, data):
    """What `train` says about the data, before the first step; `evaluate` says the same."""
    algo = ae(model)
    state = algo.init({"encoder": params_of(6, 2), "decoder": params_of(2, 6)})
    said = []
    for run in (
        lambda: training.train(algo, state, data, KEY, batch_size=4, num_epochs=1),
        lambda: training.evaluate(algo, state, data, KEY),
    ):
        with pytest.raises(InputError) as error:
            run()
        said.append(str(error.value))
    assert said[0] == said[1]
    return said[0]


BERNOULLI = AE.dense(6, 2, hidden_dims=())
GAUSSIAN = AE.dense(6, 2, hidden_dims=(), likelihood="gaussian")
BYTES = np.arange(48, dtype=np.uint8).reshape(8, 6) * 5


@pytest.mark.parametrize(
    ("model", "data", "says", "advice"),
    [
        (BERNOULLI, X, "The data are a ndarray; a Batch is wanted: aejax.Batch(x)", lambda x: aejax.Batch(x)),
        (BERNOULLI, jnp.asarray(X), "a Batch is wanted", lambda x: aejax.Batch(x)),
        (BERNOULLI, Batch(BYTES), "values from 0 to 235", lambda batch: Batch(batch.x / 255)),
        (BERNOULLI, Batch(jnp.asarray(BYTES)), "Rescale with x / 255", lambda batch: Batch(batch.x / 255)),
        (BERNOULLI, Batch(BYTES % 2), "x.astype(np.float32)", lambda batch: Batch(batch.x.astype(np.float32))),
        (BERNOULLI, Batch(X > 0.5), "dtype bool", lambda batch: Batch(batch.x.astype(np.float32))),
        (GAUSSIAN, Batch(BYTES), "dtype uint8", lambda batch: Batch(batch.x.astype(np.float32))),
        (GAUSSIAN, Batch(np.where(X > 0.9, np.nan, X)), "NaN or infinity", None),
        (GAUSSIAN, Batch(X.astype(complex)), "complex128", None),
        (BERNOULLI, Batch(X - 1.0), "values from -", lambda batch: Batch((batch.x - batch.x.min()) / np.ptp(batch.x))),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_and_the_advice_is_good(model, data, says, advice):
    assert says in refused(model, data)
    if advice is not None:
        algo = ae(model)
        state = algo.init({"encoder": params_of(6, 2), "decoder": params_of(2, 6)})
        assert np.isfinite(training.evaluate(algo, state, advice(data), KEY)["recon/loss"])


def test_a_transform_is_looked_through():
    grey = Batch(X * 2.0)  # up to 2, which are no probabilities
    algo = transform_batch(ae(BERNOULLI), lambda key, batch: batch._replace(x=batch.x / 2))
    algo.check(grey)
    with pytest.raises(InputError, match="values from"):
        transform_batch(ae(BERNOULLI), lambda key, batch: batch).check(grey)
    transform_batch(ae(BERNOULLI), binarize).check(Batch(X))


class Conditioned(AE):
    takes_labels = True


def test_a_conditioned_model_wants_labels():
    model = Conditioned.dense(6, 2)
    check_data(model, Batch(X, np.zeros(8, np.int32)))
    with pytest.raises(InputError, match="labels"):
        check_data(model, Batch(X))


@pytest.mark.parametrize("name", ["ae", "vae", "aae", "stacked"])
def test_a_likelihood_that_couples_makes_the_method_coupled(name):
    method = methods.METHODS[name]
    for likelihood in ("gaussian", "gaussian_optimal"):
        model = method.model.dense(6, 2, likelihood=likelihood)
        assert method.build(model).coupled == (likelihood == "gaussian_optimal")
    with pytest.raises(InputError, match=r"goes by the whole batch, .*leave axis_name out, and train under jit"):
        method.build(model, axis_name="devices")


# --- the registry ----------------------------------------------------------------------------------------------------


def test_a_new_method_is_a_module_a_loss_knobs_and_a_line():
    class Knobs(NamedTuple):
        lr: Positive = 1e-3
        weight: NonNegative = 0.5

    def loss(params, batch, key, *, model, weight=0.5, power=2):
        z = model.bind({"params": params}).encode(batch.x)
        return weight * jnp.abs(z**power).mean(), {}

    with pytest.raises(InputError, match=r"loss has no axis_name: .* Take axis_name=None and give it"):
        one_player("shrink", loss, AE, Knobs, coupled=True)

    def told(params, batch, key, *, model, weight=0.5, axis_name=None):
        return loss(params, batch, key, model=model, weight=weight)

    assert one_player("shrink", told, AE, Knobs, coupled=True)(GAUSSIAN).coupled
    algo = one_player("shrink", loss, AE, Knobs)(GAUSSIAN, weight=2.0, power=1)
    assert not algo.coupled
    value = algo.evaluate(algo.init({"encoder": params_of(6, 2), "decoder": params_of(2, 6)}), Batch(X), KEY)
    np.testing.assert_allclose(value["recon/loss"], 2 * 0.1 * X.sum(axis=1).mean(), rtol=1e-5)
