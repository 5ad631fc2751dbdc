"""Ten layers of 500 units: what the scale of the first weights does to the activations.

Normal noise is sent through ten random layers. Small weights let the signal die, large ones saturate every tanh; with
1/sqrt(n) tanh lives on, with sqrt(2/n) ReLU does too. The five tables are those of the lectures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnx import viz
from nnx.course import picture
from nnx.diagnose import initialisation_tables

ROWS = ("F115",)


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Print the five tables and draw each layer's histogram."""
    units, examples = (100, 200) if small else (500, 1000)
    tables = initialisation_tables(10, units, examples, seed)
    for title, report in tables.items():
        print(f"{title}:")
        for i, layer in enumerate(report.layers, 1):
            print(f"  hidden layer {i} had mean {layer.mean:f} and std {layer.std:f}")
    if path := picture(out, "activation_statistics-stds"):
        stds = {title: (range(1, 11), report.stds) for title, report in tables.items()}
        viz.lines(stds, xlabel="layer", ylabel="standard deviation", log="y", path=path)
    for number, report in enumerate(list(tables.values())[: 1 if small else 5], 1):
        if path := picture(out, f"activation_statistics-table{number}"):
            report.plot(path)
    return {title: {"means": report.means, "stds": report.stds} for title, report in tables.items()}
