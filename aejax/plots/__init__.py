"""Pictures of autoencoders. Each function returns a matplotlib `Figure`; nothing touches pyplot or its global state.

Images are laid out in whole screen pixels, never interpolated, and share one grey scale a sheet: 0 is black, 1 is
white.
"""

from aejax.plots.canvas import save
from aejax.plots.dots import dots
from aejax.plots.embeddings import Embedding, embeddings
from aejax.plots.fields import level_errors, vector_fields
from aejax.plots.geometry import Connection, Magnification, magnification_map, paths
from aejax.plots.grids import filter_panels, filters, image_rows, images, reconstructions, samples, styles
from aejax.plots.history import curves, histories
from aejax.plots.latent import latent_scatter, manifold_grid, walk
from aejax.plots.lines import ContractionCurve, contraction_curves, spectra
from aejax.plots.panels import Curve, Lines, line_panels
from aejax.plots.rates import RateDistortion, rate_distortion
from aejax.plots.sheet import Column, compare_sheet
from aejax.plots.tangents import tangents

__all__ = [
    "Column",
    "Connection",
    "ContractionCurve",
    "Curve",
    "Embedding",
    "Lines",
    "Magnification",
    "RateDistortion",
    "compare_sheet",
    "contraction_curves",
    "curves",
    "dots",
    "embeddings",
    "filter_panels",
    "filters",
    "histories",
    "image_rows",
    "images",
    "latent_scatter",
    "level_errors",
    "line_panels",
    "magnification_map",
    "manifold_grid",
    "paths",
    "rate_distortion",
    "reconstructions",
    "samples",
    "save",
    "spectra",
    "styles",
    "tangents",
    "vector_fields",
    "walk",
]
