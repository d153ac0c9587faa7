"""Autoencoders as scikit-learn estimators: in pipelines, grid searches and cross-validation; extra `sklearn`."""

from aejax.extras import need

need("aejax.estimators", "sklearn", extra="sklearn")

from aejax.estimators.outliers import AutoencoderOutlierDetector  # noqa: E402
from aejax.estimators.transformer import AutoencoderTransformer  # noqa: E402

__all__ = ["AutoencoderOutlierDetector", "AutoencoderTransformer"]
