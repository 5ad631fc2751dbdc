"""Pictures of networks and their training, drawn with matplotlib (``pip install "nnx-core[plot]"``).

Every function returns a `matplotlib.figure.Figure`, made without pyplot, and writes it where ``path=`` is given:
folders on the way are made, and the ending chooses the format (``.png``, ``.svg``, ``.pdf``).

* training: `curves`, `lines`, `bars`, `histograms`, `confusion_matrix`
* images: `images`, `filters`, `activation_maps`, `neighbour_grid`
* the plane: `decision_regions`, `paths`
* plain data, which needs no matplotlib: `as_images`, `activations`, `maximise_unit`, `available`
"""

from nnx.viz._figure import available
from nnx.viz.charts import bars, confusion_matrix, curves, histograms, lines
from nnx.viz.grids import activation_maps, as_images, filters, images, neighbour_grid
from nnx.viz.planes import decision_regions, paths
from nnx.viz.units import activations, maximise_unit

__all__ = [
    "activation_maps",
    "activations",
    "as_images",
    "available",
    "bars",
    "confusion_matrix",
    "curves",
    "decision_regions",
    "filters",
    "histograms",
    "images",
    "lines",
    "maximise_unit",
    "neighbour_grid",
    "paths",
]
