"""Training that goes on, and training that ends early: against the runs that do neither."""

import pickle

import jax
import numpy as np
import pytest

from aejax import learn
from aejax.checks import InputError

SMALL = {"latent_dim": 2, "hidden_dims": (8,), "batch_size": 16}


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((48, 5), np.float32)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("method", ["vae", pytest.param("dae", marks=pytest.mark.slow)])
def test_what_goes_on_is_the_run_that_was_not_interrupted(x, method):
    whole = learn(method, x, num_epochs=3, seed=5, validation=x[:7], **SMALL)
    first = learn(method, x, num_epochs=1, seed=5, validation=x[:7], **SMALL)
    before = jax.tree.map(np.asarray, first.state)
    more = first.more(x, num_epochs=2, seed=5, batch_size=16, validation=x[:7])
    same_bits(more.state, whole.state)
    assert more.history == whole.history
    same_bits(first.state, before)
    assert len(first.history) == 1


def test_other_data_of_another_length_are_counted_from_a_whole_epoch_of_theirs(x):
    first = learn("ae", x[:40], num_epochs=2, **SMALL)  # four steps
    more = first.more(x, batch_size=16)  # of three steps, from the sixth on
    assert int(first.state.step) == 4
    assert int(more.state.step) == 9
    assert [row["step"] for row in more.history] == [2, 4, 9]


@pytest.mark.slow
def test_patience_goes_by_the_first_player_and_not_by_the_first_letter(x):
    """The lowest bound, not the lowest loss of the discriminator."""
    options = {**SMALL, "num_epochs": 6, "seed": 2, "validation": x[:20]}
    rows = learn("factor_vae", x, **options).history
    best = {name: min(rows, key=lambda row, name=name: row[f"val/{name}/loss"])["step"] for name in ("elbo", "disc")}
    assert best["elbo"] != best["disc"]
    assert int(learn("factor_vae", x, patience=6, **options).state.step) == best["elbo"]


def test_history_goes_on_from_the_model_and_no_worse_one_is_returned(x):
    options = {**SMALL, "latent_dim": 5, "hidden_dims": (64,), "lr": 0.02, "likelihood": "gaussian", "seed": 1}
    held_out = np.random.default_rng(1).random((40, 5), np.float32)
    first = learn("ae", x, num_epochs=60, validation=held_out, patience=4, **options)
    more = first.more(x, num_epochs=20, batch_size=16, seed=1, validation=held_out, patience=2)
    steps = [row["step"] for row in more.history]
    assert steps == sorted(set(steps))
    assert min(row["val/recon/loss"] for row in first.history) <= more.history[-1]["val/recon/loss"]
    same_bits(more.state.params, first.state.params)  # the first epochs after it are worse


def test_a_pickle_trains_on_as_what_was_pickled(x):
    first = learn("ae", x, num_epochs=1, activation=jax.nn.relu, **SMALL)
    again = pickle.loads(pickle.dumps(first))
    same_bits(again.more(x, batch_size=16).state, first.more(x, batch_size=16).state)


def test_patience_ends_with_the_epoch_of_the_lowest_loss(x):
    """Noise is learnt by heart: the loss of other noise rises soon."""
    options = {**SMALL, "latent_dim": 5, "hidden_dims": (64,), "lr": 0.02, "likelihood": "gaussian", "seed": 1}
    held_out = np.random.default_rng(1).random((40, 5), np.float32)
    whole = learn("ae", x, num_epochs=60, validation=held_out, **options)
    losses = [row["val/recon/loss"] for row in whole.history]
    best = next(i for i in range(60) if min(losses[i + 1 : i + 5]) >= losses[i] == min(losses[: i + 1]))
    assert best < 50
    early = learn("ae", x, num_epochs=60, validation=held_out, patience=4, **options)
    assert [row["val/recon/loss"] for row in early.history] == losses[: best + 5]
    assert int(early.state.step) == 3 * (best + 1)
    same_bits(early.state, learn("ae", x, num_epochs=best + 1, validation=held_out, **options).state)


def test_refused_before_it_begins(x):
    with pytest.raises(InputError, match="give validation=x"):
        learn("ae", x, patience=3, **SMALL)
    with pytest.raises(InputError, match="patience"):
        learn("ae", x, validation=x, patience=0, **SMALL)
    fitted = learn("ae", x, num_epochs=1, **SMALL)
    with pytest.raises(InputError, match=r"\[N, 5\] is needed, as it was learnt"):
        fitted.more(x[:, :4])
    with pytest.raises(InputError, match="num_epochs"):
        fitted.more(x, num_epochs=0)


def test_a_loss_that_couples_examples_is_not_validated_on_one(x):
    for name in ("ebgan", "wae_mmd"):
        with pytest.raises(InputError, match="validation needs at least 2"):
            learn(name, x, validation=x[:1], num_epochs=1, **SMALL)
