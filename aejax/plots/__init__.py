"""Pictures of autoencoders. Each function returns a matplotlib `Figure`; nothing touches pyplot or its global state.

Images are laid out in whole screen pixels, never interpolated, and share one grey scale a sheet: 0 is black, 1 is
white.
"""

from aejax.plots.canvas import save
from aejax.plots.grids import filter_panels, filters, image_rows, images, reconstructions, samples
from aejax.plots.history import curves
from aejax.plots.latent import latent_scatter, manifold_grid, walk
from aejax.plots.sheet import Column, compare_sheet

__all__ = [
    "Column",
    "compare_sheet",
    "curves",
    "filter_panels",
    "filters",
    "image_rows",
    "images",
    "latent_scatter",
    "manifold_grid",
    "reconstructions",
    "samples",
    "save",
    "walk",
]
