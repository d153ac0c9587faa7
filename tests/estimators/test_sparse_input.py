"""Sparse matrices: the same fit and the same answers, to the bit, as of the dense array that they stand for."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from aejax.checks import InputError
from aejax.estimators import (
    AutoencoderClassifier,
    AutoencoderClusterer,
    AutoencoderOutlierDetector,
    AutoencoderTransformer,
)

SMALL = {"latent_dim": 2, "hidden_dims": (4,), "num_epochs": 2, "random_state": 0}
ESTIMATORS = {
    "transform": AutoencoderTransformer("mult_dae", scaling="none", **SMALL),
    "score_samples": AutoencoderOutlierDetector(**SMALL),
    "predict_proba": AutoencoderClassifier(finetune_epochs=2, **SMALL),
    "predict": AutoencoderClusterer(n_clusters=2, **SMALL),
}


@pytest.mark.parametrize("asked", ESTIMATORS)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_array])
@pytest.mark.first(4)
def test_the_answers_are_those_of_the_dense_array(asked, kind):
    rng = np.random.default_rng(0)
    X = rng.poisson(0.3, size=(60, 7)).astype(np.float64)
    X[:, 0] += 1
    y = (X[:, 1] > 0).astype(int)
    estimator = ESTIMATORS[asked]
    whole = getattr(estimator.fit(X, y), asked)(X[:9])
    found = getattr(estimator.fit(kind(X), y), asked)(kind(X[:9]))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, whole)


def test_what_would_not_fit_is_refused():
    with pytest.raises(InputError, match=r"made dense, takes .* GiB"):
        ESTIMATORS["score_samples"].fit(sparse.csr_matrix((10**6, 10**6)))


@pytest.mark.slow
def test_words_behind_a_vectoriser():
    """Documents of two vocabularies lie apart along one number of code."""
    rng = np.random.default_rng(0)
    words = np.array([[f"{kind}{i}" for i in range(20)] for kind in "ab"])
    kinds = np.arange(80) % 2
    documents = [" ".join(rng.choice(words[kind], 12)) for kind in kinds]
    settings = {"scaling": "none", "latent_dim": 1, "num_epochs": 200, "random_state": 0}
    codes = make_pipeline(TfidfVectorizer(), AutoencoderTransformer(**settings)).fit_transform(documents).ravel()
    assert max(codes[kinds == k].max() < codes[kinds != k].min() for k in (0, 1))
