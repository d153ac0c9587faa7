"""The clusterer: planted clusters by every method, k-means by scikit-learn's own, and centres where the rows are."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aejax.checks import InputError
from aejax.estimators import AutoencoderClusterer

SMALL = {"latent_dim": 2, "hidden_dims": (16,), "n_clusters": 3, "random_state": 0, "num_epochs": 10,
         "pretrain_epochs": 20, "batch_size": 32}  # fmt: skip


@pytest.fixture(scope="module")
def planted():
    """Three groups in 3-D, bent into ten columns of unequal units: `(rows, groups)`."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 400)
    flat = 2.5 * np.eye(3)[y] + 0.4 * rng.normal(size=(400, 3))
    return np.tanh(flat @ rng.normal(size=(3, 10))) * 10.0 ** rng.integers(-1, 3, 10) + 5, y


@pytest.mark.first(1)
@pytest.mark.parametrize("method", ["ae", "dec", "idec", "dcn", "vade"])
def test_planted_clusters_are_found_and_centres_lie_among_their_rows(planted, method):
    x, y = planted
    found = AutoencoderClusterer(method, **SMALL).fit(x)
    assert adjusted_rand_score(y, found.labels_) > 0.9
    np.testing.assert_array_equal(found.labels_, found.predict(x))
    assert found.cluster_centers_.shape == (3, 10)
    assert found.code_centers_.shape == (3, 2)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    centers = (found.cluster_centers_ - x.mean(axis=0)) / x.std(axis=0)
    for k in range(3):
        gaps = [np.square(scaled[found.labels_ == j].mean(axis=0) - centers[k]).sum() for j in range(3)]
        assert np.argmin(gaps) == k


def test_without_clusters_of_its_own_codes_have_those_of_k_means(planted):
    x, _ = planted
    found = AutoencoderClusterer("vae", **SMALL | {"num_epochs": 2}).fit(x)
    codes = found.fitted_.embed(found.scaler_.transform(x).astype(np.float32))
    known = KMeans(3, n_init=20, random_state=0).fit(codes)
    assert adjusted_rand_score(known.labels_, found.labels_) == 1.0
    np.testing.assert_allclose(np.sort(found.code_centers_, axis=0), np.sort(known.cluster_centers_, axis=0), rtol=1e-3)
    alone = [found.predict(row[None])[0] for row in x[:20]]
    np.testing.assert_array_equal(alone, found.labels_[:20])


def test_clusters_stay_where_a_few_rows_come(planted):
    x, y = planted
    found = AutoencoderClusterer("ae", **SMALL).fit(x)
    before = found.predict(x)
    found.partial_fit(x[y == 0][:2])
    assert np.mean(found.predict(x) == before) > 0.95


@pytest.mark.slow
def test_it_goes_on_and_stands_in_a_pipeline(planted):
    x, y = planted
    found = AutoencoderClusterer("dcn", warm_start=True, **SMALL).fit(x)
    centers = found.code_centers_
    assert np.abs(found.fit(x).code_centers_ - centers).max() > 0
    assert int(found.fitted_.state.step) == 2 * 10 * 12  # without another autoencoder before
    with pytest.raises(InputError, match="fitted with another n_clusters"):
        found.set_params(n_clusters=4).fit(x)
    labels = make_pipeline(StandardScaler(), clone(found).set_params(n_clusters=3)).fit_predict(x)
    assert adjusted_rand_score(y, labels) > 0.9
    scores = cross_val_score(AutoencoderClusterer(**SMALL), x, y, cv=2, scoring="adjusted_rand_score")
    assert scores.min() > 0.9


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 0}, "n_clusters=0; at least 1"),
        ({"n_clusters": 21}, "n_samples=20 should be >= n_clusters=21"),
        ({"method": "dec", "options": {"num_clusters": 4}}, "options has num_clusters; n_clusters is a parameter"),
        ({"method": "vade", "options": {"prior": "normal"}}, "options has prior; n_clusters is a parameter"),
        ({"options": {"pretrain_epochs": 4}}, "options has pretrain_epochs; pretrain_epochs is a parameter"),
        ({"method": "dce"}, "Unknown method 'dce'"),
        ({"method": "dec", "pretrain_epochs": -1}, "pretrain_epochs=-1"),
    ],
)
def test_refused_before_it_begins(planted, parameters, message):
    with pytest.raises(InputError, match=message):
        AutoencoderClusterer(**parameters).fit(planted[0][:20])


@pytest.mark.slow
def test_the_heads_of_an_adversarial_autoencoder_are_clusters(planted):
    """Its shares decide, without k-means; a centre is what a head is decoded to."""
    x, y = planted
    settings = {**SMALL, "num_epochs": 100, "latent_dim": 1, "options": {"gen_lr": 2e-3}}
    found = AutoencoderClusterer("aae_cluster", **settings).fit(x)
    np.testing.assert_array_equal(found.code_centers_, np.eye(3, 4))
    np.testing.assert_array_equal(found.labels_, found.fitted_.embed(found.scaler_.transform(x))[:, :3].argmax(axis=1))
    assert adjusted_rand_score(y, found.labels_) > 0.7  # 0 at random; a game of 100 passes
