"""The detector: scores by other means, thresholds by counting, and outliers that were planted."""

import jax
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from aejax.checks import InputError
from aejax.data import Batch
from aejax.estimators import AutoencoderOutlierDetector
from aejax.methods.vae import vae_loss

SMALL = {"latent_dim": 2, "hidden_dims": (16,), "random_state": 0, "num_epochs": 3}


def circle(count, seed):
    """In 10 columns, with a little noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, count)
    waves = np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)], axis=1)
    return waves @ np.random.default_rng(9).normal(size=(4, 10)) + 0.05 * rng.normal(size=(count, 10))


@pytest.fixture(scope="module")
def planted():
    """Normal rows, and as many whose columns were shuffled among rows: each column as it was, what they share gone."""
    rng, normal = np.random.default_rng(2), circle(300, 1)
    return np.concatenate([normal, rng.permuted(normal, axis=0)]), np.repeat([0, 1], 300)


def test_planted_outliers_are_found_and_training_is_why(planted):
    x, is_outlier = planted
    auc = {}
    for epochs in (1, 150):
        found = AutoencoderOutlierDetector(**{**SMALL, "num_epochs": epochs, "options": {"lr": 3e-3}})
        auc[epochs] = roc_auc_score(is_outlier, -found.fit(circle(400, 0)).score_samples(x))
    assert auc[150] > max(0.9, auc[1] + 0.1)


@pytest.mark.parametrize(
    ("method", "criterion"),
    [("ae", "reconstruction"), ("vae", "bound"), ("ae", "knn"), ("ae", "mahalanobis"), ("deep_svdd", "centre")],
)
def test_scores_are_what_they_are_called(method, criterion):
    train, new = circle(200, 0), circle(100, 1)
    found = AutoencoderOutlierDetector(method, criterion=criterion, **SMALL).fit(train)
    scores, scaled = found.score_samples(new), found.scaler_.transform(new).astype(np.float32)
    codes, known = (found.fitted_.embed(found.scaler_.transform(x).astype(np.float32)) for x in (new, train))
    assert len(np.unique(scores)) > 0.9 * len(new)
    if criterion == "reconstruction":
        expected = -np.square(scaled - found.fitted_.reconstruct(scaled)).sum(axis=1)
    elif criterion == "knn":
        expected = -np.sort(np.linalg.norm(codes[:, None] - known[None], axis=2), axis=1)[:, 4]
    elif criterion == "centre":
        expected = -np.square(codes - np.asarray(found.fitted_.params["centre"])).sum(axis=1)
    elif criterion == "mahalanobis":
        gap = codes - known.mean(axis=0)
        expected = -np.einsum("ni,ij,nj->n", gap, np.linalg.inv(LedoitWolf().fit(known).covariance_), gap)
    else:
        loss = jax.vmap(lambda key: vae_loss(found.fitted_.params, Batch(scaled), key, model=found.model_)[0])
        losses = loss(jax.random.split(jax.random.key(5), 400))
        error = float(losses.std()) * np.sqrt(len(new) / 16)  # all rows share the noise of 16 draws
        assert abs(scores.mean() + float(losses.mean())) < 4 * error
        return
    np.testing.assert_allclose(scores, expected, rtol=2e-3, atol=1e-4)


def test_the_threshold_calls_as_many_outliers_as_is_said():
    train = circle(1000, 0)
    found = AutoencoderOutlierDetector(contamination=0.25, **SMALL).fit(train)
    assert (found.predict(train) == -1).mean() == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("criterion", ["reconstruction", "knn", "mahalanobis"])
def test_as_many_false_alarms_as_is_said(criterion):
    """Of rows that were neither trained on nor held out."""
    train, new = circle(1000, 0), circle(4000, 1)
    options = {"false_alarm_rate": 0.1, "validation_fraction": 0.5, "n_neighbors": 2, **SMALL}
    found = AutoencoderOutlierDetector(criterion=criterion, **options).fit(train)
    share = (found.predict(new) == -1).mean()
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 * (1 / 500 + 1 / 4000))
    assert found.scaler_.n_samples_seen_ == 500
    with pytest.raises(InputError, match="99 are needed"):
        found.set_params(false_alarm_rate=0.01).fit(train[:100])


def test_another_criterion_takes_effect_with_the_next_fit():
    x = circle(100, 0)
    found = AutoencoderOutlierDetector(**SMALL).fit(x)
    before = found.decision_function(x)
    found.set_params(criterion="knn")
    np.testing.assert_array_equal(found.decision_function(x), before)
    assert np.abs(found.partial_fit(x).decision_function(x) - before).max() > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"criterion": "bound"}, "ae has no bound; use criterion='reconstruction', or method='vae'"),
        ({"criterion": "centre"}, "ae has no centre; use criterion='reconstruction', or method='deep_svdd'"),
        ({"criterion": "knm"}, "Did you mean 'knn'"),
        ({"contamination": 0.6}, "contamination=0.6"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate=1.0"),
        ({"criterion": "knn", "n_neighbors": 1}, "n_neighbors=1; a training row counts itself"),
        (
            {"method": "vae", "criterion": "bound", "options": {"likelihood": "gaussian_optimal"}},
            "has no bound of its own",
        ),
    ],
)
def test_refused_before_it_begins(parameters, message):
    with pytest.raises(InputError, match=message):
        AutoencoderOutlierDetector(**parameters).fit(circle(20, 0))
    found = AutoencoderOutlierDetector(**SMALL).fit(circle(20, 0))
    with pytest.raises(ValueError, match="9 features"):
        found.predict(circle(20, 0)[:, :9])
