"""Methods that begin with an autoencoder: `learn` trains it before, on the same networks, and they go on from there."""

import pickle

import jax
import numpy as np
import pytest

from aejax import Fitted, learn, training
from aejax.algorithm import begin
from aejax.checks import InputError
from aejax.data import Batch
from aejax.methods.ae import ae
from aejax.methods.dec import dec

SMALL = {"latent_dim": 2, "hidden_dims": (8,), "batch_size": 16, "num_clusters": 3, "refresh_every": 2}


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((48, 5), np.float32)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_is_an_autoencoder_and_then_the_method_from_its_parameters(x):
    fitted = learn("dec", x, num_epochs=2, pretrain_epochs=3, seed=4, **SMALL)
    model = fitted.model
    init_key, train_key, _ = jax.random.split(jax.random.key(4), 3)
    fresh = learn("dec", x, num_epochs=1, pretrain_epochs=0, lr=1e-30, seed=4, **SMALL).params
    params = {**fresh, "centres": np.zeros((3, 2), np.float32)}  # which the start sets, whatever they were
    *_, first = training.train(ae(model), ae(model).init(params), Batch(x), train_key, batch_size=16, num_epochs=3)
    algo = dec(model, refresh_every=2)
    state = jax.jit(lambda params, x: begin(algo, lambda key: params, Batch(x), init_key))(first.state.params, x)
    *_, last = training.train(algo, state, Batch(x), train_key, batch_size=16, num_epochs=2)
    np.testing.assert_allclose(last.state.params["centres"], fitted.params["centres"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), last.state, fitted.state)
    assert int(fitted.state.step) == 6  # of the method alone, as in its history
    assert [row["epoch"] for row in fitted.history] == [1, 2]


@pytest.mark.slow
def test_passes_add_up_and_targets_of_the_whole_set_are_kept(x, tmp_path):
    whole = learn("idec", x, num_epochs=4, pretrain_epochs=2, **SMALL)
    half = learn("idec", x, num_epochs=2, pretrain_epochs=2, **SMALL)
    same_bits(half.more(x, num_epochs=2, batch_size=16).state, whole.state)
    half.save(tmp_path / "half")
    for again in (Fitted.load(tmp_path / "half"), pickle.loads(pickle.dumps(half))):
        same_bits(again.more(x, num_epochs=2, batch_size=16).state, whole.state)


def test_others_have_none_and_a_number_that_is_none_is_refused(x):
    options = {"latent_dim": 2, "hidden_dims": (8,), "num_epochs": 1}
    same_bits(learn("ae", x, pretrain_epochs=7, **options).state, learn("ae", x, **options).state)
    for count in (-1, 1.5):
        with pytest.raises(InputError, match=f"pretrain_epochs={count}"):
            learn("dec", x, pretrain_epochs=count, **options)
    with pytest.raises(InputError, match="60 clusters of 48 examples"):
        learn("dec", x, num_clusters=60, pretrain_epochs=10**9, **options)  # before any training


def test_ctrl_c_before_returns_the_method_as_it_would_begin(x, monkeypatch):
    whole, calls = training.train, []

    def train(*args, **options):
        calls.append(0)
        for chunk in whole(*args, **options):
            yield chunk
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", train)
    with pytest.warns(UserWarning, match="this is what was learnt in 1 of 30 steps"):
        fitted = learn("dec", x, num_epochs=2, pretrain_epochs=10, **SMALL)
    assert len(calls) == 1
    assert int(fitted.state.step) == 0
    assert fitted.history == []
    monkeypatch.undo()
    assert int(fitted.more(x, num_epochs=1, batch_size=16).state.step) == 3


def test_patience_does_not_go_by_targets_that_move(x):
    with pytest.raises(InputError, match=r"The loss of dec jumps .* leave it out"):
        learn("dec", x, validation=x, patience=2, pretrain_epochs=10**9, **SMALL)
    fitted = learn("dec", x, num_epochs=1, pretrain_epochs=0, **SMALL)
    with pytest.raises(InputError, match="The loss of dec jumps"):
        fitted.more(x, validation=x, patience=2)
