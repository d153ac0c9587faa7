"""The transformer against PCA, against `learn`, and against itself: more epochs, other units, other processes."""

import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aejax.checks import DivergedError, InputError
from aejax.estimators import AutoencoderTransformer
from aejax.estimators.base import weighted

LINEAR = {"hidden_dims": (), "options": {"lr": 0.03}, "random_state": 0}
SMALL = {"latent_dim": 2, "hidden_dims": (8,), "random_state": 0, "num_epochs": 2}


@pytest.fixture(scope="module")
def rows():
    """Of columns that have little in common but their factors, 3 of them."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(300, 6))) * 10.0 ** np.arange(
        -2, 4
    )


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_linear_codes_keep_what_principal_components_keep(rows):
    found = AutoencoderTransformer(latent_dim=2, **LINEAR).fit(rows)
    scaled = StandardScaler().fit_transform(rows)
    pca = PCA(2).fit(scaled)
    lost = np.square(scaled - pca.inverse_transform(pca.transform(scaled))).mean()
    assert lost <= -found.score(rows) < 1.01 * lost
    x_hat = found.inverse_transform(found.transform(rows))
    in_units = np.square((rows - x_hat) / rows.std(axis=0)).mean()
    assert in_units == pytest.approx(-found.score(rows), rel=1e-5)


def test_units_do_not_matter_and_precision_stays(rows):
    found, large = (AutoencoderTransformer(**SMALL).fit(k * rows) for k in (1.0, 1024.0))
    same(found.transform(rows), large.transform(1024 * rows))
    assert found.transform(rows).dtype == found.inverse_transform(found.transform(rows)).dtype == np.float64
    single = found.transform(rows.astype(np.float32))
    assert single.dtype == found.inverse_transform(single).dtype == np.float32
    huge = AutoencoderTransformer(**SMALL).fit(1e60 * rows)  # beyond what the networks count with
    assert np.isfinite(huge.score(1e60 * rows))


def test_passes_add_up(rows):
    whole = AutoencoderTransformer("vae", **{**SMALL, "num_epochs": 4}).fit(rows)
    twice = AutoencoderTransformer("vae", warm_start=True, **SMALL).fit(rows).fit(rows)
    parts = AutoencoderTransformer("vae", **SMALL)
    for _ in range(3):
        parts.partial_fit(rows)
    again = pickle.loads(pickle.dumps(parts)).partial_fit(rows)
    for other in (twice, again):
        same(other.fitted_.state, whole.fitted_.state)
    assert [row["epoch"] for row in again.fitted_.history] == [1, 2, 3, 4]


def test_neither_the_order_of_rows_nor_that_of_their_weights_matters():
    alike = 1000 + np.random.default_rng(3).normal(size=(200, 5))
    rows = np.concatenate([alike, [[1e17, 1, 1, 1, 1], [1e17, 2, 1, 1, 1]]]).astype(np.float32)
    weights = np.random.default_rng(4).random(202)
    order = np.random.default_rng(5).permutation(202)
    for given in (None, weights, np.round(3 * weights)):
        there = weighted(rows, given)
        same(rows[there], rows[order][weighted(rows[order], None if given is None else given[order])])
        assert given is None or len(there) == (round(given.sum()) if given[0] == round(given[0]) else 202)
    classes = np.arange(202) % 3
    twice, both = np.concatenate([rows, rows]), np.concatenate([classes, classes[::-1]])
    order = np.random.default_rng(6).permutation(404)
    same(both[weighted(twice, None, both)], both[order][weighted(twice[order], None, both[order])])
    with pytest.raises(InputError, match=r"adds up to 2.02e\+17 rows; divide it"):
        weighted(rows, np.full(202, 1e15))


def test_what_fails_leaves_what_was_fitted(rows):
    found = AutoencoderTransformer(**SMALL).fit(rows)
    codes = found.transform(rows)
    with pytest.raises(DivergedError):
        found.set_params(options={"lr": 1e30}).fit(100 * rows[:, :4] + 7)
    same(found.transform(rows), codes)
    fresh = AutoencoderTransformer(**SMALL | {"options": {"lr": 1e30}})
    with pytest.raises(DivergedError):
        fresh.fit(rows)
    with pytest.raises(NotFittedError):
        fresh.transform(rows)
    with pytest.raises(InputError, match="fitted with another latent_dim, options"):
        found.set_params(latent_dim=3, warm_start=True).fit(rows)


TRACES = []


def counted(x):
    TRACES.append(x.shape)
    return jax.nn.relu(x)


def test_the_second_fit_of_a_shape_compiles_nothing_nor_does_another_number_of_rows_that_are_looked_at(rows):
    model = AutoencoderTransformer(**{**SMALL, "options": {"activation": counted}}).fit(rows)
    codes = model.transform(rows)
    model.inverse_transform(codes)
    before = len(TRACES)
    again = clone(model).set_params(random_state=1, num_epochs=3).fit(rows[::-1] * 2.0)
    for part in (rows, rows[:1], rows[:77]):
        again.inverse_transform(again.transform(part))
    assert before == len(TRACES)
    assert not np.array_equal(again.transform(rows), codes)


def test_the_scaling_is_of_the_rows_that_are_trained_on(rows):
    found = AutoencoderTransformer(patience=1, validation_fraction=0.4, **SMALL).fit(rows)
    means = found.scaler_.mean_
    assert found.scaler_.n_samples_seen_ == 180
    found.transform(rows + 100)
    same(found.scaler_.mean_, means)


def test_a_grid_of_codes_in_a_pipeline_finds_the_size_that_keeps_most():
    x = load_digits().data[:300]
    model = AutoencoderTransformer(
        scaling="minmax", num_epochs=20, hidden_dims=(), options={"lr": 0.01}, random_state=0
    )
    search = GridSearchCV(model, {"latent_dim": [1, 12]}, cv=2).fit(x)
    assert search.best_params_ == {"latent_dim": 12}
    assert make_pipeline(StandardScaler(), search.best_estimator_).fit_transform(x).shape == (300, 12)


def test_columns_have_names():
    frame = load_iris(as_frame=True).data
    options = {**SMALL, "num_epochs": 60, "options": {"lr": 0.01}}
    found = AutoencoderTransformer("vae", **options).set_output(transform="pandas").fit(frame)
    codes = found.transform(frame)
    assert isinstance(codes, pd.DataFrame)
    assert list(codes.columns) == ["autoencodertransformer0", "autoencodertransformer1"]
    assert list(found.feature_names_in_) == list(frame.columns)
    same(found.sample(4, random_state=3), found.sample(4, random_state=3))
    assert np.abs(found.sample(500, random_state=3).mean(axis=0) - frame.mean()).max() < 0.5  # centimetres
    with pytest.raises(ValueError, match="feature names"):
        found.transform(frame.rename(columns={frame.columns[0]: "height"}))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "vea"}, "Did you mean 'vae'"),
        ({"method": "cvae"}, r"is trained with labels; use aejax.learn\('cvae', x, y\)"),
        ({"scaling": "robust"}, "Unknown scaling='robust'. Known scalings: minmax, none, standard"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"options": {"beta": 4.0}}, "has no option 'beta'"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"scaling": "none", "options": {"likelihood": "bernoulli"}}, "bernoulli"),
        ({"method": "count_vae"}, "use scaling='none'"),
        ({"options": {"seed": 3}}, "options has seed"),
    ],
)
def test_refused_before_it_begins(rows, parameters, message):
    with pytest.raises(InputError, match=message):
        AutoencoderTransformer(**parameters).fit(rows)
