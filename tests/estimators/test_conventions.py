"""scikit-learn's own checks of every estimator: none is expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from aejax.estimators import AutoencoderClassifier, AutoencoderOutlierDetector, AutoencoderTransformer

SMALL = {"latent_dim": 2, "hidden_dims": (4,), "num_epochs": 2}


@pytest.mark.slow
@parametrize_with_checks([AutoencoderTransformer(**SMALL)])
def test_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        AutoencoderTransformer("vae", patience=1, **SMALL),
        AutoencoderTransformer("vq_vae", scaling="minmax", **SMALL | {"latent_dim": 4}),
        AutoencoderClassifier(finetune_lr=0.01, **SMALL),
        AutoencoderClassifier("vae", finetune_lr=0.01, autoencoder_weight=0.1, patience=1, **SMALL),
        AutoencoderOutlierDetector(**SMALL),
        AutoencoderOutlierDetector("vae", criterion="bound", **SMALL),
        AutoencoderOutlierDetector("dae", criterion="knn", **SMALL),
        AutoencoderOutlierDetector(criterion="mahalanobis", patience=1, **SMALL),
    ]
)
def test_of_scikit_learn_with_other_methods(estimator, check):
    check(estimator)
