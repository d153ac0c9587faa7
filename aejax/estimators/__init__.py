"""Autoencoders as scikit-learn estimators: in pipelines, grid searches and cross-validation; extra `sklearn`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aejax import extras

if TYPE_CHECKING:
    from aejax.estimators.classifier import AutoencoderClassifier
    from aejax.estimators.clusterer import AutoencoderClusterer
    from aejax.estimators.outliers import AutoencoderOutlierDetector
    from aejax.estimators.transformer import AutoencoderTransformer

__all__ = ["AutoencoderClassifier", "AutoencoderClusterer", "AutoencoderOutlierDetector", "AutoencoderTransformer"]

_MODULES = {
    "AutoencoderClassifier": "classifier",
    "AutoencoderClusterer": "clusterer",
    "AutoencoderOutlierDetector": "outliers",
    "AutoencoderTransformer": "transformer",
}


def __getattr__(name: str) -> Any:
    """The classes, which scikit-learn's are the bases of, once somebody asks for one."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extras.need(f"aejax.estimators.{name}", "sklearn", extra="sklearn")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
