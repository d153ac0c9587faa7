"""Jacobians of encoders and decoders: their norms, exact and by sampling, their spectra, and the geometry they induce."""

from aejax.jacobian.exact import (
    MODES,
    check_mode,
    dense_frobenius_sq,
    embed_and_sq,
    embedding_sq,
    encoder_sq,
    frobenius_sq,
)

__all__ = [
    "MODES",
    "check_mode",
    "dense_frobenius_sq",
    "embed_and_sq",
    "embedding_sq",
    "encoder_sq",
    "frobenius_sq",
]
