"""Jacobians of encoders and decoders: norms, exact and by sampling, spectra, and the geometry that they induce.

No weight, no optimiser and no method: a penalty is a term of the loss that takes it from here.
"""

from aejax.jacobian.exact import (
    MODES,
    check_mode,
    difference_sq,
    embed_and_sq,
    embedding_difference_sq,
    embedding_sq,
    encoder_sq,
    explain,
    frobenius_sq,
    generated_sq,
    reconstruction_sq,
    value_and_frobenius_sq,
)
from aejax.jacobian.geometry import Path, log_volume, magnification, path_length, pullback_metric, shortest_path
from aejax.jacobian.spectrum import SVD, jacobian, singular_values, spectral_norm, svd
from aejax.jacobian.stochastic import PROBES, Estimate, hutchinson_sq, hutchpp_sq

__all__ = [
    "MODES",
    "PROBES",
    "SVD",
    "Estimate",
    "Path",
    "check_mode",
    "difference_sq",
    "embed_and_sq",
    "embedding_difference_sq",
    "embedding_sq",
    "encoder_sq",
    "explain",
    "frobenius_sq",
    "generated_sq",
    "hutchinson_sq",
    "hutchpp_sq",
    "jacobian",
    "log_volume",
    "magnification",
    "path_length",
    "pullback_metric",
    "reconstruction_sq",
    "shortest_path",
    "singular_values",
    "spectral_norm",
    "svd",
    "value_and_frobenius_sq",
]
