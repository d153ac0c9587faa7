"""Fine-tuning: losses by hand, the epoch that validation chooses, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conditioned import linear_model
from sklearn.linear_model import LogisticRegression

from aejax import evaluation
from aejax.checks import DivergedError, InputError
from aejax.data import Batch, Dataset
from aejax.evaluation import finetune
from aejax.methods.ae import AE
from aejax.methods.cae import CAE
from aejax.nets import init_params

KEY = jax.random.key(0)


def _dataset(x, y, sizes=(200, 50, 50)):
    ends = np.cumsum(sizes)
    train, validation, test = (Batch(x[e - n : e], y[e - n : e]) for e, n in zip(ends, sizes, strict=True))
    return Dataset("blobs", train, validation, test, None)


def _blobs():
    """Three Gaussians in the plane, overlapping."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300).astype(np.int32)
    centres = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    return _dataset((centres[y] + rng.normal(scale=0.6, size=(300, 2))).astype(np.float32), y)


def _identity():
    """An encoder that returns what it is given."""
    model = AE.dense(2, 2, hidden_dims=())
    params = init_params(model, KEY, jnp.zeros((1, 2)))
    params["encoder"]["dense_0"] = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    return model, params


def test_the_loss_and_the_error_by_hand():
    # Logits (1, 2, 0) and (0, 0, 0): label 1 costs log(1 + e^-1 + e^-2), label 2 log 3; the second guess is class 0.
    model, params = _identity()
    classifier = {"kernel": jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), "bias": jnp.zeros((1, 3))}
    params = {"encoder": params["encoder"], "classifier": classifier}
    batch = Batch(jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([1, 2]))
    loss, metrics = evaluation.classifier_loss(params, batch, KEY, model=model)
    np.testing.assert_allclose(loss, (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(3)) / 2, rtol=1e-6)
    assert metrics["error"] == 0.5
    assert evaluation.classifier_error(model, params, batch) == 0.5


def test_with_the_encoder_at_rest_it_is_logistic_regression():
    """On identical codes the best softmax is scikit-learn's without a ridge."""
    dataset, (model, params) = _blobs(), _identity()
    at_rest = optax.multi_transform(
        {"moves": optax.sgd(0.5), "rests": optax.set_to_zero()}, {"encoder": "rests", "classifier": "moves"}
    )
    tuned = evaluation.fine_tune(model, params, dataset, KEY, tx=at_rest, num_epochs=300, batch_size=200)
    best = LogisticRegression(C=np.inf, max_iter=1000).fit(dataset.train.x, dataset.train.y)
    kernel = np.asarray(tuned.params["classifier"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, tuned.params["encoder"], params["encoder"])
    assert tuned.history[-1] == pytest.approx(1 - best.score(dataset.validation.x, dataset.validation.y), abs=1e-6)
    assert kernel.shape == (2, 3)


def test_the_epoch_of_the_lowest_validation_error_is_kept(monkeypatch):
    """Validation errors 3, 1, 2, 1: the second epoch, whose parameters give the test error."""
    dataset, (model, params) = _blobs(), _identity()
    errors, seen = iter([0.3, 0.1, 0.2, 0.1, 0.77]), []

    def scripted(model, params, batch):
        seen.append((params["classifier"]["kernel"], batch))
        return next(errors)

    monkeypatch.setattr(finetune, "classifier_error", scripted)
    tuned = finetune.fine_tune(model, params, dataset, KEY, tx=optax.sgd(0.1), num_epochs=4, batch_size=50)
    assert (tuned.epoch, tuned.validation_error, tuned.test_error) == (2, 0.1, 0.77)
    assert tuned.history == (0.3, 0.1, 0.2, 0.1)
    np.testing.assert_array_equal(tuned.params["classifier"]["kernel"], seen[1][0])
    np.testing.assert_array_equal(seen[4][0], seen[1][0])
    assert [id(batch) for _, batch in seen] == [id(dataset.validation)] * 4 + [id(dataset.test)]


def test_it_learns_the_digits_and_is_a_function_of_its_key(digits):
    from sklearn.datasets import load_digits

    dataset = _dataset(digits, load_digits().target.astype(np.int32), (1200, 297, 300))
    model = CAE.dense(64, 64)
    params = init_params(model, KEY, digits[:1])
    before = jax.tree.map(np.array, params)
    run = lambda key: evaluation.fine_tune(
        model, params, dataset, key, tx=optax.sgd(0.3, momentum=0.9), num_epochs=15, batch_size=50
    )
    first, again, other = run(KEY), run(KEY), run(jax.random.key(1))
    assert first.test_error < 0.13  # guessing is wrong in 0.9; these last 300 are the hardest
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.params["classifier"]["kernel"], other.params["classifier"]["kernel"])
    assert not np.array_equal(first.params["encoder"]["dense_0"]["kernel"], before["encoder"]["dense_0"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_a_second_call_traces_nothing():
    dataset, (model, params) = _blobs(), _identity()
    traces = []

    def update(grads, state, params=None):
        traces.append(1)
        return jax.tree.map(lambda grad: -0.1 * grad, grads), state

    tx = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    for key in (KEY, jax.random.key(1)):
        evaluation.fine_tune(model, params, dataset, key, tx=tx, num_epochs=1, batch_size=50)
    assert len(traces) == 1


def test_saturation_counts_both_ends_and_wants_sigmoids():
    assert evaluation.saturation([[0.0, 0.049, 0.05, 0.5], [0.95, 0.951, 1.0, 0.2]]) == 0.5
    for codes in ([[1.5]], [[-0.1]], np.zeros((0, 3)), [[np.nan]]):
        with pytest.raises(InputError, match=r"not all in \[0, 1\]"):
            evaluation.saturation(codes)


def test_what_cannot_be_fine_tuned_is_refused():
    dataset, (model, params) = _blobs(), _identity()
    options = {"tx": optax.sgd(0.1), "num_epochs": 1, "batch_size": 50}
    unlabelled = dataset._replace(test=Batch(dataset.test.x))
    same = dataset._replace(train=dataset.train._replace(y=np.zeros_like(dataset.train.y)))
    for bad, message in (
        (dataset._replace(validation=None), "without a validation split"),
        (unlabelled, "no labels"),
        (dataset._replace(train=dataset.train._replace(y=dataset.train.y.astype(np.float32))), "classes are integers"),
        (dataset._replace(test=dataset.test._replace(y=dataset.test.y + 9)), "that its training split lacks"),
        (same, "at least two kinds"),
    ):
        with pytest.raises(InputError, match=message):
            evaluation.fine_tune(model, params, bad, KEY, **options)
    with pytest.raises(InputError, match="ConditionedVAE sees the labels"):
        evaluation.fine_tune(linear_model()[0], params, dataset, KEY, **options)
    huge = options | {"tx": optax.sgd(1e38), "num_epochs": 5}
    with pytest.raises(DivergedError):
        evaluation.fine_tune(model, params, dataset, KEY, **huge)
