"""scikit-learn's own checks of every estimator: none is expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from aejax.estimators import (
    AutoencoderClassifier,
    AutoencoderClusterer,
    AutoencoderOutlierDetector,
    AutoencoderTransformer,
)

SMALL = {"latent_dim": 2, "hidden_dims": (4,), "num_epochs": 2}
CLUSTERS = {"latent_dim": 2, "hidden_dims": (16,), "num_epochs": 8, "pretrain_epochs": 8, "batch_size": 16}


@pytest.mark.slow
@parametrize_with_checks([AutoencoderTransformer(**SMALL)])
def test_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        AutoencoderTransformer("vq_vae", scaling="minmax", **SMALL | {"latent_dim": 4}),
        AutoencoderClassifier("vae", finetune_lr=0.01, autoencoder_weight=0.1, patience=1, **SMALL),
        AutoencoderOutlierDetector("vae", criterion="bound", patience=1, **SMALL),
        AutoencoderClusterer(n_clusters=3, **CLUSTERS),
        AutoencoderClusterer("dec", n_clusters=3, options={"refresh_every": 5}, **CLUSTERS),
    ]
)
def test_of_scikit_learn_with_other_methods(estimator, check):
    check(estimator)
