"""What the reports share: aligned columns, and numbers that stay readable over many orders of magnitude."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def columns(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines with aligned columns: text to the left, numbers to the right."""
    rows = list(rows)
    cells = [list(headers), *([number(v) for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [all(isinstance(row[i], str) for row in rows) for i in range(len(headers))]
    return "\n".join(
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, text, strict=True)).rstrip()
        for row in cells
    )


def number(value: Any) -> str:
    """`value` as text: six digits after the point for ordinary numbers, an exponent for very small and large ones."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:.6f}"
    return f"{value:.3e}"


def percent(value: float) -> str:
    """A fraction as text, such as "12.5 %"."""
    return f"{100 * value:.1f} %"
