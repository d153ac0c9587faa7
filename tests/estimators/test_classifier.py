"""The classifier against logistic regression, its loss against its parts, and what labels may be."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from aejax import ae_loss
from aejax.checks import InputError
from aejax.data import Batch
from aejax.estimators import AutoencoderClassifier
from aejax.estimators.classifier import regularised_loss
from aejax.methods.m2 import SemiBatch

SMALL = {"latent_dim": 2, "hidden_dims": (8,), "random_state": 0, "num_epochs": 2, "finetune_epochs": 2}


@pytest.fixture(scope="module")
def rows():
    """Three classes that overlap, and their labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    return rng.normal(size=(300, 4)) + np.eye(4)[y] * [2, 1, 1, 0], y


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_linear_codes_classify_as_logistic_regression_does(rows):
    x, y = rows
    linear = {"latent_dim": 4, "hidden_dims": (), "batch_size": 300, "finetune_lr": 0.03, "finetune_epochs": 800}
    found = AutoencoderClassifier(random_state=0, **linear).fit(x, y)
    scaled = StandardScaler().fit_transform(x)
    best = log_loss(y, LogisticRegression(C=np.inf, tol=1e-8).fit(scaled, y).predict_proba(scaled))
    assert best <= log_loss(y, found.predict_proba(x)) < 1.001 * best
    np.testing.assert_allclose(found.predict_proba(x).sum(axis=1), 1)


def test_the_loss_is_that_of_the_labels_and_so_many_times_that_of_the_autoencoder(rows):
    x, y = rows
    found = AutoencoderClassifier("ae", autoencoder_weight=0.3, **SMALL).fit(x, y)
    params, model, key = found.tuned_.params, found.model_, jax.random.key(3)
    few, many = Batch(jnp.float32(x[:9]), jnp.int32(y[:9])), Batch(jnp.float32(x))
    own = (found.fitted_.algorithm, "recon/loss", 0.3)
    loss, terms = regularised_loss(params, SemiBatch(few, many), key, model=model, own=own)
    dense = jax.tree.map(np.float64, params)
    z = np.float64(x[:9])
    for name in ("dense_0", "dense_1"):
        layer = dense["encoder"][name]
        z = z @ layer["kernel"] + layer["bias"]
        z = np.maximum(z, 0) if name == "dense_0" else z
    scores = z @ dense["classifier"]["kernel"] + dense["classifier"]["bias"]
    nats = np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(9), y[:9]])
    beside = ae_loss({k: v for k, v in params.items() if k != "classifier"}, many, key, model=model)[0]
    assert float(terms["class_nats"]) == pytest.approx(nats, rel=1e-5)
    assert float(loss) == pytest.approx(nats + 0.3 * float(beside), rel=1e-5)
    assert not np.array_equal(
        params["decoder"]["dense_0"]["kernel"], found.fitted_.params["decoder"]["dense_0"]["kernel"]
    )
    alone = AutoencoderClassifier("ae", **SMALL).fit(x, y)
    same(alone.tuned_.params["decoder"], alone.fitted_.params["decoder"])  # the labels say nothing of it


def test_minus_one_is_an_unknown_label_but_for_one_other_class(rows):
    x, y = rows
    few = np.where(np.arange(300) % 5, -1, y)
    found = AutoencoderClassifier(**SMALL).fit(x, few)
    assert found.classes_.tolist() == [0, 1, 2]
    assert set(found.predict(x)) <= {0, 1, 2}
    changed = x + 0.0
    changed[1::5] += 3.0  # rows without a label are trained on too
    assert not np.array_equal(AutoencoderClassifier(**SMALL).fit(changed, few).predict_proba(x), found.predict_proba(x))
    two = AutoencoderClassifier(**SMALL).fit(x, np.where(y > 0, 1, -1))
    assert two.classes_.tolist() == [-1, 1]
    floats = AutoencoderClassifier(**SMALL).fit(x, few.astype(float))
    assert floats.classes_.tolist() == [0.0, 1.0, 2.0]
    names = AutoencoderClassifier(**SMALL).fit(x, np.array(["-1", "a", "b"])[y])
    assert names.classes_.tolist() == ["-1", "a", "b"]
    with pytest.raises(InputError, match="None of the 300 labels is known, all are -1"):
        AutoencoderClassifier(**SMALL).fit(x, np.full(300, -1))


def test_passes_over_labels_add_up(rows):
    x, y = rows
    whole = AutoencoderClassifier(**SMALL | {"finetune_epochs": 4}).fit(x, y)
    twice = AutoencoderClassifier(warm_start=True, **SMALL).fit(x, y).fit(x, y)
    twice_more = (
        pickle.loads(pickle.dumps(AutoencoderClassifier(**SMALL).fit(x, y))).partial_fit(x, y).partial_fit(x, y)
    )
    for other in (twice, twice_more):
        same(other.tuned_, whole.tuned_)
        same(other.fitted_.state, whole.fitted_.state)
    parts = AutoencoderClassifier(**SMALL).partial_fit(x[:50], np.zeros(50, int), classes=[0, 1, 2])
    assert parts.partial_fit(x, y).predict_proba(x).shape == (300, 3)
    with pytest.raises(InputError, match=r"Labels \[7\] are not among those of the first rows, \[0, 1, 2\]"):
        parts.partial_fit(x, y + 5 * (y == 2))
    with pytest.raises(InputError, match=r"classes=\[0, 1, 2, 3\]; the first call had \[0, 1, 2\]"):
        parts.partial_fit(x, y, classes=[0, 1, 2, 3])
    assert AutoencoderClassifier(**SMALL).fit(x, y % 2).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "aae", "autoencoder_weight": 1.0}, "Use autoencoder_weight=0"),
        ({"autoencoder_weight": -1.0}, "autoencoder_weight"),
        ({"finetune_epochs": 0}, "finetune_epochs=0; at least 1"),
        ({"finetune_lr": 0.0}, "finetune_lr"),
        ({"method": "cvae"}, "cvae is trained with labels"),
    ],
)
def test_refused_before_it_begins(rows, parameters, message, monkeypatch):
    monkeypatch.setattr("aejax.estimators.base.learn", None)
    with pytest.raises(InputError, match=message):
        AutoencoderClassifier(**SMALL | parameters).fit(*rows)


def test_advice_on_a_method_of_several_losses_is_right(rows):
    assert AutoencoderClassifier("aae", **SMALL).fit(*rows).score(*rows) > 1 / 3
